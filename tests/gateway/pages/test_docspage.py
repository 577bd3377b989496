"""The page at /docs over HTTP: what is served, with which headers, to anybody. tests/browser has it in a browser."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from tools.testkit.gateway.harness import Harness

FILES = {
    "/docs": "text/html",
    "/docs/page.css": "text/css",
    "/docs/page.js": "text/javascript",
    "/docs/dom.js": "text/javascript",
    "/docs/schema.js": "text/javascript",
    "/docs/tryit.js": "text/javascript",
    "/docs/icon.svg": "image/svg+xml",
}


@pytest.mark.parametrize("path", FILES)
async def test_anyone_reads_the_page_and_it_may_load_nothing_from_elsewhere(gw: Harness, path: str) -> None:
    answer = await gw.call("GET", path, token=None, user=None)
    assert (answer.http, answer.headers["Content-Type"]) == (200, f"{FILES[path]}; charset=utf-8")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Set-Cookie" not in answer.headers
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_every_file_of_the_page_is_served(gw: Harness) -> None:
    names = [entry.name for entry in resources.files("linkis_ecm.gateway.pages").joinpath("docs").iterdir()]
    assert {f"/docs/{name}" for name in names if name != "index.html"} | {"/docs"} == set(FILES)
    page = (await gw.call("GET", "/docs")).raw.decode()
    scripts = "".join([(await gw.call("GET", path)).raw.decode() for path in FILES if path.endswith(".js")])
    asked = re.findall(r'(?:href|src)="(docs/[^"]+)"', page) + re.findall(r'from "\./([^"]+)"', scripts)
    assert {f"/docs/{name.removeprefix('docs/')}" for name in asked} == set(FILES) - {"/docs"}


async def test_the_page_has_no_inline_script_or_style_and_names_no_other_host(gw: Harness) -> None:
    whole = "".join([(await gw.call("GET", path)).raw.decode() for path in FILES])
    assert not re.search(r"<style|<script(?![^>]*src=)| style=| on[a-z]+=\"|innerHTML|eval\(|localStorage", whole)
    assert set(re.findall(r"https?://[^\"' ]+", whole)) == {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("path", ["/docs/other.js", "/docs/../app.py", "/docs/%2e%2e/app.py", "/docs/page.py"])
async def test_a_file_that_the_page_does_not_have_is_404(gw: Harness, path: str) -> None:
    answer = await gw.call("GET", path)
    assert answer.http == 404
    assert "/docs lists" in answer.message


async def test_a_slash_at_the_end_leads_to_the_page(gw: Harness) -> None:
    answer = await gw.call("GET", "/docs/", allow_redirects=False)
    assert (answer.http, answer.headers["Location"]) == (308, "../docs")


async def test_only_reading_is_served(gw: Harness) -> None:
    assert (await gw.call("POST", "/docs")).http == 405

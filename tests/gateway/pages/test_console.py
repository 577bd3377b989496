"""The console at /console over HTTP: its files, its policy, its weight. tests/browser has it in a browser."""

from __future__ import annotations

import gzip
import re
from importlib import resources
from pathlib import PurePosixPath

import pytest

from tools.testkit.gateway.harness import Harness

FOLDER = resources.files("linkis_ecm.gateway.pages").joinpath("console")
OWN = sorted(entry.name for entry in FOLDER.iterdir() if entry.is_file())
VENDORED = sorted(
    f"vendor/{entry.name}"
    for entry in FOLDER.joinpath("vendor").iterdir()
    if entry.is_file() and not entry.name.endswith("LICENSE")
)
SERVED = [name for name in (*OWN, *VENDORED) if name != "index.html"]
# The script of all pages together, as gzip sends it.
SCRIPT_MAX = 100 * 1024


def read(name: str) -> str:
    return FOLDER.joinpath(*PurePosixPath(name).parts).read_text()


@pytest.mark.parametrize("path", ["/console", *(f"/console/{name}" for name in SERVED)])
async def test_anyone_reads_the_files_and_they_may_load_nothing_from_elsewhere(gw: Harness, path: str) -> None:
    answer = await gw.call("GET", path, token=None, user=None)
    assert answer.http == 200
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "connect-src": "'self'",
        "img-src": "'self' data: blob:", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'", "trusted-types": "console-frame",
    }  # fmt: skip
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "Set-Cookie" not in answer.headers
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_all_script_together_weighs_less_than_100_kib_packed() -> None:
    weight = {name: len(gzip.compress(read(name).encode())) for name in SERVED if name.endswith(("js", "mjs"))}
    assert sum(weight.values()) < SCRIPT_MAX, weight


async def test_a_browser_gets_the_files_packed(gw: Harness) -> None:
    answer = await gw.call("GET", "/console/app.js", headers={"Accept-Encoding": "gzip, br"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert gzip.decompress(answer.raw).decode() == read("app.js")
    assert "Content-Encoding" not in (await gw.call("GET", "/console/app.js")).headers


def test_the_pages_have_no_inline_script_or_style_and_keep_nothing() -> None:
    own = "".join(read(name) for name in OWN)
    banned = r"<style|<script(?![^>]*src=)| style=\"| on[a-z]+=\"|innerHTML|eval\("
    banned += r"|localStorage|sessionStorage|document\.cookie|indexedDB"
    assert not re.search(banned, own)
    assert set(re.findall(r"https?://[^\"' ]+", own)) == {"http://www.w3.org/2000/svg"}


def test_each_import_names_a_file_that_is_there() -> None:
    for name in (one for one in OWN if one.endswith(".js")):
        for asked in re.findall(r'(?:from|import\()\s*"\./([^"]+)"', read(name)):
            assert asked in SERVED, (name, asked)
    page = read("index.html")
    assert {one.removeprefix("console/") for one in re.findall(r'(?:href|src)="([^"]+)"', page)} <= set(SERVED)


@pytest.mark.parametrize(
    "path",
    ["/console/other.js", "/console/../app.py", "/console/%2e%2e/serve.py", "/console/vendor/%2e%2e/serve.py",
     "/console/vendor/preact.LICENSE", "/console/vendor", "/console/vendor/preact",
     "/console/vendor/preact/package.json"],
)  # fmt: skip
async def test_a_file_that_the_console_does_not_have_is_404(gw: Harness, path: str) -> None:
    assert (await gw.call("GET", path)).http == 404


async def test_a_slash_at_the_end_leads_to_the_page(gw: Harness) -> None:
    answer = await gw.call("GET", "/console/", allow_redirects=False)
    assert (answer.http, answer.headers["Location"]) == (308, "../console")


@pytest.mark.parametrize("page", ["console", "docs"])
async def test_the_pages_file_leads_to_the_page_whose_links_are_relative(gw: Harness, page: str) -> None:
    answer = await gw.call("GET", f"/{page}/index.html", allow_redirects=False)
    assert (answer.http, answer.headers["Location"]) == (308, f"../{page}")
    assert (await gw.call("GET", f"/{page}/index.html")).http == 200


async def test_the_gateways_own_address_leads_to_the_console(gw: Harness) -> None:
    async with gw.session.get(f"{gw.url}/", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (307, "console")
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    async with gw.session.get(f"{gw.url}/") as answer:
        assert (answer.status, answer.url.path) == (200, "/console")

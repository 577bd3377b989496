"""Who is logged in at the console: after a logout the next person in the same tab finds nothing of the former one."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from linkis_ecm.gateway.http.errors import no_login
from tools.testkit.browser.chromium import PATIENCE, Tab
from tools.testkit.browser.console import findings, go, keep_own_clock, live, log_in
from tools.testkit.gateway.harness import TOKEN, Harness

pytestmark = pytest.mark.asyncio(loop_scope="module")
expect.set_options(timeout=PATIENCE)
SECRET = "password = 'of alice'"


async def works(tab: Tab, gw: Harness) -> None:
    """alice has a cell, a draft, a page of an engine in the address, and a name in a filter."""
    gw.engine(name="python-alice-1")
    gw.engine(name="python-bob-1", spec={"user": "bob"})
    tab.seen.expected = "Failed to load resource"
    await log_in(tab, "alice", to="run/linkis/python-alice-1")
    await live(tab)
    await tab.page.get_by_label("Code", exact=True).fill(f"{SECRET} sent")
    await tab.page.keyboard.press("Control+Enter")
    # The engine's agent is not there: a cell with a refusal is a cell.
    await tab.page.locator(".cell").get_by_role("alert").wait_for()
    await tab.page.get_by_label("Code", exact=True).fill(f"{SECRET} typed")


async def finds_nothing(tab: Tab) -> None:
    """bob logs in where alice was."""
    await tab.page.get_by_label("User name").fill("bob")
    await tab.page.locator("#token").fill(TOKEN)
    await tab.page.get_by_role("button", name="Log in").click()
    await expect(tab.page.locator(".who")).to_have_text("bob")
    assert "alice" not in tab.page.url
    await live(tab)
    for page in ("run/linkis/python-bob-1", "run/linkis/python-alice-1"):
        await go(tab, page)
        editor = tab.page.get_by_label("Code", exact=True)
        await expect(editor).to_have_value("")
        assert await tab.page.locator(".cell").count() == 0
        assert SECRET not in await tab.page.content()


async def is_at_login(page: Page) -> None:
    await page.get_by_label("User name").wait_for()
    assert "#" not in page.url
    assert "alice" not in await page.title()
    assert SECRET not in await page.content()


async def test_after_a_logout_the_next_person_finds_nothing(tab: Tab, gw: Harness) -> None:
    await works(tab, gw)
    await tab.page.get_by_role("button", name="Log out").click()
    await is_at_login(tab.page)
    await finds_nothing(tab)


async def test_after_a_login_that_was_withdrawn_the_next_person_finds_nothing(
    tab: Tab, gw: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await works(tab, gw)

    async def expired(_: Any) -> Any:
        raise no_login("Authorization: the Bearer token has expired: get a new one")

    with monkeypatch.context() as patch:
        patch.setattr(gw.authenticator, "authenticate", expired)
        await tab.page.get_by_role("button", name="Run", exact=True).click()
        await expect(tab.page.get_by_role("alert")).to_contain_text("the Bearer token has expired")
        await is_at_login(tab.page)
    await finds_nothing(tab)
    # The sentence is not told again.
    await tab.page.reload()
    await tab.page.get_by_label("User name").wait_for()
    assert await tab.page.get_by_role("alert").count() == 0


@pytest.mark.parametrize("name", ["josé", "名", "a\u00a0b", "a\u202eb"])
async def test_a_name_that_no_header_carries_is_refused_by_the_page(tab: Tab, name: str) -> None:
    await tab.page.goto(f"{tab.url}/console")
    await tab.page.get_by_label("User name").fill(name)
    await tab.page.locator("#token").fill(TOKEN)
    tab.seen.requests.clear()
    await tab.page.get_by_role("button", name="Log in").click()
    await expect(tab.page.get_by_role("alert")).to_contain_text("use letters without accents")
    assert tab.seen.requests == []


def token_until(at: float, user: str = "alice") -> str:
    def part(data: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part({'exp': at, 'sub': user})}.c2lnbmVk"


async def test_the_end_of_a_login_is_told_a_minute_before_and_a_new_token_goes_on(
    tab: Tab, gw: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who the tokens are of is what the gateway says; the page reads of them when they end."""
    gw.engine(name="python-alice-1")
    people = {token_until(time.time() + 300): "alice", token_until(time.time() + 3000): "alice",
              token_until(time.time() + 3000, "bob"): "bob"}  # fmt: skip
    first, second, other = people
    used: list[str] = []

    async def who(route: Route) -> None:
        token = route.request.headers["authorization"].removeprefix("Bearer ")
        used.append(token)
        me = {
            "user": people[token], "admin": False, "readOnly": False, "namespaces": None, "adminNamespaces": [],
            "engineNamespaces": ["linkis"], "ecmInstance": "x", "archive": False, "records": False,
        }  # fmt: skip
        await route.fulfill(json={"method": "", "status": 0, "message": "", "data": me})

    headers: list[str] = []

    async def as_alice(route: Route) -> None:
        sent = route.request.headers
        headers.append(sent.pop("authorization"))
        await route.continue_(headers=sent | {"token-code": TOKEN, "token-user": "alice"})

    await tab.page.route("**/api/**", as_alice)
    await tab.page.route("**/whoAmI", who)
    await keep_own_clock(tab.page)
    await tab.page.clock.install()
    await tab.page.goto(f"{tab.url}/console#/run/linkis/python-alice-1")
    await tab.page.get_by_label("a token of Kubernetes").check()
    await tab.page.locator("#token").fill(first)
    await tab.page.keyboard.press("Enter")
    await live(tab)
    await tab.page.get_by_label("Code", exact=True).fill("draft")
    warning = tab.page.locator(".ending")
    await tab.page.clock.run_for(200_000)
    assert await warning.count() == 0
    await tab.page.clock.run_for(50_000)
    await expect(warning).to_contain_text("Your login ends within a minute")
    assert await findings(tab.page) == []
    await warning.get_by_label("New token").fill(other)
    await warning.get_by_role("button", name="Go on").click()
    await expect(warning.get_by_role("alert")).to_contain_text("another person's")
    await warning.get_by_label("New token").fill("with a blank")
    await warning.get_by_role("button", name="Go on").click()
    await expect(warning.get_by_role("alert")).to_contain_text("copy it again")
    await warning.get_by_label("New token").fill(second)
    await warning.get_by_role("button", name="Go on").click()
    await expect(warning).to_have_count(0)
    await expect(tab.page.get_by_label("Code", exact=True)).to_have_value("draft")
    headers.clear()
    await go(tab, "catalogue")
    await tab.page.get_by_role("button", name="Start python 3.11").wait_for()
    assert set(headers) == {f"Bearer {second}"}
    await tab.page.unroute_all(behavior="ignoreErrors")

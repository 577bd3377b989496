"""The console's login at a company's issuer, in a browser: a window of its own, code flow, PKCE, nothing stored."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route, expect

from linkis_ecm.gateway.auth.chain import Chain
from linkis_ecm.gateway.auth.code_flow import CodeFlow
from linkis_ecm.gateway.auth.oidc import OidcAuthenticator
from linkis_ecm.gateway.auth.tokens import TokenFile
from linkis_ecm.gateway.settings import Settings
from tools.testkit.browser.chromium import PATIENCE, Tab, opened
from tools.testkit.browser.console import findings, keep_own_clock, live
from tools.testkit.gateway.code_issuer import AUDIENCE, CLIENT, CodeIssuer, code_issuer
from tools.testkit.gateway.harness import EM, KEY, Harness

pytestmark = pytest.mark.asyncio(loop_scope="module")
expect.set_options(timeout=PATIENCE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def company() -> AsyncIterator[CodeIssuer]:
    async with code_issuer() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gw(company: CodeIssuer, tokens_file: Path) -> AsyncIterator[Harness]:
    async with aiohttp.ClientSession() as session:
        settings = Settings(
            namespace="linkis", instance=EM, tokens_file=str(tokens_file), token_key=KEY, agent_port=0,
            shutdown_seconds=1.0,
        )  # fmt: skip
        harness = Harness(settings)
        oidc = OidcAuthenticator(session, issuer=company.url, audience=AUDIENCE)
        harness.authenticator = Chain(tokens=TokenFile(str(tokens_file)), oidc=oidc)
        harness.code_flow = CodeFlow(
            session, issuer=company.url, client_id=CLIENT, scopes="openid profile", authenticator=harness.authenticator
        )
        await harness.start()
        yield harness
        await harness.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: Browser, gw: Harness) -> AsyncIterator[Tab]:
    async with opened(browser, gw.url) as made:
        yield made


async def test_a_person_logs_in_at_the_issuer(tab: Tab, gw: Harness, company: CodeIssuer) -> None:
    gw.engine()
    await tab.page.goto(f"{gw.url}/console#/engines")
    button = tab.page.get_by_role("button", name="Log in at 127.0.0.1")
    await button.wait_for()
    assert await findings(tab.page) == []
    async with tab.page.context.expect_page() as popup:
        await button.click()
    window = await popup.value
    await live(tab)
    await tab.page.get_by_text("1 engine", exact=True).wait_for()
    await expect(tab.page.locator(".who")).to_have_text("alice")
    if not window.is_closed():
        await window.wait_for_event("close")
    (asked,) = company.asked
    assert (asked["response_type"], asked["code_challenge_method"], asked["client_id"]) == ("code", "S256", CLIENT)
    assert asked["redirect_uri"] == f"{gw.url}/console/callback.html"
    assert len(asked["state"]) >= 40
    await tab.page.reload()
    await button.wait_for()  # nothing was kept


async def test_what_the_issuer_refuses_is_told(tab: Tab, gw: Harness, company: CodeIssuer) -> None:
    company.refuse = "alice has <b>no</b> role here"
    await tab.page.goto(f"{gw.url}/console")
    await tab.page.get_by_role("button", name="Log in at 127.0.0.1").click()
    await expect(tab.page.get_by_role("alert")).to_have_text(
        "The issuer does not let you in: alice has <b>no</b> role here"
    )
    company.refuse = ""


async def test_an_answer_that_this_page_did_not_ask_for_is_not_taken(
    tab: Tab, gw: Harness, company: CodeIssuer
) -> None:
    """Another window of the origin is sent to the callback with a code of somebody else: login CSRF."""
    await tab.page.goto(f"{gw.url}/console")
    await tab.page.get_by_role("button", name="Log in at 127.0.0.1").wait_for()
    before = len(company.forms)
    other = await tab.page.context.new_page()
    await other.goto(f"{gw.url}/console/callback.html?code=evil&state=guessed")
    await other.get_by_text("No window of the console waits for this login").wait_for()
    assert "evil" not in other.url
    await other.close()
    assert len(company.forms) == before
    assert await tab.page.get_by_label("User name").count() == 1


async def test_a_refusal_that_no_window_takes_is_cited_with_a_way_back(tab: Tab, gw: Harness) -> None:
    text = "<b>no</b>\r\nrole\u202e" + "x" * 400
    said = urlencode({"error": "access_denied", "error_description": text, "state": "s"})
    await tab.page.goto(f"{gw.url}/console/callback.html?{said}")
    told = tab.page.get_by_role("status")
    await expect(told).to_contain_text("The issuer does not let you in: <b>no</b> role<U+202E>xxx")
    await expect(told).to_contain_text("x… To the console")
    assert "close this window" not in await told.inner_text()
    assert await findings(tab.page) == []
    await told.get_by_role("link", name="To the console").click()
    await tab.page.get_by_label("User name").wait_for()
    assert urlsplit(tab.page.url).path == "/console"


async def test_after_a_logout_the_issuer_asks_for_the_password_again(
    tab: Tab, gw: Harness, company: CodeIssuer
) -> None:
    await tab.page.goto(f"{gw.url}/console")
    button = tab.page.get_by_role("button", name="Log in at 127.0.0.1")
    await button.click()
    await live(tab)
    assert "prompt" not in company.asked[-1]
    await tab.page.get_by_role("button", name="Log out").click()
    await tab.page.get_by_text("You have logged out here. 127.0.0.1").wait_for()
    assert await findings(tab.page) == []
    # Also where the page is loaded once more before the login.
    await tab.page.reload()
    await button.click()
    await live(tab)
    assert company.asked[-1]["prompt"] == "login"


@pytest.mark.parametrize(
    ("offered", "link"),
    [("https://issuer.example/end?realm=a", True), ("javascript:window.hit=1", False), (None, False)],
)
async def test_where_the_issuer_has_a_logout_the_page_leads_there(
    tab: Tab, gw: Harness, offered: str | None, link: bool
) -> None:
    async def ways(route: Route) -> None:
        answer = await route.fetch()
        found = await answer.json()
        await route.fulfill(json={"oidc": found["oidc"] | {"endSessionEndpoint": offered}})

    await tab.page.route("**/console/login.json", ways)
    await tab.page.goto(f"{gw.url}/console")
    await tab.page.get_by_role("button", name="Log in at 127.0.0.1").click()
    await live(tab)
    await tab.page.get_by_role("button", name="Log out").click()
    await tab.page.get_by_text("You have logged out here").wait_for()
    found = tab.page.get_by_role("link", name="Log out at 127.0.0.1")
    assert await found.count() == int(link)
    if link:
        assert await found.get_attribute("href") == f"https://issuer.example/end?realm=a&client_id={CLIENT}"


async def test_a_login_that_ends_is_renewed_in_a_window_and_the_page_stays(
    tab: Tab, gw: Harness, company: CodeIssuer
) -> None:
    """A token of five minutes, as Keycloak's."""
    gw.engine(name="python-alice-kept")
    await keep_own_clock(tab.page)
    await tab.page.clock.install()
    await tab.page.goto(f"{gw.url}/console#/run/linkis/python-alice-kept")
    await tab.page.get_by_role("button", name="Log in at 127.0.0.1").click()
    await live(tab)
    await tab.page.get_by_label("Code", exact=True).fill("draft")
    await tab.page.clock.fast_forward(245_000)
    warning = tab.page.locator(".ending")
    await expect(warning).to_contain_text("Your login ends within a minute")
    assert await findings(tab.page) == []
    # Somebody else is at the issuer by now.
    company.claims = {"preferred_username": "bob"}
    again = warning.get_by_role("button", name="Log in again")
    await again.click()
    await expect(warning.get_by_role("alert")).to_contain_text("another person's")
    company.claims = {"exp": int(time.time()) + 3000}
    await again.click()
    await expect(warning).to_have_count(0)
    await expect(tab.page.get_by_label("Code", exact=True)).to_have_value("draft")
    await expect(tab.page.locator(".who")).to_have_text("alice")
    company.claims = {}


async def test_an_issuer_that_is_away_is_said_and_its_login_comes_back(tab: Tab, gw: Harness) -> None:
    tab.seen.expected = "status of 503"
    sentence = "The issuer does not answer as it should: try again later, or use a token"
    asked = 0

    async def away(route: Route) -> None:
        nonlocal asked
        asked += 1
        await route.fulfill(status=503, json={"method": "", "status": 1, "message": sentence, "data": None})

    await tab.page.clock.install()
    await tab.page.route("**/console/login.json", away)
    await tab.page.goto(f"{gw.url}/console")
    notice = tab.page.locator(".notice.warning")
    await expect(notice).to_contain_text(sentence)
    assert await findings(tab.page) == []
    for _ in range(60):
        await tab.page.clock.run_for(1_000)
    assert 2 < asked < 9, asked
    await tab.page.unroute_all()
    await tab.page.clock.fast_forward(40_000)
    await tab.page.get_by_role("button", name="Log in at 127.0.0.1").wait_for()
    await expect(notice).to_have_count(0)

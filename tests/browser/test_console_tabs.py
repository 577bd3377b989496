"""The console in many tabs: a browser has six connections to one host for all of them, and a click always gets one."""

from __future__ import annotations

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tools.testkit.browser.chromium import PATIENCE, Tab
from tools.testkit.browser.console import go, live, log_in
from tools.testkit.gateway.harness import Harness

pytestmark = pytest.mark.asyncio(loop_scope="module")
expect.set_options(timeout=PATIENCE)
TABS = 8
LIVE = "live"
IN_TURNS = "read every 10 s"
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def engines(gw: Harness) -> None:
    gw.engine(name="python-alice-1")


def become(gw: Harness, state: str) -> None:
    gw.engine(name="python-alice-1", status={"engineState": state})


async def test_eight_tabs_that_are_all_seen_log_in_and_follow_the_engines(tab: Tab, gw: Harness) -> None:
    """Windows side by side. Three of them hold a stream of engines; the others read in turns."""
    pages: list[Page] = []
    for _ in range(TABS):
        page = await tab.page.context.new_page()
        page.set_default_timeout(PATIENCE)
        await page.clock.install()
        await log_in(Tab(page, tab.seen, tab.url), "alice")
        pages.append(page)
    for page in pages:
        await page.get_by_text("1 engine", exact=True).wait_for()
    shown = [await page.locator("header .live").inner_text() for page in pages]
    assert sorted(shown) == [LIVE] * 3 + [IN_TURNS] * (TABS - 3)
    # A click in the last one is answered.
    await pages[-1].evaluate("location.hash = '#/catalogue'")
    await pages[-1].get_by_role("button", name="Start python 3.11").wait_for()
    become(gw, "Busy")
    await expect(pages[0].locator(".rows .row")).to_contain_text("Busy")
    await pages[-2].clock.fast_forward(11_000)
    await expect(pages[-2].locator(".rows .row")).to_contain_text("Busy")
    # A place that is given back is taken by whoever reads next.
    for page in pages[:-1]:
        if page not in pages[1:3]:
            await page.close()
    await pages[-1].evaluate("location.hash = '#/engines'")
    await pages[-1].clock.fast_forward(11_000)
    await expect(pages[-1].locator("header .live")).to_have_text(LIVE)
    become(gw, "Idle")
    await expect(pages[-1].locator(".rows .row")).to_contain_text("Idle")
    for page in (*pages[1:3], pages[-1]):
        await page.close()


async def test_a_tab_that_is_not_seen_holds_no_stream_and_reads_anew_when_it_is(tab: Tab, gw: Harness) -> None:
    await tab.page.clock.install()
    await log_in(tab, "alice")
    await live(tab)
    await tab.page.evaluate(HIDE, True)
    async with tab.page.expect_event("requestfailed", lambda one: "watchEngines" in one.url):
        await tab.page.clock.fast_forward(21_000)
    become(gw, "Busy")
    tab.seen.requests.clear()
    await tab.page.clock.fast_forward(120_000)
    assert [url for url in tab.seen.requests if "watchEngines" in url] == []
    await tab.page.evaluate(HIDE, False)
    await live(tab)
    await expect(tab.page.locator(".rows .row")).to_contain_text("Busy")
    become(gw, "Idle")


async def test_a_short_look_at_another_tab_ends_no_stream(tab: Tab, gw: Harness) -> None:
    await tab.page.clock.install()
    await log_in(tab, "alice")
    await live(tab)
    tab.seen.requests.clear()
    await tab.page.evaluate(HIDE, True)
    await tab.page.clock.fast_forward(15_000)
    await tab.page.evaluate(HIDE, False)
    await tab.page.clock.fast_forward(15_000)
    become(gw, "Busy")
    await expect(tab.page.locator(".rows .row")).to_contain_text("Busy")
    assert [url for url in tab.seen.requests if "watchEngines" in url] == []
    become(gw, "Idle")


async def test_without_locks_of_the_browser_the_page_works(tab: Tab) -> None:
    """Plain http from another machine: browsers give locks to https and to localhost alone."""
    await tab.page.add_init_script("Object.defineProperty(navigator, 'locks', { value: undefined })")
    await log_in(tab, "alice")
    await live(tab)
    await go(tab, "overview")
    await tab.page.get_by_text("live engines").wait_for()


async def test_who_has_no_engine_is_not_told_that_a_curve_comes_in_seconds(tab: Tab) -> None:
    await log_in(tab, "nobody", to="overview")
    await live(tab)
    await tab.page.get_by_text("There is no curve without engines").wait_for()

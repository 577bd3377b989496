"""A computer whose clock is ten minutes off: the console counts ages and periods by the gateway's clock."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import Browser, Route, expect

from tools.testkit.browser.chromium import PATIENCE, Tab, opened
from tools.testkit.browser.console import findings, go, live, log_in
from tools.testkit.gateway.harness import Harness

pytestmark = pytest.mark.asyncio(loop_scope="module")
expect.set_options(timeout=PATIENCE)
OFF = 600
SHIFTED = """(() => {
  const Real = Date;
  globalThis.Date = class extends Real {
    constructor(...given) { given.length ? super(...given) : super(Real.now() + OFF); }
    static now() { return Real.now() + OFF; }
  };
})()"""
SECONDS = re.compile(r"^[0-5]?\d s$")


@asynccontextmanager
async def shifted(browser: Browser, gw: Harness, seconds: int) -> AsyncIterator[Tab]:
    """A page whose clock is so many seconds ahead of the gateway's."""
    async with opened(browser, gw.url) as tab:
        await tab.page.add_init_script(SHIFTED.replace("OFF", str(1000 * seconds)))
        yield tab


def engine(gw: Harness, name: str, state: str, age: timedelta) -> None:
    at = (datetime.now(UTC) - age).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = {"engineState": state, "reason": "Scheduled", "stateSince": at}
    gw.engine(name=name, status=status, metadata={"creationTimestamp": at})


@pytest.mark.parametrize(("seconds", "word"), [(-OFF, "10 min behind"), (OFF, "10 min ahead of")])
async def test_ages_and_periods_are_by_the_gateways_clock(
    browser: Browser, gw: Harness, seconds: int, word: str
) -> None:
    engine(gw, "python-fresh", "Starting", timedelta(0))
    engine(gw, "python-slow", "Starting", timedelta(minutes=3))
    engine(gw, "python-old", "Idle", timedelta(hours=1))
    asked: list[dict[str, list[str]]] = []

    async def records(route: Route) -> None:
        answer = await route.fetch()
        found = await answer.json()
        found["data"]["records"] = True
        await route.fulfill(response=answer, json=found)

    async def history(route: Route) -> None:
        asked.append(parse_qs(urlsplit(route.request.url).query))
        await route.fulfill(json={"method": "", "status": 0, "message": "", "data": {"engineList": [], "totalPage": 0}})

    async with shifted(browser, gw, seconds) as tab:
        page = tab.page
        await page.route("**/whoAmI", records)
        await page.route("**/ecrHistoryList*", history)
        await log_in(tab)
        await live(tab)
        assert abs(await page.evaluate("Date.now()") / 1000 - datetime.now(UTC).timestamp() - seconds) < 60
        await expect(page.locator("main .notice.warning")).to_contain_text(f"The clock of this computer is {word}")
        assert await findings(page) == []
        for name, age in (("fresh", SECONDS), ("slow", re.compile("^3 min")), ("old", "1 h")):
            row = page.locator(".rows .row", has_text=f"python-{name}")
            await expect(row.locator(".c-created")).to_have_text(age)
        await go(tab, "overview")
        slow = page.get_by_role("region", name="Slow starts")
        await expect(slow).to_contain_text("python-slow")
        await expect(slow.locator("td.number")).to_have_text(re.compile("^3 min"))
        await expect(slow).not_to_contain_text("python-fresh")
        await go(tab, "engine/linkis/python-old")
        await expect(page.locator(".title")).to_contain_text("for 1 h")
        await expect(page.locator(".facts").first).to_contain_text("(1 h ago)")
        await go(tab, "engine/linkis/python-fresh")
        await expect(page.locator(".title .muted")).to_have_text(re.compile(r"^for [0-5]?\d s$"))
        await go(tab, "history")
        await page.get_by_text("No engine was made in this time").wait_for()
        now = datetime.now(UTC)
        begin, end = (datetime.fromisoformat(asked[0][name][0] + "Z") for name in ("startDate", "endDate"))
        assert abs((end - now).total_seconds()) < 60
        assert abs((now - timedelta(days=1) - begin).total_seconds()) < 60
        tab.seen.expected = "Failed to load resource"
        await page.unroute_all(behavior="ignoreErrors")


async def test_clocks_that_agree_are_not_spoken_of(tab: Tab) -> None:
    await log_in(tab)
    await live(tab)
    assert await tab.page.locator("main .notice").count() == 0
    off = await tab.page.evaluate("import('/console/format.js').then((found) => found.clockOff())")
    assert abs(off) < 5_000

"""What the console's browser tests share: logging in, and axe-core's findings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

from tools.testkit.browser.chromium import Tab
from tools.testkit.gateway.harness import TOKEN
from tools.vendor import axe_script

# Where the pictures of docs/console are written; they are taken where this names a folder.
PICTURES = os.environ.get("LINKIS_ECM_CONSOLE_PICTURES", "")


async def log_in(tab: Tab, user: str = "alice", *, token: str = TOKEN, to: str = "engines") -> None:
    """Opens a page of the console in a fresh document, and logs in."""
    await tab.page.goto("about:blank")
    await tab.page.goto(f"{tab.url}/console#/{to}")
    await tab.page.get_by_label("User name").fill(user)
    await tab.page.locator("#token").fill(token)
    await tab.page.get_by_role("button", name="Log in").click()
    await tab.page.get_by_role("button", name="Log out").wait_for()


async def go(tab: Tab, to: str) -> None:
    """Another page of the console, by the address."""
    await tab.page.evaluate("(to) => { location.hash = to; }", f"#/{to}")


async def live(tab: Tab) -> None:
    """Waits until all engines have been read."""
    await expect(tab.page.locator("header .live")).to_have_text("live")


async def keep_own_clock(page: Page) -> None:
    """The page takes no time from the gateway's answers, so that its own clock can be moved (`page.clock`)."""
    await page.add_init_script("""(() => {
      const get = Headers.prototype.get;
      Headers.prototype.get = function (name) { return name === "Date" ? null : get.call(this, name); };
    })()""")


async def findings(page: Page) -> list[str]:
    """axe-core's findings of the page as it is, each with its rule and its element. Nothing is left out."""
    if not await page.evaluate("'axe' in window"):
        # Evaluated from outside: the page's policy lets no script in, and axe is not the page's.
        await page.evaluate(axe_script().read_text())
    found: list[dict[str, Any]] = await page.evaluate(
        "axe.run(document, {resultTypes: ['violations'], iframes: false}).then((r) => r.violations)"
    )
    return [f"{one['id']}: {node['target']} {node['failureSummary']}" for one in found for node in one["nodes"]]


async def picture(page: Page, name: str) -> None:
    """Keeps the page as it is now, for docs/console."""
    if PICTURES:
        # Some 100 KB: the repository keeps no picture of more than 150 KB.
        await page.set_viewport_size({"width": 1280, "height": 620})
        await page.wait_for_timeout(300)
        await page.screenshot(path=Path(PICTURES) / f"{name}.png")
        await page.set_viewport_size({"width": 1440, "height": 900})

"""A real browser (Debian's chromium) for tests, and what is seen of a page in it: requests, errors, refusals.

Must not know what a page shows: `tools.testkit.browser.console` and the tests do.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from playwright.async_api import Browser, ConsoleMessage, Page, Response, async_playwright

# Nothing of the browser's own may go out, and a container has no user namespaces for its sandbox.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
# The longest that any single wait of these tests takes before it fails, in milliseconds.
PATIENCE = 30_000
_TELL_VIOLATIONS = """addEventListener("securitypolicyviolation", (event) =>
    console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`))"""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The browser, for the block."""
    found = shutil.which("chromium")
    assert found is not None, "there is no chromium: python -m tools.cluster packages chromium"
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=found, args=[*ARGUMENTS])
        yield started
        await started.close()


@dataclass
class Seen:
    """What the browser told of a page: requests, and what went wrong in it."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    # Requests that were refused, with the status: the browser's line about them names no address.
    refused: list[str] = field(default_factory=list)
    # A part of the one kind of error line that the test brings about.
    expected: str | None = None


@dataclass
class Tab:
    """A page of the browser, and what was seen of it."""

    page: Page
    seen: Seen
    url: str

    async def open(self, operation: str = "") -> None:
        """Goes to an operation, or to the overview, and waits until the page shows it."""
        await self.page.goto(f"{self.url}/docs#{operation}")
        await self.shows(operation)

    async def shows(self, operation: str = "") -> None:
        """Waits until an operation, or the overview, is shown: a browser tells the page of a new address later."""
        shown = f"nav a[aria-current][href='#{operation}']" if operation else "body:not([data-open]) nav a"
        await self.page.locator(shown).first.wait_for(state="attached")

    async def processor_seconds(self) -> Callable[[], Awaitable[float]]:
        """Begins to measure: what it gives tells the page's main thread's time on a processor since now. Others who use
        the machine do not change it, as they change what a clock shows."""
        session = await self.page.context.new_cdp_session(self.page)
        await session.send("Performance.enable", {"timeDomain": "threadTicks"})

        async def spent() -> float:
            found = (await session.send("Performance.getMetrics"))["metrics"]
            return float(next(one["value"] for one in found if one["name"] == "TaskDuration"))

        begun = await spent()

        async def since() -> float:
            return await spent() - begun

        return since

    async def text(self, selector: str) -> str:
        return await self.page.inner_text(selector)


@asynccontextmanager
async def opened(browser: Browser, url: str) -> AsyncIterator[Tab]:
    """A page of its own context; after the block nothing may have gone wrong in it, or have gone elsewhere."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    await context.add_init_script(_TELL_VIOLATIONS)
    page = await context.new_page()
    page.set_default_timeout(PATIENCE)
    seen = Seen()

    def told(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            seen.errors.append(message.text)

    page.on("console", told)

    def answered(response: Response) -> None:
        if response.status >= 400:
            seen.refused.append(f"{response.status} {response.url}")

    page.on("response", answered)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    yield Tab(page, seen, url)
    cookies = await context.cookies()
    stored = "[localStorage.length, sessionStorage.length]"
    kept = await page.evaluate(stored) if page.url.startswith(url) else [0, 0]
    await context.close()
    unexpected = [text for text in seen.errors if seen.expected is None or seen.expected not in text]
    assert unexpected == [], (unexpected, seen.refused)
    assert [one for one in seen.requests if not one.startswith((f"{url}/", f"blob:{url}/"))] == []
    assert cookies == []
    assert kept == [0, 0]

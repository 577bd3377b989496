"""A real browser (Debian's chromium) and a gateway on loopback for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

from linkis_ecm.gateway.settings import Settings
from tools.testkit.gateways import EM, KEY, TOKEN, Harness

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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    found = shutil.which("chromium")
    assert found is not None, "there is no chromium: python -m tools.cluster packages chromium"
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=found, args=[*ARGUMENTS])
        yield started
        await started.close()


@pytest.fixture(scope="module")
def tokens_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokens = tmp_path_factory.mktemp("gateway") / "tokens.json"
    tokens.write_text(json.dumps({TOKEN: {"users": ["*"]}}))
    return tokens


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gw(tokens_file: Path) -> AsyncIterator[Harness]:
    harness = Harness(
        Settings(
            namespace="linkis",
            instance=EM,
            tokens_file=str(tokens_file),
            admins=frozenset({"root"}),
            token_key=KEY,
            agent_port=0,
            shutdown_seconds=1.0,
        )
    )
    await harness.start()
    yield harness
    await harness.stop()


@dataclass
class Seen:
    """What the browser told of a page: requests, and what went wrong in it."""

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
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

    async def text(self, selector: str) -> str:
        return await self.page.inner_text(selector)


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: Browser, gw: Harness) -> AsyncIterator[Tab]:
    """A page of its own context; after the test nothing may have gone wrong in it, or have gone elsewhere."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    await context.add_init_script(_TELL_VIOLATIONS)
    page = await context.new_page()
    page.set_default_timeout(PATIENCE)
    seen = Seen()

    def told(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            seen.errors.append(message.text)

    page.on("console", told)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    yield Tab(page, seen, gw.url)
    cookies = await context.cookies()
    stored = "[localStorage.length, sessionStorage.length]"
    kept = await page.evaluate(stored) if page.url.startswith(gw.url) else [0, 0]
    await context.close()
    assert [text for text in seen.errors if seen.expected is None or seen.expected not in text] == []
    assert [url for url in seen.requests if not url.startswith(f"{gw.url}/")] == []
    assert cookies == []
    assert kept == [0, 0]

"""A real browser (Debian's chromium) and a gateway on loopback for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from linkis_ecm.gateway.settings import Settings
from tools.testkit.browser.chromium import Tab, chromium, opened
from tools.testkit.gateway.harness import EM, KEY, TOKEN, Harness


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


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


@pytest_asyncio.fixture(loop_scope="module")
async def tab(browser: Browser, gw: Harness) -> AsyncIterator[Tab]:
    """A page for one test, before the module's gateway."""
    async with opened(browser, gw.url) as made:
        yield made

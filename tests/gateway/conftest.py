"""Fixtures of the gateway's tests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.gateway.settings import Settings
from tests.gateway.clock import LoopClock
from tests.gateway.support import BOB_TOKEN, EM, KEY, PATIENCE, TOKEN, Harness


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({TOKEN: {"users": ["*"]}, BOB_TOKEN: {"users": ["bob"]}}))
    return Settings(
        namespace="linkis",
        instance=EM,
        tokens_file=str(tokens),
        admins=frozenset({"root"}),
        token_key=KEY,
        connect_seconds=PATIENCE,
        agent_seconds=PATIENCE,
        client_seconds=PATIENCE,
        shutdown_seconds=1.0,
        # Tests of other things call as fast as they can.
        user_per_second=0,
    )


@pytest.fixture
async def clock() -> LoopClock:
    """The clock of the test's loop, to be put forward."""
    return LoopClock()


@pytest.fixture
async def make(settings: Settings) -> AsyncIterator[Callable[..., Awaitable[Harness]]]:
    """Starts gateways with other settings: `await make(max_requests=1)`."""
    started: list[Harness] = []

    async def start(
        find: Any = None, database: Any = None, archive: Any = None, now: datetime | None = None, **changes: Any
    ) -> Harness:
        harness = Harness(replace(settings, **changes), find, database)
        harness.archive = archive or harness.archive
        if now is not None:
            harness.clock = lambda: now
        await harness.start()
        started.append(harness)
        return harness

    yield start
    for harness in started:
        await harness.stop()


@pytest.fixture
async def gw(make: Callable[..., Awaitable[Harness]]) -> Harness:
    return await make()

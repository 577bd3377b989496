"""Two gateways over one cluster in memory, whose clock stands and whose writes take a while.

Must not know what a test asks of them: how each is made ready is the caller's (`prepare`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any

from linkis_ecm.gateway.settings import Settings
from tools.testkit.gateway.harness import FakeCluster, Harness

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
Prepare = Callable[[Harness], None]


class SlowWrites(FakeCluster):
    """Some turns of the loop before each write: calls are then under way at the same time. Counts what is tried."""

    tried = 0

    async def patch(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        self.tried += 1
        for _ in range(20):
            await asyncio.sleep(0)
        return await super().patch(*arguments, **options)


class Clock:
    """Stands at NOW until a test puts it forward."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@asynccontextmanager
async def first_replica(settings: Settings, clock: Clock, prepare: Prepare) -> AsyncIterator[Harness]:
    """A gateway whose cluster writes slowly."""
    made = Harness(settings)
    made.clock = clock
    made.cluster = SlowWrites(made.engines)
    async with _running(made, prepare):
        yield made


@asynccontextmanager
async def another_replica(
    first: Harness, settings: Settings, prepare: Prepare = lambda _: None
) -> AsyncIterator[Harness]:
    """Another gateway over the cluster of the first one."""
    made = Harness(settings)
    made.clock, made.cluster = first.clock, first.cluster
    first.cluster.more_caches.append(made.engines)
    async with _running(made, prepare):
        yield made


@contextmanager
def behind(gw: Harness) -> Iterator[None]:
    """The other replica's watch does not tell what happens in the block."""
    caches = list(gw.cluster.more_caches)
    gw.cluster.more_caches.clear()
    yield
    gw.cluster.more_caches.extend(caches)


@asynccontextmanager
async def _running(made: Harness, prepare: Prepare) -> AsyncIterator[None]:
    prepare(made)
    await made.start()
    try:
        yield
    finally:
        await made.stop()

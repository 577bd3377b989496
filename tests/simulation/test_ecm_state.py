"""What an admin has set of the ECM is known by a watch, and read where none is served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.ecm_state import EcmState, EcmStateStore
from linkis_ecm.gateway.inventory.feeds import Feeds
from linkis_ecm.kube.resources import CONFIGMAPS
from tools.testkit.fakes.apiserver import FakeApiServer
from tools.testkit.fakes.faults import Fault

pytestmark = pytest.mark.looptime
PLACE = ("default", "em")


@pytest.fixture
async def server() -> FakeApiServer:
    return FakeApiServer()


@pytest.fixture
async def store(server: FakeApiServer) -> AsyncIterator[EcmStateStore]:
    """As a gateway has it, whose feeds run."""
    client = server.client()
    feeds = Feeds(client, engines=EngineCache(), plugins=PluginCache(), namespaces=(), configmap=PLACE)
    made = EcmStateStore(client, *PLACE)
    made.watched = feeds.ecm_state
    tasks = [asyncio.create_task(one.run()) for one in feeds.reflectors]
    yield made
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def drain(server: FakeApiServer, health: str) -> None:
    """Another gateway has written that."""
    data = {"em.json": json.dumps({"health": health})}
    server.cluster.create(CONFIGMAPS, {"metadata": {"name": PLACE[1]}, "data": data}, namespace=PLACE[0])


def reads(server: FakeApiServer) -> int:
    return sum(entry.call.verb == "get" and entry.call.resource is CONFIGMAPS for entry in server.log)


async def test_it_is_known_without_a_reading_and_a_change_at_once(server: FakeApiServer, store: EcmStateStore) -> None:
    await asyncio.sleep(1)
    assert await store.state() == EcmState()
    drain(server, "UnHealthy")
    await asyncio.sleep(0.1)
    assert (await store.state()).health == "UnHealthy"
    assert reads(server) == 0


async def test_where_no_watch_is_served_it_is_read(server: FakeApiServer, store: EcmStateStore) -> None:
    await asyncio.sleep(1)
    server.faults.add(Fault(verb="watch", resource=CONFIGMAPS, status=403, times=None))
    server.watches.cut(CONFIGMAPS)
    await asyncio.sleep(0.1)
    drain(server, "UnHealthy")
    assert (await store.state()).health == "UnHealthy"
    assert reads(server) == 1


async def test_what_was_written_here_counts_before_the_watch_shows_it(
    server: FakeApiServer, store: EcmStateStore
) -> None:
    await asyncio.sleep(1)
    server.watches.silence(CONFIGMAPS)
    await store.write(EcmState("UnHealthy"))
    assert (await store.state()).health == "UnHealthy"

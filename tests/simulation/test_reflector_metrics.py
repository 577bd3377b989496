"""The gauges of reflectors: one series for a kind, whatever number of namespaces is watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from linkis_ecm.kube.metrics import KubeMetrics
from linkis_ecm.kube.reflector import Reflector
from linkis_ecm.kube.resources import ENGINECONNS, NAMESPACES
from tools.testkit.fakes.apiserver import FakeApiServer
from tools.testkit.fakes.faults import Fault

pytestmark = pytest.mark.looptime
OBJECTS, AGE = "ecm_reflector_objects", "ecm_reflector_last_event_age_seconds"
KIND = {"resource": "engineconns"}


@asynccontextmanager
async def watching(server: FakeApiServer, metrics: KubeMetrics, *namespaces: str) -> AsyncIterator[None]:
    client = server.client(metrics=metrics)
    reflectors = [
        Reflector(client, ENGINECONNS, transform=dict, on_event=lambda *_: None, namespace=namespace)
        for namespace in namespaces
    ]
    tasks = [asyncio.create_task(reflector.run()) for reflector in reflectors]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def engine(server: FakeApiServer, namespace: str, name: str) -> None:
    server.cluster.create(
        ENGINECONNS, {"metadata": {"name": name}, "spec": {"engineType": "python", "user": "u"}}, namespace=namespace
    )


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    made = FakeApiServer()
    for namespace in ("a", "b", "empty"):
        made.cluster.create(NAMESPACES, {"metadata": {"name": namespace}})
    yield made
    made.cluster.close()


async def test_the_objects_of_all_namespaces_are_added_up(server: FakeApiServer) -> None:
    registry = CollectorRegistry()
    for namespace, name in (("a", "one"), ("a", "two"), ("b", "three")):
        engine(server, namespace, name)
    async with watching(server, KubeMetrics(registry), "a", "b", "empty"):
        await asyncio.sleep(1)
        assert registry.get_sample_value(OBJECTS, KIND) == 3
        engine(server, "b", "four")
        await asyncio.sleep(1)
        assert registry.get_sample_value(OBJECTS, KIND) == 4
    assert registry.get_sample_value(OBJECTS, KIND) is None, "a reflector that has ended holds nothing"
    assert registry.get_sample_value(AGE, KIND) is None


async def test_the_age_is_that_of_the_namespace_that_waits_for_longest(server: FakeApiServer) -> None:
    registry = CollectorRegistry()
    async with watching(server, KubeMetrics(registry), "a", "b"):
        await asyncio.sleep(5)
        for number in range(10):
            engine(server, "b", f"e{number}")
            await asyncio.sleep(1)
        age = registry.get_sample_value(AGE, KIND)
        assert age is not None
        assert 14 <= age <= 15, "b was heard of a second ago, a was listed and never again"


async def test_before_the_first_list_the_age_counts_from_the_beginning(server: FakeApiServer) -> None:
    registry = CollectorRegistry()
    server.faults.add(Fault(verb="list", status=403, times=None))
    async with watching(server, KubeMetrics(registry), "a"):
        await asyncio.sleep(30)
        assert registry.get_sample_value(AGE, KIND) == pytest.approx(30, abs=0.1)

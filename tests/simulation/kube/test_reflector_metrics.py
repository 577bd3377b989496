"""The gauges of reflectors: one series for a kind, whatever number of namespaces is watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from linkis_ecm.kube.metrics import KubeMetrics
from linkis_ecm.kube.reflector import Reflector
from linkis_ecm.kube.resources import ENGINECONNS, NAMESPACES
from tools.testkit.fakes.apiserver import FakeApiServer
from tools.testkit.fakes.faults import Fault

pytestmark = pytest.mark.looptime
OBJECTS, AGE = "ecm_reflector_objects", "ecm_reflector_last_event_age_seconds"
UNREADABLE = "ecm_reflector_unreadable_objects"
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


async def test_an_object_that_cannot_be_read_is_counted_and_logged_once_until_it_can(
    server: FakeApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    registry, bad = CollectorRegistry(), {"one"}

    def read(item: dict[str, Any]) -> dict[str, Any]:
        if item["metadata"]["name"] in bad:
            raise OverflowError("date value out of range")
        return item

    client = server.client(metrics=KubeMetrics(registry))
    events: list[tuple[str, str]] = []
    reflector = Reflector[dict[str, Any]](
        client, ENGINECONNS, transform=read, namespace="a",
        on_event=lambda kind, item: events.append((kind, item["metadata"]["name"])),
    )  # fmt: skip
    for name in ("one", "two", "three"):
        engine(server, "a", name)
    task = asyncio.create_task(reflector.run())
    try:
        await asyncio.sleep(1)
        assert events == [("ADDED", "three"), ("ADDED", "two")]
        for _ in range(3):
            reflector.request_relist()
            await asyncio.sleep(1)
        assert registry.get_sample_value(UNREADABLE, KIND) == 1
        assert caplog.text.count("cannot be read, left out") == 1
        # A later version cannot be read: the older one stays, and is counted.
        bad.add("two")
        server.cluster.patch(ENGINECONNS, "two", {"metadata": {"labels": {"changed": "yes"}}}, namespace="a")
        await asyncio.sleep(1)
        assert registry.get_sample_value(UNREADABLE, KIND) == 2
        assert ("a", "two") in reflector.objects
        bad.clear()
        reflector.request_relist()
        await asyncio.sleep(1)
        assert registry.get_sample_value(UNREADABLE, KIND) == 0
        assert sorted(events[2:]) == [("ADDED", "one"), ("MODIFIED", "two")]
        # What goes while it cannot be read is no longer counted.
        bad.add("three")
        server.cluster.patch(ENGINECONNS, "three", {"metadata": {"labels": {"changed": "yes"}}}, namespace="a")
        await asyncio.sleep(1)
        assert registry.get_sample_value(UNREADABLE, KIND) == 1
        server.cluster.delete(ENGINECONNS, "three", namespace="a")
        await asyncio.sleep(1)
        assert registry.get_sample_value(UNREADABLE, KIND) == 0
        assert events[-1] == ("DELETED", "three")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

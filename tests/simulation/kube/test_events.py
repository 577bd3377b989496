"""Events for people: one of an object and reason at a time, repeated as a series, bounded, and never in the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from linkis_ecm.kube.events import BURST, LINGER, EventRecorder
from linkis_ecm.kube.resources import EVENTS
from tools.testkit.fakes.apiserver import FakeApiServer
from tools.testkit.fakes.cluster import loop_now
from tools.testkit.fakes.faults import Fault

pytestmark = pytest.mark.looptime


def regarding(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": name, "uid": f"uid-{name}"}


@asynccontextmanager
async def recording(server: FakeApiServer, **options: Any) -> AsyncIterator[EventRecorder]:
    recorder = EventRecorder(server.client(), controller="test", instance="one", now=loop_now, **options)
    task = asyncio.create_task(recorder.run())
    yield recorder
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_is_no_warning_is_not_in_the_way_of_who_waits_for_the_change() -> None:
    server = FakeApiServer()
    async with recording(server) as recorder:
        recorder.record(regarding("a"), "KernelReady", "ready", action="Idle")
        await asyncio.sleep(LINGER - 0.1)
        assert not server.writes()
        await asyncio.sleep(0.2)
        assert [event["reason"] for event in server.cluster.all(EVENTS)] == ["KernelReady"]


async def test_a_warning_is_written_at_once_with_who_what_and_why() -> None:
    server = FakeApiServer()
    async with recording(server) as recorder:
        recorder.record(regarding("a"), "OOMKilled", "too much", action="Failed", kind="Warning")
        await asyncio.sleep(0.1)
        (event,) = server.cluster.all(EVENTS)
    assert (event["reason"], event["note"], event["type"], event["action"]) == (
        "OOMKilled", "too much", "Warning", "Failed",
    )  # fmt: skip
    assert event["regarding"]["name"] == "a"
    assert event["reportingController"] == "test"


async def test_repeated_events_become_a_series_once_a_minute() -> None:
    server = FakeApiServer()
    async with recording(server) as recorder:
        for _ in range(100):
            recorder.record(regarding("a"), "Unschedulable", "no room", action="Starting")
            await asyncio.sleep(1.2)
        (event,) = server.cluster.all(EVENTS)
        writes = sum(server.writes().values())
    assert event["series"]["count"] > 40
    assert writes <= 3


async def test_a_storm_is_written_at_its_rate_and_the_rest_waits() -> None:
    server = FakeApiServer()
    async with recording(server) as recorder:
        for n in range(200):
            recorder.record(regarding(f"p{n}"), "KernelReady", "ready", action="Idle")
        await asyncio.sleep(1)
        assert BURST <= len(server.cluster.all(EVENTS)) <= BURST + 6
        await asyncio.sleep(60)
        assert len(server.cluster.all(EVENTS)) == 200


async def test_more_than_it_may_hold_is_dropped_and_nothing_raises() -> None:
    server = FakeApiServer()
    server.faults.add(Fault(verb="create", resource=EVENTS, status=500, times=None))
    async with recording(server, limit=10) as recorder:
        for n in range(50):
            recorder.record(regarding(f"p{n}"), "KernelReady", "ready", action="Idle")
        await asyncio.sleep(30)
        server.faults.clear()
        await asyncio.sleep(400)
        recorder.record(regarding("later"), "KernelReady", "ready", action="Idle")
        await asyncio.sleep(5)
        assert [event["regarding"]["name"] for event in server.cluster.all(EVENTS)] == ["later"]


async def test_without_new_events_the_recorder_makes_no_calls() -> None:
    server = FakeApiServer()
    async with recording(server) as recorder:
        recorder.record(regarding("a"), "KernelReady", "ready", action="Idle")
        await asyncio.sleep(1)
        before = sum(server.writes().values())
        await asyncio.sleep(3600)
        assert sum(server.writes().values()) == before

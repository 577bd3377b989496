"""Agents, nodes and logs that answer late hold up no other engine; and the pool of calls that sees to it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from linkis_ecm.controller.workloop.call_pool import ERROR_PAUSE, CallMetrics, CallPool, Share
from linkis_ecm.kube.resources import NODES, PODS
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.world import Script, World

pytestmark = pytest.mark.looptime

LATE = 2.9  # a tenth of a second before EngineAgents gives up


def _now() -> float:
    return asyncio.get_running_loop().time()


async def states(world: World, names: list[str], state: str, seconds: float = 120) -> None:
    """Waits until all have that state; looked at rarely, because each look costs real time."""
    end = _now() + seconds
    while not all(world.state(name) == state for name in names):
        assert _now() < end, Counter(world.state(name) for name in names)
        await asyncio.sleep(3)


async def slow_engines(world: World, count: int = 80) -> list[str]:
    """The engines of one user, ready, whose agents answer late."""
    names = [f"slow{number}" for number in range(count)]
    for name in names:
        world.create(name, user="mallory")
    await states(world, names, "Idle")
    world.slow.update(dict.fromkeys(names, LATE))
    return names


async def start_seconds(world: World, name: str) -> float:
    """How long another user's start takes; its pod takes 0.7 s of it."""
    begun = _now()
    world.create(name, user="alice")
    await world.until_state(name, "Idle", 30)
    return _now() - begun


async def starts_stay_fast(world: World, seconds: float) -> None:
    end = _now() + seconds
    number = 0
    while _now() < end:
        number += 1
        assert await start_seconds(world, f"alice{number}") < 2
        await asyncio.sleep(5)


async def test_silent_agents_of_one_user_that_answer_late_hold_up_no_others_start(world: World) -> None:
    names = await slow_engines(world, 400)
    for agent in world.agents.values():
        agent.end()  # its reports stop
    await asyncio.sleep(29)
    await starts_stay_fast(world, 30)
    metrics = world.operators[0].parts.metrics.registry
    assert (metrics.get_sample_value("ecm_calls_waiting") or 0) > 100
    assert metrics.get_sample_value("ecm_calls_running") == 16
    # Each of them answers in the end: none is lost.
    await asyncio.sleep(100)
    assert {world.state(name) for name in names} == {"Idle"}


async def test_stops_of_one_users_slow_agents_hold_up_no_others_start(world: World) -> None:
    names = await slow_engines(world)
    for name in names:
        world.edit(name, desiredState="Stopped")
    await starts_stay_fast(world, 12)
    await states(world, names, "Success")


async def test_others_agents_are_asked_while_one_users_are_slow(world: World) -> None:
    world.create("alice", user="alice")
    await world.until_state("alice", "Idle")
    for name in await slow_engines(world):
        world.edit(name, desiredState="Stopped")
    await asyncio.sleep(1)
    world.edit("alice", desiredState="Stopped")
    begun = _now()
    await world.until_state("alice", "Success")
    assert _now() - begun < 2


@pytest.mark.parametrize("what", ["log", "node"])
async def test_slow_logs_and_nodes_hold_up_no_others_start(world: World, what: str) -> None:
    names = await slow_engines(world)
    if what == "log":
        world.server.faults.add(Fault(verb="get", resource=PODS, subresource="log", latency=4.9, times=None))
        for agent in list(world.agents.values()):
            agent.script.ships = False
            world.exit_pod(agent.pod, 1)
    else:
        world.server.faults.add(Fault(verb="get", resource=NODES, latency=4.9, times=None))
        # As many that report, or the operator takes its own network to be down.
        others = [f"other{number}" for number in range(len(names) + 1)]
        for name in others:
            world.create(name, user="bob")
        await states(world, others, "Idle")
        world.cut_off.update(names)
        await asyncio.sleep(60)
    await starts_stay_fast(world, 12)
    await states(world, names, "Failed", 300)
    assert {world.status(name)["reason"] for name in names} == {"AgentExited" if what == "log" else "AgentLost"}


async def test_a_report_that_comes_during_the_question_counts_more_than_its_answer(world: World) -> None:
    world.create("e", Script())
    await world.until_state("e", "Idle")
    world.agent("e").end()
    world.slow["e"] = LATE
    await world.until(lambda: world.operators[0].parts.metrics.registry.get_sample_value("ecm_calls_running") == 1, 60)
    world.slow["e"] = 0
    world.agent("e").become("Busy")
    await world.until_state("e", "Busy", 5)
    await asyncio.sleep(5)
    assert world.state("e") == "Busy"


# --- the pool


class Calls:
    """A toy: calls that take a time, by share."""

    def __init__(self, **options: Any) -> None:
        self.registry = CollectorRegistry()
        self.allowed = True
        self.pool = CallPool(may_run=lambda: self.allowed, metrics=CallMetrics(self.registry), **options)
        self.began: list[tuple[float, Share, int]] = []
        self.at_once: Counter[Share] = Counter()
        self.most: Counter[Share] = Counter()

    def submit(self, share: Share, number: int, seconds: float = 1.0, then: Callable[[], None] = lambda: None) -> bool:
        async def run() -> None:
            self.began.append((_now(), share, number))
            self.at_once[share] += 1
            self.most[share] = max(self.most[share], self.at_once[share])
            try:
                await asyncio.sleep(seconds)
                then()
            finally:
                self.at_once[share] -= 1

        return self.pool.submit((share, number), share, run)

    def value(self, name: str) -> float | None:
        return self.registry.get_sample_value(name)


@asynccontextmanager
async def calling(**options: Any) -> AsyncIterator[Calls]:
    calls = Calls(**options)
    task = asyncio.create_task(calls.pool.run())
    try:
        yield calls
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_share_gets_its_slots_and_all_together_theirs() -> None:
    async with calling(slots=5, per_share=2) as calls:
        shares = [("ns", f"user{number}") for number in range(4)]
        for share in shares:
            for number in range(10):
                assert calls.submit(share, number)
        await asyncio.sleep(0.5)
        assert calls.pool.running == 5
        assert (calls.value("ecm_calls_running"), calls.value("ecm_calls_waiting")) == (5, 35)
        await asyncio.sleep(20)
        assert len(calls.began) == 40
        assert set(calls.most.values()) == {2}
        assert (calls.value("ecm_calls_running"), calls.value("ecm_calls_waiting")) == (0, 0)


async def test_a_namespace_with_many_users_gets_no_more_than_one_with_one() -> None:
    async with calling(slots=8, per_share=4) as calls:
        for number in range(50):
            calls.submit(("mallory", f"user{number}"), 0, seconds=10)
        await asyncio.sleep(1)
        for number in range(4):
            calls.submit(("alice", "alice"), number)
        await asyncio.sleep(10)
        # The next four slots that got free, all at 10 s.
        assert [round(at) for at, share, _ in calls.began if share[0] == "alice"] == [10, 10, 10, 10]


async def test_a_key_waits_once_and_a_share_with_too_many_is_refused() -> None:
    async with calling(slots=1, per_share=1, waiting_max=2) as calls:
        share, other = ("ns", "a"), ("ns", "b")
        assert calls.submit(share, 0)
        await asyncio.sleep(0.1)
        assert calls.submit(share, 0), "it is under way"
        assert calls.submit(share, 1)
        assert calls.submit(share, 1)
        assert calls.submit(share, 2)
        assert not calls.submit(share, 3)
        assert calls.submit(other, 3)
        assert calls.value("ecm_calls_refused_total") == 1
        await asyncio.sleep(10)
        assert sorted(number for _, _, number in calls.began) == [0, 1, 2, 3]


async def test_a_call_that_raises_or_is_cancelled_gives_its_slot_back(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise KeyError("a bug")

    def cancel() -> None:
        raise asyncio.CancelledError

    async with calling(slots=1, per_share=1) as calls:
        calls.submit(("ns", "a"), 0, then=fail)
        calls.submit(("ns", "a"), 1, then=cancel)
        calls.submit(("ns", "a"), 2)
        await asyncio.sleep(10)
        assert [at for at, _, _ in calls.began] == pytest.approx([0, 1 + ERROR_PAUSE, 2 + ERROR_PAUSE])
        assert "the call failed" in caplog.text
        assert calls.pool.running == calls.pool.waiting == 0


async def test_no_call_begins_while_it_may_not() -> None:
    async with calling() as calls:
        calls.allowed = False
        calls.submit(("ns", "a"), 0)
        await asyncio.sleep(1)
        assert calls.began == []
        calls.allowed = True
        calls.submit(("ns", "a"), 0)
        await asyncio.sleep(1)
        assert len(calls.began) == 1

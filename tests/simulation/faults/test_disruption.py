"""The annotations by which autoscalers leave an engine's node alone follow its work, in few writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from linkis_ecm.engine.matching import CLAIM_ANNOTATION, Claim
from linkis_ecm.engine.names import UNDISRUPTED
from linkis_ecm.kube.resources import ENGINECONNS, PODS
from tools.testkit.fakes.cluster import loop_now
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


def held(world: World) -> bool:
    (pod,) = world.pods("e")
    annotations = pod["metadata"].get("annotations") or {}
    found = [name for name in UNDISRUPTED if name in annotations]
    assert len(found) in (0, len(UNDISRUPTED))
    return bool(found)


def patches(world: World) -> int:
    return sum(count for (verb, label), count in world.server.writes().items() if (verb, label) == ("patch", "pods"))


async def begin(world: World, **plugin: Any) -> None:
    world.install_plugin(**plugin)
    await world.start()
    world.create("e")
    await world.until_state("e", "Idle")


async def test_a_busy_engine_is_held_and_an_idle_one_is_released_after_a_minute(world: World) -> None:
    await begin(world, doNotDisrupt="busy")
    assert held(world), "from its creation: somebody waits for its start"
    await world.until(lambda: not held(world), 65)
    agent = world.agent("e")
    agent.become("Busy")
    await world.until(lambda: held(world), 2)
    agent.become("Idle")
    await asyncio.sleep(50)
    assert held(world)
    await world.until(lambda: not held(world), 15)
    assert patches(world) == 3
    assert world.state("e") == "Idle"


async def test_many_short_tasks_are_two_writes(world: World) -> None:
    await begin(world, doNotDisrupt="busy")
    await world.until(lambda: not held(world), 65)
    agent, before = world.agent("e"), patches(world)
    for _ in range(20):
        agent.become("Busy")
        await asyncio.sleep(3)
        agent.become("Idle")
        await asyncio.sleep(3)
    assert (held(world), patches(world) - before) == (True, 1)
    await world.until(lambda: not held(world), 65)
    assert patches(world) - before == 2


async def test_a_task_of_a_moment_holds_nothing(world: World) -> None:
    await begin(world, doNotDisrupt="busy")
    await world.until(lambda: not held(world), 65)
    before = patches(world)
    for _ in range(5):
        world.agent("e").become("Busy")
        await asyncio.sleep(0.3)
        world.agent("e").become("Idle")
        await asyncio.sleep(2)
    assert (held(world), patches(world)) == (False, before)


@pytest.mark.parametrize(("mode", "is_held"), [("always", True), ("never", False), (None, False)])
async def test_always_and_never_take_no_write(world: World, mode: str | None, is_held: bool) -> None:
    await begin(world, **({} if mode is None else {"doNotDisrupt": mode}))
    for state in ("Busy", "Idle"):
        world.agent("e").become(state)
        await asyncio.sleep(90)
        assert held(world) is is_held
    assert patches(world) == 0


@pytest.mark.parametrize("status", [403, 500, 409])
async def test_a_write_that_fails_changes_no_state_and_comes_later(world: World, status: int) -> None:
    await begin(world, doNotDisrupt="busy")
    world.server.faults.add(Fault(verb="patch", resource=PODS, status=status, times=6))
    await asyncio.sleep(70)
    assert world.state("e") == "Idle"
    assert world.condition("e", "Stalled").get("status") != "True"
    await world.until(lambda: not held(world), 900)


async def test_an_engine_that_was_given_to_an_asker_is_held_until_its_claim_is_over(world: World) -> None:
    await begin(world, doNotDisrupt="busy")
    text = Claim("call-1", loop_now() + timedelta(seconds=120)).text()
    claim = {"metadata": {"annotations": {CLAIM_ANNOTATION: text}}}
    world.cluster.patch(ENGINECONNS, "e", claim, namespace=NAMESPACE)
    await asyncio.sleep(100)
    assert held(world)
    await world.until(lambda: not held(world), 30)

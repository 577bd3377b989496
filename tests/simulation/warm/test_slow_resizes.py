"""A resize that a kubelet has begun and does not end, after a soft pause: told after a minute, in the status alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.simulation.warm.test_soft_pause import LATEST, begin, change, cpu, pause, resources
from tools.testkit.fakes.cluster import loop_now, timestamp
from tools.testkit.simulation.world import World

pytestmark = pytest.mark.looptime


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


async def test_cpu_that_its_kubelet_does_not_give_back_is_told_after_a_minute(world: World) -> None:
    await pause(world)
    had = resources(world)
    world.agent("e").become("Busy")
    since = {"type": "PodResizeInProgress", "status": "True", "lastTransitionTime": timestamp(loop_now())}
    change(world, conditions=[since], engine={"resources": had})
    await asyncio.sleep(55)
    assert (cpu(world), world.condition("e", "Resized")) == ("500m", {})
    await world.until(lambda: world.condition("e", "Resized"), 40)
    condition = world.condition("e", "Resized")
    assert condition["reason"] == "InProgress"
    assert "cpu 50m in place of 500m" in condition["message"]
    assert "its kubelet is at it since" in condition["message"]
    writes = world.writes()
    await asyncio.sleep(300)
    assert world.writes() == writes
    change(world, conditions=[], engine={"resources": resources(world)})
    await world.until(lambda: not world.condition("e", "Resized"), 5)
    assert "softPause" not in world.status("e")


async def test_a_pause_that_is_under_way_for_long_makes_nothing_too_small(world: World) -> None:
    await begin(world)
    had = resources(world)
    await world.until(lambda: cpu(world) == "50m", LATEST)
    since = {"type": "PodResizeInProgress", "status": "True", "lastTransitionTime": timestamp(loop_now())}
    change(world, conditions=[since], engine={"resources": had})
    await asyncio.sleep(300)
    assert world.condition("e", "Resized") == {}

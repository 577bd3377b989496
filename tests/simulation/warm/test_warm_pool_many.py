"""A pool in many namespaces leaves the event loop to the others: what its passes take of it, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from linkis_ecm.controller.pool import pools
from linkis_ecm.controller.pool.memory import PAUSE_MAX, PAUSE_TIMES, PoolMemory
from linkis_ecm.engine.warm import sizing
from linkis_ecm.kube.resources import NAMESPACES, PLUGINS
from tests.simulation.warm.test_members_removed import members
from tests.simulation.warm.test_warm_pools import PLUGIN, change
from tools.testkit.simulation.members import MemberAgent, world_with_members
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime

MANY = [f"team-{index:02}" for index in range(60)]


class Plans:
    """Counts the plans; each takes the loop for `seconds` of `pools._seconds`, and no time of the simulation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> None:
        self.seconds, self.number, self.spent = seconds, 0, 0.0
        self._plan = sizing.plan
        monkeypatch.setattr(sizing, "plan", self._counted)
        monkeypatch.setattr(pools, "_seconds", lambda: asyncio.get_running_loop().time() + self.spent)

    def _counted(self, *args: Any) -> sizing.Plan:
        self.number += 1
        self.spent += self.seconds
        return self._plan(*args)


@pytest.fixture
async def many() -> AsyncIterator[World]:
    async with world_with_members() as made:
        made.agent_type = MemberAgent
        made.install_plugin()
        for name in MANY:
            made.cluster.create(NAMESPACES, {"metadata": {"name": name}})
        yield made


async def filled(world: World) -> float:
    """Seconds until the pool has one in each namespace."""
    change(world, warmPool={"size": 1, "cap": 200})
    began = asyncio.get_running_loop().time()
    await world.start(watch_namespaces=(NAMESPACE, *MANY))
    await world.until(lambda: all(members(world, one) for one in MANY), 120)
    return asyncio.get_running_loop().time() - began


@pytest.mark.parametrize("seconds", [0.01, 0.03, 0.09])
async def test_the_loop_is_free_nine_tenths_of_the_time(
    many: World, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:  # fmt: skip
    """Each of 60 members that is made, starts and gets ready asks for a pass: there were some hundreds in 3 s."""
    plans = Plans(monkeypatch, seconds)
    took = await filled(many)
    # The first pass comes at once, and its second plan.
    assert plans.spent <= took / 10 + 3 * seconds
    assert took < 10, "the pauses do not keep the pool from being filled"
    await asyncio.sleep(10)
    (condition,) = many.cluster.get(PLUGINS, PLUGIN)["status"]["conditions"]
    assert condition["reason"] == "Filled"


async def test_a_status_that_may_not_be_written_is_not_made(many: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = Plans(monkeypatch)
    passes = 0
    process = pools.WarmPools.process

    async def counted(self: pools.WarmPools, pool: str) -> pools.Result:
        nonlocal passes
        passes += 1
        return await process(self, pool)

    monkeypatch.setattr(pools.WarmPools, "process", counted)
    took = await filled(many)
    assert passes > 50, "too few for a test"
    assert plans.number <= passes + took / pools.STATUS_PERIOD.total_seconds() + 2
    # And one plan is enough where nothing is to be done.
    await asyncio.sleep(30)
    plans.number = passes = 0
    await asyncio.sleep(600)
    assert 0 < plans.number <= passes


@pytest.mark.parametrize(("took", "pause"), [(0.0, 0.0), (0.002, 0.02), (0.05, 0.5), (0.1, PAUSE_MAX), (60, PAUSE_MAX)])
def test_the_pause_follows_the_last_pass_and_has_a_bound(took: float, pause: float) -> None:
    memory = PoolMemory()
    assert memory.pause(1000.0) <= 0, "the first pass comes at once"
    memory.took(took, 1000.0)
    assert memory.pause(1000.0) == pytest.approx(min(PAUSE_MAX, PAUSE_TIMES * took)) == pytest.approx(pause)
    assert memory.pause(1000.0 + pause) <= 1e-9

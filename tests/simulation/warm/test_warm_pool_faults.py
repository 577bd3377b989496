"""A warm pool never has more pods than it is to have, whatever gets lost between API server, watch and operator."""

from __future__ import annotations

import asyncio
import random

import pytest

from linkis_ecm.kube.resources import ENGINECONNS, PLUGINS, PODS
from tests.simulation.warm.test_warm_pools import PLUGIN, POOL, change, condition, filled, members, pooled, ready
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.world import NAMESPACE, World

__all__ = ["pooled"]

pytestmark = pytest.mark.looptime

FAULTS = {
    "creates answer 500 and were executed": Fault(verb="create", resource=PODS, reset="after", times=6),
    "creates are cut before": Fault(verb="create", resource=PODS, reset="before", times=6),
    "creates answer 500": Fault(verb="create", resource=PODS, status=500, times=6),
    "creates are throttled": Fault(verb="create", resource=PODS, status=429, retry_after=1, times=6),
    "marks answer 500": Fault(verb="patch", resource=PODS, status=500, times=8),
    "marks are cut after": Fault(verb="patch", resource=PODS, reset="after", times=3),
    "the status answers 500": Fault(verb="patch", resource=PLUGINS, status=500, times=12),
    "the status is forbidden": Fault(verb="patch", resource=PLUGINS, status=403, reason="Forbidden", times=2),
    "every call is slow": Fault(latency=0.7, times=None),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
async def test_a_pool_is_filled_once_whatever_the_api_server_does(pooled: World, name: str) -> None:
    fault = FAULTS[name]
    played = pooled.server.faults.add(Fault(**{f: getattr(fault, f) for f in fault.__slots__ if f != "played"}))
    change(pooled, warmPool=POOL | {"size": 5})
    await pooled.start()
    await pooled.until(lambda: len(ready(pooled)) == 5, 200)
    await pooled.until(lambda: condition(pooled)[:2] == ("True", "Filled"), 100)
    assert played.played > 0
    # A pod whose create was not answered may be somebody else's: it is deleted, and another one made.
    lost = played.played if fault.reset == "after" and fault.verb == "create" else 0
    assert len(pooled.pods_made) == 5 + lost


@pytest.mark.parametrize("what", ["cut", "expire", "repeat", "reorder", "lose", "silence", "end"])
async def test_a_pool_never_overshoots_whatever_becomes_of_its_watch(pooled: World, what: str) -> None:
    """agent-sandbox#1215: 5,537 creates for 500 pods, because each pass counted by a cache that was late."""
    change(pooled, warmPool=POOL | {"size": 40, "cap": 40})
    lost = pooled.server.faults.add(Fault(verb="create", resource=PODS, reset="after", times=10))
    await pooled.start()
    await asyncio.sleep(0.6)
    getattr(pooled.server.watches, what)(PODS)
    await pooled.until(lambda: len(ready(pooled)) == 40, 400)
    # One more for each create without an answer: that pod may be somebody else's, and is deleted.
    assert len(pooled.pods_made) == 40 + lost.played


@pytest.mark.parametrize("seed", range(12))
async def test_an_operator_that_is_killed_anywhere_leaves_a_pool_that_is_filled_by_the_next(seed: int) -> None:
    world = World(seed)
    rng = random.Random(seed)
    try:
        world.install_plugin(warmPool=POOL | {"size": 5})
        for number in range(4):
            running = await world.start(f"op-{number}")
            await asyncio.sleep(rng.choice([0.001, 0.01, 0.05, 0.2, 0.5, 0.75, 1.0, 16.0]) * rng.random())
            if rng.random() < 0.5:
                change(world, image=f"engine:{number}")
                await asyncio.sleep(rng.random() * 0.3)
            await world.crash(running)
        last = await world.start("last")
        await world.until(last.parts.leading.is_set, 60)
        image = world.cluster.get(PLUGINS, PLUGIN)["spec"]["image"]
        await world.until(lambda: {pod["spec"]["containers"][0]["image"] for pod in members(world)} == {image})
        await filled(world, 5)
        await asyncio.sleep(30)
        assert len(ready(world)) == 5
        # Any of them can be given out: its enrolment is known.
        world.cluster.create(
            ENGINECONNS, {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn",
                          "metadata": {"name": "e", "namespace": NAMESPACE},
                          "spec": {"engineType": "python", "user": "amy", "mode": "once", "code": "1"}},
            namespace=NAMESPACE)  # fmt: skip
        await world.until(lambda: (NAMESPACE, "e") in last.parts.cache.engines)
    finally:
        await world.close()

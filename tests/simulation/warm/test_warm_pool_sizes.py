"""A warm pool grows and shrinks by its schedule and by the engines that come, and never has more pods than its cap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from linkis_ecm.kube.resources import PODS
from tests.simulation.warm.test_warm_pools import PLUGIN, POOL, change, condition, filled, live, members, ready, status
from tools.testkit.fakes.cluster import loop_now
from tools.testkit.simulation.members import MemberAgent, claim_of
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime

# Behind UTC by four hours in winter.
ZONE = "America/Halifax"
SCALING = {"max": 9, "window": "5m", "headroomPercent": 0}


@pytest.fixture
async def pooled() -> AsyncIterator[World]:
    made = World()
    made.agent_type, made.answer_claim = MemberAgent, partial(claim_of, made)
    made.install_plugin(warmPool=POOL)
    yield made
    await made.close()


def clock_at(minutes: int) -> str:
    """The clock of ZONE so many whole minutes from now."""
    return f"{loop_now() - timedelta(hours=4) + timedelta(minutes=minutes):%H:%M}"


def window(start: int, end: int, size: int, **more: Any) -> dict[str, Any]:
    return {"from": clock_at(start), "to": clock_at(end), "timeZone": ZONE, "size": size} | more


def place(world: World) -> dict[str, Any]:
    (found,) = (status(world).get("warmPool") or {}).get("namespaces") or [{}]
    return dict(found)


def watch_most(world: World) -> list[int]:
    """The most members that there were, ending ones too; the list's one entry rises."""
    most = [0]

    def count(_: Any) -> None:
        most[0] = max(most[0], len(members(world)))

    world.cluster.listen(PODS, count)
    return most


async def burst(world: World, number: int, name: str = "e", **spec: Any) -> None:
    """Engines that come at once, until each of them is ready."""
    for one in range(number):
        world.create(f"{name}{one}", **spec)
    for one in range(number):
        await world.until_state(f"{name}{one}", "Idle")


async def test_a_pool_grows_when_a_window_begins_and_shrinks_when_it_ends(pooled: World) -> None:
    change(pooled, warmPool=POOL | {"size": 1, "schedule": [window(5, 20, 8), window(10, 15, 2), window(12, 14, 10)]})
    most = watch_most(pooled)
    begun = loop_now().replace(second=0, microsecond=0)
    await pooled.start()
    await filled(pooled, 1)
    await pooled.until(lambda: place(pooled).get("sizeFrom") == "Value")
    assert place(pooled)["wanted"] == 1
    for minute, size, source in ((5, 8, "Schedule"), (12, 10, "Schedule"), (14, 8, "Schedule"), (20, 1, "Value")):
        border = begun + timedelta(minutes=minute)
        before = len(live(pooled))
        await asyncio.sleep((border - loop_now()).total_seconds() - 0.5)
        assert len(live(pooled)) == before
        await asyncio.sleep(1)
        # Half a second after the border the members are made or told to end.
        assert len(live(pooled)) == size
        await filled(pooled, size)
        await pooled.until(lambda size=size: status(pooled)["warmPool"]["summary"] == f"{size}/{size}")
        assert place(pooled)["sizeFrom"] == source
        assert condition(pooled)[:2] == ("True", "Filled")
    assert most == [10]


async def test_a_pool_of_size_0_is_there_for_its_windows_alone(pooled: World) -> None:
    change(pooled, warmPool=POOL | {"size": 0, "schedule": [window(2, 4, 2)]})
    await pooled.start()
    await pooled.until(lambda: condition(pooled)[:2] == ("True", "Filled"))
    assert status(pooled)["warmPool"]["summary"] == "0/0"
    assert members(pooled) == []
    pooled.create("early")
    await pooled.until_state("early", "Idle")
    assert pooled.status("early")["startup"]["coldReason"] == "PoolEmpty"
    await pooled.until(lambda: len(ready(pooled)) == 2, 150)
    pooled.create("e")
    await pooled.until_state("e", "Idle")
    assert pooled.status("e")["startup"]["kind"] == "warm"
    await pooled.until(lambda: members(pooled) == [], 150)
    assert pooled.state("e") == "Idle"


async def test_a_zone_that_nobody_knows_is_named_and_the_rest_holds(pooled: World) -> None:
    windows = [window(-5, 60, 5, timeZone="Mars/Olympus"), window(-5, 60, 2)]
    change(pooled, warmPool=POOL | {"size": 1, "schedule": windows})
    running = await pooled.start()
    await filled(pooled, 2)
    await pooled.until(lambda: condition(pooled)[:2] == ("False", "UnknownTimeZone"))
    assert "Mars/Olympus. Write a name of the zone database" in condition(pooled)[2]
    value = running.parts.metrics.registry.get_sample_value
    assert value("ecm_warm_pool_problem", {"plugin": PLUGIN, "reason": "UnknownTimeZone"}) == 1
    windows[0]["timeZone"] = ZONE
    change(pooled, warmPool=POOL | {"size": 1, "schedule": windows})
    await filled(pooled, 5)
    await pooled.until(lambda: condition(pooled)[:2] == ("True", "Filled"))


async def test_a_pool_follows_a_burst_and_forgets_it_after_the_window(pooled: World) -> None:
    change(pooled, warmPool=POOL | {"size": 1, "scaling": SCALING})
    most = watch_most(pooled)
    running = await pooled.start()
    await filled(pooled, 1)
    await burst(pooled, 6)
    kinds = [pooled.status(f"e{one}")["startup"]["kind"] for one in range(6)]
    assert kinds.count("warm") == 1
    # As many as came within the time that a member needs: the next burst of that size starts warm.
    await filled(pooled, 6)
    await pooled.until(lambda: place(pooled).get("sizeFrom") == "Rate" and place(pooled)["ready"] == 6)
    value = running.parts.metrics.registry.get_sample_value
    assert value("ecm_warm_pool_wanted", {"plugin": PLUGIN}) == 6
    assert value("ecm_warm_pool_wanted_from", {"plugin": PLUGIN, "source": "Rate"}) == 6
    assert value("ecm_warm_pool_wanted_from", {"plugin": PLUGIN, "source": "Value"}) == 0
    await asyncio.sleep(120)
    await burst(pooled, 6, "f")
    assert {pooled.status(f"f{one}")["startup"]["kind"] for one in range(6)} == {"warm"}
    await asyncio.sleep(290)
    assert len(ready(pooled)) == 6
    await asyncio.sleep(20)
    await filled(pooled, 1)
    assert place(pooled) | {"namespace": ""} == {
        "namespace": "", "ready": 1, "starting": 0, "wanted": 1, "sizeFrom": "Value",
    }  # fmt: skip
    assert most[0] <= POOL["cap"]


async def test_a_burst_beyond_the_most_fills_the_pool_to_it_and_the_cap_holds(pooled: World) -> None:
    change(pooled, warmPool=POOL | {"size": 1, "cap": 5, "scaling": SCALING})
    most = watch_most(pooled)
    await pooled.start()
    await filled(pooled, 1)
    await burst(pooled, 15)
    await filled(pooled, 5)
    await pooled.until(lambda: condition(pooled)[1] == "CapReached")
    assert place(pooled)["wanted"] == SCALING["max"]
    change(pooled, warmPool=POOL | {"size": 1, "cap": 10, "scaling": SCALING})
    await filled(pooled, 9)
    assert most == [9]


async def test_engines_that_no_pool_can_serve_do_not_make_it_larger(pooled: World) -> None:
    change(pooled, warmPool=POOL | {"size": 1, "scaling": SCALING})
    running = await pooled.start()
    await filled(pooled, 1)
    await burst(pooled, 6, stopGrace="5m")
    await asyncio.sleep(5)
    assert len(live(pooled)) == 1
    assert place(pooled)["sizeFrom"] == "Value"
    value = running.parts.metrics.registry.get_sample_value
    labels = {"plugin": PLUGIN, "origin": "cold"}
    assert value("ecm_warm_pool_starts_total", labels | {"reason": "Misfit"}) == 6
    assert value("ecm_warm_pool_starts_total", labels | {"reason": "PoolEmpty"}) == 0


async def test_a_successor_knows_the_burst_from_the_engines(pooled: World) -> None:
    change(pooled, warmPool=POOL | {"size": 1, "scaling": SCALING})
    running = await pooled.start()
    await filled(pooled, 1)
    await burst(pooled, 6)
    await filled(pooled, 6)
    before = {pod["metadata"]["uid"] for pod in members(pooled)}
    await pooled.crash(running)
    successor = await pooled.start("two")
    await pooled.until(successor.parts.leading.is_set)
    await asyncio.sleep(60)
    assert {pod["metadata"]["uid"] for pod in ready(pooled)} == before
    assert place(pooled)["sizeFrom"] == "Rate"
    await asyncio.sleep(300)
    await filled(pooled, 1)


async def test_engines_that_no_member_could_serve_do_not_make_the_pool_grow(pooled: World) -> None:
    change(pooled, warmPool=POOL | {"size": 0, "scaling": SCALING})
    most = watch_most(pooled)
    await pooled.start()
    await pooled.until(lambda: condition(pooled)[:2] == ("True", "Filled"))
    await burst(pooled, 4, volumes=[{"name": "d", "mountPath": "/data", "emptyDir": {}}])
    assert {pooled.status(f"e{one}")["startup"]["coldReason"] for one in range(4)} == {"Misfit"}
    await asyncio.sleep(60)
    assert most == [0]


async def test_a_replica_that_does_not_lead_counts_no_start(pooled: World) -> None:
    await pooled.start()
    await filled(pooled)
    other = await pooled.start("two")
    cache = other.parts.cache
    await pooled.until(lambda: len(cache.members(NAMESPACE, PLUGIN)) == 3)
    await burst(pooled, 5)
    await pooled.until(lambda: (NAMESPACE, "e4") in cache.engines and cache.engines[NAMESPACE, "e4"].text("podName"))
    value = other.parts.metrics.registry.get_sample_value
    for labels in ({"origin": "warm", "reason": ""}, {"origin": "cold", "reason": "PoolEmpty"}):
        assert not value("ecm_warm_pool_starts_total", {"plugin": PLUGIN} | labels)
    assert (value("ecm_warm_pool_age_at_claim_seconds_count") or 0) == 0

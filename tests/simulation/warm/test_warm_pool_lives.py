"""Pool and claims together, as an operator has them: what an engine takes is made again, and is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest

from linkis_ecm.kube.resources import PODS
from tests.simulation.warm.test_warm_pools import PLUGIN, POOL, change, filled, live, ready, status, uids
from tools.testkit.simulation.members import MemberAgent, claim_of
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime


@pytest.fixture
async def pooled() -> AsyncIterator[World]:
    made = World()
    made.agent_type, made.answer_claim = MemberAgent, partial(claim_of, made)
    made.install_plugin(warmPool=POOL)
    yield made
    await made.close()


async def test_engines_take_members_and_the_pool_is_filled_behind_them(pooled: World) -> None:
    running = await pooled.start()
    await filled(pooled)
    for number in range(12):
        pooled.create(f"e{number}", user=f"u{number}", env=[{"name": "A", "value": str(number)}])
        await asyncio.sleep(1)
    for number in range(12):
        await pooled.until_state(f"e{number}", "Idle")
    names = [pooled.status(f"e{number}")["podName"] for number in range(12)]
    assert len(set(names)) == 12
    assert {pooled.status(f"e{number}")["startup"]["kind"] for number in range(12)} == {"warm"}
    await filled_again(pooled)
    assert len(pooled.pods_made) == 15
    value = running.parts.metrics.registry.get_sample_value
    assert value("ecm_warm_pool_starts_total", {"plugin": PLUGIN, "origin": "warm", "reason": ""}) == 12
    assert value("ecm_warm_pool_age_at_claim_seconds_count") == 12


async def filled_again(world: World, number: int = 3) -> None:
    await world.until(lambda: len(ready(world)) == len(live(world)) == number)


async def test_more_engines_than_members_start_cold_and_are_counted(pooled: World) -> None:
    running = await pooled.start()
    await filled(pooled)
    for number in range(8):
        pooled.create(f"e{number}")
    for number in range(8):
        await pooled.until_state(f"e{number}", "Idle")
    kinds = [pooled.status(f"e{number}")["startup"]["kind"] for number in range(8)]
    assert kinds.count("warm") == 3
    assert len({pooled.status(f"e{number}")["podName"] for number in range(8)}) == 8
    value = running.parts.metrics.registry.get_sample_value
    assert value("ecm_warm_pool_starts_total", {"plugin": PLUGIN, "origin": "warm", "reason": ""}) == 3
    assert value("ecm_warm_pool_starts_total", {"plugin": PLUGIN, "origin": "cold", "reason": "PoolEmpty"}) == 5
    await filled_again(pooled)


async def test_members_that_are_drained_while_engines_come_never_end_an_engine(pooled: World) -> None:
    """A pool that shrinks deletes members at the moment at which engines claim them."""
    await pooled.start()
    pooled.server.latency = lambda: 0.004
    for turn in range(15):
        change(pooled, warmPool=POOL | {"size": 3})
        await filled_again(pooled)
        names = [f"e{turn}-{number}" for number in range(2)]
        pooled.create(names[0])
        change(pooled, warmPool=POOL | {"size": 1}, **({"image": f"engine:{turn}"} if turn % 3 == 0 else {}))
        pooled.create(names[1])
        for name in names:
            await pooled.until_state(name, "Idle")
    for pod in pooled.cluster.all(PODS):
        owner = pod["metadata"]["ownerReferences"][0]
        if owner["kind"] == "EngineConn":
            assert "deletionTimestamp" not in pod["metadata"]
    await asyncio.sleep(60)
    states = {pooled.state(f"e{turn}-{number}") for turn in range(15) for number in range(2)}
    assert states == {"Idle"}
    assert {pod["metadata"]["namespace"] for pod in live(pooled)} == {NAMESPACE}


async def test_the_refill_waits_until_claims_are_over_and_the_status_is_written_once(pooled: World) -> None:
    change(pooled, warmPool=POOL | {"size": 8, "cap": 20})
    await pooled.start()
    await filled(pooled, 8)
    await asyncio.sleep(20)
    before = pooled.server.writes()
    for number in range(4):
        pooled.create(f"e{number}")
        await pooled.until_state(f"e{number}", "Idle")
        await asyncio.sleep(0.4)
    assert len(live(pooled)) == 4
    assert pooled.server.writes()["patch", "engineconnplugins/status"] == before["patch", "engineconnplugins/status"]
    await asyncio.sleep(1)
    assert len(live(pooled)) == 8
    await filled_again(pooled, 8)


async def test_a_pool_that_claims_never_leave_alone_is_refilled_all_the_same(pooled: World) -> None:
    change(pooled, warmPool=POOL | {"size": 16, "cap": 40})
    await pooled.start()
    await filled(pooled, 16)
    least = 16
    for number in range(40):
        pooled.create(f"e{number}", user=f"u{number}")
        await asyncio.sleep(0.5)
        least = min(least, len(ready(pooled)))
    # Some 5 s of claims, and what a member takes to become ready.
    assert least >= 2
    assert {pooled.status(f"e{number}")["startup"]["kind"] for number in range(39)} == {"warm"}
    await filled_again(pooled, 16)


async def test_members_whose_agents_are_silent_are_not_given_out_and_replaced(pooled: World) -> None:
    """One of three is frozen: its pod says Running, and its container does not end."""
    await pooled.start()
    await filled(pooled)
    await asyncio.sleep(30)
    # The oldest would be the first to go.
    frozen = min(live(pooled), key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))
    agent = pooled.agents[frozen["metadata"]["uid"]]
    agent.end()
    await asyncio.sleep(20)
    # A missed report is tolerated, and such a member comes last.
    pooled.create("e")
    await pooled.until_state("e", "Idle", 5)
    assert pooled.status("e")["startup"]["kind"] == "warm"
    assert pooled.status("e")["podName"] != frozen["metadata"]["name"]
    await pooled.until(lambda: frozen["metadata"]["uid"] not in uids(pooled), 180)
    await filled(pooled)


async def test_while_no_agent_is_heard_members_are_kept_for_five_minutes_and_not_given_out(pooled: World) -> None:
    running = await pooled.start()
    await filled(pooled)
    await asyncio.sleep(30)
    for agent in pooled.agents.values():
        agent.end()
    before = uids(pooled)
    await asyncio.sleep(100)
    await pooled.until(lambda: status(pooled)["warmPool"]["ready"] == 0)
    pooled.create("e")
    await pooled.until_state("e", "Idle", 10)
    assert pooled.status("e")["startup"]["coldReason"] == "PoolEmpty"
    await asyncio.sleep(100)
    assert uids(pooled) == before
    # A new operator has heard nobody yet: it waits as long.
    await pooled.crash(running)
    await pooled.start("another")
    await asyncio.sleep(200)
    assert uids(pooled) == before
    await pooled.until(lambda: not uids(pooled) & before, 300)
    await filled(pooled)

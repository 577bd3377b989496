"""Claims by the real client: two gateways over one API server, lost answers, and what a claim costs the operator."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count

import pytest

from linkis_ecm.engine.matching import CLAIM_ANNOTATION, CLAIM_HOLD, Claim, Requirements, linkis_state
from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.claims import Claims
from linkis_ecm.gateway.inventory.feeds import Feeds
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.kube.resources import ENGINECONNS
from linkis_ecm.model.states import EngineState
from tools.testkit.fakes.cluster import loop_now
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime
WANTED = Requirements(user="hadoop", creator="IDE", engine_type="python")


@asynccontextmanager
async def gateway(world: World, name: str) -> AsyncIterator[tuple[EngineCache, Claims]]:
    """The part of a gateway that claims: its own client, its own watch."""
    client, engines, plugins = world.server.client(), EngineCache(), PluginCache()
    feeds = Feeds(client, engines=engines, plugins=plugins, namespaces=(), configmap=("default", "em"))
    tasks = [asyncio.create_task(reflector.run()) for reflector in feeds.reflectors]
    numbers = count()
    await world.until(lambda: engines.synced)
    try:
        yield engines, Claims(client, engines, plugins, new_id=lambda: f"{name}-{next(numbers)}", clock=loop_now)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def idle(world: World, *names: str) -> None:
    for name in names:
        world.create(name)
    for name in names:
        await world.until_state(name, "Idle")


async def test_two_gateways_give_each_engine_once(world: World) -> None:
    names = [f"e{number}" for number in range(6)]
    await idle(world, *names)
    world.server.latency = lambda: 0.02
    async with gateway(world, "a") as (_, one), gateway(world, "b") as (_, two):
        taken = await asyncio.gather(
            *(claims.claim_free_engine(WANTED, lambda _: True) for _ in range(5) for claims in (one, two))
        )
    found = [engine.name for engine in taken if engine is not None]
    assert sorted(found) == names, "each once, and the last four askers get none"


async def test_a_claim_whose_answer_was_lost_is_known_again(world: World) -> None:
    """The client sends the write again, which is a Conflict with itself."""
    await idle(world, "e")
    async with gateway(world, "a") as (_, claims):
        world.server.faults.add(Fault(verb="patch", resource=ENGINECONNS, reset="after"))
        taken = await claims.claim_free_engine(WANTED, lambda _: True)
    assert taken is not None
    assert taken.name == "e"
    assert taken.claim is not None


async def test_a_claim_of_a_dead_gateway_expires(world: World) -> None:
    await idle(world, "e")
    async with gateway(world, "a") as (_, claims):
        assert await claims.claim_free_engine(WANTED, lambda _: True) is not None
    async with gateway(world, "b") as (_, claims):
        assert await claims.claim_free_engine(WANTED, lambda _: True) is None
        await asyncio.sleep(CLAIM_HOLD.total_seconds())
        assert await claims.claim_free_engine(WANTED, lambda _: True) is not None


async def test_a_claim_costs_the_operator_no_call(world: World) -> None:
    await idle(world, "e")
    async with gateway(world, "a") as (engines, claims):
        await asyncio.sleep(5)
        status, since = world.status("e"), len(world.server.log)
        taken = await claims.claim_free_engine(WANTED, lambda _: True)
        assert taken is not None
        await asyncio.sleep(2)
        assert await claims.release(taken)
        await asyncio.sleep(2)
        known = engines.get(taken.key)
    calls = Counter((entry.call.verb, entry.call.label) for entry in list(world.server.log)[since:])
    calls.pop(("watch", "engineconns"), None)
    assert {call for call in calls if call[1].startswith(("engineconns", "pods"))} == {
        ("patch", "engineconns"),
        ("get", "engineconns"),
    }
    assert calls["patch", "engineconns"] == 2, "the claim and its end, by the gateway; nothing by the operator"
    assert calls["get", "engineconns"] == 1, "release looks first"
    assert world.status("e") == status
    assert known is not None
    assert known.claim is None


def claim(world: World, name: str, seconds: float) -> None:
    """A gateway gives the engine to an asker."""
    text = Claim("call", loop_now() + timedelta(seconds=seconds)).text()
    world.cluster.patch(ENGINECONNS, name, {"metadata": {"annotations": {CLAIM_ANNOTATION: text}}}, namespace=NAMESPACE)


async def test_an_engine_that_was_just_given_out_is_not_culled_before_its_claim_is_over(world: World) -> None:
    world.create("e", idleTimeout="2m")
    await world.until_state("e", "Idle")
    await asyncio.sleep(119)
    claim(world, "e", 180)
    await asyncio.sleep(178)
    assert world.state("e") == "Idle"
    await world.until_state("e", "Success", 10)
    assert world.status("e")["reason"] == "IdleTimeout"


async def test_a_lock_that_is_used_holds_for_three_minutes_after_the_last_task(world: World) -> None:
    """By the status that the operator writes anyway: nobody writes for the lock, and its end is by the clock."""
    await idle(world, "e")
    async with gateway(world, "a") as (engines, claims):
        taken = await claims.claim_free_engine(WANTED, lambda _: True)
        assert taken is not None
        held = taken.claim
        began = len(world.server.log)
        for seconds in (170, 600):
            await asyncio.sleep(seconds)
            world.agent("e").become("Busy")
            await world.until_state("e", "Busy")
            assert await claims.claim_free_engine(WANTED, lambda _: True) is None
            await asyncio.sleep(400)
            world.agent("e").become("Idle", lastTaskEnded=loop_now().timestamp())
            await world.until_state("e", "Idle")
            await asyncio.sleep(CLAIM_HOLD.total_seconds() - 10)
            assert await claims.claim_free_engine(WANTED, lambda _: True) is None
            (engine,) = engines
            assert linkis_state(engine, loop_now()) is EngineState.IDLE
            await asyncio.sleep(11)
            assert linkis_state(engine, loop_now()) is EngineState.UNLOCK
        written = [entry.call.label for entry in list(world.server.log)[began:] if entry.call.verb == "patch"]
        assert sum(label.startswith("engineconns") for label in written) == 4, "Busy and Idle, twice"
        again = await claims.claim_free_engine(WANTED, lambda _: True)
        assert again is not None
        assert again.claim != held


async def test_a_gateway_that_dies_with_a_lock_of_type_always_leaves_it_to_the_owner_and_to_idleness(
    world: World,
) -> None:
    world.create("e", idleTimeout="30m")
    await world.until_state("e", "Idle")
    async with gateway(world, "a") as (engines, claims):
        (engine,) = engines
        taken = await claims.lock(engine, hold=CLAIM_HOLD, always=True)
        assert isinstance(taken, KnownEngine)
    async with gateway(world, "b") as (engines, claims):
        await asyncio.sleep(1200)
        assert await claims.claim_free_engine(WANTED, lambda _: True) is None
        (engine,) = engines
        assert await claims.release(engine)
        freed = await claims.claim_free_engine(WANTED, lambda _: True)
        assert freed is not None
        assert isinstance(await claims.release(freed), bool)
        (engine,) = engines
        assert isinstance(await claims.lock(engine, hold=CLAIM_HOLD, always=True), KnownEngine)
        await world.until_state("e", "Success", 1900)
        assert world.status("e")["reason"] == "IdleTimeout"


async def test_a_claim_does_not_keep_an_engine_beyond_its_life_or_without_a_sane_end(world: World) -> None:
    world.create("old", maxLifetime="2m")
    world.create("kept", idleTimeout="2m")
    await world.until_state("old", "Idle")
    await world.until_state("kept", "Idle")
    claim(world, "old", 180)
    claim(world, "kept", 10 * 365 * 86400)
    await asyncio.sleep(125)
    assert world.status("old")["reason"] == "LifetimeOver"
    assert world.status("kept")["reason"] == "IdleTimeout"


async def test_an_engine_that_is_about_to_be_culled_is_not_given_out(world: World) -> None:
    world.create("e", idleTimeout="10m")
    await world.until_state("e", "Idle")
    async with gateway(world, "a") as (_, claims):
        await asyncio.sleep(600 - CLAIM_HOLD.total_seconds() + 1)
        assert await claims.claim_free_engine(WANTED, lambda _: True) is None
        # A task moves the cull, and it is given out again.
        world.agent("e").become("Busy")
        await world.until_state("e", "Busy")
        world.agent("e").become("Idle", lastTaskEnded=loop_now().timestamp())
        await world.until_state("e", "Idle")
        assert await claims.claim_free_engine(WANTED, lambda _: True) is not None


async def test_an_engine_whose_key_is_not_here_is_given_to_nobody(world: World) -> None:
    await idle(world, "mine", "theirs", "lost")
    await world.crash(world.operators[0])
    async with gateway(world, "a") as (engines, _):
        mine = engines.get((NAMESPACE, "mine"))
        assert mine is not None
        claims = Claims(
            world.server.client(), engines, PluginCache(), new_id=lambda: "a", clock=loop_now,
            has_key=lambda engine: engine.name != "theirs",
        )  # fmt: skip
        world.cluster.patch(
            ENGINECONNS, "lost", {"status": {"reason": "KeyMismatch"}}, namespace=NAMESPACE, subresource="status"
        )
        await world.until(lambda: (lost := engines.get((NAMESPACE, "lost"))) and lost.reason == "KeyMismatch")
        lost = engines.get((NAMESPACE, "lost"))
        assert lost is not None
        assert (lost.usable, mine.usable) == (False, True)
        assert [engine.name for engine, _ in claims.explain(WANTED, lambda _: True)] == ["mine"]
        taken = [await claims.claim_free_engine(WANTED, lambda _: True) for _ in range(2)]
    assert [engine.name if engine is not None else None for engine in taken] == ["mine", None]

"""Engines that are lent, from the operator's decision to the borrower's lock, by the real client and watches."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any

import pytest

from linkis_ecm.engine.matching import CLAIM_HOLD, Requirements, held_claim
from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.http.errors import Refused
from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.claims import Claims
from linkis_ecm.gateway.inventory.feeds import Feeds
from linkis_ecm.gateway.inventory.lending import Loan, holds, may_borrow
from linkis_ecm.gateway.inventory.view import KnownEngine, view_of
from linkis_ecm.kube.resources import ENGINECONNS, PLUGINS
from tests.simulation.people.test_admission_gap import install, lead
from tools.testkit.fakes.cluster import loop_now
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime
GROUP = {"level": "group", "group": "analysts"}
LENT = {"user": "pool", "share": GROUP}
ALICE, ANN = (Caller(user, groups=frozenset({"analysts"})) for user in ("alice", "ann"))
EVE = Caller("eve", groups=frozenset({"staff"}))
WANTED = Requirements(user="pool", creator="IDE", engine_type="python", lent_level="group", lent_group="analysts")


@pytest.fixture
def world(bare_world: World) -> World:
    """A plugin that lends to a group; `serve` starts its operator."""
    share = {"share": "group", "shareAs": "pool", "shareGroups": ["analysts"]}
    bare_world.cluster.patch(PLUGINS, "python-3.11", {"spec": share})
    return bare_world


async def serve(world: World) -> Any:
    """The admission policies are in force, and an operator leads. Not in a fixture, whose clock is the wall's."""
    install(world)
    running = await lead(world)
    await world.until(lambda: running.parts.ready() == "", 20)
    return running


@asynccontextmanager
async def gateway(world: World, name: str) -> AsyncIterator[tuple[EngineCache, PluginCache, Claims]]:
    """The part of a gateway that lends: its own client, its own watch."""
    client, engines, plugins = world.server.client(), EngineCache(), PluginCache()
    feeds = Feeds(client, engines=engines, plugins=plugins, namespaces=(), configmap=("default", "em"))
    tasks = [asyncio.create_task(reflector.run()) for reflector in feeds.reflectors]
    numbers = count()
    await world.until(lambda: engines.synced and plugins.synced)
    try:
        new_id = lambda: f"{name}-{next(numbers)}"  # noqa: E731 - a name for each claim
        yield engines, plugins, Claims(client, engines, plugins, new_id=new_id, clock=loop_now)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def borrower(caller: Caller, plugins: PluginCache) -> Callable[[KnownEngine], bool]:
    return lambda engine: may_borrow(caller, engine, plugins.of(engine))


def now_of(world: World, name: str) -> KnownEngine:
    return view_of(world.cluster.get(ENGINECONNS, name, namespace=NAMESPACE))


async def test_the_operator_says_which_engines_are_lent_and_a_no_stays(world: World) -> None:
    await serve(world)
    world.create("lent", **LENT)
    world.create("with-env", env=[{"name": "A", "value": "1"}], **LENT)
    world.create("others", user="alice", share=GROUP)
    world.create("own", user="pool")
    for name in ("lent", "with-env", "others", "own"):
        await world.until_state(name, "Idle")
    assert world.status("lent")["share"] == {"shared": True}
    assert world.status("with-env")["share"]["message"].startswith("It has env of its own")
    assert world.status("others")["share"]["message"] == "Its plugin's shareAs is pool, and it belongs to alice."
    assert "share" not in world.status("own")
    world.edit("lent", resources={"memory": "1Gi"})
    await world.until(lambda: not world.status("lent")["share"]["shared"])
    world.edit("lent", resources=None)
    await asyncio.sleep(60)
    assert world.status("lent")["share"]["shared"] is False, "its pod may have it still"


async def test_a_volume_of_the_pod_counts_where_the_operator_ended_before_its_first_status(world: World) -> None:
    running = await serve(world)
    world.server.faults.add(Fault(verb="patch", resource=ENGINECONNS, subresource="status", latency=3600))
    volumes = [{"name": "own", "mountPath": "/own", "emptyDir": {}}]
    world.create("lent", volumes=volumes, **LENT)
    await world.until(lambda: bool(world.pods("lent")))
    assert "share" not in world.status("lent")
    await world.crash(running)
    world.edit("lent", volumes=None)
    await lead(world)
    await world.until_state("lent", "Idle", 120)
    assert world.status("lent")["share"]["message"].startswith("It has volumes of its own")


async def test_without_policies_nothing_is_lent(world: World) -> None:
    await world.start()
    world.create("lent", **LENT)
    await world.until_state("lent", "Idle")
    assert world.status("lent")["share"]["message"].startswith("No admission policy is in force")


async def test_two_gateways_lend_each_engine_once_and_none_that_is_not_lent(world: World) -> None:
    await serve(world)
    names = [f"e{number}" for number in range(6)]
    for name in names:
        world.create(name, **LENT)
    world.create("with-env", env=[{"name": "A", "value": "1"}], **LENT)
    world.create("own", user="pool")
    for name in (*names, "with-env", "own"):
        await world.until_state(name, "Idle")
    world.server.latency = lambda: 0.02
    async with gateway(world, "a") as (_, plugins, one), gateway(world, "b") as (_, others, two):
        asks = [
            claims.claim_free_engine(WANTED, borrower(caller, cache), user=caller.user)
            for _ in range(3)
            for claims, cache in ((one, plugins), (two, others))
            for caller in (ALICE, ANN, EVE)
        ]
        world.server.faults.add(Fault(verb="patch", resource=ENGINECONNS, reset="after"))
        taken = [engine for engine in await asyncio.gather(*asks) if engine is not None]
    assert sorted(engine.name for engine in taken) == names, "each once; Eve's six and six others get none"
    for name in names:
        held = held_claim(now_of(world, name), loop_now())
        assert held is not None
        assert held.user in ("alice", "ann")


async def test_a_lock_has_one_holder_while_gateways_and_operators_come_and_go(world: World) -> None:
    """Borrowers come back in time or too late, operators are killed: never two holders, and nobody of no group."""
    await serve(world)
    rng = random.Random(7)
    for number in range(3):
        world.create(f"e{number}", idleTimeout="0s", **LENT)
    for number in range(3):
        await world.until_state(f"e{number}", "Idle")
    lent: list[str] = []

    async def borrow(caller: Caller, plugins: PluginCache, claims: Claims) -> None:
        while True:
            await asyncio.sleep(rng.uniform(1, 60))
            plugin = next(iter(plugins))
            try:
                with claims.lending(Loan(plugin, "group", "analysts", NAMESPACE, f"t-{rng.random()}"), caller.user):
                    found = await claims.claim_free_engine(WANTED, borrower(caller, plugins), user=caller.user)
            except Refused:
                continue  # two are held already
            if found is None:
                continue
            assert caller is not EVE
            assert found.claim is not None
            lock, begun = found.claim.by, loop_now()
            lent.append(lock)
            await asyncio.sleep(rng.uniform(0, 1.5) * CLAIM_HOLD.total_seconds())
            current = now_of(world, found.name)
            if loop_now() - begun < CLAIM_HOLD:
                assert holds(caller, current, loop_now()), "nobody has taken it while its lock held"
                assert current.claim is not None
                assert current.claim.by == lock
            with suppress(Refused):
                await claims.release(current, lock)

    async def kill() -> None:
        while True:
            await asyncio.sleep(rng.uniform(60, 180))
            for running in list(world.operators):
                await world.crash(running)
            await lead(world, identity=f"op-{rng.random()}")

    async with gateway(world, "a") as (_, plugins, one), gateway(world, "b") as (_, others, two):
        tasks = [
            asyncio.create_task(borrow(caller, cache, claims))
            for claims, cache in ((one, plugins), (two, others))
            for caller in (ALICE, ANN, EVE)
        ]
        tasks.append(asyncio.create_task(kill()))
        done, _ = await asyncio.wait(tasks, timeout=1800, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()
    assert len(lent) > 20
    assert len(set(lent)) == len(lent)


async def test_a_plugin_that_lends_no_more_is_followed_at_once(world: World) -> None:
    await serve(world)
    world.create("lent", **LENT)
    await world.until_state("lent", "Idle")
    async with gateway(world, "a") as (engines, plugins, claims):
        taken = await claims.claim_free_engine(WANTED, borrower(ALICE, plugins), user="alice")
        assert taken is not None
        allowed: Any = borrower(ALICE, plugins)
        assert allowed(taken)
        world.cluster.patch(PLUGINS, "python-3.11", {"spec": {"share": "user", "shareAs": None, "shareGroups": None}})
        await world.until(lambda: not allowed(engines.get(taken.key)), 5)
    assert world.status("lent")["share"] == {"shared": True}, "and back where the plugin lends again"

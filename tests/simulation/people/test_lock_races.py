"""Three gateways, some engines and many askers, who lock, work, give back or leave, with operators that are killed and
answers that are lost: no engine is given out while somebody else's lock on it holds."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from linkis_ecm.engine.matching import CLAIM_HOLD
from linkis_ecm.gateway.http.errors import Refused
from linkis_ecm.gateway.inventory.claims import Claims
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.kube.resources import ENGINECONNS
from tests.simulation.people.test_claims import WANTED, gateway, idle
from tools.testkit.fakes.cluster import loop_now
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.world import World

pytestmark = pytest.mark.looptime
ENGINES = ("e0", "e1", "e2")
ASKERS, GIVEN = 8, 40
# Seconds that a task must take to be in the status surely: its writes are a second apart.
SEEN = 5.0


@dataclass
class Holder:
    """Who was given an engine, and until when nobody else may be."""

    lock: str
    works: bool
    until: datetime


class Race:
    """What the askers have seen; `given` counts engines that were given out."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.holders: dict[str, Holder] = {}
        self.given = self.worked = self.refused = 0

    async def ask(self, claims: Claims) -> None:
        """One asker: takes an engine, works with it or does not, and gives it back or leaves."""
        taken = await claims.claim_free_engine(WANTED, lambda _: True)
        if taken is None:
            return
        assert taken.claim is not None
        self.given += 1
        before, now = self.holders.get(taken.name), loop_now()
        assert before is None or not before.works, f"{taken.name} is given out while its holder works"
        assert before is None or before.until <= now, f"{taken.name} is given out while its lock holds"
        me = self.holders[taken.name] = Holder(taken.claim.by, False, taken.claim.until)
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(self.random.uniform(0, 300))
            if not await self.work(claims, taken, me):
                return
        if self.random.random() < 0.5 and await claims.release(taken, me.lock):
            me.until = loop_now() - timedelta(hours=1)

    async def work(self, claims: Claims, taken: KnownEngine, me: Holder) -> bool:
        """Runs a task with the lock; False where the lock was over."""
        sent = loop_now()
        try:
            await claims.require(taken, me.lock)
        except Refused:
            assert me.until <= loop_now(), "a lock that holds is refused"
            self.refused += 1
            return False
        assert self.holders[taken.name] is me, "a lock is taken though the engine is another's"
        self.worked += 1
        agent = self.world.agent(taken.name)
        me.works = True
        seconds = self.random.choice((0.05, self.random.uniform(SEEN, 400)))
        agent.become("Busy")
        await asyncio.sleep(seconds)
        agent.become("Idle", lastTaskEnded=loop_now().timestamp())
        # A task that the status may not show has renewed the lock for half of its hold at least.
        me.works, me.until = False, loop_now() + CLAIM_HOLD if seconds >= SEEN else sent + CLAIM_HOLD / 2
        return True

    async def many(self, claims: Claims) -> None:
        while self.given < GIVEN:
            await self.ask(claims)
            await asyncio.sleep(self.random.uniform(1, 60))

    async def kill_operators(self) -> None:
        """Each two minutes the operator is gone for some seconds, so that states are written late."""
        while True:
            await asyncio.sleep(120)
            for running in list(self.world.operators):
                await self.world.crash(running)
            await asyncio.sleep(self.random.uniform(0, 20))
            await self.world.start()


@pytest.mark.parametrize("seed", range(2))
async def test_no_engine_is_given_out_while_its_lock_holds(world: World, seed: int) -> None:
    race = Race(world, seed)
    await idle(world, *ENGINES)
    world.server.latency = lambda: race.random.uniform(0, 0.05)
    world.server.faults.add(
        Fault(verb="patch", resource=ENGINECONNS, times=None, when=lambda _: race.random.random() < 0.1, reset="after")
    )
    async with AsyncExitStack() as stack:
        replicas = [(await stack.enter_async_context(gateway(world, name)))[1] for name in ("a", "b", "c")]
        killer = asyncio.create_task(race.kill_operators())
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(ASKERS):
                    group.create_task(race.many(replicas[number % len(replicas)]))
        finally:
            killer.cancel()
            await asyncio.gather(killer, return_exceptions=True)
    assert race.worked > 0
    assert race.refused > 0, "some came back too late"

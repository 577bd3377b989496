"""5,000 claims race for few members, senders are killed in between: each pod gets one engine, each engine one pod.

Only the API server keeps them apart here: there are no reservations, and each sender's cache is as old as it likes.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from functools import partial
from typing import Any

import pytest

from linkis_ecm.controller.pool.claims import WarmClaims
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.engine.decision import ClaimPod
from linkis_ecm.engine.names import label_hash
from linkis_ecm.engine.pod.spec import build_pod
from linkis_ecm.engine.pod_view import PodView, pod_view
from linkis_ecm.engine.view import EngineView, engine_view, plugin_view
from linkis_ecm.engine.warm import fit
from linkis_ecm.engine.warm.seals import Seals
from linkis_ecm.kube.client import ApiError
from linkis_ecm.kube.resources import PLUGINS, PODS
from tools.testkit.fakes.cluster import loop_now
from tools.testkit.fakes.faults import Call, Fault
from tools.testkit.fakes.watches import Change
from tools.testkit.simulation.agent_calls import AgentCalls
from tools.testkit.simulation.members import PLUGIN, SETTINGS, add_members
from tools.testkit.simulation.world import KEY, NAMESPACE, World

pytestmark = pytest.mark.looptime

ROUNDS, ENGINES, MEMBERS = 105, 40, 12


class Owners:
    """Which engine each pod has ever had."""

    def __init__(self) -> None:
        self.of_pod: dict[str, set[str]] = {}

    def note(self, change: Change) -> None:
        meta = change.new["metadata"]
        for owner in meta.get("ownerReferences") or ():
            if owner["kind"] == "EngineConn":
                self.of_pod.setdefault(meta["uid"], set()).add(owner["uid"])


class Sender:
    """An operator process as far as it claims pods: it dies at any moment, and its successor looks first."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        plugin = plugin_view(world.cluster.get(PLUGINS, PLUGIN))
        assert plugin is not None
        self.plugin = plugin
        self.cache = Cache(epoch=loop_now())
        self.cache.is_claimed_member = Seals((KEY,)).holds
        self.claims = WarmClaims(
            client=world.server.client(rng=random.Random(rng.random())), cache=self.cache, agents=AgentCalls(world),
            master_keys=(KEY,),
        )  # fmt: skip

    def look(self) -> None:
        """A list of all pods."""
        for body in self.world.cluster.all(PODS):
            self.cache.apply_pod(pod_view(body))

    async def take_one(self, engine: EngineView, attempts: Counter[str]) -> None:
        """Until the engine has a pod, or no member is left."""
        assert engine.spec is not None
        made = build_pod(engine, engine.spec, self.plugin.spec, ticket=engine.uid, attempt=0, settings=SETTINGS)
        while self.cache.pod_of(engine) is None:
            members = self.members()
            if not members:
                return
            member = self.rng.choice(members)
            action = ClaimPod(0, member, fit.claim_patch(member, made, 0), [])
            attempts["sent"] += 1
            try:
                refused = await self.claims.claim_pod(engine, action)
            except ApiError:
                attempts["unknown"] += 1
                await self.claims.is_claimed(engine, member.name)
                continue
            attempts["refused" if refused is not None else "taken"] += 1
            if refused is not None and self.cache.pod_of(engine) is None and member in self.members():
                self.look()  # it is gone

    def members(self) -> list[PodView]:
        return list(self.cache.members(NAMESPACE, label_hash(PLUGIN)))


async def test_5000_racing_claims_give_no_pod_to_two_engines() -> None:
    rng = random.Random(20261127)
    world, owners, attempts = World(), Owners(), Counter[str]()
    world.install_plugin(warmPool={"size": 12})
    world.cluster.listen(PODS, owners.note)
    killed = 0
    for turn in range(ROUNDS):
        add_members(world, *(f"m{turn}-{n}" for n in range(MEMBERS)))
        engines = [engine_of(f"e{turn}-{n}") for n in range(ENGINES)]
        world.server.latency = lambda: rng.uniform(0, 0.02)
        for fault in rng.sample(["before", "after"], rng.choice([0, 1, 2])):
            cut: Any = fault
            unlucky = f"m{turn}-{rng.randrange(MEMBERS)}"
            # One answer that gets lost, or so many that its sender gives up.
            times = rng.choice([1, 200])
            world.server.faults.add(Fault(verb="patch", reset=cut, times=times, when=partial(is_of, unlucky)))
        waiting = engines
        while waiting:
            sender = Sender(world, rng)
            sender.look()
            tasks = [asyncio.create_task(sender.take_one(one, attempts)) for one in waiting]
            # kill -9, or it lives to the end.
            lives = turn % 4 == 0 or rng.random() < 0.3
            _, rest = await asyncio.wait(tasks, timeout=None if lives else rng.uniform(0.001, 0.06))
            killed += bool(rest)
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert [one for one in done if isinstance(one, Exception)] == []
            successor = Sender(world, rng)
            successor.look()
            waiting = [one for one in waiting if successor.cache.pod_of(one) is None] if successor.members() else []
        pods = world.cluster.all(PODS)
        mine = Counter(owner["uid"] for pod in pods for owner in pod["metadata"]["ownerReferences"])
        assert max(mine[one.uid] for one in engines) == 1
        assert sum(mine[one.uid] for one in engines) == MEMBERS
        for pod in pods:
            world.cluster.delete(PODS, pod["metadata"]["name"], namespace=NAMESPACE, grace_seconds=0)
        world.server.faults.clear()
    assert attempts["sent"] >= 5000, (attempts, killed)
    assert killed > 40
    assert attempts["refused"] > 1000
    assert attempts["unknown"] > 0
    assert {len(engines) for engines in owners.of_pod.values()} == {1}
    assert len(owners.of_pod) == ROUNDS * MEMBERS
    await world.close()


def is_of(name: str, call: Call) -> bool:
    return call.name == name


def engine_of(name: str) -> EngineView:
    """An engine as the sender's cache has it; the API server need not know it for a claim."""
    metadata = {"namespace": NAMESPACE, "name": name, "uid": f"uid-of-{name}", "resourceVersion": "1"}
    return engine_view({"metadata": metadata, "spec": {"engineType": "python", "user": "hadoop"}}, epoch=loop_now())

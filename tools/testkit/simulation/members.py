"""Members of a warm pool in the fake cluster: pods that run, and agents that take a claim as the real one does.

`add_members` makes them at once; an operator's own pools make them as ever where `World.agent_type` is MemberAgent.
`AnyPool` gives members out without any reservation, so that engines meet over one: only the API server keeps them
apart.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from linkis_ecm.controller.pool.claims import ClaimRefused
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.engine.causes.cold_starts import Cold
from linkis_ecm.engine.names import MEMBER_UID, POOL_LABEL, READY_ANNOTATION, host_port, label_hash
from linkis_ecm.engine.pod.launch import PodSettings
from linkis_ecm.engine.pod_view import PodView, pod_view
from linkis_ecm.engine.view import EngineView, plugin_view
from linkis_ecm.engine.warm import fit
from linkis_ecm.engine.warm.seals import Seals
from linkis_ecm.kube.resources import PLUGINS, PODS
from linkis_ecm.model.agent_key import AgentKeyRef, Enrolment, agent_key, key_id
from tools.testkit.fakes.cluster import loop_now, timestamp
from tools.testkit.simulation.world import KEY, NAMESPACE, NODE, Agent, Script, World

PLUGIN = "python-3.11"
TAKES = ["env", "workingDir"]
# As the world's operators have them.
SETTINGS = PodSettings(report_url="http://10.0.0.9:9103", instance="ecm:9102")


@dataclass
class MemberAgent(Agent):
    """The agent of a pod that belongs to nobody, until a claim comes."""

    # What it does at a claim: "" takes it; "refuse" answers 409; "hang" does not answer; "lose" takes it, and the
    # answer gets lost; "die" ends its container.
    at_claim: str = ""
    claims_taken: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pod["metadata"]["name"] in self.world.members:
            # It is there at once, and its enrolment stands in the pod.
            self.key = agent_key(KEY, Enrolment(self.pod["metadata"]["uid"], MEMBER_UID, 0, self.nonce))

    async def claim(self, key: str, body: dict[str, Any]) -> dict[str, Any] | ClaimRefused:
        """The agent's answer to POST /v1/claim."""
        if self.at_claim == "hang":
            await asyncio.sleep(2)
            return ClaimRefused("The agent of the pod that it took did not answer.")
        if self.at_claim == "die":
            self.world.exit_pod(self.pod, 137, "OOMKilled")
            return ClaimRefused("The agent of the pod that it took did not answer.")
        if self.at_claim == "refuse":
            return ClaimRefused("The agent of the pod that it took refused it (HTTP 409: no).")
        given = body["environment"]
        if self.claims_taken and self.claims_taken[0]["ECM_UID"] != given["ECM_UID"]:
            return ClaimRefused("The agent of the pod that it took refused it (HTTP 409: another engine's).")
        if key != self.key:
            return ClaimRefused("The agent of the pod that it took proves another key.")
        if not self.claims_taken:
            self.end()
            self.state, self.sequence, self.member = "Idle", self.sequence + 1, False
            self.env |= given
            self.key = body["key"]
            self.live()
        self.claims_taken.append(given)
        if self.at_claim == "lose":
            return ClaimRefused("The agent of the pod that it took did not answer.")
        return self.body()


class AnyPool:
    """Gives out any ready member, the same to several engines. With `rng` any, else the first by name."""

    def __init__(self, world: World, rng: random.Random | None = None) -> None:
        self._world = world
        self._rng = rng
        self.cache: Cache | None = None
        self.offers = 0
        self.refusals = 0

    def offer(self, engine: EngineView) -> tuple[PodView, dict[str, Any]] | None:
        assert self.cache is not None
        pool = label_hash(PLUGIN)
        ready = [one for one in self.cache.members(engine.namespace, pool) if one.member and one.member.ready]
        usable = [one for one in ready if not one.ended and not one.deleting]
        if not usable:
            return None
        self.offers += 1
        member = self._rng.choice(usable) if self._rng is not None else usable[0]
        return member, template_of(self._world)

    def release(self, engine: EngineView) -> None:
        """Nothing is reserved."""

    def why_none(self, engine: EngineView) -> Cold | None:
        return None

    def claim_failed(self, engine: EngineView, because: Cold) -> None:
        """Nothing is remembered."""

    def claim_succeeded(self, engine: EngineView) -> None:
        """Nothing is remembered."""

    def refused(self, pod: PodView) -> None:
        self.refusals += 1


def template_of(world: World) -> dict[str, Any]:
    """The template of the world's plugin."""
    plugin = plugin_view(world.cluster.get(PLUGINS, PLUGIN))
    assert plugin is not None
    return fit.template(plugin, NAMESPACE, SETTINGS)


def add_members(world: World, *names: str, at_claim: str = "", **changes: Any) -> list[MemberAgent]:
    """Ready members. `changes` of the pod's spec."""
    made_from, agents = template_of(world), []
    for name in names:
        body = fit.member_pod(made_from, name)
        body["spec"] |= changes
        ref: dict[str, Any] = {"enrolment": MemberAgent.nonce, "keyId": key_id(KEY), "takes": TAKES}
        world.members.add(name)
        made = world.cluster.create(PODS, body, namespace=NAMESPACE)
        enrolment = AgentKeyRef(made["metadata"]["uid"], MemberAgent.nonce, key_id(KEY))
        ref["seal"] = Seals((KEY,)).seal(pod_view(made), enrolment)
        number = len(world.agents) + len(world.processes) + 1

        def run(item: dict[str, Any], number: int = number, said: str = json.dumps(ref)) -> None:
            item["metadata"]["annotations"][READY_ANNOTATION] = said
            item["spec"]["nodeName"] = NODE
            ran = {"running": {"startedAt": timestamp(loop_now())}}
            scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": timestamp(loop_now())}
            item["status"] |= {
                "phase": "Running", "podIP": f"10.0.{number // 250}.{number % 250}", "conditions": [scheduled],
                "containerStatuses": [{"name": "engine", "state": ran}],
            }  # fmt: skip

        world.cluster.change(PODS, (NAMESPACE, name), run)
        agent = MemberAgent(world, made, Script(), at_claim=at_claim)
        world.agents[made["metadata"]["uid"]] = agent
        agents.append(agent)
    return agents


def members_left(world: World) -> list[str]:
    """The names of the pods that still belong to nobody."""
    return [pod["metadata"]["name"] for pod in world.cluster.all(PODS) if POOL_LABEL in pod["metadata"]["labels"]]


async def claim_of(world: World, address: str, keys: tuple[str, str], body: dict[str, Any]) -> Any:
    """A claim that the operator sends to that address, by the member's key, then by the engine's."""
    for agent in list(world.agents.values()):
        pod = world.cluster.peek(PODS, (NAMESPACE, agent.pod["metadata"]["name"]))
        if pod is None or host_port(pod["status"].get("podIP", ""), 9105) != address:
            continue
        if not isinstance(agent, MemberAgent):
            break
        await asyncio.sleep(0.005)
        key = keys[0] if keys[0] == agent.key else keys[1]
        return await agent.claim(key, body)
    return ClaimRefused("The agent of the pod that it took did not answer.")


@asynccontextmanager
async def world_with_members() -> AsyncIterator[World]:
    """A world whose members take claims; it is closed after the block."""
    made = World()
    made.answer_claim = partial(claim_of, made)
    yield made
    await made.close()

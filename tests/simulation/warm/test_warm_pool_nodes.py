"""Members on nodes that take no new pods are given to nobody and replaced, with a read of each node a minute."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from linkis_ecm.kube.resources import NODES, PLUGINS
from tests.simulation.warm.test_warm_pools import filled, live, pooled, ready
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.members import PLUGIN, MemberAgent, claim_of
from tools.testkit.simulation.world import NODE, World

__all__ = ["pooled"]

pytestmark = pytest.mark.looptime

CORDON = {"spec": {"unschedulable": True}}
CLOSED = [
    CORDON,
    {"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule", "value": "1"}]}},
    {"spec": {"taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]}},
]


def uids(world: World) -> set[str]:
    return {pod["metadata"]["uid"] for pod in live(world)}


def reads(world: World, since: int) -> int:
    return sum(one.call.resource == NODES for one in list(world.server.log)[since:])


@pytest.mark.parametrize("body", CLOSED)
async def test_members_on_a_closed_node_are_replaced_and_given_to_nobody(pooled: World, body: dict[str, Any]) -> None:
    pooled.agent_type, pooled.answer_claim = MemberAgent, partial(claim_of, pooled)
    await pooled.start()
    await filled(pooled)
    await asyncio.sleep(90)
    before = uids(pooled)
    pooled.cluster.patch(NODES, NODE, body)
    await pooled.until(lambda: not before & uids(pooled), 70)
    await filled(pooled)
    # The node that they came to is closed as well: they tolerate it, so the pool does not make them again and again.
    after = uids(pooled)
    await asyncio.sleep(300)
    assert uids(pooled) == after
    pooled.create("e")
    await pooled.until_state("e", "Idle")
    assert pooled.status("e")["startup"]["kind"] == "warm"


async def test_a_node_is_read_once_a_minute(pooled: World) -> None:
    await pooled.start()
    await filled(pooled)
    await asyncio.sleep(90)
    since = len(pooled.server.log)
    await asyncio.sleep(600)
    assert 9 <= reads(pooled, since) <= 11


@pytest.mark.parametrize("fault", [Fault(verb="get", resource=NODES, status=403, reason="Forbidden", times=None),
                                   Fault(verb="get", resource=NODES, latency=5, times=None)])  # fmt: skip
async def test_where_nodes_cannot_be_read_members_stay(pooled: World, fault: Fault) -> None:
    await pooled.start()
    await filled(pooled)
    pooled.server.faults.add(fault)
    before = uids(pooled)
    pooled.cluster.patch(NODES, NODE, CORDON)
    await asyncio.sleep(300)
    assert uids(pooled) == before
    assert len(ready(pooled)) == 3


async def test_a_node_that_is_opened_again_keeps_its_members(pooled: World) -> None:
    await pooled.start()
    await filled(pooled)
    await asyncio.sleep(61)
    before = uids(pooled)
    pooled.cluster.patch(NODES, NODE, CORDON)
    pooled.cluster.patch(NODES, NODE, {"spec": {"unschedulable": None}})
    await asyncio.sleep(300)
    assert uids(pooled) == before


def size_of_node(world: World, cpu: str, memory: str = "64Gi") -> None:
    def edit(item: dict[str, Any]) -> None:
        item["status"]["allocatable"] = {"cpu": cpu, "memory": memory, "pods": "110"}

    world.cluster.change(NODES, ("", NODE), edit)


def pool_reason(world: World) -> str:
    conditions = (world.cluster.get(PLUGINS, PLUGIN).get("status") or {}).get("conditions") or []
    return next((str(one["reason"]) for one in conditions if one["type"] == "WarmPoolReady"), "")


@pytest.mark.parametrize(("cpu", "memory"), [("3920m", "64Gi"), ("16", "8189436Ki")])
async def test_an_engine_that_no_members_node_could_ever_hold_starts_cold(pooled: World, cpu: str, memory: str) -> None:
    """It would take one, its kubelet would call the resize Infeasible, and it would be small for ever."""
    pooled.agent_type, pooled.answer_claim = MemberAgent, partial(claim_of, pooled)
    size_of_node(pooled, cpu, memory)
    await pooled.start()
    await filled(pooled)
    before = uids(pooled)
    pooled.create("large", resources={"cpu": "4", "memory": "8Gi"})
    await pooled.until_state("large", "Idle", 30)
    startup = pooled.status("large")["startup"]
    assert (startup["kind"], startup["coldReason"]) == ("cold", "Misfit")
    assert "is on a node that can never give it what the engine asks for" in startup["coldBecause"]
    assert before <= uids(pooled)
    # What fits is warm, and a larger node counts within the minute.
    pooled.create("small", resources={"cpu": "2", "memory": "2Gi"})
    await pooled.until_state("small", "Idle", 30)
    assert pooled.status("small")["startup"]["kind"] == "warm"
    size_of_node(pooled, "32")
    await asyncio.sleep(70)
    pooled.create("later", resources={"cpu": "4", "memory": "8Gi"})
    await pooled.until_state("later", "Idle", 30)
    assert pooled.status("later")["startup"]["kind"] == "warm"


async def test_a_pool_on_nodes_that_hold_no_engine_of_the_default_size_says_so(pooled: World) -> None:
    size_of_node(pooled, "400m")
    await pooled.start()
    await filled(pooled)
    await pooled.until(lambda: pool_reason(pooled) == "NodesTooSmall", 30)
    size_of_node(pooled, "4")
    await pooled.until(lambda: pool_reason(pooled) == "Filled", 90)

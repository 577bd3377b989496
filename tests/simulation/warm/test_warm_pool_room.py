"""A warm pool gives room to engines that need what its members hold, and no more than that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from linkis_ecm.kube.resources import PODS
from tests.simulation.warm.test_warm_pools import POOL, condition, filled, live, ready
from tools.testkit.fakes.rules import StatusError
from tools.testkit.simulation.world import Script, World

pytestmark = pytest.mark.looptime
NO_NODE = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
NO_CPU = "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {a: b}."


def stuck(words: str) -> Script:
    waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
    return Script(stuck={"phase": "Pending", "conditions": [waits]})


@pytest.fixture
async def pooled() -> AsyncIterator[World]:
    made = World()
    made.install_plugin(
        warmPool=POOL | {"size": 6}, startTimeout="15m",
        maxResources={"cpu": "4", "memory": "8Gi", "extended": {"nvidia.com/gpu": "1"}},
    )  # fmt: skip
    yield made
    await made.close()


async def test_an_engine_that_no_node_may_take_costs_no_member(pooled: World) -> None:
    await pooled.start()
    await filled(pooled, 6)
    pooled.create("e", stuck(NO_NODE), podTemplate={"spec": {"nodeSelector": {"gpu": "h100"}}})
    await pooled.until(lambda: pooled.status("e").get("reason") == "Unschedulable")
    for _ in range(30):
        await asyncio.sleep(10)
        assert len(ready(pooled)) == 6


async def test_a_quota_on_what_members_do_not_have_costs_none(pooled: World) -> None:
    create: Any = pooled.cluster.create

    def refuse(resource: Any, body: dict[str, Any], **more: Any) -> Any:
        if resource == PODS and "nvidia.com/gpu" in str(body["spec"]["containers"][0]["resources"]):
            words = "exceeded quota: q, requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=2, limited"
            raise StatusError(403, "Forbidden", words)
        return create(resource, body, **more)

    await pooled.start()
    await filled(pooled, 6)
    pooled.cluster.create = refuse  # type: ignore[method-assign]
    pooled.create("e", resources={"extended": {"nvidia.com/gpu": "1"}})
    await pooled.until(lambda: pooled.status("e").get("reason") == "QuotaExceeded")
    for _ in range(30):
        await asyncio.sleep(10)
        assert len(ready(pooled)) == 6


async def test_an_engine_gets_the_room_that_it_asks_for_and_the_pool_is_filled_again(pooled: World) -> None:
    """Members have 500m of cpu: three of them leave what the engine asks for. It waits on, as on a full node."""
    await pooled.start()
    await filled(pooled, 6)
    pooled.create("e", stuck(NO_CPU), resources={"cpu": "1500m"}, podTemplate={"spec": {"nodeSelector": {"a": "b"}}})
    await pooled.until(lambda: condition(pooled)[1] == "GivesWay")
    await asyncio.sleep(30)
    assert len(live(pooled)) == 3
    await pooled.until(lambda: len(ready(pooled)) == 6, 120)
    await asyncio.sleep(300)
    assert len(ready(pooled)) == 6
    assert pooled.status("e")["reason"] == "Unschedulable"

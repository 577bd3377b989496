"""A warm pool gives room to engines that need what its members hold, and no more than that."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from linkis_ecm.kube.resources import EVENTS, NODES, PODS
from tests.simulation.warm.test_warm_pools import POOL, condition, filled, live, ready
from tools.testkit.fakes.rules import StatusError
from tools.testkit.simulation.world import NODE, Script, World

pytestmark = pytest.mark.looptime
NO_NODE = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
NO_CPU = "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {a: b}."


def stuck(words: str) -> Script:
    waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
    return Script(stuck={"phase": "Pending", "conditions": [waits]})


@pytest.fixture
async def pooled() -> AsyncIterator[World]:
    made = World()
    # What engines here choose their node by: members do not, so that these engines start cold.
    made.cluster.patch(NODES, NODE, {"metadata": {"labels": {"a": "b"}}})
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


def kept(world: World) -> list[str]:
    return [event["note"] for event in world.cluster.all(EVENTS) if event["reason"] == "WarmPoolStays"]


async def always_ready(world: World, number: int, seconds: int = 900) -> None:
    for _ in range(seconds // 10):
        await asyncio.sleep(10)
        assert len(ready(world)) == number


async def test_an_engine_larger_than_all_members_costs_none_and_is_told(pooled: World) -> None:
    """Six members have 3 cpu together. The pool was empty until the engine's startTimeout."""
    await pooled.start()
    await filled(pooled, 6)
    pooled.create("e", stuck(NO_CPU), resources={"cpu": "4"}, podTemplate={"spec": {"nodeSelector": {"a": "b"}}})
    await pooled.until(lambda: pooled.status("e").get("reason") == "Unschedulable")
    await always_ready(pooled, 6)
    (said,) = kept(pooled)
    assert "node node, which has most of them, then has 3 of cpu where it asks for 4" in said


async def test_a_quota_that_all_members_together_do_not_make_large_enough_costs_none(pooled: World) -> None:
    create: Any = pooled.cluster.create

    def refuse(resource: Any, body: dict[str, Any], **more: Any) -> Any:
        if resource == PODS and body["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "4":
            words = "exceeded quota: q, requested: requests.cpu=4, used: requests.cpu=3500m, limited: requests.cpu=4"
            raise StatusError(403, "Forbidden", words)
        return create(resource, body, **more)

    await pooled.start()
    await filled(pooled, 6)
    pooled.cluster.create = refuse  # type: ignore[method-assign]
    pooled.create("e", resources={"cpu": "4"}, podTemplate={"spec": {"nodeSelector": {"a": "b"}}})
    await pooled.until(lambda: pooled.status("e").get("reason") == "QuotaExceeded")
    await always_ready(pooled, 6, 300)
    (said,) = kept(pooled)
    assert "the quota would then have 3.5 of cpu where it asks for 4" in said


async def test_a_node_that_may_have_enough_is_tried_once(pooled: World) -> None:
    """The node has 5 cpu, of which 2 are of no pod that the operator knows. Somebody else may have them: then the
    engine waits on, and the pool is filled again and left alone."""
    has = {"allocatable": {"cpu": "5", "memory": "64Gi", "pods": "110"}}
    pooled.cluster.change(NODES, ("", NODE), lambda node: node["status"].update(has))
    await pooled.start()
    await filled(pooled, 6)
    await asyncio.sleep(70)
    pooled.create("e", stuck(NO_CPU), resources={"cpu": "4"}, podTemplate={"spec": {"nodeSelector": {"a": "b"}}})
    await pooled.until(lambda: not live(pooled), 60)
    await pooled.until(lambda: len(ready(pooled)) == 6, 120)
    await always_ready(pooled, 6, 600)
    assert pooled.status("e")["reason"] == "Unschedulable"
    assert kept(pooled) == []


async def test_two_engines_that_members_can_help_only_one_of_get_them_one_after_the_other(pooled: World) -> None:
    await pooled.start()
    await filled(pooled, 6)
    for name in ("e1", "e2"):
        pooled.create(name, stuck(NO_CPU), resources={"cpu": "2"}, podTemplate={"spec": {"nodeSelector": {"a": "b"}}})
    await pooled.until(lambda: pooled.status("e2").get("reason") == "Unschedulable")
    await asyncio.sleep(40)
    # Four of 500m for the first one; two more would help nobody. The second one has its turn when there are four.
    assert len(live(pooled)) == 2
    await asyncio.sleep(250)
    await always_ready(pooled, 6, 300)


@pytest.mark.parametrize(
    ("nodes", "spec", "expected"),
    [
        # The one with most members is of another zone.
        ({"a": {}, "b": {"labels": {"zone": "b"}}, "c": {}}, {"nodeSelector": {"zone": "b"}}, {"a": 3, "c": 1}),
        # It has a taint that the engine does not tolerate.
        ({"a": {"taint": "gpu"}, "b": {}, "c": {}}, {"nodeSelector": {"kubernetes.io/os": "linux"}}, {"a": 3, "c": 1}),
        ({"a": {}, "b": {}, "c": {}}, {"nodeSelector": {"zone": "d"}}, {"a": 3, "b": 2, "c": 1}),
        (
            {"a": {"taint": "gpu"}, "b": {}, "c": {}},
            {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
            {"a": 1, "b": 2, "c": 1},
        ),
    ],
)
async def test_members_go_on_a_node_that_the_engine_may_use(
    nodes: dict[str, dict[str, Any]], spec: dict[str, Any], expected: dict[str, int]
) -> None:
    world, names = World(), iter("aaabbc")
    world.node_of = lambda _pod: next(names, "a")
    for name, has in nodes.items():
        labels = {"kubernetes.io/os": "linux"} | has.get("labels", {})
        taints = [{"key": has["taint"], "effect": "NoSchedule"}] if "taint" in has else []
        node = {"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}, "status": {}}
        world.cluster.create(NODES, {"apiVersion": "v1", "kind": "Node"} | node)
    world.install_plugin(warmPool=POOL | {"size": 6}, startTimeout="15m")
    await world.start()
    await filled(world, 6)
    await asyncio.sleep(70)
    assert Counter(pod["spec"]["nodeName"] for pod in live(world)) == {"a": 3, "b": 2, "c": 1}
    world.create("e", stuck(NO_CPU), resources={"cpu": "1"}, podTemplate={"spec": spec | {"schedulerName": "s"}})
    await world.until(lambda: world.status("e").get("reason") == "Unschedulable")
    await asyncio.sleep(30)
    assert Counter(pod["spec"].get("nodeName") for pod in live(world)) == expected
    await world.close()

"""Pods of a pool that are deleted and do not go are told in status, condition and metric, and cost no writes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from linkis_ecm.kube.resources import PODS
from tests.simulation.warm.test_warm_pools import PLUGIN, POOL, change, condition, edit_pod, filled, live, ready, status
from tools.testkit.simulation.world import NAMESPACE, Running, World

pytestmark = pytest.mark.looptime

KEEPS = "audit.example/keeps"


@pytest.fixture
def pooled(bare_world: World) -> World:
    change(bare_world, warmPool=POOL)
    return bare_world


def keep(world: World, pods: list[dict[str, Any]], finalizers: list[str]) -> None:
    for pod in pods:
        edit_pod(world, pod, lambda item: item["metadata"].update(finalizers=finalizers))


def delete(world: World, pods: list[dict[str, Any]], grace: int = 5) -> None:
    for pod in pods:
        meta = pod["metadata"]
        world.cluster.delete(PODS, meta["name"], namespace=meta["namespace"], grace_seconds=grace)


def told(world: World) -> dict[str, Any]:
    found: dict[str, Any] = status(world)["warmPool"]["namespaces"][0].get("stuck", {})
    return found


def counted(running: Running, state: str) -> float | None:
    value = running.parts.metrics.registry.get_sample_value
    return value("ecm_warm_pool_members", {"plugin": PLUGIN, "state": state})


async def test_members_that_finalizers_keep_are_told_until_they_are_gone(pooled: World) -> None:
    running = await pooled.start()
    await filled(pooled)
    kept = ready(pooled)[:2]
    keep(pooled, kept, [KEEPS])
    delete(pooled, kept)
    await pooled.until(lambda: len(ready(pooled)) == 3, 30)
    assert told(pooled) == {}
    await pooled.until(lambda: told(pooled).get("pods") == 2, 90)
    await pooled.until(lambda: condition(pooled)[:2] == ("True", "Filled"))
    message = condition(pooled)[2]
    assert "2 pods of the pool were deleted and do not end" in message
    assert f"Finalizers keep it: {KEEPS}." in message
    oldest = told(pooled)["oldest"]
    assert oldest in {pod["metadata"]["name"] for pod in kept}
    assert f"`kubectl get pod -n {NAMESPACE} {oldest} -o jsonpath='{{.metadata.finalizers}}'`" in message
    await pooled.until(lambda: (counted(running, "stuck"), counted(running, "ready")) == (2, 3))
    assert counted(running, "ending") == 0
    value = running.parts.metrics.registry.get_sample_value
    assert not any(
        value("ecm_warm_pool_problem", {"plugin": PLUGIN, "reason": one}) for one in ("Filled", "CapReached")
    )

    # The status is not written for them again, whatever the time.
    before = pooled.server.writes()["patch", "engineconnplugins/status"]
    await asyncio.sleep(600)
    assert pooled.server.writes()["patch", "engineconnplugins/status"] == before

    keep(pooled, kept, [])
    await pooled.until(lambda: told(pooled) == {}, 10)
    await pooled.until(lambda: counted(running, "stuck") == 0, 10)
    assert "deleted" not in condition(pooled)[2]


async def test_members_of_a_node_that_is_gone_are_told_with_the_node(pooled: World) -> None:
    running = await pooled.start()
    await filled(pooled)
    gone = ready(pooled)[0]
    pooled.unconfirmed.add(PLUGIN)
    delete(pooled, [gone])
    await pooled.until(lambda: told(pooled).get("pods") == 1, 120)
    assert f"`kubectl get node {gone['spec']['nodeName']}`" in told(pooled)["message"]
    await pooled.until(lambda: counted(running, "stuck") == 1)
    assert len(ready(pooled)) == 3


async def test_members_that_are_kept_where_there_is_no_pool_any_more_are_counted(pooled: World) -> None:
    change(pooled, warmPool=POOL | {"namespaces": [NAMESPACE, "default"]})
    running = await pooled.start()
    await filled(pooled, 6)
    keep(pooled, live(pooled, "default"), [KEEPS])
    change(pooled, warmPool=POOL)
    await pooled.until(lambda: counted(running, "stuck") == 3, 200)
    assert told(pooled) == {}


async def test_a_pool_whose_cap_is_taken_by_members_that_end_says_until_when_it_waits(pooled: World) -> None:
    """It said to raise cap, for a minute and a half after a change of the plugin, and was full then by itself."""
    change(pooled, warmPool=POOL | {"cap": 3})
    await pooled.start()
    await filled(pooled)
    pooled.unconfirmed.add(PLUGIN)
    change(pooled, image="engine:2")
    await pooled.until(lambda: condition(pooled)[1] == "CapReached", 10)
    message = condition(pooled)[2]
    assert "3 of the pool's pods end, and count until they are gone, at " in message
    assert "Raise" not in message
    await pooled.until(lambda: len(ready(pooled)) == 3, 200)
    await pooled.until(lambda: condition(pooled)[:2] == ("True", "Filled"))
    assert told(pooled)["pods"] == 3

"""A pod ends soon after its engine, however the engine was deleted, and never while its engine exists."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from linkis_ecm.engine.admission.limits import parse_limits
from linkis_ecm.engine.names import INSTANCE, label_hash
from linkis_ecm.kube.resources import ENGINECONNS, PODS
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    made.limits = parse_limits('{"user": {"engines": 1}}')
    made.install_plugin()
    await made.start()
    yield made
    await made.close()


def disown(world: World, name: str) -> str:
    """Take the owner out of an engine's pod, as the garbage collector does for --cascade=orphan. The pod's name."""
    (pod,) = world.pods(name)
    found: str = pod["metadata"]["name"]
    world.cluster.change(PODS, (NAMESPACE, found), lambda item: item["metadata"].update(ownerReferences=[]))
    return found


def pods(world: World) -> list[str]:
    return [pod["metadata"]["name"] for pod in world.cluster.all(PODS) if "deletionTimestamp" not in pod["metadata"]]


def uid_of(world: World) -> str:
    found: str = world.cluster.get(ENGINECONNS, "e", namespace=NAMESPACE)["metadata"]["uid"]
    return found


def asked(world: World, since: int) -> list[Any]:
    """The reads of single engines."""
    calls = [one.call for one in list(world.server.log)[since:]]
    return [one for one in calls if one.verb == "get" and one.resource is ENGINECONNS and one.name]


async def test_engines_that_are_deleted_with_their_pods_orphaned_leave_none_running(world: World) -> None:
    for number in range(3):
        name = f"o{number}"
        world.create(name)
        await world.until_state(name, "Idle", 60)
        disown(world, name)
        world.delete(name)
        await asyncio.sleep(6)
        assert pods(world) == []
    drift = world.operators[0].parts.metrics.registry.get_sample_value("ecm_drift_total", {"kind": "orphan_pod"})
    assert drift == 3


async def test_a_pod_whose_owner_was_taken_out_by_hand_ends_too(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    name = disown(world, "e")
    await world.until(lambda: name not in pods(world), 6)


async def test_an_engine_that_was_deleted_while_no_operator_ran_takes_its_pod_along(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    await world.crash(world.operators[0])
    name = disown(world, "e")
    world.delete("e")
    running = await world.start("two")
    await world.until(running.parts.reconciler.leading.is_set, 60)
    await world.until(lambda: name not in pods(world), 6)


async def test_an_ordinary_deletion_asks_for_no_engine(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    since = len(world.server.log)
    world.delete("e")
    await asyncio.sleep(30)
    assert pods(world) == []
    assert asked(world, since) == []


async def test_a_cache_that_is_behind_ends_no_pod_and_asks_once_a_minute(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    parts, names, since = world.operators[0].parts, pods(world), len(world.server.log)
    gone = parts.cache.drop_engine((NAMESPACE, "e"), uid_of(world))
    assert gone is not None
    parts.orphans.engine_deleted(gone)
    await asyncio.sleep(240)
    assert pods(world) == names
    assert 1 <= len(asked(world, since)) <= 5


@pytest.mark.parametrize("reason", ["HTTP404", "Forbidden"])
async def test_where_the_api_server_does_not_say_that_the_engine_is_gone_its_pod_stays(
    world: World, reason: str
) -> None:  # fmt: skip
    world.create("e")
    await world.until_state("e", "Idle")
    parts, names = world.operators[0].parts, pods(world)
    status = 403 if reason == "Forbidden" else 404
    refused = Fault(verb="get", resource=ENGINECONNS, times=None, status=status, reason=reason)
    world.server.faults.add(refused)
    gone = parts.cache.drop_engine((NAMESPACE, "e"), uid_of(world))
    assert gone is not None
    parts.orphans.engine_deleted(gone)
    await asyncio.sleep(240)
    assert pods(world) == names
    assert 1 <= refused.played < 20


async def test_the_pods_of_another_installation_are_left(world: World) -> None:
    labels = {
        "app.kubernetes.io/managed-by": "linkis-ecm", "app.kubernetes.io/component": "engine",
        INSTANCE: label_hash("other:9102"),
    }  # fmt: skip
    body = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "theirs", "namespace": NAMESPACE, "labels": labels},
        "spec": {"containers": [{"name": "engine", "image": "i", "env": []}]},
    }  # fmt: skip
    world.cluster.create(PODS, body, namespace=NAMESPACE)
    await asyncio.sleep(30)
    assert pods(world) == ["theirs"]

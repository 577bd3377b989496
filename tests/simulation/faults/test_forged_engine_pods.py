"""A pod that somebody made under the name of an engine's pod is not the engine's: its agent gets no key and no code."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from linkis_ecm.engine.admission.limits import Amount, Limits
from linkis_ecm.engine.names import SEAL_ANNOTATION, pod_name
from linkis_ecm.kube.resources import ENGINECONNS, PODS
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.world import NAMESPACE, Running, World

pytestmark = pytest.mark.looptime

NO_ROOM = {"status": 403, "reason": "Forbidden", "message": "pods is forbidden: exceeded quota: q"}
COPIED = ("uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    made.install_plugin()
    yield made
    await made.close()


def by_hand(name: str, uid: str, attempt: int = 0, report_url: str = "http://10.0.0.9:9103") -> dict[str, Any]:
    """What who may create pods and read EngineConns can write."""
    values = {
        "ECM_NAMESPACE": NAMESPACE, "ECM_NAME": name, "ECM_UID": uid, "ECM_ATTEMPT": str(attempt),
        "ECM_REPORT_URL": report_url,
    }  # fmt: skip
    env = [{"name": key, "value": value} for key, value in values.items()]
    owner = {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "name": name, "uid": uid}
    labels = {"app.kubernetes.io/managed-by": "linkis-ecm", "app.kubernetes.io/component": "engine"}
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod_name(name, uid, attempt), "labels": labels, "ownerReferences": [owner]},
        "spec": {"containers": [{"name": "engine", "image": "evil:1", "env": env}]},
    }  # fmt: skip


def copied(pod: dict[str, Any]) -> dict[str, Any]:
    """The engine's pod as it was made, its seal included, with another command."""
    copy: dict[str, Any] = json.loads(json.dumps(pod))
    copy.pop("status", None)
    for part in COPIED:
        copy["metadata"].pop(part, None)
    copy["spec"].pop("nodeName", None)
    copy["spec"]["containers"][0]["command"] = ["sh", "-c", "evil"]
    return copy


def replace(world: World, pod: dict[str, Any]) -> str:
    """Delete the pod and make a copy of it at once; the copy's uid."""
    world.cluster.delete(PODS, pod["metadata"]["name"], namespace=NAMESPACE, grace_seconds=0)
    uid: str = world.cluster.create(PODS, copied(pod), namespace=NAMESPACE)["metadata"]["uid"]
    return uid


def pods_of(world: World) -> set[str]:
    return {pod["metadata"]["uid"] for pod in world.cluster.all(PODS)}


def has_key(world: World, uid: str) -> bool:
    agent = world.agents.get(uid)
    return agent is not None and bool(agent.key)


async def test_a_pod_that_was_there_before_the_operators_is_not_taken_for_it(world: World) -> None:
    world.server.faults.add(Fault(verb="create", resource=PODS, times=2, **NO_ROOM))
    await world.start()
    uid = world.create("victim")
    await world.until(lambda: world.status("victim").get("reason") == "QuotaExceeded")
    forged = world.cluster.create(PODS, by_hand("victim", uid), namespace=NAMESPACE)["metadata"]["uid"]
    await world.until_state("victim", "Idle", 60)
    (pod,) = world.pods("victim")
    assert pod["metadata"]["uid"] != forged
    assert world.status("victim")["podUid"] == pod["metadata"]["uid"]
    assert not has_key(world, forged)
    assert forged not in pods_of(world)


async def test_no_limit_is_passed_by_with_a_pod_that_is_there_already(world: World) -> None:
    world.limits = Limits(user=Amount(engines=1))
    await world.start()
    world.create("first")
    await world.until_state("first", "Idle")
    uid = world.create("second")
    await world.until(lambda: world.status("second").get("reason") == "LimitReached")
    forged = world.cluster.create(PODS, by_hand("second", uid), namespace=NAMESPACE)["metadata"]["uid"]
    await world.until(lambda: forged not in pods_of(world))
    await asyncio.sleep(30)
    assert world.state("second") == "Starting"
    assert not has_key(world, forged)


@pytest.mark.parametrize("state", ["Starting", "Idle"])
async def test_a_copy_in_the_place_of_an_engines_pod_ends_the_engine(world: World, state: str) -> None:
    await world.start()
    world.create("victim", restartPolicy={"type": "Never"})
    await world.until(lambda: world.status("victim").get("podUid"))
    await world.until_state("victim", state)
    (pod,) = world.pods("victim")
    forged = replace(world, pod)
    await world.until_state("victim", "Failed", 90)
    assert world.status("victim")["reason"] == "PodDeleted"
    assert not has_key(world, forged)
    await world.until(lambda: forged not in pods_of(world))


async def test_a_copy_whose_original_had_no_answer_is_not_taken_for_it(world: World) -> None:
    """The operator does not know the uid of what it made, and the copy has the seal of the original."""
    world.server.faults.add(Fault(verb="create", resource=PODS, times=1, answer_latency=60))
    await world.start()
    uid = world.create("victim")
    await world.until(lambda: world.pods("victim"))
    (pod,) = world.pods("victim")
    forged = replace(world, pod)
    await world.until_state("victim", "Idle", 120)
    (pod,) = world.pods("victim")
    assert pod["metadata"]["uid"] != forged
    assert pod["metadata"]["ownerReferences"][0]["uid"] == uid
    assert not has_key(world, forged)


async def kill_when_made(world: World, running: Running, name: str) -> dict[str, Any]:
    """End the operator when its pod is there and no status says so; the pod."""
    world.server.faults.add(Fault(verb="create", resource=PODS, times=1, answer_latency=60))
    world.create(name)
    await world.until(lambda: world.pods(name))
    await world.crash(running)
    assert "podName" not in world.status(name)
    (pod,) = world.pods(name)
    return pod


async def test_a_successor_knows_the_pod_of_an_operator_that_died_before_its_status(world: World) -> None:
    pod = await kill_when_made(world, await world.start("one"), "e")
    await world.start("two")
    await world.until_state("e", "Idle", 60)
    assert world.status("e")["podUid"] == pod["metadata"]["uid"]
    assert len(world.pods_made) == 1


async def test_a_successor_with_another_key_makes_the_pod_anew(world: World) -> None:
    pod = await kill_when_made(world, await world.start("one"), "e")
    await world.start("two", token_key=b"another key of thirty-two bytes!")
    await world.until_state("e", "Idle", 60)
    assert world.status("e")["podUid"] != pod["metadata"]["uid"]
    assert len(world.pods("e")) == 1
    assert len(world.pods_made) == 2


async def test_an_engine_of_an_earlier_version_keeps_its_pod(world: World) -> None:
    """Its status has the pod's name alone; the uid comes with the next write."""
    running = await world.start("one")
    world.create("e")
    await world.until_state("e", "Idle")
    await world.crash(running)
    uid = world.status("e")["podUid"]
    world.cluster.patch(ENGINECONNS, "e", {"status": {"podUid": None}}, namespace=NAMESPACE, subresource="status")
    for pod in world.cluster.all(PODS):
        world.cluster.change(
            PODS, (NAMESPACE, pod["metadata"]["name"]),
            lambda item: item["metadata"]["annotations"].pop(SEAL_ANNOTATION) and None,
        )  # fmt: skip
    await world.start("two")
    await asyncio.sleep(30)
    world.agent("e").become("Busy")
    await world.until_state("e", "Busy")
    assert world.status("e")["podUid"] == uid


def seal_as_before(world: World) -> None:
    """The seals of all pods in the form of the version before, which was a MAC alone."""
    for pod in world.cluster.all(PODS):
        world.cluster.change(
            PODS, (NAMESPACE, pod["metadata"]["name"]),
            lambda item: item["metadata"]["annotations"].update({SEAL_ANNOTATION: "0" * 64}),
        )  # fmt: skip


async def test_an_engine_with_a_seal_of_an_earlier_form_keeps_its_pod(world: World) -> None:
    running = await world.start("one")
    world.create("e")
    await world.until_state("e", "Idle")
    await world.crash(running)
    seal_as_before(world)
    uid = world.status("e")["podUid"]
    await world.start("two")
    await asyncio.sleep(30)
    world.agent("e").become("Busy")
    await world.until_state("e", "Busy")
    assert world.status("e")["podUid"] == uid
    assert len(world.pods_made) == 1


async def test_a_pod_with_a_seal_of_an_earlier_form_that_no_status_knows_is_made_anew_once(world: World) -> None:
    pod = await kill_when_made(world, await world.start("one"), "e")
    seal_as_before(world)
    await world.start("two")
    await world.until_state("e", "Idle", 60)
    assert world.status("e")["podUid"] != pod["metadata"]["uid"]
    assert (len(world.pods("e")), len(world.pods_made)) == (1, 2)


async def test_a_copy_with_another_size_in_the_place_of_a_pod_that_no_status_knows_is_not_taken(world: World) -> None:
    """It has the seal, and runs the same image: the engine's amounts alone are others."""
    pod = await kill_when_made(world, await world.start("one"), "e")
    copy = copied(pod)
    copy["spec"]["containers"][0].pop("command")
    copy["spec"]["containers"][0]["resources"]["limits"]["memory"] = "64Gi"
    world.cluster.delete(PODS, pod["metadata"]["name"], namespace=NAMESPACE, grace_seconds=0)
    forged = world.cluster.create(PODS, copy, namespace=NAMESPACE)["metadata"]["uid"]
    await world.start("two")
    await world.until_state("e", "Idle", 60)
    assert world.status("e")["podUid"] != forged
    assert not has_key(world, forged)
    assert forged not in pods_of(world)


@pytest.mark.parametrize(("answer", "attack"), [(0.004, 0.002), (0.01, 0.005), (0.5, 0.1), (4.0, 1.0)])
async def test_a_pod_that_takes_the_place_of_one_whose_answer_is_under_way_gets_no_key(
    world: World, answer: float, attack: float
) -> None:
    world.server.faults.add(Fault(verb="create", resource=PODS, times=1, answer_latency=answer))
    await world.start()
    uid = world.create("victim")
    await world.until(lambda: bool(world.pods("victim")))
    (pod,) = world.pods("victim")
    await asyncio.sleep(attack)
    world.cluster.delete(PODS, pod["metadata"]["name"], namespace=NAMESPACE, grace_seconds=0)
    forged = world.cluster.create(PODS, by_hand("victim", uid), namespace=NAMESPACE)["metadata"]["uid"]
    # Where the answer was first, the engine's pod was deleted, which ends it.
    await world.until(lambda: world.status("victim").get("engineState") in ("Idle", "Failed"), 60)
    assert world.status("victim")["podUid"] != forged
    assert not has_key(world, forged)
    assert forged not in pods_of(world) or world.status("victim")["reason"] == "PodDeleted"


async def held(world: World) -> str:
    """The uid of a forged pod that does not go, under the name of the pod of the engine \"victim\", which waits."""
    world.server.faults.add(Fault(verb="create", resource=PODS, times=2, **NO_ROOM))
    await world.start()
    uid = world.create("victim", restartPolicy={"type": "Never"})
    await world.until(lambda: world.status("victim").get("reason") == "QuotaExceeded")
    body = by_hand("victim", uid)
    body["metadata"]["finalizers"] = ["somebody/holds"]
    forged: str = world.cluster.create(PODS, body, namespace=NAMESPACE)["metadata"]["uid"]
    return forged


async def test_the_start_of_an_engine_with_a_pod_that_does_not_go_has_an_end(world: World) -> None:
    forged = await held(world)
    await world.until(lambda: world.status("victim").get("reason") == "NameConflict", 20)
    assert world.state("victim") == "Starting"
    await world.until_state("victim", "Failed", 130)
    assert world.status("victim")["reason"] == "NameConflict"
    assert "startTimeout" in world.status("victim")["message"]
    assert "podUid" not in world.status("victim")
    assert pods_of(world) == {forged}
    assert not has_key(world, forged)


async def test_an_engine_with_a_pod_that_does_not_go_can_be_stopped(world: World) -> None:
    forged = await held(world)
    await asyncio.sleep(10)
    world.edit("victim", desiredState="Stopped")
    await world.until_state("victim", "Success", 20)
    assert not has_key(world, forged)


async def test_an_engine_starts_when_a_pod_that_did_not_go_has_gone(world: World) -> None:
    forged = await held(world)
    await asyncio.sleep(30)
    (pod,) = world.cluster.all(PODS)
    name = pod["metadata"]["name"]
    world.cluster.change(PODS, (NAMESPACE, name), lambda one: one["metadata"].update(finalizers=[]))
    await world.until_state("victim", "Idle", 20)
    assert forged not in pods_of(world)


async def test_a_strangers_pod_that_does_not_go_is_asked_again_after_a_pause(world: World) -> None:
    await held(world)
    before = world.server.writes().total()
    await asyncio.sleep(100)
    assert 0 < world.server.writes().total() - before < 200

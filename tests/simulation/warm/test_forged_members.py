"""A pod that somebody made to look like a warm pool's gets no engine, no key and no user's values."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from linkis_ecm.engine.names import CLAIMED_ANNOTATION, INSTANCE, POOL_LABEL, READY_ANNOTATION
from linkis_ecm.kube.resources import PODS, SECRETS
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.members import MemberAgent, claim_of
from tools.testkit.simulation.world import NAMESPACE, Running, World

pytestmark = pytest.mark.looptime

PLUGIN = "python-3.11"
COPIED = ("uid", "resourceVersion", "creationTimestamp", "generation")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    made.agent_type = MemberAgent
    made.answer_claim = partial(claim_of, made)
    yield made
    await made.close()


def members(world: World) -> list[dict[str, Any]]:
    return [pod for pod in world.cluster.all(PODS) if POOL_LABEL in pod["metadata"]["labels"]]


def ready(world: World) -> list[dict[str, Any]]:
    return [pod for pod in members(world) if READY_ANNOTATION in pod["metadata"]["annotations"]]


async def pool_of(world: World, size: int = 3) -> Running:
    world.install_plugin(warmPool={"size": size, "cap": 10, "namespaces": [NAMESPACE]})
    running = await world.start()
    await world.until(lambda: len(ready(world)) == size)
    return running


def forge(world: World, name: str, **labels: str) -> dict[str, Any]:
    """A copy of a ready member, as who may create, get and list pods makes one."""
    pod: dict[str, Any] = json.loads(json.dumps(ready(world)[0]))
    pod.pop("status", None)
    for part in COPIED:
        pod["metadata"].pop(part, None)
    pod["metadata"]["name"] = pod["spec"]["hostname"] = name
    pod["metadata"]["labels"] |= labels
    pod["spec"].pop("nodeName", None)
    pod["spec"]["containers"][0]["command"] = ["sh", "-c", "evil"]
    return world.cluster.create(PODS, pod, namespace=NAMESPACE)


def value(running: Running, name: str, **labels: str) -> float | None:
    return running.parts.metrics.registry.get_sample_value(name, labels)


async def test_a_copy_of_a_member_is_deleted_and_given_to_nobody(world: World) -> None:
    running = await pool_of(world)
    key = {"k": base64.b64encode(b"top").decode()}
    world.cluster.create(SECRETS, {"metadata": {"name": "s"}, "data": key}, namespace=NAMESPACE)
    forged = forge(world, "aa-forged")
    variable = {"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    for n in range(4):
        world.create(f"v{n}", env=[variable])
    for n in range(4):
        await world.until_state(f"v{n}", "Idle", 30)
        assert world.status(f"v{n}")["podName"] != "aa-forged"
    await world.until(lambda: "aa-forged" not in {pod["metadata"]["name"] for pod in world.cluster.all(PODS)})
    assert value(running, "ecm_warm_pool_deletes_total", plugin=PLUGIN, reason="unknown") == 1
    agent = world.agents.get(forged["metadata"]["uid"])
    assert agent is None or (not agent.key and not getattr(agent, "claims_taken", []))
    events = running.parts.recorder._known
    assert (forged["metadata"]["uid"], "WarmPoolPodDeleted") in events


async def test_a_copy_that_names_the_member_whose_seal_it_has_is_given_to_nobody(world: World) -> None:
    """The seal is of a pod's uid: the copy's own, whatever its annotation says."""
    running = await pool_of(world)
    original = ready(world)[0]["metadata"]["uid"]
    forged = forge(world, "aa-forged")

    def named(item: dict[str, Any]) -> None:
        notes = item["metadata"]["annotations"]
        notes[READY_ANNOTATION] = json.dumps(json.loads(notes[READY_ANNOTATION]) | {"podUid": original})

    world.cluster.change(PODS, (NAMESPACE, "aa-forged"), named)
    await world.until(lambda: forged["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in members(world)})
    assert value(running, "ecm_warm_pool_deletes_total", plugin=PLUGIN, reason="unknown") == 1
    for n in range(4):
        world.create(f"v{n}")
        await world.until_state(f"v{n}", "Idle", 30)
        assert world.status(f"v{n}")["podUid"] != forged["metadata"]["uid"]


async def test_a_copy_with_another_installations_label_is_given_to_nobody(world: World) -> None:
    await pool_of(world)
    forged = forge(world, "aa-forged", **{INSTANCE: "somebody-else"})
    await asyncio.sleep(60)
    for n in range(4):
        world.create(f"v{n}")
        await world.until_state(f"v{n}", "Idle", 30)
        assert world.status(f"v{n}")["podName"] != "aa-forged"
    agent = world.agents.get(forged["metadata"]["uid"])
    assert agent is None or not agent.key


async def test_a_pod_that_says_it_was_claimed_is_not_its_engines(world: World) -> None:
    running = await pool_of(world, size=1)
    forged = forge(world, "aa-forged")
    uid = world.create("victim")

    def as_claimed(item: dict[str, Any]) -> None:
        del item["metadata"]["labels"][POOL_LABEL]
        item["metadata"]["annotations"][CLAIMED_ANNOTATION] = "0"
        owner = {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "name": "victim", "uid": uid}
        item["metadata"]["ownerReferences"] = [owner | {"controller": True}]

    world.cluster.change(PODS, (NAMESPACE, "aa-forged"), as_claimed)
    await world.until_state("victim", "Idle", 60)
    assert world.status("victim")["podName"] != "aa-forged"
    await world.until(lambda: len(world.pods("victim")) == 1)
    agent = world.agents.get(forged["metadata"]["uid"])
    assert agent is None or not getattr(agent, "claims_taken", [])
    assert running.parts.leading.is_set()


async def test_a_copy_that_ends_is_no_failure_of_the_pool(world: World) -> None:
    running = await pool_of(world)
    for n in range(5):
        forge(world, f"w{n}")
        world.cluster.change(PODS, (NAMESPACE, f"w{n}"), lambda item: item.update(status={"phase": "Failed"}))
        await asyncio.sleep(1)
    memory = running.parts.pools._memory[PLUGIN]
    assert not any(memory.setbacks.values())


async def test_members_that_were_not_ready_when_their_operator_ended_are_made_anew(world: World) -> None:
    world.install_plugin(warmPool={"size": 3, "cap": 10, "namespaces": [NAMESPACE]})
    first = await world.start("one")
    await world.until(lambda: len(members(world)) == 3)
    before = {pod["metadata"]["uid"] for pod in members(world)}
    assert not ready(world)
    await world.crash(first)
    await world.start("two")
    await world.until(
        lambda: len(ready(world)) == 3 and not before & {p["metadata"]["uid"] for p in members(world)}, 90
    )
    names = [pod["metadata"]["name"] for pod in ready(world)]
    world.create("e")
    await world.until_state("e", "Idle", 30)
    assert world.status("e")["podName"] in names


async def test_a_pod_in_the_place_of_an_unanswered_create_is_not_taken_for_it(world: World) -> None:
    world.install_plugin(warmPool={"size": 1, "cap": 10, "namespaces": [NAMESPACE]})
    world.server.faults.add(Fault(verb="create", resource=PODS, times=1, answer_latency=60))
    await world.start()
    await world.until(lambda: len(ready(world)) == 1 and len(members(world)) == 1, 90)
    assert len(world.pods_made) == 2


async def test_labels_of_pods_make_no_series(world: World) -> None:
    running = await pool_of(world)
    for n in range(20):
        forge(world, f"f{n}", **{POOL_LABEL: f"label-{n}"})
    for n in range(20, 30):
        forge(world, f"f{n}", **{POOL_LABEL: f"label-{n}"})
        await asyncio.sleep(0.01)

        def drop(item: dict[str, Any]) -> None:
            item["metadata"]["labels"].pop(POOL_LABEL)

        if world.cluster.peek(PODS, (NAMESPACE, f"f{n}")) is not None:
            world.cluster.change(PODS, (NAMESPACE, f"f{n}"), drop)
    await asyncio.sleep(90)
    labels = [s.labels for family in running.parts.metrics.registry.collect() for s in family.samples]
    assert not [one for one in labels if str(one.get("plugin", "")).startswith("label-")]
    assert set(running.parts.pools._memory) == {PLUGIN}


async def test_nodes_that_forged_members_name_are_not_looked_at(world: World) -> None:
    """A thousand of them came before the nodes on which members wait: a drain was noticed after minutes."""
    running = await pool_of(world)
    real = {pod["spec"]["nodeName"] for pod in ready(world)}
    for number in range(100):
        name = forge(world, f"copy-{number}")["metadata"]["name"]

        def elsewhere(item: dict[str, Any], node: str = f"made-up-{number}") -> None:
            item["spec"]["nodeName"] = node
            item["metadata"]["finalizers"] = ["example.com/kept"]

        world.cluster.change(PODS, (NAMESPACE, name), elsewhere)
    await asyncio.sleep(180)
    assert set(running.parts.pools._nodes._known) == real

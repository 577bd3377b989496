"""Two installations over the same namespaces: each engine has one owner and one pod, and nobody touches another's."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

import pytest

from linkis_ecm.engine.names import INSTANCE, label_hash
from linkis_ecm.kube.resources import ENGINECONNS, EVENTS, LEASES, PODS
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.world import NAMESPACE, Running, Script, World

pytestmark = pytest.mark.looptime

A: dict[str, Any] = {}
B: dict[str, Any] = {
    "ecm_instance": "b:9102", "report_url": "http://b:9103", "lease_name": "b-operator",
    "token_key": b"another key of thirty-two bytes!",
}  # fmt: skip
NAMES = {"ecm:9102": A, "b:9102": B}


@pytest.fixture
def world(bare_world: World) -> World:
    return bare_world


def owner(world: World, name: str) -> str:
    return str(world.status(name).get("ecmInstance", ""))


def assert_one_owner_and_one_pod(world: World, name: str, pods: int = 1) -> None:
    made = [pod["metadata"]["labels"][INSTANCE] for pod in world.pods(name)]
    assert made == [label_hash(owner(world, name))] * pods
    rows = [row for row in world.rows.rows.values() if row.name == name]
    assert [row.ecm_instance for row in rows] == [owner(world, name)]


# 20 worlds of 50 engines: 1000 interleavings of two operators, in some of which one is killed and comes back.
@pytest.mark.parametrize("seed", range(20))
async def test_of_two_installations_one_accepts_an_engine(world: World, seed: int) -> None:
    rng = random.Random(seed)
    world.server.latency = lambda: rng.uniform(0, 0.05)
    running: dict[str, Running] = {}
    for instance, changes in NAMES.items():
        running[instance] = await world.start(instance, **changes)
    names = [f"e{n}" for n in range(50)]
    # These never get a pod: the first status alone says whose they are.
    stopped = {name for name in names if rng.random() < 0.3}
    for name in names:
        await asyncio.sleep(rng.choice([0, 0, rng.uniform(0, 0.1)]))
        spec = {"desiredState": "Stopped"} if name in stopped else {}
        world.create(name, Script(start=rng.uniform(0, 0.3), ready=rng.uniform(0, 0.3)), **spec)
        if seed % 2 and rng.random() < 0.1:
            instance = rng.choice(list(NAMES))
            await world.crash(running[instance])
            running[instance] = await world.start(f"{instance}-{name}", **NAMES[instance])
    for name in names:
        await world.until_state(name, "Success" if name in stopped else "Idle", 120)
    owners = {name: owner(world, name) for name in names}
    assert set(owners.values()) <= set(NAMES)
    for name in names:
        assert_one_owner_and_one_pod(world, name, pods=0 if name in stopped else 1)
    assert len(world.pods_made) == len(set(world.pods_made)) == 50 - len(stopped)
    await asyncio.sleep(100)
    assert {world.state(name) for name in set(names) - stopped} == {"Idle"}
    assert {name: owner(world, name) for name in names} == owners


async def test_an_installation_leaves_anothers_engines_alone(world: World) -> None:
    first = await world.start(**A)
    for name in ("live", "settled", "stopped"):
        world.create(name, ttlAfterFinished="2m", idleTimeout="2m")
        await world.until_state(name, "Idle")
    world.edit("settled", desiredState="Stopped")
    await world.until_state("settled", "Success")
    await world.crash(first)
    second = await world.start(**B)
    await world.until(second.parts.reconciler.leading.is_set)
    world.edit("stopped", desiredState="Stopped")
    writes, status = world.writes(), world.status("live")
    await asyncio.sleep(300)
    await second.parts.resync.run_once()
    await second.parts.resync.end_absent_rows()
    await second.parts.audit.run_once()
    await second.parts.audit.run_once()
    assert world.writes() == writes
    assert world.status("live") == status
    assert {world.state(name) for name in ("live", "settled", "stopped")} == {"Idle", "Success"}
    assert {row.ecm_instance for row in world.rows.rows.values()} == {"ecm:9102"}
    assert second.parts.metrics.registry.get_sample_value("ecm_foreign_engines") == 2
    # Their own installation comes back.
    await world.crash(second)
    await world.start("again", **A)
    await world.until_state("stopped", "Success")
    await world.until(lambda: len(world.cluster.all(ENGINECONNS)) < 3, 60)


async def test_the_agent_of_anothers_engine_is_refused_and_goes_on(world: World) -> None:
    first = await world.start(**A)
    world.create("e")
    await world.until_state("e", "Idle")
    await world.crash(first)
    # The same key and the same address: a name alone tells them apart.
    second = await world.start(**A | {"ecm_instance": "c:9102"})
    await world.until(second.parts.reconciler.leading.is_set)
    assert world.agent("e").report() == 421
    await asyncio.sleep(300)
    assert world.state("e") == "Idle"
    assert owner(world, "e") == "ecm:9102"


async def test_a_renamed_installation_takes_over_what_it_is_told_to(world: World) -> None:
    first = await world.start(**A)
    for name in ("live", "settled"):
        world.create(name, ttlAfterFinished="10m")
        await world.until_state(name, "Idle")
    world.edit("settled", desiredState="Stopped")
    await world.until_state("settled", "Success")
    await world.crash(first)
    renamed = A | {"ecm_instance": "new:9102"}
    second = await world.start("two", **renamed, adopt_instances=("ecm:9102",))
    await world.until(lambda: owner(world, "live") == owner(world, "settled") == "new:9102")
    world.agent("live").become("Busy")
    await world.until_state("live", "Busy")
    row = world.row("live")
    assert row is not None
    assert row.ecm_instance == "new:9102"
    # The old name is needed once: the label of the pod still has it.
    await world.crash(second)
    await world.start("three", **renamed)
    await asyncio.sleep(700)
    assert world.state("live") == "Busy"
    assert len(world.pods_made) == 2
    await world.until(lambda: len(world.cluster.all(ENGINECONNS)) == 1)
    world.edit("live", desiredState="Stopped")
    await world.until_state("live", "Success")


async def test_an_author_may_name_the_installation(world: World) -> None:
    for instance, changes in NAMES.items():
        await world.start(instance, **changes)
    for n in range(10):
        body = {
            "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn",
            "metadata": {"name": f"e{n}", "namespace": NAMESPACE, "annotations": {INSTANCE: "b:9102"}},
            "spec": {"engineType": "python", "user": "hadoop"},
        }  # fmt: skip
        world.cluster.create(ENGINECONNS, body, namespace=NAMESPACE)
    for n in range(10):
        await world.until_state(f"e{n}", "Idle")
        assert owner(world, f"e{n}") == "b:9102"


async def test_who_made_the_pod_first_but_wrote_second_loses_the_engine(world: World) -> None:
    """A makes the pod and cannot write; B writes, as it knows of no plugin. B's pod replaces A's."""
    first = await world.start("a", **A)
    await world.until(first.parts.reconciler.leading.is_set)
    held = Fault(verb="patch", resource=ENGINECONNS, subresource="status", status=500, times=None)
    world.server.faults.add(held)
    world.create("e")
    await world.until(lambda: world.pods("e"))
    world.cluster.patch(
        ENGINECONNS, "e", {"status": {"ecmInstance": "b:9102", "engineState": "Starting", "reason": "PluginMissing"}},
        namespace=NAMESPACE, subresource="status",
    )  # fmt: skip
    held.times = held.played
    await world.start("b", **B)
    await world.until_state("e", "Idle", 120)
    assert_one_owner_and_one_pod(world, "e")
    assert owner(world, "e") == "b:9102"


async def test_an_orphan_pod_of_another_installation_is_left_alone(world: World) -> None:
    running = await world.start("b", **B)
    await world.until(running.parts.reconciler.leading.is_set)
    for name, instance in (("mine", "b:9102"), ("theirs", "ecm:9102")):
        labels = {
            "app.kubernetes.io/managed-by": "linkis-ecm", "app.kubernetes.io/component": "engine",
            INSTANCE: label_hash(instance),
        }  # fmt: skip
        pod = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
            "spec": {"containers": [{"name": "engine", "image": "i", "env": []}]},
        }  # fmt: skip
        world.cluster.create(PODS, pod, namespace=NAMESPACE)
    await asyncio.sleep(5)
    for _ in range(3):
        await running.parts.audit.run_once()
        await asyncio.sleep(5)
    assert [pod["metadata"]["name"] for pod in world.cluster.all(PODS)] == ["theirs"]


async def test_an_overlap_is_told_once_in_log_event_and_metric(world: World, caplog: pytest.LogCaptureFixture) -> None:
    first = await world.start("a", **A)
    for name in ("e0", "e1"):
        world.create(name)
        await world.until_state(name, "Idle")
    await world.crash(first)
    second = await world.start("b", **B)
    await world.until(second.parts.reconciler.leading.is_set)
    for _ in range(3):
        assert await second.parts.overlap.check() == {(NAMESPACE, "ecm:9102"): 2}
    told = [line for line in caplog.messages if "belong to the installation 'ecm:9102'" in line]
    assert len(told) == 1
    assert "ECM_ADOPT_INSTANCES" in told[0]
    await world.until(lambda: any(e["reason"] == "ForeignEngines" for e in world.cluster.all(EVENTS)))
    (event,) = [e for e in world.cluster.all(EVENTS) if e["reason"] == "ForeignEngines"]
    assert (event["regarding"]["kind"], event["type"], event["note"]) == ("Namespace", "Warning", told[0])
    assert second.parts.metrics.registry.get_sample_value("ecm_foreign_engines") == 2
    # An installation of its own namespaces says nothing.
    third = await world.start("c", **A)
    assert await third.parts.overlap.check() == {}


async def test_a_replica_that_waits_says_for_whom(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = await world.start("first")
    await world.until(first.parts.reconciler.leading.is_set)
    await world.start("second")
    await asyncio.sleep(30)
    waits = [line for line in caplog.messages if "second waits" in line]
    assert waits == ["lease default/linkis-ecm-operator: second waits, first holds it"]


async def test_two_installations_in_one_namespace_have_a_lease_each(world: World) -> None:
    for instance, changes in NAMES.items():
        await world.start(instance, **changes)
    await world.until(lambda: all(one.parts.reconciler.leading.is_set() for one in world.operators))
    assert {lease["metadata"]["name"] for lease in world.cluster.all(LEASES)} == {"linkis-ecm-operator", "b-operator"}

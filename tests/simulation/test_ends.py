"""Ends that nobody asked for: how silence is judged, what each end is called, what evidence is kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from linkis_ecm.kube.resources import ENGINECONNS, EVENTS, NAMESPACES, NODES, PODS
from linkis_ecm.model.engine_status import PostMortem
from tools.testkit.fakes.cluster import loop_now
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.world import NAMESPACE, NODE, Script, World

pytestmark = pytest.mark.looptime


def bundle(world: World, uid: str, attempt: int = 0) -> dict[str, Any]:
    files = world.archive.bundles[uid, attempt]
    loaded: dict[str, Any] = orjson.loads(files["bundle.json"])
    return loaded


def set_node(world: World, status: str) -> None:
    def edit(item: dict[str, Any]) -> None:
        item["status"] = {
            "conditions": [{"type": "Ready", "status": status, "reason": "NodeStatusUnknown", "message": "gone quiet"}]
        }

    world.cluster.change(NODES, ("", NODE), edit)


# --- silence


async def test_a_silent_agent_that_answers_is_not_lost(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.agent("e").end()  # its reports stop; it answers
    await asyncio.sleep(600)
    assert world.state("e") == "Idle"


async def test_an_agent_that_neither_reports_nor_answers_is_lost_and_reported(world: World) -> None:
    uid = world.create("e")
    await world.until_state("e", "Idle")
    begun = asyncio.get_running_loop().time()
    world.cut_off.add("e")
    await world.until_state("e", "Failed", 120)
    took = asyncio.get_running_loop().time() - begun
    assert 65 < took < 90, took
    status = world.status("e")
    assert status["reason"] == "AgentLost"
    assert "did not answer" in status["message"]
    await world.until(lambda: not world.pods("e"))
    row = world.row("e")
    assert row is not None
    assert (row.status.value, row.reason) == ("Failed", "AgentLost")
    assert bundle(world, uid)["reason"] == "AgentLost"


async def test_a_silent_engine_on_a_dead_node_is_reported_as_node_lost_and_its_pod_taken_by_force(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.cut_off.add("e")
    set_node(world, "Unknown")
    await world.until_state("e", "Failed", 120)
    assert world.status("e")["reason"] == "NodeLost"
    assert "gone quiet" in world.status("e")["message"]
    await world.until(lambda: not world.pods("e"), 5)


async def test_an_end_is_reported_even_if_its_status_write_is_refused_once(world: World) -> None:
    """Its pod may be gone only after what ended it is written."""
    world.create("e")
    await world.until_state("e", "Idle")
    world.cut_off.add("e")
    set_node(world, "Unknown")
    refused = Fault(verb="patch", resource=ENGINECONNS, subresource="status", status=500, times=6)
    world.server.faults.add(refused)
    await world.until_state("e", "Failed", 180)
    assert refused.played == 6
    assert world.status("e")["reason"] == "NodeLost"
    await world.until(lambda: not world.pods("e"), 5)


@pytest.mark.parametrize("policy", ["Never", "OnFailure"])
async def test_an_operator_killed_before_it_deletes_a_failed_engines_pod_leaves_that_to_the_next(
    world: World, policy: str
) -> None:
    world.create("e", restartPolicy={"type": policy})
    await world.until_state("e", "Idle")
    (first,) = world.pods("e")
    world.cut_off.add("e")
    held = Fault(verb="delete", resource=PODS, latency=3600)
    world.server.faults.add(held)
    await world.until(lambda: held.played == 1, 120)
    await world.crash(world.operators[0])
    assert [pod["metadata"]["uid"] for pod in world.pods("e")] == [first["metadata"]["uid"]]
    world.cut_off.clear()
    await world.start("two")
    if policy == "Never":
        await world.until(lambda: not world.pods("e"))
        assert (world.state("e"), world.status("e")["reason"]) == ("Failed", "AgentLost")
    else:
        await world.until_state("e", "Idle", 120)
        (second,) = world.pods("e")
        assert second["metadata"]["uid"] != first["metadata"]["uid"]
        assert (world.status("e")["attempt"], world.status("e")["lastEnd"]["reason"]) == (1, "AgentLost")


async def test_a_node_that_is_called_ready_until_just_before_the_verdict_is_lost_all_the_same(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.cut_off.add("e")
    await asyncio.sleep(69)  # a second before an engine may be called lost
    set_node(world, "Unknown")
    await world.until_state("e", "Failed", 60)
    assert world.status("e")["reason"] == "NodeLost"


async def test_if_most_agents_are_silent_at_once_no_engine_counts_as_lost(world: World) -> None:
    names = [f"e{n}" for n in range(8)]
    for name in names:
        world.create(name)
    for name in names:
        await world.until_state(name, "Idle")
    world.cut_off.update(names)
    await asyncio.sleep(900)
    assert {world.state(name) for name in names} == {"Idle"}
    world.cut_off.clear()
    await asyncio.sleep(60)
    world.cut_off.add("e0")
    await world.until_state("e0", "Failed", 120)
    assert {world.state(name) for name in names[1:]} == {"Idle"}


async def test_a_new_operator_gives_silent_agents_their_time(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.cut_off.add("e")
    await asyncio.sleep(45)
    await world.crash(world.operators[0])
    await world.start("two")
    world.cut_off.clear()
    await asyncio.sleep(120)
    assert world.state("e") == "Idle"


async def test_a_pod_whose_kubelet_never_ends_it_is_taken_by_force(world: World) -> None:
    """A dead node: the API's deletion waits for a kubelet that does not come back."""
    world.create("e")
    await world.until_state("e", "Idle")
    world.cut_off.add("e")
    world.unconfirmed.add("e")
    world.delete_pod("e", grace=30)
    await world.until_state("e", "ShuttingDown", 5)
    await world.until_state("e", "Failed", 200)
    assert world.status("e")["reason"] == "NodeLost"
    await world.until(lambda: not world.pods("e"), 5)


# --- reasons


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "Evicted", "low on memory"),
        ({"phase": "Failed", "reason": "NodeShutdown", "message": "node went"}, "NodeShutdown", "node went"),
        ({"phase": "Failed", "reason": "Preempting", "message": "preempted"}, "Preempted", "preempted"),
        (
            {"phase": "Failed", "conditions": [
                {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
            "Preempted", "PreemptionByScheduler",
        ),
        (
            {"phase": "Failed", "conditions": [
                {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]},
            "NodeLost", "DeletionByTaintManager",
        ),
    ],
)  # fmt: skip
async def test_what_the_cluster_does_to_a_pod_is_reported_by_name(
    world: World, change: dict[str, Any], reason: str, words: str
) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    name = world.pods("e")[0]["metadata"]["name"]
    world.cluster.change(PODS, (NAMESPACE, name), lambda item: item["status"].update(change))
    await world.until_state("e", "Failed")
    assert world.status("e")["reason"] == reason
    assert words in world.status("e")["message"]
    row = world.row("e")
    assert row is not None
    assert json.loads(row.metrics or "{}")["reason"] == reason


async def test_an_evicted_pod_that_goes_while_its_evidence_is_collected_was_evicted(world: World) -> None:
    """The kubelet takes the object away right after its last word; every look of the operator takes longer."""
    uid = world.create("e")
    await world.until_state("e", "Idle")
    key = NAMESPACE, world.pods("e")[0]["metadata"]["name"]
    world.server.latency = lambda: 0.2
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    world.cluster.change(PODS, key, lambda item: item["status"].setdefault("conditions", []).append(target))
    world.delete_pod("e", grace=30)
    await world.until_state("e", "Failed")
    assert world.status("e")["reason"] == "Evicted"
    await world.until(lambda: (row := world.row("e")) is not None and row.reason == "Evicted")
    assert bundle(world, uid)["reason"] == "Evicted"


async def test_an_end_is_reported_as_an_event_once(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.exit_pod(world.pods("e")[0], 137, "OOMKilled")
    await world.until_state("e", "Failed")
    await world.until(lambda: len(world.cluster.all(EVENTS)) == 3, 10)
    await asyncio.sleep(10)
    told = [(e["reason"], e["type"], e["regarding"]["name"]) for e in world.cluster.all(EVENTS)]
    assert sorted(told) == [
        ("KernelReady", "Normal", "e"), ("OOMKilled", "Warning", "e"), ("PodCreated", "Normal", "e"),
    ]  # fmt: skip


async def test_a_task_of_a_killed_kernel_stands_in_the_post_mortem(world: World) -> None:
    uid = world.create("e")
    await world.until_state("e", "Idle")
    agent = world.agent("e")
    agent.become("Busy")
    agent.become("Failed", reason="KernelDied", message="killed by SIGSEGV", task={"id": "t1", "code": "boom()"})
    world.exit_pod(agent.pod, 139)
    await world.until_state("e", "Failed")
    found = bundle(world, uid)
    assert found["execution"]["code"] == "boom()"
    assert found["agentMessage"] == "killed by SIGSEGV"
    assert found["pod"]["containers"][0]["state"]["terminated"]["exitCode"] == 139
    assert found["missing"] == []
    assert set(world.status("e")["postMortem"]["files"]) == {"bundle.json", "stderr", "stdout"}


# --- evidence


async def test_a_pod_that_could_not_send_its_logs_leaves_what_the_kubelet_has(world: World) -> None:
    uid = world.create("e")
    await world.until_state("e", "Idle")
    world.exit_pod(world.pods("e")[0], 137, "OOMKilled")
    await world.until_state("e", "Failed")
    assert world.archive.bundles[uid, 0]["container.log"] == b"from the kubelet\n"
    (missing,) = world.status("e")["postMortem"]["missing"]
    assert "container.log" in missing
    assert world.rows.post_mortems[uid, 0].reason == "OOMKilled"


async def test_a_pod_that_is_gone_says_what_is_missing(world: World) -> None:
    world.create("e", Script(ships=False))
    await world.until_state("e", "Idle")
    world.delete_pod("e", grace=0)
    await world.until_state("e", "Failed")
    missing = " ".join(world.status("e")["postMortem"]["missing"])
    assert "the pod was gone" in missing
    assert "stdout and stderr" in missing


async def test_a_pod_that_went_with_its_namespace_is_a_deletion(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    # Its controller takes what is inside in an order of its own: here the pod first, the engine not yet.
    namespace = world.cluster.peek(NAMESPACES, ("", NAMESPACE))
    assert namespace is not None
    namespace["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.delete_pod("e")
    await world.until_state("e", "Success")
    row = world.row("e")
    assert row is not None
    assert (row.status.value, row.reason) == ("ShuttingDown", "Deleted")


async def test_an_engine_with_many_spilled_results_ends_with_a_status_that_the_crd_takes(world: World) -> None:
    uid = world.create("e")
    await world.until_state("e", "Idle")
    for number in range(64):
        await world.archive.put(uid, 0, f"result-{number:020x}.arrow", b"x" * 100)
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success")
    told = PostMortem.model_validate(world.status("e")["postMortem"])
    assert told.files == ["bundle.json", "stderr", "stdout"]
    assert told.size_bytes is not None
    assert told.size_bytes > 6400
    assert len(world.rows.post_mortems[uid, 0].files) == 67


async def test_a_broken_archive_stops_no_engine(world: World) -> None:
    world.archive.broken = True
    world.create("e", Script(ships=False))
    await world.until_state("e", "Idle")
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success")
    assert "the archive takes nothing" in " ".join(world.status("e")["postMortem"]["missing"])


async def test_a_kubelet_that_hangs_delays_an_end_by_seconds_at_most(world: World) -> None:
    world.create("e", Script(ships=False))
    await world.until_state("e", "Idle")
    world.server.faults.add(Fault(verb="get", resource=PODS, subresource="log", latency=3600, times=None))
    begun = asyncio.get_running_loop().time()
    world.exit_pod(world.pods("e")[0], 3)
    await world.until_state("e", "Failed", 60)
    assert asyncio.get_running_loop().time() - begun < 15


async def test_bundles_end_with_their_retention(world: World) -> None:
    uid = world.create("e")
    await world.until_state("e", "Idle")
    world.delete("e")
    await world.until(lambda: (uid, 0) in world.archive.bundles)
    world.rows.post_mortems.clear()
    keeper = world.operators[0].parts.keeper
    await keeper.add_file(uid, 0, "gc", _chunks(b"late"), limit=100, ticket=uid)
    assert await keeper.delete_expired() == 0
    entry = world.rows.post_mortems[uid, 0]
    world.rows.post_mortems[uid, 0] = replace(entry, expires=loop_now())
    assert await keeper.delete_expired() == 1
    assert (uid, 0) not in world.archive.bundles


async def _chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part

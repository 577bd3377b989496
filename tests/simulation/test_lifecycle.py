"""Ends and their evidence: silent agents, lost nodes, restarts, culls, once engines, poison, audit, canary."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from linkis_ecm.controller.canary import Canary, CanaryError
from linkis_ecm.kube.resources import ENGINECONNS, EVENTS, NAMESPACES, NODES, PODS
from linkis_ecm.model.engineconn import PostMortem
from linkis_ecm.model.states import EngineState
from tests.fakes.cluster import loop_now
from tests.fakes.faults import Fault
from tests.simulation.world import NAMESPACE, Script, World

pytestmark = pytest.mark.looptime


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    made.install_plugin()
    node = {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip
    made.cluster.create(NODES, node)
    await made.start()
    yield made
    await made.close()


def bundle(world: World, uid: str, attempt: int = 0) -> dict[str, Any]:
    files = world.archive.bundles[uid, attempt]
    loaded: dict[str, Any] = orjson.loads(files["bundle.json"])
    return loaded


def set_node(world: World, status: str) -> None:
    def edit(item: dict[str, Any]) -> None:
        item["status"] = {
            "conditions": [{"type": "Ready", "status": status, "reason": "NodeStatusUnknown", "message": "gone quiet"}]
        }

    world.cluster.change(NODES, ("", "node"), edit)


def condition(world: World, name: str, kind: str) -> dict[str, Any]:
    found = [c for c in world.status(name).get("conditions", []) if c["type"] == kind]
    return found[0] if found else {}


# --- silence


async def test_a_silent_agent_that_answers_is_not_lost(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.agent("e").end()  # its reports stop; it answers
    await asyncio.sleep(600)
    assert world.state("e") == "Idle"


async def test_an_agent_that_neither_reports_nor_answers_is_lost_and_told(world: World) -> None:
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


async def test_a_silent_engine_on_a_dead_node_is_told_as_node_lost_and_its_pod_taken_by_force(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.cut_off.add("e")
    set_node(world, "Unknown")
    await world.until_state("e", "Failed", 120)
    assert world.status("e")["reason"] == "NodeLost"
    assert "gone quiet" in world.status("e")["message"]
    await world.until(lambda: not world.pods("e"), 5)


async def test_a_node_that_is_called_ready_until_just_before_the_verdict_is_lost_all_the_same(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.cut_off.add("e")
    await asyncio.sleep(69)  # a second before an engine may be called lost
    set_node(world, "Unknown")
    await world.until_state("e", "Failed", 60)
    assert world.status("e")["reason"] == "NodeLost"


async def test_when_most_agents_fall_silent_at_once_nobody_is_called_lost(world: World) -> None:
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
        ({"phase": "Failed", "reason": "NodeShutdown", "message": "node went"}, "NodeLost", "node went"),
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
async def test_what_the_cluster_does_to_a_pod_is_told_by_name(
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


async def test_an_end_is_told_as_an_event_once(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.exit_pod(world.pods("e")[0], 137, "OOMKilled")
    await world.until_state("e", "Failed")
    await world.until(lambda: any(e["reason"] == "OOMKilled" for e in world.cluster.all(EVENTS)), 10)
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
    await keeper.take(uid, 0, "stdout", _chunks(b"late"), limit=100, ticket=uid)
    assert await keeper.sweep() == 0
    entry = world.rows.post_mortems[uid, 0]
    world.rows.post_mortems[uid, 0] = replace(entry, expires=loop_now())
    assert await keeper.sweep() == 1
    assert (uid, 0) not in world.archive.bundles


async def _chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


# --- restarts


async def test_a_failed_engine_is_restarted_by_its_policy_with_a_growing_pause(world: World) -> None:
    world.create("e", restartPolicy={"type": "OnFailure", "maxAttempts": 3})
    await world.until_state("e", "Idle")
    for attempt in (1, 2):
        begun = asyncio.get_running_loop().time()
        world.exit_pod(world.pods("e")[0], 3)
        await world.until(lambda attempt=attempt: world.status("e").get("attempt") == attempt, 5)
        assert world.status("e")["reason"] == "Restarting"
        assert world.status("e")["lastEnd"]["reason"] == "AgentExited"
        await world.until_state("e", "Idle", 60)
        assert 10 * attempt <= asyncio.get_running_loop().time() - begun <= 13 * attempt + 2
        assert len(world.pods("e")) == 1
    row = world.row("e")
    assert row is not None
    assert (row.status.value, row.request_times, row.used_times, row.release_times) == ("Idle", 3, 3, 2)
    world.exit_pod(world.pods("e")[0], 3)
    await world.until_state("e", "Failed", 5)
    assert condition(world, "e", "DeadLettered")["status"] == "True"
    row = world.row("e")
    assert row is not None
    assert (row.status.value, row.request_times, row.used_times, row.release_times) == ("Failed", 3, 3, 3)
    assert len(set(world.pods_made)) == 3


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


async def test_only_infrastructure_failures_are_restarted_where_the_policy_says_so(world: World) -> None:
    policy = {"type": "OnInfrastructureFailure", "maxAttempts": 2}
    world.create("evicted", restartPolicy=policy)
    world.create("crashed", restartPolicy=policy)
    for name in ("evicted", "crashed"):
        await world.until_state(name, "Idle")
    gone = world.pods("evicted")[0]["metadata"]["name"]
    world.cluster.change(
        PODS, (NAMESPACE, gone), lambda item: item["status"].update(phase="Failed", reason="Evicted", message="x")
    )
    world.exit_pod(world.pods("crashed")[0], 3)
    await world.until_state("crashed", "Failed", 5)
    await world.until(lambda: world.status("evicted").get("attempt") == 1 and world.state("evicted") == "Idle", 60)
    assert condition(world, "crashed", "DeadLettered") == {}


async def test_a_stop_between_two_attempts_is_final_and_no_pod_follows(world: World) -> None:
    world.create("e", restartPolicy={"type": "OnFailure"})
    await world.until_state("e", "Idle")
    world.exit_pod(world.pods("e")[0], 3)
    await world.until(lambda: world.status("e").get("reason") == "Restarting", 5)
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success", 5)
    await asyncio.sleep(60)
    assert len(world.pods_made) == 1


@pytest.mark.parametrize("seed", range(10))
async def test_an_operator_killed_around_a_restart_makes_no_pod_too_many(world: World, seed: int) -> None:
    rng = random.Random(seed)
    world.server.latency = lambda: rng.uniform(0, 0.02)
    world.create("e", restartPolicy={"type": "OnFailure", "maxAttempts": 3})
    await world.until_state("e", "Idle")
    world.exit_pod(world.pods("e")[0], 3)
    for life in range(3):
        await asyncio.sleep(rng.uniform(0, 4))
        await world.crash(world.operators[0])
        await world.start(f"{seed}-{life}")
    await world.until(lambda: world.status("e").get("attempt") == 1 and world.state("e") == "Idle", 120)
    assert len(world.pods_made) == 2
    assert len([p for p in world.pods("e") if p["status"]["phase"] == "Running"]) == 1


async def test_a_permanent_failure_is_not_tried_again(world: World) -> None:
    world.create("e", restartPolicy={"type": "OnFailure"}, resources={"memory": "64Gi"})
    await world.until_state("e", "Failed", 5)
    assert world.status("e")["reason"] == "InvalidSpec"
    assert world.status("e")["attempt"] == 0


# --- idle and life


async def test_an_idle_engine_is_warned_before_it_is_culled(world: World) -> None:
    world.create("e", idleTimeout="10m")
    await world.until_state("e", "Idle")
    assert world.status("e")["nextCullAt"]
    await asyncio.sleep(470)
    assert world.status("e")["reason"] == "KernelReady"
    await world.until(lambda: world.status("e")["reason"] == "CullSoon", 30)
    assert "idleTimeout is over at" in world.status("e")["message"]
    assert any(e["reason"] == "CullSoon" and e["type"] == "Warning" for e in world.cluster.all(EVENTS))
    await world.until_state("e", "Success", 130)
    assert world.status("e")["reason"] == "IdleTimeout"


async def test_a_task_after_the_warning_keeps_the_engine(world: World) -> None:
    world.create("e", idleTimeout="10m")
    await world.until_state("e", "Idle")
    await world.until(lambda: world.status("e")["reason"] == "CullSoon", 500)
    world.agent("e").become("Busy")
    await asyncio.sleep(200)
    world.agent("e").become("Idle")
    await world.until(lambda: world.status("e")["reason"] == "KernelReady", 5)
    await asyncio.sleep(590)
    assert world.state("e") == "Idle"
    await world.until_state("e", "Success", 20)


async def test_a_download_blocks_the_cull_and_the_time_counts_from_its_end(world: World) -> None:
    world.create("e", idleTimeout="30s")
    await world.until_state("e", "Idle")
    agent = world.agent("e")
    agent.extra = {"active": "1 download under way"}
    agent.report()
    await asyncio.sleep(300)
    assert world.state("e") == "Idle"
    agent.extra = {"lastActivity": loop_now().timestamp()}
    agent.report()
    begun = asyncio.get_running_loop().time()
    await world.until_state("e", "Success", 60)
    assert 29 < asyncio.get_running_loop().time() - begun < 35


async def test_a_busy_engine_reaches_the_end_of_its_life_and_its_task_has_the_grace(world: World) -> None:
    world.create("e", Script(stop_takes=20), maxLifetime="5m", stopGrace="60s")
    await world.until_state("e", "Idle")
    world.agent("e").become("Busy")
    await world.until_state("e", "ShuttingDown", 310)
    assert world.stop_graces == [60]
    await world.until_state("e", "Success", 30)
    assert world.status("e")["reason"] == "LifetimeOver"
    row = world.row("e")
    assert row is not None
    assert row.status is EngineState.SUCCESS


async def test_an_engine_that_drains_by_itself_and_hangs_is_ended_at_its_grace(world: World) -> None:
    world.create("e", Script(ignores_stop=True))
    await world.until_state("e", "Idle")
    world.agent("e").become("ShuttingDown")
    await world.until_state("e", "ShuttingDown", 5)
    await world.until_state("e", "Success", 90)
    assert world.status("e")["reason"] == "StopRequested"


# --- once


@pytest.mark.parametrize(("code", "state"), [(0, "Success"), (1, "Failed")])
async def test_a_once_engine_runs_its_job_and_ends_as_it_did(world: World, code: int, state: str) -> None:
    uid = world.create("job", Script(once=code), mode="once", code="print(1)", ttlAfterFinished="10m")
    await world.until_state("job", "Running")
    row = world.row("job")
    assert row is not None
    assert row.status is EngineState.RUNNING
    await world.until_state("job", state)
    assert world.status("job")["reason"] == ("Completed" if code == 0 else "JobFailed")
    assert "result.json" in world.archive.bundles[uid, 0]
    row = world.row("job")
    assert row is not None
    assert (row.status.value, row.final) == (state, True)
    await world.until(lambda: not world.cluster.all(ENGINECONNS), 620)
    assert (uid, 0) in world.archive.bundles, "the result outlives the resource"


# --- poison, audit, canary


async def test_a_poison_engine_is_named_on_itself_and_mends(world: World) -> None:
    running = world.operators[0]
    process = running.parts.reconciler.process
    poisoned = True

    async def poison(key: tuple[str, str]) -> None:
        if poisoned and key[1] == "poison":
            raise RuntimeError("boom")
        await process(key)

    running.parts.reconciler.process = poison  # type: ignore[method-assign]
    world.create("poison", startTimeout="1h")
    await world.until(lambda: condition(world, "poison", "Stalled").get("reason") == "PassFailed", 60)
    assert "boom" in condition(world, "poison", "Stalled")["message"]
    writes = world.writes()
    await asyncio.sleep(300)
    assert world.writes() == writes, "said once"
    poisoned = False
    await world.until_state("poison", "Idle", 120)
    assert condition(world, "poison", "Stalled") == {}


async def test_the_audit_repairs_rows_and_orphans_on_second_sight(world: World) -> None:
    uid = world.create("e")
    await world.until_state("e", "Idle")
    audit = world.operators[0].parts.audit
    assert await audit.once() == {}
    del world.rows.rows[uid]
    orphan = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "orphan", "namespace": NAMESPACE, "labels": world.pods("e")[0]["metadata"]["labels"]},
        "spec": {"containers": [{"name": "engine", "image": "x"}]},
    }  # fmt: skip
    world.cluster.create(PODS, orphan, namespace=NAMESPACE)
    await asyncio.sleep(1)
    assert await audit.once() == {}, "what is in motion is left alone"
    assert await audit.once() == {"orphan_pod": 1, "row_missing": 1}
    assert world.rows.rows[uid].status is EngineState.IDLE
    await world.until(lambda: [p["metadata"]["name"] for p in world.cluster.all(PODS)] != ["orphan"], 40)
    assert await audit.once() == {}


def canary(world: World) -> Canary:
    async def deaf() -> None:
        raise AssertionError("the watch is well")

    parts = world.operators[0].parts
    return Canary(
        client=world.server.client(), cache=parts.cache, rows=world.rows, namespace=NAMESPACE, deaf=deaf,
        rng=random.Random(1),
    )  # fmt: skip


async def test_a_canary_flies_end_to_end_and_leaves_nothing(world: World) -> None:
    await world.until(world.operators[0].parts.reconciler.leading.is_set)
    bird = canary(world)
    assert await bird.round() < 5
    assert world.rows.rows == {}
    assert world.pods_made == []
    await world.until(lambda: not world.cluster.all(ENGINECONNS), 10)


async def test_a_canary_says_which_part_is_stuck(world: World) -> None:
    await world.until(world.operators[0].parts.reconciler.leading.is_set)
    bird = canary(world)
    world.server.watches.lose(ENGINECONNS)
    with pytest.raises(CanaryError) as stuck:
        await bird.round()
    assert stuck.value.phase == "watch"
    await world.until(lambda: not world.cluster.all(ENGINECONNS), 60)

"""Whole lives of engines: states, rows, reasons, and how few writes they take."""

from __future__ import annotations

import json
from typing import Any

import pytest

from linkis_ecm.kube.resources import ENGINECONNS, EVENTS, PLUGINS, PODS
from tools.testkit.simulation.world import NAMESPACE, PLUGIN_SPEC, Agent, Script, World

pytestmark = pytest.mark.looptime


async def test_an_engine_gets_ready_with_its_addresses_and_phases(world: World) -> None:
    uid = world.create("e")
    await world.until_state("e", "Starting")
    assert world.status("e")["serviceInstance"] == uid, "the ticket until there is an address"
    await world.until_state("e", "Idle")
    status = world.status("e")
    assert status["ticketId"] == uid
    assert status["serviceInstance"].endswith(".linkis-engines.engines:9105")
    assert status["address"].startswith("10.0.")
    assert status["observedGeneration"] == 1
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    assert conditions == {"Ready": "True", "PodScheduled": "True", "Registered": "True", "Draining": "False"}
    phases = [status["startup"][p] for p in ("accepted", "scheduled", "containerStarted", "ready")]
    assert phases == sorted(phases)
    row = world.row("e")
    assert row is not None
    assert (row.status.value, row.label_value) == ("Idle", "hadoop-IDE,python-3.11")
    assert (row.request_times, row.used_times, row.release_times) == (1, 1, 0)
    assert json.loads(row.request_resource or "") == {"instance": 1, "memory": "1024.0 MB", "cpu": 1}


async def test_a_life_with_a_task_and_a_stop_takes_four_writes(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    agent = world.agent("e")
    for _ in range(20):
        agent.become("Busy")
        await world.until(lambda: world.rows.history[agent.env["ECM_TICKET_ID"]][-1] == "Busy", 1)
        agent.become("Idle")
        await world.until(lambda: world.rows.history[agent.env["ECM_TICKET_ID"]][-1] == "Idle", 1)
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success")
    assert world.writes() == 4, world.server.writes()
    row = world.row("e")
    assert row is not None
    assert (row.status.value, row.final, row.reason) == ("ShuttingDown", True, "StoppedByUser")
    assert (row.request_times, row.used_times, row.release_times) == (1, 1, 1)
    assert world.status("e")["reason"] == "StoppedByUser"


async def test_a_long_task_shows_in_the_resource_after_a_second(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.agent("e").become("Busy")
    await world.until(lambda: (row := world.row("e")) is not None and row.status.value == "Busy", 0.5)
    assert world.state("e") == "Idle"
    await world.until_state("e", "Busy", 1.5)
    world.agent("e").become("Idle")
    await world.until_state("e", "Idle", 1.5)


async def test_a_settled_engine_costs_no_call(world: World) -> None:
    for n in range(5):
        world.create(f"e{n}")
    for n in range(5):
        await world.until_state(f"e{n}", "Idle")
    await world.until(lambda: world.operators[0].parts.reconciler.worker.idle)
    before = world.writes()
    gets = [
        entry for entry in world.server.log if entry.call.verb == "get" and entry.call.resource in (ENGINECONNS, PODS)
    ]
    world.operators[0].parts.reconciler.enqueue_all()
    await world.until(lambda: world.operators[0].parts.reconciler.worker.idle)
    assert world.writes() == before
    after = [
        entry for entry in world.server.log if entry.call.verb == "get" and entry.call.resource in (ENGINECONNS, PODS)
    ]
    assert len(after) == len(gets)


WAITING: dict[str, dict[str, Any]] = {
    "ImagePullBackOff": {"waiting": {"reason": "ErrImagePull", "message": "no such image engine:1"}},
    "CreateContainerConfigError": {
        "waiting": {"reason": "CreateContainerConfigError", "message": "secret x not found"}
    },
}


async def test_an_engine_without_its_volume_ends_with_what_the_kubelet_says(world: World) -> None:
    """Only an event of the pod tells; status, row and bundle agree."""
    stuck = {"phase": "Pending", "containerStatuses": [{"name": "engine", "state": {"waiting": {
        "reason": "ContainerCreating"}}}]}  # fmt: skip
    uid = world.create("e", Script(stuck=stuck), startTimeout="30s")
    await world.until(lambda: bool(world.pods("e")))
    note = 'MountVolume.SetUp failed for volume "x": secret "x" not found'
    event = {"metadata": {"name": "e.1"}, "type": "Warning", "reason": "FailedMount", "note": note,
             "regarding": {"kind": "Pod", "name": world.pods("e")[0]["metadata"]["name"]}}  # fmt: skip
    world.cluster.create(EVENTS, event, namespace=NAMESPACE)
    await world.until_state("e", "Failed", 40)
    status, row = world.status("e"), world.row("e")
    assert row is not None
    assert json.loads(world.archive.bundles[uid, 0]["bundle.json"])["reason"] == "MountFailed"
    assert (status["reason"], row.reason) == ("MountFailed", "MountFailed")
    assert note in status["message"]
    assert "Check that the Secrets" in status["message"]


@pytest.mark.parametrize("reason", WAITING)
async def test_a_pod_that_cannot_start_shows_the_reason_and_fails_at_the_timeout(world: World, reason: str) -> None:
    stuck = {"phase": "Pending", "containerStatuses": [{"name": "engine", "state": WAITING[reason]}]}
    world.create("e", Script(stuck=stuck), startTimeout="30s")
    await world.until(lambda: world.status("e").get("reason") == reason)
    assert WAITING[reason]["waiting"]["message"] in world.status("e")["message"]
    await world.until_state("e", "Failed", 40)
    status = world.status("e")
    # The cause stays the reason, with its own remedy: more time would not help.
    assert status["reason"] == reason
    assert "within its startTimeout" in status["message"]
    assert WAITING[reason]["waiting"]["message"] in status["message"]
    assert "raise spec.startTimeout" not in status["message"]
    await world.until(lambda: not world.pods("e"))
    row = world.row("e")
    assert row is not None
    assert (row.status.value, row.used_times, row.release_times) == ("Failed", 0, 1)
    assert json.loads(row.metrics or "")["reason"] == reason


async def test_an_image_name_that_cannot_be_fails_at_once(world: World) -> None:
    waiting = {"waiting": {"reason": "InvalidImageName", "message": "couldn't parse"}}
    stuck = {"phase": "Pending", "containerStatuses": [{"name": "engine", "state": waiting}]}
    world.create("e", Script(stuck=stuck))
    await world.until_state("e", "Failed", 2)
    assert world.status("e")["reason"] == "ImagePullBackOff"


async def test_an_unschedulable_pod_says_what_lacks(world: World) -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes: Insufficient cpu",
    }
    world.create("e", Script(stuck={"phase": "Pending", "conditions": [condition]}))
    await world.until(lambda: world.status("e").get("reason") == "Unschedulable")
    assert "Insufficient cpu" in world.status("e")["message"]


async def test_a_silent_agent_fails_with_the_phase_that_hung(world: World) -> None:
    world.create("e", Script(silent=True), startTimeout="20s")
    await world.until_state("e", "Failed", 30)
    assert "the agent has not reported" in world.status("e")["message"]


async def test_out_of_memory_is_reported_with_limit_and_peak(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.exit_pod(world.pods("e")[0], 137, "OOMKilled")
    await world.until_state("e", "Failed")
    status = world.status("e")
    assert status["reason"] == "OOMKilled"
    assert "1024 MiB" in status["message"]
    assert "5 MiB" in status["message"]


async def test_a_dead_kernel_is_reported_with_its_last_stderr_lines(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    agent = world.agent("e")
    agent.become("Failed", reason="KernelDied", message="It was killed by signal 9.")
    world.exit_pod(agent.pod, 137)
    await world.until_state("e", "Failed")
    assert world.status("e")["reason"] == "KernelDied"
    assert "signal 9" in world.status("e")["message"]
    assert world.pods_made.count(world.pods("e")[0]["metadata"]["name"]) == 1


async def test_a_container_that_ends_by_itself_is_reported_with_its_exit_code(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.exit_pod(world.pods("e")[0], 3)
    await world.until_state("e", "Failed")
    assert "exit code was 3" in world.status("e")["message"]
    assert "last words" in world.status("e")["message"]


async def test_an_evicted_pod_is_reported_as_evicted(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.cluster.change(
        PODS, (NAMESPACE, world.pods("e")[0]["metadata"]["name"]),
        lambda item: item["status"].update(phase="Failed", reason="Evicted", message="The node was low on memory."),
    )  # fmt: skip
    await world.until_state("e", "Failed")
    assert world.status("e")["reason"] == "Evicted"
    assert "low on memory" in world.status("e")["message"]


async def test_a_pod_deleted_by_hand_fails_the_engine_and_is_not_made_again(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.delete_pod("e")
    await world.until_state("e", "Failed")
    assert world.status("e")["reason"] == "PodDeleted"
    assert len(world.pods_made) == 1


async def test_a_deleted_engine_leaves_a_final_row_and_no_pod(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.delete("e")
    await world.until(lambda: not world.cluster.all(PODS))
    row = world.row("e")
    assert row is not None
    assert (row.status.value, row.final, row.reason, row.release_times) == ("ShuttingDown", True, "Deleted", 1)


async def test_an_engine_made_anew_under_its_name_has_another_pod_and_row(world: World) -> None:
    first = world.create("e")
    await world.until_state("e", "Idle")
    world.delete("e")
    second = world.create("e")
    await world.until_state("e", "Idle")
    assert first != second
    assert len(set(world.pods_made)) == 2
    assert world.rows.rows[first].final
    assert world.rows.rows[second].status.value == "Idle"


async def test_a_stop_while_starting_deletes_the_pod(world: World) -> None:
    world.create("e", Script(start=30))
    await world.until(lambda: world.pods("e"))
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success")
    await world.until(lambda: not world.pods("e"))
    row = world.row("e")
    assert row is not None
    assert (row.status.value, row.used_times) == ("ShuttingDown", 0)


async def test_an_engine_created_stopped_never_gets_a_pod(world: World) -> None:
    world.create("e", desiredState="Stopped")
    await world.until_state("e", "Success")
    assert world.pods_made == []


async def test_an_agent_that_ignores_the_stop_loses_its_pod_at_the_deadline(world: World) -> None:
    world.create("e", Script(ignores_stop=True))
    await world.until_state("e", "Idle")
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "ShuttingDown", 5)
    await world.until_state("e", "Success", 60)
    assert world.status("e")["reason"] == "StoppedByUser"
    assert not world.pods("e")


async def test_an_unknown_type_waits_for_its_plugin(world: World) -> None:
    world.create("e", engineType="shell")
    await world.until(lambda: world.status("e").get("reason") == "PluginMissing")
    assert "shell" in world.status("e")["message"]
    assert world.row("e") is None
    spec = PLUGIN_SPEC | {"engineType": "shell", "engineVersion": "1"}
    kind = {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConnPlugin"}
    world.cluster.create(PLUGINS, kind | {"metadata": {"name": "shell-1"}, "spec": spec})
    await world.until_state("e", "Idle")
    row = world.row("e")
    assert row is not None
    assert row.label_value == "hadoop-IDE,shell-1"


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ({"resources": {"memory": "16Gi"}}, "spec.resources.memory"),
        ({"resources": {"cpu": "5"}}, "spec.resources.cpu"),
        ({"podTemplate": {"spec": {"hostNetwork": True}}}, "podTemplate.spec.hostNetwork"),
        ({"podTemplate": {"spec": {"containers": []}}}, "podTemplate.spec.containers"),
        ({"podTemplate": {"metadata": {"labels": {"linkis.apache.org/x": "y"}}}}, "linkis.apache.org/x"),
    ],
)
async def test_a_spec_that_cannot_be_a_pod_fails_and_names_the_field(
    world: World, spec: dict[str, Any], names: str
) -> None:
    world.create("e", **spec)
    await world.until_state("e", "Failed", 2)
    assert world.status("e")["reason"] == "InvalidSpec"
    assert names in world.status("e")["message"]
    assert world.pods_made == []


async def test_an_idle_engine_ends_after_its_timeout_and_a_busy_one_does_not(world: World) -> None:
    world.create("idle", idleTimeout="30s")
    world.create("busy", idleTimeout="30s")
    for name in ("idle", "busy"):
        await world.until_state(name, "Idle")
    world.agent("busy").become("Busy")
    await world.until_state("idle", "Success", 35)
    assert world.status("idle")["reason"] == "IdleTimeout"
    row = world.row("idle")
    assert row is not None
    assert row.status.value == "Success"
    assert world.state("busy") == "Busy"


async def test_an_ended_engine_is_removed_after_its_ttl(world: World) -> None:
    world.create("e", desiredState="Stopped", ttlAfterFinished="1m")
    await world.until_state("e", "Success")
    await world.until(lambda: not world.cluster.all(ENGINECONNS), 70)


async def test_reports_that_are_not_the_engines_change_nothing(world: World) -> None:
    world.create("e", Script(silent=True))
    await world.until(lambda: world.pods("e") and world.pods("e")[0]["metadata"]["uid"] in world.agents)
    agent = world.agent("e")
    agent.state = "Idle"
    good = dict(agent.env)
    agent.key = "guess"
    assert agent.report() == 401
    agent.key = ""
    # A pod that has proved itself, and speaks for another engine, another attempt, another name.
    for change, code in (
        ({"ECM_UID": "other"}, 404),
        ({"ECM_ATTEMPT": "1"}, 409),
        ({"ECM_NAME": "x"}, 404),
    ):  # fmt: skip
        agent.env = good | change
        assert agent.report() == code
    agent.env = good
    assert agent.report(podUid="another-pod") == 401
    assert agent.report(enrolment="short") == 400
    assert agent.report(state="Flying") == 400
    assert agent.report(sequence=-1) == 400
    assert world.state("e") == "Starting"
    assert agent.report() == 204
    await world.until_state("e", "Idle")
    assert world.status("e")["agentKey"]["podUid"] == agent.pod["metadata"]["uid"]
    for change in ({"ECM_UID": "other"}, {"ECM_ATTEMPT": "1"}):
        agent.env = good | change
        assert agent.report() == 401, "its key is that of one engine and one attempt"
    agent.env = good
    assert agent.report(sequence=1, state="Busy") == 204, "an old report is taken and changes nothing"
    assert world.row("e").status.value == "Idle"  # type: ignore[union-attr]


async def test_only_the_first_agent_of_a_pod_gets_a_key(world: World) -> None:
    """Code of the engine can read the pod's token, too: it comes second, or it is seen."""
    world.create("e")
    await world.until_state("e", "Idle")
    agent = world.agent("e")
    key = agent.key
    thief = Agent(world, agent.pod, agent.script, state="Busy", nonce="f" * 32, sequence=1000)
    assert thief.report() == 403
    assert thief.key == ""
    thief.key = key
    assert thief.report() == 401, "a key is of one enrolment"
    assert world.state("e") == "Idle"
    assert agent.report() == 204


async def test_an_answer_that_was_lost_is_repeated(world: World) -> None:
    """The agent asks again with the same number, of this operator or of its successor."""
    world.create("e", Script(ready=5))
    await world.until(lambda: world.pods("e") and world.pods("e")[0]["metadata"]["uid"] in world.agents)
    agent = world.agent("e")
    assert agent.report() == 204
    key, agent.key = agent.key, ""
    assert agent.report() == 204
    assert agent.key == key
    await world.crash(world.operators[0])
    await world.start("two")
    await world.until(lambda: agent.report() == 204)
    assert agent.key == key, "nothing was written of it yet, and the key is the same"
    await world.until_state("e", "Idle")
    assert world.status("e")["agentKey"]["enrolment"] == agent.nonce


async def test_a_successor_knows_the_enrolment_from_the_status(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    agent = world.agent("e")
    agent.end()
    await world.crash(world.operators[0])
    await world.start("two")
    thief = Agent(world, agent.pod, agent.script, nonce="f" * 32, sequence=1000)
    await world.until(lambda: thief.report() == 403)
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success")
    assert world.stops == ["e"], "the agent was asked with its key, before it reported again"


async def test_another_attempts_agent_gets_another_key(world: World) -> None:
    world.create("e", restartPolicy={"type": "OnInfrastructureFailure"})
    await world.until_state("e", "Idle")
    first = world.agent("e")
    world.delete_pod("e")
    await world.until(lambda: world.status("e").get("attempt") == 1 and world.state("e") == "Idle", 120)
    second = world.agent("e")
    assert second.key not in ("", first.key)
    assert first.report() == 409, "its key is right, and its attempt is over"

"""decide(): for each situation the state, the reason and the actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from linkis_ecm.engine.causes.verdicts import verdict_of_ended_pod
from linkis_ecm.engine.decide import decide
from linkis_ecm.engine.decision import (
    CollectEvidence,
    ConfirmPodGone,
    CreatePod,
    DeleteEngine,
    DeletePod,
    Evidence,
    GetAgentStatus,
    GetNodeCondition,
    Silence,
    Snapshot,
    Stop,
    StopAgent,
)
from linkis_ecm.engine.matching import CLAIM_ANNOTATION, CLAIM_LONGEST, Claim
from linkis_ecm.engine.pod.launch import AFTER_GRACE
from linkis_ecm.engine.view import engine_view
from linkis_ecm.model import reasons
from linkis_ecm.model.states import EngineState
from tests.unit.engine.snapshots import (
    COLLECTED,
    IDLE,
    SETTINGS,
    STARTING,
    T0,
    S,
    at,
    clean,
    decided,
    ended,
    engine,
    failure,
    fatal,
    gone,
    old_pod,
    oom,
    pod,
    report,
    snapshot,
)

# what, snapshot, seconds, state, reason, actions by type
ROWS: list[tuple[str, Callable[[], Snapshot], float, EngineState, str, tuple[type, ...]]] = [
    ("new", snapshot, 0, S.STARTING, "PodCreated", (CreatePod,)),
    ("no plugin yet", lambda: snapshot(plugin=None), 1, S.STARTING, "PluginMissing", ()),
    ("no plugin in time", lambda: snapshot(plugin=None), 500, S.FAILED, "PluginMissing", ()),
    ("over the bounds", lambda: snapshot(engine=engine(resources={"cpu": "9"})), 1, S.FAILED, "InvalidSpec", ()),
    ("unreadable spec", lambda: snapshot(engine=engine(user="")), 1, S.FAILED, "InvalidSpec", ()),
    ("quota", lambda: snapshot(failure=failure), 1, S.STARTING, "QuotaExceeded", ()),
    ("quota, later", lambda: snapshot(failure=failure), 11, S.STARTING, "QuotaExceeded", (CreatePod,)),
    ("refused for good", lambda: snapshot(failure=fatal), 1, S.FAILED, "PodRefused", ()),
    ("created stopped", lambda: snapshot(engine=engine(desiredState="Stopped")), 1, S.SUCCESS, "StoppedByUser", ()),
    ("deleted before its pod", lambda: snapshot(engine=engine(deleting=True)), 1, S.SUCCESS, "StoppedByUser", ()),
    ("starting", lambda: snapshot(engine=engine(STARTING), pod=pod()), 3, S.STARTING, "PodCreated", ()),
    ("ready", lambda: snapshot(engine=engine(STARTING), pod=pod(), report=report()), 3, S.IDLE, "KernelReady", ()),
    ("ready, and nobody could reach it yet", lambda: snapshot(
        engine=engine(STARTING), pod=pod(ip="", started=None), report=report()), 3, S.STARTING, "PodCreated", ()),
    ("busy", lambda: snapshot(engine=engine(IDLE), pod=pod(), report=report(S.BUSY)), 9, S.BUSY, "Executing", ()),
    ("running", lambda: snapshot(engine=engine(STARTING), pod=pod(), report=report(S.RUNNING)), 3, S.RUNNING,
     "JobRunning", ()),
    ("free", lambda: snapshot(engine=engine(STARTING), pod=pod(), report=report(S.UNLOCK)), 3, S.UNLOCK, "Free", ()),
    ("claimed", lambda: snapshot(engine=engine(IDLE | {"engineState": "Unlock"}), pod=pod(), report=report(S.LOCKED)),
     9, S.LOCKED, "Claimed", ()),
    ("image", lambda: snapshot(engine=engine(STARTING), pod=pod(waiting_reason="ErrImagePull", waiting_message="x")),
     3, S.STARTING, "ImagePullBackOff", ()),
    ("bad image name", lambda: snapshot(
        engine=engine(STARTING), pod=pod(waiting_reason="InvalidImageName"), evidence=COLLECTED), 3, S.FAILED,
     "ImagePullBackOff", (DeletePod,)),
    ("config", lambda: snapshot(engine=engine(STARTING), pod=pod(waiting_reason="CreateContainerConfigError")), 3,
     S.STARTING, "CreateContainerConfigError", ()),
    ("no room", lambda: snapshot(engine=engine(STARTING), pod=pod(unschedulable="0/1 nodes")), 3, S.STARTING,
     "Unschedulable", ()),
    ("start timeout", lambda: snapshot(engine=engine(STARTING), pod=pod(), evidence=COLLECTED), 121, S.FAILED,
     "StartTimeout", (DeletePod,)),
    ("ended, evidence first", lambda: snapshot(engine=engine(IDLE), pod=pod(terminated=ended)), 9, S.IDLE,
     "KernelReady", (CollectEvidence,)),
    ("ended", lambda: snapshot(engine=engine(IDLE), pod=pod(terminated=ended), evidence=COLLECTED), 9, S.FAILED,
     "AgentExited", ()),
    ("out of memory", lambda: snapshot(engine=engine(IDLE), pod=pod(terminated=oom), evidence=COLLECTED), 9, S.FAILED,
     "OOMKilled", ()),
    ("clean", lambda: snapshot(engine=engine(IDLE), pod=pod(terminated=clean), evidence=COLLECTED), 9, S.SUCCESS,
     "Completed", ()),
    ("clean, never seen ready", lambda: snapshot(
        engine=engine(STARTING), pod=pod(terminated=clean), evidence=COLLECTED), 9, S.FAILED, "AgentExited", ()),
    ("clean, ready between two looks", lambda: snapshot(
        engine=engine(STARTING), pod=pod(terminated=clean), evidence=COLLECTED,
        report=report(S.SHUTTING_DOWN, timings={"kernelReady": at(2).timestamp()})), 9, S.SUCCESS, "Completed", ()),
    ("a job, done before anybody looked", lambda: snapshot(
        engine=engine(STARTING, mode="once", code="1"), pod=pod(terminated=clean), evidence=COLLECTED), 9, S.SUCCESS,
     "Completed", ()),
    ("a job, failed before anybody looked", lambda: snapshot(
        engine=engine(STARTING, mode="once", code="1"), pod=pod(terminated=ended), evidence=COLLECTED), 9, S.FAILED,
     "AgentExited", ()),
    ("a job that is done, its pod still there", lambda: snapshot(
        engine=engine(STARTING, mode="once", code="1"), pod=pod(), report=report(S.SUCCESS)), 9, S.SHUTTING_DOWN,
     "Completed", ()),
    ("evicted", lambda: snapshot(engine=engine(IDLE), pod=pod(phase="Failed", reason="Evicted"), evidence=COLLECTED),
     9, S.FAILED, "Evicted", ()),
    ("preempted", lambda: snapshot(
        engine=engine(IDLE), pod=pod(phase="Failed", disruption="PreemptionByScheduler"), evidence=COLLECTED), 9,
     S.FAILED, "Preempted", ()),
    ("node shut down", lambda: snapshot(
        engine=engine(IDLE), pod=pod(phase="Failed", reason="NodeShutdown"), evidence=COLLECTED), 9, S.FAILED,
     "NodeShutdown", ()),
    ("kernel died, pod still there", lambda: snapshot(
        engine=engine(IDLE), pod=pod(), report=report(S.FAILED, 8, message="x")), 9, S.SHUTTING_DOWN, "KernelDied", ()),
    ("kernel died, pod never ends", lambda: snapshot(
        engine=engine(IDLE), pod=pod(), report=report(S.FAILED, 8, message="x"), evidence=COLLECTED), 30, S.FAILED,
     "KernelDied", (DeletePod,)),
    ("job failed", lambda: snapshot(
        engine=engine(IDLE), pod=pod(), report=report(S.FAILED, 8, reason="JobFailed"), evidence=COLLECTED), 30,
     S.FAILED, "JobFailed", (DeletePod,)),
    *((f"{reason}, {what}", lambda reason=reason, state=state: snapshot(
        engine=engine(IDLE | {"engineState": "ShuttingDown", "reason": reason}), pod=pod(terminated=state),
        report=report(S.FAILED, 8, reason=reason), evidence=COLLECTED), 9, found, reason, ())
      for reason in ("KernelDied", "JobFailed", "TooManyProcesses", "AgentTampered")
      for what, state, found in (
          ("its pod still there at the next look", None, S.SHUTTING_DOWN),
          ("its pod ended at the next look", ended, S.FAILED))),
    ("pod being deleted by somebody", lambda: snapshot(engine=engine(IDLE), pod=pod(**gone), report=report()), 9,
     S.SHUTTING_DOWN, "PodDeleted", ()),
    ("pod stuck in deletion", lambda: snapshot(engine=engine(IDLE), pod=pod(**gone), evidence=COLLECTED), 99, S.FAILED,
     "NodeLost", (DeletePod,)),
    ("pod missing from the cache", lambda: snapshot(engine=engine(IDLE)), 9, S.IDLE, "KernelReady", (ConfirmPodGone,)),
    ("pod gone", lambda: snapshot(engine=engine(IDLE), pod_gone=True, evidence=COLLECTED), 9, S.FAILED, "PodDeleted",
     ()),
    ("evicted, and gone while the evidence was collected", lambda: snapshot(
        engine=engine(IDLE), pod_gone=True, evidence=COLLECTED,
        last_pod=pod(terminated=clean, disruption="EvictionByEvictionAPI", **gone)), 9, S.FAILED, "Evicted", ()),
    ("deleted by hand, and gone with its last word", lambda: snapshot(
        engine=engine(IDLE), pod_gone=True, evidence=COLLECTED, last_pod=pod(terminated=clean, **gone)), 9, S.FAILED,
     "PodDeleted", ()),
    ("gone while it ran", lambda: snapshot(
        engine=engine(IDLE), pod_gone=True, evidence=COLLECTED, last_pod=pod(**gone)), 9, S.FAILED, "PodDeleted", ()),
    ("gone, and what is known of a pod is of an earlier one", lambda: snapshot(
        engine=engine(IDLE), pod_gone=True, evidence=COLLECTED, last_pod=pod(name="e-pod-9", terminated=oom)), 9,
     S.FAILED, "PodDeleted", ()),
    ("pod gone with its namespace", lambda: snapshot(
        engine=engine(IDLE), pod_gone=True, evidence=Evidence(0, {}, namespace_terminating=True)),
     9, S.SUCCESS, "Deleted", ()),
    ("stop of a ready engine", lambda: snapshot(
        engine=engine(IDLE, desiredState="Stopped"), pod=pod(), report=report()), 9, S.SHUTTING_DOWN, "StoppedByUser",
     (StopAgent,)),
    ("stop where nobody has its agent's key", lambda: snapshot(
        engine=engine(IDLE | {"agentKey": None}, desiredState="Stopped"), pod=pod(), report=report()), 9,
     S.SHUTTING_DOWN, "StoppedByUser", (DeletePod,)),
    ("stop where the key is of another pod", lambda: snapshot(
        engine=engine(IDLE, desiredState="Stopped"), pod=pod(uid="p2"), report=report()), 9,
     S.SHUTTING_DOWN, "StoppedByUser", (DeletePod,)),
    ("stop with a grace that was edited to more than a pod can have", lambda: snapshot(
        engine=engine(IDLE, desiredState="Stopped", stopGrace="2h"), pod=pod(), report=report()), 9, S.SHUTTING_DOWN,
     "StoppedByUser", (StopAgent,)),
    ("stop while starting", lambda: snapshot(engine=engine(STARTING, desiredState="Stopped"), pod=pod()), 9,
     S.SHUTTING_DOWN, "StoppedByUser", (DeletePod,)),
    ("stop over its grace", lambda: snapshot(
        engine=engine(IDLE, desiredState="Stopped"), pod=pod(), report=report(),
        stop=Stop(at(9), reasons.STOPPED_BY_USER, at(9))), 60, S.SHUTTING_DOWN, "StoppedByUser", (DeletePod,)),
    ("stopped", lambda: snapshot(
        engine=engine(IDLE | {"engineState": "ShuttingDown", "reason": "StoppedByUser"}, desiredState="Stopped"),
        pod=pod(terminated=clean), evidence=COLLECTED), 12, S.SUCCESS, "StoppedByUser", ()),
    ("drain that hangs", lambda: snapshot(
        engine=engine(IDLE | {"engineState": "ShuttingDown", "reason": "StopRequested"}), pod=pod(),
        report=report(S.SHUTTING_DOWN, 3)), 60, S.SHUTTING_DOWN, "StopRequested", (DeletePod,)),
    ("idle too long", lambda: snapshot(engine=engine(IDLE), pod=pod(), report=report(), silence=Silence(at(600))), 603,
     S.SHUTTING_DOWN, "IdleTimeout", (StopAgent,)),
    ("idle, warned", lambda: snapshot(engine=engine(IDLE), pod=pod(), report=report(), silence=Silence(at(500))), 500,
     S.IDLE, "CullSoon", ()),
    ("busy too long is never idle", lambda: snapshot(
        engine=engine(IDLE), pod=pod(), report=report(S.BUSY), silence=Silence(at(5000))), 5000, S.BUSY, "Executing",
     ()),
    ("download keeps it", lambda: snapshot(
        engine=engine(IDLE), pod=pod(), report=report(active="1 download under way"), silence=Silence(at(5000))), 5000,
     S.IDLE, "KernelReady", ()),
    ("too old", lambda: snapshot(
        engine=engine(IDLE, maxLifetime="1m"), pod=pod(), report=report(S.BUSY)), 61, S.SHUTTING_DOWN, "LifetimeOver",
     (StopAgent,)),
    ("silent", lambda: snapshot(engine=engine(IDLE), pod=pod(), report=report()), 31, S.IDLE, "KernelReady",
     (GetAgentStatus,)),
    ("silent, asked twice", lambda: snapshot(
        engine=engine(IDLE), pod=pod(), report=report(), silence=Silence(at(0), 2, at(35))), 41, S.IDLE, "KernelReady",
     (GetAgentStatus, GetNodeCondition)),
    ("silent, just asked", lambda: snapshot(
        engine=engine(IDLE), pod=pod(), report=report(), silence=Silence(at(0), 2, at(40))), 41, S.IDLE, "KernelReady",
     ()),
    ("lost agent", lambda: snapshot(
        engine=engine(IDLE), pod=pod(), report=report(), evidence=COLLECTED,
        silence=Silence(at(0), 5, at(70), "ready")), 71, S.FAILED, "AgentLost", (DeletePod,)),
    ("lost, but its node was asked too early", lambda: snapshot(
        engine=engine(IDLE), pod=pod(), report=report(), evidence=COLLECTED,
        silence=Silence(at(0), 5, at(66), "ready")), 71, S.IDLE, "KernelReady", (GetAgentStatus, GetNodeCondition)),
    ("lost node", lambda: snapshot(
        engine=engine(IDLE), pod=pod(), report=report(), evidence=COLLECTED,
        silence=Silence(at(0), 5, at(70), "not ready")), 71, S.FAILED, "NodeLost", (DeletePod,)),
    ("its agent refuses the key", lambda: snapshot(
        engine=engine(IDLE), pod=pod(), silence=Silence(at(30), refusal="401")), 31, S.IDLE, "KeyMismatch", ()),
    ("its agent refuses the key, and was busy", lambda: snapshot(
        engine=engine(IDLE | {"engineState": "Busy"}), pod=pod(), report=report(S.BUSY),
        silence=Silence(at(30), refusal="401")), 31, S.BUSY, "KeyMismatch", ()),
    ("its agent refuses the key: idle is not known", lambda: snapshot(
        engine=engine(IDLE), pod=pod(), report=report(), silence=Silence(at(700), refusal="401")), 701, S.IDLE,
     "KeyMismatch", ()),
    ("its agent refuses the key: maxLifetime holds", lambda: snapshot(
        engine=engine(IDLE, maxLifetime="1m"), pod=pod(), silence=Silence(at(60), refusal="401")), 61,
     S.SHUTTING_DOWN, "LifetimeOver", (DeletePod,)),
    ("its agent refuses the key: a stop deletes the pod", lambda: snapshot(
        engine=engine(IDLE, desiredState="Stopped"), pod=pod(), silence=Silence(at(8), refusal="401")), 9,
     S.SHUTTING_DOWN, "StoppedByUser", (DeletePod,)),
    ("its agent refused the key, and is asked again", lambda: snapshot(
        engine=engine(IDLE | {"reason": "KeyMismatch"}), pod=pod(), silence=Silence(at(0), refusal="401")), 31,
     S.IDLE, "KeyMismatch", (GetAgentStatus,)),
    ("its agent refused the key, and is gone since", lambda: snapshot(
        engine=engine(IDLE | {"reason": "KeyMismatch"}), pod=pod(), evidence=COLLECTED,
        silence=Silence(at(0), 5, at(70), "ready", "401")), 71, S.FAILED, "AgentLost", (DeletePod,)),
    ("the path of reports is down", lambda: snapshot(
        engine=engine(IDLE), pod=pod(), report=report(), report_path_down=True,
        silence=Silence(at(0), 9, at(69), "ready")), 900, S.SHUTTING_DOWN, "IdleTimeout", (StopAgent,)),
    ("another attempt follows", lambda: snapshot(
        engine=engine(IDLE, restartPolicy={"type": "OnFailure"}), pod=pod(terminated=ended), evidence=COLLECTED), 9,
     S.STARTING, "Restarting", (DeletePod,)),
    ("the policy is not for this", lambda: snapshot(
        engine=engine(IDLE, restartPolicy={"type": "OnInfrastructureFailure"}), pod=pod(terminated=ended),
        evidence=COLLECTED), 9, S.FAILED, "AgentExited", ()),
    ("waits for its next attempt", lambda: snapshot(
        engine=engine({"engineState": "Starting", "reason": "Restarting", "attempt": 1,
                       "nextAttemptAt": "2026-11-24T12:00:20Z"}), other_pods=()), 9, S.STARTING, "Restarting", ()),
    ("the old pod goes first", lambda: snapshot(
        engine=engine({"engineState": "Starting", "reason": "Restarting", "attempt": 1,
                       "nextAttemptAt": "2026-11-24T12:00:05Z"}), other_pods=(old_pod,)), 9, S.STARTING, "Restarting",
     (DeletePod,)),
    ("its next attempt", lambda: snapshot(
        engine=engine({"engineState": "Starting", "reason": "Restarting", "attempt": 1,
                       "nextAttemptAt": "2026-11-24T12:00:05Z"})), 9, S.STARTING, "PodCreated", (CreatePod,)),
    ("final, a pod still lives", lambda: snapshot(
        engine=engine({"engineState": "Failed", "reason": "AgentLost"}), pod=pod()), 9, S.FAILED, "AgentLost",
     (DeletePod,)),
    ("final, its time is over", lambda: snapshot(
        engine=engine({"engineState": "Failed", "reason": "AgentLost", "stateSince": "2026-11-24T12:00:00Z"})), 3601,
     S.FAILED, "AgentLost", (DeleteEngine,)),
    ("final stays final whatever is reported", lambda: snapshot(
        engine=engine({"engineState": "Success", "reason": "Completed"}), report=report()), 9, S.SUCCESS, "Completed",
     ()),
]  # fmt: skip
AGAIN = {"engineState": "Starting", "reason": "Restarting", "attempt": 1, "nextAttemptAt": "2026-11-24T12:00:05Z"}


@pytest.mark.parametrize(("what", "make", "seconds", "state", "reason", "actions"), ROWS, ids=[row[0] for row in ROWS])
def test_each_situation_has_its_answer(
    what: str, make: Callable[[], Snapshot], seconds: float, state: EngineState, reason: str, actions: tuple[type, ...]
) -> None:
    decision = decided(make(), seconds)
    assert (decision.state, decision.reason) == (state, reason), what
    assert tuple(type(action) for action in decision.actions) == actions


@pytest.mark.parametrize(
    ("limit", "peak", "words"),
    [
        ("256Mi", 250 << 20, "The limit is 256 MiB, and its peak was 250 MiB."),
        ("256Mi", 48 << 20, "The limit is 256 MiB; the most that was measured before is 48 MiB, so it grew fast."),
        ("256Mi", 0, "The limit is 256 MiB."),
        ("", 48 << 20, "The limit is unknown, and its peak was 48 MiB."),
    ],
)
def test_a_peak_of_long_before_a_kill_for_memory_is_not_told_as_its_peak(limit: str, peak: int, words: str) -> None:
    killed = pod(terminated=oom, memory_limit=limit)
    _, verdict = verdict_of_ended_pod(killed, report(usage={"memoryPeakBytes": peak}), was_ready=True, once=False)
    assert verdict.details == words


@pytest.mark.parametrize(
    ("status", "pods", "graces"),
    [
        ({"engineState": "Failed", "reason": "AgentLost"}, {"pod": pod()}, [AFTER_GRACE]),
        ({"engineState": "Failed", "reason": "NodeLost"}, {"pod": pod()}, [0]),
        ({"engineState": "Failed", "reason": "NodeLost"}, {"pod": pod(deleting=True, grace_ends_at=at(0))}, []),
        ({"engineState": "Success", "reason": "Deleted"}, {"pod": pod(deleting=True, grace_ends_at=at(-60))}, [0]),
        (AGAIN, {"other_pods": (pod(),)}, [AFTER_GRACE]),
        (AGAIN, {"other_pods": (pod(terminated=ended),)}, [0]),
        (AGAIN, {"other_pods": (pod(deleting=True, grace_ends_at=at(0)),)}, []),
        (AGAIN, {"other_pods": (pod(deleting=True, grace_ends_at=at(-60)),)}, [0]),
    ],
)
def test_a_pod_that_is_left_over_has_its_grace_and_is_taken_by_force_where_its_kubelet_is_dead(
    status: dict[str, Any], pods: dict[str, Any], graces: list[int]
) -> None:
    actions = decided(snapshot(engine=engine(status), **pods), 9).actions
    assert [action.grace for action in actions if isinstance(action, DeletePod)] == graces


def test_evidence_is_asked_for_before_anything_final_is_written() -> None:
    s = snapshot(engine=engine(IDLE), pod=pod(terminated=ended))
    first = decided(s, 9)
    assert first.patch == {}
    assert first.record is None or not first.record.final
    second = decided(replace(s, evidence=Evidence(0, {"files": ["stdout"]})), 9)
    assert second.patch["engineState"] == "Failed"
    assert second.patch["postMortem"] == {"files": ["stdout"]}


def test_the_last_attempt_is_a_dead_letter() -> None:
    status = IDLE | {"attempt": 2}
    s = snapshot(
        engine=engine(status, restartPolicy={"type": "OnFailure", "maxAttempts": 3}),
        pod=pod(terminated=ended), evidence=Evidence(2, {}),
    )  # fmt: skip
    decision = decided(s, 9)
    assert decision.state is S.FAILED
    assert {c["type"] for c in decision.patch["conditions"]} >= {"Stalled", "DeadLettered"}


def test_a_restart_clears_the_old_pods_fields_and_keeps_the_reason_of_its_end() -> None:
    s = snapshot(
        engine=engine(IDLE | {"address": "10.0.0.9:9105"}, restartPolicy={"type": "OnFailure"}),
        pod=pod(terminated=oom), evidence=COLLECTED,
    )  # fmt: skip
    patch = decided(s, 9).patch
    assert patch["attempt"] == 1
    assert patch["podName"] is None
    assert patch["address"] is None
    assert patch["readyTime"] is None
    assert patch["lastEnd"]["reason"] == "OOMKilled"
    assert patch["nextAttemptAt"] > "2026-11-24T12:00:19"
    assert {c["type"]: c["status"] for c in patch["conditions"]}["Registered"] == "False"


CLAIM_UNTIL = 700


@pytest.mark.parametrize(("seconds", "spec", "reason"), [
    (CLAIM_UNTIL - 1, {}, "KernelReady"),
    (CLAIM_UNTIL, {}, "IdleTimeout"),
    (CLAIM_UNTIL - 1, {"maxLifetime": "690s"}, "LifetimeOver"),
], ids=["within the claim", "the claim is over", "its life is over"])  # fmt: skip
def test_a_claimed_engine_is_not_culled_for_idleness(seconds: float, spec: dict[str, Any], reason: str) -> None:
    """Its idleTimeout of 10 minutes is over at 602 s."""
    claimed = replace(engine(IDLE, **spec), claim=Claim("call", at(CLAIM_UNTIL)))
    decision = decided(snapshot(engine=claimed, pod=pod(), report=report(), silence=Silence(at(seconds))), seconds)
    assert decision.reason in (reason, "CullSoon" if reason == "KernelReady" else reason)
    if reason == "KernelReady":
        assert decision.deadline == at(CLAIM_UNTIL).timestamp()


def test_a_claim_without_a_sane_end_keeps_no_engine() -> None:
    claimed = replace(engine(IDLE), claim=Claim("call", at(620) + CLAIM_LONGEST))
    s = snapshot(engine=claimed, pod=pod(), report=report(), silence=Silence(at(610)))
    assert decided(s, 610).reason == "IdleTimeout"


def test_an_engines_claim_is_read_from_its_annotation() -> None:
    claim = Claim("call", at(60))
    body = {"metadata": {"annotations": {CLAIM_ANNOTATION: claim.text()}}, "spec": {"engineType": "x", "user": "u"}}
    assert engine_view(body, epoch=T0).claim == claim
    for text in ("", "mine", None, 7, {"by": "x"}):
        body["metadata"] = {"annotations": {CLAIM_ANNOTATION: text}}
        assert engine_view(body, epoch=T0).claim is None


def test_an_agent_whose_master_key_is_not_here_is_asked_at_once() -> None:
    case = snapshot(engine=engine(IDLE), pod=pod(), silence=Silence(at(3)))
    known, other = frozenset({"00000000"}), frozenset({"ffffffff"})
    assert decide(case, at(3), replace(SETTINGS, key_ids=known)).actions == ()
    (asked,) = decide(case, at(3), replace(SETTINGS, key_ids=other)).actions
    assert isinstance(asked, GetAgentStatus)
    stopped = replace(case, engine=engine(IDLE, desiredState="Stopped"), report=report())
    (action,) = decide(stopped, at(9), replace(SETTINGS, key_ids=other)).actions
    assert action == DeletePod("e-pod-0", "p1", 45)


def test_an_engine_whose_agent_refuses_the_key_is_not_ready() -> None:
    case = snapshot(engine=engine(IDLE), pod=pod(), silence=Silence(at(30), refusal="It answers 401 to a question."))
    decision = decided(case, 31)
    ready = next(c for c in decision.patch["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "KeyMismatch")
    assert "It answers 401" in ready["message"]
    assert "ECM_PREVIOUS_TOKEN_KEY_FILE" in ready["message"]
    assert decision.record is not None
    assert (decision.record.status, decision.record.final) == (S.IDLE, False)
    assert "refuses this operator's key" in decision.patch["cullBlockedBy"]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_another_installations_engine_is_left_alone_whatever_happens_to_it(row: tuple[Any, ...]) -> None:
    case = row[1]()
    status = dict(case.engine.status) | {"ecmInstance": "other:9102"}
    decision = decided(replace(case, engine=replace(case.engine, status=status)), row[2])
    assert (decision.patch, decision.actions, decision.record, decision.deadline) == ({}, (), None, None)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_an_adopted_engine_is_decided_as_ones_own(row: tuple[Any, ...]) -> None:
    case = row[1]()
    adopting = replace(SETTINGS, ecm_instance="new:9102", adopted=frozenset({"old:9102"}))
    status = dict(case.engine.status) | {"ecmInstance": "old:9102"}
    decision = decide(replace(case, engine=replace(case.engine, status=status)), at(row[2]), adopting)
    assert (decision.state, decision.reason) == (row[3], row[4])
    if decision.patch:
        assert decision.patch["ecmInstance"] == "new:9102"


def test_a_pod_that_another_installation_made_is_left_alone_until_the_engine_is_ours() -> None:
    theirs = pod(instance="sha256-of-another")
    assert decided(snapshot(pod=theirs)).actions == ()
    assert decided(snapshot(pod=theirs)).patch == {}
    ours = engine({"ecmInstance": "ecm:9102", "engineState": "Starting", "reason": "PluginMissing"})
    assert decided(snapshot(engine=ours, pod=theirs)).actions == (DeletePod("e-pod-0", "p1", AFTER_GRACE),)
    # A pod that the owner has written into the status stays its own under another label: of a name before.
    idle = snapshot(engine=engine(IDLE | {"ecmInstance": "ecm:9102"}), pod=theirs, report=report())
    assert (decided(idle).state, decided(idle).actions) == (S.IDLE, ())

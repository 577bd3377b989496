"""decide(): for each situation the state, the reason and the actions; total, and idempotent on its own result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linkis_ecm.engine.decide import decide
from linkis_ecm.engine.decision import (
    CollectEvidence,
    ConfirmPodGone,
    CreateFailure,
    CreatePod,
    Decision,
    DeleteEngine,
    DeletePod,
    Evidence,
    GetAgentStatus,
    GetNodeCondition,
    Settings,
    Silence,
    Snapshot,
    Stop,
    StopAgent,
)
from linkis_ecm.engine.launch import AFTER_GRACE, PodSettings
from linkis_ecm.engine.matching import CLAIM_ANNOTATION, CLAIM_LONGEST, Claim
from linkis_ecm.engine.verdicts import Verdict, verdict_of_ended_pod
from linkis_ecm.engine.view import EngineView, PodView, Report, Terminated, engine_view, plugin_view
from linkis_ecm.model import reasons
from linkis_ecm.model.states import FINAL, EngineState, may_follow
from tools.testkit.fakes.rules import merged

S = EngineState
T0 = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SETTINGS = Settings(ecm_instance="ecm:9102", pod=PodSettings(report_url="http://op:9103"))
PLUGIN = plugin_view({
    "metadata": {"name": "python-3.11", "resourceVersion": "1"},
    "spec": {
        "engineType": "python", "engineVersion": "3.11", "image": "engine:1", "runTypes": ["python"],
        "defaultResources": {"cpu": "500m", "memory": "1Gi"}, "maxResources": {"cpu": "4", "memory": "8Gi"},
        "idleTimeout": "10m", "startTimeout": "2m", "ttlAfterFinished": "1h",
    },
})  # fmt: skip
COLLECTED = Evidence(0, {"files": []})


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def engine(status: dict[str, Any] | None = None, *, deleting: bool = False, **spec: Any) -> EngineView:
    metadata = {
        "namespace": "ns", "name": "e", "uid": "u1", "resourceVersion": "5", "generation": 1,
        "creationTimestamp": "2026-11-24T12:00:00Z",
    } | ({"deletionTimestamp": "2026-11-24T12:00:05Z"} if deleting else {})  # fmt: skip
    return engine_view(
        {"metadata": metadata, "spec": {"engineType": "python", "user": "hadoop"} | spec, "status": status or {}},
        epoch=T0,
    )  # fmt: skip


def pod(**changes: Any) -> PodView:
    values: dict[str, Any] = {
        "namespace": "ns", "name": "e-pod-0", "uid": "p1", "version": 9, "owner_uid": "u1", "owner_name": "e",
        "phase": "Running", "ip": "10.0.0.9", "node": "n1", "scheduled": T0, "started": at(1), "memory_limit": "1Gi",
    }  # fmt: skip
    return PodView(**values | changes)


def report(state: EngineState = S.IDLE, changed: float = 2, **more: Any) -> Report:
    return Report(attempt=0, sequence=1, state=state, changed=at(changed), **more)


IDLE = {
    "engineState": "Idle", "reason": "KernelReady", "stateSince": "2026-11-24T12:00:02.000000Z", "podName": "e-pod-0",
    "readyTime": "2026-11-24T12:00:02.000000Z", "observedGeneration": 1, "attempt": 0, "engineType": "python",
    "engineVersion": "3.11",
    "agentKey": {"podUid": "p1", "enrolment": "0123456789abcdef0123456789abcdef", "keyId": "00000000"},
}  # fmt: skip
STARTING = {"engineState": "Starting", "reason": "PodCreated", "podName": "e-pod-0", "observedGeneration": 1}


def snapshot(**changes: Any) -> Snapshot:
    values: dict[str, Any] = {"engine": engine(), "pod": None, "plugin": PLUGIN, "silence": Silence(at(0))}
    return Snapshot(**values | changes)


def decided(s: Snapshot, seconds: float = 3) -> Decision:
    return decide(s, at(seconds), SETTINGS)


ended = Terminated(reason="Error", exit_code=3, signal=0, message="boom", finished=at(9))
oom = Terminated(reason="OOMKilled", exit_code=137, signal=0, message="", finished=at(9))
clean = Terminated(reason="Completed", exit_code=0, signal=0, message="", finished=at(9))
old_pod = pod(name="e-pod-9", uid="p9")
failure = CreateFailure(Verdict(reasons.QUOTA_EXCEEDED, "tight"), at(10))
fatal = CreateFailure(Verdict(reasons.POD_REFUSED, "no", fatal=True), at(10))
gone = {"deleting": True, "deleted_at": at(2), "grace_ends_at": at(32)}

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
     "NodeLost", ()),
    ("kernel died, pod still there", lambda: snapshot(
        engine=engine(IDLE), pod=pod(), report=report(S.FAILED, 8, message="x")), 9, S.SHUTTING_DOWN, "KernelDied", ()),
    ("kernel died, pod never ends", lambda: snapshot(
        engine=engine(IDLE), pod=pod(), report=report(S.FAILED, 8, message="x"), evidence=COLLECTED), 30, S.FAILED,
     "KernelDied", (DeletePod,)),
    ("job failed", lambda: snapshot(
        engine=engine(IDLE), pod=pod(), report=report(S.FAILED, 8, reason="JobFailed"), evidence=COLLECTED), 30,
     S.FAILED, "JobFailed", (DeletePod,)),
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
        ("256Mi", 250 << 20, "The limit is 256Mi, and its peak was 250 MiB."),
        ("256Mi", 48 << 20, "The limit is 256Mi; the most that was measured before is 48 MiB, so it grew fast."),
        ("256Mi", 0, "The limit is 256Mi."),
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


STATUSES = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {},
        optional={
            "engineState": st.sampled_from([*EngineState, "Nonsense", 7, None]),
            "reason": st.sampled_from(["KernelReady", "StoppedByUser", "PodDeleted", "Nonsense", "", 3]),
            "stateSince": st.sampled_from(["2026-11-24T12:00:02Z", "yesterday", None, 5]),
            "podName": st.sampled_from(["e-pod-0", "", None]),
            "readyTime": st.sampled_from(["2026-11-24T12:00:02Z", "x", None]),
            "attempt": st.sampled_from([0, 1, 9, -4, "x", None]),
            "nextAttemptAt": st.sampled_from(["2026-11-24T12:00:10Z", "never", None]),
            "conditions": st.sampled_from([[], [3], "x", None, [{"type": "Ready"}]]),
            "startup": st.sampled_from([{}, {"accepted": "x"}, None]),
        },
    ),
)
PODS = st.one_of(
    st.none(),
    st.builds(
        pod,
        phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
        deleting=st.booleans(),
        terminated=st.sampled_from([None, ended, oom, clean]),
        ip=st.sampled_from(["", "10.0.0.9"]),
        reason=st.sampled_from(["", "Evicted"]),
    ),
)
REPORTS = st.one_of(st.none(), st.builds(report, st.sampled_from(list(EngineState)), st.floats(0, 50)))
SNAPSHOTS = st.builds(
    lambda status, spec, **more: snapshot(engine=engine(status, **spec), **more),
    STATUSES,
    st.sampled_from(
        [{}, {"desiredState": "Stopped"}, {"restartPolicy": {"type": "OnFailure"}}, {"maxLifetime": "30s"}]
    ),
    pod=PODS,
    plugin=st.sampled_from([PLUGIN, None]),
    report=REPORTS,
    pod_gone=st.booleans(),
    report_path_down=st.booleans(),
    evidence=st.sampled_from([None, COLLECTED]),
    failure=st.sampled_from([None, failure, fatal]),
    other_pods=st.sampled_from([(), (old_pod,)]),
    stop=st.sampled_from([None, Stop(at(5), reasons.STOPPED_BY_USER)]),
)


@settings(max_examples=400, deadline=None)
@given(s=SNAPSHOTS, seconds=st.floats(0, 2000))
def test_decide_returns_for_every_input_and_never_goes_back(s: Snapshot, seconds: float) -> None:
    decision = decided(s, seconds)
    before = s.engine.state
    restarted = (decision.patch.get("attempt") or 0) > (
        s.engine.status.get("attempt") if isinstance(s.engine.status.get("attempt"), int) else 0
    )
    assert restarted or may_follow(before, decision.state)
    if before in FINAL:
        assert decision.state is before
    creates = [action for action in decision.actions if isinstance(action, CreatePod)]
    assert not (creates and s.pod is not None), "no second pod beside a pod"
    assert not (creates and s.other_pods), "no pod while another attempt's is there"
    if decision.record is not None and decision.record.final:
        assert decision.state in FINAL


@settings(max_examples=200, deadline=None)
@given(s=SNAPSHOTS, seconds=st.floats(0, 2000))
def test_decide_writes_nothing_more_on_its_own_result(s: Snapshot, seconds: float) -> None:
    decision = decided(s, seconds)
    if not decision.patch or any(isinstance(a, CollectEvidence | ConfirmPodGone | CreatePod) for a in decision.actions):
        return
    status = merged(s.engine.status, decision.patch)
    if decision.patch.get("attempt"):
        return
    again = decided(replace(s, engine=replace(s.engine, status=status), stop=decision.stop), seconds)
    assert again.patch == {}


@pytest.mark.parametrize(
    ("first_seen", "in_api"),
    [
        # When this process first saw node and container, and the whole seconds that the API has for them.
        ({"scheduled": at(0.9), "containerStarted": at(1.6)}, {"scheduled": T0, "started": at(1)}),
        ({"scheduled": at(1.9), "containerStarted": at(1.9)}, {"scheduled": T0, "started": at(1)}),
        ({"scheduled": at(1.4), "containerStarted": at(2.6)}, {"scheduled": T0, "started": at(1)}),
        ({"scheduled": at(1.4), "containerStarted": at(2.4)}, {"scheduled": T0, "started": at(1)}),
        ({}, {"scheduled": T0, "started": T0}),
    ],
    ids=["seen at once", "seen late", "the container seen late", "seen after the report", "never seen"],
)
def test_the_phases_of_a_start_stand_in_their_order(
    first_seen: dict[str, datetime], in_api: dict[str, datetime]
) -> None:
    accepted = "2026-11-24T12:00:00.700000Z"
    s = snapshot(
        engine=engine(STARTING | {"startup": {"accepted": accepted}}), pod=pod(**in_api), report=report(changed=2),
        first_seen=first_seen,
    )  # fmt: skip
    startup = decided(s).patch["startup"]
    phases = [
        name for name in ("scheduled", "containerStarted", "agentStarted", "kernelReady", "ready") if name in startup
    ]
    times = [startup.get("accepted", accepted), *(startup[name] for name in phases)]
    assert len(phases) >= 3
    assert times == sorted(times)


def test_a_container_that_the_watch_reports_late_started_before_its_agent() -> None:
    timings = {"processStarted": at(1.2).timestamp(), "kernelReady": at(1.8).timestamp()}
    s = snapshot(
        engine=engine(STARTING | {"startup": {"accepted": "2026-11-24T12:00:00.100000Z"}}),
        pod=pod(scheduled=T0, started=at(1)), report=report(changed=2, timings=timings),
        first_seen={"scheduled": at(0.3), "containerStarted": at(1.6)},
    )  # fmt: skip
    startup = decided(s).patch["startup"]
    assert startup["scheduled"] < startup["containerStarted"] == startup["agentStarted"] < startup["kernelReady"]


def test_an_engine_that_was_ready_between_two_looks_has_its_address_and_times_in_the_end() -> None:
    done = report(S.SUCCESS, timings={"processStarted": at(1.5).timestamp(), "kernelReady": at(2).timestamp()})
    job = engine(STARTING, mode="once", code="1")
    status = decided(snapshot(engine=job, pod=pod(terminated=clean), evidence=COLLECTED, report=done), 9).patch
    assert status["engineState"] == "Success"
    assert status["readyTime"] == status["startup"]["kernelReady"] == "2026-11-24T12:00:02.000000Z"
    assert status["serviceInstance"].endswith(":9105")
    assert status["timesReady"] == 1


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


OVERDUE: list[tuple[str, Callable[[], Snapshot], str, str, bool]] = [
    # what, snapshot, reason, words of the remedy, whether the same request may succeed later
    ("image", lambda: snapshot(engine=engine(STARTING), pod=pod(waiting_reason="ErrImagePull", started=None)),
     "ImagePullBackOff", "Check the image's name", False),
    ("config", lambda: snapshot(engine=engine(STARTING), pod=pod(waiting_reason="CreateContainerConfigError")),
     "CreateContainerConfigError", "Check the Secrets", False),
    ("no room", lambda: snapshot(engine=engine(STARTING), pod=pod(unschedulable="0/1 nodes", started=None)),
     "Unschedulable", "Ask for less cpu or memory", True),
    ("quota", lambda: snapshot(failure=failure), "QuotaExceeded", "ResourceQuota raised", True),
    ("quota, after the operator's restart", lambda: snapshot(engine=engine({
        "engineState": "Starting", "reason": "QuotaExceeded", "observedGeneration": 1})),
     "QuotaExceeded", "ResourceQuota raised", True),
    ("no such volume", lambda: snapshot(engine=engine(STARTING), pod=pod(started=None), evidence=NO_VOLUME),
     "MountFailed", "Check that the Secrets", False),
    ("a slow volume, then a slow agent", lambda: snapshot(engine=engine(STARTING), pod=pod(), evidence=NO_VOLUME),
     "StartTimeout", "raise spec.startTimeout", True),
    ("silent agent", lambda: snapshot(engine=engine(STARTING), pod=pod()), "StartTimeout", "raise spec.startTimeout",
     True),
]  # fmt: skip
NO_VOLUME = Evidence(0, {"files": []}, mount_problem='MountVolume.SetUp failed for volume "x": secret "x" not found')


@pytest.mark.parametrize("row", OVERDUE, ids=lambda row: row[0])
def test_a_start_that_takes_too_long_ends_with_what_it_waited_for(
    row: tuple[str, Callable[[], Snapshot], str, str, bool],
) -> None:
    _, make, reason, remedy, can_retry = row
    s = make()
    decision = decided(s if s.evidence is not None else replace(s, evidence=COLLECTED), 121)
    assert (decision.state, decision.reason) == (S.FAILED, reason)
    assert remedy in decision.message
    known = reasons.by_name(reason)
    assert known is not None
    assert known.can_retry is can_retry
    assert ("raise spec.startTimeout" in decision.message) is (reason == "StartTimeout")


@given(st.sampled_from(reasons.all_reasons()), st.text(max_size=40))
def test_sentences_of_a_message_do_not_run_together(reason: reasons.Reason, details: str) -> None:
    message = Verdict(reason, details).message
    assert message.startswith(reason.sentence)
    rest = message.removeprefix(reason.sentence)
    assert rest == "" or rest.startswith(" ")
    assert message.endswith((".", "!", "?"))
    if reason.remedy:
        before = message.removesuffix(reason.remedy)
        assert before.endswith((". ", "! ", "? "))


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

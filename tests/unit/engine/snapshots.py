"""Snapshots for the tests of `decide`: an engine, its pod and its report, each with the changes that a test names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from linkis_ecm.engine.causes.verdicts import Verdict
from linkis_ecm.engine.decide import decide
from linkis_ecm.engine.decision import CreateFailure, Decision, Evidence, Settings, Silence, Snapshot
from linkis_ecm.engine.pod.launch import PodSettings
from linkis_ecm.engine.pod_view import PodView, Terminated
from linkis_ecm.engine.view import EngineView, Report, engine_view, plugin_view
from linkis_ecm.model import reasons
from linkis_ecm.model.states import EngineState

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

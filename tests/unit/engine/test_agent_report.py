"""The numbers of an agent's report: what is no sane time or size counts as not reported, and no rule raises by it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from linkis_ecm.engine.agent_report import CLOCK_SKEW, parse_report
from linkis_ecm.engine.decide import decide
from linkis_ecm.engine.decision import Evidence, Settings, Snapshot
from linkis_ecm.engine.pod.launch import PodSettings
from linkis_ecm.engine.pod_view import pod_view
from linkis_ecm.engine.view import EngineView, Report, engine_view, plugin_view

CREATED = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NOW = CREATED + timedelta(minutes=1)
SETTINGS = Settings(ecm_instance="ecm:9102", pod=PodSettings(report_url="http://op:9103"))
PLUGIN = plugin_view({
    "metadata": {"name": "python-3.11", "resourceVersion": "1"},
    "spec": {
        "engineType": "python", "engineVersion": "3.11", "image": "engine:1", "runTypes": ["python"],
        "defaultResources": {"cpu": "500m", "memory": "1Gi"}, "maxResources": {"cpu": "4", "memory": "8Gi"},
        "idleTimeout": "10m", "startTimeout": "2m",
    },
})  # fmt: skip
POD = {
    "metadata": {
        "namespace": "ns", "name": "e-pod-0", "uid": "p1", "resourceVersion": "9",
        "ownerReferences": [{"kind": "EngineConn", "name": "e", "uid": "u1"}],
    },
    "spec": {"nodeName": "n1", "containers": [{"name": "engine"}]},
    "status": {
        "phase": "Running", "podIP": "10.0.0.9",
        "containerStatuses": [{"name": "engine", "state": {"running": {"startedAt": "2026-11-24T12:00:01Z"}}}],
    },
}  # fmt: skip
INSANE = (1e15, 1e20, 1e300, -1e300, 2**63, 2**64 - 1, 10**400, -(10**400), float("inf"), float("nan"), True, "1", None)


def engine(**status: Any) -> EngineView:
    metadata = {
        "namespace": "ns", "name": "e", "uid": "u1", "resourceVersion": "5", "generation": 1,
        "creationTimestamp": "2026-11-24T12:00:00Z",
    }  # fmt: skip
    return engine_view(
        {"metadata": metadata, "spec": {"engineType": "python", "user": "hadoop"}, "status": status}, epoch=CREATED
    )


def parsed(**body: Any) -> Report:
    return parse_report({"attempt": 0, "sequence": 1, "state": "Idle"} | body, engine(), None, NOW)


@pytest.mark.parametrize("number", INSANE, ids=str)
def test_a_number_that_is_no_sane_time_or_size_counts_as_not_reported(number: Any) -> None:
    report = parsed(
        lastTaskEnded=number, lastActivity=number, timings={"kernelReady": number, "processStarted": number},
        usage={"memoryBytes": number, "memoryPeakBytes": number}, metrics={"total": number},
        task={"id": "t", "started": number},
    )  # fmt: skip
    assert (report.last_task_ended, report.last_activity, report.task["started"]) == (0.0, 0.0, 0.0)
    assert report.timings == {}
    if number != 1e15:  # a petabyte is a size
        assert (report.usage, report.metrics) == ({}, {})


@pytest.mark.parametrize(("seconds", "taken"), [
    (-CLOCK_SKEW.total_seconds() - 1, False), (-CLOCK_SKEW.total_seconds(), True), (30, True),
    (60 + CLOCK_SKEW.total_seconds(), True), (61 + CLOCK_SKEW.total_seconds(), False),
])  # fmt: skip
def test_a_time_is_taken_within_a_day_of_the_engines_life(seconds: float, taken: bool) -> None:
    moment = CREATED.timestamp() + seconds
    report = parsed(lastTaskEnded=moment, timings={"kernelReady": moment})
    assert report.last_task_ended == (moment if taken else 0.0)
    assert report.timings == ({"kernelReady": moment} if taken else {})


def test_sizes_are_taken_up_to_int64_and_not_below_zero() -> None:
    assert parsed(usage={"memoryBytes": 2**62, "memoryPeakBytes": -1}).usage == {"memoryBytes": 2**62}
    assert parsed(metrics={"balance": -1.5}).metrics == {"balance": -1.5}


@pytest.mark.parametrize("number", INSANE, ids=str)
@pytest.mark.parametrize("state", ["Idle", "Failed", "Success"])
def test_no_number_of_a_report_stops_a_decision(number: Any, state: str) -> None:
    report = parsed(
        state=state, lastTaskEnded=number, lastActivity=number, usage={"memoryPeakBytes": number},
        timings={"kernelReady": number, "processStarted": number},
    )  # fmt: skip
    view = engine(engineState="Starting", reason="PodCreated", podName="e-pod-0", observedGeneration=1)
    s = Snapshot(engine=view, pod=pod_view(POD), plugin=PLUGIN, report=report, evidence=Evidence(0, {"files": []}))
    for seconds in (1, 700):  # the idleTimeout is 600 s
        decided = decide(s, NOW + timedelta(seconds=seconds), SETTINGS)
        usage = decided.patch.get("usage") or {}
        assert all(0 <= value < 2**63 for value in usage.values())
        assert decided.state != "Starting"
    if state == "Idle":
        assert decided.reason == "IdleTimeout", "numbers that mean nothing do not keep an engine"

"""Whether work without a task keeps an engine from being culled: the plugin says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from linkis_ecm.engine import facts
from linkis_ecm.engine.agent_report import parse_report
from linkis_ecm.engine.decision import Silence, Snapshot
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.view import Report, engine_view, plugin_view
from linkis_ecm.model.states import EngineState

T0 = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
WORK = "background work of the session prints"
ENGINE = engine_view(
    {
        "metadata": {
            "namespace": "ns", "name": "e", "uid": "u1", "resourceVersion": "5", "generation": 1,
            "creationTimestamp": "2026-11-24T12:00:00Z",
        },
        "spec": {"engineType": "python", "user": "hadoop"},
        "status": {"engineState": "Idle", "reason": "KernelReady", "podName": "e-pod-0"},
    },
    epoch=T0,
)  # fmt: skip


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def snapshot(*, counts: bool | None, state: EngineState = EngineState.IDLE, **more: Any) -> Snapshot:
    spec: dict[str, Any] = {
        "engineType": "python", "engineVersion": "3.11", "image": "engine:1", "runTypes": ["python"],
        "defaultResources": {"cpu": "500m", "memory": "1Gi"}, "idleTimeout": "10m",
    } | ({} if counts is None else {"idleCountsBackground": counts})  # fmt: skip
    return Snapshot(
        engine=ENGINE,
        pod=PodView(
            namespace="ns", name="e-pod-0", uid="p1", version=9, owner_uid="u1", owner_name="e", phase="Running",
            ip="10.0.0.9", node="n1", scheduled=T0, started=at(1), memory_limit="1Gi",
        ),
        plugin=plugin_view({"metadata": {"name": "python-3.11", "resourceVersion": "1"}, "spec": spec}),
        report=Report(attempt=0, sequence=1, state=state, changed=at(2), **more),
        silence=Silence(at(0)),
    )  # fmt: skip


@pytest.mark.parametrize("counts", [None, False, True])
def test_work_keeps_the_engine_where_the_plugin_counts_it(counts: bool | None) -> None:
    s = snapshot(counts=counts, background=WORK, last_background=at(500).timestamp())
    assert facts.idle_deadline(s, at(510)) == (None if counts else at(602))
    assert facts.cull_blocked_by(s) == (WORK if counts else "")


@pytest.mark.parametrize("counts", [None, False, True])
def test_after_it_the_time_counts_from_when_it_was_seen_last(counts: bool | None) -> None:
    s = snapshot(counts=counts, last_background=at(500).timestamp())
    assert facts.idle_deadline(s, at(540)) == (at(1100) if counts else at(602))
    assert facts.cull_blocked_by(s) == ""
    # A clock that is ahead says nothing of the future.
    ahead = snapshot(counts=counts, last_background=at(9000).timestamp())
    assert facts.idle_deadline(ahead, at(540)) == (at(1140) if counts else at(602))


def test_a_task_and_a_download_come_first() -> None:
    assert facts.cull_blocked_by(snapshot(counts=True, state=EngineState.BUSY, background=WORK)) == "a task runs"
    s = snapshot(counts=True, active="1 download under way", background=WORK)
    assert facts.cull_blocked_by(s) == "1 download under way"


@pytest.mark.parametrize(
    ("said", "when", "expected"),
    [
        (WORK, at(5).timestamp(), (WORK, at(5).timestamp())),
        ("x" * 1000, 1e300, ("x" * 200, 0.0)),
        (None, "soon", ("", 0.0)),
        (None, None, ("", 0.0)),
    ],
)
def test_the_report_is_bounded(said: Any, when: Any, expected: tuple[str, float]) -> None:
    body = {"attempt": 0, "sequence": 1, "state": "Idle", "background": said, "lastBackground": when}
    parsed = parse_report(body, ENGINE, None, at(10))
    assert (parsed.background, parsed.last_background) == expected

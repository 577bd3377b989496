"""The size that an engine's pod is to have while nobody uses it: the record, the pod's figures, the rule's order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from linkis_ecm.engine import soft_pause
from linkis_ecm.engine.decision import Decision, ResizeFailure, ResizePod, Silence, Snapshot
from linkis_ecm.engine.pod_view import PodView, pod_view
from linkis_ecm.engine.view import EngineView
from linkis_ecm.model.states import EngineState
from linkis_ecm.model.warm_pool import SoftPause
from tests.unit.engine.snapshots import IDLE, PLUGIN, at, decided, engine, pod, report, snapshot

assert PLUGIN is not None
PAUSE = SoftPause.model_validate({"after": "1m", "cpu": "50m"})
PAUSING = replace(PLUGIN, spec=PLUGIN.spec.model_copy(update={"soft_pause": PAUSE, "idle_timeout": "0s"}))
RECORD = {"since": "2026-11-24T12:01:05.000000Z", "cpu": "50m", "fullCpu": "2"}
# Seconds: idle for longer than `after` and the spread.
LATE = 100.0


def found(
    *, record: dict[str, Any] | None = None, cpu: str = "2", state: EngineState = EngineState.IDLE, **changes: Any
) -> Snapshot:
    status = IDLE | ({"softPause": record} if record is not None else {})
    more = changes.pop("pod", {})
    values: dict[str, Any] = {
        "engine": engine(status), "pod": pod(cpu_request=cpu, **more), "plugin": PAUSING, "report": report(state),
        "silence": Silence(at(LATE - 1)),
    }  # fmt: skip
    return snapshot(**values | changes)


def resize(decision: Decision) -> ResizePod | None:
    return next((action for action in decision.actions if isinstance(action, ResizePod)), None)


def test_the_record_comes_first_and_the_resize_with_the_next_pass() -> None:
    first = decided(found(), LATE)
    assert resize(first) is None
    assert {name: first.patch["softPause"][name] for name in ("cpu", "fullCpu")} == {"cpu": "50m", "fullCpu": "2"}
    assert resize(decided(found(record=RECORD), LATE)) == ResizePod("e-pod-0", 9, {"requests": {"cpu": "50m"}}, True)
    settled = decided(found(record=RECORD, cpu="50m"), LATE)
    assert settled.actions == ()
    assert "softPause" not in settled.patch


@pytest.mark.parametrize("state", [EngineState.BUSY, EngineState.LOCKED, EngineState.RUNNING])
def test_a_used_engine_gets_its_cpu_back(state: EngineState) -> None:
    wakes = found(record=RECORD, cpu="50m", state=state)
    assert resize(decided(wakes, LATE)) == ResizePod("e-pod-0", 9, {"requests": {"cpu": "2"}}, False)
    given = found(record=RECORD, cpu="2000m", state=state, engine=engine(IDLE | {"engineState": state.value,
        "softPause": RECORD}))  # fmt: skip
    assert decided(given, LATE).patch["softPause"] is None


@pytest.mark.parametrize(
    "unknown",
    [
        {"report": None},
        {"silence": Silence(at(LATE - 31))},
        {"silence": Silence(at(LATE - 1), refusal="no")},
        {"report_path_down": True},
        {"pod": {"deleting": True}},
    ],
)
@pytest.mark.parametrize("cpu", ["2", "50m"])
def test_where_nobody_knows_nothing_is_resized(unknown: dict[str, Any], cpu: str) -> None:
    decision = decided(found(record=RECORD, cpu=cpu, **unknown), LATE)
    assert resize(decision) is None
    assert "softPause" not in decision.patch


def test_a_resize_that_was_refused_waits_and_the_other_way_does_not() -> None:
    failure = ResizeFailure(True, "no", at(LATE + 9))
    refused = decided(found(record=RECORD, resize_failure=failure), LATE)
    assert resize(refused) is None
    assert refused.deadline is not None
    assert refused.deadline <= at(LATE + 9).timestamp()
    assert resize(decided(found(record=RECORD, cpu="50m", state=EngineState.BUSY, resize_failure=failure), LATE))


def test_a_longer_after_wakes_and_a_claim_does() -> None:
    longer = SoftPause.model_validate({"after": "1h", "cpu": "50m"})
    plugin = replace(PAUSING, spec=PAUSING.spec.model_copy(update={"soft_pause": longer}))
    assert resize(decided(found(record=RECORD, cpu="50m", plugin=plugin), LATE))


@pytest.mark.parametrize(
    ("record", "cpu", "limit", "small", "full"),
    [
        (RECORD, "50m", "", True, False),
        (RECORD, "0.05", "", True, False),
        (RECORD, "2", "", False, True),
        (RECORD, "1", "", False, False),
        (RECORD | {"fullCpuLimit": "2"}, "50m", "2", True, False),
        (RECORD | {"fullCpuLimit": "2"}, "50m", "50m", True, False),
        (RECORD | {"fullCpuLimit": "2"}, "50m", "3", False, False),
        (RECORD | {"fullCpuLimit": "2"}, "2", "2", False, True),
        (RECORD, "100u", "", False, False),
    ],
)
def test_what_a_pod_has(record: dict[str, Any], cpu: str, limit: str, small: bool, full: bool) -> None:
    parsed, has = soft_pause.parsed(record), pod(cpu_request=cpu, cpu_limit=limit)
    assert parsed is not None
    assert (parsed.is_small(has), parsed.is_full(has)) == (small, full)
    if small:
        assert soft_pause.whole(engine(IDLE | {"softPause": record}), has).cpu_request == "2"


@pytest.mark.parametrize("record", [None, [], "x", {}, {"cpu": "50m"}, {"cpu": "much", "fullCpu": "2"}, {"cpu": 1}])
def test_a_record_that_was_edited_by_hand_says_nothing(record: Any) -> None:
    assert soft_pause.parsed(record) is None
    assert decided(found(record=record, cpu="50m"), LATE).actions == ()


@pytest.mark.parametrize("cpu", ["", "50m", "0.05", "10m", "100u"])
def test_a_pod_with_no_more_is_not_paused(cpu: str) -> None:
    assert soft_pause.begun(PAUSE, engine(IDLE), pod(cpu_request=cpu), at(0)) is None


def test_engines_are_spread_over_a_tenth_and_a_paused_one_is_not_moved() -> None:
    def due(name: str, status: dict[str, Any] | None = None) -> float:
        one: EngineView = replace(engine(status), uid=name)
        when = soft_pause.due_at(one, PAUSE, at(0), idle_since=at(0), known_since=at(30))
        return (when - at(0)).total_seconds()

    moments = [due(f"u{number}") for number in range(200)]
    assert 60 <= min(moments) < 61
    assert 65 < max(moments) <= 66
    assert due("u1", {"softPause": RECORD}) == 60


def of_api(resources: dict[str, Any], actual: dict[str, Any] | None, *conditions: str) -> PodView:
    status: dict[str, Any] = {"name": "engine", "state": {}} | ({"resources": actual} if actual is not None else {})
    return pod_view({
        "metadata": {"name": "p", "resourceVersion": "1"},
        "spec": {"containers": [{"name": "engine", "resources": resources}]},
        "status": {
            "qosClass": "Burstable", "containerStatuses": [status],
            "conditions": [{"type": kind, "status": "True", "reason": "Deferred"} for kind in conditions],
        },
    })  # fmt: skip


BIG, SMALL = {"requests": {"cpu": "2", "memory": "1Gi"}}, {"requests": {"cpu": "1", "memory": "1Gi"}}


@pytest.mark.parametrize(
    ("actual", "conditions", "under_way"),
    [
        (BIG, (), False),
        (None, (), False),
        (SMALL, (), True),
        ({"requests": {"cpu": "2"}}, (), True),
        (BIG, ("PodResizeInProgress",), True),
        (BIG, ("PodResizePending",), True),
    ],
)
def test_whether_a_resize_is_under_way(actual: Any, conditions: tuple[str, ...], under_way: bool) -> None:
    seen = of_api(BIG, actual, *conditions)
    assert (seen.resizing, seen.qos) == (under_way, "Burstable")
    assert bool(seen.resize_pending) == ("PodResizePending" in conditions)


def test_a_pod_as_the_api_has_it_is_made_whole_for_a_resize_of_its_owner() -> None:
    body = {"spec": {"containers": [
        {"name": "engine", "resources": {"requests": {"cpu": "50m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}},
        {"name": "beside", "resources": {"requests": {"cpu": "50m"}}},
    ]}}  # fmt: skip
    first, beside = soft_pause.whole_body(engine(IDLE | {"softPause": RECORD}), body)["spec"]["containers"]
    assert first["resources"] == {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    assert beside["resources"] == {"requests": {"cpu": "50m"}}
    assert soft_pause.whole_body(engine(IDLE), body) is body

"""decide() on an engine that starts: the times of its phases, and what it says of a start that takes too long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest

from linkis_ecm.engine.causes.verdicts import Verdict
from linkis_ecm.engine.decision import Evidence, Snapshot
from linkis_ecm.model import reasons
from tests.unit.engine.snapshots import (
    COLLECTED,
    STARTING,
    T0,
    S,
    at,
    clean,
    decided,
    engine,
    failure,
    pod,
    report,
    snapshot,
)


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
NO_VOLUME = Evidence(0, {"files": []}, start_problem=Verdict(
    reasons.MOUNT_FAILED,
    'Kubernetes says: MountVolume.SetUp failed for volume "x": secret "x" not found'))  # fmt: skip


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


def test_a_pod_that_is_ready_before_its_agent_reports_is_not_looked_at_without_a_pause() -> None:
    started = pod(ready=True, ready_since=at(1))
    decision = decided(snapshot(engine=engine(STARTING), pod=started), 2)
    assert decision.deadline is not None
    assert decision.deadline > at(2).timestamp()

"""Who holds an engine, until when, and how that looks in Linkis's words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from linkis_ecm.engine.matching import (
    CLAIM_ANNOTATION,
    CLAIM_HOLD,
    CLAIM_LONGEST,
    Claim,
    claim_ends,
    counts_for,
    held_claim,
    linkis_state,
    parse_claim,
)
from linkis_ecm.engine.times import format_time
from linkis_ecm.gateway.inventory.view import KnownEngine, view_of
from linkis_ecm.model.states import EngineState

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
PROCESS = {"kind": "process", "port": 8080}
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


def engine(claim: Claim | None, state: str = "Idle", since: datetime | None = NOW - HOUR, **status: Any) -> KnownEngine:
    annotations = {CLAIM_ANNOTATION: claim.text()} if claim is not None else {}
    return view_of(
        {
            "metadata": {"namespace": "linkis", "name": "e", "annotations": annotations},
            "status": {"engineState": state, "stateSince": format_time(since) if since else None, **status},
        }
    )


@pytest.mark.parametrize(
    ("claim", "since", "ends"),
    [
        pytest.param(Claim("a", NOW + SECOND), NOW - HOUR, NOW + SECOND, id="claimed, and nothing has run since"),
        pytest.param(Claim("a", NOW - SECOND), NOW - HOUR, NOW - SECOND, id="over"),
        pytest.param(Claim("a", NOW), NOW - HOUR, NOW, id="over this moment"),
        pytest.param(Claim("a", NOW - HOUR), NOW - SECOND, NOW - SECOND + CLAIM_HOLD, id="a task has just ended"),
        pytest.param(Claim("a", NOW - HOUR), NOW - CLAIM_HOLD, NOW, id="a task ended as long ago as the hold"),
        pytest.param(Claim("a", NOW - HOUR, 10 * SECOND), NOW - 11 * SECOND, NOW - SECOND, id="a hold of its own"),
        pytest.param(Claim("a", NOW + SECOND), None, NOW + SECOND, id="no time of the state"),
        pytest.param(
            Claim("a", NOW + HOUR / 2, starting=True),
            NOW - SECOND,
            NOW - SECOND + CLAIM_HOLD,
            id="made with it, and ready long before its longest start",
        ),
        pytest.param(Claim("a", NOW + HOUR / 2, starting=True), NOW - HOUR, NOW - HOUR + CLAIM_HOLD, id="and unused"),
    ],
)
def test_a_lock_ends_when_no_task_has_run_for_its_hold(claim: Claim, since: datetime | None, ends: datetime) -> None:
    one = engine(claim, since=since)
    assert claim_ends(one) == ends
    held = ends > NOW
    assert held_claim(one, NOW) == (claim if held else None)
    assert linkis_state(one, NOW) is (EngineState.IDLE if held else EngineState.UNLOCK)


def test_the_hold_of_an_engine_that_adopts_a_warm_pod_counts_from_the_engine() -> None:
    one = replace(engine(Claim("a", NOW + HOUR / 2, starting=True)), created=format_time(NOW - SECOND))
    assert claim_ends(one) == NOW - SECOND + CLAIM_HOLD


def test_a_lock_holds_while_a_task_runs() -> None:
    one = engine(Claim("a", NOW - HOUR), "Busy")
    assert claim_ends(one) is None
    assert held_claim(one, NOW) is not None
    assert linkis_state(one, NOW) is EngineState.BUSY


@pytest.mark.parametrize(
    "one",
    [
        engine(Claim("a", NOW - HOUR, always=True)),
        engine(Claim("a", NOW - HOUR), launch=PROCESS),
        engine(Claim("a", NOW + 9999 * HOUR), launch=PROCESS),
    ],
)
def test_a_lock_of_type_always_and_a_processs_end_by_unlock_alone(one: KnownEngine) -> None:
    assert claim_ends(one) is None
    assert held_claim(one, NOW) is not None
    assert linkis_state(one, NOW) is EngineState.IDLE


@pytest.mark.parametrize("state", ["Idle", "Busy"])
def test_a_claim_for_ever_that_no_gateway_wrote_does_not_count(state: str) -> None:
    assert held_claim(engine(Claim("a", NOW + CLAIM_LONGEST + SECOND), state), NOW) is None


@pytest.mark.parametrize("state", EngineState)
def test_linkis_state_is_the_state_but_for_an_engine_without_a_task(state: EngineState) -> None:
    free = state in (EngineState.IDLE, EngineState.UNLOCK)
    nobody, somebody = engine(None, state), engine(Claim("a", NOW + SECOND), state)
    assert linkis_state(nobody, NOW) is (EngineState.UNLOCK if free else state)
    assert linkis_state(somebody, NOW) is (EngineState.IDLE if free else state)


def test_a_start_does_not_renew_a_claim() -> None:
    """An engine that is made for its asker is claimed for the start and the hold."""
    one = engine(Claim("a", NOW, starting=True), "Starting", since=NOW)
    assert claim_ends(one) == NOW
    assert held_claim(one, NOW) is None


@pytest.mark.parametrize(
    ("claim", "state", "user"),
    [
        (Claim("a", NOW + SECOND, user="ann"), "Idle", "ann"),
        (Claim("a", NOW - SECOND, user="ann"), "Idle", ""),
        (Claim("a", NOW - SECOND, user="ann"), "Busy", "ann"),
        (Claim("a", NOW + SECOND, user="ann", released=True), "Idle", ""),
        (Claim("a", NOW + SECOND, user="ann", released=True), "Busy", "ann"),
        (Claim("a", NOW + SECOND), "Busy", ""),
        (None, "Busy", ""),
    ],
)
def test_a_lent_engine_counts_while_it_is_held_or_in_use(claim: Claim | None, state: str, user: str) -> None:
    assert counts_for(engine(claim, state), NOW) == user


@pytest.mark.parametrize("status", [{}, {"launch": PROCESS}])
def test_a_lock_that_is_given_back_holds_nothing(status: dict[str, Any]) -> None:
    for claim in (Claim("a", NOW + SECOND, user="ann", released=True), Claim("a", NOW, always=True, released=True)):
        assert parse_claim(claim.text()) == claim
        assert not claim.holds(NOW)
        for state in ("Idle", "Busy"):
            assert held_claim(engine(claim, state, **status), NOW) is None

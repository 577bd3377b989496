"""The refill of a warm pool gives way to claims, for a time that is bounded, and no pool is starved by it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.engine.warm.pacing import CALM, FREE, LATEST, QUIET, Pace, pace

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def of(
    *, size: int = 40, ready: int = 30, last_claim: float | None = None, held_since: float | None = None
) -> Pace:  # fmt: skip
    """The pace now; the times are seconds ago."""
    return pace(
        size=size, ready=ready, now=NOW,
        last_claim=None if last_claim is None else ago(last_claim),
        held_since=None if held_since is None else ago(held_since),
    )  # fmt: skip


def test_without_a_claim_nothing_is_held_back() -> None:
    assert of() is of(last_claim=CALM.total_seconds()) is FREE
    # Whose clock was put back does not wait until it is that late again.
    assert of(last_claim=-3600) is FREE


def test_just_after_a_claim_no_member_starts() -> None:
    assert of(last_claim=0) == Pace(0, held=True, again=NOW + QUIET)
    assert of(last_claim=0.9, held_since=3) == Pace(0, held=True, again=ago(0.9) + QUIET)


def test_in_the_quiet_after_it_some_start_at_a_time() -> None:
    assert of(last_claim=1) == Pace(5, again=ago(1) + CALM)
    assert of(size=3, last_claim=1).most == 4


def test_claims_one_behind_the_other_do_not_hold_it_back_for_long() -> None:
    assert of(last_claim=0, held_since=4.5) == Pace(0, held=True, again=ago(4.5) + LATEST)
    assert of(last_claim=0, held_since=5) == Pace(5, held=True, again=NOW + CALM)
    # A time in the future is none.
    assert of(last_claim=0, held_since=-60) == Pace(0, held=True, again=NOW + QUIET)


@pytest.mark.parametrize(
    ("size", "ready", "most"), [(40, 10, 0), (40, 9, 2), (40, 0, 2), (8, 2, 0), (8, 1, 1), (1, 0, 1)]
)
def test_a_pool_that_is_low_is_refilled_beside_claims_but_slowly(size: int, ready: int, most: int) -> None:
    assert of(size=size, ready=ready, last_claim=0).most == most


@given(st.integers(1, 500), st.integers(0, 500), st.lists(st.floats(0.05, 0.9), min_size=30, max_size=120))
def test_a_pool_is_never_held_back_longer_than_it_says(size: int, ready: int, gaps: list[float]) -> None:
    """Whatever claims come, a member may start within LATEST and a claim more; after the last one within QUIET."""
    now, held_since = NOW, None
    waited = timedelta(0)
    for gap in gaps:
        found = pace(size=size, ready=ready, last_claim=now, held_since=held_since, now=now)
        assert found.again is not None
        assert now < found.again <= now + CALM
        held_since = held_since or now
        waited = waited + timedelta(seconds=gap) if found.most == 0 else timedelta(0)
        assert waited <= LATEST + timedelta(seconds=1)
        now += timedelta(seconds=gap)
    after = pace(size=size, ready=ready, last_claim=now, held_since=held_since, now=now + QUIET)
    assert not after.held
    assert after.most

"""The operator's clock: goes on, whatever the wall clock does, and says how far that has jumped."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from linkis_ecm.controller.clock import SteadyClock
from linkis_ecm.controller.metrics import Metrics


class Hands:
    """A wall clock and a monotonic one, set by hand."""

    def __init__(self) -> None:
        self.wall = 1_795_000_000.0
        self.monotonic = 500.0

    def on(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def clock(hands: Hands, metrics: Metrics | None = None) -> SteadyClock:
    return SteadyClock(wall=lambda: hands.wall, monotonic=lambda: hands.monotonic, metrics=metrics or Metrics())


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """By the clock: what earlier tests left behind is told of when it is collected, which may be now."""
    return [record.getMessage() for record in caplog.records if record.name == SteadyClock.__module__]


def test_the_clock_follows_a_wall_clock_that_does_not_jump() -> None:
    hands = Hands()
    steady = clock(hands)
    hands.on(90)
    assert steady() == datetime.fromtimestamp(hands.wall, UTC)


@pytest.mark.parametrize("jump", [86400.0, -3600.0])
def test_a_jump_of_the_wall_clock_changes_no_deadline_and_is_told_once(
    jump: float, caplog: pytest.LogCaptureFixture
) -> None:
    hands, metrics = Hands(), Metrics()
    steady = clock(hands, metrics)
    before = steady()
    hands.wall += jump
    hands.on(1)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            assert (steady() - before).total_seconds() == pytest.approx(1)
    assert len(said(caplog)) == 1
    assert metrics.clock_skew._value.get() == pytest.approx(jump)


def test_slow_drift_is_no_jump(caplog: pytest.LogCaptureFixture) -> None:
    hands = Hands()
    steady = clock(hands)
    for _ in range(100):
        hands.on(60)
        hands.wall += 0.03
        steady()
    assert not said(caplog)

"""The operator's clock: the wall clock's time at the process's start, continued by the monotonic clock.

A wall clock that jumps while the process runs (NTP, a suspended machine, a person) would fail engines whose start
timeout then seems over, or keep idle ones for ever. This clock does not jump. How far the wall clock has jumped is a
metric and a warning; the next process begins with the right time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from linkis_ecm.controller.metrics import Metrics

log = logging.getLogger(__name__)

# Seconds. NTP moves a clock by less than this in hours; more at once is a jump.
JUMP = 5.0


class SteadyClock:
    """Calling it gives the time as an aware UTC datetime. `wall` and `monotonic` give seconds and are passed in."""

    def __init__(self, *, wall: Callable[[], float], monotonic: Callable[[], float], metrics: Metrics) -> None:
        self._wall = wall
        self._skew = metrics.clock_skew
        self._monotonic = monotonic
        self._start = datetime.fromtimestamp(wall(), UTC)
        self._zero = monotonic()
        self._warned = 0.0

    def __call__(self) -> datetime:
        now = self._start + timedelta(seconds=self._monotonic() - self._zero)
        skew = self._wall() - now.timestamp()
        self._skew.set(skew)
        if abs(skew - self._warned) > JUMP:
            self._warned = skew
            log.warning("the wall clock is %.1f s off this process's own: engines' deadlines keep the latter", skew)
        return now

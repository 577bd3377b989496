"""The operator's clock: the wall clock's time at the process's start, continued by the monotonic clock.

The wall clock can jump, by NTP, a suspended machine or a person. Then engines would fail by a start timeout that has
not expired, or idle ones would never end. This clock does not jump. The jump of the wall clock is a metric and a
warning; the next process starts with the wall clock's new time. Must not be used for times that others compare with
theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from linkis_ecm.controller.metrics import Metrics

log = logging.getLogger(__name__)

# Seconds of difference after which the metric is set again: the clock is read some ten times in each pass.
NOTICED = 0.001
# Seconds. NTP moves a clock by less than this in hours, so a larger difference is a jump.
MAX_DRIFT = 5.0


class SteadyClock:
    """Calling it gives the time as an aware UTC datetime. `wall` and `monotonic` give seconds and are passed in."""

    def __init__(self, *, wall: Callable[[], float], monotonic: Callable[[], float], metrics: Metrics) -> None:
        self._wall = wall
        self._skew = metrics.clock_skew
        self._monotonic = monotonic
        self._start = datetime.fromtimestamp(wall(), UTC)
        self._start_seconds = self._start.timestamp()
        self._started = monotonic()
        self._warned = 0.0
        self._shown = 0.0

    def __call__(self) -> datetime:
        passed = self._monotonic() - self._started
        skew = self._wall() - self._start_seconds - passed
        if abs(skew - self._shown) >= NOTICED:
            self._shown = skew
            self._skew.set(skew)
        if abs(skew - self._warned) > MAX_DRIFT:
            self._warned = skew
            log.warning("the wall clock is %.1f s off this process's own: engines' deadlines keep the latter", skew)
        return self._start + timedelta(seconds=passed)

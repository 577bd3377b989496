"""The operator's clock: the wall clock of the process's start, going on with the monotonic one.

A wall clock that jumps while the process runs (NTP, a suspended machine, a wrong hand) would fail engines whose start
timeout seems over or keep idle ones for ever. This one does not jump; how far the wall has is a metric and a warning,
and the next process begins with the right time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from linkis_ecm.controller import metrics

log = logging.getLogger(__name__)

# NTP slews by less than this in hours; more at once is a jump.
JUMP = 5.0


class SteadyClock:
    """Calling it gives the time, UTC. `wall` and `monotonic` in seconds are handed in."""

    def __init__(self, *, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._start = datetime.fromtimestamp(wall(), UTC)
        self._zero = monotonic()
        self._warned = 0.0

    def __call__(self) -> datetime:
        now = self._start + timedelta(seconds=self._monotonic() - self._zero)
        skew = self._wall() - now.timestamp()
        metrics.CLOCK_SKEW.set(skew)
        if abs(skew - self._warned) > JUMP:
            self._warned = skew
            log.warning("the wall clock is %.1f s off this process's own: engines' deadlines keep the latter", skew)
        return now

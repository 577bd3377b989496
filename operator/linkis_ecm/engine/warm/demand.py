"""How many members a warm pool is to have in a namespace, and what that number comes from. Pure: the clock is given.

It is `size`, or what the schedule says for this time. With `scaling` the pool also follows the engines that come: it
lasts for as many starts as come before a claimed member is replaced, so the busiest such time of the window counts,
with some headroom. Must not know members: `sizing` makes and deletes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from linkis_ecm.engine.warm import pacing, problems
from linkis_ecm.engine.warm.problems import Problem
from linkis_ecm.engine.warm.schedule import Scheduled
from linkis_ecm.model.formats import parse_duration
from linkis_ecm.model.warm_pool import PoolScaling, WarmPool

# Arrivals that are counted at most: no pool has more members in a namespace (PoolScaling.max).
COUNT_MAX = 100
# Nothing older is remembered: the longest `scaling.window` (its rule in the CRD).
LONGEST_WINDOW = 3600.0
# Seconds that a member needs to get ready, where none was seen yet: an image that is on the node, a kernel, a preload.
READY_DEFAULT = 10.0
# A node that has the image needs about 0.7 s; creationTimestamp has whole seconds.
READY_LEAST = 1.0
# So many members are remembered, and this share of them was ready in time.
READY_SAMPLES, READY_SHARE = 20, 0.9


class SizeFrom(StrEnum):
    """What a pool's size comes from. The value stands in the status."""

    VALUE = "Value"
    SCHEDULE = "Schedule"
    RATE = "Rate"


@dataclass(frozen=True, slots=True)
class Wanted:
    """So many members are to be ready. `until`: when that may change without an event."""

    size: int
    source: SizeFrom = SizeFrom.VALUE
    until: datetime | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Engines of a namespace that wanted a member, as far as they matter.

    `recent`: when the last ones came, oldest first. `peaks`: how many had come within the time that it takes to replace
    a member, and when; counts fall and times rise from one to the next, so each is the highest since its time.
    """

    recent: tuple[datetime, ...] = ()
    peaks: tuple[tuple[datetime, int], ...] = ()

    def after(self, at: datetime, seconds: float) -> Arrivals:
        """With one more; it takes so many seconds to replace a member.

        What is later than `at` is dropped: then the clock was put back.
        """
        since, oldest = at - timedelta(seconds=seconds), at - timedelta(seconds=LONGEST_WINDOW)
        recent = (*(one for one in self.recent if since < one <= at), at)[-COUNT_MAX:]
        higher = tuple(one for one in self.peaks if one[1] > len(recent) and oldest < one[0] <= at)
        return Arrivals(recent, (*higher, (at, len(recent))))

    def peak(self, now: datetime, window: float) -> tuple[int, datetime | None]:
        """The highest count of the last `window` seconds, and until when it counts."""
        for at, count in self.peaks:
            until = at + timedelta(seconds=window)
            if at <= now < until:
                return count, until
        return 0, None


def refill_seconds(samples: Iterable[float]) -> float:
    """How long it takes to replace a claimed member: its successor may wait for the claims to be over, and then needs
    what most members needed to get ready, of what the last ones took."""
    known = sorted(samples)
    needed = known[math.ceil(len(known) * READY_SHARE) - 1] if known else READY_DEFAULT
    return pacing.LATEST.total_seconds() + max(READY_LEAST, needed)


def largest_size(pool: WarmPool | None) -> int:
    """The most that the pool may be to have in a namespace at any time; 0: there is no pool."""
    if pool is None:
        return 0
    sizes = [pool.size, *(window.size for window in pool.schedule or ())]
    return max([*sizes, pool.scaling.max] if pool.scaling is not None else sizes)


def wanted(pool: WarmPool, by_schedule: Scheduled, arrivals: Arrivals, now: datetime) -> Wanted:
    """For one namespace. `by_schedule`: what its schedule says now."""
    size, source = pool.size, SizeFrom.VALUE
    if by_schedule.size is not None:
        size, source = by_schedule.size, SizeFrom.SCHEDULE
    until = by_schedule.until
    if pool.scaling is not None:
        asked, lasts = _by_rate(pool.scaling, arrivals, now)
        if asked > size:
            size, source = asked, SizeFrom.RATE
            until = min(one for one in (until, lasts) if one is not None) if until or lasts else None
    return Wanted(size, source, until, _problem(by_schedule))


def _by_rate(scaling: PoolScaling, arrivals: Arrivals, now: datetime) -> tuple[int, datetime | None]:
    count, until = arrivals.peak(now, parse_duration(scaling.window))
    # In whole numbers: 10 with 10 % are 11, and not 12.
    return min(scaling.max, -(-count * (100 + scaling.headroom_percent) // 100)), until


def _problem(by_schedule: Scheduled) -> Problem | None:
    if not by_schedule.unknown:
        return None
    return Problem(problems.ZONE, f"Its entries do not count: {', '.join(by_schedule.unknown)}.")

"""Puts the stamps of several processes together into the hops of one kind of call. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# A hop that fewer of the calls have is left out: a report or a timer that fell into some of them.
COMMON = 0.5


@dataclass(frozen=True, slots=True)
class Hop:
    """A point that calls pass. Microseconds: `at` since the call's beginning, `step` since the point above it."""

    name: str
    at_p50: float
    step_p50: float
    step_p90: float


def hops(
    calls: Iterable[tuple[int, int]],
    stamps: Iterable[tuple[int, str]],
    last: str = "client: the answer is there",
) -> list[Hop]:
    """The points of calls that came one at a time, in the order in which most calls pass them.

    `calls` are the beginning and the end of each, in nanoseconds and in order; `stamps` are of all processes. Of
    several stamps of one name in a call the first one counts. `last` names the call's end.
    """
    ordered = sorted(stamps)
    passed: list[dict[str, float]] = []
    at = 0
    for begin, end in calls:
        found: dict[str, float] = {}
        while at < len(ordered) and ordered[at][0] < begin:
            at += 1
        while at < len(ordered) and ordered[at][0] <= end:
            moment, name = ordered[at]
            found.setdefault(name, (moment - begin) / 1000)
            at += 1
        passed.append(found | {last: (end - begin) / 1000})
    return _table(passed)


def _table(passed: list[dict[str, float]]) -> list[Hop]:
    names = {name for found in passed for name in found}
    of = {name: [found[name] for found in passed if name in found] for name in names}
    common = [name for name in names if len(of[name]) > COMMON * len(passed)]
    common.sort(key=lambda name: statistics.median(of[name]))
    made, before = [], ""
    for name in common:
        steps = [found[name] - found.get(before, 0.0) for found in passed if name in found]
        made.append(Hop(name, statistics.median(of[name]), statistics.median(steps), p90(steps)))
        before = name
    return made


def p90(values: list[float]) -> float:
    """The ninth of the nine values that cut them into tenths; the only one of one."""
    return statistics.quantiles(values, n=10)[-1] if len(values) > 1 else values[0]


def lines(title: str, found: Iterable[Hop], used: Mapping[str, tuple[float, float]], each: str = "call") -> list[str]:
    """The table as text, of one `each`. `used`: microseconds of it on a processor and waiting for one, by process."""
    made = [f"{title:<58} {'at p50':>8} {'step p50':>9} {'step p90':>9}"]
    found = list(found)
    made += [f"{hop.name:<58} {hop.at_p50:>8.0f} {hop.step_p50:>9.0f} {hop.step_p90:>9.0f}" for hop in found]
    made += [
        f"  {f'processor time of a {each}, {name}':<56} {ran:>8.0f}   waited {waited:.0f}"
        for name, (ran, waited) in used.items()
    ]
    if any(hop.step_p50 < 0 for hop in found):
        made.append(
            "  a step below 0: most of them pass this point before the one above it; steps are medians of differences"
        )
    return made

"""Whether a run is worse than kept ones: by more than the spread of the samples explains. Must not measure.

The tolerance of a figure is DEVIATIONS times the standard error of its difference to the kept value. That error has two
sources, and the larger one counts: the samples within the runs (rounds, pairs, starts), and, from FEWEST_RUNS kept runs
on, how far these runs lie apart, which also holds what one run cannot see: another day, other neighbours. A fixed
percentage would be too wide for figures that hardly move, such as counted writes, and too narrow for noisy ones.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.all.document import Run
from bench.figures.figure import Figure, show

# About 25 figures are compared at once. With 2 deviations nearly every second comparison of two equal commits would
# report one of them as worse (1 - 0.977^25 = 0.44); with 3 one in thirty does (1 - 0.99865^25 = 0.033).
DEVIATIONS = 3.0
# Two runs have a difference, but no spread.
FEWEST_RUNS = 3
Verdict = Literal["worse", "missing", "as before", "better", "not compared"]


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure beside its kept value (the median of the kept runs). `reason` says why it is not compared."""

    name: str
    what: str
    verdict: Verdict
    now: float | None
    kept: float
    unit: str
    tolerance: float | None = None
    reason: str = ""

    @property
    def is_bad(self) -> bool:
        return self.verdict in ("worse", "missing")

    def line(self) -> str:
        now = "none" if self.now is None else show(self.now, self.unit)
        within = "" if self.tolerance is None else f", tolerance {show(self.tolerance, self.unit)}"
        because = f": {self.reason}" if self.reason else ""
        return f"{self.verdict:<12}  {self.what}: {now}, kept {show(self.kept, self.unit)}{within}{because}"


def compare(now: Run, kept: Sequence[Run]) -> list[Compared]:
    """Each figure of the kept runs. One that `now` lacks is missing, unless its benchmark was not asked for."""
    asked = {one.name for one in now.results if one.outcome != "left out"}
    bench_of = {one.name: result.name for run in kept for result in run.results for one in result.figures}
    figures = now.figures
    found = []
    for name in dict.fromkeys(name for run in kept for name in run.figures):
        of = [(run, run.figures[name]) for run in kept if name in run.figures]
        last = of[-1][1]
        if name in figures:
            found.append(_compared(now, figures[name], of))
        elif bench_of[name] in asked:
            middle = statistics.median(one.value for _, one in of)
            found.append(Compared(name, last.what, "missing", None, middle, last.unit))
    return found


def _compared(now: Run, figure: Figure, of: Sequence[tuple[Run, Figure]]) -> Compared:
    machine = now.conditions.cores, now.conditions.processor
    # Seconds and bytes a second are those of a machine; a ratio has its floor in it.
    if not figure.is_ratio:
        here = [(run, one) for run, one in of if (run.conditions.cores, run.conditions.processor) == machine]
    else:
        here = list(of)
    same = [one for _, one in here if (one.unit, one.direction) == (figure.unit, figure.direction)]
    values = [one.value for one in same or [one for _, one in of]]
    kept = statistics.median(values)

    def compared(verdict: Verdict, tolerance: float | None = None, reason: str = "") -> Compared:
        return Compared(figure.name, figure.what, verdict, figure.value, kept, figure.unit, tolerance, reason)

    if not here:
        return compared("not compared", reason="kept on another machine, and it is no ratio")
    if not same:
        return compared("not compared", reason="kept in another unit or direction")
    error = _error(figure, same)
    if error is None:
        return compared("not compared", reason=f"one sample has no spread: keep {FEWEST_RUNS} runs")
    tolerance = DEVIATIONS * error
    worse = figure.worsening(kept)
    if worse > tolerance:
        return compared("worse", tolerance)
    return compared("better" if -worse > tolerance else "as before", tolerance)


def _error(figure: Figure, kept: Sequence[Figure]) -> float | None:
    """Of the difference between the figure and the median of the kept; None where nothing says how far they spread."""
    errors = [one.error for one in kept if one.error is not None]
    within = between = None
    if figure.error is not None and len(errors) == len(kept):
        within = math.hypot(figure.error, statistics.fmean(errors) / math.sqrt(len(kept)))
    if len(kept) >= FEWEST_RUNS:
        # A new value beside the middle of n: both are uncertain.
        between = statistics.stdev(one.value for one in kept) * math.sqrt(1 + 1 / len(kept))
    return max((one for one in (within, between) if one is not None), default=None)

"""A run beside kept ones: worse is what the spread of the samples, or of the kept runs, does not explain."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest

from bench.all.compare import Compared, compare
from bench.all.document import Conditions, Result, Run
from bench.figures.figure import Figure

CONDITIONS = Conditions(datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC), "ab" * 20, False, 2, "A", 0.1)


def figure(value: float, error: float | None = 0.02, **fields: Any) -> Figure:
    return Figure(**{"name": "call", "what": "a call", "value": value, "error": error, "samples": 6} | fields)


def run(*figures: Figure, cores: int = 2, name: str = "calls") -> Run:
    return Run(dataclasses.replace(CONDITIONS, cores=cores), (Result(name, "done", figures=figures),))


def only(now: Run, *kept: Run) -> Compared:
    (found,) = compare(now, kept)
    return found


@pytest.mark.parametrize(
    ("value", "verdict"),
    # The errors of both are 0.02: three times the root of their squares is 0.085.
    [(1.08, "as before"), (1.09, "worse"), (0.92, "as before"), (0.91, "better")],
)
def test_one_kept_run_the_tolerance_is_three_errors_of_the_difference(value: float, verdict: str) -> None:
    found = only(run(figure(value)), run(figure(1.0)))
    assert found.verdict == verdict
    assert found.tolerance == pytest.approx(0.0849, abs=1e-4)
    assert found.is_bad == (verdict == "worse")


def test_where_more_is_better_less_is_worse() -> None:
    assert only(run(figure(0.8, direction="at least")), run(figure(1.0, direction="at least"))).verdict == "worse"
    assert only(run(figure(1.2, direction="at least")), run(figure(1.0, direction="at least"))).verdict == "better"


def test_counts_that_never_vary_have_no_tolerance() -> None:
    assert only(run(figure(5, 0.0)), run(figure(4, 0.0))).verdict == "worse"
    assert only(run(figure(4, 0.0)), run(figure(4, 0.0))).verdict == "as before"


def test_three_kept_runs_that_lie_apart_widen_the_tolerance() -> None:
    kept = [run(figure(value, 0.001)) for value in (0.9, 1.0, 1.1)]
    found = only(run(figure(1.3, 0.001)), *kept)
    # Deviation 0.1 by the root of 4/3, three times.
    assert (found.verdict, found.kept) == ("as before", 1.0)
    assert found.tolerance == pytest.approx(0.3464, abs=1e-4)
    assert only(run(figure(1.35, 0.001)), *kept).verdict == "worse"


def test_a_figure_of_one_sample_is_compared_from_three_kept_runs_on() -> None:
    kept = [run(figure(value, None)) for value in (0.9, 1.0, 1.1)]
    one = only(run(figure(9.0, None)), *kept[:2])
    assert (one.verdict, one.is_bad) == ("not compared", False)
    assert "keep 3 runs" in one.line()
    assert only(run(figure(9.0, None)), *kept).verdict == "worse"


def test_seconds_of_another_machine_are_not_compared_but_ratios_are() -> None:
    assert only(run(figure(9.0, unit="ms")), run(figure(1.0, unit="ms"), cores=8)).verdict == "not compared"
    assert only(run(figure(9.0, unit="ms")), run(figure(1.0, unit="ms"))).verdict == "worse"
    assert only(run(figure(9.0)), run(figure(1.0), cores=8)).verdict == "worse"


def test_another_unit_or_direction_is_not_compared() -> None:
    assert only(run(figure(9.0)), run(figure(1.0, direction="at least"))).verdict == "not compared"
    assert only(run(figure(9.0, unit="ms")), run(figure(1.0, unit="s"))).verdict == "not compared"


def test_a_figure_that_the_run_lacks_is_missing_unless_nobody_asked_for_its_benchmark() -> None:
    found = only(run(), run(figure(1.0)))
    assert (found.verdict, found.is_bad, found.now) == ("missing", True, None)
    assert compare(run(name="logs"), [run(figure(1.0))]) == []


def test_a_new_figure_has_nothing_to_be_compared_with() -> None:
    assert compare(run(figure(1.0)), [run()]) == []

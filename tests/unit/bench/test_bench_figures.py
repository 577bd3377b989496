"""A measured figure: what a benchmark reports in its file, what a kept run holds, and what is refused of both."""

from __future__ import annotations

import dataclasses
import datetime
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from bench import calls
from bench.all import document
from bench.all.document import Conditions, Result, Run, read_run, run_as_json, run_from
from bench.figures.figure import Figure, MalformedError, as_json, figure_from, standard_error
from bench.figures.table import FILE_VARIABLE, MAX_FIGURES, MAX_FILE, Table, reported

FIGURE = Figure("call-p50", "1+1 to straight, p50", 1.1, "", 3.0, "ms", 1.2, "at most", 6, 0.02, 0.5)
CONDITIONS = Conditions(
    datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC), "ab" * 20, False, 2, "A processor", 0.1, {"python": "3.11.7"}
)
RUN = Run(CONDITIONS, (Result("calls", "done", "", 60.5, 0.2, 0, (FIGURE,)), Result("cluster", "not run", "none")))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the tables of this test report."""
    path = tmp_path / "figures"
    monkeypatch.setenv(FILE_VARIABLE, str(path))
    return path


def test_a_table_prints_and_reports_each_figure_at_once(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(20, 10, 8)
    table.tell("floor", "3.00 ms")
    table.judge("call", "  a ratio", 1.25, at_most=1.2, floor=3.0, floor_unit="ms", samples=[1.0, 1.25, 1.5])
    figures, end = reported(file)
    assert end is None
    assert [(one.name, one.what, one.value, one.goal, one.passed, one.samples) for one in figures] == [
        ("call", "a ratio", 1.25, 1.2, False, 3)
    ]
    assert (figures[0].floor, figures[0].floor_unit) == (3.0, "ms")
    table.judge("rate", "a rate", 900, "/s", at_least=800)
    assert table.finish() == 1
    figures, end = reported(file)
    assert end == 1
    assert (figures[1].direction, figures[1].passed, figures[1].samples, figures[1].error) == (
        "at least",
        True,
        1,
        None,
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["a", "ratio", "1.25", "≤", "1.2", "MISSED"]
    assert lines[2].split() == ["a", "rate", "900", "/s", "≥", "800"]


def test_a_table_without_such_a_file_only_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    table = Table(20, 10, 8)
    figure = table.judge("pods", "pods", 0.7, more_is_better=True)
    assert (figure.passed, figure.direction) == (None, "at least")
    assert table.finish() == 0


def test_the_error_is_that_of_a_median_and_needs_samples() -> None:
    assert standard_error([1.0, 2.0]) is None
    assert standard_error([4.0] * 9) == 0.0
    # The deviation is 1; by the root of pi / 2 over the root of 3.
    assert standard_error([1.0, 2.0, 3.0]) == pytest.approx(0.7236, abs=1e-4)


def test_what_was_being_written_when_a_benchmark_was_killed_is_left_out(file: Path) -> None:
    line = json.dumps(as_json(FIGURE))
    file.write_text(f"{line}\n{line[:50]}")
    assert reported(file) == ([FIGURE], None)


def test_a_benchmark_that_reported_nothing_has_no_figures(tmp_path: Path) -> None:
    assert reported(tmp_path / "none") == ([], None)


LINE = json.dumps(as_json(FIGURE)).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"rubbish\n", "line 1: no JSON"),
        (b"\xff\xfe\n", "line 1: no JSON"),
        (b"[" * 100_000 + b"\n", "line 1: no JSON (RecursionError)"),
        (b"[]\n", "line 1: not an object"),
        (LINE + b"\n\n", "line 2: no JSON"),
        (LINE + b"\n" + LINE + b"\n", "call-p50: twice"),
        (b'{"end": 0}\n' + LINE + b"\n", "line 2: behind the end"),
        (b'{"end": true}\n', "line 1.end: not a whole number"),
        (b"x" * (MAX_FILE + 1), "bytes of figures"),
        (b'{"end": 0}\n' * (MAX_FIGURES + 1), "behind the end"),
    ],
)
def test_another_thing_than_figures_is_refused(file: Path, data: bytes, message: str) -> None:
    file.write_bytes(data)
    with pytest.raises(MalformedError) as caught:
        reported(file)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "Call", "figure.name: not small letters"),
        ("name", "x" * 61, "figure.name: longer than 60"),
        ("what", "", "figure.what: not a text"),
        ("what", "a\nb", "figure.what: has characters that are not printed"),
        ("value", float("nan"), "figure.value: not a finite number"),
        ("value", float("inf"), "figure.value: not a finite number"),
        ("value", 10**400, "figure.value: not a finite number"),
        ("value", True, "figure.value: not a finite number"),
        ("value", "1.1", "figure.value: not a finite number"),
        ("value", 1.3, "figure.passed: not what value, goal and direction say"),
        ("direction", "up", "figure.direction: neither at most nor at least"),
        ("direction", [], "figure.direction: neither at most nor at least"),
        ("passed", 1, "figure.passed"),
        ("samples", 0, "figure.samples: not a whole number of 1 or more"),
        ("error", -1, "figure.error: less than 0"),
        ("load", None, "figure.load: not a finite number"),
    ],
)
def test_a_field_that_is_wrong_is_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(MalformedError) as caught:
        figure_from(as_json(FIGURE) | {field: value})
    assert message in str(caught.value)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / RUN.file_name()
    path.write_text(run_as_json(RUN))
    assert read_run(path) == RUN
    assert path.name == "2026-11-28-000000-abababababab.json"


def _run(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(run_as_json(RUN))
    return body | changes


def _bench(**changes: Any) -> list[Any]:
    body: dict[str, Any] = json.loads(run_as_json(RUN))
    return [body["benches"][0] | changes]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "run: not an object"),
        (_run(form=2), "run.form: not 1"),
        (_run(date="today"), "run.date: not as 2026-01-31T23:59:59Z"),
        (_run(commit="../../x"), "run.commit: neither"),
        (_run(changed=0), "run.changed: neither true nor false"),
        (_run(cores=0), "run.cores: not a whole number of 1"),
        (_run(load=-1), "run.load: less than 0"),
        (_run(versions=[]), "run.versions: not an object"),
        (_run(versions={"a": 3}), "run.versions.a: not a text"),
        (_run(versions={str(n): "1" for n in range(51)}), "run.versions: more than 50"),
        (_run(benches={}), "run.benches: not a list"),
        (_run(benches=[{}] * 51), "run.benches: more than 50"),
        (_run(benches=[1]), "run.benches[0]: not an object"),
        (_run(benches=_bench() * 2), "run.benches: calls twice"),
        (_run(benches=_bench() + _bench(name="other")), "run.benches[].figures: call-p50 twice"),
        (_run(benches=_bench(outcome="well")), "run.benches[0].outcome: none of done"),
        (_run(benches=_bench(left=-1)), "run.benches[0].left"),
        (_run(benches=_bench(figures=[{}])), "run.benches[0].figures[0].direction"),
    ],
)
def test_a_run_that_is_wrong_is_refused_with_the_place(body: Any, message: str) -> None:
    with pytest.raises(MalformedError) as caught:
        run_from(body)
    assert message in str(caught.value)


def test_a_file_is_bounded_and_an_error_names_it(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(b" " * (document.MAX_FILE + 1))
    with pytest.raises(MalformedError, match=r"run\.json: more than 1048576 bytes"):
        read_run(path)
    path.write_text("{")
    with pytest.raises(MalformedError, match=r"run\.json: run: no JSON"):
        read_run(path)


def test_a_run_is_good_where_all_is_done_left_nothing_and_met_its_goals() -> None:
    done = RUN.results[0]
    assert Run(CONDITIONS, (done,)).is_good
    assert not RUN.is_good
    assert not Run(CONDITIONS, (dataclasses.replace(done, left=1),)).is_good
    assert not Run(CONDITIONS, (dataclasses.replace(done, figures=(dataclasses.replace(FIGURE, value=2.0),)),)).is_good


def test_a_run_is_busy_where_others_kept_half_of_the_cores() -> None:
    assert not RUN.is_busy
    assert Run(dataclasses.replace(CONDITIONS, load=1.1), ()).is_busy


def test_the_spread_of_a_ratio_of_calls_is_that_of_its_rounds(file: Path) -> None:
    # Three rounds of two calls: all calls of a round have the machine of that round.
    found = {"direct": [1.0, 1.0, 2.0, 2.0, 4.0, 4.0], "ours": [2.0, 2.0, 4.0, 4.0, 8.0, 8.0]}
    calls.judge(Table(20, 10, 8), "call-p50", "a call", found, "", 2, statistics.median, 1.2)
    ((figure,), _) = reported(file)
    assert (figure.value, figure.samples, figure.error) == (2.0, 3, 0.0)
    assert (figure.floor, figure.floor_unit) == (2000.0, "ms")

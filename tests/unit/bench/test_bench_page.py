"""The page of ratios over commits: it has each kept run's figures, for both of GitHub's schemes, and nothing else."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest

from bench import page
from bench.all.document import Conditions, Result, Run, run_as_json
from bench.chart import SCHEMES, Scheme
from bench.figures.figure import Figure, MalformedError


def run(day: int, value: float, *, load: float = 0.1, name: str = "call-p50", what: str = "a call") -> Run:
    where = Conditions(
        datetime.datetime(2026, 11, day, tzinfo=datetime.UTC), f"{day:02}" * 20, day == 3, 2, "A | B", load
    )
    figure = Figure(name, what, value, goal=1.2, samples=6, error=0.01)
    return Run(where, (Result("calls", "done", figures=(figure,)), Result("cluster", "not run", "no cluster")))


RUNS = [run(1, 1.1), run(2, 1.15, load=5.0), run(3, 1.3)]


@pytest.mark.parametrize("scheme", SCHEMES, ids=[one.name for one in SCHEMES])
def test_the_picture_has_words_and_commits_as_text_and_is_the_same_each_time(scheme: Scheme, tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        page.draw(RUNS, scheme, tmp_path / name)
    drawn = (tmp_path / "one.svg").read_text()
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", drawn)
    assert {"a call", "1.30, goal ≤ 1.2", "01010101", "02020202", "03030303+"} <= set(texts)
    assert drawn == (tmp_path / "two.svg").read_text()
    assert {scheme.paper, page.MET[scheme.name], page.MISSED[scheme.name]} <= set(re.findall(r"#[0-9a-f]{6}", drawn))


def test_a_figure_that_a_run_lacks_and_one_of_only_zeros_are_drawn(tmp_path: Path) -> None:
    runs = [run(1, 0.0, name="other"), *RUNS]
    page.draw(runs, SCHEMES[0], tmp_path / "one.svg")
    assert page.names_of(runs) == ["call-p50", "other"]


def test_only_the_newest_runs_are_drawn(tmp_path: Path) -> None:
    runs = [run(1, 1.0, name="old"), *(run(1 + number % 28, 1.0) for number in range(page.MOST_RUNS))]
    page.draw(runs, SCHEMES[0], tmp_path / "one.svg")
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn.count(">a call<") == 1


def test_the_table_has_the_figures_and_the_conditions() -> None:
    lines = page.page(RUNS).splitlines()
    assert "| figure | goal | `01010101` | `02020202` | `03030303+` |" in lines
    assert "| a call | ≤ 1.2 | 1.10 | 1.15 | **1.30** |" in lines
    assert "| `02020202` | 2026-11-02 00:00 UTC | 2 cores A &#124; B | 5.0 | cluster: not run |" in lines


def test_words_from_files_are_no_markup(tmp_path: Path) -> None:
    what = "<b> | `x` *y* [z](u) $1$"
    shown = page.page([run(1, 1.0, what=what)])
    line = next(one for one in shown.splitlines() if one.startswith("| &lt;b"))
    assert line.count(" | ") == 2
    assert not re.search(r"[<`*$]", line)
    page.draw([run(1, 1.0, what=what)], SCHEMES[0], tmp_path / "one.svg")
    assert "$1$" in (tmp_path / "one.svg").read_text()


def test_without_a_kept_run_the_page_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    page.main(folder)
    assert page.NO_RUNS in (tmp_path / "history.md").read_text()
    assert not list(tmp_path.glob("*.svg"))


def test_runs_come_by_their_dates_and_a_wrong_file_is_named(tmp_path: Path) -> None:
    for name, one in zip("cab", RUNS, strict=True):
        (tmp_path / f"{name}.json").write_text(run_as_json(one))
    assert page.kept_runs(tmp_path) == RUNS
    (tmp_path / "d.json").write_text("{}")
    with pytest.raises(MalformedError, match=r"d\.json: run\.form: not 1"):
        page.kept_runs(tmp_path)


def test_the_kept_page_is_that_of_the_kept_runs(tmp_path: Path) -> None:
    runs = page.kept_runs(page.RUNS)
    remedy = "run `python -m bench.page`"
    assert page.RUNS.with_name("history.md").read_text() == page.page(runs), remedy
    for scheme in SCHEMES if runs else ():
        kept = page.RUNS.with_name(f"history-{scheme.name}.svg")
        page.draw(runs, scheme, tmp_path / kept.name)
        assert (tmp_path / kept.name).read_text() == kept.read_text(), remedy

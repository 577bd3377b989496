"""The picture and the tables of warm starts: they have the run's figures, and the pages have those of the kept run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench import chart
from tools import pages

RUN: dict[str, Any] = {
    "raw": [0.5, 0.51, 0.52], "cold": [0.6, 0.7, 0.8], "warm": [0.05, 0.06, 0.1], "result": [0.09, 0.1, 0.2],
    "reuse": [0.008, 0.009, 0.010], "hops": [{"hop": "a → b", "ms": 1.25, "p90": 3.0}],
}  # fmt: skip


@pytest.mark.parametrize("scheme", chart.SCHEMES, ids=[one.name for one in chart.SCHEMES])
def test_the_picture_has_each_figure_as_text_and_is_the_same_each_time(scheme: chart.Scheme, tmp_path: Path) -> None:
    drawn = []
    for file in (tmp_path / "one.svg", tmp_path / "two.svg"):
        chart.draw(RUN, scheme, file)
        drawn.append(file.read_text())
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", drawn[0])
    for row in chart.ROWS:
        assert set(row.words.split("\n")) <= set(texts)
        assert chart.figures(RUN[row.samples]) in texts
    assert any(text.startswith("milliseconds") for text in texts)
    assert drawn[0] == drawn[1]
    assert scheme.paper in drawn[0]


def test_figures_are_the_median_the_ninth_decile_and_how_many() -> None:
    assert chart.figures([0.01, 0.02, 0.03]) == "20 ms (p90 28, 3 runs)"


def test_the_tables_have_the_runs_figures() -> None:
    assert chart.hops_table(RUN).splitlines()[2:] == ["| a → b | 1.2 | 3.0 |"]
    rows = chart.starts_table(RUN).splitlines()
    assert rows[2] == "| raw pod that sleeps: create → Ready | 3 | 510 | 518 | 1.00 |"
    assert rows[4] == "| warm engine: create → Idle | 3 | 60 | 92 | 0.12 |"
    assert len(rows) == 7


def test_a_run_without_hops_and_one_with_a_note_say_so() -> None:
    assert chart.hops_table(RUN | {"hops": []}) == "The kept run has no hops."
    assert chart.starts_table(RUN | {"note": "Beside other work."}).splitlines()[-2:] == ["", "Beside other work."]


def test_the_pages_have_the_tables_and_the_picture_of_the_kept_run(tmp_path: Path) -> None:
    data = json.loads(chart.DATA.read_text())
    for name, page, table in chart.TABLES:
        assert pages.part(page.read_text(), name, chart.MAKER) == table(data), "run `python -m bench.chart`"
    for scheme in chart.SCHEMES:
        kept = chart.DATA.with_name(f"warm-{scheme.name}.svg")
        chart.draw(data, scheme, tmp_path / kept.name)
        assert (tmp_path / kept.name).read_text() == kept.read_text(), "run `python -m bench.chart`"

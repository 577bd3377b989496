"""`python -m bench.chart [FILE]`: the picture and the tables of docs/ from a run of `python -m bench.warm --json FILE`.

Writes warm-light.svg and warm-dark.svg beside the file (docs/images/warm.json where none is named), and puts the hops
of a claim and the run's figures between their marks in the pages (`TABLES`). The same file gives the same bytes. Must
not measure: a figure that the run has not is not drawn.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench import arguments
from tools import pages

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs/images/warm.json"
MAKER = "python -m bench.chart"


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of start: its samples' name in the file, its words, and its colours on a light and on a dark page.

    The colours are Okabe's and Ito's, which colour-blind people can tell apart; each row has its words beside it.
    """

    samples: str
    words: str
    light: str
    dark: str


ROWS = (
    Row("raw", "raw pod that sleeps:\ncreate → Ready", "#767676", "#9e9e9e"),
    Row("cold", "cold engine:\ncreate → Idle", "#0072b2", "#56b4e9"),
    Row("warm", "warm engine:\ncreate → Idle", "#d55e00", "#e69f00"),
    Row("result", "warm engine:\ncreate → result of 1+1", "#d55e00", "#e69f00"),
    Row("reuse", "free engine again:\naskEngineConn", "#009e73", "#2bc99b"),
)


@dataclass(frozen=True, slots=True)
class Scheme:
    """The colours of a page."""

    name: str
    paper: str
    ink: str
    lines: str


# GitHub's two schemes.
SCHEMES = (Scheme("light", "#ffffff", "#1f2328", "#d1d9e0"), Scheme("dark", "#0d1117", "#f0f6fc", "#3d444d"))


def p50(seconds: Sequence[float]) -> float:
    """The median in milliseconds."""
    return statistics.median(seconds) * 1000


def p90(seconds: Sequence[float]) -> float:
    """In milliseconds."""
    return statistics.quantiles(seconds, n=10, method="inclusive")[-1] * 1000


def figures(seconds: Sequence[float]) -> str:
    """What is written beside a bar."""
    return f"{p50(seconds):.0f} ms (p90 {p90(seconds):.0f}, {len(seconds)} runs)"


def draw(data: Mapping[str, Any], scheme: Scheme, target: Path) -> None:
    """A bar to the median of each row, a line to its p90, and a dot for each sample."""
    # Text stays text; ids and date are not of the moment.
    settings = {"svg.fonttype": "none", "svg.hashsalt": "linkis-ecm", "font.size": 11, "text.color": scheme.ink}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(9, 4.4), facecolor=scheme.paper, layout="constrained")
        axes = figure.add_subplot(facecolor=scheme.paper)
        most = max(max(data[row.samples]) for row in ROWS) * 1000
        for place, row in enumerate(ROWS):
            seconds = data[row.samples]
            colour = row.dark if scheme.name == "dark" else row.light
            axes.barh(place, p50(seconds), height=0.5, color=colour, alpha=0.55)
            axes.plot([p50(seconds), p90(seconds)], [place, place], color=scheme.ink, linewidth=1.2)
            axes.plot([p90(seconds)] * 2, [place - 0.12, place + 0.12], color=scheme.ink, linewidth=1.2)
            axes.plot(
                [one * 1000 for one in seconds], [place] * len(seconds), "o",
                markersize=3.5, color=colour, markeredgecolor=scheme.paper, markeredgewidth=0.4,
            )  # fmt: skip
            beside = max(max(seconds) * 1000, p90(seconds)) + most * 0.02
            axes.text(beside, place, figures(seconds), va="center", color=scheme.ink)
        axes.set_yticks(range(len(ROWS)), [row.words for row in ROWS])
        axes.invert_yaxis()
        axes.set_xlim(0, most * 1.42)
        axes.set_xlabel("milliseconds (bar: median; line: to the 90th percentile; dots: each run)", color=scheme.ink)
        axes.tick_params(colors=scheme.ink, length=0)
        axes.xaxis.grid(True, color=scheme.lines, linewidth=0.8)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None}, facecolor=scheme.paper)


def hops_table(data: Mapping[str, Any]) -> str:
    """Where the time of a claim goes, in the order of the hops; a sentence where the run has none."""
    if not data["hops"]:
        return "The kept run has no hops."
    lines = ["| hop | p50, ms | p90, ms |", "| --- | --- | --- |"]
    lines += [f"| {one['hop']} | {one['ms']:.1f} | {one['p90']:.1f} |" for one in data["hops"]]
    return "\n".join(lines)


def starts_table(data: Mapping[str, Any]) -> str:
    """Each row of the picture in figures, with its ratio to the raw pod, and the run's `note` if somebody wrote one."""
    floor = p50(data[ROWS[0].samples])
    lines = ["| what | runs | p50, ms | p90, ms | p50 to the raw pod's |", "| --- | --- | --- | --- | --- |"]
    for row in ROWS:
        seconds = data[row.samples]
        words = row.words.replace("\n", " ").replace("1+1", "`1+1`")
        middle = p50(seconds)
        lines.append(f"| {words} | {len(seconds)} | {middle:.0f} | {p90(seconds):.0f} | {middle / floor:.2f} |")
    note = data.get("note", "")
    return "\n".join([*lines, *(("", note) if note else ())])


# Of each table: its name in its marks, its page, and what makes it.
TABLES: tuple[tuple[str, Path, Callable[[Mapping[str, Any]], str]], ...] = (
    ("hops", ROOT / "docs/design/warm.md", hops_table),
    ("starts", ROOT / "docs/benchmarks.md", starts_table),
)


def main(file: Path) -> None:
    data = json.loads(file.read_text())
    for scheme in SCHEMES:
        draw(data, scheme, file.with_name(f"{file.stem}-{scheme.name}.svg"))
    for name, page, table in TABLES:
        page.write_text(pages.with_part(page.read_text(), name, MAKER, table(data)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.chart", description=__doc__)
    parser.add_argument("file", nargs="?", type=arguments.read_file, default=DATA)
    main(parser.parse_args().file)

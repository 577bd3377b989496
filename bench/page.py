"""`python -m bench.page [FOLDER]`: the kept runs of `python -m bench.all` as a picture and a table over commits.

Reads the JSON files of FOLDER (docs/benchmarks/runs where none is named) and writes history.md, history-light.svg and
history-dark.svg beside the folder. The same files give the same bytes. Must not measure: a figure that no run has is
not shown.
"""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from bench import arguments
from bench.all.compare import DEVIATIONS
from bench.all.document import Run, read_run
from bench.chart import ROOT, SCHEMES, Scheme
from bench.figures.figure import Figure, MalformedError

RUNS = ROOT / "docs/benchmarks/runs"
# Of more runs the picture would be too small to read, and the table too wide.
MOST_RUNS, TABLE_RUNS = 24, 5
COLUMNS, TITLE_WIDTH = 3, 38
# Okabe's and Ito's colours, on a light and on a dark page; a missed goal has another shape, too.
MET = {"light": "#0072b2", "dark": "#56b4e9"}
MISSED = {"light": "#d55e00", "dark": "#e69f00"}
NO_RUNS = "No run is kept yet."
HEAD = """# Ratios over commits

Made by `python -m bench.page` from the files in [runs](runs), which people keep by hand. How to measure, compare and
keep a run: [what was measured](../benchmarks.md#make-bench-all-all-ratios-in-one-run).
"""
LEGEND = f"""
A panel is a figure, a point is a run, in the order of their dates. The dashed line is the goal: ≤ is met below it, ≥
above it. A cross is a missed goal. A hollow point is a run that began while others kept more than half of the cores
busy: its figures swing. The vertical line is {DEVIATIONS:g} standard errors by the samples of the run; where there is
none, the figure is one sample. In the table a missed goal is bold, and + is a checkout with changes.
"""


def kept_runs(folder: Path) -> list[Run]:
    """The runs of a folder by their dates. Raises MalformedError where a file is no run."""
    return sorted((read_run(file) for file in sorted(folder.glob("*.json"))), key=lambda run: run.conditions.date)


def names_of(runs: Sequence[Run]) -> list[str]:
    """Each figure that a run has, in the order of the newest run that has it, newest first."""
    return list(dict.fromkeys(name for run in reversed(runs) for name in run.figures))


def label(run: Run) -> str:
    """The commit, with a + where the checkout had changes."""
    return run.conditions.commit[:8] + "+" * run.conditions.changed


# -- the picture -----------------------------------------------------------------------------------------------------


def draw(runs: Sequence[Run], scheme: Scheme, target: Path) -> None:
    """A panel for each figure, over the newest runs."""
    runs = runs[-MOST_RUNS:]
    names = names_of(runs)
    rows = max(1, math.ceil(len(names) / COLUMNS))
    # Text stays text; ids and date are not of the moment.
    settings = {"svg.fonttype": "none", "svg.hashsalt": "linkis-ecm", "font.size": 9, "text.color": scheme.ink}
    with mpl.rc_context(settings):
        picture = Picture(figsize=(11, 2.5 * rows), facecolor=scheme.paper, layout="constrained")
        panels = picture.subplots(rows, COLUMNS, squeeze=False)
        for place, axes in enumerate(panels.flat):
            if place < len(names):
                _panel(axes, runs, names[place], scheme)
            else:
                axes.set_axis_off()
        picture.savefig(target, format="svg", metadata={"Date": None, "Creator": None}, facecolor=scheme.paper)


def _panel(axes: Axes, runs: Sequence[Run], name: str, scheme: Scheme) -> None:
    points = [(place, run, run.figures[name]) for place, run in enumerate(runs) if name in run.figures]
    last = points[-1][2]
    axes.set_facecolor(scheme.paper)
    for before, after in pairwise(points):
        # No line over a run that lacks the figure.
        if after[0] == before[0] + 1:
            axes.plot([before[0], after[0]], [before[2].value, after[2].value], color=scheme.lines, linewidth=1.2)
    for place, run, figure in points:
        _point(axes, place, figure, scheme, is_hollow=run.is_busy)
    if last.goal is not None:
        axes.axhline(last.goal, color=scheme.ink, linewidth=1, linestyle="--")
    # Texts come from files: no dollar sign shall begin a formula.
    title = "\n".join(textwrap.wrap(last.what, TITLE_WIDTH)[:2])
    axes.set_title(title, loc="left", fontsize=9, color=scheme.ink, parse_math=False)
    values = last.shown() + (f", goal {last.goal_shown()}" if last.goal is not None else "")
    axes.text(
        0.99, 0.96, values, transform=axes.transAxes, ha="right", va="top", color=scheme.ink, parse_math=False,
        bbox={"facecolor": scheme.paper, "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
    )  # fmt: skip
    axes.set_xlim(-0.6, len(runs) - 0.4)
    _room_above(axes, max([one.value for _, _, one in points] + [last.goal or 0]))
    axes.set_xticks(range(len(runs)), [label(run) for run in runs], rotation=45, ha="right", fontsize=7)
    axes.tick_params(colors=scheme.ink, length=0)
    axes.yaxis.grid(True, color=scheme.lines, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _point(axes: Axes, place: int, figure: Figure, scheme: Scheme, *, is_hollow: bool) -> None:
    missed = figure.passed is False
    colour = (MISSED if missed else MET)[scheme.name]
    if figure.error is not None:
        reach = DEVIATIONS * figure.error
        axes.plot([place, place], [figure.value - reach, figure.value + reach], color=colour, linewidth=1, alpha=0.6)
    axes.plot(
        [place], [figure.value], "X" if missed else "o", markersize=7 if missed else 6, color=colour,
        markerfacecolor=scheme.paper if is_hollow else colour, markeredgecolor=colour, markeredgewidth=1.2,
        clip_on=False, zorder=3,
    )  # fmt: skip


def _room_above(axes: Axes, most: float) -> None:
    """For the words in the upper corner. `most`: the largest value or goal. From 0 on, a small step looks small."""
    _, top = axes.get_ylim()
    axes.set_ylim(0, top * 1.25 if most > 0 else 1)


# -- the page --------------------------------------------------------------------------------------------------------


def page(runs: Sequence[Run]) -> str:
    """The text of history.md."""
    if not runs:
        return f"{HEAD}\n{NO_RUNS}\n"
    picture = (
        '\n<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="history-dark.svg">\n'
        '  <img alt="Each figure over the kept runs, with its goal" src="history-light.svg">\n</picture>\n'
    )
    return "\n".join([HEAD + picture + LEGEND, *_table(runs[-TABLE_RUNS:]), "", *_conditions(runs[-TABLE_RUNS:]), ""])


def _table(runs: Sequence[Run]) -> list[str]:
    """The newest runs, a column each; a missed goal is bold."""
    lines = [
        "| figure | goal | " + " | ".join(f"`{label(run)}`" for run in runs) + " |",
        "| --- | --- |" + " --- |" * len(runs),
    ]
    for name in names_of(runs):
        last = next(run.figures[name] for run in reversed(runs) if name in run.figures)
        cells = [_cell(run.figures.get(name)) for run in runs]
        lines.append(f"| {_plain(last.what)} | {last.goal_shown()} | {' | '.join(cells)} |")
    return lines


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    shown = _plain(figure.shown())
    return f"**{shown}**" if figure.passed is False else shown


def _conditions(runs: Sequence[Run]) -> list[str]:
    """What a reader must know of each run: when, on what, and what it lacks."""
    lines = ["| run | date | machine | load before | not done |", "| --- | --- | --- | --- | --- |"]
    for run in runs:
        one = run.conditions
        lacks = "; ".join(f"{result.name}: {result.outcome}" for result in run.results if result.outcome != "done")
        lines.append(
            f"| `{label(run)}` | {one.date:%Y-%m-%d %H:%M} UTC | {one.cores} cores {_plain(one.processor)} |"
            f" {one.load:.1f} | {_plain(lacks)} |"
        )
    return lines


def _plain(text: str) -> str:
    """Text that is no Markdown and no HTML in a table's cell."""
    for mark, instead in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        ("|", "&#124;"),
        ("`", "&#96;"),
        ("*", "&#42;"),
        ("$", "&#36;"),
    ):
        text = text.replace(mark, instead)
    for mark in "[]_":
        text = text.replace(mark, f"\\{mark}")
    return text


def main(folder: Path) -> None:
    runs = kept_runs(folder)
    folder.with_name("history.md").write_text(page(runs))
    for scheme in SCHEMES if runs else ():
        draw(runs, scheme, folder.with_name(f"history-{scheme.name}.svg"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=arguments.folder, default=RUNS)
    try:
        main(parser.parse_args().folder)
    except (MalformedError, OSError) as error:
        parser.error(str(error))

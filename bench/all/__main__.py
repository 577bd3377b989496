"""`python -m bench.all`: the benchmarks of the hot paths one after another, within 25 minutes, kept as one JSON file.

Each runs in its own process within its own time and cleans up behind it. Exit code 1 where a goal was missed, a
benchmark did not come to its end, or a figure is worse than in the kept runs (`--compare`); 2 where the arguments are
wrong. With `--run FILE` nothing is measured: that run is judged.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import tempfile
import time
from pathlib import Path

from bench.all.compare import compare
from bench.all.conditions import ROOT, conditions
from bench.all.document import Run, read_run, run_as_json
from bench.all.plan import PLAN, SECONDS, Bench
from bench.all.runner import execute, run_all
from bench.clean import end_on_signals, scratch
from bench.figures.figure import MalformedError

# Not in git: whoever wants to keep a run copies its file to docs/benchmarks/runs.
OUT = ROOT / "out/bench"


def main(arguments: list[str] | None = None) -> int:
    names = [one.name for one in PLAN]
    parser = argparse.ArgumentParser(prog="python -m bench.all", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", metavar="NAMES", help=f"some of {','.join(names)}, with commas between")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help="where the JSON goes (out/bench)")
    parser.add_argument("--compare", type=Path, nargs="+", default=[], metavar="FILE", help="kept runs")
    parser.add_argument("--run", type=Path, metavar="FILE", help="measure nothing, judge this run")
    given = parser.parse_args(arguments)
    wanted = names if given.only is None else given.only.split(",")
    if unknown := [one for one in wanted if one not in names]:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    try:
        # Before anything is measured: a wrong file shall not cost 25 minutes.
        kept = [read_run(file) for file in given.compare if not _is_empty_pattern(file)]
        run = None if given.run is None else read_run(given.run)
    except (MalformedError, OSError) as error:
        parser.error(str(error))
    if run is None:
        try:
            _check_writable(given.out)
        except OSError as error:
            parser.error(f"argument --out: nothing can be written there: {error}")
        run = _measured([one for one in PLAN if one.name in wanted], given.out, asked=given.only is not None)
    print("\n".join(_summary(run)))
    compared = compare(run, kept)
    for busy in (one for one in (run, *kept) if compared and one.is_busy):
        print(f"the run of {busy.conditions.date:%F %T} began with load {busy.conditions.load:.1f}: compare with care")
    for line in compared:
        print(line.line())
    return int(not run.is_good or any(one.is_bad for one in compared))


def _is_empty_pattern(file: Path) -> bool:
    """A shell hands a pattern on as it is where no file has such a name: no run is kept there yet."""
    if file.exists() or not set(file.name) & set("*?["):
        return False
    print(f"no run is kept yet as {file}: nothing is compared with it", flush=True)
    return True


def _measured(plan: list[Bench], out: Path, *, asked: bool) -> Run:
    end_on_signals()
    where = conditions(datetime.datetime.now(datetime.UTC))
    with scratch() as folder:
        results = run_all(
            plan, seconds=SECONDS, execute=execute, clock=time.monotonic, load=lambda: os.getloadavg()[0],
            folder=folder, announce=lambda line: print(line, flush=True), asked=asked,
        )  # fmt: skip
    run = Run(where, tuple(results))
    file = out / run.file_name()
    try:
        file.write_text(run_as_json(run))
    except OSError as error:
        # What took 25 minutes is not lost: who sees it can keep it.
        print(run_as_json(run), end="")
        print("\n".join(_summary(run)), flush=True)
        print(f"the run stands above, and could not be written: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"== written: {file}")
    return run


def _check_writable(folder: Path) -> None:
    """Makes the folder and a file in it, which goes again. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"probe")


def _summary(run: Run) -> list[str]:
    """What became of each benchmark, and its missed goals."""
    lines = []
    for one in run.results:
        missed = [figure for figure in one.figures if figure.passed is False]
        rest = f": {one.reason}" if one.reason else ""
        lines.append(f"{one.name:<12} {one.outcome}, {one.seconds:.0f} s, {len(missed)} goals missed{rest}")
        lines += [f"    {figure.what}: {figure.shown()}, goal {figure.goal_shown()}" for figure in missed]
    return lines


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        # What was measured until then is printed, and not kept: a run has all its benchmarks.
        print("interrupted: nothing is written", file=sys.stderr)
        sys.exit(130)

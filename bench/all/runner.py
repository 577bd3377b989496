"""Runs the benchmarks of a plan one after another and says what became of each. Must not know what they measure.

A benchmark that fails, hangs or writes another thing than figures is written down as such; the next one runs all the
same. None gets more than what is left of the whole run's time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from bench.all.document import Outcome, Result
from bench.all.keeper import KILLING_SECONDS, LEAVING_SECONDS, Ended, ended_from
from bench.all.plan import Bench
from bench.clean import running, scratch
from bench.figures.figure import MAX_TEXT, MalformedError
from bench.figures.table import FILE_VARIABLE, reported

ROOT = Path(__file__).parents[2]
# A benchmark with less time is not begun.
FEWEST_SECONDS = 5.0
# Of what a benchmark prints: shown, and kept for the reason of a failure.
MAX_SHOWN, MAX_TAIL = 1 << 20, 1 << 12
# For the keeper's own start and end, with the machine under load.
KEEPER_SECONDS = 15.0


class Execute(Protocol):
    """Runs one command within so many seconds and those for its cleaning; its figures go to `figures`.

    How it ended, None where nothing says so, and the last lines that it printed.
    """

    def __call__(
        self, command: Sequence[str], seconds: float, cleaning: float, figures: Path, /
    ) -> tuple[Ended | None, str]: ...


def run_all(
    plan: Iterable[Bench],
    *,
    seconds: float,
    execute: Execute,
    clock: Callable[[], float],
    load: Callable[[], float],
    folder: Path,
    announce: Callable[[str], None] = print,
    asked: bool = False,
) -> list[Result]:
    """The results in the plan's order, within `seconds` of `clock`. Figures are written into `folder`.

    `asked`: somebody named these benchmarks, so one that lacks something is not run instead of left out.
    """
    end = clock() + seconds
    results = []
    for bench in plan:
        announce(f"== {bench.name}")
        begun, before = clock(), load()
        mine = min(bench.seconds, end - begun - bench.cleaning)
        if mine < FEWEST_SECONDS:
            result = Result(bench.name, "not run", f"no time was left of {seconds:.0f} s", load=before)
        elif missing := bench.missing():
            result = Result(bench.name, "not run" if asked else "left out", missing, load=before)
        else:
            file = folder / f"{bench.name}.figures"
            ended, tail = execute(bench.command, mine, bench.cleaning, file)
            result = _judged(bench, ended, tail, file, mine, clock() - begun, before)
        if result.outcome != "done" or result.left:
            announce(f"{bench.name}: {result.outcome}: {result.reason}")
        results.append(result)
    return results


def _judged(
    bench: Bench, ended: Ended | None, tail: str, file: Path, bound: float, seconds: float, load: float
) -> Result:
    left = 0 if ended is None else ended.left

    def result(outcome: Outcome, reason: str) -> Result:
        return Result(bench.name, outcome, reason, round(seconds, 1), load, left, tuple(figures))

    try:
        figures, end = reported(file)
    except MalformedError as error:
        figures = []
        return result("unreadable", f"none of its figures is used: {error}")
    if ended is None:
        return result("failed", "its keeper was killed")
    if ended.timed_out:
        return result("timed out", f"did not end within {bound:.0f} s")
    # 1 is also how Python ends after an exception: then nothing has said that all was measured.
    if end is None or end != ended.code:
        how = f"by signal {-ended.code}" if ended.code < 0 else f"with {ended.code}"
        return result("failed", f"ended {how} before all was measured: {last_line(tail)}")
    return result("done", f"left {left} processes, which were ended" if left else "")


def last_line(tail: str) -> str:
    """The last line that has words, without paths of this machine."""
    line = next((one for one in reversed(tail.splitlines()) if one.strip()), "it printed nothing")
    for place, name in ((str(ROOT), "."), (tempfile.gettempdir(), "TMP"), (str(Path.home()), "HOME")):
        line = line.replace(place, name)
    return "".join(one for one in line if one.isprintable()).strip()[:MAX_TEXT]


def execute(
    command: Sequence[str], seconds: float, cleaning: float, figures: Path, leaving: float = LEAVING_SECONDS
) -> tuple[Ended | None, str]:
    """In a process of its own under a keeper, which also ends it when this process is killed. Shows what it prints."""
    with scratch() as folder:
        report = folder / "report"
        times = ["--leaving", str(leaving), str(report), str(seconds), str(cleaning)]
        keeper = [sys.executable, "-m", "bench.all.keeper", *times, *command]
        ending = cleaning + leaving + KILLING_SECONDS + KEEPER_SECONDS
        printed = bytearray()
        late = False
        with running(
            keeper, grace=ending, signal_at_end=signal.SIGTERM, start_new_session=True, cwd=ROOT,
            env=_environment(figures), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            reader = threading.Thread(target=_show, args=(process.stdout, printed), daemon=True)
            reader.start()
            try:
                process.wait(seconds + ending)
            except subprocess.TimeoutExpired:
                late = True
        # All that could write into the pipe are gone with the keeper.
        reader.join(KILLING_SECONDS)
        if late:
            return None, ""
        return ended_from(report), printed.decode(errors="replace")


def _environment(figures: Path) -> dict[str, str]:
    paths = [str(ROOT / "operator"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {FILE_VARIABLE: str(figures), "PYTHONPATH": os.pathsep.join(one for one in paths if one)}


def _show(pipe: BinaryIO, tail: bytearray) -> None:
    """Shows what comes, at most MAX_SHOWN of it, and keeps the last of it. Reads until the pipe ends: nobody waits."""
    shown = 0
    while piece := os.read(pipe.fileno(), 1 << 16):
        tail += piece
        del tail[:-MAX_TAIL]
        if shown < MAX_SHOWN:
            sys.stdout.write(piece[: MAX_SHOWN - shown].decode(errors="replace"))
            sys.stdout.flush()
        shown += len(piece)
    if shown > MAX_SHOWN:
        print(f"\n… {shown - MAX_SHOWN} more bytes are not shown")

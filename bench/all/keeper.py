"""`python -m bench.all.keeper REPORT SECONDS CLEANING COMMAND…`: runs a benchmark, which ends in time.

After SECONDS, or when who started this one is gone, the benchmark is told to end by SIGTERM, and by SIGKILL after
CLEANING seconds more. What it started and left is ended, too, also what left its session: Linux makes this process the
parent of such orphans. REPORT gets JSON of how it ended. Must not know what is measured.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import arguments
from bench.clean import end_on_signals, running
from bench.figures.figure import MalformedError, mapping, whole
from bench.figures.table import loaded

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
# A child that ends with its parent needs a moment for it.
LEAVING_SECONDS = 3.0
# For the end of what is killed; a process in an uninterruptible read may take longer and is given up.
KILLING_SECONDS = 10.0
LOOK = 0.02
MAX_REPORT = 1 << 12


@dataclass(frozen=True, slots=True)
class Ended:
    """How a benchmark ended: its exit code (negative: the signal), whether it had no time left, and how many
    processes it left behind, which were ended."""

    code: int
    timed_out: bool = False
    left: int = 0


def ended_from(file: Path) -> Ended | None:
    """What a keeper wrote; None where it was killed before. Raises MalformedError."""
    if not file.exists():
        return None
    with file.open("rb") as opened:
        found = mapping(loaded(opened.read(MAX_REPORT), "report"), "report")
    if not isinstance(found.get("timed_out"), bool):
        raise MalformedError("report.timed_out: neither true nor false")
    return Ended(whole(found, "code", "report", least=-255), found["timed_out"], whole(found, "left", "report"))


def keep(command: Sequence[str], seconds: float, cleaning: float, leaving: float = LEAVING_SECONDS) -> Ended:
    """Runs it, and returns when it and all that it started are gone."""
    _adopt_orphans()
    end_on_signals()
    timed_out, left = False, 0
    try:
        # A session of its own: of Ctrl-C in a terminal it gets the one SIGTERM.
        with running(command, grace=cleaning, signal_at_end=signal.SIGTERM, start_new_session=True) as process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                timed_out = True
            finally:
                _ignore_signals()
    finally:
        _ignore_signals()
        left = _end_children(leaving)
    return Ended(process.returncode, timed_out, left)


def _ignore_signals() -> None:
    """It is ending; another signal would break off the cleaning."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _adopt_orphans() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _end_children(leaving: float) -> int:
    """Ends all children of this process, and theirs, which become its own. How many did not end by themselves."""
    killed: set[int] = set()
    begun = time.monotonic()
    while _reap() and time.monotonic() - begun < leaving + KILLING_SECONDS:
        if time.monotonic() - begun > leaving:
            for pid in _children():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        time.sleep(LOOK)
    return len(killed)


def _reap() -> bool:
    """Takes notice of children that have ended; whether some are left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    """Of this process, those that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # The command's name in parentheses may hold anything (proc(5)).
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(parent) == os.getpid() and state != "Z":
                    found.append(int(entry.name))
    return found


if __name__ == "__main__":
    parser = arguments.internal("bench.all.keeper", __doc__)
    parser.add_argument(
        "--leaving", type=arguments.seconds, default=LEAVING_SECONDS, help="for what it leaves, before that is killed"
    )
    parser.add_argument("report", metavar="REPORT", type=arguments.written_file, help="the file for how it ended")
    parser.add_argument("seconds", metavar="SECONDS", type=arguments.seconds, help="that the benchmark may take")
    parser.add_argument(
        "cleaning", metavar="CLEANING", type=arguments.seconds, help="seconds in which it may end by itself"
    )
    parser.add_argument(
        "command", metavar="COMMAND", nargs=argparse.REMAINDER, help="the benchmark, with its arguments"
    )
    asked = parser.parse_args()
    if not asked.command:
        parser.error("the command is missing: name what is to be run")
    try:
        asked.report.write_text(json.dumps(asdict(keep(asked.command, asked.seconds, asked.cleaning, asked.leaving))))
    except KeyboardInterrupt:
        sys.exit(130)

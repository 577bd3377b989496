"""Runs steps, each a process of its own: one after another, some at a time, and some beside at the lowest priority.

The first step that fails ends the run. At the end, or at the failure, a table says how long each step took. Must not
know what a step does: `tools.checks` names them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import typer

ROOT = Path(__file__).parents[1]
# As the shell's `timeout` says it.
TIMED_OUT = 124
# The bound of a step beside the others: while they keep all cores busy it hardly moves, so it is one for a whole run.
BESIDE_SECONDS = 5400.0
# How long a step beside the others has between SIGTERM and SIGKILL.
GRACE_SECONDS = 10.0
# How pytest's summary begins a line for a test that failed. Ten of them, a screen's width each, tell what to look at.
FAILURE_LINES = ("FAILED ", "ERROR ")
MAX_FAILURE_LINES = 10
MAX_FAILURE_CHARACTERS = 300


@dataclass(frozen=True)
class Ended:
    """A step that ended: its exit code, its time, what it printed (empty where that was shown at once), and of that the
    lines that name a failed test (empty where the step ran by itself: they are the last lines before the table)."""

    name: str
    code: int
    seconds: float
    output: str = ""
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """A command with a bound on its time."""

    name: str
    command: tuple[str, ...]
    seconds: float = 1800
    env: dict[str, str] = field(default_factory=dict)


class Steps:
    """Runs steps, remembers how long each took and undoes what was set up, also after a failure.

    A context manager. `run` shows a step's output at once. `beside` puts a step into a queue of its own, which one
    thread works off while `run` goes on; its output is shown when it has ended and the current step, too.
    """

    def __init__(self) -> None:
        self.undo: list[Callable[[], None]] = []
        self._begun = time.monotonic()
        self._rows: list[tuple[str, float, str]] = []
        self._failures: list[str] = []
        self._lane = ThreadPoolExecutor(1, thread_name_prefix="beside")
        # Of the steps beside, by name, those that were not shown yet.
        self._queued: dict[str, Future[Ended]] = {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Ends what still runs, undoes in reverse order and prints what took how long."""
        self._end_lane()
        while self.undo:
            self.undo.pop()()
        print(f"\n{'step':<46} {'seconds':>7}  result", flush=True)
        for name, seconds, result in self._rows:
            print(f"{name:<46} {seconds:>7.1f}  {result}", flush=True)
        print(f"{'total':<46} {time.monotonic() - self._begun:>7.1f}", flush=True)
        # Of steps at the same time, the one that failed is seldom the one that printed last.
        print("".join(f"{line}\n" for line in self._failures), end="", flush=True)

    def run(self, name: str, *command: str, seconds: float = 1800, env: dict[str, str] | None = None) -> None:
        """Runs a command with a bound on its time. Raises typer.Exit with its code where it fails."""
        print(f"\n=== {name}: {' '.join(command)}", flush=True)
        begun = time.monotonic()
        try:
            code = subprocess.run(
                command, cwd=ROOT, env=os.environ | (env or {}), timeout=seconds, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = TIMED_OUT
            print(f"{name} did not end within {seconds:.0f} s", flush=True)
        self._note(Ended(name, code, time.monotonic() - begun), "")
        self._show([name for name, step in self._queued.items() if step.done()])

    def together(self, *steps: Step) -> None:
        """Runs commands at the same time and waits for all; each line that they print begins with the step's name.

        Raises typer.Exit with the code of the first in that order that has failed.
        """
        processes = [_piped(step) for step in steps]
        with ThreadPoolExecutor(len(steps)) as pool:
            try:
                ended = list(pool.map(_line_by_line, steps, processes))
            except BaseException:
                for process in processes:
                    _end(process)
                raise
        for one in ended:
            self._row(one, ", together")
            self._failures += one.failures
        for one in ended:
            self._end_if_failed(one)
        self._show([name for name, step in self._queued.items() if step.done()])

    def beside(self, name: str, *command: str, seconds: float = BESIDE_SECONDS) -> None:
        """Runs a command after those that are beside already, with what the other steps leave of the cores."""
        self._queued[name] = self._lane.submit(self._work, name, command, seconds)

    def wait(self, *names: str) -> None:
        """Waits for steps beside, or for all of them. Raises typer.Exit where one that ended has failed."""
        waited = list(names or self._queued)
        for name in waited:
            if name in self._queued:
                self._queued[name].result()
        self._show([name for name, step in self._queued.items() if step.done()])

    def _show(self, names: list[str]) -> None:
        for name in names:
            ended = self._queued.pop(name).result()
            print(f"\n=== {name}, beside the others:\n{ended.output}", flush=True)
            self._note(ended, ", beside the others")

    def _note(self, ended: Ended, where: str) -> None:
        self._row(ended, where)
        self._end_if_failed(ended)

    def _row(self, ended: Ended, where: str) -> None:
        result = f"failed ({ended.code})" if ended.code else "ok"
        self._rows.append((ended.name, ended.seconds, result + where))

    def _end_if_failed(self, ended: Ended) -> None:
        if ended.code:
            raise typer.Exit(ended.code)

    def _work(self, name: str, command: tuple[str, ...], seconds: float) -> Ended:
        begun = time.monotonic()
        with tempfile.TemporaryFile() as output:
            with self._lock:
                if self._ending:
                    return Ended(name, -signal.SIGTERM, 0.0)
                # A group, so that its children end with it. Not a session: Linux may share the cores out by session
                # first (sched_autogroup), and then `nice` counts within each alone.
                process = self._process = subprocess.Popen(
                    ["nice", "-n", "19", *command],
                    cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, process_group=0,
                )  # fmt: skip
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                _end(process)
                code = TIMED_OUT
                output.write(f"\n{name} did not end within {seconds:.0f} s\n".encode())
            output.seek(0)
            return Ended(name, code, time.monotonic() - begun, output.read().decode(errors="replace").strip())

    def _end_lane(self) -> None:
        with self._lock:
            self._ending = True
            if self._process is not None:
                _end(self._process)
        self._lane.shutdown(cancel_futures=True)


def _piped(step: Step) -> subprocess.Popen[str]:
    print(f"\n=== {step.name}: {' '.join(step.command)}", flush=True)
    return subprocess.Popen(
        step.command, cwd=ROOT, env=os.environ | step.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", process_group=0,
    )  # fmt: skip


def _line_by_line(step: Step, process: subprocess.Popen[str]) -> Ended:
    """Prints the lines of a step that has just begun, each with its name, until its end."""
    begun = time.monotonic()
    late = threading.Event()
    failures: list[str] = []

    def end_late() -> None:
        late.set()
        _end(process)

    bound = threading.Timer(step.seconds, end_late)
    bound.start()
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"[{step.name}] {line}", end="", flush=True)
            if line.startswith(FAILURE_LINES) and len(failures) < MAX_FAILURE_LINES:
                failures.append(f"[{step.name}] {line.rstrip()[:MAX_FAILURE_CHARACTERS]}")
        code = process.wait()
    bound.cancel()
    if late.is_set():
        code = TIMED_OUT
        print(f"[{step.name}] {step.name} did not end within {step.seconds:.0f} s", flush=True)
    return Ended(step.name, code, time.monotonic() - begun, failures=tuple(failures))


def _end(process: subprocess.Popen[Any]) -> None:
    """Ends a process and its group; the group may outlive it for a moment, the process does not."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

"""One line per step with its elapsed time, and failures that say what failed, the log's tail and the remedy.

Goes to standard error: standard output belongs to what a command answers (tags, a path).
"""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

console = Console(stderr=True, highlight=False)
TAIL_LINES = 25


class ClusterError(Exception):
    """Something that the person at the keyboard has to know: one sentence, a remedy, perhaps a log."""

    def __init__(self, what: str, *, remedy: str, log: Path | None = None, text: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.tail = text or (tail(log) if log else "")
        self.log = log

    def show(self) -> None:
        console.print(f"[red]failed:[/red] {self.what}", soft_wrap=True)
        if self.tail:
            console.print(f"[dim]{'last lines of ' + str(self.log) if self.log else 'its last lines'}:[/dim]")
            console.print(self.tail, markup=False, soft_wrap=True)
        console.print(f"[yellow]what to do:[/yellow] {self.remedy}", soft_wrap=True)


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 65536))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


@contextmanager
def step(name: str) -> Iterator[None]:
    """A step of the work: a spinner with its seconds on a terminal, one line at its end everywhere."""
    began = time.monotonic()
    try:
        with console.status(name):
            yield
    except BaseException:
        console.print(f"  [red]✗[/red] {name} [dim]{time.monotonic() - began:6.1f} s[/dim]")
        raise
    console.print(f"  [green]✓[/green] {name} [dim]{time.monotonic() - began:6.1f} s[/dim]")


def run(
    command: Sequence[str | Path],
    *,
    what: str,
    remedy: str,
    seconds: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
) -> str:
    """A command that has to succeed within its time; its standard output."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=seconds, env=env, cwd=cwd, input=stdin
        )
    except FileNotFoundError:
        raise ClusterError(f"{what}: {words[0]} is not installed", remedy=remedy) from None
    except subprocess.TimeoutExpired:
        shown = shlex.join(words)
        raise ClusterError(f"{what}: {shown} did not end within {seconds:.0f} s", remedy=remedy) from None
    if done.returncode:
        output = "\n".join((done.stdout + "\n" + done.stderr).strip().splitlines()[-TAIL_LINES:])
        raise ClusterError(f"{what}: {shlex.join(words)} ended with {done.returncode}", remedy=remedy, text=output)
    return done.stdout

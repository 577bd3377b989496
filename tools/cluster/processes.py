"""The processes of the node: started detached, noted with their start time, and ended by exactly those notes.

A process id alone is not enough: ids are reused. Its start time from /proc/<id>/stat makes it unique for one boot.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Note:
    """One process that we started."""

    name: str
    pid: int
    started: int

    def alive(self) -> bool:
        return start_time(self.pid) == self.started


def start_time(pid: int) -> int | None:
    """Field 22 of /proc/<id>/stat, in clock ticks since boot; None where there is no such process, or a dead one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Ledger:
    """The notes, in a file of the run folder; notes of another boot count for nothing."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def notes(self) -> list[Note]:
        try:
            stored = json.loads(self.file.read_text())
        except (OSError, ValueError):
            return []
        return [Note(**note) for note in stored["processes"]] if stored["boot"] == boot_id() else []

    def _write(self, notes: Sequence[Note]) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps({"boot": boot_id(), "processes": [asdict(note) for note in notes]}, indent=1))
        partial.replace(self.file)

    def find(self, name: str) -> Note | None:
        """The living process of that name."""
        return next((note for note in self.notes() if note.name == name and note.alive()), None)

    def start(self, name: str, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> Note:
        """Starts it unless it runs already."""
        running = self.find(name)
        if running:
            return running
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=None if env is None else dict(env),
                cwd="/",
            )
        # The note stands before anything can fail, so that `down` finds the process even after a failed start.
        note = Note(name, child.pid, start_time(child.pid) or 0)
        self._write([*(other for other in self.notes() if other.name != name), note])
        return note

    def stop(self, name: str, *, seconds: float = 10) -> None:
        """SIGTERM, then SIGKILL after `seconds`; returns when it is gone."""
        note = self.find(name)
        if note:
            end([note], seconds=seconds)
        self._write([other for other in self.notes() if other.name != name])


def end(notes: Sequence[Note], *, seconds: float) -> None:
    """Ends exactly these processes: politely, then not."""
    for sign, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        living = [note for note in notes if note.alive()]
        for note in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(note.pid, sign)
        deadline = time.monotonic() + patience
        while living and time.monotonic() < deadline:
            reap(living)
            living = [note for note in living if note.alive()]
            if living:
                time.sleep(POLL_SECONDS)
        if not living:
            return


def reap(notes: Sequence[Note]) -> None:
    """Takes the exit of those that are our own children; others belong to init."""
    for note in notes:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(note.pid, os.WNOHANG)


def snapshot(pid: int, name: str) -> Note | None:
    """A note of a process that another one of ours started, taken while it lives."""
    started = start_time(pid)
    return None if started is None else Note(name, pid, started)

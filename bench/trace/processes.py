"""What a process and its threads have used of the processor, and how long they waited for one. Linux only.

To nanoseconds, from schedstat of proc(5). Must not end or change a process.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds on a processor, and seconds ready to run without one: the second is other processes' doing."""

    ran: float
    waited: float

    def __sub__(self, before: Usage) -> Usage:
        return Usage(self.ran - before.ran, self.waited - before.waited)


def usage(pid: int) -> Usage:
    """Of all threads that live now; zeros where there is no such process."""
    ran = waited = 0
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError, ValueError):
                fields = (thread / "schedstat").read_text().split()
                ran, waited = ran + int(fields[0]), waited + int(fields[1])
    return Usage(ran / 1e9, waited / 1e9)

"""What a kernel's code has started: its processes by /proc. Must not signal what is not below the kernel."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

# Of one kernel, looked at in one go: code may start very many.
MAX_PROCESSES = 1000


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, parents first, MAX_PROCESSES at most; empty where it has ended."""
    found: list[int] = []
    below = [pid]
    while below and len(found) < MAX_PROCESSES:
        children = _children(below.pop(0))
        found += children
        below += children
    return found[:MAX_PROCESSES]


def interrupt_outside(pid: int) -> None:
    """Send SIGINT to the processes below `pid` that have left its process group."""
    for child in descendants(pid):
        with suppress(ProcessLookupError, PermissionError):
            if os.getpgid(child) != pid:
                os.kill(child, signal.SIGINT)


def _children(pid: int) -> list[int]:
    """Of all its threads: each thread lists what it has started."""
    found: list[int] = []
    with suppress(OSError, ValueError):
        for thread in os.listdir(f"/proc/{pid}/task")[:MAX_PROCESSES]:
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read(64 << 10).split())
    return found

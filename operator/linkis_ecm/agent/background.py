"""What an idle engine's code does without a task: threads and child processes that print or use the processor.

Must not poll: it looks when somebody asks, which the period of the reports does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from linkis_ecm.agent.executors.processes import descendants

# What was seen counts for so long: longer than a report's period, so that each report of a busy session says it.
SEEN_SECONDS = 30.0
# Two looks at the processor's time are so far apart at least.
LOOK_SECONDS = 2.0
# Of one processor. An idle kernel with its watching threads takes a fortieth of it.
BUSY_SHARE = 0.02
# Outputs so soon after a task's end are the rest of the task's own.
AFTER_TASK_SECONDS = 1.0

PRINTS, COMPUTES = "prints", "uses the processor"


class Background:
    """Of the kernel's process `pid`, which a restart replaces."""

    def __init__(self, clock: Callable[[], float], cpu_seconds: Callable[[int], float] | None = None) -> None:
        self._clock = clock
        self._cpu_seconds = cpu_seconds or cpu_seconds_below
        self._seen: dict[str, float] = {}
        self._ended = float("-inf")  # the last task
        self._looked: tuple[int, float, float] | None = None  # at which process, when, its seconds of the processor

    def task_began(self) -> None:
        """Until it has ended nothing is background work, though the engine is Idle."""
        self._ended = float("inf")

    def task_ended(self) -> None:
        """From now on nothing is a task's."""
        self._looked = None
        self._ended = self._clock()

    def printed(self) -> bool:
        """Something was printed while no task ran. True where that is news."""
        now = self._clock()
        if now < self._ended + AFTER_TASK_SECONDS:
            return False
        known = now < self._seen.get(PRINTS, float("-inf")) + SEEN_SECONDS
        self._seen[PRINTS] = now
        return not known

    def look(self, pid: int | None) -> tuple[str, float]:
        """What is done without a task, in words, empty where nothing is; and when something was seen last, 0 for
        never. `pid` is None while a task runs."""
        now = self._clock()
        before = self._looked
        if pid is None or now < self._ended + AFTER_TASK_SECONDS:
            pass
        elif before is None or before[0] != pid:
            self._looked = (pid, now, self._cpu_seconds(pid))
        elif now >= before[1] + LOOK_SECONDS:
            seconds = self._cpu_seconds(pid)
            if seconds - before[2] >= BUSY_SHARE * (now - before[1]):
                self._seen[COMPUTES] = now
            self._looked = (pid, now, seconds)
        done = [what for what in (PRINTS, COMPUTES) if now < self._seen.get(what, float("-inf")) + SEEN_SECONDS]
        last = max(self._seen.values(), default=0.0)
        return (f"background work of the session {' and '.join(done)}" if done else ""), last


def cpu_seconds_below(pid: int) -> float:
    """Seconds of the processor that `pid` and what it has started have used, ended ones that it has waited for too."""
    ticks = sum(_ticks(each) for each in (pid, *descendants(pid)))
    return ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", "rb") as file:
            # Behind the name, which may hold anything: user, system, and the same of its ended children.
            fields = file.read(4096).rpartition(b")")[2].split()
        return sum(map(int, fields[11:15]))
    return 0

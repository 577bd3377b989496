"""Ends an engine whose code has started too many processes and threads, before the node runs out of them.

No field of a pod bounds them: the kubelet's podPidsLimit is one for all pods of a node, and not set by default.
RLIMIT_NPROC counts a user id over the whole node, so one engine's processes would be held against all others. So the
agent looks at its container's count, and over the bound ends all processes of the container but itself. Must not choose
a state: that is the engine's.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

# Seconds. A loop of fork() makes some thousand processes in this time, and a look costs 20 µs.
PERIOD = 1.0


class ProcessBound:
    """`most` processes and threads; 0: no bound. `count` gives how many there are, 0 where it cannot know."""

    def __init__(
        self,
        most: int,
        count: Callable[[], int],
        *,
        kill: Callable[[int, int], None] = os.kill,
        pid: Callable[[], int] = os.getpid,
    ) -> None:
        self._count = count
        self._kill = kill
        # Only the first process of a PID namespace may signal -1, which reaches all of that namespace: anywhere else
        # those are the machine's.
        self._most = most if pid() == 1 else 0
        self.exceeded = ""

    async def watch(self) -> None:
        """Looks until the bound is exceeded."""
        while self._most and not self.check():  # noqa: ASYNC110 - a cgroup tells nobody that its count has changed
            await asyncio.sleep(PERIOD)

    def check(self) -> bool:
        """Whether the bound is exceeded; then all other processes are dead, and `exceeded` says why in words."""
        found = self._count()
        if not self._most or found <= self._most:
            return False
        self.exceeded = (
            f"the engine had {found} processes and threads, and {self._most} are the most (maxProcesses of its"
            " EngineConnPlugin)"
        )
        # One call, which no fork() escapes: a process with a pending SIGKILL cannot make another one.
        with suppress(ProcessLookupError):
            self._kill(-1, signal.SIGKILL)
        return True

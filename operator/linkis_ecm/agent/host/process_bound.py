"""Ends an engine whose code has started too many processes and threads, before the node runs out of them.

No field of a pod bounds them: the kubelet's podPidsLimit is one for all pods of a node, and not set by default.
RLIMIT_NPROC counts a user id over the whole node, so one engine's processes would be held against all others. So the
agent looks at its container's count, and over the bound ends all processes of the container but itself. User code has
the agent's user id, so it may take limits and CPU time from the agent: a look that fails and a change of those end the
engine too. Must not choose a state: that is the engine's.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress

# Seconds. A loop of fork() makes some hundred processes in this time, and each takes memory of its own: with a look
# each second the memory limit may come first, and the end be told as OOMKilled. A look costs 20 µs.
PERIOD = 0.2
# RLIMIT_OFILE is another name of RLIMIT_NOFILE.
_LIMITS = {name: getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
_LIMITS.pop("RLIMIT_OFILE", None)


def own_standing() -> dict[str, object]:
    """What another process of the user id may change of this one and so keep it from its work, by name.

    Not the CPUs that it may run on: the kubelet changes those too. `regain_cpus` takes them back.
    """
    limits: dict[str, object] = {name: resource.getrlimit(number) for name, number in _LIMITS.items()}
    return limits | {"nice": os.getpriority(os.PRIO_PROCESS, 0), "scheduler": os.sched_getscheduler(0)}


def regain_cpus() -> None:
    """All CPUs that the container has: the kernel leaves out the others."""
    with suppress(OSError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


class ProcessBound:
    """`most` processes and threads; 0: no bound. `count` gives how many there are, 0 where there is no cgroup; where it
    raises, the bound counts as exceeded. `standing` is what user code must not change of the agent."""

    def __init__(
        self,
        most: int,
        count: Callable[[], int],
        *,
        kill: Callable[[int, int], None] = os.kill,
        pid: Callable[[], int] = os.getpid,
        standing: Callable[[], Mapping[str, object]] = own_standing,
        regain: Callable[[], None] = regain_cpus,
    ) -> None:
        self._count = count
        self._kill = kill
        # Only the first process of a PID namespace may signal -1, which reaches all of that namespace: anywhere else
        # those are the machine's.
        self._most = most if pid() == 1 else 0
        self._standing = standing
        self._regain = regain
        self._standing_at_start = dict(standing()) if self._most else {}
        self.exceeded = ""
        # Whether it is not the number of processes: the guard itself was kept from its work.
        self.tampered = False

    async def watch(self) -> None:
        """Looks until the bound is exceeded."""
        while self._most and not self.check():  # noqa: ASYNC110 - a cgroup tells nobody that its count has changed
            await asyncio.sleep(PERIOD)

    def check(self) -> bool:
        """Whether the engine must end; then all other processes are dead, and `exceeded` says why in words."""
        if not self._most:
            return False
        self._look()
        if not self.exceeded:
            return False
        # One call, which no fork() escapes: a process with a pending SIGKILL cannot make another one.
        with suppress(ProcessLookupError):
            self._kill(-1, signal.SIGKILL)
        return True

    def _look(self) -> None:
        try:
            found = self._count()
            self._regain()
            now = self._standing()
            changed = sorted(name for name, value in self._standing_at_start.items() if now.get(name) != value)
        except Exception as error:  # a guard that fails must not count as one that found nothing
            self.tampered = True
            self.exceeded = (
                f"the agent could not count the engine's processes ({type(error).__name__}), so maxProcesses of its"
                " EngineConnPlugin did not hold"
            )
            return
        if found > self._most:
            self.exceeded = (
                f"the engine had {found} processes and threads, and {self._most} are the most (maxProcesses of its"
                " EngineConnPlugin)"
            )
        elif changed:
            self.tampered = True
            self.exceeded = f"code of the engine changed {', '.join(changed)} of its agent, which bounds and reports it"

"""Says how a kernel's process ended: the reason for the report, the words, and the exit code that says the same."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from linkis_ecm.agent.executors.base import Exit
from linkis_ecm.agent.process_bound import ProcessBound
from linkis_ecm.agent.usage import Usage

KERNEL_DIED = "KernelDied"
# As model.reasons names it; the agent's image holds no other package of ours.
TOO_MANY_PROCESSES = "TooManyProcesses"
AGENT_TAMPERED = "AgentTampered"
# engine.podspec makes it.
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - looked at alone
# What follows the words of such an end.
BEFORE_ANY_CODE = (
    " before any code ran: what starts it must stay with it, as a program does that neither forks nor leaves the kernel"
    " in the background"
)


def how_it_ended(end: Exit, usage: Usage, bound: ProcessBound) -> tuple[str, str, int]:
    """(reason, words, exit code)."""
    if not end.signal:
        return KERNEL_DIED, f"the kernel exited with code {end.code}", end.code or 1
    code = 128 + end.signal
    if bound.exceeded:
        return AGENT_TAMPERED if bound.tampered else TOO_MANY_PROCESSES, bound.exceeded, code
    how = f"the kernel was killed by {end.signal_name}"
    if end.signal == signal.SIGKILL and usage.oom_killed():
        limit, peak = usage.memory_limit(), int(usage.read()["memoryPeakBytes"])
        how += f": out of memory (limit {limit} bytes, peak {peak} bytes)"
    if end.signal == signal.SIGBUS:
        how += _full_memory_file()
    return KERNEL_DIED, how, code


def _full_memory_file() -> str:
    """What a SIGBUS comes from where programs are sound: memory of a file that has no room, or is shorter now."""
    size = 0
    with suppress(OSError):
        found = os.statvfs(SHARED_MEMORY)
        size = found.f_blocks * found.f_frsize
    return (
        f": most often the shared memory is full ({SHARED_MEMORY} has {size >> 20} MiB, half of the engine's memory"
        " limit): ask for more memory or share less. A mapped file that was cut short ends so, too"
    )

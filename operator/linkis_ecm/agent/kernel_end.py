"""Says how a kernel's process ended: the reason for the report, the words, and the exit code that says the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress

from linkis_ecm.agent.executors.base import Exit
from linkis_ecm.agent.host.process_bound import ProcessBound
from linkis_ecm.agent.host.usage import Usage

KERNEL_DIED = "KernelDied"
# As model.reasons names it; the agent's image holds no other package of ours.
TOO_MANY_PROCESSES = "TooManyProcesses"
AGENT_TAMPERED = "AgentTampered"
# engine.pod.spec makes it.
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - looked at alone
# What follows the words of such an end.
BEFORE_ANY_CODE = (
    " before any code ran: what starts it must stay with it, as a program does that neither forks nor leaves the kernel"
    " in the background"
)
# Of stderr, in the report that a kernel died: what a person reads in a status.
REPORTED_LINES, _REPORTED_CHARACTERS = 5, 1000
# Of stderr, in the error of the task that the kernel died in.
MAX_STDERR_LINES = 20


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


def with_last_lines(how: str, lines: Sequence[str]) -> str:
    """The words, and what the kernel wrote last to stderr."""
    last = "\n".join(lines)[-_REPORTED_CHARACTERS:]
    return f"{how}. Its last lines: {last}" if last else how


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

"""Says how a kernel's process ended: the reason for the report, the words, and the exit code that says the same."""

from __future__ import annotations

import signal

from linkis_ecm.agent.executors.base import Exit
from linkis_ecm.agent.process_bound import ProcessBound
from linkis_ecm.agent.usage import Usage

KERNEL_DIED = "KernelDied"
# As model.reasons names it; the agent's image holds no other package of ours.
TOO_MANY_PROCESSES = "TooManyProcesses"
AGENT_TAMPERED = "AgentTampered"


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
    return KERNEL_DIED, how, code

"""The names of an engine's states, why it takes no code in some of them, and Linkis's metrics of the time in them.

Must not hold a state.
"""

from __future__ import annotations

STARTING, IDLE, BUSY, SHUTTING_DOWN, FAILED = "Starting", "Idle", "Busy", "ShuttingDown", "Failed"
# A `once` engine at its one job, and after it.
RUNNING, SUCCESS = "Running", "Success"

_REFUSALS = {
    STARTING: "the engine is Starting: send the code again when its state is Idle",
    SHUTTING_DOWN: "the engine is ShuttingDown and takes no more code: create another engine",
    FAILED: "the engine has Failed and takes no more code: create another engine",
}
# Of an agent in a warm pool.
MEMBER_REFUSAL = "this agent waits in a warm pool and takes no code until an engine has claimed it: ask the engine"


def refusal(state: str, otherwise: str = "and takes no code") -> str:
    """The sentence for whoever wanted what this state does not allow; `otherwise` ends it where the state says nothing
    of its own."""
    return _REFUSALS.get(state, f"the engine is {state} {otherwise}")


def time_metrics(*, idle: float, busy: float) -> dict[str, int]:
    """Linkis's own metrics of an engine, of the seconds that it spent in two states."""
    return {
        "totalUnlockTimeMills": 0,
        "totalIdleTimeMills": round(idle * 1000),
        "totalBusyTimeMills": round(busy * 1000),
        "totalLockTimeMills": 0,
    }

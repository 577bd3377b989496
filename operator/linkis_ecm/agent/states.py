"""The names of an engine's states, and why it takes no code in some of them. Must not hold a state."""

from __future__ import annotations

STARTING, IDLE, BUSY, SHUTTING_DOWN, FAILED = "Starting", "Idle", "Busy", "ShuttingDown", "Failed"
# A `once` engine at its one job, and after it.
RUNNING, SUCCESS = "Running", "Success"

_REFUSALS = {
    STARTING: "the engine is Starting: send the code again when its state is Idle",
    SHUTTING_DOWN: "the engine is ShuttingDown and takes no more code: create another engine",
    FAILED: "the engine has Failed and takes no more code: create another engine",
}


def refusal(state: str, otherwise: str = "and takes no code") -> str:
    """The sentence for whoever wanted what this state does not allow; `otherwise` ends it where the state says nothing
    of its own."""
    return _REFUSALS.get(state, f"the engine is {state} {otherwise}")

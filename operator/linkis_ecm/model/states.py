"""The nine states of an engine, in Linkis's words, and which may follow which.

Pure data. Linkis persists the ordinal (`NodeStatus.ordinal()`), so the order of the members is part of the contract.
Must not know of pods, clients or clocks.
"""

from __future__ import annotations

from enum import StrEnum


class EngineState(StrEnum):
    """Linkis's `NodeStatus`, member for member and in its order (the ordinal is what Linkis stores)."""

    STARTING = "Starting"
    UNLOCK = "Unlock"
    LOCKED = "Locked"
    IDLE = "Idle"
    BUSY = "Busy"
    RUNNING = "Running"
    SHUTTING_DOWN = "ShuttingDown"
    FAILED = "Failed"
    SUCCESS = "Success"

    @property
    def ordinal(self) -> int:
        """0 (Starting) to 8 (Success), as in `instance_status` of Linkis's metrics table."""
        return ORDER.index(self)

    @property
    def is_available(self) -> bool:
        """The engine answers: Linkis's `isAvailable`."""
        return self in AVAILABLE

    @property
    def is_final(self) -> bool:
        """Nothing follows on Success or Failed."""
        return self in FINAL


ORDER: tuple[EngineState, ...] = tuple(EngineState)
AVAILABLE = frozenset({EngineState.UNLOCK, EngineState.LOCKED, EngineState.IDLE, EngineState.BUSY, EngineState.RUNNING})
FINAL = frozenset({EngineState.SUCCESS, EngineState.FAILED})

# What the record's `status` may end as. `ShuttingDown` is final there for an engine killed on request, which
# Linkis's job statistics count as cancelled.
RECORD_FINAL = frozenset({EngineState.SUCCESS, EngineState.FAILED, EngineState.SHUTTING_DOWN})

LEGAL: dict[EngineState, frozenset[EngineState]] = {
    # To Success where it was stopped on request before it was ready.
    EngineState.STARTING: AVAILABLE | {EngineState.SHUTTING_DOWN} | FINAL,
    EngineState.UNLOCK: frozenset(
        {EngineState.LOCKED, EngineState.IDLE, EngineState.BUSY, EngineState.SHUTTING_DOWN} | FINAL
    ),
    EngineState.LOCKED: frozenset(
        {EngineState.UNLOCK, EngineState.IDLE, EngineState.BUSY, EngineState.SHUTTING_DOWN} | FINAL
    ),
    EngineState.IDLE: frozenset({EngineState.UNLOCK, EngineState.BUSY, EngineState.SHUTTING_DOWN} | FINAL),
    EngineState.BUSY: frozenset({EngineState.UNLOCK, EngineState.IDLE, EngineState.SHUTTING_DOWN} | FINAL),
    EngineState.RUNNING: frozenset({EngineState.SHUTTING_DOWN} | FINAL),
    EngineState.SHUTTING_DOWN: FINAL,
    EngineState.FAILED: frozenset(),
    EngineState.SUCCESS: frozenset(),
}


def may_follow(before: EngineState | None, after: EngineState) -> bool:
    """Whether an engine that was in `before` (None: unknown) may be in `after`; the same state is always allowed."""
    return before is None or before == after or after in LEGAL[before]

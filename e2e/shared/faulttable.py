"""The fault table that a run of the fault tests tells: what was done, what was lost, how long until all was right."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from tools.testkit.cluster.waiting import pods, until_row, until_state


@dataclass
class FaultTable:
    """Rows as they come."""

    rows: list[tuple[str, str, float]] = field(default_factory=list)

    def add(self, what: str, lost: str, seconds: float) -> None:
        self.rows.append((what, lost, seconds))

    def markdown(self) -> list[str]:
        lines = ["| fault | lost | right again after |", "| --- | --- | --- |"]
        return lines + [f"| {what} | {lost} | {seconds:.1f} s |" for what, lost, seconds in self.rows]


TABLE = FaultTable()


def ready_again(what: str, name: str, uid: str, since: float) -> None:
    """The engine still is what it was: Idle, with its only pod and its row; tells the fault table."""
    ticket = until_state(name, "Idle", seconds=120)["ticketId"]
    assert [pod["metadata"]["uid"] for pod in pods(name)] == [uid], "the same pod, and no other"
    until_row(ticket, "Idle")
    TABLE.add(what, "nothing", time.monotonic() - since)


def ended_as(what: str, name: str, reason: str, since: float, *, seconds: float = 120) -> dict[str, Any]:
    """The engine has Failed for that reason, with its row; tells the fault table."""
    found = until_state(name, "Failed", seconds=seconds)
    assert found["reason"] == reason, found["message"]
    told = until_row(found["ticketId"], "Failed", final=True)
    assert told["reason"] == reason
    TABLE.add(what, f"the engine, as it must: {reason}", time.monotonic() - since)
    return found


def pod_uid(name: str) -> str:
    (pod,) = pods(name)
    return str(pod["metadata"]["uid"])

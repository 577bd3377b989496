"""The fault table that a run of the fault tests tells: what was done, what was lost, how long until all was right."""

from __future__ import annotations

from dataclasses import dataclass, field


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

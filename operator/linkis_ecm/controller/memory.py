"""What one operator process remembers of each engine between passes. It may be lost at any time: it saves questions.

Must not decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from linkis_ecm.engine.decision import CreateFailure, Evidence, Silence, Stop
from linkis_ecm.engine.view import PodView, Report
from linkis_ecm.model.record import EngineRecord


@dataclass(slots=True)
class Memory:
    """One engine, of that uid; `heard` is when its agent last said anything, at first when this process met it."""

    uid: str
    heard: datetime
    report: Report | None = None
    failure: CreateFailure | None = None
    stop: Stop | None = None
    evidence: Evidence | None = None
    pod_gone: bool = False
    last_pod: PodView | None = None
    seen: dict[str, datetime] = field(default_factory=dict)
    errors: int = 0
    offered: EngineRecord | None = None
    # Vain questions since it was last heard, the last one's time, and what its node said.
    asks: int = 0
    asked: datetime | None = None
    node: str = ""

    def hear(self, now: datetime) -> None:
        """Its agent has said something."""
        self.heard, self.asks, self.asked, self.node = now, 0, None, ""

    def next_attempt(self, now: datetime) -> None:
        """Another pod follows: what was known of the old one is of no use."""
        self.report = self.failure = self.stop = self.evidence = None
        self.pod_gone, self.last_pod = False, None
        self.seen = {}
        self.hear(now)

    @property
    def silence(self) -> Silence:
        return Silence(self.heard, self.asks, self.asked, self.node)

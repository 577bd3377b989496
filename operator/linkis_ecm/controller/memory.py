"""What one operator process remembers of each engine between passes.

It may be lost at any time: then a question is asked again, and no answer changes. Must not decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from linkis_ecm.engine.decision import CreateFailure, Evidence, Silence, Stop
from linkis_ecm.engine.view import PodView, Report
from linkis_ecm.model.record import EngineRecord


@dataclass(slots=True)
class Memory:
    """One engine, of that uid.

    `last_contact` is when its agent last reported or answered; at first, when this process saw the engine.
    """

    uid: str
    last_contact: datetime
    report: Report | None = None
    failure: CreateFailure | None = None
    stop: Stop | None = None
    evidence: Evidence | None = None
    pod_gone: bool = False
    last_pod: PodView | None = None
    seen: dict[str, datetime] = field(default_factory=dict)
    # The record last offered to the database.
    offered: EngineRecord | None = None
    # Status requests since the last contact that the agent did not answer, and when the last one was sent.
    unanswered: int = 0
    asked: datetime | None = None
    # What the API server says of the silent engine's node; see Silence.
    node: str = ""

    def record_contact(self, now: datetime) -> None:
        """The engine's agent has reported or answered."""
        self.last_contact, self.unanswered, self.asked, self.node = now, 0, None, ""

    def next_attempt(self, now: datetime) -> None:
        """Another pod follows: what was known of the old one is dropped."""
        self.report = self.failure = self.stop = self.evidence = None
        self.pod_gone, self.last_pod = False, None
        self.seen = {}
        self.record_contact(now)

    @property
    def silence(self) -> Silence:
        """The agent's silence, as `decide` takes it."""
        return Silence(self.last_contact, self.unanswered, self.asked, self.node)

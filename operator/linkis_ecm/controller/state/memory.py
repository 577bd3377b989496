"""What one operator process remembers of each engine between passes.

It may be lost at any time. Then a request is repeated, but no decision changes. Must not decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from linkis_ecm.engine.causes.cold_starts import Cold
from linkis_ecm.engine.decision import CreateFailure, EventProblem, Evidence, ResizeFailure, Silence, Stop
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.view import Report
from linkis_ecm.model.record import EngineRecord


@dataclass(slots=True)
class Memory:
    """The memory of the engine with this uid.

    `last_contact` is when its agent last reported or answered. At first it is when this process first saw the engine.
    """

    uid: str
    last_contact: datetime
    # When this process first saw the engine.
    known_since: datetime | None = None
    report: Report | None = None
    # When that report was taken.
    reported: datetime | None = None
    failure: CreateFailure | None = None
    # Of which generation of the engine: a changed spec is tried at once.
    failed_generation: int = 0
    stop: Stop | None = None
    evidence: Evidence | None = None
    event_problem: EventProblem = field(default_factory=EventProblem)
    pod_gone: bool = False
    last_pod: PodView | None = None
    first_seen: dict[str, datetime] = field(default_factory=dict)
    # The last record that was offered to the database.
    last_record: EngineRecord | None = None
    # The database has a row of the engine's ticket, and it is another engine's.
    ticket_taken: bool = False
    # Status requests since the last contact that the agent did not answer, and when the last one was sent.
    unanswered: int = 0
    last_asked: datetime | None = None
    # The condition of a silent engine's node; see Silence.
    node_condition: str = ""
    # How the agent refused the last question that it answered; see Silence.
    refusal: str = ""
    # Why this attempt takes no pod of a warm pool any more, and how many were refused.
    warm_failed: Cold | None = None
    warm_tries: int = 0
    # The uid of the pod that its last claim got, and that went for nothing.
    discarded: str = ""
    # A pod of a pool whose claim was sent and whose answer did not come: it may be the engine's.
    unanswered_claim: str = ""
    # What the claim gives the agent, with the values of Secrets, until the agent has it.
    environment: dict[str, str] | None = None
    # Why the last resize of the pod was not done.
    resize_failure: ResizeFailure | None = None
    # The resize of its claim was sent, and is not answered.
    resize_sent: bool = False
    # When the engine was seen to be used again, while its pod has not got its cpu back from a soft pause.
    waking_since: datetime | None = None
    # When the status' message was last written.
    words_written: datetime | None = None
    # Of `refused`, what the pools were told last.
    refusal_told: str = ""

    def __post_init__(self) -> None:
        self.known_since = self.known_since or self.last_contact

    def record_contact(self, now: datetime, refusal: str = "") -> None:
        """The engine's agent has reported or answered, or it refused to; `refusal` says how."""
        self.last_contact, self.unanswered, self.last_asked, self.node_condition = now, 0, None, ""
        self.refusal = refusal

    def next_attempt(self, now: datetime) -> None:
        """Forget the old pod, because another attempt begins."""
        self.report = self.failure = self.stop = self.evidence = None
        self.reported, self.event_problem = None, EventProblem()
        self.pod_gone, self.last_pod = False, None
        self.first_seen = {}
        self.warm_failed, self.unanswered_claim = None, ""
        self.warm_tries, self.environment, self.resize_failure = 0, None, None
        self.waking_since = None
        self.record_contact(now)

    @property
    def refused(self) -> str:
        """What the API server last said to the engine's pod, or to its resize up; "" where it took it."""
        if self.resize_failure is not None:
            return "" if self.resize_failure.down else self.resize_failure.sentence
        return self.failure.verdict.details if self.failure is not None else ""

    @property
    def silence(self) -> Silence:
        """The agent's silence, as `decide` needs it."""
        return Silence(self.last_contact, self.unanswered, self.last_asked, self.node_condition, self.refusal)

"""What the agents of warm pools' members have reported: which of them may be given out, and which have failed.

Kept in memory alone. What a successor needs is in the pod's annotation READY_ANNOTATION, which the filler writes. An
agent that reports to a successor shows the key that it has. Must not write, nor check who reports: that is `reports`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.warm import problems
from linkis_ecm.engine.warm.members import Contact, contact
from linkis_ecm.engine.warm.problems import Problem
from linkis_ecm.model.agent_key import AgentKeyRef
from linkis_ecm.model.states import EngineState

# A kernel takes its environment and its folder; more names than this are no agent of ours.
TAKES_MAX, TAKES_CHARS = 8, 32
REASON_CHARS, MESSAGE_CHARS = 200, 2000


@dataclass(slots=True)
class MemberReport:
    """The last report of one member."""

    key: AgentKeyRef
    sequence: int
    reported: datetime
    ready: bool = False
    takes: tuple[str, ...] = ()
    failure: Problem | None = None

    def changes(self) -> tuple[object, ...]:
        """What needs a pass of its pool where it changes."""
        return self.ready, self.takes, self.failure


@dataclass(slots=True)
class MemberAgents:
    """By the pods' uids. `on_change(pod)` is called when a member became ready, or failed."""

    clock: Callable[[], datetime]
    on_change: Callable[[PodView], None] = lambda _: None
    silent_after: timedelta = timedelta(seconds=30)
    # From when on this process gets reports: before that no silence counts.
    began: datetime | None = None
    _reports: dict[str, MemberReport] = field(default_factory=dict)
    # When the last report of any member came.
    _latest: datetime | None = None

    def key_of(self, pod: PodView) -> AgentKeyRef | None:
        """The enrolment that counts: the first. After a restart of this process the pod says it, once it was ready."""
        found = self._reports.get(pod.uid)
        if found is not None:
            return found.key
        return pod.member.ready if pod.member is not None else None

    def last(self, pod: PodView) -> MemberReport | None:
        return self._reports.get(pod.uid)

    def since(self, pod: PodView) -> timedelta | None:
        """How long ago it last reported; None: never to this process."""
        found = self._reports.get(pod.uid)
        return None if found is None else self.clock() - found.reported

    def contact(self, pod: PodView) -> Contact:
        """Whether its agent reports now."""
        now = self.clock()
        if self.began is None:
            self.began = now
        found = self._reports.get(pod.uid)
        last = self.began if found is None else max(self.began, found.reported)
        others_report = self._latest is not None and now - self._latest < self.silent_after
        return contact(now - last, self.silent_after, others_report=others_report)

    def record(self, pod: PodView, body: Mapping[str, Any], sequence: int, key: AgentKeyRef) -> None:
        """A report whose sender was checked. What it says is a hostile pod's: it is read in bounds."""
        before = self._reports.get(pod.uid)
        state, said = str(body.get("state")), body.get("member")
        ready = isinstance(said, Mapping) and said.get("ready") is True and state == EngineState.IDLE
        takes = _takes(said.get("takes")) if ready and isinstance(said, Mapping) else ()
        failure = None
        if state in (EngineState.FAILED, EngineState.SUCCESS):
            reason, message = str(body.get("reason") or ""), str(body.get("message") or "")
            failure = problems.of_report(reason[:REASON_CHARS], message[:MESSAGE_CHARS])
        report = MemberReport(key, sequence, self.clock(), ready, takes, failure)
        self._reports[pod.uid], self._latest = report, report.reported
        if before is None or before.changes() != report.changes():
            self.on_change(pod)

    def forget(self, pod: PodView) -> None:
        """The pod is gone, or is an engine's."""
        self._reports.pop(pod.uid, None)


def _takes(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(sorted(one for one in value[:TAKES_MAX] if isinstance(one, str) and 0 < len(one) <= TAKES_CHARS))

"""What an operator remembers of a warm pool between two passes. All of it may be lost: a successor begins without.

Must not decide: `engine.warm.sizing` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from linkis_ecm.controller.state.cache import Key
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.warm import problems, setbacks
from linkis_ecm.engine.warm.places import PlaceState
from linkis_ecm.engine.warm.problems import Problem
from linkis_ecm.engine.warm.setbacks import Losses, Setback
from linkis_ecm.engine.warm.sharing import Bucket
from linkis_ecm.engine.warm.sizing import Plan

# A pass over a pool in many namespaces takes the event loop for long, and each change of a member asks for one: the
# next one is not before so many times what the last one took. The bound, in seconds, is for what waits for a pass.
PAUSE_TIMES, PAUSE_MAX = 10, 1.0


@dataclass(slots=True)
class PoolMemory:
    """What is known of one pool between passes, much of it by namespace."""

    bucket: Bucket = field(default_factory=Bucket)
    setbacks: dict[str, Setback | None] = field(default_factory=dict)
    # After members that others took away.
    losses: dict[str, Losses] = field(default_factory=dict)
    gave_way: dict[str, datetime] = field(default_factory=dict)
    waited: dict[str, datetime] = field(default_factory=dict)
    aged: dict[str, datetime] = field(default_factory=dict)
    # When a member last went for a namespace's share of the cap.
    evened: datetime | None = None
    # Since when claims hold the refill back, by namespace.
    held_since: dict[str, datetime] = field(default_factory=dict)
    # Namespace and name of members whose create was not answered, and the error.
    unanswered: dict[Key, Problem | None] = field(default_factory=dict)
    # The plugin's generation: with another one the failures of before count no more.
    generation: int = 0
    # When the status may be written again.
    status_after: datetime | None = None
    # When the loop may be taken for the next pass, by the loop's own time: that of the day may go back.
    free_at: float = 0.0

    def took(self, seconds: float, now: float) -> None:
        """A pass that is over now took the loop for so long."""
        self.free_at = now + min(PAUSE_MAX, PAUSE_TIMES * seconds)

    def pause(self, now: float) -> float:
        """Seconds until the next pass may be; 0 also where `now` is of another clock than the last pass had."""
        left = self.free_at - now
        return left if 0 < left <= PAUSE_MAX else 0.0

    def may_tell(self, now: datetime) -> bool:
        """Whether a status that has changed may be written."""
        return self.status_after is None or now >= self.status_after

    def drop_answered(self, members: Mapping[str, Iterable[PodView]]) -> None:
        """A watch may bring a pod before its create is answered, or in place of the answer: it is not counted twice."""
        there = {(pod.namespace, pod.name) for pods in members.values() for pod in pods} if self.unanswered else set()
        for key in there & self.unanswered.keys():
            del self.unanswered[key]

    def note(self, plan: Plan, now: datetime) -> None:
        """What a pass has decided."""
        self.bucket, self.setbacks, self.losses = plan.bucket, dict(plan.setbacks), dict(plan.losses)
        self.gave_way |= dict.fromkeys(plan.gave_way, now)
        self.waited |= dict.fromkeys(plan.waited, now)
        self.aged |= dict.fromkeys(plan.aged, now)
        self.evened = now if plan.evened else self.evened
        self.held_since = {namespace: self.held_since.get(namespace, now) for namespace in plan.held}

    def note_loss(self, pod: PodView, how: str, now: datetime) -> None:
        """Others took that member away."""
        before = self.losses.get(pod.namespace)
        self.losses[pod.namespace] = setbacks.after_loss(before, problems.of_loss(pod, how), now)

    def with_outages(self, states: tuple[PlaceState, ...]) -> list[PlaceState]:
        """The states, with what the API server said to creates that it did not execute, where nothing else is known."""
        said = {namespace: problem for (namespace, _), problem in self.unanswered.items() if problem is not None}
        if not said:
            return list(states)
        return [replace(one, problem=one.problem or said.get(one.namespace)) for one in states]

"""What slows a warm pool's refill in one namespace down: members that fail, and those that others take away. Pure.

Whoever may delete or change pods of a namespace can take its members away as fast as they are made. Most who do so are
no enemies: drains, rolling upgrades, autoscalers. So such members are made again at once, a burst of them, and then at
a pace that costs a cluster next to nothing, however long it goes on. So are members that fail or fall silent: whoever
may exec into them brings that about. What lacks for another reason, such as claims, is not held back by that. Must not
decide whose turn it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.warm.problems import Problem
from linkis_ecm.process.backoff import Backoff

# After a member that never became ready, or a refused create. The longest is five minutes: a mended image is noticed by
# the plugin's change at once.
SETBACK = Backoff(base=2.0, cap=300.0)
# For as long as it goes on, of one namespace. Autoscalers that move pods all day take fewer: 6,000 a day of all pods of
# a cluster (kubernetes-sigs/karpenter#2388).
PER_MINUTE = 6.0
# At once, as times the pool's largest size there, and the least, for pools of few. A rolling upgrade takes each member
# once, and all of them with each node where the scheduler packs pods on the node that is next: eight nodes. It costs
# nothing for long: what was spent comes back at the pace above.
TIMES, LEAST = 8, 20
# Losses are added up in floats: one that lacks a millionth of a microsecond would be waited for without a wait.
_LEAST_WAIT = 0.01


@dataclass(frozen=True, slots=True)
class Setback:
    """So many failures in a row in one namespace: none but one member is made before `until`, and one at a time then.

    `refused`: the API server took no pod, so one that it takes ends the setback. Else a member must become ready.
    """

    count: int
    since: datetime
    until: datetime
    problem: Problem
    refused: bool = False


def after_failure(
    before: Setback | None, problem: Problem, now: datetime, jitter: float, *, refused: bool = False
) -> Setback:
    """The setback with one more failure; several within one pause count once. `jitter` is a factor about 1."""
    if before is not None and now < before.until:
        return Setback(before.count, before.since, before.until, problem, refused)
    count = before.count + 1 if before is not None else 1
    seconds = min(SETBACK.cap, SETBACK.base * 2 ** min(count - 1, 20)) * jitter
    return Setback(count, now, now + timedelta(seconds=seconds), problem, refused)


@dataclass(frozen=True, slots=True)
class Losses:
    """`spent` of the burst is used up at the time `at`; it falls with time. `number` were lost since the first one at
    `since`, and `last` tells of the last."""

    spent: float
    at: datetime
    last: Problem
    number: int = 1
    since: datetime | None = None

    @property
    def problem(self) -> Problem:
        """What is told while some are held."""
        since = f" since {self.since:%Y-%m-%d %H:%M:%S} UTC" if self.since is not None else ""
        return replace(self.last, details=f"{self.number} went{since}. {self.last.details}")

    def held(self, missing: int, size: int, now: datetime) -> int:
        """How many of those that are missing are not made now."""
        return min(missing, math.ceil(self._over(size, now)))

    def again(self, size: int, now: datetime) -> datetime:
        """When one fewer is held."""
        return now + timedelta(seconds=max(_LEAST_WAIT, (self._over(size, now) % 1 or 1) * 60 / PER_MINUTE))

    def settled(self, size: int, now: datetime) -> Losses | None:
        """As it is `now`: more than all of a pool is never held. None once all is as before the first loss."""
        spent = min(self._spent(now), _burst(size) + size)
        return replace(self, spent=spent, at=now) if spent > 0 else None

    def one_more(self, problem: Problem, now: datetime) -> Losses:
        return replace(self, spent=self._spent(now) + 1, at=now, last=problem, number=self.number + 1)

    def _over(self, size: int, now: datetime) -> float:
        return max(0.0, min(self._spent(now) - _burst(size), float(size)))

    def _spent(self, now: datetime) -> float:
        # A clock that was put back gives nothing and takes nothing.
        return max(0.0, self.spent - max(0.0, (now - self.at).total_seconds()) * PER_MINUTE / 60)


def after_loss(before: Losses | None, problem: Problem, now: datetime) -> Losses:
    """With one more member that others took away."""
    return before.one_more(problem, now) if before is not None else Losses(1.0, now, problem, since=now)


def _burst(size: int) -> int:
    return max(LEAST, TIMES * size)


def taken_away(before: PodView, after: PodView | None, *, strange: bool) -> str:
    """What somebody did to a member that nobody had taken, as the end of a sentence; "" where that is nothing.

    `strange`: after the change it is not known as this operator's any more. What this operator did itself, and what an
    engine took, is not for here.
    """
    if before.member is None or before.deleting:
        return ""
    if before.ended:
        # What had been ready counted when it ended, and the other where this operator deletes it.
        gone = after is None or after.deleting or after.member is None
        return "ended and was deleted before it was ready" if gone and before.member.ready is None else ""
    if after is None:
        return "was deleted"
    if after.disruption and not before.disruption:
        return f"was evicted ({after.disruption})"
    if after.deleting:
        return "" if before.disruption else "was deleted"
    if after.member is None:
        return "was taken out of the pool"
    was, now = before.member, after.member
    if after.ended:
        # Before that its agent says what is wrong, and no other member is better. Whoever may exec ends it after that.
        return "ended after it was ready" if was.ready is not None else ""
    changed = (was.pool, was.template, before.instance, before.image) != (
        now.pool, now.template, after.instance, after.image
    )  # fmt: skip
    if changed or strange or after.restarts > before.restarts or (after.ephemeral and not before.ephemeral):
        return "was changed"
    return ""


def went_for_nothing(pod: PodView, why: str) -> str:
    """What became of a member that this operator deletes for this reason (a value of `Why` or `Fault`), as the end of a
    sentence; "" where others cannot bring it about, or where it counted when it happened."""
    if why == "ended":
        before_ready = pod.member is not None and pod.member.ready is None and not pod.disruption
        return "ended before it was ready" if before_ready else ""
    return {
        "failed": "failed before it was ready",
        "silent": "was silent for too long",
        "secret": "had a value that its Secret has no more",
    }.get(why, "")

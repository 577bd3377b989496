"""The pauses of a warm pool in one namespace: after members that fail, and after members that others take away. Pure.

Whoever may delete or change pods of a namespace can take its members away as fast as they are made: without a pause the
operator makes them without end. So such a loss is a failure, too. It is remembered for longer than others, since a
member that became ready says nothing of who takes it next. Must not decide how many are made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.warm.problems import Problem
from linkis_ecm.process.backoff import Backoff

# After a member that never became ready, after a refused create, and after a loss. The longest is five minutes: a
# mended image is noticed by the plugin's change at once. The first is short: a drained node takes several at once.
SETBACK = Backoff(base=2.0, cap=300.0)
# A loss so long after the last pause is the first one again, or after as long as that pause, if it was longer: nodes
# that are drained one after the other are no reason for longer pauses.
FORGIVEN_AFTER = timedelta(seconds=60)


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


def after_loss(before: Setback | None, problem: Problem, now: datetime, jitter: float) -> Setback:
    """The setback with one more member that others took away."""
    return after_failure(remembered(before, now), problem, now, jitter)


def remembered(loss: Setback | None, now: datetime) -> Setback | None:
    """The setback of losses while the next loss would make it longer; None afterwards."""
    if loss is None or now >= loss.until + max(FORGIVEN_AFTER, loss.until - loss.since):
        return None
    return loss


def holds_back(loss: Setback, ready: Iterable[PodView], now: datetime) -> bool:
    """Whether members are made one at a time, or none: until one that was made since is ready."""
    return now < loss.until or not any(pod.created is not None and pod.created > loss.since for pod in ready)


def taken_away(before: PodView, after: PodView | None, *, claimed: bool, strange: bool) -> str:
    """What somebody did to a member that nobody had taken, as the end of a sentence; "" where that is nothing.

    `claimed`: an engine was about to take it. `strange`: after the change it is not known as this operator's any more.
    What this operator did itself is not for here.
    """
    if before.member is None or before.deleting or before.ended:
        return ""
    if after is None:
        return "deleted"
    if after.disruption and not before.disruption:
        return f"evicted ({after.disruption})"
    if after.deleting:
        return "" if before.disruption else "deleted"
    if after.member is None:
        return "" if claimed else "taken out of the pool"
    was, now = before.member, after.member
    if after.ended:
        # Before that its agent says what is wrong, and no other member is better. Whoever may exec ends it after that.
        return "ended after it was ready" if was.ready is not None else ""
    changed = (was.pool, was.template, before.instance, before.image) != (
        now.pool, now.template, after.instance, after.image
    )  # fmt: skip
    if changed or strange or after.restarts > before.restarts or (after.ephemeral and not before.ephemeral):
        return "changed"
    return ""

"""When a warm pool's members are too old, and how many of them may go now. Pure.

A member goes first and its successor comes after it: a pool has never more than its size, and a quota need not have
room for more. So what is missing already bounds how many go. Must not know why a pool is not full: `sizing` does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from linkis_ecm.engine.pod_view import PodView

# Of maxAge: members that were made together are replaced within its last fifth. At the shortest maxAge, 10 minutes, a
# pool whose members need 40 s is through its four quarters by then.
SPREAD = 0.2
# Of a pool that new members come to: so much of it is replaced at a time, one at least.
SHARE = 0.25
# Of maxAge: a member that is so much older than that is told.
LATE = 0.1
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How new members come to a pool of `size` in one namespace.

    `coming`: so many are on their way, or will be soon. `short`: some do not come, for lack of room, since starts fail,
    or since claims fail and so they come one by one; `failing`: starts fail. `last`: when a member last went for its
    age.
    """

    size: int
    coming: int
    short: bool = False
    failing: bool = False
    last: datetime | None = None


def too_old_at(pod: PodView, max_age: float) -> datetime | None:
    """When a member is to be replaced for its age: each at a time of its own, and no two operators differ in it."""
    born = _born(pod)
    if not max_age or born is None:
        return None
    share = int.from_bytes(hashlib.sha256(pod.uid.encode()).digest()[:2], "big") / 65536
    return born + timedelta(seconds=max_age * (1 - SPREAD * share))


def goes(
    ready: Sequence[PodView], reserved: Iterable[str], progress: Progress, max_age: float, now: datetime
) -> tuple[list[PodView], datetime | None]:
    """Those of the `ready` members, which are oldest first, that go now, and when the next one may go without an event.

    Where all are too old and new ones do not come, one goes each maxAge/size, so they last for one maxAge more. Where
    starts fail the first of them waits for that as well: a single one is kept until twice maxAge. Where room is what is
    short, the next one goes also when the last one's successor is ready.
    """
    held = frozenset(reserved)
    due = [pod for pod in ready if _is_due(pod, max_age, now) and pod.uid not in held]
    if not due:
        return [], None
    most = max(0, max(1, int((len(ready) if progress.short else progress.size) * SHARE)) - progress.coming)
    if not progress.short or not most:
        return due[:most], None
    pause = timedelta(seconds=max_age / max(1, progress.size))
    again = now
    if progress.last is not None and (progress.failing or not _came_after(ready, progress.last)):
        again = progress.last + pause
    if progress.failing:
        again = max(again, (_born(due[0]) or now) + timedelta(seconds=max_age) + pause)
    return (due[:1], None) if again <= now else ([], again)


def late(pods: Iterable[PodView], max_age: float, now: datetime) -> int:
    """How many are clearly older than maxAge."""
    oldest = now - timedelta(seconds=max_age * (1 + LATE))
    return sum((_born(pod) or now) < oldest for pod in pods) if max_age else 0


def _is_due(pod: PodView, max_age: float, now: datetime) -> bool:
    at = too_old_at(pod, max_age)
    return at is not None and at <= now


def _came_after(pods: Iterable[PodView], moment: datetime) -> bool:
    """Whether one began since; times of pods have whole seconds."""
    since = moment.replace(microsecond=0)
    return any((_born(pod) or _LONG_AGO) >= since for pod in pods)


def _born(pod: PodView) -> datetime | None:
    """From when it got a node: until then nothing of it runs, and it may have waited for long."""
    return pod.scheduled or pod.created

"""How many pods a warm pool gets and loses now, and why it is not full. Pure: clock and jitter are given.

Nothing is made twice: what was asked for and not answered counts as there, so the pool never has more pods than its
size, whatever gets lost (agent-sandbox#1215 made 5,537 for 500). A pool gives way: while an engine of a namespace waits
for quota or room, members there are deleted, and while engines claim members its refill waits (`pacing`). Must not
choose names, nor what a member is made of.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.warm import aging, capping, pacing, problems
from linkis_ecm.engine.warm.demand import Wanted
from linkis_ecm.engine.warm.members import Contact, Fault, oldest_first
from linkis_ecm.engine.warm.places import (
    Count,
    Deletion,
    Place,
    PlaceState,
    Pool,
    Why,
    no_room,
    pods_that_end,
    state_of,
)
from linkis_ecm.engine.warm.problems import Problem
from linkis_ecm.engine.warm.setbacks import SETBACK, Losses, Setback, after_failure
from linkis_ecm.engine.warm.sharing import Bucket

# Between two deletions for an engine that waits: refused by a quota, it is tried again each 5 s
# (controller.pods.executor.QUOTA_RETRY) and sees the room then.
GIVE_WAY_PERIOD = timedelta(seconds=6)
# A pool that has given way is not refilled for so long.
GIVE_WAY_PAUSE = timedelta(seconds=60)
# Between two deletions of a pool for a namespace's share of the cap: as many as losses of one namespace are made good
# (`setbacks.PER_MINUTE`).
EVEN_PERIOD = timedelta(seconds=10)
# A create without an answer is asked again after this time, under the same name.
ASK_AGAIN = timedelta(seconds=1)
# While a member is silent: an agent reports each 10 s, so one that reports again is found ready within two reports.
LOOK_AT_SILENT = timedelta(seconds=15)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done now. `create` has a namespace for each new member. `at`: when to look again.
    `stuck_elsewhere`: pods that do not end, in namespaces that have no pool."""

    create: tuple[str, ...]
    delete: tuple[Deletion, ...]
    setbacks: Mapping[str, Setback | None]
    losses: Mapping[str, Losses]
    # Where a member makes room now, and where an engine waits.
    gave_way: frozenset[str]
    waited: frozenset[str]
    # Where claims hold the refill back.
    held: frozenset[str]
    # Where members go for their age now.
    aged: frozenset[str]
    # A member goes for another namespace's share.
    evened: bool
    bucket: Bucket
    states: tuple[PlaceState, ...]
    stuck_elsewhere: int
    at: datetime | None


def plan(pool: Pool, now: datetime, jitter: float) -> Plan:
    """What to do with a pool. `jitter` is a factor about 1, for pauses after failures."""
    counts = [_judged(place, pool, now, jitter) for place in pool.places]
    elsewhere = [Deletion(pod, Why.NO_POOL) for pod in pool.elsewhere if not pod.deleting]
    _give_way(counts, now)
    _drop_surplus(counts, pool)
    _give_shares(counts, pool)
    _drop_old(counts, pool, now)
    _hold_back(counts, now)
    even = _even_out(counts, pool, now)
    bucket = pool.bucket.refilled(now)
    order, bucket = bucket.spent(_may_get(counts, _rooms(counts, pool, now), int(bucket.tokens), now))
    made = Counter(order)
    for count in counts:
        count.created = made[count.place.namespace]
    rooms = _rooms(counts, pool, now)
    leaving = pods_that_end(pool, now)
    stuck = capping.stuck(pool.elsewhere, now)
    return Plan(
        create=order,
        delete=(*elsewhere, *(one for count in counts for one in count.delete)),
        setbacks={count.place.namespace: count.setback for count in counts},
        losses={count.place.namespace: lost for count in counts if (lost := count.lost_at(now)) is not None},
        gave_way=_where(counts, Why.ROOM),
        waited=frozenset(count.place.namespace for count in counts if count.place.waiting),
        held=frozenset(count.place.namespace for count in counts if count.pace.held),
        aged=_where(counts, Why.AGE),
        bucket=bucket,
        states=tuple(
            state_of(count, pool, no_room(count, rooms, leaving) if count.missing else None, now) for count in counts
        ),
        stuck_elsewhere=stuck.pods if stuck is not None else 0,
        evened=bool(_where(counts, Why.EVEN)),
        at=min(filter(None, (even, _next_look(counts, pool, bucket, rooms, now))), default=None),
    )


def _where(counts: list[Count], why: Why) -> frozenset[str]:
    """The namespaces in which members go for that."""
    return frozenset(count.place.namespace for count in counts if any(one.why is why for one in count.delete))


def _judged(place: Place, pool: Pool, now: datetime, jitter: float) -> Count:
    """The place's members, those that are not kept among the deletions, and the setback that follows from them."""
    wanted = place.wanted or Wanted(pool.size)
    count = Count(place, wanted, place.setback, largest=max(wanted.size, pool.size, pool.largest))
    failure: Problem | None = None
    for pod in place.members:
        if pod.deleting:
            count.ending += capping.takes_place(pod, now)
            continue
        why, problem = _verdict(pod, place, pool, now)
        if why is not None:
            count.delete.append(Deletion(pod, why))
            failure = problem or failure
        elif place.as_made is not None and place.as_made.is_ready(pod):
            (count.silent if _contact(pod, place) >= Contact.SILENT else count.ready).append(pod)
        else:
            count.starting.append(pod)
    setback = count.setback
    if failure is not None:
        count.setback = after_failure(setback, failure, now, jitter)
    elif setback is not None and any((pod.created or _LONG_AGO) > setback.since for pod in count.ready):
        count.setback = None
    return count


def _verdict(pod: PodView, place: Place, pool: Pool, now: datetime) -> tuple[Why | Fault | None, Problem | None]:
    """Why a member is not kept, and the problem if that is a failure of what it was made of."""
    if place.as_made is None:
        return Why.NO_POOL, None
    if pod.uid in place.refused:
        return Why.REFUSED, None
    if (fault := place.as_made.fault_of(pod)) is not None:
        told = place.failed.get(pod.uid)
        failed = fault is Fault.ENDED and not pod.disruption
        return fault, (told or problems.of_end(pod)) if failed else None
    if (told := place.failed.get(pod.uid)) is not None:
        return Why.FAILED, told
    # From when it has a node: a pod that waits for room or for a queue is kept (agent-sandbox#1735).
    ready = pod.member is not None and pod.member.ready is not None
    if ready and _contact(pod, place) is Contact.GONE:
        return Why.SILENT, None
    if not ready and pod.scheduled is not None and now >= pod.scheduled + timedelta(seconds=pool.start_timeout):
        return Why.FAILED, problems.of_overdue(pod)
    if pod.uid in place.outdated - place.reserved:
        return Why.OLD_VALUE, None
    return Why.NODE if pod.uid in place.closing - place.reserved else None, None


def _contact(pod: PodView, place: Place) -> Contact:
    return place.contacts.get(pod.uid, Contact.REPORTS)


def _give_way(counts: list[Count], now: datetime) -> None:
    """A member for each engine that waits in its namespace, those that start first; no refill there for a while."""
    for count in counts:
        place = count.place
        if place.waiting:
            count.paused_until = now + GIVE_WAY_PAUSE
            if place.gave_way is None or now >= place.gave_way + GIVE_WAY_PERIOD:
                # One node after the other: room on several nodes is none for a pod.
                victims = sorted(_least_useful(count), key=lambda pod: (pod in count.ready, pod.node))
                for node in place.waiting:
                    # One without a node waits for the same room, and would take it.
                    victim = next((pod for pod in victims if not node or pod.node in ("", node)), None)
                    if victim is not None:
                        victims.remove(victim)
                        count.drop(victim, Why.ROOM)
        elif place.waited is not None and now < place.waited + GIVE_WAY_PAUSE:
            count.paused_until = place.waited + GIVE_WAY_PAUSE


def _least_useful(count: Count) -> list[PodView]:
    """Members that nobody has reserved: silent ones, the latest of those that start, then the oldest that are ready."""
    pods = [*count.silent, *reversed(oldest_first(count.starting)), *oldest_first(count.ready)]
    return [pod for pod in pods if pod.uid not in count.place.reserved]


def _drop_surplus(counts: list[Count], pool: Pool) -> None:
    for count in counts:
        if (more := count.live - count.wanted.size) > 0:
            for pod in _least_useful(count)[:more]:
                count.drop(pod, Why.SURPLUS)
    over = sum(count.live for count in counts) - pool.cap
    for _ in range(max(0, over)):
        largest = max(counts, key=lambda count: count.live)
        victims = _least_useful(largest)
        if not victims:
            return
        largest.drop(victims[0], Why.SURPLUS)


def _drop_old(counts: list[Count], pool: Pool, now: datetime) -> None:
    """What `aging` says of each place."""
    rooms = _rooms(counts, pool, now)
    for count in counts:
        room = rooms.of(count.taken) if count.missing else 0
        going, count.age_again = aging.goes(
            oldest_first(count.ready), count.place.reserved, _progress(count, room, now), pool.max_age, now
        )
        for pod in going:
            count.drop(pod, Why.AGE)
        if going and count.setback is not None and count.setback.refused:
            # It leaves room: the long pause of a full quota would keep its successor away.
            until = min(count.setback.until, now + timedelta(seconds=SETBACK.base))
            count.setback = replace(count.setback, count=0, until=until)


def _progress(count: Count, room: int, now: datetime) -> aging.Progress:
    setbacks = count.setbacks
    may_come = not setbacks and not count.waiting
    if count.missing:
        may_come = may_come and count.paused_until is None and room > 0 and count.missing > count.held(now)
    return aging.Progress(
        size=count.wanted.size,
        coming=count.booting + (len(count.silent) + count.missing if may_come else 0),
        short=not may_come,
        failing=count.setback is not None and count.setback.problem.reason != problems.QUOTA,
        last=count.place.aged,
    )


def _hold_back(counts: list[Count], now: datetime) -> None:
    """The pace of each place that lacks members."""
    for count in counts:
        if count.missing:
            place = count.place
            count.pace = pacing.pace(
                size=count.wanted.size,
                ready=len(count.ready),
                last_claim=place.last_claim,
                held_since=place.held_since,
                now=now,
            )


def _rooms(counts: list[Count], pool: Pool, now: datetime) -> capping.Rooms:
    elsewhere = sum(not pod.deleting or capping.takes_place(pod, now) for pod in pool.elsewhere)
    return capping.Rooms(pool.cap, (count.taken for count in counts), elsewhere)


def _give_shares(counts: list[Count], pool: Pool) -> None:
    """What each namespace has of the cap for certain. Also one whose pods fail: others that took its places meanwhile
    would lose them again, and whoever sets a quota of his own could have it so again and again."""
    able = [count.wanted.size if count.place.as_made is not None else 0 for count in counts]
    for count, share in zip(counts, capping.shares(pool.cap, able), strict=True):
        count.share = share


def _even_out(counts: list[Count], pool: Pool, now: datetime) -> datetime | None:
    """A member above its namespace's share goes for a namespace that has less and may have more now, such as one that
    came later. One at a time, so that whoever comes and goes costs the others next to nothing. Answers when the next
    one may go."""
    poor = any(count.live < count.share and _may_grow(count, now) for count in counts)
    if not poor or _rooms(counts, pool, now).over <= 0:
        return None
    if pool.evened is not None and now < pool.evened + EVEN_PERIOD:
        return pool.evened + EVEN_PERIOD
    rich = [(count, victims) for count in counts if count.live > count.share and (victims := _least_useful(count))]
    if rich:
        count, victims = max(rich, key=lambda one: one[0].live - one[0].share)
        count.drop(victims[0], Why.EVEN)
    return now + EVEN_PERIOD


def _may_get(counts: list[Count], rooms: capping.Rooms, tokens: int, now: datetime) -> dict[str, int]:
    """How many each namespace may get, were there tokens for all: of the cap's places that are nobody's share the
    emptiest gets most. Whose turn it is does not follow from that: one whose members are taken away is the emptiest for
    ever."""
    emptiest = [(count.live, index) for index, count in enumerate(counts)]
    shares = {counts[index].place.namespace: 0 for _, index in sorted(emptiest)}
    heapq.heapify(emptiest)
    while emptiest:
        _, index = heapq.heappop(emptiest)
        count = counts[index]
        # One that may have no more now does not later in this pass: each new member takes a place of all.
        if count.created < tokens and _may_grow(count, now) and rooms.of(taken := count.taken) > 0:
            rooms.made(taken)
            count.created += 1
            shares[count.place.namespace] += 1
            heapq.heappush(emptiest, (count.live, index))
    return shares


def _may_grow(count: Count, now: datetime) -> bool:
    if count.place.as_made is None or count.paused_until is not None or count.missing <= count.held(now):
        return False
    if count.pace.most is not None and count.booting >= count.pace.most:
        return False
    return _may_try(count, now)


def _may_try(count: Count, now: datetime) -> bool:
    """Whether no failure keeps the next one away. One tries whether the next would fail as well."""
    return all(now >= one.until and count.live == len(count.ready) for one in count.setbacks)


def _next_look(counts: list[Count], pool: Pool, bucket: Bucket, rooms: capping.Rooms, now: datetime) -> datetime | None:
    times: list[datetime] = []
    for count in counts:
        times += [
            one.grace_ends_at + capping.ENDS_WITHIN
            for one in count.place.members
            if one.deleting and one.grace_ends_at is not None and not capping.is_stuck(one, now)
        ]
        missing = count.missing > 0 and count.place.as_made is not None
        if count.place.waiting:
            times.append(now + GIVE_WAY_PERIOD)
        elif missing and count.paused_until is not None:
            times.append(count.paused_until)
        elif missing and (later := [one.until for one in count.setbacks if one.until > now]):
            times.append(max(later))
        elif count.place.lost is not None and count.held(now):
            times.append(count.place.lost.again(count.largest, now))
        elif missing and count.pace.again is not None:
            times.append(count.pace.again)
        elif missing and bucket.tokens < 1 and rooms.of(count.taken) > 0:
            times.append(bucket.next_at(now))
        if count.place.unanswered:
            times.append(now + ASK_AGAIN)
        if count.silent:
            times.append(now + LOOK_AT_SILENT)
        if count.wanted.until is not None:
            times.append(count.wanted.until)
        ages = (aging.too_old_at(pod, pool.max_age) for pod in count.ready)
        # What is too old already waits for new members, and goes when one is ready, or at `age_again`.
        times += [at for at in (*ages, count.age_again) if at is not None and at > now]
        starts = (pod.scheduled for pod in count.starting)
        times += [at + timedelta(seconds=pool.start_timeout) for at in starts if at is not None]
    return min(times, default=None)

"""How many pods a warm pool gets and loses now, and why it is not full. Pure: clock and jitter are given.

Nothing is made twice: what was asked for and not answered counts as there, so the pool never has more pods than its
size, whatever gets lost (agent-sandbox#1215 made 5,537 for 500). A pool gives way: while an engine of a namespace waits
for quota or room, members there are deleted, and while engines claim members its refill waits (`pacing`). Must not
choose names, nor what a member is made of.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.warm import aging, capping, pacing, problems
from linkis_ecm.engine.warm.demand import SizeFrom, Wanted
from linkis_ecm.engine.warm.members import AsMade, Contact, Fault, oldest_first
from linkis_ecm.engine.warm.problems import Problem
from linkis_ecm.engine.warm.setbacks import SETBACK, Setback, after_failure, holds_back
from linkis_ecm.engine.warm.sharing import Bucket

# Between two deletions for an engine that waits: refused by a quota, it is tried again each 5 s
# (controller.pods.executor.QUOTA_RETRY) and sees the room then.
GIVE_WAY_PERIOD = timedelta(seconds=6)
# A pool that has given way is not refilled for so long.
GIVE_WAY_PAUSE = timedelta(seconds=60)
# A create without an answer is asked again after this time, under the same name.
ASK_AGAIN = timedelta(seconds=1)
# While a member is silent: an agent reports each 10 s, so one that reports again is found ready within two reports.
LOOK_AT_SILENT = timedelta(seconds=15)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Why(StrEnum):
    """Why a member is deleted. The value is a metric's label, beside those of Fault."""

    AGE = "age"
    FAILED = "failed"
    # Its node takes no new pods.
    NODE = "node"
    # Its agent has not reported for too long.
    SILENT = "silent"
    # A container beside the engine has the value that a Secret had before.
    OLD_VALUE = "secret"
    REFUSED = "refused"
    ROOM = "room"
    SURPLUS = "surplus"
    # The plugin has no pool any more, or none here.
    NO_POOL = "no_pool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A pool in one namespace, as it is known now.

    `members` are this installation's pods there. `as_made` is None where the plugin gives no pod there: `no_template`
    says why. `unanswered`: creates of which nothing is known. `waiting`: engines of the namespace that wait for quota
    or room which members have (`room`), for each the node on which one must go, or "". `gave_way`: when the last member
    was deleted for one; `waited`: when one was last seen to wait. `claims`: engines cannot take its members. `lost`:
    others took members away, and that is remembered. `failed` is what members' agents have reported, by the pods' uids;
    `reserved` members are an engine's, and `refused` ones could not be claimed. `closing` ones are on nodes that take
    no new pods, and `outdated` ones have values that a Secret had before. `contacts`: whether each agent reports.
    `last_claim` and `held_since` are those of `pacing.pace`, and `aged` is when a member last went for its age.
    `wanted`: how many there are to be; the pool's size where it is
    None.
    """

    namespace: str
    wanted: Wanted | None = None
    members: tuple[PodView, ...] = ()
    as_made: AsMade | None = None
    no_template: str = ""
    unanswered: int = 0
    waiting: tuple[str, ...] = ()
    gave_way: datetime | None = None
    waited: datetime | None = None
    setback: Setback | None = None
    claims: Setback | None = None
    lost: Setback | None = None
    failed: Mapping[str, Problem] = field(default_factory=dict)
    reserved: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    closing: frozenset[str] = frozenset()
    outdated: frozenset[str] = frozenset()
    # On nodes that can never give an engine's default size.
    cramped: frozenset[str] = frozenset()
    contacts: Mapping[str, Contact] = field(default_factory=dict)
    last_claim: datetime | None = None
    held_since: datetime | None = None
    aged: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A plugin's pool. `max_age` 0: no member is too old. `elsewhere`: its members in namespaces that have no pool."""

    size: int
    cap: int
    max_age: float
    start_timeout: float
    places: tuple[Place, ...]
    elsewhere: tuple[PodView, ...] = ()
    bucket: Bucket = field(default_factory=Bucket)


@dataclass(frozen=True, slots=True)
class Deletion:
    """A member to delete."""

    pod: PodView
    why: Why | Fault


@dataclass(frozen=True, slots=True)
class PlaceState:
    """What the status and the metrics say of a pool in one namespace. `ending` pods count for the cap alone, and those
    that are `stuck` for nothing."""

    namespace: str
    ready: int
    starting: int
    wanted: int
    ending: int = 0
    problem: Problem | None = None
    size_from: SizeFrom = SizeFrom.VALUE
    stuck: capping.Stuck | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done now. `create` has a namespace for each new member. `at`: when to look again.
    `stuck_elsewhere`: pods that do not end, in namespaces that have no pool."""

    create: tuple[str, ...]
    delete: tuple[Deletion, ...]
    setbacks: Mapping[str, Setback | None]
    # Where a member makes room now, and where an engine waits.
    gave_way: frozenset[str]
    waited: frozenset[str]
    # Where claims hold the refill back.
    held: frozenset[str]
    # Where members go for their age now.
    aged: frozenset[str]
    bucket: Bucket
    states: tuple[PlaceState, ...]
    stuck_elsewhere: int
    at: datetime | None


@dataclass(slots=True)
class _Count:
    """One place while a plan is made."""

    place: Place
    wanted: Wanted
    setback: Setback | None = None
    # While members that others took away hold the refill back.
    loss: Setback | None = None
    ready: list[PodView] = field(default_factory=list)
    starting: list[PodView] = field(default_factory=list)
    # Ready, and its agent does not report.
    silent: list[PodView] = field(default_factory=list)
    ending: int = 0
    delete: list[Deletion] = field(default_factory=list)
    paused_until: datetime | None = None
    pace: pacing.Pace = pacing.FREE
    created: int = 0
    # When the next one that is too old may go.
    age_again: datetime | None = None

    @property
    def setbacks(self) -> list[Setback]:
        return [one for one in (self.setback, self.place.claims, self.loss) if one is not None]

    @property
    def missing(self) -> int:
        return max(0, self.wanted.size - self.live)

    @property
    def live(self) -> int:
        return len(self.ready) + len(self.starting) + len(self.silent) + self.place.unanswered + self.created

    @property
    def taken(self) -> capping.Taken:
        return capping.Taken(self.wanted.size, self.live, self.ending + len(self.delete))

    @property
    def waiting(self) -> int:
        """Those that wait for a node or for a queue."""
        return sum(bool(pod.unschedulable or pod.gates) for pod in self.starting)

    @property
    def booting(self) -> int:
        """Those that take a node's time now, or soon."""
        return len(self.starting) - self.waiting + self.place.unanswered + self.created

    def drop(self, pod: PodView, why: Why | Fault) -> None:
        next(pods for pods in (self.ready, self.starting, self.silent) if pod in pods).remove(pod)
        self.delete.append(Deletion(pod, why))


def plan(pool: Pool, now: datetime, jitter: float) -> Plan:
    """What to do with a pool. `jitter` is a factor about 1, for pauses after failures."""
    counts = [_judged(place, pool, now, jitter) for place in pool.places]
    elsewhere = [Deletion(pod, Why.NO_POOL) for pod in pool.elsewhere if not pod.deleting]
    _give_way(counts, now)
    _drop_surplus(counts, pool)
    _drop_old(counts, pool, now)
    _hold_back(counts, now)
    bucket = pool.bucket.refilled(now)
    order, bucket = bucket.spent(_shares(counts, _rooms(counts, pool, now), int(bucket.tokens), now))
    made = Counter(order)
    for count in counts:
        count.created = made[count.place.namespace]
    rooms = _rooms(counts, pool, now)
    full = _full(pool, rooms, now)
    stuck = capping.stuck(pool.elsewhere, now)
    return Plan(
        create=order,
        delete=(*elsewhere, *(one for count in counts for one in count.delete)),
        setbacks={count.place.namespace: count.setback for count in counts},
        gave_way=_where(counts, Why.ROOM),
        waited=frozenset(count.place.namespace for count in counts if count.place.waiting),
        held=frozenset(count.place.namespace for count in counts if count.pace.held),
        aged=_where(counts, Why.AGE),
        bucket=bucket,
        states=tuple(_state(count, pool, full if rooms.of(count.taken) <= 0 else None, now) for count in counts),
        stuck_elsewhere=stuck.pods if stuck is not None else 0,
        at=_next_look(counts, pool, bucket, rooms, now),
    )


def _where(counts: list[_Count], why: Why) -> frozenset[str]:
    """The namespaces in which members go for that."""
    return frozenset(count.place.namespace for count in counts if any(one.why is why for one in count.delete))


def _judged(place: Place, pool: Pool, now: datetime, jitter: float) -> _Count:
    """The place's members, those that are not kept among the deletions, and the setback that follows from them."""
    count = _Count(place, place.wanted or Wanted(pool.size), place.setback)
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
    if place.lost is not None and holds_back(place.lost, count.ready, now):
        count.loss = place.lost
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


def _give_way(counts: list[_Count], now: datetime) -> None:
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


def _least_useful(count: _Count) -> list[PodView]:
    """Members that nobody has reserved: silent ones, the latest of those that start, then the oldest that are ready."""
    pods = [*count.silent, *reversed(oldest_first(count.starting)), *oldest_first(count.ready)]
    return [pod for pod in pods if pod.uid not in count.place.reserved]


def _drop_surplus(counts: list[_Count], pool: Pool) -> None:
    for count in counts:
        for pod in _least_useful(count)[: max(0, count.live - count.wanted.size)]:
            count.drop(pod, Why.SURPLUS)
    over = sum(count.live for count in counts) - pool.cap
    for _ in range(max(0, over)):
        largest = max(counts, key=lambda count: count.live)
        victims = _least_useful(largest)
        if not victims:
            return
        largest.drop(victims[0], Why.SURPLUS)


def _drop_old(counts: list[_Count], pool: Pool, now: datetime) -> None:
    """What `aging` says of each place."""
    rooms = _rooms(counts, pool, now)
    for count in counts:
        room = rooms.of(count.taken)
        going, count.age_again = aging.goes(
            oldest_first(count.ready), count.place.reserved, _progress(count, room), pool.max_age, now
        )
        for pod in going:
            count.drop(pod, Why.AGE)
        if going and count.setback is not None and count.setback.refused:
            # It leaves room: the long pause of a full quota would keep its successor away.
            until = min(count.setback.until, now + timedelta(seconds=SETBACK.base))
            count.setback = replace(count.setback, count=0, until=until)


def _progress(count: _Count, room: int) -> aging.Progress:
    setbacks = count.setbacks
    may_come = not setbacks and not count.waiting
    if count.missing:
        may_come = may_come and count.paused_until is None and room > 0
    return aging.Progress(
        size=count.wanted.size,
        coming=count.booting + (len(count.silent) + count.missing if may_come else 0),
        short=not may_come,
        failing=count.setback is not None and count.setback.problem.reason != problems.QUOTA,
        last=count.place.aged,
    )


def _hold_back(counts: list[_Count], now: datetime) -> None:
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


def _rooms(counts: list[_Count], pool: Pool, now: datetime) -> capping.Rooms:
    elsewhere = sum(not pod.deleting or capping.takes_place(pod, now) for pod in pool.elsewhere)
    return capping.Rooms(pool.cap, (count.taken for count in counts), elsewhere)


def _shares(counts: list[_Count], rooms: capping.Rooms, tokens: int, now: datetime) -> dict[str, int]:
    """How many each namespace may get, were there tokens for all: of the cap the emptiest gets most. Whose turn it is
    does not follow from that: one whose members are taken away is the emptiest for ever."""
    emptiest = [(count.live, index) for index, count in enumerate(counts)]
    shares = {counts[index].place.namespace: 0 for _, index in sorted(emptiest)}
    heapq.heapify(emptiest)
    while emptiest:
        _, index = heapq.heappop(emptiest)
        count = counts[index]
        # One that may have no more now does not later in this pass: each new member takes a place of all.
        if count.created < tokens and rooms.of(count.taken) > 0 and _may_grow(count, now):
            count.created += 1
            rooms.made()
            shares[count.place.namespace] += 1
            heapq.heappush(emptiest, (count.live, index))
    return shares


def _may_grow(count: _Count, now: datetime) -> bool:
    if count.place.as_made is None or count.paused_until is not None or not count.missing:
        return False
    if count.pace.most is not None and count.booting >= count.pace.most:
        return False
    # One tries whether the next would fail as well.
    return all(now >= one.until and count.live == len(count.ready) for one in count.setbacks)


def _full(pool: Pool, rooms: capping.Rooms, now: datetime) -> Problem:
    """What is said where there is no room. A higher cap is no remedy where old pods are about to leave some."""
    if not rooms.waits_for_ends:
        return Problem(problems.CAP)
    pods = (*pool.elsewhere, *(pod for place in pool.places for pod in place.members))
    return problems.of_ends([pod for pod in pods if pod.deleting and capping.takes_place(pod, now)])


def _state(count: _Count, pool: Pool, full: Problem | None, now: datetime) -> PlaceState:
    untried = count.place.claims.problem if count.place.claims is not None else None
    problem = _problem(count, full) or count.wanted.problem or untried
    return PlaceState(
        namespace=count.place.namespace,
        ready=len(count.ready),
        starting=len(count.starting) + len(count.silent) + count.place.unanswered,
        wanted=count.wanted.size,
        ending=count.ending + len(count.delete),
        problem=problems.with_old(problem, aging.late(count.ready, pool.max_age, now)),
        size_from=count.wanted.source,
        stuck=capping.stuck(count.place.members, now),
    )


def _problem(count: _Count, full: Problem | None) -> Problem | None:
    """Why the pool is not full; None where it is, or where it only takes its time. `full`: it may have no more."""
    if count.place.as_made is None:
        return Problem(problems.NO_TEMPLATE, count.place.no_template)
    if count.place.claims is not None and count.place.claims.problem.reason is problems.CLAIMS:
        # Also of a full pool: it is of no use.
        return count.place.claims.problem
    if count.paused_until is not None and count.missing:
        return Problem(problems.GIVES_WAY)
    if count.setback is not None and len(count.ready) < count.wanted.size:
        return count.setback.problem
    if count.place.lost is not None and len(count.ready) < count.wanted.size:
        # Also once a new one is ready: the next loss makes the pause longer.
        return count.place.lost.problem
    found = next((one for pod in oldest_first(count.starting) if (one := problems.of_start(pod)) is not None), None)
    if found is not None:
        return found
    if count.silent and len(count.ready) < count.wanted.size:
        return problems.of_silent(oldest_first(count.silent))
    if count.missing and full is not None:
        return full
    fixed = next((why for pod in _of_each_size(count.ready) if (why := count.place.as_made.unresizable(pod))), "")
    if fixed:
        return problems.of_fixed_size(fixed)
    cramped = bool(count.ready) and all(pod.uid in count.place.cramped for pod in count.ready)
    return Problem(problems.NODES_TOO_SMALL) if cramped else None


def _of_each_size(pods: list[PodView]) -> Iterable[PodView]:
    """One for each size: a LimitRange that was changed meanwhile gives later members another one."""
    return {
        (pod.cpu_request, pod.cpu_limit, pod.memory_limit, pod.qos, pod.decides_class): pod for pod in pods
    }.values()


def _next_look(
    counts: list[_Count], pool: Pool, bucket: Bucket, rooms: capping.Rooms, now: datetime
) -> datetime | None:
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

"""A warm pool in its namespaces: what is known of it now, the count of one namespace while a plan is made, and what is
told of it. Pure. Must not decide what is made or deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.warm import aging, capping, pacing, problems
from linkis_ecm.engine.warm.demand import SizeFrom, Wanted
from linkis_ecm.engine.warm.members import AsMade, Contact, Fault, oldest_first
from linkis_ecm.engine.warm.problems import Problem
from linkis_ecm.engine.warm.setbacks import Losses, Setback
from linkis_ecm.engine.warm.sharing import Bucket


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
    # For another namespace's share of the cap.
    EVEN = "share"
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
    lost: Losses | None = None
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
    # The size that its schedule or scaling may give it at most; 0: `size`.
    largest: int = 0
    # When a member last went for a namespace's share.
    evened: datetime | None = None


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


@dataclass(slots=True)
class Count:
    """One place while a plan is made."""

    place: Place
    wanted: Wanted
    setback: Setback | None = None
    # The size that it may ever want, and its own part of the pool's cap.
    largest: int = 0
    share: int = 0
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
        return [one for one in (self.setback, self.place.claims) if one is not None]

    @property
    def missing(self) -> int:
        return max(0, self.wanted.size - self.live)

    @property
    def live(self) -> int:
        return len(self.ready) + len(self.starting) + len(self.silent) + self.place.unanswered + self.created

    @property
    def taken(self) -> capping.Taken:
        return capping.Taken(self.wanted.size, self.live, self.ending + len(self.delete), self.share)

    @property
    def waiting(self) -> int:
        """Those that wait for a node or for a queue."""
        return sum(bool(pod.unschedulable or pod.gates) for pod in self.starting)

    @property
    def booting(self) -> int:
        """Those that take a node's time now, or soon."""
        return len(self.starting) - self.waiting + self.place.unanswered + self.created

    def held(self, now: datetime) -> int:
        """How many of those that lack wait, since others took so many away."""
        lost, lacking = self.place.lost, self.missing + self.created
        return lost.held(lacking, self.largest, now) if lost is not None else 0

    def lost_at(self, now: datetime) -> Losses | None:
        return self.place.lost.settled(self.largest, now) if self.place.lost is not None else None

    def drop(self, pod: PodView, why: Why | Fault) -> None:
        next(pods for pods in (self.ready, self.starting, self.silent) if pod in pods).remove(pod)
        self.delete.append(Deletion(pod, why))


def pods_that_end(pool: Pool, now: datetime) -> Problem | None:
    """Of pods that end and count for the cap: until when. None where there are none."""
    pods = (*pool.elsewhere, *(pod for place in pool.places for pod in place.members))
    ending = [pod for pod in pods if pod.deleting and capping.takes_place(pod, now)]
    return problems.of_ends(ending) if ending else None


def no_room(count: Count, rooms: capping.Rooms, ends: Problem | None) -> Problem | None:
    """Why it may have no more; None where it may. A higher cap is no remedy where `ends` are about to leave some."""
    if rooms.of(count.taken) > 0:
        return None
    return ends if ends is not None and rooms.later(count.taken) > 0 else Problem(problems.CAP)


def state_of(count: Count, pool: Pool, full: Problem | None, now: datetime) -> PlaceState:
    untried = count.place.claims.problem if count.place.claims is not None else None
    problem = _problem(count, full, now) or count.wanted.problem or untried
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


def _problem(count: Count, full: Problem | None, now: datetime) -> Problem | None:
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
    if count.place.lost is not None and count.held(now):
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

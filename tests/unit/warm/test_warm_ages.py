"""How old a pool's members get: rules one by one, and whole pools over hours of virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.warm import aging, problems, setbacks, sizing
from linkis_ecm.engine.warm.places import Place, Pool, Why
from linkis_ecm.engine.warm.problems import Problem
from linkis_ecm.engine.warm.setbacks import Setback
from linkis_ecm.engine.warm.sharing import Bucket
from linkis_ecm.engine.warm.sizing import Plan
from linkis_ecm.model.reasons import Reason
from tests.unit.warm.test_warm_sizing import AS_MADE, BROKEN, NOW, at, deleted, place, plan, pod, ready, starting

FULL = Problem(problems.QUOTA, "exceeded quota: q, requested: pods=1, used: pods=20, limited: pods=20")


def names(made: Plan) -> list[str]:
    return [one.pod.name for one in made.delete if one.why is Why.AGE]


def test_a_quarter_of_the_pool_is_replaced_at_a_time_and_one_at_least() -> None:
    old = ready(8, age=1000)
    assert names(plan(place(*old), size=8, max_age=900)) == ["r0", "r1"]
    assert names(plan(place(*old[1:]), size=8, max_age=900)) == ["r1"]
    assert names(plan(place(*old[1:], *starting(1)), size=8, max_age=900)) == ["r1"]
    assert names(plan(place(*old[2:]), size=8, max_age=900)) == []
    assert deleted(plan(place(*old[:3]), max_age=900)) == [("r0", "age")]
    assert names(plan(place(*old[:3], reserved=frozenset({"uid-r0"})), max_age=900)) == ["r1"]
    assert plan(place(*old[:3]), max_age=0).delete == ()


def test_members_of_one_age_are_not_all_too_old_at_once() -> None:
    times = {aging.too_old_at(pod(f"p{i}", age=0), 1000) for i in range(20)}
    assert len(times) > 15
    assert all(at(800) <= one <= at(1000) for one in times if one is not None)
    young = ready(3, age=10)
    first = min(one for pod in young if (one := aging.too_old_at(pod, 100)) is not None)
    assert plan(place(*young), max_age=100).at == first


@pytest.mark.parametrize(
    "lack",
    [
        {"setback": Setback(9, at(-5), at(200), FULL, refused=True)},
        {"waited": at(-1)},
        {"waiting_starts": {"unschedulable": "0/1 nodes are available: 1 Insufficient cpu.", "scheduled": None}},
        {"waiting_starts": {"gates": ("kueue.x-k8s.io/admission",), "scheduled": None}},
        {"cap": 4},
    ],
)
def test_where_room_is_short_one_goes_at_a_time_and_the_next_when_its_successor_is_ready(lack: dict[str, Any]) -> None:
    lack = dict(lack)
    cap = lack.pop("cap", 20)
    waits = lack.pop("waiting_starts", None)
    pods = [*ready(4, age=1000), *(starting(1, **waits) if waits else ())]

    def made(*others: PodView, **more: Any) -> Plan:
        return plan(place(*pods, *others, **lack, **more), size=8, cap=cap, max_age=900)

    assert names(made()) == ["r0"]
    assert names(made(aged=at(-10))) == []
    assert names(made(aged=at(-113))) == ["r0"]
    if cap == 20:
        assert names(made(pod("new", age=10), aged=at(-10))) == ["r0"]
        assert names(made(pod("boots", ready=False, age=1), aged=at(-113))) == []


def test_after_one_has_left_room_a_full_quota_is_asked_again_soon() -> None:
    setback = Setback(9, at(-100), at(200), FULL, refused=True)
    made = plan(place(*ready(4, age=1000), setback=setback), size=8, max_age=900)
    assert made.setbacks["team"] == replace(setback, count=0, until=at(2))


def test_while_starts_fail_the_old_ones_last_for_one_max_age_more() -> None:
    setback = Setback(9, at(-100), at(200), BROKEN)
    assert names(plan(place(*ready(3, age=1199), setback=setback), max_age=900)) == []
    made = plan(place(*ready(3, age=1199), setback=setback), max_age=900)
    assert made.at == at(1)
    assert names(plan(place(*ready(3, age=1200), setback=setback), max_age=900)) == ["r0"]
    assert plan(place(*ready(2, age=1210), setback=setback, aged=at(-10)), max_age=900).at == at(200)
    assert names(plan(place(*ready(2, age=1500), setback=setback, aged=at(-300)), max_age=900)) == ["r0"]
    # A single one is kept until twice its age.
    assert names(plan(place(*ready(1, age=1799), setback=setback), size=1, max_age=900)) == []
    assert names(plan(place(*ready(1, age=1800), setback=setback), size=1, max_age=900)) == ["r0"]


def test_members_that_are_older_than_they_should_be_are_told_with_what_keeps_them() -> None:
    def problem(*places: Place, **more: Any) -> Problem | None:
        return plan(*places, max_age=900, **more).states[0].problem

    assert problem(place(*ready(3, age=980))) is None
    assert problem(place(*ready(2, age=1000), *starting(1))) == Problem(problems.OLD, "2 pods are older.")
    broken = problem(place(*ready(1, age=1000), setback=Setback(1, at(-1), at(1), BROKEN)))
    assert broken is not None
    assert (broken.reason, broken.details) == (
        problems.PRELOAD,
        "No module named polars. One pod is older than spec.warmPool.maxAge, since new ones do not come: they are"
        " replaced one at a time.",
    )
    assert problem(place(*ready(3, age=1000)), size=3, cap=3) is not None


# Whole pools.


@dataclass
class Life:
    """A pool in one namespace over time. Members end within 5 s; a claim takes the oldest that is ready."""

    size: int
    boot: float
    max_age: float = 600.0
    # Pods that a quota admits, and that nodes have room for.
    quota: int = 1000
    places: int = 1000
    fails: Callable[[float], bool] = lambda seconds: False
    claims: Callable[[float], int] = lambda seconds: 0
    step: float = 1.0
    now: datetime = NOW
    pods: dict[str, PodView] = field(default_factory=dict)
    ends: dict[str, datetime] = field(default_factory=dict)
    made: int = 0
    aged: datetime | None = None
    setback: Setback | None = None
    # That engines cannot take members, from the first full pool on.
    unusable: Setback | None = None
    last_claim: datetime | None = None
    held_since: datetime | None = None
    bucket: Bucket = field(default_factory=Bucket)
    told: set[str] = field(default_factory=set)
    # At each moment: seconds, how many are ready, and the greatest age of those since they got a node.
    seen: list[tuple[float, int, float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return (self.now - NOW).total_seconds()

    def run(self, seconds: float) -> Life:
        until = self.seconds + seconds
        while self.seconds < until:
            self._world()
            self._plan()
            self.now += timedelta(seconds=self.step)
        return self

    def _world(self) -> None:
        for name in [name for name, end in self.ends.items() if end <= self.now]:
            del self.pods[name], self.ends[name]
        for name in [name for name, one in self.pods.items() if not one.deleting]:
            placed = sum(one.scheduled is not None for one in self.pods.values())
            if self.pods[name].scheduled is None and placed < self.places:
                self.pods[name] = replace(self.pods[name], scheduled=self.now, unschedulable="")
            one = self.pods[name]
            booted = one.scheduled is not None and one.scheduled + timedelta(seconds=self.boot) <= self.now
            if booted and one.member is not None and one.member.ready is None and one.phase == "Running":
                fails = self.fails(self.seconds)
                self.pods[name] = replace(one, phase="Failed") if fails else replace(one, member=pod(name).member)
        for _ in range(self.claims(self.seconds)):
            if free := self.ready():
                del self.pods[min(free, key=lambda one: (one.created, one.name)).name]
                self.last_claim = self.now

    def ready(self) -> list[PodView]:
        return [one for one in self.pods.values() if AS_MADE.is_ready(one)]

    def _plan(self) -> None:
        members = tuple(self.pods.values())
        here = place(
            *members,
            aged=self.aged,
            setback=self.setback,
            last_claim=self.last_claim,
            held_since=self.held_since,
            claims=self.unusable if self.seconds > self.boot + 3 else None,
        )
        pool = Pool(
            size=self.size, cap=2 * self.size, max_age=self.max_age, start_timeout=120, places=(here,),
            bucket=self.bucket,
        )  # fmt: skip
        made = sizing.plan(pool, self.now, 1)
        self.bucket, self.setback = made.bucket, made.setbacks["team"]
        self.aged = self.now if made.aged else self.aged
        self.held_since = (self.held_since or self.now) if made.held else None
        for one in made.delete:
            self.pods[one.pod.name] = replace(one.pod, deleting=True)
            self.ends[one.pod.name] = self.now + timedelta(seconds=5)
        for _ in made.create:
            if len(self.pods) >= self.quota:
                self.setback = setbacks.after_failure(self.setback, FULL, self.now, 1, refused=True)
                continue
            self.made += 1
            name = f"m{self.made}"
            words = "0/1 nodes are available: 1 Too many pods."
            self.pods[name] = pod(name, ready=False, created=self.now, scheduled=None, unschedulable=words)
            if self.setback is not None and self.setback.refused:
                self.setback = None
        (state,) = made.states
        if state.problem is not None and "older" in state.problem.message:
            self.told.add(state.problem.reason.name)
        ages = [(self.now - (one.scheduled or NOW)).total_seconds() for one in self.ready()]
        self.seen.append((self.seconds, len(ages), max(ages, default=0.0)))

    def oldest(self, since: float = 0) -> float:
        return max(age for seconds, _, age in self.seen if seconds >= since)

    def fewest(self, since: float) -> int:
        return min(number for seconds, number, _ in self.seen if seconds >= since)


SIZES = [(1, 1.0), (8, 1.0), (40, 1.0), (1, 40.0), (8, 40.0), (40, 40.0)]


@pytest.mark.parametrize(("size", "boot"), SIZES)
def test_a_pool_that_nobody_uses_is_through_by_max_age_and_keeps_three_quarters(size: int, boot: float) -> None:
    life = Life(size, boot).run(2400)
    # The ones that are due last still wait for a quarter that boots.
    assert life.oldest() <= 600 + 2 * boot + 2
    assert life.fewest(since=boot + 3) >= size - max(1, size // 4)
    assert life.made < 5.5 * size
    assert life.told == set()


@pytest.mark.parametrize(("size", "boot"), SIZES)
@pytest.mark.parametrize("every", [1, 90])
def test_claims_do_not_keep_old_members(size: int, boot: float, every: int) -> None:
    life = Life(size, boot, claims=lambda seconds: int(seconds % every == 0)).run(1800)
    assert life.oldest() <= 600 + 2 * boot + 2


@pytest.mark.parametrize(("size", "boot"), SIZES)
@pytest.mark.parametrize("reason", [problems.CLAIMS, problems.UNTRIED])
def test_members_that_no_engine_can_take_are_replaced_in_time(size: int, boot: float, reason: Reason) -> None:
    life = Life(size, boot, unusable=Setback(2, at(0), at(2), Problem(reason, "refused"))).run(2700)
    # One after the other; the next one is due each 600 s / size, also before the last one's successor is ready.
    one_by_one = size * (boot + 7)
    assert life.oldest() <= 600 + min(one_by_one, 600)
    assert life.fewest(since=boot + 20) >= size - max(1, int(one_by_one / 60))


@pytest.mark.parametrize(("size", "boot"), SIZES)
def test_a_pool_that_cannot_fill_for_room_replaces_what_is_too_old(size: int, boot: float) -> None:
    half = max(1, size // 2)
    for lack in ({"quota": half}, {"places": half}):
        life = Life(size, boot, **lack).run(2700)
        # The next one is due each 600 s / size, whether or not the last one's successor is ready by then.
        assert life.oldest() <= 600 + 2 * (boot + 10) + 300
        assert life.fewest(since=boot + 20) >= half - max(1, half // 4)


@pytest.mark.parametrize(("size", "boot"), SIZES)
def test_while_starts_fail_a_pool_is_emptied_over_one_max_age_and_not_at_once(size: int, boot: float) -> None:
    """Starts fail from 300 s on: all are too old at 600 s, a quarter goes before that is known, and none is over twice
    as old."""
    life = Life(size, boot, fails=lambda seconds: seconds > 300).run(1500)
    left = {round(seconds): number for seconds, number, _ in life.seen}
    kept = size - max(1, size // 4)
    assert left[600] >= kept
    assert left[900] >= kept // 3
    assert life.oldest() <= 1200 + 5
    assert left[1400] == 0
    if kept:
        assert life.told == {"MemberEnded"}
    mended = Life(size, boot, fails=lambda seconds: 300 < seconds < 900).run(2400)
    assert mended.seen[-1][1] >= size - max(1, size // 4)
    assert mended.oldest(since=1500) <= 600 + 2 * boot + 2


def test_members_whose_successors_take_long_are_told() -> None:
    life = Life(8, 110.0).run(1800)
    assert life.told == {"MembersTooOld"}
    assert life.oldest() <= 1100

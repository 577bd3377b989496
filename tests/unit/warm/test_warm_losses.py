"""Members that others take away: what counts as that, how fast they are made again, and whose places they leave."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.engine.pod_view import Member, PodView
from linkis_ecm.engine.warm import capping, problems, setbacks, sizing
from linkis_ecm.engine.warm.demand import Wanted
from linkis_ecm.engine.warm.places import Pool
from linkis_ecm.engine.warm.setbacks import Losses, Setback
from linkis_ecm.engine.warm.sharing import Bucket
from tests.unit.warm.test_warm_sizing import BROKEN, NOW, at, deleted, place, plan, pod, ready

BEFORE = pod("m")
LOST = problems.of_loss(BEFORE, "was deleted")


def how(before: Any = BEFORE, *, strange: bool = False, **changes: Any) -> str:
    return setbacks.taken_away(before, replace(before, **changes), strange=strange)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"deleting": True}, "was deleted"),
        ({"disruption": "EvictionByEvictionAPI"}, "was evicted (EvictionByEvictionAPI)"),
        ({"disruption": "EvictionByEvictionAPI", "deleting": True}, "was evicted (EvictionByEvictionAPI)"),
        ({"member": None}, "was taken out of the pool"),
        ({"member": replace(BEFORE.member or Member("", ""), pool="other")}, "was changed"),
        ({"member": replace(BEFORE.member or Member("", ""), template="other")}, "was changed"),
        ({"instance": "other"}, "was changed"),
        ({"image": "evil:1"}, "was changed"),
        ({"restarts": 1}, "was changed"),
        ({"ephemeral": True}, "was changed"),
        ({"strange": True}, "was changed"),
        ({"phase": "Failed"}, "ended after it was ready"),
        ({"version": 2}, ""),
        ({"ready": True}, ""),
    ],
)
def test_what_others_do_to_a_member_is_told(changes: dict[str, Any], said: str) -> None:
    assert how(**changes) == said


def test_a_pod_that_is_gone_was_deleted_and_counts_once() -> None:
    assert setbacks.taken_away(BEFORE, None, strange=False) == "was deleted"
    for told in (
        replace(BEFORE, deleting=True), replace(BEFORE, phase="Failed"), replace(BEFORE, member=None)
    ):  # fmt: skip
        assert setbacks.taken_away(told, None, strange=False) == ""
    assert how(replace(BEFORE, disruption="EvictionByEvictionAPI"), deleting=True) == ""


def test_one_that_ends_before_it_is_ready_and_goes_at_once_counts() -> None:
    ended = pod("s", ready=False, phase="Failed")
    assert "before it was ready" in setbacks.taken_away(ended, None, strange=False)
    assert "before it was ready" in how(ended, deleting=True)
    assert how(ended, version=2) == ""


def test_one_that_was_not_ready_ends_by_itself() -> None:
    assert how(pod("s", ready=False), phase="Failed") == ""


def lost(number: int, before: Losses | None = None, seconds: float = 0) -> Losses:
    for _ in range(number):
        before = setbacks.after_loss(before, LOST, at(seconds))
    assert before is not None
    return before


def test_a_burst_of_losses_is_made_good_at_once_and_then_six_a_minute() -> None:
    """A rolling upgrade of eight nodes takes all of them eight times at most; who goes on gets as many as an autoscaler
    may take."""
    assert lost(20).held(1, 1, NOW) == 0
    assert lost(32).held(4, 4, NOW) == 0
    assert lost(320).held(40, 40, NOW) == 0
    beyond = lost(36)
    assert [beyond.held(4, 4, at(seconds)) for seconds in (0, 9.9, 10, 20, 39.9, 40)] == [4, 4, 3, 2, 1, 0]
    assert beyond.held(2, 4, NOW) == 2
    assert [(beyond.again(4, at(seconds)) - NOW).total_seconds() for seconds in (0, 5, 39.9999)] == [10, 10, 40.0099]
    # What claims took beside is made.
    assert lost(33).held(4, 4, NOW) == 1


def test_steady_losses_below_the_pace_are_never_held() -> None:
    """Karpenter's consolidation, 4 of 40 each 45 s: with pauses that double the pool was half empty for hours."""
    some: Losses | None = None
    for turn in range(200):
        some = lost(4, some, 45 * turn)
        assert some.held(4, 40, at(45 * turn)) == 0
    alone: Losses | None = None
    for turn in range(200):
        alone = lost(1, alone, 10.01 * turn)
        assert alone.held(1, 1, at(10.01 * turn)) == 0


def test_what_is_told_has_the_number_since_when_and_the_last_one() -> None:
    some = lost(3)
    last = setbacks.after_loss(some, problems.of_loss(pod("z", node="n1"), "was silent for too long"), at(90))
    assert "4 went since 2026-11-27 12:00:00 UTC. The last one: z, on node n1, was silent for too long." in (
        last.problem.message
    )


@pytest.mark.parametrize(
    ("changes", "why", "said"),
    [
        ({}, "failed", "failed"),
        ({}, "silent", "silent"),
        ({}, "secret", "Secret"),
        ({"member": replace(BEFORE.member or Member("", ""), ready=None)}, "ended", "ended before"),
        ({}, "ended", ""),
        ({}, "age", ""),
        ({}, "surplus", ""),
        ({}, "tampered", ""),
    ],
)
def test_what_others_can_bring_about_is_a_loss_too(changes: dict[str, Any], why: str, said: str) -> None:
    found = setbacks.went_for_nothing(replace(BEFORE, **changes), why)
    assert said in found
    assert bool(said) == bool(found)


def test_losses_are_forgotten_and_a_long_attack_is_not_held_against_a_pool_for_hours() -> None:
    kept = lost(10_000).settled(4, NOW)
    assert kept is not None
    assert (kept.held(4, 4, NOW), kept.held(4, 4, at(40)), kept.spent) == (4, 0, 36)
    assert kept.settled(4, at(359.9)) is not None
    assert kept.settled(4, at(360)) is None
    # A clock that was put back gives nothing and takes nothing.
    assert kept.held(4, 4, at(-100)) == 4


def test_losses_beyond_the_burst_hold_their_namespace_back_alone() -> None:
    made = plan(place(*ready(1), lost=lost(26)), place(namespace="other"))
    assert (Counter(made.create), made.at) == ({"other": 3}, at(10))
    assert made.states[0].problem == lost(26).problem
    assert made.states[1].problem is None
    assert made.losses == {"team": replace(lost(26), at=NOW)}
    again = plan(place(*ready(1), lost=lost(25)))
    assert (again.create, again.states[0].problem) == (("team",), lost(25).problem)
    assert plan(place(*ready(1), lost=lost(24))).states[0].problem is None
    assert plan(place(*ready(3), lost=lost(26))).states[0].problem is None


@pytest.mark.parametrize(
    ("disruption", "said", "not_said"),
    [
        ("", "audit log", "drain"),
        ("EvictionByEvictionAPI", "A drain", "right away"),
        ("PreemptionByScheduler", "priorityClassName", "audit log"),
        ("DeletionByTaintManager", "`kubectl describe node n1`", "audit log"),
        ("DeletionByPodGC", "Its node n1 is gone", "audit log"),
        ("TerminationByKubelet", "lacked memory", "audit log"),
        ("Of{another}", "audit log", "drain"),
    ],
)
def test_who_takes_them_away_with_the_right_to_is_named(disruption: str, said: str, not_said: str) -> None:
    message = problems.of_loss(pod("m", disruption=disruption, node="n1"), "was evicted").message
    assert said in message
    assert not_said not in message
    assert "six a minute" in message


@given(cap=st.integers(0, 60), sizes=st.lists(st.integers(0, 20), max_size=8))
def test_shares_are_equal_but_for_those_that_want_less(cap: int, sizes: list[int]) -> None:
    found = capping.shares(cap, sizes)
    assert sum(found) <= cap
    assert all(share <= size for share, size in zip(found, sizes, strict=True))
    most = max(found, default=0)
    assert all(share in (size, most) for share, size in zip(found, sizes, strict=True))
    wants_more = sum(share < size for share, size in zip(found, sizes, strict=True))
    assert not wants_more or cap - sum(found) < wants_more, "one more for each of them is not left"


def test_a_share_is_kept_for_a_namespace_that_is_held_back() -> None:
    """One whose members were taken away for a moment had none for ever: the others took its places under the cap."""
    held = place(lost=lost(60), namespace="drained")
    made = plan(*(place(*ready(3), namespace=name) for name in "ab"), held, size=6, cap=9)
    assert made.create == ()
    assert [one.problem and one.problem.reason for one in made.states] == [problems.CAP, problems.CAP, problems.REMOVED]
    back = plan(*(place(*ready(3), namespace=name) for name in "ab"), place(namespace="drained"), size=6, cap=9)
    assert back.create == ("drained",) * 3


def test_a_share_of_a_namespace_whose_pods_fail_stays_its_own() -> None:
    """The others took it, and lost it again with each try; who set a quota of his own had that 200 times a minute."""
    broken = place(namespace="broken", setback=Setback(5, at(0), at(32), BROKEN))
    assert plan(place(*ready(3), namespace="a"), broken, size=6, cap=6).create == ()
    due = replace(broken, setback=Setback(5, at(-40), at(-8), BROKEN))
    tried = plan(place(*ready(3), namespace="a"), due, size=6, cap=6)
    assert (tried.create, deleted(tried)) == (("broken",), [])


def test_what_is_above_its_share_goes_for_a_namespace_that_came_later_one_at_a_time() -> None:
    rich = (place(*ready(5), namespace="a"), place(*ready(4), namespace="b"))
    made = plan(*rich, place(namespace="c"), size=6, cap=9)
    assert (made.create, deleted(made), made.evened, made.at) == (("c",), [("r0", "share")], True, at(10))
    again = plan(*rich, place(namespace="c"), size=6, cap=9, evened=at(-3))
    assert (again.create, deleted(again), again.evened, again.at) == ((), [], False, at(7))
    full = plan(*(place(*ready(3), namespace=name) for name in "abc"), size=6, cap=9)
    assert (deleted(full), full.at) == ([], None)


@pytest.mark.parametrize("where", ["a place", "elsewhere"])
def test_pods_that_end_for_long_take_nothing_of_anothers_share(where: str) -> None:
    """Copies of a member that somebody deletes with a grace of a day kept all others from any refill."""
    long = tuple(pod(f"c{number}", deleting=True, node="n1", grace_ends_at=at(86400)) for number in range(4))
    ends = place(*ready(4), *(long if where == "a place" else ()), namespace="hostile")
    made = plan(ends, place(namespace="team"), size=4, cap=8, elsewhere=long if where == "elsewhere" else ())
    assert made.create == ("team",) * 4
    # His own share is taken by them.
    own = plan(place(*long, namespace="hostile"), place(*ready(4), namespace="team"), size=4, cap=8)
    assert own.create == () if where == "a place" else True


def test_the_burst_is_that_of_the_largest_size_whatever_the_size_is_now() -> None:
    """With scaling the burst was given anew with each window."""
    low = plan(place(lost=lost(310), wanted=Wanted(1)), size=1, largest=40)
    assert low.losses["team"].spent == 310
    high = plan(place(lost=lost(310), wanted=Wanted(40)), size=1, largest=40, cap=60)
    assert len(high.create) == 20
    assert plan(place(lost=lost(359), wanted=Wanted(40)), size=1, largest=40, cap=60).create == ("team",)


def test_nobody_loses_a_member_for_one_that_may_have_none_now() -> None:
    rich = place(*ready(5), namespace="a")
    for poor in (
        place(namespace="c", lost=lost(60)),
        place(namespace="c", waiting=("",)),
        place(namespace="c", as_made=None),
    ):
        assert deleted(plan(rich, poor, size=6, cap=5)) == []
    claimed = place(*ready(2), namespace="c", last_claim=at(-0.5), held_since=at(-0.5))
    assert deleted(plan(place(*ready(4), namespace="a"), claimed, size=6, cap=6)) == []
    assert len(deleted(plan(place(*ready(4), namespace="a"), replace(claimed, last_claim=None), size=6, cap=6))) == 1
    kept = place(*ready(5), namespace="a", reserved=frozenset(f"uid-r{number}" for number in range(5)))
    assert deleted(plan(kept, place(namespace="c"), size=6, cap=5)) == []


def held_pod(name: str) -> PodView:
    return pod(name, deleting=True, node="n1", grace_ends_at=at(5))


def test_tokens_go_round_the_namespaces() -> None:
    """One whose members never stay is the emptiest at each pass, and took each token."""
    bucket, made, kept = Bucket(0.0, NOW), Counter[str](), 0
    for step in range(1, 17):
        # A twentieth of a second: one token.
        places = (place(namespace="burns"), place(*ready(kept), namespace="team"))
        pool = Pool(size=8, cap=60, max_age=0, start_timeout=120, places=places, bucket=bucket)
        planned = sizing.plan(pool, at(step * 0.05 + 0.001), 1)
        bucket, kept = planned.bucket, kept + planned.create.count("team")
        made.update(planned.create)
    assert made == {"burns": 8, "team": 8}


def test_turns_are_remembered_of_the_pools_own_namespaces_alone() -> None:
    order, bucket = Bucket(3.0, NOW).spent({"a": 2, "b": 2})
    assert order == ("a", "b", "a")
    assert Bucket(1.0, NOW, bucket.turns).spent({"a": 1, "b": 1})[0] == ("b",)
    _, later = bucket.refilled(at(10)).spent({"b": 0})
    assert set(later.turns) == {"b"}


def test_a_token_that_lacks_next_to_nothing_is_waited_for() -> None:
    """A pass at the same moment would find the same, without end."""
    made = plan(place(), bucket=Bucket(1 - 1e-12, NOW))
    assert (made.create, made.at) == ((), at(0.01))

"""How many pods a warm pool gets and loses, and what its plugin's status says of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.engine.pod_view import Member, PodView, Terminated
from linkis_ecm.engine.warm import capping, problems, setbacks, sharing, sizing
from linkis_ecm.engine.warm.capping import ENDS_WITHIN, Stuck, stuck
from linkis_ecm.engine.warm.members import AsMade, Contact, Fault
from linkis_ecm.engine.warm.places import Place, PlaceState, Pool, Why
from linkis_ecm.engine.warm.problems import Problem
from linkis_ecm.engine.warm.setbacks import Setback
from linkis_ecm.engine.warm.sharing import Bucket
from linkis_ecm.engine.warm.sizing import Plan
from linkis_ecm.engine.warm.status import shown
from linkis_ecm.model.agent_key import AgentKeyRef

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
AS_MADE = AsMade("digest", "engine:1", frozenset({"key"}), {}, lambda pod: True)
# The end of a grace that is over for two minutes.
OVERDUE = NOW - timedelta(seconds=120)
BROKEN = Problem(problems.PRELOAD, "No module named polars.")


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def pod(name: str, *, ready: bool = True, age: float = 60, template: str = "digest", **changes: Any) -> PodView:
    ref = AgentKeyRef(f"uid-{name}", "0" * 32, "key") if ready else None
    values: dict[str, Any] = {
        "namespace": "team", "name": name, "uid": f"uid-{name}", "version": 1, "owner_uid": "", "owner_name": "",
        "phase": "Running", "ip": "10.0.0.1", "image": "engine:1", "created": at(-age), "scheduled": at(-age),
        "member": Member("python", template, ref, frozenset()),
    }  # fmt: skip
    return PodView(**values | changes)


def ready(number: int, **changes: Any) -> tuple[PodView, ...]:
    return tuple(pod(f"r{i}", **changes) for i in range(number))


def starting(number: int, **changes: Any) -> tuple[PodView, ...]:
    return tuple(pod(f"s{i}", **{"ready": False} | changes) for i in range(number))


def place(*members: PodView, namespace: str = "team", **changes: Any) -> Place:
    values: dict[str, Any] = {"namespace": namespace, "members": members, "as_made": AS_MADE}
    return Place(**values | changes)


def plan(*places: Place, jitter: float = 1, **changes: Any) -> Plan:
    values: dict[str, Any] = {"size": 3, "cap": 10, "max_age": 0.0, "start_timeout": 120.0, "places": places}
    return sizing.plan(Pool(**values | changes), NOW, jitter)


def deleted(made: Plan) -> list[tuple[str, str]]:
    return [(one.pod.name, one.why.value) for one in made.delete]


def test_an_empty_pool_is_filled_and_a_full_one_is_left_alone() -> None:
    assert plan(place()).create == ("team", "team", "team")
    made = plan(place(*ready(3)))
    assert (made.create, made.delete, made.at) == ((), (), None)
    assert made.states == (PlaceState("team", 3, 0, 3),)


def test_what_starts_and_what_was_not_answered_counts_as_there() -> None:
    made = plan(place(*ready(1), *starting(1), unanswered=1))
    assert made.create == ()
    assert made.states == (PlaceState("team", 1, 2, 3),)
    assert made.at == at(1)


def test_the_cap_holds_over_all_namespaces_and_counts_what_ends() -> None:
    ending = tuple(pod(f"e{i}", deleting=True, node="n1") for i in range(2))
    gone = (pod("gone", deleting=True, node="n1"),)
    made = plan(place(*ready(1)), place(*ending, namespace="other"), cap=5, elsewhere=gone)
    assert made.create == ("team",), "its share is free, and that of the other is not yet"
    assert [(one.namespace, one.ending) for one in made.states] == [("team", 0), ("other", 2)]
    assert [one.problem and one.problem.reason for one in made.states] == [problems.CAP] * 2


@pytest.mark.parametrize("where", ["a place", "elsewhere"])
@pytest.mark.parametrize(
    "held",
    [{"node": ""}, {"node": "n1", "grace_ends_at": at(-61)}, {"node": "n1", "grace_ends_at": at(30)}],
    ids=["never on a node", "long over", "many at a time"],
)
def test_pods_that_somebody_keeps_from_going_take_nobody_elses_place(where: str, held: dict[str, Any]) -> None:
    """A tenant made pods with a member's labels and a finalizer, as many as the cap: others' pools stayed empty."""
    kept = tuple(pod(f"k{i}", deleting=True, **held) for i in range(12))
    inside = place(*kept, namespace="other") if where == "a place" else place(*ready(4), namespace="other")
    made = plan(place(), inside, size=4, cap=12, elsewhere=kept if where == "elsewhere" else ())
    assert made.create.count("team") == 4
    assert made.states[0].problem is None


def test_a_pool_looks_again_when_what_ends_is_late() -> None:
    ending = pod("e", deleting=True, node="n1", grace_ends_at=at(10))
    assert plan(place(*ready(1), ending), size=2, cap=2).at == at(70)
    assert plan(place(*ready(1), ending), size=2, cap=2).create == ()


def held(name: str = "old", **changes: Any) -> PodView:
    return pod(name, deleting=True, **{"node": "n1", "grace_ends_at": OVERDUE} | changes)


@pytest.mark.parametrize("node", ["n1", ""])
def test_a_pod_is_stuck_a_minute_after_its_grace_with_or_without_a_node(node: str) -> None:
    one = held(node=node)
    over = OVERDUE + ENDS_WITHIN
    assert stuck([one], over - timedelta(seconds=1)) is None
    assert stuck([one], over) == Stuck(1, one)
    assert stuck([pod("alive"), held("soon", grace_ends_at=at(30))], NOW) is None
    older = held("older", grace_ends_at=at(-600))
    assert stuck([one, older, held("third")], NOW) == Stuck(3, older)


@pytest.mark.parametrize("node", ["n1", ""])
def test_a_plan_counts_them_beside_and_looks_when_one_becomes_stuck(node: str) -> None:
    late = held("late", node=node, grace_ends_at=at(-50))
    made = plan(place(*ready(3), held(), held("b"), late), elsewhere=(held("c"), held("d", grace_ends_at=at(9))))
    (found,) = made.states
    assert (found.ready, found.stuck, found.problem) == (3, Stuck(2, held("b")), None)
    assert found.ending == (1 if node else 0)
    assert (made.stuck_elsewhere, made.at) == (1, at(10))
    assert shown(made.states, made.stuck_elsewhere).members["stuck"] == 3


def full_of(*ending: PodView, cap: int = 3) -> Problem:
    found = plan(place(*ending), cap=cap).states[0].problem
    assert found is not None
    assert found.reason is problems.CAP
    return found


def test_a_cap_that_is_taken_by_pods_that_end_says_until_when() -> None:
    """It said to raise the cap, which is as large as the size, when all that was needed was to wait."""
    last = held("last", grace_ends_at=at(40))
    message = full_of(held("a", grace_ends_at=at(10)), last, held("b", grace_ends_at=at(20))).message
    assert (
        "3 of the pool's pods end, and count until they are gone, at 2026-11-27 12:01:40 UTC at the latest." in message
    )
    assert "Raise" not in message
    assert "kubectl" not in message
    one = full_of(*ready(2), held("a", grace_ends_at=at(3600), deleted_at=at(-10))).message
    assert "One of the pool's pods ends, and counts until" in one
    assert "`kubectl delete pod -n team a --grace-period=30`" in one


def test_a_cap_that_is_taken_by_pods_that_stay_says_to_raise_it() -> None:
    made = plan(place(*ready(1)), place(pod("o"), held("a", grace_ends_at=at(9)), namespace="other"), cap=2)
    assert [one.problem for one in made.states] == [Problem(problems.CAP)] * 2


def test_a_cap_that_was_taken_by_pods_that_are_stuck_now_has_room() -> None:
    made = plan(place(*(held(str(number)) for number in range(3))), cap=3)
    assert made.create == ("team",) * 3
    assert made.states[0].problem is None
    assert made.states[0].stuck == Stuck(3, held("0"))


def test_a_grace_of_a_year_is_told_in_bounds() -> None:
    long = {"deleted_at": NOW, "grace_ends_at": datetime(2027, 11, 1, tzinfo=UTC)}
    found = full_of(*(held(f"{number}" + "n" * 252, **long) for number in range(3)))
    assert "2027-11-01" in found.message
    assert len(found.message) <= problems.MESSAGE_MAX


def test_the_emptiest_namespace_is_filled_first() -> None:
    made = plan(place(*ready(2)), place(namespace="other"), cap=5)
    assert made.create[0] == "other"
    assert Counter(made.create) == {"other": 2, "team": 1}


def test_a_lower_cap_and_a_lower_size_take_members_away_those_that_start_first() -> None:
    assert deleted(plan(place(*ready(3), *starting(1)), size=3)) == [("s0", "surplus")]
    made = plan(place(*ready(3)), place(pod("o"), namespace="other"), size=3, cap=2)
    assert deleted(made) == [("r0", "surplus"), ("r1", "surplus")]
    assert made.create == ()


def test_a_reserved_member_is_not_surplus() -> None:
    assert deleted(plan(place(*ready(2), reserved=frozenset({"uid-r0"})), size=1)) == [("r1", "surplus")]


def test_tokens_bound_what_is_made_at_once() -> None:
    made = plan(place(), size=100, cap=100)
    assert len(made.create) == sharing.BURST
    assert made.at == at(1 / sharing.PER_SECOND)
    assert made.bucket == Bucket(0.0, NOW)
    again = sizing.plan(
        Pool(size=100, cap=100, max_age=0, start_timeout=120, places=(place(unanswered=20),), bucket=made.bucket),
        at(0.1), 1,
    )  # fmt: skip
    assert len(again.create) == 2
    assert Bucket(0.0, NOW).refilled(at(1000)).tokens == sharing.BURST
    # A clock that was put back gives nothing and takes nothing.
    assert Bucket(3.0, NOW).refilled(at(-10)).tokens == 3.0


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (pod("x", template="old"), Fault.OLD_TEMPLATE),
        (pod("x", image="evil:1"), Fault.TAMPERED),
        (pod("x", restarts=1), Fault.TAMPERED),
        (pod("x", ephemeral=True), Fault.TAMPERED),
        (pod("x", phase="Failed"), Fault.ENDED),
        (pod("x", disruption="EvictionByEvictionAPI"), Fault.ENDED),
        (pod("x", member=Member("python", "digest", AgentKeyRef("uid-x", "0" * 32, "old"))), Fault.OLD_KEY),
    ],
)
def test_a_member_that_is_not_as_it_was_made_is_replaced(bad: PodView, why: Fault) -> None:
    made = plan(place(bad, *ready(2)))
    assert deleted(made) == [("x", why.value)]
    # Its end counts for the cap, and the pool is filled in the same pass, unless it failed.
    failed = why is Fault.ENDED and not bad.disruption
    assert made.create == (() if failed else ("team",))


def test_a_refused_member_is_deleted_though_it_looks_ready() -> None:
    made = plan(place(*ready(3), refused=frozenset({"uid-r1"})))
    assert deleted(made) == [("r1", "refused")]
    assert made.create == ("team",)


def test_members_that_end_by_themselves_are_a_setback() -> None:
    ended = pod("x", phase="Failed", terminated=Terminated("OOMKilled", 137, 0, "", None))
    made = plan(place(ended))
    setback = made.setbacks["team"]
    assert setback is not None
    assert (setback.count, setback.until, made.create, made.at) == (1, at(2), (), at(2))
    (state,) = made.states
    assert state.problem is not None
    assert state.problem.message == (
        "A pod of the pool ended before an engine took it. It is x. Its container used more memory than its limit and"
        " was killed. The limit is unknown. Raise spec.warmPool.resources.memory (defaultResources.memory where that is"
        " absent), or preload less."
    )


def test_a_preload_that_fails_is_said_and_tried_ever_more_slowly_one_at_a_time() -> None:
    setback: Setback | None = None
    now, pauses = NOW, []
    for _ in range(10):
        setback = setbacks.after_failure(setback, BROKEN, now, 1)
        # The others of the same batch fail, too, and count once.
        setback = setbacks.after_failure(setback, BROKEN, now, 1)
        pauses.append((setback.until - now).total_seconds())
        now = setback.until
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert setbacks.after_failure(None, BROKEN, NOW, 1.25).until == at(2.5)
    failed = plan(place(*starting(2), failed={"uid-s0": BROKEN}))
    assert deleted(failed) == [("s0", "failed")]
    assert failed.create == ()
    assert failed.states[0].problem == BROKEN
    past = Setback(3, at(-20), at(-1), BROKEN)
    assert plan(place(setback=past)).create == ("team",)
    assert plan(place(*starting(1), setback=past)).create == ()
    assert plan(place(unanswered=1, setback=past)).create == ()
    assert plan(place(setback=past)).states[0].problem == BROKEN


def test_a_member_that_became_ready_after_it_ends_a_setback() -> None:
    past = Setback(3, at(-20), at(-1), BROKEN)
    old = plan(place(pod("x", age=30), setback=past))
    assert (old.setbacks["team"], old.create) == (past, ("team",))
    made = plan(place(pod("x", age=10), setback=past))
    assert (made.setbacks["team"], made.create) == (None, ("team", "team"))


def test_one_that_does_not_become_ready_is_replaced_but_not_while_it_waits_for_a_node() -> None:
    late = pod("x", ready=False, age=121, started=at(-100))
    made = plan(place(late))
    assert deleted(made) == [("x", "failed")]
    assert made.states[0].problem == Problem(
        problems.START_TIMEOUT, "Its container runs, but its kernel has not answered, or preload is not done."
    )
    assert plan(place(pod("x", ready=False, age=100)), size=1).at == at(20)
    for waits in (
        {"unschedulable": "0/1 nodes are available: 1 Insufficient cpu."},
        {"gates": ("kueue.x-k8s.io/admission",)},
    ):
        held = plan(place(pod("x", ready=False, age=9999, scheduled=None, **waits)), size=1)
        assert (held.delete, held.at) == ((), None)
        (state,) = held.states
        assert state.problem is not None
        assert state.problem.reason in (problems.UNSCHEDULABLE, problems.GATED)


def test_an_image_that_cannot_be_pulled_is_said_while_the_pod_waits() -> None:
    waiting = pod("x", ready=False, waiting_reason="ImagePullBackOff", waiting_message="not found")
    problem = plan(place(waiting), size=1).states[0].problem
    assert problem is not None
    assert problem.message == (
        "The image of the EngineConnPlugin cannot be pulled. Kubernetes says ImagePullBackOff: not found. Check"
        " spec.image and the nodes' access to its registry."
    )


def test_a_pool_gives_way_to_an_engine_that_waits_for_room() -> None:
    made = plan(place(*ready(2), *starting(1), waiting=("",)))
    assert deleted(made) == [("s0", "room")]
    assert (made.create, made.gave_way, made.at) == ((), frozenset({"team"}), at(6))
    assert made.states[0].problem == Problem(problems.GIVES_WAY)
    # The next one goes when the first has had the time to make room.
    assert plan(place(*ready(2), waiting=("",), gave_way=at(-5))).delete == ()
    assert deleted(plan(place(*ready(2), waiting=("",) * 5, gave_way=at(-6)))) == [("r0", "room"), ("r1", "room")]
    paused = plan(place(gave_way=at(-90), waited=at(-20)))
    assert (paused.create, paused.at) == ((), at(40))
    assert plan(place(gave_way=at(-90), waited=at(-60))).create == ("team",) * 3
    # Another namespace is another quota.
    assert plan(place(waiting=("",)), place(namespace="other")).create == ("other",) * 3


def test_a_silent_member_is_not_ready_is_no_place_to_fill_and_goes_first() -> None:
    silent = {"uid-r1": Contact.SILENT}
    made = plan(place(*ready(3, age=900), contacts=silent))
    assert (made.create, made.delete, made.at) == ((), (), NOW + sizing.LOOK_AT_SILENT)
    assert (made.states[0].ready, made.states[0].starting) == (2, 1)
    problem = made.states[0].problem
    assert problem is not None
    assert problem.message.startswith(
        "Agents of the pool's pods do not report to the operator, so no engine gets these"
    )
    assert "The pods: r1." in problem.message
    assert deleted(plan(place(*ready(3), contacts=silent), size=2)) == [("r1", "surplus")]
    assert deleted(plan(place(*ready(3), contacts={"uid-r1": Contact.GONE}))) == [("r1", "silent")]
    assert deleted(plan(place(*ready(3), contacts={"uid-r1": Contact.LATE}))) == []


def test_an_engines_own_member_does_not_give_way() -> None:
    assert plan(place(*ready(1), waiting=("",), reserved=frozenset({"uid-r0"}))).delete == ()


def test_a_plugin_that_gives_no_pod_says_so_and_loses_its_members() -> None:
    made = plan(place(*ready(1), as_made=None, no_template="defaultResources.cpu 1m is too little"))
    assert deleted(made) == [("r0", "no_pool")]
    assert made.states[0].problem == Problem(problems.NO_TEMPLATE, "defaultResources.cpu 1m is too little")
    assert made.at is None


def test_members_where_there_is_no_pool_any_more_go() -> None:
    made = plan(elsewhere=(pod("a"), pod("b", deleting=True)))
    assert deleted(made) == [("a", "no_pool")]


def test_the_refill_gives_way_to_claims_and_what_is_wrong_goes_at_once() -> None:
    bad = pod("x", template="old")
    made = plan(place(bad, *ready(4), last_claim=at(-0.2)), size=8)
    assert (made.create, made.at, made.held) == ((), at(0.8), frozenset({"team"}))
    assert deleted(made) == [("x", "template")]
    # All is well: it only takes its time.
    assert made.states[0].problem is None
    quiet = plan(place(*ready(4), last_claim=at(-1)), size=10)
    assert (quiet.create, quiet.held) == (("team",) * 4, frozenset())
    assert plan(place(*ready(4), *starting(2), last_claim=at(-1)), size=10).create == ("team",) * 2
    assert plan(place(*ready(4), unanswered=4, last_claim=at(-1)), size=10).at == at(1)
    # Those that wait for a node take no time of one.
    waits = starting(4, unschedulable="no node", scheduled=None)
    assert plan(place(*waits, last_claim=at(-1)), size=10).create == ("team",) * 4
    assert plan(place(*ready(4), last_claim=at(-10)), size=10).create == ("team",) * 6
    # Another namespace is nobody's who claims here.
    both = plan(place(*ready(1), last_claim=NOW), place(namespace="other"))
    assert (both.create, both.held) == (("other",) * 3, frozenset({"team"}))


def test_a_full_pool_is_not_held_back() -> None:
    made = plan(place(*ready(3), last_claim=NOW, held_since=at(-3)))
    assert (made.held, made.at) == (frozenset(), None)


def test_a_pool_that_is_low_is_refilled_while_claims_come() -> None:
    assert plan(place(last_claim=NOW), size=8).create == ("team",)
    assert plan(place(*starting(1), last_claim=NOW), size=8).create == ()
    assert plan(place(*ready(6), last_claim=NOW, held_since=at(-5)), size=8).create == ("team",) * 2


def test_a_message_fits_into_the_status_and_keeps_its_remedy() -> None:
    message = Problem(problems.REFUSED, "x" * 9000).message
    assert len(message) <= problems.MESSAGE_MAX
    assert message.endswith(problems.REFUSED.remedy)


@given(
    st.lists(
        st.builds(
            lambda n, ready, template, deleting, image, age: pod(
                f"p{n}", ready=ready, template=template, deleting=deleting, image=image, age=age, node=f"n{n % 2}"
            ),
            st.integers(0, 10_000), st.booleans(), st.sampled_from(["digest", "old"]), st.booleans(),
            st.sampled_from(["engine:1", "evil"]), st.floats(0, 500),
        ),
        max_size=12, unique_by=lambda one: one.uid,
    ),
    st.integers(0, 3), st.integers(0, 2), st.integers(0, 8), st.integers(0, 12), st.floats(0, 30),
    st.booleans(),
)  # fmt: skip
def test_no_plan_overshoots(
    pods: list[PodView], unanswered: int, waiting: int, size: int, cap: int, tokens: float, split: bool
) -> None:
    """Never more than size in a namespace nor, with what ends, more than cap are made; a reserved member stays unless
    something is wrong with it."""
    half = len(pods) // 2 if split else len(pods)
    reserved = frozenset(one.uid for one in pods[::3])
    places = (
        place(*pods[:half], unanswered=unanswered, waiting=("",) * waiting, reserved=reserved),
        place(*pods[half:], namespace="other", reserved=reserved),
    )
    made = plan(*places, size=size, cap=cap, bucket=Bucket(tokens, NOW), max_age=400.0)
    gone = {one.pod.uid for one in made.delete}
    for one in places:
        kept = sum(not each.deleting and each.uid not in gone for each in one.members)
        number = made.create.count(one.namespace)
        assert not number or kept + one.unanswered + number <= size
    live = [
        sum(not each.deleting and each.uid not in gone for each in one.members)
        + one.unanswered + made.create.count(one.namespace)
        for one in places
    ]  # fmt: skip
    ends = [sum(each.deleting or each.uid in gone for each in one.members) for one in places]
    share = capping.shares(cap, [size, size])
    assert not made.create or sum(live) <= cap
    for n, other in ((0, 1), (1, 0)):
        # Within its share with all of its own that end; or within what the other leaves, with as many that end as it
        # has usually.
        beside = max(share[other], live[other] + min(ends[other], size))
        if places[n].namespace in made.create:
            assert live[n] + ends[n] <= share[n] or live[n] + ends[n] + beside <= cap
    assert len(made.create) <= min(tokens, sharing.BURST)
    for deletion in made.delete:
        assert not deletion.pod.deleting
        if deletion.pod.uid in reserved:
            assert deletion.why not in (Why.SURPLUS, Why.AGE, Why.ROOM)


def test_what_is_made_takes_the_last_place_that_does_not_wait() -> None:
    own = capping.Taken(3, live=1, ending=1)
    rooms = capping.Rooms(2, [own], 0)
    assert (rooms.of(own), rooms.later(own), rooms.over) == (0, 1, -1)
    rooms.made(own)
    more = replace(own, live=2)
    assert (rooms.of(more), rooms.later(more), rooms.over) == (-1, 0, 0)

"""Members that others take away: what counts as that, the pauses, and whose turn it is to get new ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from linkis_ecm.engine.pod_view import Member
from linkis_ecm.engine.warm import problems, setbacks, sizing
from linkis_ecm.engine.warm.problems import Problem
from linkis_ecm.engine.warm.setbacks import Setback
from linkis_ecm.engine.warm.sharing import Bucket
from linkis_ecm.engine.warm.sizing import Pool
from tests.unit.warm.test_warm_sizing import NOW, at, place, plan, pod, ready, starting

BEFORE = pod("m")
LOST = Problem(problems.REMOVED, "The last one: m was deleted.")


def how(before: Any = BEFORE, *, claimed: bool = False, strange: bool = False, **changes: Any) -> str:
    return setbacks.taken_away(before, replace(before, **changes), claimed=claimed, strange=strange)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"deleting": True}, "deleted"),
        ({"disruption": "EvictionByEvictionAPI"}, "evicted (EvictionByEvictionAPI)"),
        ({"disruption": "EvictionByEvictionAPI", "deleting": True}, "evicted (EvictionByEvictionAPI)"),
        ({"member": None}, "taken out of the pool"),
        ({"member": replace(BEFORE.member or Member("", ""), pool="other")}, "changed"),
        ({"member": replace(BEFORE.member or Member("", ""), template="other")}, "changed"),
        ({"instance": "other"}, "changed"),
        ({"image": "evil:1"}, "changed"),
        ({"restarts": 1}, "changed"),
        ({"ephemeral": True}, "changed"),
        ({"strange": True}, "changed"),
        ({"phase": "Failed"}, "ended after it was ready"),
        ({"version": 2}, ""),
        ({"ready": True}, ""),
        ({"member": None, "claimed": True}, ""),
    ],
)
def test_what_others_do_to_a_member_is_told(changes: dict[str, Any], said: str) -> None:
    flags = {name: changes[name] for name in ("claimed", "strange") if name in changes}
    assert how(**flags, **{name: value for name, value in changes.items() if name not in flags}) == said


def test_a_pod_that_is_gone_was_deleted_and_counts_once() -> None:
    assert setbacks.taken_away(BEFORE, None, claimed=True, strange=False) == "deleted"
    for told in (
        replace(BEFORE, deleting=True), replace(BEFORE, phase="Failed"), replace(BEFORE, member=None)
    ):  # fmt: skip
        assert setbacks.taken_away(told, None, claimed=False, strange=False) == ""
    assert how(replace(BEFORE, disruption="EvictionByEvictionAPI"), deleting=True) == ""


def test_one_that_was_not_ready_ends_by_itself() -> None:
    assert how(pod("s", ready=False), phase="Failed") == ""


def test_several_at_once_are_one_short_pause_and_more_are_longer_ones() -> None:
    loss: Setback | None = None
    now, pauses = NOW, []
    for _ in range(9):
        for _ in range(8):
            loss = setbacks.after_loss(loss, LOST, now, 1)
        assert loss is not None
        pauses.append((loss.until - now).total_seconds())
        now = loss.until
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300]


@pytest.mark.parametrize(("count", "pause", "kept"), [(1, 2, 60), (5, 32, 60), (9, 300, 300)])
def test_a_loss_is_remembered_for_a_minute_or_as_long_as_its_pause(count: int, pause: float, kept: float) -> None:
    loss = Setback(count, at(0), at(pause), LOST)
    assert setbacks.after_loss(loss, LOST, at(pause + kept - 0.1), 1).count == count + 1
    assert setbacks.after_loss(loss, LOST, at(pause + kept), 1).count == 1
    assert setbacks.remembered(loss, at(pause + kept)) is None


def test_a_loss_holds_its_namespace_back_until_a_new_member_is_ready() -> None:
    recent, past = Setback(1, at(-1), at(1), LOST), Setback(1, at(-20), at(-18), LOST)
    made = plan(place(*ready(1), lost=recent), place(namespace="other"))
    assert (Counter(made.create), made.at) == ({"other": 3}, at(1))
    assert made.states[0].problem == LOST
    assert made.states[1].problem is None
    # Then one tries; and the others come when it is ready, while the reason stays until the pool is full.
    assert plan(place(*ready(1), lost=past)).create == ("team",)
    assert plan(place(*starting(1), lost=past)).create == ()
    tried = plan(place(*ready(1, age=5), lost=past))
    assert (tried.create, tried.states[0].problem) == (("team", "team"), LOST)
    assert plan(place(*ready(3), lost=recent)).states[0].problem is None


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

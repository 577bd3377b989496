"""After claims that fail in a row engines of a pool start cold, and one at a time tries again after a pause."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from linkis_ecm.controller.pool.claim_failures import TRIAL, UNTRIED_AFTER, ClaimFailures
from linkis_ecm.engine.causes.cold_starts import Cold
from linkis_ecm.engine.warm import problems
from linkis_ecm.engine.warm.problems import Problem
from linkis_ecm.engine.warm.setbacks import SETBACK, Setback
from linkis_ecm.model.engine_status import ColdReason
from tests.unit.warm.test_warm_sizing import at, place, plan, ready, starting

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
HERE, THERE = ("team", "python"), ("other", "python")
NO_QUOTA = Problem(problems.QUOTA, "exceeded")
REFUSED = Cold(ColdReason.AGENT_REFUSED, "The agent of the pod that it took refused it (HTTP 409: no).")


class Failing:
    def __init__(self) -> None:
        self.now, self.users = NOW, 0
        self.changed: list[str] = []
        self.failures = ClaimFailures(lambda: self.now, random.Random(1), self.changed.append)

    def fail(self, times: int = 2, because: Cold = REFUSED) -> None:
        """Claims of different users."""
        for _ in range(times):
            self.users += 1
            self.failures.failed(HERE, f"user-{self.users}", because)

    def may_try(self, engine: str, user: str = "new", place: tuple[str, str] = HERE) -> bool:
        return self.failures.may_try(place, engine, user)

    def until_pause_is_over(self) -> timedelta:
        setback = self.failures.setback(HERE)
        assert setback is not None
        pause, self.now = setback.until - self.now, setback.until
        return pause


def test_one_failure_may_be_chance_and_two_in_a_row_are_a_setback_of_that_place() -> None:
    world = Failing()
    world.fail(1)
    assert world.may_try("a")
    assert world.failures.setback(HERE) is None
    world.failures.succeeded(HERE, "new")
    world.fail(1)
    assert world.may_try("a")
    world.fail(1)
    assert not world.may_try("a")
    assert world.may_try("a", place=THERE)
    why = world.failures.why_none(HERE, "new", "python-3.11")
    assert why == Cold(
        ColdReason.AGENT_REFUSED,
        "Engines cannot take pods of the warm pool of python-3.11 in namespace team, so few of them try. The last one:"
        " The agent of the pod that it took refused it (HTTP 409: no).",
    )
    assert world.failures.why_none(THERE, "new", "python-3.11") is None
    assert world.changed == ["python"]


def test_one_engine_at_a_time_tries_after_a_pause_that_doubles() -> None:
    world = Failing()
    world.fail()
    pauses = []
    for number in range(9):
        pauses.append(world.until_pause_is_over().total_seconds())
        assert world.may_try(f"e{number}")
        assert world.may_try(f"e{number}")
        assert not world.may_try("another")
        world.fail(1)
    for pause, usual in zip(pauses, (2, 4, 8, 16, 32, 64, 128, 256, 300), strict=True):
        assert 0.75 * usual <= pause <= 1.25 * usual
    # One that gives its member back, or is not heard of again, leaves the trial to another.
    world.until_pause_is_over()
    assert world.may_try("misfit")
    world.failures.release("misfit")
    assert world.may_try("lost")
    world.now += TRIAL
    assert world.may_try("last")
    world.failures.succeeded(HERE, "new")
    assert world.failures.setback(HERE) is None
    assert world.may_try("any")


def test_failures_of_one_user_keep_nobody_else_from_the_pool() -> None:
    world = Failing()
    for number in range(20):
        assert world.may_try(f"v{number}", "victim")
        world.failures.failed(HERE, "mallory", REFUSED)
        assert world.failures.setback(HERE) is None
        assert world.failures.why_none(HERE, "victim", "python") is None
        # He himself starts cold after the third, until his own pause is over, and one of his engines tries then.
        assert world.may_try("m", "mallory") is (number < 2)
    assert world.changed == []
    assert world.may_try("there", "mallory", THERE)
    why = world.failures.why_none(HERE, "mallory", "python")
    assert why is not None
    assert why.sentence.startswith("Engines of this user cannot take pods of the warm pool of python in namespace team")
    # A claim of somebody else's that goes through says nothing of his.
    world.failures.succeeded(HERE, "victim")
    assert not world.may_try("m", "mallory")
    world.now += timedelta(seconds=SETBACK.base * 1.25)
    assert world.may_try("m1", "mallory")
    assert not world.may_try("m2", "mallory")
    assert world.may_try("v", "victim")
    world.failures.succeeded(HERE, "mallory")
    assert world.may_try("m2", "mallory")


def test_what_one_user_did_is_forgotten_after_a_while() -> None:
    world = Failing()
    for _ in range(3):
        world.failures.failed(HERE, "mallory", REFUSED)
    world.now += UNTRIED_AFTER
    assert world.failures.why_none(HERE, "mallory", "python") is None
    world.failures.failed(HERE, "mallory", REFUSED)
    assert world.may_try("m", "mallory")


def test_whose_claims_failed_most_uses_up_no_trial_of_others() -> None:
    world = Failing()
    for user in ("alice", "mallory", "mallory"):
        world.failures.failed(HERE, user, REFUSED)
    for _ in range(12):
        pause = world.until_pause_is_over()
        assert not world.may_try("m", "mallory")
        assert world.may_try("a", "alice")
        world.failures.release("a")
        assert world.may_try("b", "bob")
        world.failures.release("b")
        # Where nobody else comes for one more pause, he may; the next time others are before him again.
        world.now += pause
        assert world.may_try("m", "mallory")
        world.failures.failed(HERE, "mallory", REFUSED)
    world.until_pause_is_over()
    assert world.may_try("a", "alice")
    world.failures.succeeded(HERE, "alice")
    assert world.failures.setback(HERE) is None
    assert world.may_try("b", "bob")


def test_where_nobody_tries_for_long_that_is_what_is_said() -> None:
    world = Failing()
    world.fail()
    setback = world.failures.setback(HERE)
    assert setback is not None
    assert setback.problem == Problem(problems.CLAIMS, f"The last one: {REFUSED.sentence}")
    world.now += UNTRIED_AFTER - timedelta(seconds=1)
    assert world.failures.setback(HERE) == setback
    world.now += timedelta(seconds=1)
    untried = world.failures.setback(HERE)
    assert untried is not None
    assert untried.problem == Problem(problems.UNTRIED, f"It was at 2026-11-27 12:00:00 UTC: {REFUSED.sentence}")
    # One tries alone, and one more failure is enough.
    assert world.may_try("a")
    assert not world.may_try("b")
    world.fail(1)
    again = world.failures.setback(HERE)
    assert again is not None
    assert (again.problem.reason, again.count) == (problems.CLAIMS, 2)
    world.now += timedelta(days=1)
    assert world.may_try("c")
    world.failures.succeeded(HERE, "new")
    assert world.failures.setback(HERE) is None


def test_whoever_comes_has_been_let_try_before_it_counts_as_untried() -> None:
    assert timedelta(seconds=SETBACK.cap * 1.25) * 2 < UNTRIED_AFTER


@pytest.mark.parametrize(
    ("reason", "counts"),
    [
        (ColdReason.AGENT_REFUSED, True), (ColdReason.CLAIM_FORBIDDEN, True), (ColdReason.MEMBER_ENDED, True),
        (ColdReason.MEMBER_CHANGED, True),
        # An engine's own doing, or chance: one user must not keep all others from the pool.
        (ColdReason.ENVIRONMENT, False), (ColdReason.MEMBER_TAKEN, False), (ColdReason.OTHER, False),
        (ColdReason.INVALID_SPEC, False),
    ],
)  # fmt: skip
def test_what_an_engine_did_itself_is_no_failure_of_the_pool(reason: ColdReason, counts: bool) -> None:
    world = Failing()
    world.fail(5, Cold(reason, "no"))
    assert world.may_try("a") is not counts


def test_a_changed_plugin_is_tried_at_once() -> None:
    world = Failing()
    world.fail()
    world.failures.forget("another")
    assert not world.may_try("a")
    world.failures.forget("python")
    assert world.may_try("a")
    world.fail()
    world.failures.forget()
    assert world.may_try("a")


def test_a_pool_that_nobody_can_take_from_says_so_and_is_not_refilled() -> None:
    said = Problem(problems.CLAIMS, "The last one: no")
    failing = Setback(3, at(-1), at(7), said)
    made = plan(place(*ready(1), claims=failing))
    assert (made.create, made.at, made.states[0].problem) == ((), at(7), said)
    # A full one, too: its members are of no use.
    assert plan(place(*ready(3), claims=failing)).states[0].problem == said
    # What nobody has tried for long is told last: the pool has other problems that are certain.
    untried = replace(failing, problem=Problem(problems.UNTRIED, "It was at 12: no"))
    assert plan(place(*ready(3), claims=untried)).states[0].problem == untried.problem
    assert (
        plan(place(*ready(1), claims=untried, setback=replace(failing, problem=NO_QUOTA))).states[0].problem == NO_QUOTA
    )
    # Afterwards one at a time; that it gets ready ends nothing.
    over = Setback(3, at(-90), at(-1), said)
    assert plan(place(*ready(1), claims=over)).create == ("team",)
    assert plan(place(*ready(1), *starting(1), claims=over)).create == ()

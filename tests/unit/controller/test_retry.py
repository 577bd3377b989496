"""When to try again: delays within their bounds, drawn from a seed, and which errors are tried again at all."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.kube.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    ServerError,
    Throttled,
    Unauthorized,
    Unreachable,
)
from linkis_ecm.kube.retry import IDEMPOTENT, RetryPolicy, retryable

POLICY = RetryPolicy()
VERBS = ("get", "list", "create", "patch", "delete", "version")
THROTTLED = Throttled(429, "TooManyRequests", "slow down")
BROKEN = ServerError(500, "InternalError", "boom")
CUT = Unreachable("reset")


class Draw(random.Random):
    """A source that always draws the same."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value

    def random(self) -> float:
        return self._value


@pytest.mark.parametrize(("attempt", "step"), [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (6, 3.2), (7, 5.0), (50, 5.0)])
def test_a_delay_lies_between_half_and_whole_of_a_doubling_step_up_to_the_cap(attempt: int, step: float) -> None:
    assert POLICY.delay(attempt, rng=Draw(0.0)) == pytest.approx(step / 2)
    assert POLICY.delay(attempt, rng=Draw(1.0)) == pytest.approx(step)


@given(st.integers(1, 10**9), st.integers(0, 2**32))
def test_the_backoff_of_every_attempt_is_within_its_bounds(attempt: int, seed: int) -> None:
    delay = POLICY.delay(attempt, rng=random.Random(seed))
    assert POLICY.base / 2 <= delay <= POLICY.cap


@given(st.floats(0, 600), st.integers(1, 100), st.integers(0, 2**32))
def test_a_wait_is_at_least_retry_after_and_at_most_a_quarter_longer(asked: float, attempt: int, seed: int) -> None:
    delay = POLICY.delay(attempt, rng=random.Random(seed), retry_after=asked)
    assert delay >= asked
    assert delay <= max(asked * 1.25, POLICY.cap)


def test_a_short_wait_asked_for_does_not_shorten_our_own() -> None:
    assert POLICY.delay(7, rng=Draw(1.0), retry_after=1) == 5.0


def test_delays_are_jittered() -> None:
    rng = random.Random(1)
    assert len({POLICY.delay(4, rng=rng) for _ in range(100)}) == 100
    asked = {POLICY.delay(1, rng=rng, retry_after=3) for _ in range(100)}
    assert len(asked) == 100
    assert max(asked) - min(asked) > 0.5, "those turned away together do not come back together"


def test_a_seed_gives_the_same_delays_again_and_another_gives_others() -> None:
    def delays(seed: int) -> list[float]:
        rng = random.Random(seed)
        return [POLICY.delay(attempt, rng=rng) for attempt in range(1, 10)]

    assert delays(1) == delays(1)
    assert delays(1) != delays(2)


def test_all_waits_of_one_call_together_stay_between_0_75_and_1_5_seconds() -> None:
    for draw, total in ((0.0, 0.75), (1.0, 1.5)):
        waits = [POLICY.next_delay("get", attempt, BROKEN, rng=Draw(draw)) for attempt in range(1, 6)]
        assert waits[-1] is None, "the fifth try is the last"
        assert sum(wait for wait in waits if wait is not None) == pytest.approx(total)


@pytest.mark.parametrize("error", [BROKEN, CUT, THROTTLED])
@pytest.mark.parametrize("verb", sorted(IDEMPOTENT))
def test_a_call_that_is_safe_to_repeat_is_tried_again(verb: str, error: ApiError) -> None:
    assert retryable(verb, error)
    assert POLICY.next_delay(verb, 1, error, rng=Draw(0.0)) == pytest.approx(0.05)


@pytest.mark.parametrize(("error", "again"), [(BROKEN, False), (CUT, False), (THROTTLED, True)])
def test_a_create_is_tried_again_only_where_it_was_not_executed(error: ApiError, again: bool) -> None:
    assert retryable("create", error) is again
    assert (POLICY.next_delay("create", 1, error, rng=Draw(0.0)) is not None) is again


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "kind",
    [Unauthorized, Forbidden, NotFound, Conflict, AlreadyExists, Gone, Invalid, ApiError],
    ids=lambda kind: kind.__name__,
)
def test_a_refusal_that_will_not_change_is_the_callers(verb: str, kind: type[ApiError]) -> None:
    assert not retryable(verb, kind(400, "Reason", "words"))
    assert POLICY.next_delay(verb, 1, kind(400, "Reason", "words"), rng=Draw(0.0)) is None


def test_a_wait_beyond_the_longest_is_the_callers_and_the_longest_itself_is_waited() -> None:
    longest = POLICY.longest_wait
    asked = [Throttled(429, "TooManyRequests", "later", retry_after=longest + more) for more in (0, 0.1)]
    assert POLICY.next_delay("create", 1, asked[0], rng=Draw(0.0)) == longest
    assert POLICY.next_delay("create", 1, asked[1], rng=Draw(0.0)) is None


def test_a_server_error_that_asks_for_a_wait_gets_it() -> None:
    error = ServerError(503, "ServiceUnavailable", "starting", retry_after=2)
    assert POLICY.next_delay("get", 1, error, rng=Draw(0.0)) == 2

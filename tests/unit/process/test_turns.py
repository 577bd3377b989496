"""Turns: a rate for each key, that one key's hurry delays no other, and that what is not used is given back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.process.ports.turns import Turns
from tools.testkit.gateway.callers import Clock


def turns(clock: Clock, keys: int = 100) -> Turns:
    return Turns(per_second=10, burst=5, keys=keys, clock=clock)


def test_some_begin_at_once_and_the_rest_in_turn() -> None:
    clock = Clock(100.0)
    made = turns(clock)
    waits = [made.take("a") for _ in range(10)]
    assert waits[:5] == [0.0] * 5
    assert [round(wait, 6) for wait in waits[5:]] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert made.take("b") == 0.0, "another waits for nobody"
    clock.now += 60
    assert [made.take("a") for _ in range(5)] == [0.0] * 5


def test_who_leaves_before_its_turn_leaves_it_to_the_next() -> None:
    """Else whoever connects and hangs up, again and again, shuts out all who share the address."""
    clock = Clock(100.0)
    made = turns(clock)
    for _ in range(5):
        made.take("a")
    for _ in range(10_000):
        made.take("a")
        made.give_back("a")
    assert made.take("a") <= 0.1 + 1e-6


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1)), max_size=200))
def test_no_more_than_the_burst_and_the_rate_begin_in_any_time(steps: list[tuple[str, float]]) -> None:
    clock = Clock(0.0)
    made = turns(clock)
    begun: dict[str, list[float]] = {"a": [], "b": []}
    for key, pause in steps:
        clock.now += pause
        begun[key].append(clock.now + made.take(key))
    for times in begun.values():
        assert times == sorted(times)
        for first in range(len(times)):
            for last in range(first, len(times)):
                assert last - first + 1 <= 5 + 10 * (times[last] - times[first]) + 1e-6


def test_keys_are_bounded() -> None:
    made = turns(Clock(), keys=3)
    for number in range(100):
        made.take(str(number))
    assert len(made._even) == 3

"""What one user may take of a warm pool within a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.controller.pool.user_rates import ENTRIES, UserRates
from linkis_ecm.engine.view import EngineView, PluginView
from linkis_ecm.engine.warm.user_rate import ALL_SECONDS, ONE_SECONDS, Taken, in_words, per_second
from linkis_ecm.model.engineconn import EngineConnSpec
from linkis_ecm.model.plugin import EngineConnPluginSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("size", "expected"), [(1, 1 / ONE_SECONDS), (10, 1 / ONE_SECONDS), (60, 60 / ALL_SECONDS)])
def test_a_user_is_given_back_a_pod_in_3_s_or_a_pool_in_30(size: int, expected: float) -> None:
    assert per_second(size) == pytest.approx(expected)


@given(
    st.integers(1, 50), st.lists(st.floats(-5, 20), min_size=1, max_size=80)
)  # fmt: skip
def test_within_any_time_no_more_than_the_size_and_what_was_given_back(size: int, pauses: list[float]) -> None:
    """Also where the clock steps back."""
    taken, now, count, forward = Taken(0.0, NOW), NOW, 0, 0.0
    for pause in pauses:
        now += timedelta(seconds=pause)
        forward += max(0.0, pause)
        taken = taken.by(now, size)
        if taken.leaves_one(size):
            taken, count = taken.plus(1), count + 1
        assert 0 <= taken.number <= size
    assert count <= size + forward * per_second(size) + 1e-6


def test_the_sentence_has_both_figures() -> None:
    assert in_words("ann", "python-3.11", 4) == (
        "User ann takes pods of the warm pool of python-3.11 faster than one user may: 4 at once, and then one"
        " each 3 s."
    )


def engine(user: str, namespace: str = "lab") -> EngineView:
    return EngineView(
        namespace=namespace, name="e", uid="u", version=1, generation=1, created=NOW, deleting=False,
        spec=EngineConnSpec.model_validate({"user": user, "engineType": "python"}), invalid="", status={},
    )  # fmt: skip


def plugin(name: str = "python-3.11", size: int = 2) -> PluginView:
    spec = {
        "engineType": "python", "engineVersion": "3.11", "image": "i", "runTypes": ["python"],
        "warmPool": {"size": size, "cap": 10}, "defaultResources": {"cpu": "500m", "memory": "1Gi"},
    }  # fmt: skip
    return PluginView(name, 1, EngineConnPluginSpec.model_validate(spec))


def test_users_namespaces_and_pools_are_counted_apart() -> None:
    rates = UserRates(lambda: NOW)
    for _ in range(2):
        assert rates.may_take(engine("ann"), plugin())
        rates.take(engine("ann"), plugin())
    assert not rates.may_take(engine("ann"), plugin())
    assert rates.may_take(engine("bob"), plugin())
    assert rates.may_take(engine("ann", "other"), plugin())
    assert rates.may_take(engine("ann"), plugin("r-4"))
    assert rates.may_take(engine("ann"), plugin(size=3)), "a pool that has grown"
    rates.give_back(engine("ann"), plugin())
    assert rates.may_take(engine("ann"), plugin())


def test_what_is_remembered_is_bounded_by_what_is_taken() -> None:
    now = [NOW]
    rates = UserRates(lambda: now[0])
    for number in range(50 * ENTRIES):
        rates.take(engine(f"u{number}"), plugin())
        now[0] += timedelta(seconds=0.1)
    assert len(rates) <= ENTRIES + 1

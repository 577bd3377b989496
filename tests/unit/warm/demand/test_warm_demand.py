"""How many members a pool is to have: its value, its schedule, or the engines that come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.engine.warm import demand, pacing, problems
from linkis_ecm.engine.warm.demand import Arrivals, SizeFrom, Wanted, largest_size, refill_seconds, wanted
from linkis_ecm.engine.warm.schedule import Scheduled
from linkis_ecm.model.warm_pool import WarmPool

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
SCALING = {"max": 20, "window": "10m", "headroomPercent": 0}


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def pool(**fields: Any) -> WarmPool:
    return WarmPool.model_validate({"size": 2, "cap": 50} | fields)


def came(*seconds: float, ready: float = 5.0) -> Arrivals:
    found = Arrivals()
    for one in seconds:
        found = found.after(at(one), ready)
    return found


def by_rate(arrivals: Arrivals, seconds: float = 0, **fields: Any) -> Wanted:
    return wanted(pool(scaling=SCALING | fields), Scheduled(), arrivals, at(seconds))


def test_the_value_holds_where_nothing_else_does() -> None:
    assert wanted(pool(), Scheduled(), came(*[0] * 9), NOW) == Wanted(2)
    assert by_rate(Arrivals()) == Wanted(2)
    assert by_rate(came(0, 0)) == Wanted(2)


def test_a_window_takes_its_place_also_with_less() -> None:
    border = at(60)
    assert wanted(pool(), Scheduled(9, border), Arrivals(), NOW) == Wanted(9, SizeFrom.SCHEDULE, border)
    assert wanted(pool(), Scheduled(0, border), Arrivals(), NOW) == Wanted(0, SizeFrom.SCHEDULE, border)
    assert wanted(pool(), Scheduled(None, border), Arrivals(), NOW) == Wanted(2, SizeFrom.VALUE, border)


def test_it_lasts_for_what_comes_while_a_member_gets_ready() -> None:
    # Six within five seconds; one each ten seconds is what one member serves.
    assert by_rate(came(-60, -59, -58, -57, -56, -55.5)) == Wanted(6, SizeFrom.RATE, at(-55.5 + 600))
    assert by_rate(came(*range(-300, 0, 10))) == Wanted(2)
    assert by_rate(came(*range(-300, 0, 10), ready=60.0)).size == 6


def test_headroom_is_added_and_the_most_is_kept() -> None:
    assert by_rate(came(*[-1] * 10), headroomPercent=25).size == 13
    assert by_rate(came(*[-1] * 10), headroomPercent=10).size == 11
    assert by_rate(came(*[-1] * 19), headroomPercent=25).size == 20
    assert by_rate(came(*[-1] * 500)).size == 20


def test_what_a_window_says_is_the_least_and_may_be_more_than_the_rates_most() -> None:
    scaled = pool(scaling=SCALING)
    busy = came(*[-1] * 5)
    assert wanted(scaled, Scheduled(3, at(60)), busy, NOW) == Wanted(5, SizeFrom.RATE, at(60))
    assert wanted(scaled, Scheduled(3, at(9999)), busy, NOW) == Wanted(5, SizeFrom.RATE, at(599))
    assert wanted(scaled, Scheduled(30, at(60)), came(*[-1] * 500), NOW) == Wanted(30, SizeFrom.SCHEDULE, at(60))


def test_it_falls_step_by_step_when_the_window_has_passed() -> None:
    found = came(0, 0, 0, 0, 0, 0, 100, 100, 100, 100, 200, 200, 200)
    sizes = [by_rate(found, second).size for second in (200, 599, 600, 699, 700, 799, 800, 9999)]
    assert sizes == [6, 6, 4, 4, 3, 3, 2, 2]
    assert by_rate(found, 300).until == at(600)


def test_a_clock_that_was_put_back_forgets_what_is_to_come() -> None:
    found = came(*[1000] * 9)
    assert by_rate(found, 0).size == 2
    later = found.after(NOW, 5.0)
    assert (later.recent, later.peaks) == ((NOW,), ((NOW, 1),))


@given(st.lists(st.floats(0, 7200), max_size=300).map(sorted), st.sampled_from([1.0, 5.0, 60.0]))
def test_it_remembers_little_and_never_less_than_what_came(times: list[float], ready: float) -> None:
    found, now = came(*times, ready=ready), at(7200)
    assert len(found.recent) <= demand.COUNT_MAX
    assert len(found.peaks) <= demand.COUNT_MAX
    counts = [sum(end - ready < one <= end for one in times) for end in times if end > 7200 - 600]
    # Times of equal value come one by one, so the last of them has the whole count.
    assert found.peak(now, 600)[0] == min(demand.COUNT_MAX, max(counts, default=0))


def test_a_member_is_replaced_after_the_claims_and_in_the_time_that_most_needed() -> None:
    held = pacing.LATEST.total_seconds()
    assert refill_seconds([]) == held + demand.READY_DEFAULT
    assert refill_seconds([0.2]) == held + demand.READY_LEAST
    assert refill_seconds([3.0]) == held + 3.0
    assert refill_seconds([*[2.0] * 18, 50.0, 90.0]) == held + 2.0
    assert refill_seconds([*[2.0] * 17, 40.0, 50.0, 90.0]) == held + 40.0


@pytest.mark.parametrize(
    ("fields", "largest"),
    [
        ({"size": 0}, 0),
        ({"size": 3}, 3),
        ({"size": 0, "schedule": [{"from": "08:00", "to": "09:00", "size": 7}]}, 7),
        ({"size": 3, "schedule": [{"from": "08:00", "to": "09:00", "size": 0}]}, 3),
        ({"size": 0, "scaling": {"max": 4}}, 4),
    ],
)
def test_a_pool_is_there_if_it_may_have_a_member_at_any_time(fields: dict[str, Any], largest: int) -> None:
    assert largest_size(WarmPool.model_validate(fields)) == largest
    assert largest_size(None) == 0


def test_an_unknown_zone_is_a_problem_with_a_remedy() -> None:
    found = wanted(pool(), Scheduled(5, None, ("Mars/Olympus", "Europe/Berln")), Arrivals(), NOW)
    assert found.size == 5
    assert found.problem is not None
    assert found.problem.reason is problems.ZONE
    assert found.problem.message == (
        "An entry of spec.warmPool.schedule has a timeZone that is not known. Its entries do not count:"
        " Mars/Olympus, Europe/Berln. Write a name of the zone database, such as Europe/Berlin, or UTC."
    )

"""Which size the schedule of a warm pool gives, and when it changes: days, zones, nights, changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linkis_ecm.engine.warm.schedule import scheduled, zone_of
from linkis_ecm.model.warm_pool import DAYS, PoolWindow

WORKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri"]
BERLIN = "Europe/Berlin"


def window(start: str, end: str, size: int = 20, **more: Any) -> PoolWindow:
    return PoolWindow.model_validate({"from": start, "to": end, "size": size, **more})


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# 27 November 2026 is a Friday. Berlin is an hour before UTC in winter and two in summer.
@pytest.mark.parametrize(
    ("now", "size", "until"),
    [
        ("2026-11-27T06:59:59", None, "2026-11-27T07:00"),
        ("2026-11-27T07:00:00", 20, "2026-11-27T18:00"),
        ("2026-11-27T17:59:59", 20, "2026-11-27T18:00"),
        ("2026-11-27T18:00:00", None, "2026-11-30T07:00"),
        ("2026-11-28T12:00:00", None, "2026-11-30T07:00"),
        ("2026-07-01T05:59:00", None, "2026-07-01T06:00"),
        ("2026-07-01T06:00:00", 20, "2026-07-01T17:00"),
    ],
)
def test_a_window_holds_on_its_days_by_the_clock_of_its_zone(now: str, size: int | None, until: str) -> None:
    found = scheduled([window("08:00", "19:00", days=WORKDAYS, timeZone=BERLIN)], utc(now))
    assert (found.size, found.until, found.unknown) == (size, utc(until), ())


def test_without_days_and_zone_it_holds_each_day_in_utc() -> None:
    for day in range(7):
        at = utc("2026-11-22T08:00") + timedelta(days=day)
        assert scheduled([window("08:00", "09:00")], at).size == 20
        assert scheduled([window("08:00", "09:00")], at + timedelta(hours=1)).size is None


@pytest.mark.parametrize(
    ("now", "size"),
    [
        ("2026-11-27T21:59", None),
        ("2026-11-27T22:00", 20),
        ("2026-11-28T05:59", 20),
        ("2026-11-28T06:00", None),
        ("2026-11-28T23:00", None),
    ],
)
def test_over_midnight_the_day_is_the_one_on_which_it_begins(now: str, size: int | None) -> None:
    assert scheduled([window("22:00", "06:00", days=["Fri"])], utc(now)).size == size


def test_a_whole_day_has_no_gap_at_midnight() -> None:
    whole = [window("00:00", "24:00", days=["Sat", "Sun"])]
    assert scheduled(whole, utc("2026-11-28T00:00")).size == 20
    assert scheduled(whole, utc("2026-11-28T23:59:59.999999")).size == 20
    assert scheduled(whole, utc("2026-11-29T00:00")).size == 20
    assert scheduled(whole, utc("2026-11-30T00:00")).size is None
    # It looks again at a border inside, and says the same.
    assert scheduled(whole, utc("2026-11-28T10:00")).until == utc("2026-11-29T00:00")


def test_the_largest_of_those_that_hold_counts_also_a_zero() -> None:
    day, lunch, night = window("08:00", "18:00", 5), window("12:00", "13:00", 2), window("18:00", "08:00", 0)
    assert scheduled([lunch, day, night], utc("2026-11-27T12:30")).size == 5
    assert scheduled([day, window("09:00", "10:00", 9)], utc("2026-11-27T09:30")).size == 9
    assert scheduled([lunch, day, night], utc("2026-11-27T18:00")).size == 0
    assert scheduled([], utc("2026-11-27T18:00")) == scheduled([], utc("2026-01-01T00:00"))


# In Berlin the clock goes from 2:00 to 3:00 on 29 March 2026, and from 3:00 to 2:00 on 25 October, both at 1:00 UTC.
@pytest.mark.parametrize(
    ("start", "end", "begins", "ends"),
    [
        # Left out: it is the moment of the change, for a begin and for an end.
        ("02:30", "08:00", "2026-03-29T01:00", "2026-03-29T06:00"),
        ("01:00", "02:30", "2026-03-29T00:00", "2026-03-29T01:00"),
        ("02:30", "03:10", "2026-03-29T01:00", "2026-03-29T01:10"),
        ("08:00", "19:00", "2026-03-29T06:00", "2026-03-29T17:00"),
        # There twice: the first one counts, and a window is there once.
        ("02:30", "08:00", "2026-10-25T00:30", "2026-10-25T07:00"),
        ("01:00", "02:30", "2026-10-24T23:00", "2026-10-25T00:30"),
        ("08:00", "19:00", "2026-10-25T07:00", "2026-10-25T18:00"),
    ],
)
def test_the_night_of_a_change_has_each_window_once(start: str, end: str, begins: str, ends: str) -> None:
    given_window = [window(start, end, days=["Sun"], timeZone=BERLIN)]
    held = [
        moment
        for minute in range(0, 24 * 60, 10)
        if scheduled(given_window, moment := utc(ends[:10]) - timedelta(hours=2) + timedelta(minutes=minute)).size
    ]
    assert (held[0], held[-1] + timedelta(minutes=10)) == (utc(begins), utc(ends))
    assert held[-1] - held[0] == timedelta(minutes=10) * (len(held) - 1)


def test_a_window_that_the_night_swallows_is_not_there() -> None:
    swallowed = [window("02:30", "03:00", timeZone=BERLIN)]
    for minute in range(120):
        assert scheduled(swallowed, utc("2026-03-29T00:30") + timedelta(minutes=minute)).size is None


@pytest.mark.parametrize(
    ("zone", "night"),
    # Lord Howe's clock goes half an hour ahead, at 15:30 UTC; Samoa left out a whole day, from 10:00 UTC.
    [(BERLIN, "2026-03-28"), ("Australia/Lord_Howe", "2026-10-03"), ("Pacific/Apia", "2011-12-29")],
)
def test_windows_that_follow_each_other_do_so_in_the_night_of_a_change(zone: str, night: str) -> None:
    """No time without a window, and none with two: each later time of the day comes later, or at once."""
    times = ["00:00", "02:05", "02:30", "03:15", "24:00"]
    for minute in range(0, 48 * 60, 5):
        now = utc(f"{night}T00:00") + timedelta(minutes=minute)
        held = [one for one in pairwise(times) if scheduled([window(*one, timeZone=zone)], now).size]
        assert len(held) == 1, (now, held)


@pytest.mark.parametrize("name", ["Europe/Berln", "Europe", "leapseconds", "Mars/Base", "../../etc/passwd", "x" * 64])
def test_an_unknown_zone_is_named_and_its_window_never_holds(name: str) -> None:
    assert zone_of(name) is None
    windows = [PoolWindow.model_construct(start="00:00", to="24:00", size=9, days=None, time_zone=name)] * 2
    found = scheduled([*windows, window("00:00", "24:00", 3)], utc("2026-11-27T12:00"))
    assert (found.size, found.unknown) == (3, (name,))


def test_a_day_that_a_zone_left_out_does_no_harm() -> None:
    """Samoa went over the date line: there was no 30 December 2011."""
    daily = [window("08:00", "09:00", timeZone="Pacific/Apia")]
    assert scheduled(daily, utc("2011-12-29T18:30")).size == 20
    assert scheduled(daily, utc("2011-12-30T18:30")).size == 20
    found = scheduled(daily, utc("2011-12-29T20:00")).until
    assert found is not None
    assert utc("2011-12-29T20:00") < found <= utc("2011-12-30T20:00")


WINDOWS = st.builds(
    PoolWindow.model_construct,
    start=st.sampled_from(["00:00", "02:30", "08:00", "23:59"]),
    to=st.sampled_from(["00:01", "02:15", "03:00", "19:00", "24:00"]),
    days=st.none() | st.lists(st.sampled_from(DAYS), min_size=1, max_size=3, unique=True),
    time_zone=st.sampled_from([None, BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    size=st.integers(0, 9),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(WINDOWS, max_size=4), st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)))  # noqa: DTZ001 - made UTC
def test_nothing_changes_before_the_next_border(windows: list[PoolWindow], moment: datetime) -> None:
    """Whoever looks again at `until` misses no change."""
    now = moment.replace(tzinfo=UTC)
    found = scheduled(windows, now)
    until = found.until or now + timedelta(days=8)
    assert (found.until is None) == (windows == [])
    assert now < until
    for share in (0.25, 0.5, 0.9, 0.9999):
        assert scheduled(windows, now + (until - now) * share).size == found.size

"""Times from texts and numbers that anybody may have written; times of a start, from the texts of a status."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.engine.pod_view import GRACE_MAX, pod_view
from linkis_ecm.engine.times import EARLIEST, LATEST, from_unix, parse_time, since_accepted
from linkis_ecm.gateway.linkis.shapes import millis
from linkis_ecm.model.formats import DURATION_MAX, parse_duration


def test_phases_are_counted_from_accepted() -> None:
    startup = {
        "accepted": "2026-01-01T00:00:00.000000Z",
        "scheduled": "2026-01-01T00:00:00.100000Z",
        "ready": "2026-01-01T02:00:01+02:00",
        "pulled": "soon",
    }
    assert since_accepted(startup) == {
        "accepted": timedelta(0),
        "scheduled": timedelta(seconds=0.1),
        "ready": timedelta(seconds=1),
    }


def test_without_accepted_nothing_is_counted() -> None:
    assert since_accepted({"ready": "2026-01-01T00:00:01Z"}) == {}
    assert since_accepted({"accepted": "never", "ready": "2026-01-01T00:00:01Z"}) == {}


@pytest.mark.parametrize("text", [
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
    "3000-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "2026-13-01T00:00:00Z", "soon", "", None,
])  # fmt: skip
def test_a_text_that_is_no_usable_time_is_none(text: str | None) -> None:
    assert parse_time(text) is None
    assert millis(text) is None


@given(st.datetimes(timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=23, minutes=59)),
                                               timezone(-timedelta(hours=23, minutes=59))])))  # fmt: skip
def test_every_time_is_read_or_none_and_takes_any_timeout(moment: datetime) -> None:
    read = parse_time(moment.isoformat())
    if read is not None:
        assert EARLIEST <= read < LATEST
        read + timedelta(seconds=DURATION_MAX)  # does not overflow
        read - timedelta(seconds=DURATION_MAX)


@given(st.floats() | st.integers())
def test_every_number_is_a_time_or_none(seconds: float) -> None:
    moment = from_unix(seconds)
    assert moment is None or EARLIEST <= moment <= LATEST


def test_a_time_that_has_not_happened_is_none() -> None:
    assert from_unix(0) is None
    assert from_unix(1.5) == datetime(1970, 1, 1, 0, 0, 1, 500000, tzinfo=UTC)


@pytest.mark.parametrize("text", ["9999999999999999999h", "99999999999999999s", "876001h"])
def test_a_duration_has_a_century_at_most(text: str) -> None:
    assert parse_duration(text) == DURATION_MAX
    assert datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=parse_duration(text)) < LATEST


@pytest.mark.parametrize("grace", [2**62, 10**30, -5])
def test_a_pod_that_is_deleted_with_any_grace_can_be_read(grace: int) -> None:
    view = pod_view(
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}}
    )  # fmt: skip
    assert view.deleted_at == datetime(2026, 1, 1, tzinfo=UTC) - timedelta(seconds=max(0, min(grace, GRACE_MAX)))

"""Times of a start, from the texts in an EngineConn's status."""

from datetime import timedelta

from linkis_ecm.engine.times import since_accepted


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

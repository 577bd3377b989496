"""Kubernetes's time texts (RFC 3339, UTC) to datetimes and back. Must not read a clock.

The parsers are total: whatever a user or an agent wrote, they return a time or None. A time outside EARLIEST to LATEST
is none, so that a rule may add any timeout to it or subtract one: datetime ends at the years 1 and 9999.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

# Before 1970 there is no Kubernetes (Go's zero time is the year 1); a timeout has a century at most (parse_duration).
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)


def parse_time(text: str | None) -> datetime | None:
    """An aware UTC datetime, or None for nothing or a text that is no time (an edit by hand must not raise)."""
    if not text or not isinstance(text, str):
        return None
    try:
        parsed = datetime.fromisoformat(text)
        moment = parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if EARLIEST <= moment < LATEST else None


def format_time(moment: datetime) -> str:
    """With microseconds: a start takes less than a second."""
    return f"{moment.astimezone(UTC).isoformat(timespec='microseconds')[:26]}Z"


def format_second(moment: datetime) -> str:
    """metav1.Time, as conditions want it: whole seconds."""
    return f"{moment.astimezone(UTC).isoformat(timespec='seconds')[:19]}Z"


def from_unix(seconds: float) -> datetime | None:
    """An aware UTC datetime, or None for 0 (it has not happened) and for what is no time."""
    # A comparison: it is false for NaN, and takes an int of any length.
    return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < LATEST.timestamp() else None


def since_accepted(startup: Mapping[str, str]) -> dict[str, timedelta]:
    """How long after `accepted` each phase of a start was reached, from the texts of status.startup; a text that is no
    time is left out. Empty without `accepted`."""
    times = {phase: moment for phase, text in startup.items() if (moment := parse_time(str(text))) is not None}
    accepted = times.get("accepted")
    return {} if accepted is None else {phase: moment - accepted for phase, moment in times.items()}

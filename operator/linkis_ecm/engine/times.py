"""Kubernetes's time texts (RFC 3339, UTC) to datetimes and back. Must not read a clock."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta


def parse_time(text: str | None) -> datetime | None:
    """An aware UTC datetime, or None for nothing or a text that is no time (an edit by hand must not raise)."""
    if not text:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def format_time(moment: datetime) -> str:
    """With microseconds: a start takes less than a second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def format_second(moment: datetime) -> str:
    """metav1.Time, as conditions want it: whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_unix(seconds: float) -> datetime | None:
    """An aware UTC datetime, or None for 0: it has not happened."""
    return datetime.fromtimestamp(seconds, UTC) if seconds > 0 else None


def since_accepted(startup: Mapping[str, str]) -> dict[str, timedelta]:
    """How long after `accepted` each phase of a start was reached, from the texts of status.startup; a text that is no
    time is left out. Empty without `accepted`."""
    times = {phase: moment for phase, text in startup.items() if (moment := parse_time(str(text))) is not None}
    accepted = times.get("accepted")
    return {} if accepted is None else {phase: moment - accepted for phase, moment in times.items()}

"""Text of times that are kept as whole numbers, as Arrow and numpy keep them. For kernel and gateway.

Years may have any number of digits: Python's calendar ends at 1 and 9999, pandas' and duckdb's do not. Pure. Must not
import pandas, numpy or pyarrow.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY = 86400
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - for times without a zone
# Days of 400 years, and from 0000-03-01 to 1970-01-01, in the calendar that goes on in both directions.
_ERA, _ERA_TO_EPOCH = 146097, 719468


def timestamp_text(value: int, unit: str, zone: tzinfo | None) -> str:
    """ISO 8601 of so many units since 1970, with as many digits of the second's fraction as it has: none, six or nine.
    Beyond Python's calendar, a time with a zone is in UTC."""
    seconds, rest = divmod(value, PER_SECOND[unit])
    nanos = rest * (10**9 // PER_SECOND[unit])
    try:
        micros = timedelta(seconds=seconds, microseconds=nanos // 1000)
        found = _EPOCH + micros if zone is None else (_EPOCH.replace(tzinfo=UTC) + micros).astimezone(zone)
    except OverflowError:
        days, second = divmod(seconds, _DAY)
        fraction = "" if not nanos else f".{nanos:09d}" if nanos % 1000 else f".{nanos // 1000:06d}"
        return f"{date_text(days)}T{_clock(second)}{fraction}{'' if zone is None else '+00:00'}"
    text = found.isoformat()
    if not nanos % 1000:
        return text
    # datetime has no nanoseconds: between the microseconds and the zone.
    head, tail = text[:19], text[19:]
    rest_of = tail.lstrip(".0123456789") if tail.startswith(".") else tail
    return f"{head}.{nanos:09d}{rest_of}"


def date_text(days: int) -> str:
    """ISO 8601 of so many days since 1970."""
    era, day_of_era = divmod(days + _ERA_TO_EPOCH, _ERA)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // (_ERA - 1)) // 365
    # Counted from March, so that the leap day is the year's last.
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year = year_of_era + 400 * era + (month <= 2)
    return f"{year:04d}-{month:02d}-{day:02d}"


def time_text(value: int, unit: str) -> str:
    """ISO 8601 of a time of day, in units since midnight: with no, six or nine digits of the second's fraction."""
    seconds, rest = divmod(value, PER_SECOND[unit])
    nanos = rest * (10**9 // PER_SECOND[unit])
    fraction = "" if not nanos else f".{nanos:09d}" if nanos % 1000 else f".{nanos // 1000:06d}"
    return _clock(seconds) + fraction


def duration_text(value: int, unit: str) -> str:
    """ISO 8601, as pandas writes a Timedelta: days, hours, minutes and seconds, however many."""
    nanos = value * (10**9 // PER_SECOND[unit])
    seconds, fraction = divmod(nanos, 10**9)
    days, seconds = divmod(seconds, _DAY)
    rest = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"P{days}DT{seconds // 3600}H{seconds // 60 % 60}M{seconds % 60}{rest}S"


def timezone_of(name: str | None) -> tzinfo | None:
    """The zone of that name or of that offset; UTC for one that nobody knows."""
    if name is None:
        return None
    if name[:1] in "+-" and len(name) == 6 and name[1:3].isdecimal() and name[4:].isdecimal():
        offset = timedelta(hours=int(name[1:3]), minutes=int(name[4:]))
        if offset < timedelta(days=1):
            return timezone(-offset if name[0] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # no such zone, or no name of one
        return UTC


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

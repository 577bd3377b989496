"""Values as JSON's cells: Python's and Arrow's, and which types a spilled result may have. For kernel and gateway.

Must not import pyarrow before it is called: neither process pays for it at its start.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

MIME = "application/vnd.linkis.table+json"
MAX_CELL_CHARS = 10_000
# Two and a comma.
QUOTES = 3
# A column's own type name, as pandas or duckdb has it, in its field's metadata.
TYPE_KEY = b"linkis.type"
# duckdb's sums of whole numbers: Arrow has no such integer, so they travel as decimals.
_HUGE = ("HUGEINT", "UHUGEINT")
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - for times without a zone
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# Levels of lists and structs within each other.
MAX_DEPTH = 8


def cell(value: Any) -> Any:
    """A value as JSON has it: null for what is missing, numbers as numbers, times in ISO 8601, the rest as text."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    kind = type(value).__name__
    if kind in ("NaTType", "NAType"):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "dtype") and hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        item = value.item()
        return _cut(str(value)) if type(item) is type(value) else cell(item)
    return _cut(str(value))


def cell_chars(value: Any) -> int:
    """What the bounds count for a value of JSON; 8 for a number and its comma are near enough."""
    if value is None or isinstance(value, (bool, int, float)):
        return 8
    return len(value if isinstance(value, str) else str(value)) + QUOTES


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CELL_CHARS else text[:MAX_CELL_CHARS] + "…"


def is_plain(kind: Any, depth: int = 0) -> bool:
    """Whether columns of this type are kept: each value takes its own bytes, so that a file's size bounds what comes of
    it. Dictionaries, views, unions and runs would let a small file say a big thing many times over."""
    import pyarrow.types as t  # noqa: PLC0415 - see above

    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        return depth < MAX_DEPTH and is_plain(kind.value_type, depth + 1)
    if t.is_struct(kind):
        return depth < MAX_DEPTH and all(is_plain(kind.field(n).type, depth + 1) for n in range(kind.num_fields))
    return bool(
        t.is_boolean(kind) or t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind) or t.is_null(kind)
        or t.is_string(kind) or t.is_large_string(kind) or t.is_binary(kind) or t.is_large_binary(kind)
        or t.is_fixed_size_binary(kind) or t.is_date(kind) or t.is_time(kind) or t.is_timestamp(kind)
        or t.is_duration(kind)
    )  # fmt: skip


def cells(column: Any, name: str = "") -> list[Any]:
    """The values of an array of a plain type, as `cell` has them; `name` is the column's own type name."""
    import pyarrow as pa  # noqa: PLC0415 - see above
    import pyarrow.types as t  # noqa: PLC0415

    kind = column.type
    try:
        if t.is_boolean(kind) or t.is_integer(kind) or t.is_null(kind):
            return list(column.to_pylist())
        if t.is_timestamp(kind):
            zone = _timezone(kind.tz)
            return [_timestamp_text(value, kind.unit, zone) for value in column.cast(pa.int64()).to_pylist()]
        if t.is_date(kind):
            # A date beyond Python's calendar is told as days.
            days = column.cast(pa.date32()).cast(pa.int32()).to_pylist()
            return [_date_text(value) for value in days]
        if t.is_duration(kind):
            return [_duration_text(value, kind.unit) for value in column.cast(pa.int64()).to_pylist()]
        if t.is_decimal(kind) and kind.scale == 0 and name in _HUGE:
            return [_exact_integer(value) for value in column.to_pylist()]
        return [cell(value) for value in column.to_pylist()]
    except (ValueError, OverflowError):  # such as a date inside a list that Python's calendar does not have
        return [cell(value) for value in column.cast(pa.string()).to_pylist()]


def _exact_integer(value: Any) -> int | str | None:
    """A number where JSON's readers have one, which is up to 64 bits."""
    return None if value is None else int(value) if abs(value) < 1 << 63 else str(value)


def _timestamp_text(value: int | None, unit: str, zone: tzinfo | None) -> str | None:
    """ISO 8601, with as many digits of the second's fraction as it has: none, six or nine."""
    if value is None:
        return None
    seconds, rest = divmod(value, _PER_SECOND[unit])
    nanos = rest * (10**9 // _PER_SECOND[unit])
    try:
        micros = timedelta(seconds=seconds, microseconds=nanos // 1000)
        found = _EPOCH + micros if zone is None else (_EPOCH.replace(tzinfo=UTC) + micros).astimezone(zone)
    except OverflowError:
        return f"{value} {unit}"
    text = found.isoformat()
    if not nanos % 1000:
        return text
    # datetime has no nanoseconds: between the microseconds and the zone.
    head, tail = text[:19], text[19:]
    rest_of = tail.lstrip(".0123456789") if tail.startswith(".") else tail
    return f"{head}.{nanos:09d}{rest_of}"


def _date_text(value: int | None) -> str | None:
    if value is None:
        return None
    try:
        return (date(1970, 1, 1) + timedelta(days=value)).isoformat()
    except OverflowError:
        return f"{value} days"


def _duration_text(value: int | None, unit: str) -> str | None:
    """ISO 8601, as pandas writes a Timedelta: days, hours, minutes and seconds, however many."""
    if value is None:
        return None
    nanos = value * (10**9 // _PER_SECOND[unit])
    seconds, fraction = divmod(nanos, 10**9)
    days, seconds = divmod(seconds, 86400)
    rest = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"P{days}DT{seconds // 3600}H{seconds // 60 % 60}M{seconds % 60}{rest}S"


def _timezone(name: str | None) -> tzinfo | None:
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

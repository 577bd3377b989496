"""Values as JSON's cells: Python's and Arrow's, and which types a spilled result may have. For kernel and gateway.

Whoever shows a value has it from here, so that it is the same in every answer. Must not import pyarrow before it is
called, nor pandas or numpy at all: neither process pays for them at its start.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from datetime import date, time
from typing import Any

from linkis_ecm.agent.formats.times import PER_SECOND, date_text, duration_text, time_text, timestamp_text, timezone_of

MIME = "application/vnd.linkis.table+json"
MAX_CELL_CHARS = 10_000
# Two and a comma.
QUOTES = 3
# A column's own type name, as pandas or duckdb has it, in its field's metadata.
TYPE_KEY = b"linkis.type"
# Whole numbers beyond these are told as text: readers of JSON make a float of them, or refuse the whole answer.
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
# duckdb's sums of whole numbers: Arrow has no such integer, so they travel as decimals.
HUGEINT = ("HUGEINT", "UHUGEINT")
# duckdb's infinite dates and times, which Arrow has as the largest number and its negative.
_INFINITE_DAYS, _INFINITE_TIME = (1 << 31) - 1, (1 << 63) - 1
# Seconds from 1970 to the first of January of these years.
_YEAR_1000, _YEAR_10000 = -30_610_224_000, 253_402_300_800
# Python refuses to write a number of more digits in base ten; a module that does not is slow above these bits.
_MAX_STR_DIGITS, _LONGEST_DECIMAL = 4000, 1 << 20
# Elements of an array that are all written.
_LONGEST_ARRAY = 1 << 20
# Nanoseconds of numpy's units of time that have a fixed length.
_NANOS = {
    "W": 604_800 * 10**9, "D": 86_400 * 10**9, "h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6,
    "us": 10**3, "ns": 1,
}  # fmt: skip
# Levels of lists and structs within each other.
MAX_DEPTH = 8


def cell(value: Any) -> Any:
    """A value as JSON has it: null for what is missing, numbers as numbers, times in ISO 8601, the rest as text.

    A text is cut at MAX_CELL_CHARS. Never raises.
    """
    found = whole_cell(value)
    return _cut(found) if type(found) is str else found


def whole_cell(value: Any) -> Any:
    """`cell`, with its text whole. Never raises: what has no text is told by its class."""
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if INT64_MIN <= value <= INT64_MAX else _integer_text(value)
    if kind is float:
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    try:
        return _other_cell(value, kind)
    except Exception as error:  # the user's own class may raise anything
        return f"<{kind.__module__}.{kind.__qualname__}: it has no text ({type(error).__name__})>"


def cell_text(value: Any) -> str | None:
    """A cell of JSON as text, for readers that have one type for a column: null for what is missing."""
    if value is None or isinstance(value, str):
        return value
    return "true" if value is True else "false" if value is False else str(value)


def cell_chars(value: Any) -> int:
    """What the bounds count for a value of JSON; 8 for a number and its comma are near enough."""
    if value is None or isinstance(value, (bool, int, float)):
        return 8
    return len(value if isinstance(value, str) else str(value)) + QUOTES


def _other_cell(value: Any, kind: type) -> Any:
    """A value of another class. Those of pandas and numpy are known by name: they may not be loaded."""
    name, module = kind.__name__, kind.__module__
    if name in ("NaTType", "NAType"):
        return None
    if module == "numpy":
        return _numpy_cell(value, name)
    # The base class's own conversion: a subclass may have another.
    if isinstance(value, int):
        return whole_cell(int.__int__(value))
    if isinstance(value, float):
        return whole_cell(float.__float__(value))
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (date, time)) or (name == "Timedelta" and module.startswith("pandas.")):
        return str(value.isoformat())
    if (module, name) == ("decimal", "Decimal") and value.is_nan():
        return None
    return str(value)


def _numpy_cell(value: Any, name: str) -> Any:
    """numpy's scalars and arrays. A time of 64 bits would become a bare number as one of Python's values."""
    if getattr(value, "ndim", 0):
        times = value.dtype.kind in "mM"
        return str((value.astype(str) if times else value).tolist() if value.size <= _LONGEST_ARRAY else value)
    if name == "ndarray":
        return whole_cell(value[()])
    if name in ("datetime64", "timedelta64"):
        text = str(value)
        if text == "NaT":
            return None
        if name == "datetime64":
            return text
        unit, step = sys.modules["numpy"].datetime_data(value.dtype)
        return duration_text(int(value.astype("i8")) * step * _NANOS[unit], "ns") if unit in _NANOS else text
    found = value.item() if hasattr(value, "item") else value
    return str(value) if type(found) is type(value) else whole_cell(found)


def _integer_text(value: int) -> str:
    if value.bit_length() < 3 * _MAX_STR_DIGITS:
        return str(value)
    from decimal import Decimal  # noqa: PLC0415 - few have such numbers

    return str(Decimal(value)) if value.bit_length() <= _LONGEST_DECIMAL else hex(value)


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


def has_times(kind: Any) -> bool:
    """Whether a type of Arrow is or holds times. Which Python class they come as depends on what is installed."""
    import pyarrow.types as t  # noqa: PLC0415 - see above

    return t.is_temporal(kind) or any(has_times(kind.field(n).type) for n in range(kind.num_fields))


def cells(column: Any, name: str = "") -> list[Any]:
    """The values of an array of a plain type, as `cell` has them; `name` is the column's own type name."""
    import pyarrow as pa  # noqa: PLC0415 - see above
    import pyarrow.types as t  # noqa: PLC0415

    kind = column.type
    if t.is_boolean(kind) or t.is_null(kind) or (t.is_integer(kind) and not t.is_uint64(kind)):
        return list(column.to_pylist())
    if t.is_timestamp(kind):
        whole = column.cast(pa.int64())
        if kind.tz in (None, "UTC") and (texts := _usual_times(whole, kind.unit)) is not None:
            return texts if kind.tz is None else [None if text is None else f"{text}+00:00" for text in texts]
        zone = timezone_of(kind.tz)
        ends = _infinite(name, "TIMESTAMP", _INFINITE_TIME)
        return [
            None if value is None else ends[value] if value in ends else timestamp_text(value, kind.unit, zone)
            for value in whole.to_pylist()
        ]
    if t.is_date(kind):
        ends = _infinite(name, "DATE", _INFINITE_DAYS)
        return [
            None if value is None else ends[value] if value in ends else date_text(value) for value in _days(column)
        ]  # fmt: skip
    if t.is_time(kind):
        whole = column.cast(pa.int64() if t.is_time64(kind) else pa.int32())
        return [None if value is None else time_text(value, kind.unit) for value in whole.to_pylist()]
    if t.is_duration(kind):
        whole = column.cast(pa.int64())
        return [None if value is None else duration_text(value, kind.unit) for value in whole.to_pylist()]
    if name not in HUGEINT and _is_as_it_is(column):
        return list(column.to_pylist())
    try:
        values = column.to_pylist()
    except (ValueError, OverflowError):  # such as a date inside a list that Python's calendar does not have
        values = column.cast(pa.string()).to_pylist()
    # What duckdb has no good type of Arrow for is its text, or a decimal.
    if name in HUGEINT and not t.is_floating(kind):
        return [_integer_cell(value) for value in values]
    return [cell(value) for value in values]


def _is_as_it_is(column: Any) -> bool:
    """Whether `cell` changes none of its values: finite numbers, and texts that are not cut."""
    import pyarrow.compute as pc  # noqa: PLC0415 - see above
    import pyarrow.types as t  # noqa: PLC0415

    if t.is_float64(column.type) or t.is_float32(column.type):
        return pc.all(pc.is_finite(column)).as_py() is not False
    if t.is_string(column.type) or t.is_large_string(column.type):
        return (pc.max(pc.utf8_length(column)).as_py() or 0) <= MAX_CELL_CHARS
    return False


def _usual_times(whole: Any, unit: str) -> list[str | None] | None:
    """The same text as `timestamp_text` makes of times without a zone, 20 times as fast: Arrow writes the seconds.
    None where one has not a year of four digits."""
    import pyarrow as pa  # noqa: PLC0415 - see above
    import pyarrow.compute as pc  # noqa: PLC0415

    per_second = PER_SECOND[unit]
    ends = pc.min_max(whole).as_py()
    first = ends["min"]
    if first is not None and not (_YEAR_1000 * per_second <= first and ends["max"] < _YEAR_10000 * per_second):
        return None
    values = whole.to_pylist()
    if per_second > 1:
        whole = pa.array([None if value is None else value // per_second for value in values], pa.int64())
    texts: list[str | None] = pc.binary_replace_slice(
        whole.cast(pa.timestamp("s")).cast(pa.string()), 10, 11, "T"
    ).to_pylist()
    if per_second > 1:
        for index, value in enumerate(values):
            if value is not None and (rest := value % per_second):
                nanos = rest * (10**9 // per_second)
                texts[index] = f"{texts[index]}.{nanos:09d}" if nanos % 1000 else f"{texts[index]}.{nanos // 1000:06d}"
    return texts


def _integer_cell(value: Any) -> Any:
    try:
        return None if value is None else cell(int(value))
    except (ValueError, TypeError):  # a file of the user's own says HUGEINT of something else
        return cell(value)


def _days(column: Any) -> Iterator[int | None]:
    import pyarrow as pa  # noqa: PLC0415 - see above

    if pa.types.is_date64(column.type):  # milliseconds
        return (None if value is None else value // 86_400_000 for value in column.cast(pa.int64()).to_pylist())
    return iter(column.cast(pa.int32()).to_pylist())


def _infinite(name: str, prefix: str, end: int) -> dict[int, str]:
    """duckdb's words for the ends of a type; other types have none."""
    return {end: "infinity", -end: "-infinity"} if name.startswith(prefix) else {}

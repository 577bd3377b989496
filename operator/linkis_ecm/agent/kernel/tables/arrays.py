"""A pandas frame's columns as arrays of Arrow whose values are exactly those that a table shows.

Runs in the kernel, for a table that is cut. A column of objects gets a type only where all its values are of one kind
that Arrow keeps unchanged; any other becomes text. Must not import pandas.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from linkis_ecm.agent.formats.cells import INT64_MAX, INT64_MIN, MAX_DEPTH, cell, cells, has_times, is_plain
from linkis_ecm.agent.kernel.tables.spill import text

# Digits of Arrow's widest decimals, of 128 and of 256 bits.
_DIGITS, _MORE_DIGITS = 38, 76
# Makes an array of a slice of a column.
_Make = Callable[[Any], Any]
_FITS: dict[type, Any] = {
    str: pa.large_string(), bool: pa.bool_(), float: pa.float64(), dt.date: pa.date32(), bytes: pa.large_binary(),
}  # fmt: skip


# Of other classes, those that Arrow may look at: it is asked for no object of the user's own.
_SCALARS = (dt.datetime, dt.time)
_SCALAR_NAMES = re.compile(r"numpy\.(bool|u?int(8|16|32|64)|float(16|32|64))_?|pandas\..*\.Timestamp")


class FrameReader:
    """Reads slices of a DataFrame: the index's levels where the table shows them, then the columns."""

    def __init__(self, table: Any) -> None:
        self._table = table
        index = table.index
        numbered = type(index).__name__ == "RangeIndex" and index.name is None
        self._levels = 0 if numbered else index.nlevels
        levels = [index.get_level_values(level) for level in range(self._levels)]
        values = [*levels, *(table.iloc[:, n] for n in range(table.shape[1]))]
        self._loose = [n for n, column in enumerate(values) if not _is_native(column.dtype)]
        self._makes: list[_Make] = [_make_of(column) for column in values]

    def read(self, start: int, stop: int) -> list[Any]:
        """The rows from `start` to `stop` (not included), an array for each column."""
        part = self._table.iloc[start:stop]
        levels = [part.index.get_level_values(n).to_series() for n in range(self._levels)]
        values = [*levels, *(part.iloc[:, n] for n in range(part.shape[1]))]
        return [make(column) for make, column in zip(self._makes, values, strict=True)]

    def objects_as_text(self) -> None:
        """From now on, each column whose dtype does not say what its values are is text."""
        for position in self._loose:
            self._makes[position] = text

    def all_as_text(self) -> None:
        """From now on, every column is text."""
        self._makes = [text] * len(self._makes)


def _is_native(dtype: Any) -> bool:
    """Whether the dtype has one type of Arrow for all its values: numbers, booleans and times of numpy."""
    return getattr(dtype, "kind", "O") in "biufmM"


def _make_of(column: Any) -> _Make:
    """How slices of this column become arrays; the whole of a column of objects is looked at."""
    dtype = column.dtype
    if str(dtype) == "category":
        return _category(column)
    return _objects(column.array) if str(dtype) == "object" else _typed


def _category(column: Any) -> _Make:
    """Each category once, and the values by their codes."""
    categories = column.dtype.categories
    found = _make_of(categories)(categories.to_series())

    def make(part: Any) -> Any:
        codes = part.cat.codes.to_numpy()
        return found.take(pa.array(codes, mask=codes < 0))

    return make


def _typed(column: Any) -> Any:
    """A slice of a column whose dtype says its type; as text where Arrow has no plain type for it."""
    try:
        found = pa.array(column, from_pandas=True)
        if isinstance(found, pa.ChunkedArray):
            found = found.combine_chunks()
        if pa.types.is_dictionary(found.type):
            found = found.dictionary_decode()
    except Exception:  # the user's own objects may raise anything
        return text(column)
    if found.type.num_fields:
        return _checked(found, column)
    if pa.types.is_null(found.type) or not is_plain(found.type):
        return text(column)
    return without_nan(found)


def without_nan(array: Any) -> Any:
    """Missing where it is not a number: a table says so of both, as pandas does."""
    if not pa.types.is_floating(array.type):
        return array
    is_nan = pc.is_nan(array)
    return pc.if_else(is_nan, None, array) if pc.any(is_nan).as_py() else array


def _objects(values: Any) -> _Make:
    """How slices of a column of objects become arrays."""
    kinds = {kind for kind in set(map(type, values)) if kind.__name__ not in ("NoneType", "NAType", "NaTType")}
    if float in kinds and len(kinds) > 1 and all(value != value for value in values if type(value) is float):  # noqa: PLR0124
        kinds.discard(float)  # NaN alone, which is what is missing
    if len(kinds) != 1:
        return text
    kind = kinds.pop()
    if kind is int:
        whole = [value for value in values if type(value) is int]
        return _of(pa.int64()) if min(whole) >= INT64_MIN and max(whole) <= INT64_MAX else text
    if kind is Decimal:
        return _decimals([value for value in values if type(value) is Decimal])
    if kind in _FITS:
        return _of(_FITS[kind])
    if kind in (list, dict) or (kind.__module__, kind.__name__) == ("numpy", "ndarray"):
        return _nested
    return _inferred if kind in _SCALARS or _SCALAR_NAMES.fullmatch(f"{kind.__module__}.{kind.__name__}") else text


def _of(kind: Any) -> _Make:
    def make(column: Any) -> Any:
        try:
            return without_nan(pa.array(column, kind, from_pandas=True))
        except Exception:  # such as half of a surrogate pair
            return text(column)

    return make


def _decimals(values: list[Decimal]) -> _Make:
    """Of one scale, or text: with another scale, Arrow would write 1.1 as 1.10."""
    parts = [value.as_tuple() for value in values if value.is_finite()]
    scales = {part.exponent for part in parts}
    digits = max((len(part.digits) for part in parts), default=0)
    infinite = any(value.is_infinite() for value in values)
    if infinite or len(scales) != 1 or not -_DIGITS <= (exponent := int(scales.pop())) <= 0:
        return text
    precision = max(digits, -exponent, 1)
    if precision > _MORE_DIGITS:
        return text
    kind = pa.decimal128(precision, -exponent) if precision <= _DIGITS else pa.decimal256(precision, -exponent)
    return _compared(_of(kind))


def _inferred(column: Any) -> Any:
    """A slice of objects of one kind, such as datetimes, in the type that Arrow finds for it."""
    try:
        found = pa.array(column, from_pandas=True)
    except Exception:  # the user's own objects may raise anything
        return text(column)
    return _checked(found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found, column)


def _nested(column: Any) -> Any:
    """A slice of lists, dicts or arrays of plain values. No others: pyarrow 26 crashes on some arrays of arrays."""
    values = [_as_list(value) for value in column]
    if not all(_is_simple(value, MAX_DEPTH) for value in values):
        return text(column)
    try:
        found = pa.array(values)
    except Exception:  # such as whole numbers beyond 64 bits
        return text(column)
    return _checked(found, column)


def _as_list(value: Any) -> Any:
    """An array of numbers as a list of them."""
    if type(value).__name__ == "ndarray" and value.ndim == 1 and value.dtype.kind in "biuf":
        return value.tolist()
    return None if cell(value) is None else value


def _is_simple(value: Any, depth: int) -> bool:
    kind = type(value)
    if value is None or kind in (str, bool, int, float):
        return True
    if depth and kind is list:
        return all(_is_simple(inner, depth - 1) for inner in value)
    return bool(depth) and kind is dict and all(
        type(name) is str and _is_simple(inner, depth - 1) for name, inner in value.items()
    )  # fmt: skip


def _compared(make: _Make) -> _Make:
    return lambda column: _checked(make(column), column)


def _checked(found: Any, column: Any) -> Any:
    """The array, where a reader of the file sees the values as the table shows them; else their text."""
    kind = found.type
    if pa.types.is_null(kind) or not is_plain(kind) or (kind.num_fields and has_times(kind)):
        return text(column)
    return found if cells(found) == [cell(value) for value in column] else text(column)

"""Makes Arrow record batches of a small table whose rows came as JSON. Pure; its input is not checked before."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from linkis_ecm.agent.formats.cells import TYPE_KEY

BATCH_ROWS = 1000
_MOMENT = re.compile(r"datetime64\[(s|ms|us|ns)(?:, ([A-Za-z0-9_+:/-]{1,64}))?\]")
_DECIMAL = re.compile(r"decimal\((\d{1,2}), ?(\d{1,2})\)")
# The Arrow types of pandas' and duckdb's type names.
_NAMES = {
    "bool": "bool", "boolean": "bool",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
    "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
    "tinyint": "int8", "smallint": "int16", "integer": "int32", "bigint": "int64",
    "utinyint": "uint8", "usmallint": "uint16", "uinteger": "uint32", "ubigint": "uint64",
    "float16": "float32", "float32": "float32", "float64": "float64", "float": "float32", "double": "float64",
    "date": "date32",
}  # fmt: skip


def batches(columns: list[dict[str, str]], rows: list[list[Any]]) -> tuple[Any, list[Any]]:
    """Blocking. The schema and the record batches. A column whose values do not fit its type becomes text."""
    import pyarrow as pa  # noqa: PLC0415 - the gateway's start does not pay for it

    arrays = []
    for position, column in enumerate(columns):
        values = [row[position] if position < len(row) else None for row in rows]
        arrays.append(_array(column["type"], values))
    schema = pa.schema(
        [
            pa.field(column["name"], array.type, metadata={TYPE_KEY: column["type"].encode(errors="replace")})
            for column, array in zip(columns, arrays, strict=True)
        ]
    )
    # Without columns, the number of rows is all that there is, and Arrow takes it of a struct alone.
    whole = (
        pa.RecordBatch.from_arrays(arrays, schema=schema)
        if columns
        else pa.RecordBatch.from_struct_array(pa.array([{}] * len(rows), pa.struct([])))
    )
    return schema, list(_pieces(whole))


def _pieces(batch: Any) -> Iterator[Any]:
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield batch.slice(start, BATCH_ROWS)


def _array(name: str, values: list[Any]) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - see above

    try:
        return _typed(name, values)
    except (pa.ArrowException, ValueError, TypeError, OverflowError, ArithmeticError):
        return pa.array([None if value is None else _word(value) for value in values], pa.string())


def _typed(name: str, values: list[Any]) -> Any:
    """The values in the Arrow type of that name. Raises ValueError, or what Arrow and Python raise for values that do
    not fit."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    moment = _MOMENT.fullmatch(name)  # matched before lower(): a time zone's name has capitals
    name = name.lower()
    arrow = _NAMES.get(name)
    if arrow in ("float32", "float64"):
        # JSON has no infinities: they are sent as text.
        values = [float(value) if isinstance(value, str) else value for value in values]
    if arrow == "date32":
        return pa.array(values, pa.string()).cast(pa.date32())
    if arrow is not None:
        kind = pa.type_for_alias(arrow)
        if pa.types.is_integer(kind):
            # Those beyond 64 bits with a sign are sent as text.
            values = [int(value) if isinstance(value, str) else value for value in values]
        return pa.array(values, kind)
    if name in ("hugeint", "uhugeint"):
        numbers = [None if value is None else Decimal(value) for value in values]
        longest = max((len(number.as_tuple().digits) for number in numbers if number is not None), default=0)
        return pa.array(numbers, pa.decimal128(38, 0) if longest <= 38 else pa.decimal256(longest, 0))
    if (found := _DECIMAL.fullmatch(name)) is not None:
        kind = pa.decimal128(int(found[1]), int(found[2]))
        return pa.array([None if value is None else Decimal(value) for value in values], kind)
    if moment is not None:
        return pa.array(values, pa.string()).cast(pa.timestamp(moment[1], moment[2]))
    if name == "timestamp":
        return pa.array(values, pa.string()).cast(pa.timestamp("us"))
    if name == "timestamp with time zone":
        return pa.array(values, pa.string()).cast(pa.timestamp("us", "UTC"))
    raise ValueError(name)


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else "true" if value is True else "false" if value is False else str(value)
    return text.encode(errors="replace").decode()

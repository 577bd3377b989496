"""Takes Linkis's result sets apart as its own reader does: by the lengths that stand before each part, and by nothing
else."""

from __future__ import annotations

from typing import Any


def dolphin(data: bytes) -> tuple[int, Any, list[Any]]:
    """The type; a table's columns (name, type and comment, flattened) or a text's metadata; rows or lines."""
    assert data[:7] == b"dolphin"
    kind = int(data[7:17])
    records, position = [], 17
    while position < len(data):
        length = int(data[position : position + 10])
        records.append(data[position + 10 : position + 10 + length])
        assert len(records[-1]) == length
        position += 10 + length
    read = _row if kind == 2 else bytes.decode
    metadata, *rest = [read(record) for record in records]
    return kind, metadata, rest


def _row(record: bytes) -> list[str | None]:
    index = int(record[:10])
    lengths = record[10 : 10 + index].decode()
    assert lengths.endswith(",") or not lengths
    values, position = [], 10 + index
    for length in map(int, lengths.removesuffix(",").split(",") if lengths else ()):
        value = record[position : position + length].decode()
        values.append(None if value == "LINKIS_NULL" else value)
        position += length
    assert position == len(record)
    return values

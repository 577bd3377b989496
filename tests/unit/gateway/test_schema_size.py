"""A schema's size is known before Arrow reads it: places of a flatbuffer may share a table, so a small one is huge."""

from __future__ import annotations

import struct

import pyarrow as pa
import pytest

from linkis_ecm.gateway.results.arrow_metadata import (
    FIELDS_MAX,
    MalformedError,
    SchemaSize,
    _Table,
    message,
    schema_size,
)


def serialized(schema: pa.Schema) -> bytearray:
    return bytearray(schema.serialize())


def test_fields_are_counted_with_those_within_them_and_their_texts() -> None:
    schema = pa.schema(
        [
            pa.field("ab", pa.int64(), metadata={"key": "value"}),
            pa.field("c", pa.struct([pa.field("de", pa.int8()), pa.field("f", pa.list_(pa.field("g", pa.int8())))])),
        ],
        metadata={"of": "all"},
    )
    assert schema_size(message(serialized(schema))) == SchemaSize(fields=5, texts=len("abcdefgkeyvalueofall"))


def test_the_widest_table_that_engines_write_is_taken() -> None:
    wide = pa.schema([pa.field("n" * 100, pa.int64(), metadata={"linkis.type": "int64"}) for _ in range(10_000)])
    assert schema_size(message(serialized(wide))).fields == 10_000


@pytest.mark.parametrize("name", ["n" * 2000, "n"])
def test_fields_that_share_a_table_are_refused(name: str) -> None:
    """Of the long name there are more texts than bytes; of the short one more fields, since each has 1,000 more."""
    inner = pa.struct([pa.field(f"i{n}", pa.int8()) for n in range(200)])
    data = serialized(pa.schema([pa.field(name, inner)] + [pa.field(f"c{n}", pa.int64()) for n in range(99)]))
    schema = _Table.root(message(data)).table(2)
    place = schema._field(1)
    (offset,) = struct.unpack_from("<I", data, 8 + place)
    first = place + offset + 4
    (to_table,) = struct.unpack_from("<I", data, 8 + first)
    for number in range(1, 100):
        at = first + 4 * number
        struct.pack_into("<I", data, 8 + at, first + to_table - at)
    with pytest.raises(MalformedError, match=r"more fields than it has bytes for|fields, or over"):
        schema_size(message(data))


def test_more_fields_than_arrow_reads_in_time_are_refused() -> None:
    many = pa.schema([pa.field("s", pa.struct([pa.field(str(n), pa.int8()) for n in range(FIELDS_MAX + 1)]))])
    with pytest.raises(MalformedError, match="over 20000 fields"):
        schema_size(message(serialized(many)))


def test_what_is_no_schema_and_what_points_outside_is_refused() -> None:
    data = serialized(pa.schema([pa.field("a", pa.int64())]))
    batch = pa.record_batch({"a": [1]}).serialize()
    with pytest.raises(MalformedError, match="no schema"):
        schema_size(message(bytes(batch)))
    for at in range(8, len(data), 4):
        odd = bytearray(data)
        odd[at : at + 4] = b"\xff\xff\xff\x7f"
        try:
            schema_size(message(odd))
        except MalformedError:
            continue

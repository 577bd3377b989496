"""Linkis's result sets, byte by byte: written by hand from linkis-contract.md, section 6, and read back by lengths."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pyarrow as pa
import pytest

from linkis_ecm.gateway.results import dolphin as made
from linkis_ecm.gateway.results.arrow_inline import batches
from tools.testkit.gateway.dolphin import dolphin


def whole(batch: pa.RecordBatch) -> bytes:
    return made.columns(batch.schema) + b"".join(bytes(piece) for piece in made.rows(batch))


def test_a_table_byte_by_byte() -> None:
    batch = pa.RecordBatch.from_pydict(
        {"id": pa.array([7, None], pa.int64()), "名": pa.array(["ab", "ä"]), "ok": pa.array([True, False])}
    )
    assert whole(batch) == (
        b"dolphin0000000002"
        # The columns: 10 bytes for the length of the list of lengths, which has 21, and 57 of names and types.
        + b"0000000088" + b"0000000021" + b"2,4,11,3,6,11,2,7,11,"
        + b"id" + b"long" + b"LINKIS_NULL" + "名".encode() + b"string" + b"LINKIS_NULL"
        + b"ok" + b"boolean" + b"LINKIS_NULL"
        + b"0000000023" + b"0000000006" + b"1,2,4," + b"7" + b"ab" + b"true"
        + b"0000000035" + b"0000000007" + b"11,2,5," + b"LINKIS_NULL" + "ä".encode() + b"false"
    )  # fmt: skip


def test_the_example_of_linkiss_own_comment() -> None:
    """lineToBytes of TableResultSerializer shows a row; its index and its data, with the lengths that they have."""
    row = made.row(["peace1johnnwang", "1101true11", ".51"])
    assert row == b"0000000046" + b"0000000008" + b"15,10,3," + b"peace1johnnwang1101true11.51"


def test_texts_pages_and_pictures_byte_by_byte() -> None:
    assert b"".join(made.lines("a\n\nzwölf\n")) == (
        b"dolphin00000000010000000004NULL0000000001a00000000000000000006zw\xc3\xb6lf"
    )
    assert b"".join(made.lines("\n")) == b"dolphin00000000010000000004NULL0000000000"
    many = list(made.lines("x\n" * 100_000))
    assert dolphin(b"".join(many)) == (1, "NULL", ["x"] * 100_000)
    assert max(map(len, many)) < 300 << 10
    assert b"".join(made.lines("")) == b"dolphin00000000010000000004NULL"
    assert made.single(made.HTML, "<b>") == b"dolphin00000000050000000004NULL0000000003<b>"
    picture = made.picture("image/png", "QUJD")
    assert picture == b'dolphin00000000040000000004NULL0000000038<img src="data:image/png;base64,QUJD">'


@pytest.mark.parametrize(
    ("values", "kind", "name", "words"),
    [
        ([1.0, -0.0, 0.5, 1e20, float("nan"), float("-inf")], pa.float64(), "double",
         ["1.0", "-0.0", "0.5", "1e+20", "NaN", "-Infinity"]),
        ([1.5], pa.float32(), "float", ["1.5"]),
        ([2**63], pa.uint64(), "decimal", ["9223372036854775808"]),
        ([2**31], pa.uint32(), "long", ["2147483648"]),
        ([1], pa.int8(), "int", ["1"]),
        ([Decimal("1.50")], pa.decimal128(9, 2), "decimal", ["1.50"]),
        ([date(2026, 11, 24)], pa.date32(), "date", ["2026-11-24"]),
        ([1_795_514_400_000_000, 1_795_514_400_000_500], pa.timestamp("us"), "timestamp",
         ["2026-11-24 10:00:00", "2026-11-24 10:00:00.0005"]),
        ([1_795_514_400], pa.timestamp("s"), "timestamp", ["2026-11-24 10:00:00"]),
        ([0], pa.timestamp("ms", "Asia/Shanghai"), "timestamp", ["1970-01-01 08:00:00"]),
        ([0], pa.timestamp("ms", "Nowhere/Land"), "timestamp", ["1970-01-01 00:00:00"]),
        ([[1, 2]], pa.list_(pa.int64()), "array", ["[1, 2]"]),
        ([{"a": 1}], pa.struct({"a": pa.int64()}), "struct", ["{'a': 1}"]),
        ([b"\xff"], pa.binary(), "string", ["b'\\xff'"]),
        ([None], pa.null(), "void", [None]),
        (["", "LINKIS", "a,b\n"], pa.large_string(), "string", ["", "LINKIS", "a,b\n"]),
    ],
)  # fmt: skip
def test_each_type_has_linkiss_name_and_values_that_its_reader_takes(
    values: list[object], kind: pa.DataType, name: str, words: list[str | None]
) -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(values, kind)], names=["c"])
    found, columns, rows = dolphin(whole(batch))
    assert (found, columns) == (2, ["c", name, None])
    assert [row[0] for row in rows] == words


def test_a_part_of_a_batch_is_that_part() -> None:
    batch = pa.RecordBatch.from_pydict({"n": list(range(10)), "s": [f"s{n}" for n in range(10)]})
    assert dolphin(whole(batch.slice(4, 3)))[2] == [["4", "s4"], ["5", "s5"], ["6", "s6"]]
    assert dolphin(whole(batch.slice(10)))[2] == []


def test_a_record_that_linkis_would_refuse_has_its_long_cells_cut() -> None:
    batch = pa.RecordBatch.from_pydict({"long": ["x" * 3_000_000, "y" * 20_000], "short": ["k", "k"]})
    _, _, rows = dolphin(whole(batch))
    assert rows == [["x" * 10_000 + "…", "k"], ["y" * 20_000, "k"]]
    _, _, lines = dolphin(b"".join(made.lines("z" * 3_000_000)))
    assert "".join(lines) == "z" * 3_000_000
    assert max(map(len, lines)) <= 2 << 20


def test_a_table_that_came_as_json_has_the_types_of_its_names() -> None:
    columns = [
        {"name": "n", "type": "int64"}, {"name": "x", "type": "float64"}, {"name": "t", "type": "datetime64[us]"},
        {"name": "z", "type": "datetime64[ns, Europe/Berlin]"}, {"name": "d", "type": "DECIMAL(9,2)"},
        {"name": "o", "type": "object"}, {"name": "h", "type": "HUGEINT"}, {"name": "day", "type": "DATE"},
        {"name": "lie", "type": "int64"}, {"name": "b", "type": "bool"},
    ]  # fmt: skip
    rows = [
        [1, "inf", "2026-11-24T10:00:00", "2026-11-24T10:00:00+01:00", "1.50", 1, 2**60, "2026-11-24", "x", True],
        [None] * 10,
        [],
    ]
    schema, made_of = batches(columns, rows)
    assert schema.types == [
        pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("ns", "Europe/Berlin"), pa.decimal128(9, 2),
        pa.string(), pa.decimal128(38, 0), pa.date32(), pa.string(), pa.bool_(),
    ]  # fmt: skip
    (batch,) = made_of
    assert batch.num_rows == 3
    assert dolphin(whole(batch))[2][0] == [
        "1", "Infinity", "2026-11-24 10:00:00", "2026-11-24 10:00:00", "1.50", "1", str(2**60), "2026-11-24", "x",
        "true",
    ]  # fmt: skip
    assert batch.slice(1).to_pydict()["n"] == [None, None]
    assert batches([], [])[1] == []

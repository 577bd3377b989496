"""A value is the same in every answer: pandas itself against each reader of a small and of a big frame.

What the kernel makes of a frame is read as executeCode and the events have it, as a page of JSON, as Arrow, and as
Linkis's result set; of a big frame from its file, too.
"""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
import random
import re
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from linkis_ecm.agent.formats.cells import MAX_CELL_CHARS, cell, cell_text, cells
from linkis_ecm.agent.formats.cells import MIME as TABLE_MIME
from linkis_ecm.agent.formats.result_files import file_name
from linkis_ecm.agent.formats.times import PER_SECOND, timestamp_text, timezone_of
from linkis_ecm.agent.kernel.tables import display, spill
from linkis_ecm.agent.outputs import Outputs
from linkis_ecm.gateway.results import arrow_inline, dolphin
from linkis_ecm.process import exact_json
from tools.testkit.gateway.dolphin import dolphin as dolphin_parts

Rows = list[list[Any]]
ZONE = re.compile(r"[+-][0-9]{2}:[0-9]{2}(:[0-9]{2})?")


class Colour(enum.IntEnum):
    RED = 2**40


class NoText:
    """As a proxy whose connection has gone."""

    def __str__(self) -> str:
        raise RuntimeError("no connection")

    __repr__ = __str__


def big(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame, repeated until a table of it is cut."""
    return pd.concat([frame] * (display.MAX_ROWS // max(1, len(frame)) + 1), ignore_index=True)


def answered(shown: dict[str, Any]) -> dict[str, Any]:
    """A table on its way from the kernel through the agent to a reader of its JSON."""
    outputs = Outputs()
    outputs.message("display_data", {"data": {TABLE_MIME: json.loads(json.dumps(shown))}})
    (output,) = outputs.result()
    told = json.dumps(output, ensure_ascii=False).encode(errors="replace")
    found: dict[str, Any] = exact_json.loads(told)
    assert found == json.loads(told), "orjson and json disagree"
    return found


def encoded(columns: list[dict[str, str]], rows: Rows) -> Iterator[tuple[str, Rows]]:
    """A small table as Arrow and as Linkis's result set."""
    schema, batches = arrow_inline.batches(columns, rows)
    yield from of_batches(schema, batches)


def of_batches(schema: Any, batches: list[Any]) -> Iterator[tuple[str, Rows]]:
    names = [field.metadata[b"linkis.type"].decode() for field in schema]
    arrow: Rows = []
    for batch in batches:
        batch.validate(full=True)
        columns = [cells(array, name) for array, name in zip(batch.columns, names, strict=True)]
        arrow += [list(row) for row in zip(*columns, strict=True)]
    yield "arrow", arrow
    data = dolphin.columns(schema) + b"".join(bytes(part) for batch in batches for part in dolphin.rows(batch))
    yield "dolphin", dolphin_parts(data)[2]


def readers(frame: pd.DataFrame) -> Iterator[tuple[str, Rows]]:
    """What each reader has of a frame, its first rows at least."""
    small = answered(display.frame_table(frame))
    yield "result", small["rows"]
    for name, rows in encoded(small["columns"], small["rows"]):
        yield f"small {name}", rows
    with tempfile.TemporaryDirectory() as folder:
        shown = answered(display.frame_table(big(frame), folder))
        assert shown["resultRows"] == shown["totalRows"] > display.MAX_ROWS, "rows were lost"
        yield "big result", shown["rows"]
        file = ipc.open_file(f"{folder}/{file_name(shown['resultId'])}")
        batches = [file.get_batch(n) for n in range(file.num_record_batches)]
        yield from ((f"file as {name}", rows) for name, rows in of_batches(file.schema, batches))


def expected(value: Any) -> Any:
    """What pandas has, as text; a float as itself; None where it is missing."""
    if isinstance(value, Decimal):
        return None if value.is_nan() else str(value)
    if value is None or (np.ndim(value) == 0 and not isinstance(value, (list, dict, tuple)) and pd.isna(value)):
        return None
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer)):
        return str(Decimal(int(value)))
    if isinstance(value, (float, np.floating)):
        return float(value)
    if isinstance(value, np.timedelta64):
        return pd.Timedelta(value).isoformat()
    if isinstance(value, (dt.date, dt.time, pd.Timedelta)):
        return moment(value.isoformat())
    return str(value).encode(errors="replace").decode()


def moment(text: str) -> str:
    """A time without the zeros at the end of its second's fraction."""
    head, dot, tail = text.partition(".")
    digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
    return (f"{head}.{digits.rstrip('0')}".rstrip(".") if dot else head) + tail[len(digits) :]


def same(name: str, found: Any, wanted: Any) -> bool:
    if wanted is None or found is None:
        return found is wanted
    if isinstance(wanted, float):
        assert not (isinstance(found, int) and not float(found).is_integer())
        return math.isclose(float(found), wanted, rel_tol=0, abs_tol=0) or float(found) == wanted
    assert not isinstance(found, float), f"{name}: a float for {wanted!r}"
    text = cell_text(found)
    assert text is not None
    if text == wanted or moment(text) == wanted:
        return True
    # Linkis's times have a blank, and no zone.
    local = moment(text.replace(" ", "T"))
    zone = wanted[len(local) :]
    return name.endswith("dolphin") and wanted.startswith(local) and (not zone or ZONE.fullmatch(zone) is not None)


def check(frame: pd.DataFrame, *, rows: Rows | None = None) -> None:
    wanted = rows
    if wanted is None:
        wanted = [
            [expected(value) for value in row]
            for row in zip(*(list(frame.iloc[:, n]) for n in range(frame.shape[1])), strict=True)
        ]
    for name, found in readers(frame):
        assert len(found) >= len(wanted), f"{name}: a row is lost"
        for row, right in zip(found[: len(wanted)], wanted, strict=True):
            assert len(row) == len(right)
            for value, want in zip(row, right, strict=True):
                assert same(name, value, want), f"{name}: {value!r} for {want!r}"


INTEGERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**80), 2**80),
    st.sampled_from([2**63, 2**64, -(2**63) - 1, 10**400]),
)
ZONES = st.sampled_from(["UTC", "Asia/Shanghai", "Europe/Berlin", "America/St_Johns", "+05:30"])
OBJECTS = st.one_of(
    st.none(), st.booleans(), INTEGERS, st.floats(allow_nan=False), st.text(max_size=8), st.binary(max_size=4),
    st.decimals(allow_nan=False, places=3) | st.decimals(), st.dates(), st.times(), st.datetimes(), st.timedeltas(),
    st.complex_numbers(max_magnitude=9), st.fractions(), st.uuids(), st.lists(st.integers(-5, 5), max_size=3),
    st.sampled_from([dt.date, int, Colour.RED, pd.NA, pd.NaT, float("nan"), np.int8(3),
                     np.uint64(2**64 - 1), np.str_("s"), pd.Period("2026-01"), pd.Interval(0, 1)]),
)  # fmt: skip
KINDS = [
    INTEGERS, st.floats(), st.decimals(), st.dates(), st.datetimes(timezones=st.none() | st.timezones()), st.times(),
    st.text(max_size=5), st.binary(max_size=5), st.lists(st.floats() | st.text(max_size=2), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
]  # fmt: skip
NAMES = st.one_of(st.text(max_size=5), st.integers(), st.none(), st.dates(), st.tuples(st.text(max_size=2), st.none()))


@st.composite
def columns(draw: Any) -> Any:
    """A column of three values: of one dtype, of one kind of object, or of any."""
    size = 3
    kind = draw(st.sampled_from(["integers", "floats", "times", "durations", "kind", "mixed", "masked", "category"]))
    if kind == "integers":
        dtype = np.dtype(draw(st.sampled_from(["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])))
        ends = np.iinfo(dtype)
        return np.array(draw(st.lists(st.integers(ends.min, ends.max), min_size=size, max_size=size)), dtype)
    if kind == "floats":
        dtype = np.dtype(draw(st.sampled_from(["f2", "f4", "f8"])))
        return np.array(draw(st.lists(st.floats(width=8 * dtype.itemsize), min_size=size, max_size=size)), dtype)
    if kind == "times":
        unit = draw(st.sampled_from(["s", "ms", "us", "ns"]))
        # Years of five digits, and before Christ; beyond 10^5 pandas' own text is another in each version.
        most = 10**12 if unit == "s" else 2**62
        values = draw(st.lists(st.integers(-most, most), min_size=size, max_size=size))
        found = pd.Series(np.array(values, f"M8[{unit}]"))
        return found
    if kind == "durations":
        unit = draw(st.sampled_from(["s", "ms", "us", "ns"]))
        values = draw(st.lists(st.integers(-(10**9), 10**9), min_size=size, max_size=size))
        return pd.Series(np.array(values, f"m8[{unit}]"))
    if kind == "masked":
        values = draw(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=size, max_size=size))
        return pd.array(values, dtype="Int64")
    if kind == "category":
        return pd.Categorical(draw(st.lists(st.none() | st.text(max_size=3), min_size=size, max_size=size)))
    if kind == "mixed":
        values = draw(st.lists(OBJECTS, min_size=size, max_size=size))
    else:
        one = draw(st.sampled_from(KINDS))
        values = draw(st.lists(st.none() | one, min_size=size, max_size=size))
    made = pd.Series([None] * size, dtype=object)
    for position, value in enumerate(values):
        made.iat[position] = value
    return made


@pytest.fixture(autouse=True)
def short_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows are cut, and their file has several batches."""
    monkeypatch.setattr(display, "MAX_ROWS", 12)
    monkeypatch.setattr(spill, "BATCH_ROWS", 8)
    monkeypatch.setattr(spill, "SAMPLE_ROWS", 4)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(NAMES, columns()), min_size=1, max_size=4))
def test_every_reader_has_pandas_own_values(parts: list[tuple[Any, Any]]) -> None:
    frame = pd.concat([pd.Series(values) for _, values in parts], axis=1)
    frame.columns = pd.Index([name for name, _ in parts], dtype=object, tupleize_cols=False)
    check(frame)


def objects(*values: Any) -> pd.Series[Any]:
    """A column of these objects, as they are."""
    made = pd.Series([None] * len(values), dtype=object)
    for position, value in enumerate(values):
        made.iat[position] = value
    return made


def arrow(values: list[Any], kind: Any) -> pd.Series[Any]:
    return pd.Series(pd.array(values, dtype=pd.ArrowDtype(kind)))


NANO = np.datetime64("2024-05-06T07:08:09.123456789", "ns")
NOON = dt.datetime.fromisoformat("2024-01-02T12:00:00")
FAR = pd.Series(np.array([253402300800, -(10**12), 0], "M8[s]"))


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        (objects(10**20 + 1, 2**63, -(2**70)), ["100000000000000000001", str(2**63), str(-(2**70))]),
        (objects(math.factorial(200)), [str(math.factorial(200))]),
        (objects(math.factorial(2000)), [str(Decimal(math.factorial(2000)))]),
        (objects(2**53 + 1, 0.5), [str(2**53 + 1), 0.5]),
        (objects(1, 2.0, True), ["1", 2.0, "true"]),
        (objects(Decimal("1.1"), Decimal("1.10"), Decimal("1E+3")), ["1.1", "1.10", "1E+3"]),
        (objects(Decimal("1.10"), Decimal("NaN"), None), ["1.10", None, None]),
        (objects(Decimal("9" * 60)), ["9" * 60]),
        (objects(dt.date, int), ["<class 'datetime.date'>", "<class 'int'>"]),
        (objects(dt.date(2024, 1, 2), NOON, None), ["2024-01-02", "2024-01-02T12:00:00", None]),
        (objects(NANO, np.timedelta64(90, "m"), np.datetime64("NaT")), [str(NANO), "P0DT1H30M0S", None]),
        (objects(np.array([1, 2]), np.array(7), np.array([NANO, NANO])), ["[1, 2]", "7", f"['{NANO}', '{NANO}']"]),
        (objects({"a": 1}, {"b": [2**70]}), ["{'a': 1}", f"{{'b': [{2**70}]}}"]),
        (objects([dt.date(2024, 1, 2)], [pd.Timestamp(0)]), [
            "[datetime.date(2024, 1, 2)]", "[Timestamp('1970-01-01 00:00:00')]"]),
        (FAR, ["10000-01-01T00:00:00", "-29719-04-05T22:13:20", "1970-01-01T00:00:00"]),
        (FAR.dt.tz_localize("UTC"), [
            "10000-01-01T00:00:00+00:00", "-29719-04-05T22:13:20+00:00", "1970-01-01T00:00:00+00:00"]),
        (pd.Series(pd.Categorical(FAR)), ["10000-01-01T00:00:00", "-29719-04-05T22:13:20", "1970-01-01T00:00:00"]),
        (pd.Series([2**64 - 1, 5], dtype="uint64"), [str(2**64 - 1), "5"]),
        (pd.Series([2**64 - 1, None], dtype="UInt64"), [str(2**64 - 1), None]),
        (pd.Series(pd.arrays.SparseArray([0.0, 1.5, np.nan])), [0.0, 1.5, None]),
        (pd.Series([1 + 2j, 0]), ["(1+2j)", "0j"]),
        (pd.Series(["\ud800", "x"], dtype=object), ["?", "x"]),
        (arrow([Decimal("1.10"), None], pa.decimal128(9, 2)), ["1.10", None]),
        (arrow([36 * 10**12 + 1, None], pa.time64("ns")), ["10:00:00.000000001", None]),
        (arrow([[1, 2], None], pa.list_(pa.int64())), ["[1, 2]", None]),
        (arrow([{"a": 1}, {"a": None}], pa.struct([("a", pa.int64())])), ["{'a': 1}", "{'a': None}"]),
        (arrow([253402300800, None], pa.timestamp("s")), ["10000-01-01T00:00:00", None]),
        (arrow([1.5, None], pa.float32()), [1.5, None]),
    ],
)  # fmt: skip
def test_odd_values_are_the_same_everywhere(column: pd.Series[Any], wanted: list[Any]) -> None:
    check(pd.DataFrame({"x": column}), rows=[[value] for value in wanted])


def test_a_number_of_a_million_digits_is_told_in_time() -> None:
    assert cell(1 << (1 << 24)) == "0x1" + "0" * 9997 + "…"


def test_a_value_without_a_text_is_told_by_its_class() -> None:
    frame = pd.DataFrame({"x": objects(NoText(), MagicMock(name="m"), [NoText()])})
    for _, rows in readers(frame):
        assert "NoText: it has no text (RuntimeError)" in rows[0][0]
        assert rows[1][0].startswith("<MagicMock name='m' id=")
        assert rows[2][0] == "<builtins.list: it has no text (RuntimeError)>"


@pytest.mark.parametrize(
    "names",
    [
        ["a", "a", "a"], ["", " ", None], [1, 1.0, True], [dt.date, dt.date(2024, 1, 2), NANO],
        ["\ud800", "x" * 5000, "\0"],
        [("a", 1), ("a", None), "a.1"], [NoText(), NoText(), "x"], ['"', "'", "\n"], [2**70, -1, "列"],
    ],
)  # fmt: skip
def test_columns_of_any_names_keep_their_place(names: list[Any]) -> None:
    frame = pd.DataFrame([[1, "b", 0.5], [2, None, -1.0]])
    frame.columns = pd.Index(names, dtype=object, tupleize_cols=False)
    check(frame)


def test_the_levels_of_an_index_are_columns_with_the_same_values() -> None:
    index = pd.MultiIndex.from_arrays([[10**20, 2**63], FAR[:2], ["b", None]], names=["a", None, "a"])
    frame = pd.DataFrame({"a": [1, 2]}, index=index)
    check(
        frame.reset_index(allow_duplicates=True),
        rows=[[str(10**20), "10000-01-01T00:00:00", "b", "1"], [str(2**63), "-29719-04-05T22:13:20", None, "2"]],
    )
    shown = answered(display.frame_table(frame))
    assert [column["name"] for column in shown["columns"]] == ["a", "level_1", "a", "a"]
    assert shown["rows"] == [
        [str(10**20), "10000-01-01T00:00:00", "b", 1],
        [str(2**63), "-29719-04-05T22:13:20", None, 2],
    ]


@pytest.mark.parametrize(
    ("head", "tail"),
    [(1, "a"), (1, 0.5), (1, 2**70), (True, 1), (None, 7), (Decimal("1.5"), Decimal("0.25")),
     ("a", dt.date(2024, 1, 2)),
     ([1], {"a": 1}), ([1], ["a"]), (dt.date(2024, 1, 2), NOON), (b"x", "x")],
)  # fmt: skip
def test_a_kind_that_comes_late_changes_no_value_and_loses_no_row(head: Any, tail: Any, tmp_path: Any) -> None:
    column = objects(*[head] * 30, *[tail] * 30)
    shown = answered(display.frame_table(pd.DataFrame({"x": column}), str(tmp_path)))
    assert (shown["resultRows"], shown["totalRows"]) == (60, 60)
    (batches,) = [ipc.open_file(tmp_path / file_name(shown["resultId"])).read_all().to_batches()]
    told = [value for batch in batches for value in cells(batch.column(0), "object")]
    assert told[:12] == [row[0] for row in shown["rows"]]
    for value, real in zip(told, column, strict=True):
        assert same("file", value, expected(real)), (value, real)


DUCKDB = [
    ("170141183460469231731687303715884105727::hugeint", "170141183460469231731687303715884105727"),
    ("(-170141183460469231731687303715884105728)::hugeint", "-170141183460469231731687303715884105728"),
    ("340282366920938463463374607431768211455::uhugeint", "340282366920938463463374607431768211455"),
    ("sum(5)", 5), ("18446744073709551615::ubigint", "18446744073709551615"), ("123::bignum", "123"),
    ("'2024-01-01 00:00:00.123456789'::timestamp_ns", "2024-01-01T00:00:00.123456789"),
    ("'10:00:00.123456789'::time_ns", "10:00:00.123456789"), ("'infinity'::date", "infinity"),
    ("'-infinity'::timestamp", "-infinity"), ("'294247-01-10'::timestamp", "294247-01-10T00:00:00"),
    ("'5000000-01-10'::date", "5000000-01-10"), ("'nan'::double", None), ("1.5::decimal(38,10)", "1.5000000000"),
    ("[1::hugeint]", "[1]"), ("[1.50::decimal(9,2)]", "[1.50]"), ("{'a': interval 1 day}", "{'a': 1 day}"),
    ("[timestamp_ns '2024-01-01 00:00:00.123456789']", "['2024-01-01 00:00:00.123456789']"),
    ("time '24:00:00'", "24:00:00"), ("timetz '24:00:00+08'", "24:00:00+08"), ("[time '24:00:00']", "['24:00:00']"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "wanted"), DUCKDB)
def test_a_relations_values_are_the_same_everywhere(query: str, wanted: Any, tmp_path: Any) -> None:
    import duckdb

    connection = duckdb.connect()
    small = answered(display.relation_table(connection.sql(f"select {query} as x")))
    large = answered(
        display.relation_table(connection.sql(f"select {query} as x from range(30) group by range"), str(tmp_path))
    )
    assert (large["resultRows"], large["totalRows"]) == (30, 30)
    file = ipc.open_file(tmp_path / file_name(large["resultId"]))
    file.get_batch(0).validate(full=True)
    read = {"small": small["rows"], "large": large["rows"]}
    read |= dict(encoded(small["columns"], small["rows"]))
    read |= {f"file as {name}": rows for name, rows in of_batches(file.schema, [file.get_batch(0)])}
    want = str(wanted) if isinstance(wanted, int) else wanted
    for name, rows in read.items():
        assert same(name, rows[0][0], want), (name, rows[0][0])


def test_a_number_that_needs_one_digit_more_may_come_late(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import duckdb

    monkeypatch.setattr(display, "_FETCH_ROWS", 8)
    query = f"select case when range = 5000 then {2**127 - 1}::hugeint else range end as x from range(5001)"
    shown = answered(display.relation_table(duckdb.connect().sql(query), str(tmp_path)))
    assert (shown["resultRows"], shown["totalRows"], shown["rows"][7]) == (5001, 5001, [7])
    table = ipc.open_file(tmp_path / file_name(shown["resultId"])).read_all()
    table.validate(full=True)
    told = cells(table.column(0).combine_chunks(), "HUGEINT")
    assert told == [*range(5000), str(2**127 - 1)]
    assert [path.name for path in tmp_path.iterdir()] == [file_name(shown["resultId"])]


def test_the_last_moment_of_a_day_may_come_late(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import duckdb

    monkeypatch.setattr(display, "_FETCH_ROWS", 8)
    query = "select case when range = 5000 then time '24:00:00' else time '01:02:03.5' end as x from range(5001)"
    shown = answered(display.relation_table(duckdb.connect().sql(query), str(tmp_path)))
    assert (shown["resultRows"], shown["totalRows"], shown["rows"][7]) == (5001, 5001, ["01:02:03.500000"])
    table = ipc.open_file(tmp_path / file_name(shown["resultId"])).read_all()
    table.validate(full=True)
    assert cells(table.column(0).combine_chunks()) == ["01:02:03.500000"] * 5000 + ["24:00:00"]


def test_two_columns_of_a_relation_may_have_one_name() -> None:
    import duckdb

    shown = display.relation_table(duckdb.sql('select 1 as a, interval 1 day as a, \'x\' as "q""z"'))
    assert shown["rows"] == [[1, "1 day", "x"]]
    assert [column["name"] for column in shown["columns"]] == ["a", "a", 'q"z']


def test_what_user_code_shows_as_a_table_is_one_for_every_reader() -> None:
    rows = [[10**400], [float("nan")], [float("inf")], [[1, {"a": 2}]]]
    columns = [{"name": 5, "type": None, "more": 10**400}]
    raw = {"columns": columns, "rows": rows, "totalRows": 10**400, "resultRows": -1}
    assert answered(raw) == {
        "type": "table", "columns": [{"name": "5", "type": "None"}],
        "rows": [[str(Decimal(10**400))], [None], ["inf"], ['[1, {"a": 2}]']],
    }  # fmt: skip


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_times_that_arrow_writes_are_those_that_python_writes(unit: str, zone: str | None) -> None:
    dice = random.Random(7)
    per = PER_SECOND[unit]
    seconds = [dice.randrange(-2_000_000_000, 4_000_000_000) for _ in range(300)]
    seconds += [-1, 0, 1, *([-30_610_224_000, 253_402_300_799] if unit != "ns" else [])]
    for fraction in (0, 1, 999, per - 1, 123_456_789):
        whole = [second * per + fraction % per for second in seconds]
        column = pa.array([*whole, None], pa.int64()).cast(pa.timestamp(unit, zone))
        assert cells(column) == [*(timestamp_text(value, unit, timezone_of(zone)) for value in whole), None]
    # A year that Python's calendar does not have, or of another length.
    for odd in (253_402_300_800, -30_610_224_001, -62_135_596_800):
        if unit != "ns":
            column = pa.array([odd * per, 0], pa.int64()).cast(pa.timestamp(unit, zone))
            assert cells(column) == [timestamp_text(value, unit, timezone_of(zone)) for value in (odd * per, 0)]
    assert cells(pa.array([None, None], pa.timestamp(unit, zone))) == [None, None]
    assert cells(pa.array([], pa.timestamp(unit, zone))) == []


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.5, None, -0.0], pa.float64()),
        pa.array([1.5, float("nan"), float("inf")], pa.float32()),
        pa.array([None, None], pa.float64()),
        pa.array(["a", None, "ü" * (MAX_CELL_CHARS + 1), "x" * MAX_CELL_CHARS]),
        pa.array(["a", None, ""], pa.large_string()),
        pa.array([], pa.string()),
    ],
)
def test_columns_that_need_no_look_at_each_value_have_the_same_cells(column: Any) -> None:
    assert cells(column) == [cell(value) for value in column.to_pylist()]

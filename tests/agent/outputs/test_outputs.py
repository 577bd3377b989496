"""How the kernel's messages become outputs, and the bounds of both outputs and tables."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import pytest

from linkis_ecm.agent.formats.cells import MIME as TABLE_MIME
from linkis_ecm.agent.formats.cursors import Cursor
from linkis_ecm.agent.kernel.tables.display import MAX_CELL_CHARS, cell, table
from linkis_ecm.agent.outputs import Outputs


def text(value: str, stream: str = "stdout") -> dict[str, str]:
    return {"type": "text", "stream": stream, "text": value}


def display(data: dict[str, Any], identifier: str | None = None) -> dict[str, Any]:
    return {"data": data, "transient": {"display_id": identifier} if identifier else {}}


def test_neighbours_of_one_stream_are_one_text() -> None:
    outputs = Outputs()
    for stream, value in (("stdout", "a"), ("stdout", "b"), ("stderr", "!"), ("stdout", "c")):
        outputs.stream(stream, value)
    assert outputs.result() == [text("ab"), text("!", "stderr"), text("c")]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"text/plain": "t", "text/html": "<i>"}, {"type": "html", "text": "<i>"}),
        ({"text/plain": "t", "image/png": "QUJD\n"}, {"type": "picture", "mime": "image/png", "data": "QUJD"}),
        ({"text/plain": "\x1b[31mred\x1b[0m"}, text("red", "result")),
        (
            {TABLE_MIME: {"columns": [], "rows": [], "totalRows": 0, "truncated": False}, "text/html": "<table>"},
            {"type": "table", "columns": [], "rows": [], "totalRows": 0, "truncated": False},
        ),
    ],
)
def test_the_richest_form_is_kept(data: dict[str, Any], expected: dict[str, Any]) -> None:
    outputs = Outputs()
    outputs.message("execute_result", display(data))
    assert outputs.result() == [expected]


def test_a_display_without_a_known_type_is_a_note_and_other_messages_are_no_output() -> None:
    outputs = Outputs()
    outputs.message("display_data", display({"application/x-widget": {}}))
    outputs.message("comm_open", {})
    assert outputs.result() == [text("[a display of type application/x-widget is not shown]")]


def test_a_display_that_changes_keeps_its_place() -> None:
    outputs = Outputs()
    outputs.message("display_data", display({"text/plain": "0 %"}, "bar"))
    outputs.stream("stdout", "x")
    outputs.message("update_display_data", display({"text/plain": "100 %"}, "bar"))
    outputs.message("update_display_data", display({"text/plain": "lost"}, "unknown"))
    assert outputs.result() == [text("100 %"), text("x")]


def test_cleared_outputs_are_gone_at_once_or_with_the_next() -> None:
    outputs = Outputs()
    outputs.stream("stdout", "old")
    outputs.message("clear_output", {"wait": True})
    assert outputs.result() == [text("old")]
    outputs.stream("stdout", "new")
    assert outputs.result() == [text("new")]
    outputs.message("clear_output", {"wait": False})
    assert outputs.result() == []


def test_text_is_cut_at_the_limit_and_says_so_once() -> None:
    outputs = Outputs(max_bytes=10)
    outputs.stream("stdout", "12345678")
    outputs.stream("stdout", "abcdef")
    outputs.stream("stdout", "more")
    outputs.message("display_data", display({"text/plain": "even more"}))
    first, note = outputs.result()
    assert first == text("12345678")
    assert note["text"].startswith("ab\n[output cut here: a task returns 10 bytes")


def test_a_picture_over_the_limit_is_left_out_with_a_note() -> None:
    outputs = Outputs(max_bytes=10)
    outputs.message("display_data", display({"image/png": "x" * 11}))
    (note,) = outputs.result()
    assert "output cut here" in note["text"]


def test_the_number_of_outputs_is_bounded() -> None:
    outputs = Outputs(max_outputs=3)
    for number in range(10):
        outputs.message("display_data", display({"text/plain": str(number)}))
    assert [item["text"] for item in outputs.result()[:3]] == ["0", "1", "2"]
    assert len(outputs.result()) == 4


def test_an_error_is_kept_even_where_the_outputs_are_full() -> None:
    outputs = Outputs(max_bytes=1)
    outputs.stream("stdout", "full")
    outputs.message("error", {"ename": "E", "evalue": "\x1b[1mv", "traceback": ["\x1b[31mline\x1b[0m"]})
    assert outputs.result()[-1] == {"type": "error", "name": "E", "value": "v", "traceback": ["line"]}


def test_errors_count_and_of_those_beyond_the_bounds_the_last_is_kept() -> None:
    outputs = Outputs(max_bytes=10_000)
    for number in range(100):
        outputs.error("E" * 5000, str(number), ["x" * 990])
    errors = [item for item in outputs.result() if item["type"] == "error"]
    assert len(errors) == 6
    assert [error["value"] for error in errors] == ["0", "1", "2", "3", "4", "99"]
    assert {len(error["name"]) for error in errors} == {1000}
    assert 10_000 < outputs.size < 12_100
    outputs.message("clear_output", {"wait": False})
    assert (outputs.size, outputs.result()) == (0, [])


def test_an_error_that_takes_the_place_of_another_is_told_to_who_follows() -> None:
    outputs = Outputs(max_bytes=1)
    outputs.stream("stdout", "full")
    outputs.error("E", "first", [])
    _, seen = outputs.since(Cursor())
    outputs.error("E", "second", [])
    (told,), _ = outputs.since(seen)
    assert (told["replaces"], told["output"]["value"]) == (True, "second")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (0.5, 0.5),
        (float("nan"), None),
        (float("inf"), "inf"),
        ("text", "text"),
        (decimal.Decimal("1.10"), "1.10"),
        (datetime.date(2026, 11, 24), "2026-11-24"),
        ([1, "a"], "[1, 'a']"),
        (b"\x00", "b'\\x00'"),
    ],
)
def test_a_cell_is_what_json_has_for_it(value: object, expected: object) -> None:
    assert cell(value) == expected


def test_numpys_and_pandas_values_are_cells_too() -> None:
    import numpy
    import pandas

    assert cell(numpy.int64(3)) == 3
    assert cell(numpy.float32(0.5)) == 0.5
    assert cell(numpy.bool_(True)) is True
    assert cell(numpy.float64("nan")) is None
    assert cell(pandas.NaT) is None
    assert cell(pandas.NA) is None
    assert cell(pandas.Timestamp("2026-11-24T10:00")) == "2026-11-24T10:00:00"


def test_a_cells_text_is_bounded() -> None:
    assert len(cell("x" * 1_000_000)) == MAX_CELL_CHARS + 1


@pytest.mark.parametrize(
    "table", [5, {}, {"columns": 5, "rows": []}, {"columns": [], "rows": [5]}, {"columns": [5], "rows": []}]
)
def test_a_malformed_table_is_shown_by_another_type(table: Any) -> None:
    outputs = Outputs()
    outputs.message("display_data", {"data": {TABLE_MIME: table, "text/plain": "words"}})
    assert outputs.result() == [{"type": "text", "stream": "stdout", "text": "words"}]


def test_a_table_is_recognised_by_its_shape_and_its_cells_are_bounded() -> None:
    outputs = Outputs(max_bytes=1000)
    table = {"type": "picture", "columns": [], "rows": [[{"a": "x" * 500}]]}
    outputs.message("display_data", {"data": {TABLE_MIME: table}})
    assert outputs.result()[0]["type"] == "table"
    assert outputs.size > 500


def test_every_part_of_a_handmade_table_counts_for_the_bound() -> None:
    outputs = Outputs(max_bytes=1000)
    known = {"totalRows": None, "truncated": True, "resultId": "0" * 20, "resultBytes": 5, "resultRows": 7}
    table = {"columns": [{"name": "n", "type": "t"}], "rows": [[1]], **known}
    outputs.message("display_data", {"data": {TABLE_MIME: {**table, "more": "x" * 5000}}})
    assert outputs.result() == [{"type": "table", **table}]
    odd = {"columns": [], "rows": [], "totalRows": "x" * 5000, "truncated": ["x" * 5000], "resultId": "x" * 5000}
    outputs.message("display_data", {"data": {TABLE_MIME: odd}})
    assert outputs.result()[-1] == {"type": "table", "columns": [], "rows": []}


@pytest.mark.parametrize(
    "table", [{"columns": [{"name": "x" * 5000}], "rows": []}, {"columns": [], "rows": [[]] * 400}]
)
def test_a_table_of_nothing_but_columns_or_empty_rows_is_bounded_too(table: dict[str, Any]) -> None:
    outputs = Outputs(max_bytes=1000)
    outputs.message("display_data", {"data": {TABLE_MIME: table}})
    (note,) = outputs.result()
    assert "output cut here" in note["text"]


def test_a_table_of_unknown_length_counts_as_cut() -> None:
    assert table([], [[1]], total=None, cut=False) == {
        "columns": [], "rows": [[1]], "totalRows": None, "truncated": True,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_what_is_printed_carries_no_escapes(name: str) -> None:
    outputs = Outputs()
    outputs.stream(name, "\x1b[0m\x1b[31merror:\x1b[0m not found\n")
    assert outputs.result() == [{"type": "text", "stream": name, "text": "error: not found\n"}]

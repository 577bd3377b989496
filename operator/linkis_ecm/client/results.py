"""A result as text for people, and its tables as rows for programs. Pure."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from linkis_ecm.api.models import ExecuteAnswer
from linkis_ecm.client.errors import TruncatedTable

# Rows and characters of a cell that a console shows of a table.
_ROWS, _CELL = 20, 40


def text_of(answer: ExecuteAnswer) -> str:
    """The text that a console would show: printed text, the value, tables in columns, an error with its traceback."""
    shown = ""
    for output in answer.outputs:
        if shown and not shown.endswith("\n"):
            shown += "\n"
        shown += _shown(output)
    return shown


def _shown(output: Mapping[str, Any]) -> str:
    match output.get("type"):
        case "text":
            return str(output.get("text", ""))
        case "table":
            return _columns(output)
        case "error":
            lines = output.get("traceback") or [f"{output.get('name')}: {output.get('value')}"]
            return "\n".join(map(str, lines))
        case "picture":
            return f"[{output.get('mime')}, {len(str(output.get('data', ''))) * 3 // 4} bytes]"
        case kind:
            return f"[{kind}]"


def _columns(table: Mapping[str, Any]) -> str:
    names = [_cell(name) for name in _names(table)]
    rows = [[_cell(value) for value in row] for row in table["rows"][:_ROWS]]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [names, *rows]]
    total = table.get("totalRows")
    if len(table["rows"]) > _ROWS or table.get("truncated"):
        lines.append(f"[{total if total is not None else 'more than ' + str(len(table['rows']))} rows]")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    text = " ".join(str(value).split()) if value is not None else ""
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def tables_of(answer: ExecuteAnswer) -> list[list[dict[str, Any]]]:
    """Each table of the result as a list of rows, each a dict by column."""
    return [rows_of(output) for output in answer.outputs if output.get("type") == "table"]


def rows_of(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one output of type table. A repeated column name gets a number: a dict would lose a column. Warns of
    a table that is not whole (TruncatedTable)."""
    if table.get("truncated"):
        _warn(table)
    names = _names(table)
    return [dict(zip(names, row, strict=True)) for row in table["rows"]]


def _warn(table: Mapping[str, Any]) -> None:
    shown, total = len(table["rows"]), table.get("totalRows")
    what = f"{shown} of {total} rows are here"
    if total is None:
        what = f"the first {shown} rows are here, and nobody has counted all"
    elif total == shown:
        what = "parts of the cells, or columns, are not here"
    remedy = "get_result_set and download_result_set have what is kept" if table.get("resultId") else "no more is kept"
    warnings.warn(f"The table is not whole: {what}; {remedy}", TruncatedTable, stacklevel=3)


def _names(table: Mapping[str, Any]) -> list[str]:
    columns: Sequence[Mapping[str, Any]] = table["columns"]
    names: list[str] = []
    for column in columns:
        name, number = str(column["name"]), 1
        while name in names:
            name, number = f"{column['name']}.{number}", number + 1
        names.append(name)
    return names

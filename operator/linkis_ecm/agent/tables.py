"""Tables as results: a display formatter for pandas frames and series and for duckdb relations.

Runs in the kernel. It names the classes instead of importing them, so a kernel whose user never imports pandas never
pays for it. Rows, cells and bytes are bounded here, before anything is sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import Any

MIME = "application/vnd.linkis.table+json"
# What a console shows at most; Linkis's own result page stops at the same number.
MAX_ROWS = 5000
MAX_COLUMNS = 500
# Characters of all cells together: about 4 MiB of JSON.
MAX_CHARS = 4 << 20
MAX_CELL_CHARS = 10_000


def register(display_formatter: Any) -> None:
    """Teach IPython's display formatter the table type."""
    # The kernel has them loaded; the agent and the tests of cells do without.
    from IPython.core.formatters import BaseFormatter  # noqa: PLC0415
    from traitlets import ObjectName, Unicode  # noqa: PLC0415

    class TableFormatter(BaseFormatter):  # type: ignore[misc]
        """Formats an object as {"columns", "rows", "totalRows", "truncated"}."""

        format_type = Unicode(MIME)
        print_method = ObjectName("_repr_linkis_table_")
        _return_type = dict

    formatter = TableFormatter(parent=display_formatter)
    for module, name, function in (
        ("pandas", "DataFrame", frame_table),
        ("pandas.core.frame", "DataFrame", frame_table),
        ("pandas", "Series", series_table),
        ("pandas.core.series", "Series", series_table),
        ("duckdb._relation", "DuckDBPyRelation", relation_table),
        ("_duckdb", "DuckDBPyRelation", relation_table),
        ("duckdb", "DuckDBPyRelation", relation_table),
        ("duckdb.duckdb", "DuckDBPyRelation", relation_table),
    ):
        formatter.for_type_by_name(module, name, function)
    display_formatter.formatters[MIME] = formatter


def frame_table(frame: Any) -> dict[str, Any]:
    """A pandas DataFrame; an index that is more than row numbers becomes the first columns."""
    total = len(frame)
    head = frame.iloc[:MAX_ROWS, :MAX_COLUMNS]
    columns = []
    values: list[Iterable[Any]] = []
    index = head.index
    if type(index).__name__ != "RangeIndex" or index.name is not None:
        for level in range(index.nlevels):
            part = index.get_level_values(level)
            label = part.name if part.name is not None else "index" if index.nlevels == 1 else f"level_{level}"
            columns.append({"name": _label(label), "type": str(part.dtype)})
            values.append(part)
    for position, label in enumerate(head.columns):
        column = head.iloc[:, position]
        columns.append({"name": _label(label), "type": str(column.dtype)})
        values.append(column.array)
    rows: Iterable[Any] = zip(*values, strict=True) if values else ([] for _ in range(len(head)))
    return table(columns, rows, total=total, cut=frame.shape[1] > MAX_COLUMNS)


def series_table(series: Any) -> dict[str, Any]:
    """A pandas Series, as the frame of its one column."""
    name = series.name if series.name is not None else "value"
    return frame_table(series.to_frame(name=name))


def relation_table(relation: Any) -> dict[str, Any]:
    """A duckdb relation. One row more than shown is fetched: counting all would run the query a second time."""
    columns = [{"name": name, "type": str(kind)} for name, kind in zip(relation.columns, relation.types, strict=True)]
    found = relation.limit(MAX_ROWS + 1).fetchall()
    total = len(found) if len(found) <= MAX_ROWS else None
    rows = (row[:MAX_COLUMNS] for row in found)
    return table(columns[:MAX_COLUMNS], rows, total=total, cut=len(columns) > MAX_COLUMNS)


def table(columns: list[Any], rows: Iterable[Any], *, total: int | None, cut: bool) -> dict[str, Any]:
    """The result type of the interface, within its bounds. `total` is None where nobody has counted."""
    kept: list[list[Any]] = []
    chars = 0
    for row in islice(rows, MAX_ROWS):
        cells = [cell(value) for value in row]
        # 8 characters for a number and its comma are near enough for a bound.
        chars += sum(len(value) + 3 if isinstance(value, str) else 8 for value in cells)
        if chars > MAX_CHARS:
            break
        kept.append(cells)
    truncated = cut or total is None or len(kept) < total
    return {"columns": columns, "rows": kept, "totalRows": total, "truncated": truncated}


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


def _label(label: Any) -> str:
    return ".".join(str(part) for part in label) if isinstance(label, tuple) else str(label)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CELL_CHARS else text[:MAX_CELL_CHARS] + "…"

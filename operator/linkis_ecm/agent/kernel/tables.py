"""Tables as results: a display formatter for pandas frames and series and for duckdb relations.

Runs in the kernel; the agent has the type and the size of a cell from here. It names the classes instead of importing
them, so a kernel whose user never imports pandas never pays for it. Rows, cells and bytes are bounded here, before
anything is sent; what is cut is written whole beside the logs (`spill`), to be read page by page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from typing import Any

from linkis_ecm.agent.formats.cells import MAX_CELL_CHARS, MIME, QUOTES, cell, cell_chars, cells

# What a console shows at most; Linkis's own result page stops at the same number.
MAX_ROWS = 5000
MAX_COLUMNS = 500
# Characters of all cells together: about 4 MiB of JSON.
MAX_CHARS = 4 << 20
# Types of duckdb that Arrow or Python has in no good form: as duckdb itself writes them.
_AS_TEXT = ("BIGNUM", "BIT", "ENUM(", "INTERVAL", "MAP(", "TIME WITH TIME ZONE", "UNION(", "VARIANT")
_FETCH_ROWS = 2048


def register(display_formatter: Any, folder: str = "") -> None:
    """Teach IPython's display formatter the table type; tables that are cut are kept whole in `folder`."""
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
        formatter.for_type_by_name(module, name, _with_result_folder(folder, function))
    display_formatter.formatters[MIME] = formatter


def _with_result_folder(folder: str, function: Callable[[Any, str], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    return lambda value: function(value, folder)


def frame_table(frame: Any, folder: str = "") -> dict[str, Any]:
    """A pandas DataFrame; an index that is more than row numbers becomes the first columns."""
    total = len(frame)
    columns = []
    index = frame.index
    if type(index).__name__ != "RangeIndex" or index.name is not None:
        for level in range(index.nlevels):
            part = index[:0].get_level_values(level)
            label = part.name if part.name is not None else "index" if index.nlevels == 1 else f"level_{level}"
            columns.append({"name": _label(label), "type": str(part.dtype)})
    levels = len(columns)
    columns += [
        {"name": _label(label), "type": str(kind)} for label, kind in zip(frame.columns, frame.dtypes, strict=True)
    ]  # fmt: skip
    head = frame.iloc[:MAX_ROWS, :MAX_COLUMNS]
    values: list[Iterable[Any]] = [head.index.get_level_values(level) for level in range(levels)]
    values += [head.iloc[:, position].array for position in range(head.shape[1])]
    rows: Iterable[Any] = zip(*values, strict=True) if values else ([] for _ in range(len(head)))
    shown = table(columns[: len(values)], rows, total=total, cut=frame.shape[1] > MAX_COLUMNS)
    if folder and shown["truncated"]:
        with suppress(Exception):  # a full disk, values that nobody can convert: what is shown is shown as ever
            from linkis_ecm.agent.kernel import spill  # noqa: PLC0415 - pyarrow, for those who need it

            shown |= _table_bundle(spill.frame(frame, columns, folder))
    return shown


def series_table(series: Any, folder: str = "") -> dict[str, Any]:
    """A pandas Series, as the frame of its one column."""
    name = series.name if series.name is not None else "value"
    return frame_table(series.to_frame(name=name), folder)


def relation_table(relation: Any, folder: str = "") -> dict[str, Any]:
    """A duckdb relation. Its query runs once: the first rows of its record batches are shown, and where there are more
    all go to the file. Without pyarrow one row more than shown is fetched, and none is kept."""
    columns = [{"name": name, "type": str(kind)} for name, kind in zip(relation.columns, relation.types, strict=True)]
    batches = _batches(relation, columns)
    if batches is None:
        return _fetched(relation, columns)
    try:
        return _streamed(columns, batches, folder)
    finally:
        batches.close()


def _batches(relation: Any, columns: list[dict[str, str]]) -> Any:
    """The relation's reader of record batches; None where there is no Arrow."""
    try:
        import pyarrow  # noqa: F401, PLC0415 - duckdb itself needs it for this
    except ImportError:
        return None
    if any(column["type"].startswith(_AS_TEXT) for column in columns):
        quoted = [
            f'CAST({name} AS VARCHAR) AS {name}' if column["type"].startswith(_AS_TEXT) else name
            for column, name in ((column, '"' + column["name"].replace('"', '""') + '"') for column in columns)
        ]  # fmt: skip
        relation = relation.project(", ".join(quoted))
    read = getattr(relation, "to_arrow_reader", None) or relation.fetch_record_batch
    return read(_FETCH_ROWS)


def _streamed(columns: list[dict[str, str]], batches: Iterator[Any], folder: str) -> dict[str, Any]:
    head: list[Any] = []
    count = 0
    for batch in batches:
        head.append(batch)
        count += batch.num_rows
        if count > MAX_ROWS:
            break
    total = count if count <= MAX_ROWS else None
    shown = table(columns[:MAX_COLUMNS], _rows(head, columns), total=total, cut=len(columns) > MAX_COLUMNS)
    if folder and shown["truncated"]:
        with suppress(Exception):  # as above
            from linkis_ecm.agent.kernel import spill  # noqa: PLC0415 - as above

            kept = spill.relation(columns, chain(head, batches), folder)
            if kept.get("whole"):
                shown["totalRows"] = kept["resultRows"]
            shown |= _table_bundle(kept)
    return shown


def _rows(batches: list[Any], columns: list[dict[str, str]]) -> Iterator[list[Any]]:
    for batch in batches:
        shown = zip(batch.columns[:MAX_COLUMNS], columns, strict=False)
        values = [cells(array, column["type"]) for array, column in shown]
        yield from (list(row) for row in zip(*values, strict=True))


def _fetched(relation: Any, columns: list[dict[str, str]]) -> dict[str, Any]:
    """Without Arrow. One row more than shown is fetched: counting all would run the query a second time."""
    found = relation.limit(MAX_ROWS + 1).fetchall()
    total = len(found) if len(found) <= MAX_ROWS else None
    rows = (row[:MAX_COLUMNS] for row in found)
    return table(columns[:MAX_COLUMNS], rows, total=total, cut=len(columns) > MAX_COLUMNS)


def _table_bundle(kept: dict[str, Any]) -> dict[str, Any]:
    """Of a result's file, what goes to the caller."""
    return {name: value for name, value in kept.items() if name != "whole"}


def table(columns: list[Any], rows: Iterable[Any], *, total: int | None, cut: bool) -> dict[str, Any]:
    """The result type of the interface, within its bounds. `total` is None where nobody has counted."""
    kept: list[list[Any]] = []
    chars = 0
    for row in islice(rows, MAX_ROWS):
        cells = [cell(value) for value in row]
        lengths = [cell_chars(value) for value in cells]
        chars += sum(lengths)
        if chars > MAX_CHARS:
            break
        cut = cut or max(lengths, default=0) > MAX_CELL_CHARS + QUOTES
        kept.append(cells)
    truncated = cut or total is None or len(kept) < total
    return {"columns": columns, "rows": kept, "totalRows": total, "truncated": truncated}


def _label(label: Any) -> str:
    return ".".join(str(part) for part in label) if isinstance(label, tuple) else str(label)

"""Tables as results: a display formatter for pandas frames and series and for duckdb relations.

Runs in the kernel; the agent has the type and the size of a cell from here. It names the classes instead of importing
them, so a kernel whose user never imports pandas never pays for it. Rows, cells and bytes are bounded here, before
anything is sent; what is cut is written whole beside the logs (`spill`), to be read page by page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from typing import Any, cast

from linkis_ecm.agent.formats.cells import (
    INT64_MIN,
    MAX_CELL_CHARS,
    MIME,
    QUOTES,
    cell,
    cell_chars,
    cell_text,
    cells,
    is_plain,
)
from linkis_ecm.agent.formats.times import duration_text, timestamp_text

# What a console shows at most; Linkis's own result page stops at the same number.
MAX_ROWS = 5000
MAX_COLUMNS = 500
# Characters of a column's name and of its type; the gateway cuts those of a file at the same.
MAX_NAME = 1000
# Characters of all cells together: about 4 MiB of JSON.
MAX_CHARS = 4 << 20
# Types of duckdb that Arrow or Python has in no good form: as duckdb itself writes them.
_AS_TEXT = ("BIGNUM", "BIT", "ENUM(", "INTERVAL", "MAP(", "TIME WITH TIME ZONE", "UHUGEINT", "UNION(", "VARIANT")
# Within lists and structs, those whose Python form is no text for people, or depends on what is installed.
_AS_TEXT_WITHIN = (*_AS_TEXT, "BLOB", "DATE", "DECIMAL(", "HUGEINT", "TIME")
_FETCH_ROWS = 2048


def register(display_formatter: Any, folder: str = "") -> None:
    """Teach IPython's display formatter the table type; tables that are cut are kept whole in `folder`.

    What is shown as a table is formatted once: the other forms of a frame cost more, and the text of a duckdb relation
    would run its query again.
    """
    # The kernel has them loaded; the agent and the tests of cells do without.
    from IPython.core.formatters import BaseFormatter, get_real_method  # noqa: PLC0415
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
    all_forms = display_formatter.format

    def table_alone(value: Any, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """DisplayFormatter.format: the table where there is one, else whatever IPython has."""
        if not include and not exclude and get_real_method(value, "_ipython_display_") is None:
            try:
                show = formatter.lookup(value)
            except KeyError:
                show = None
            if show is not None:
                # An error of the query is shown by the formatter, once, and there is nothing else to show then.
                shown = formatter(value)
                if shown is not None:
                    return {MIME: shown, "text/plain": _in_words(shown)}, {}
                if _is_relation(value):
                    return {}, {}
                exclude = {MIME}
        found: tuple[dict[str, Any], dict[str, Any]] = all_forms(value, include=include, exclude=exclude)
        return found

    display_formatter.format = table_alone


def _in_words(shown: dict[str, Any]) -> str:
    total = shown["totalRows"]
    return f"[table: {len(shown['rows']) if total is None else total} rows, {len(shown['columns'])} columns]"


def _is_relation(value: Any) -> bool:
    return any(kind.__name__ == "DuckDBPyRelation" for kind in type(value).__mro__)


def _with_result_folder(
    folder: str, function: Callable[[Any, str], dict[str, Any]]
) -> Callable[[Any], dict[str, Any] | None]:
    def show(value: Any) -> dict[str, Any] | None:
        try:
            return function(value, folder)
        except Exception:
            # The query's own error is the user's. Any other is ours: the value is shown in another form.
            if _is_relation(value):
                raise
            return None

    return show


def frame_table(frame: Any, folder: str = "") -> dict[str, Any]:
    """A pandas DataFrame; an index that is more than row numbers becomes the first columns."""
    total = len(frame)
    columns = []
    index = frame.index
    if type(index).__name__ != "RangeIndex" or index.name is not None:
        for level in range(index.nlevels):
            part = index[:0].get_level_values(level)
            label = part.name if part.name is not None else "index" if index.nlevels == 1 else f"level_{level}"
            columns.append({"name": _label(label), "type": str(part.dtype)[:MAX_NAME]})
    levels = len(columns)
    columns += [
        {"name": _label(label), "type": str(kind)[:MAX_NAME]}
        for label, kind in zip(frame.columns, frame.dtypes, strict=True)
    ]
    head = frame.iloc[:MAX_ROWS, :MAX_COLUMNS]
    arrays = [head.index.get_level_values(level).array for level in range(levels)]
    arrays += [head.iloc[:, position].array for position in range(head.shape[1])]
    values = [_values(array) for array in arrays]
    rows: Iterable[Any] = zip(*values, strict=True) if values else ([] for _ in range(len(head)))
    shown = table(columns[: len(values)], rows, total=total, cut=frame.shape[1] > MAX_COLUMNS)
    if folder and shown["truncated"]:
        with suppress(Exception):  # a full disk: what is shown is shown as ever
            from linkis_ecm.agent.kernel.tables import spill  # noqa: PLC0415 - pyarrow, for those who need it

            kept = spill.frame(frame, columns, folder)
            # What is text in the file is text here, too: a value is the same wherever it is read.
            texts = [position for position in kept.pop("texts", ()) if position < len(values)]
            for row in shown["rows"] if texts else ():
                for position in texts:
                    row[position] = cell_text(row[position])
            shown |= _table_bundle(kept)
    return shown


def _values(array: Any) -> Iterable[Any]:
    """A column's values. Times as text: pandas' own objects have no text of some of them."""
    kind = type(array).__name__
    if kind in ("DatetimeArray", "TimedeltaArray"):
        zone = getattr(array, "tz", None)
        times = kind == "DatetimeArray"
        return [
            None if value == INT64_MIN
            else timestamp_text(value, array.unit, zone) if times
            else duration_text(value, array.unit)
            for value in array.asi8.tolist()
        ]  # fmt: skip
    if kind == "Categorical":
        categories = [cell(value) for value in _values(array.categories.array)]
        return [None if code < 0 else categories[code] for code in array.codes.tolist()]
    if getattr(array.dtype, "kind", "O") in "biuf" and kind == "NumpyExtensionArray":
        return cast("Iterable[Any]", array.to_numpy().tolist())
    if kind == "ArrowExtensionArray":
        return _arrow_values(array)
    return cast("Iterable[Any]", array)


def _arrow_values(array: Any) -> Iterable[Any]:
    """A column of pandas that is Arrow's: as a reader of its file sees it."""
    import pyarrow as pa  # noqa: PLC0415 - it is loaded then

    found = pa.array(array)
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    nested = found.type.num_fields or pa.types.is_dictionary(found.type)
    return cast("Iterable[Any]", array) if nested or not is_plain(found.type) else cells(found)


def series_table(series: Any, folder: str = "") -> dict[str, Any]:
    """A pandas Series, as the frame of its one column."""
    name = series.name if series.name is not None else "value"
    return frame_table(series.to_frame(name=name), folder)


def relation_table(relation: Any, folder: str = "") -> dict[str, Any]:
    """A duckdb relation. Its query runs once: the first rows of its record batches are shown, and where there are more
    all go to the file. Without pyarrow one row more than shown is fetched, and none is kept."""
    columns = [
        {"name": _label(name), "type": str(kind)} for name, kind in zip(relation.columns, relation.types, strict=True)
    ]  # fmt: skip
    batches = _batches(relation, columns)
    if batches is None:
        return _fetched(relation, columns)
    try:
        return _streamed(columns, _without_nan(batches, columns), folder)
    finally:
        batches.close()


def _batches(relation: Any, columns: list[dict[str, str]]) -> Any:
    """The relation's reader of record batches; None where there is no Arrow."""
    try:
        import pyarrow  # noqa: F401, PLC0415 - duckdb itself needs it for this
    except ImportError:
        return None
    if any(_needs_text(column["type"]) for column in columns):
        # By position: two columns may have one name.
        quoted = [
            f"CAST(#{n} AS VARCHAR)" if _needs_text(column["type"]) else f"#{n}" for n, column in enumerate(columns, 1)
        ]
        relation = relation.project(", ".join(quoted))
    read = getattr(relation, "to_arrow_reader", None) or relation.fetch_record_batch
    return read(_FETCH_ROWS)


def _needs_text(name: str) -> bool:
    """Whether duckdb itself has to write the values of this type."""
    nested = name.endswith("]") or name.startswith("STRUCT(")
    return name.startswith(_AS_TEXT) or (nested and any(part in name for part in _AS_TEXT_WITHIN))


def _without_nan(batches: Iterable[Any], columns: list[dict[str, str]]) -> Iterator[Any]:
    """The batches with NaN as what is missing, as in a frame."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    from linkis_ecm.agent.kernel.tables.arrays import without_nan  # noqa: PLC0415 - it imports pyarrow

    names = [column["name"] for column in columns]
    for batch in batches:
        yield pa.RecordBatch.from_arrays([without_nan(array) for array in batch.columns], names=names)


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
            from linkis_ecm.agent.kernel.tables import spill  # noqa: PLC0415 - as above

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
    """A column's name. Half of a surrogate pair becomes a question mark, as in the result's file."""
    parts = label if isinstance(label, tuple) else (label,)
    name = ".".join(_word(part) for part in parts)
    return name[:MAX_NAME].encode(errors="replace").decode()


def _word(part: Any) -> str:
    try:
        return str(part)
    except Exception:  # the user's own class
        return f"<{type(part).__qualname__}>"

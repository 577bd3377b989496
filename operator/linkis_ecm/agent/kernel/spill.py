"""Writes a table that is too big to be shown as an Arrow IPC file, from which any row can be read without the others.

Runs in the kernel, inside the user's cell: bounded in time, bytes and memory, and nothing that fails here fails the
cell. pyarrow is imported when a table is cut, not before; pandas never.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from linkis_ecm.agent.formats.cells import TYPE_KEY, is_plain
from linkis_ecm.agent.formats.result_files import file_name, make_room, new_id

# A bound for one result, and for all of an engine: a quarter of the volume that the logs are on (podspec.LOG_VOLUME).
MAX_RESULT_BYTES = 256 << 20
MAX_ENGINE_BYTES = 1 << 30
MAX_RESULTS = 64
# For the whole of it: who displays a table waits for it.
MAX_SECONDS = 10.0
MAX_COLUMNS = 10_000
# Rows of a batch: as many as make BATCH_BYTES by the first ones, and the same number in each, so that a row's batch is
# known by division. A reader holds one batch at a time; one over MAX_BATCH_BYTES ends the file before it.
BATCH_ROWS = 8192
BATCH_CELLS = 1 << 20
BATCH_BYTES = 2 << 20
MAX_BATCH_BYTES = 32 << 20
# As the gateway takes (gateway.arrowfile): 268 million rows.
MAX_BATCHES = 1 << 15
SAMPLE_ROWS = 256
_PART = "part-"

Column = dict[str, str]
# Rows from and to (not included), as an array for each column.
Slice = Callable[[int, int], list[Any]]


class NotKeptError(Exception):
    """A later value does not fit into its column's type."""


def frame(table: Any, columns: list[Column], folder: str) -> dict[str, Any]:
    """A pandas DataFrame. What the answer says of it; nothing where it could not be written."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    if len(columns) > MAX_COLUMNS:
        return {}
    deadline = time.monotonic() + MAX_SECONDS
    as_text: set[int] = set()
    # The types are those of the first rows; a column that turns out to hold others, too, is text from its first row on.
    for _ in range(2):
        read = _reader(table, as_text)
        sample = read(0, min(SAMPLE_ROWS, len(table)))
        schema = _schema(columns, [array.type for array in sample])
        rows = batch_rows(sample)

        def chunks(read: Slice = read, rows: int = rows) -> Iterator[list[Any]]:
            for start in range(0, len(table), rows):
                yield read(start, min(start + rows, len(table)))

        try:
            return write(folder, schema, chunks(), rows=rows, deadline=deadline)
        except (NotKeptError, pa.ArrowException):
            as_text = {n for n, array in enumerate(sample) if str(columns[n]["type"]) == "object"}
    return {}


def relation(columns: list[Column], batches: Iterable[Any], folder: str) -> dict[str, Any]:
    """A query's record batches, of which the first has been looked at already. As `frame`."""
    found = iter(batches)
    first = next(found, None)
    if first is None or len(columns) > MAX_COLUMNS:
        return {}
    deadline = time.monotonic() + MAX_SECONDS
    head = _plain(first)
    schema = _schema(columns, [array.type for array in head])

    def chunks() -> Iterator[list[Any]]:
        yield head
        for batch in found:
            yield _plain(batch)

    rows = batch_rows(head)
    try:
        return write(folder, schema, chunks(), rows=rows, deadline=deadline)
    except NotKeptError:
        return {}


def batch_rows(sample: list[Any]) -> int:
    """How many rows make a batch, by the first ones."""
    size = sum(array.nbytes for array in sample) or 1
    by_size = BATCH_BYTES * len(sample[0]) // size if sample else BATCH_ROWS
    return max(1, min(BATCH_ROWS, BATCH_CELLS // (len(sample) or 1), by_size))


def write(folder: str, schema: Any, chunks: Iterable[list[Any]], *, rows: int, deadline: float) -> dict[str, Any]:
    """The file, under a name of its own once it is whole. `resultRows` is how many rows it has; `whole` whether that is
    all of them. Raises NotKeptError, and OSError where the disk takes nothing."""
    import pyarrow as pa  # noqa: PLC0415 - see above
    from pyarrow import ipc  # noqa: PLC0415

    os.makedirs(folder, mode=0o750, exist_ok=True)
    _remove_partial_files(folder)
    make_room(folder, count=MAX_RESULTS - 1, size=MAX_ENGINE_BYTES - MAX_RESULT_BYTES)
    result_id = new_id()
    part = f"{folder}/{_PART}{os.getpid()}-{result_id}"
    written, whole = 0, True

    def in_time() -> Iterator[list[Any]]:
        """A query may give its rows one by one, and slowly: looked at with each, and what has come is kept."""
        nonlocal whole
        for arrays in chunks:
            if time.monotonic() > deadline:
                whole = False
                return
            yield arrays

    try:
        with pa.OSFile(part, "wb") as sink:
            options = ipc.IpcWriteOptions(compression="lz4")
            with ipc.new_file(sink, schema, options=options) as writer:
                for number, batch in enumerate(_record_batches(schema, in_time(), rows)):
                    if sink.tell() > MAX_RESULT_BYTES or number == MAX_BATCHES or batch.nbytes > MAX_BATCH_BYTES:
                        whole = False
                        break
                    writer.write_batch(batch)
                    written += batch.num_rows
        size = os.path.getsize(part)
        if not written:
            return {}
        os.rename(part, f"{folder}/{file_name(result_id)}")
    finally:
        with suppress(OSError):
            os.unlink(part)
    return {"resultId": result_id, "resultBytes": size, "resultRows": written, "whole": whole}


def _record_batches(schema: Any, chunks: Iterable[list[Any]], rows: int) -> Iterator[Any]:
    """Batches of exactly `rows` rows, but for the last."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    waiting: list[Any] = []
    count = 0
    for arrays in chunks:
        batch = pa.RecordBatch.from_arrays([_cast(array, field) for array, field in zip(arrays, schema, strict=True)],
                                           schema=schema)  # fmt: skip
        if not waiting and batch.num_rows == rows:
            yield batch
            continue
        waiting.append(batch)
        count += batch.num_rows
        while count >= rows:
            joined = pa.Table.from_batches(waiting, schema).combine_chunks()
            full = joined.slice(0, rows).combine_chunks().to_batches()
            yield full[0]
            waiting = joined.slice(rows).to_batches()
            count -= rows
    if count:
        yield pa.Table.from_batches(waiting, schema).combine_chunks().to_batches()[0]


def _cast(array: Any, field: Any) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - see above

    if array.type == field.type:
        return array
    try:
        return array.cast(field.type)
    except pa.ArrowException:
        raise NotKeptError(f"{field.name}: {array.type} is no {field.type}") from None


def _schema(columns: list[Column], types: list[Any]) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - see above

    return pa.schema(
        [
            pa.field(column["name"], kind, metadata={TYPE_KEY: column["type"].encode(errors="replace")})
            for column, kind in zip(columns, types, strict=True)
        ]
    )


def _plain(batch: Any) -> list[Any]:
    """A batch's columns, each of a type that is kept."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    found = []
    for array in batch.columns:
        plain = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
        found.append(plain if is_plain(plain.type) else text(plain.to_pylist()))
    return found


def _reader(table: Any, as_text: set[int]) -> Slice:
    """Reads slices of a DataFrame: the index's levels where the table shows them, then the columns."""
    categories: dict[int, Any] = {}

    def read(start: int, stop: int) -> list[Any]:
        part = table.iloc[start:stop]
        index = part.index
        levels = [] if _only_numbers(table.index) else [index.get_level_values(n) for n in range(index.nlevels)]
        values = [*(level.to_series() for level in levels), *(part.iloc[:, n] for n in range(part.shape[1]))]
        return [
            text(list(value)) if n in as_text else _array(value, n, categories) for n, value in enumerate(values)
        ]  # fmt: skip

    return read


def _array(series: Any, position: int, categories: dict[int, Any]) -> Any:
    """A slice of a column; as text where Arrow has no plain type for it."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    try:
        if str(series.dtype) == "category":
            if position not in categories:
                categories[position] = pa.array(series.cat.categories.to_series(), from_pandas=True)
            codes = series.cat.codes.to_numpy()
            return categories[position].take(pa.array(codes, mask=codes < 0))
        found = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, UnicodeError):
        return text(list(series))
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    # Nothing but missing values so far: what comes later is most likely text.
    empty = pa.types.is_null(found.type)
    return found if is_plain(found.type) and not empty else text(list(series))


def text(values: list[Any]) -> Any:
    """Whatever they are, as text; null for what is missing."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    return pa.array([_text_of(value) for value in values], pa.large_string())


def _text_of(value: Any) -> str | None:
    if value is None or type(value).__name__ in ("NaTType", "NAType"):
        return None
    if isinstance(value, float) and value != value:  # noqa: PLR0124 - NaN
        return None
    told = value if isinstance(value, str) else value.isoformat() if hasattr(value, "isoformat") else str(value)
    # Half of a surrogate pair has no UTF-8.
    return told.encode(errors="replace").decode()


def _only_numbers(index: Any) -> bool:
    return type(index).__name__ == "RangeIndex" and index.name is None


def _remove_partial_files(folder: str) -> None:
    """Takes away what an earlier kernel was at when it died."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(_PART) and not name.startswith(f"{_PART}{os.getpid()}-"):
                with suppress(OSError):
                    os.unlink(f"{folder}/{name}")

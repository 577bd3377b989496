"""Writes a table that is too big to be shown as an Arrow IPC file, from which any row can be read without the others.

Runs in the kernel, inside the user's cell: bounded in time, bytes and memory, and nothing that fails here fails the
cell. pyarrow is imported when a table is cut, not before; pandas never.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

from linkis_ecm.agent.formats.cells import TYPE_KEY, cell_text, cells, is_plain, whole_cell
from linkis_ecm.agent.formats.result_files import file_name, make_room, new_id

# A bound for one result, and for all of an engine: a quarter of the volume that the logs are on
# (model.plugin.LOG_VOLUME).
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
# Of a whole number of 128 bits; Arrow's decimals of as many bits have one less.
_HUGEINT_DIGITS = 39

Column = dict[str, str]


class NotKeptError(Exception):
    """A later value does not fit into its column's type."""


def frame(table: Any, columns: list[Column], folder: str) -> dict[str, Any]:
    """A pandas DataFrame. What the answer says of it, and `texts`: the positions of the columns that are text in the
    file. Nothing where it has too many columns; raises OSError where it could not be written."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    from linkis_ecm.agent.kernel.tables.arrays import FrameReader  # noqa: PLC0415 - it imports pyarrow

    if len(columns) > MAX_COLUMNS:
        return {}
    deadline = time.monotonic() + MAX_SECONDS
    reader = FrameReader(table)
    # The types are those of the first rows. Where a later value does not fit, the file is started again with more
    # columns as text, at last with all of them: no row is lost for its value.
    for fallback in (reader.objects_as_text, reader.all_as_text, None):
        try:
            sample = reader.read(0, min(SAMPLE_ROWS, len(table)))
            schema = _schema(columns, [array.type for array in sample])
            rows = batch_rows(sample)
            chunks = (reader.read(start, min(start + rows, len(table))) for start in range(0, len(table), rows))
            kept = write(folder, schema, chunks, rows=rows, deadline=deadline)
        except OSError:
            raise
        except Exception:  # a value that does not fit, in whatever way Arrow says so
            if fallback is None:
                raise
            fallback()
            continue
        texts = [n for n, kind in enumerate(schema.types) if pa.types.is_large_string(kind)]
        return kept | {"texts": texts} if kept else {}
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
    too_long: set[int] = set()

    def chunks() -> Iterator[list[Any]]:
        for arrays in chain([head], map(_plain, found)):
            too_long.update(n for n, array in enumerate(arrays) if n not in too_long and not _has_room(array))
            yield arrays

    rows = batch_rows(head)
    try:
        kept = write(folder, schema, chunks(), rows=rows, deadline=deadline)
        return _with_room(folder, kept, schema, too_long, rows) if too_long and kept else kept
    except NotKeptError:
        return {}


def _has_room(array: Any) -> bool:
    """False for values of duckdb's that are none of their type of Arrow, so that readers refuse them: whole numbers of
    one digit more, and 24:00:00."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    if not (pa.types.is_decimal(array.type) or pa.types.is_time(array.type)):
        return True
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _with_room(folder: str, kept: dict[str, Any], schema: Any, columns: set[int], rows: int) -> dict[str, Any]:
    """The file written again, with these columns as longer decimals, or as text. A query cannot be run again."""
    import pyarrow as pa  # noqa: PLC0415 - see above
    from pyarrow import ipc  # noqa: PLC0415

    path = f"{folder}/{file_name(kept['resultId'])}"
    for n in columns:
        field, decimal = schema.field(n), pa.types.is_decimal(schema.field(n).type)
        more = pa.decimal256(_HUGEINT_DIGITS, field.type.scale) if decimal else pa.large_string()
        schema = schema.set(n, field.with_type(more))
    try:
        with pa.OSFile(path) as source:
            file = ipc.open_file(source)
            batches = (file.get_batch(n) for n in range(file.num_record_batches))
            chunks = (
                [
                    # Arrow's own text of a time is another one.
                    pa.array(cells(array), field.type)
                    if pa.types.is_time(array.type) and array.type != field.type
                    else array.cast(field.type)
                    for array, field in zip(batch.columns, schema, strict=True)
                ]
                for batch in batches
            )
            again = write(folder, schema, chunks, rows=rows, deadline=math.inf)
    finally:
        os.unlink(path)
    return again | {"whole": kept["whole"] and again.get("whole", False)}


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
    """The array in its column's type. Its values stay what they are: no number becomes another kind of number."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    if array.type == field.type:
        return array
    if array.null_count == len(array):
        return pa.nulls(len(array), field.type)
    if all(pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in (array.type, field.type)):
        return array.cast(field.type)
    raise NotKeptError(f"{field.name}: {array.type} is no {field.type}")


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


def text(values: Iterable[Any]) -> Any:
    """An array of their texts, as a table shows them; null for what is missing."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    texts = (cell_text(whole_cell(value)) for value in values)
    # Half of a surrogate pair has no UTF-8.
    return pa.array(
        [None if told is None else told.encode(errors="replace").decode() for told in texts], pa.large_string()
    )


def _remove_partial_files(folder: str) -> None:
    """Takes away what an earlier kernel was at when it died."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(_PART) and not name.startswith(f"{_PART}{os.getpid()}-"):
                with suppress(OSError):
                    os.unlink(f"{folder}/{name}")

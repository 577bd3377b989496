"""Reads rows of a spilled result: a remote Arrow IPC file, read by byte ranges.

All batches but the last have the same number of rows, so a row's batch follows from a division, and the last page costs
as much as the first. The engine's user controls the file: every size is checked before memory is allocated for it, and
every batch before it is used. pyarrow runs in threads, and is imported when the first result is read.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from linkis_ecm.agent.formats.cells import TYPE_KEY, is_plain
from linkis_ecm.gateway.http.budget import ByteBudget
from linkis_ecm.gateway.results.arrow_metadata import (
    MAGIC,
    BatchLayout,
    Block,
    Blocks,
    MalformedError,
    SchemaSize,
    batch,
    blocks,
    message,
    schema_size,
)

log = logging.getLogger(__name__)

# Limits in bytes and counts. Engines write less of everything (agent.kernel.tables.spill).
FILE_MAX = 512 << 20
FOOTER_MAX = 8 << 20
METADATA_MAX = 4 << 20
BODY_MAX = 40 << 20
PLAIN_MAX = 40 << 20
BLOCKS_MAX = 1 << 15
ROWS_MAX = 1 << 16
COLUMNS_MAX = 10_000
# Values of one batch, with those within lists and structs, which may take no bytes in the file.
CELLS_MAX = 1 << 22
# Bytes of one nested value as a Python object and as text, without its field's name; and of all nested values of a
# batch.
CELL_BYTES = 64
NESTED_MAX = 256 << 20
# How many times a batch's bytes are in memory on the way to an answer; lists and structs become Python objects.
TIMES, TIMES_NESTED = 2, 10
# The assumed compression ratio of a batch before its metadata is known.
RATIO = 3
# Bytes in memory of small batches that are read and decoded together.
RUN_BYTES = 8 << 20
# Characters of a column's name and of its type.
NAME_MAX = 1000
# Bytes in memory of a byte of names and types, which Arrow has and Python with up to four bytes a character, twice; and
# of a field.
TEXT_TIMES, FIELD_BYTES = 9, 500
# Bytes read from both ends when a file is opened: in most files this is everything except the batches.
EDGE_BYTES = 64 << 10

# (offset, length) -> exactly `length` bytes from there, or an error.
Read = Callable[[int, int], Awaitable[bytes]]


class ArrowFile:
    """An open file: its `columns`, the number of `rows`, and slices of the rows. `begin` is its first EDGE_BYTES, where
    they were read before. `is_live`: it is in the engine's pod, and can be read for as long as that keeps it."""

    def __init__(
        self,
        read: Read,
        size: int,
        *,
        threads: ThreadPoolExecutor,
        budget: ByteBudget,
        begin: bytes = b"",
        is_live: bool = False,
    ) -> None:
        self.is_live = is_live
        self._read_from = read
        self._size = size
        self._threads = threads
        self._budget = budget
        self._head, self._tail = begin, b""
        self._blocks = Blocks(b"")
        self._batch_rows = 0
        self._times = TIMES
        self._cell_bytes = CELL_BYTES
        # Bytes that the batch before needed: batches are alike.
        self._need = 0
        self._schema_bytes = 0
        self.schema: Any = None
        self.columns: list[dict[str, str]] = []
        self.rows = 0

    async def open(self) -> ArrowFile:
        """Read everything except the rows. Raises MalformedError, and what the read function raises."""
        size = self._size
        if not 2 * len(MAGIC) + 4 <= size <= FILE_MAX:
            raise MalformedError(f"a result of {size} bytes is none")
        self._head = self._head or await self._read_from(0, min(EDGE_BYTES, size))
        self._tail = self._head if size <= EDGE_BYTES else await self._read_from(size - EDGE_BYTES, EDGE_BYTES)
        end = size - len(MAGIC) - 4
        (length,) = struct.unpack_from("<i", self._tail, len(self._tail) - len(MAGIC) - 4)
        if not self._head.startswith(MAGIC) or not self._tail.endswith(MAGIC) or not 0 < length <= min(FOOTER_MAX, end):
            raise MalformedError("it is no Arrow file")
        self._blocks = blocks(await self._read(end - length, length), BLOCKS_MAX)
        behind = 0
        for block in self._blocks:
            if (
                block.body < 0
                or block.offset < behind
                or not 8 < block.metadata <= METADATA_MAX
                or block.body > BODY_MAX
                or block.offset + block.metadata + block.body > end - length
            ):
                raise MalformedError("a batch is not within the file behind the one before it, or too big")
            behind = block.offset + block.metadata + block.body
        first = self._blocks[0].offset if self._blocks else end - length
        await self._read_schema(min(first, METADATA_MAX))
        if self._blocks:
            self._batch_rows = (await self._layout_of(0)).rows
            last = (await self._layout_of(len(self._blocks) - 1)).rows
            if not self._batch_rows or last > self._batch_rows:
                raise MalformedError("its batches are not of equal length")
            self.rows = self._batch_rows * (len(self._blocks) - 1) + last
        return self

    @property
    def held_bytes(self) -> int:
        """Bytes that it has in memory while nobody reads rows, about: a schema takes more than in the file."""
        return len(self._head) + len(self._tail) + self._blocks.nbytes + self._schema_bytes

    async def slices(self, begin: int, end: int) -> AsyncGenerator[Any]:
        """The rows from `begin` to `end` (not included, counted from 0) as record batches, RUN_BYTES of them in memory
        at a time, or one that is bigger. Their bytes stay reserved until the next ones are requested, so the generator
        must be closed."""
        end = min(end, self.rows)
        while begin < end:
            index, skip = divmod(begin, self._batch_rows)
            run = self._run(index, (end - 1) // self._batch_rows)
            held = max(len(run) * self._need, sum(block.size + self._times * RATIO * block.body for block in run))
            for _ in range(2):
                async with self._budget.hold(held) as shrink:
                    data = await self._read(run[0].offset, run[-1].end - run[0].offset)
                    needs, rows = self._needs(index, run, data)
                    self._need = max(needs)
                    if sum(needs) <= held:
                        shrink(sum(needs))
                        parts = [memoryview(data)[block.offset - run[0].offset :][: block.size] for block in run]
                        found = await self.run_in_thread(_decode, parts, self.schema, rows)
                        while found:
                            count = min(found[0].num_rows - skip, end - begin)
                            yield found.pop(0).slice(skip, count)
                            begin += count
                            skip = 0
                        del data, parts, found
                        break
                # Reserve the whole budget before reading; never wait for budget while holding unreserved bytes. So the
                # batches are dropped, the full need of the first one reserved, and that one read again.
                del data
                run, held = run[:1], needs[0]
            else:
                raise MalformedError("a batch has changed while it was read")

    def _run(self, index: int, last: int) -> list[Block]:
        """The batch at `index`, and of those behind it, up to the one at `last`, as many as are read with it: each
        question to an agent takes longer than to decode a small batch."""
        run = [self._blocks[index]]
        for block in map(self._blocks.__getitem__, range(index + 1, last + 1)):
            # Of the first batch that is read it is not known yet how big it is in memory.
            if not self._need or (len(run) + 1) * self._need > RUN_BYTES or block.offset != run[-1].end:
                break
            run.append(block)
        return run

    def _needs(self, index: int, run: list[Block], data: bytes) -> tuple[list[int], list[int]]:
        """The bytes that each batch of a run needs, and its rows. Raises MalformedError where one is over a limit."""
        needs, rows = [], []
        for number, block in enumerate(run):
            part = memoryview(data)[block.offset - run[0].offset :][: block.size]
            layout = self._checked(index + number, part)
            plain = layout.plain_bytes(part[block.metadata :])
            if plain > PLAIN_MAX:
                raise MalformedError(f"a batch of {plain} bytes is over the limit")
            needs.append(block.size + self._times * plain + self._nested(layout))
            rows.append(layout.rows)
        return needs, rows

    async def run_in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """A blocking call on the file's data, in one of the threads for results. Raises MalformedError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)
        except MalformedError:
            raise
        except Exception as error:  # an unknown time zone, a number without digits: many kinds of bad values
            log.warning("a spilled result: %r", error)
            raise MalformedError(f"a value cannot be read ({type(error).__name__})") from None

    async def _read_schema(self, length: int) -> None:
        data = await self._read(8, length - 8)
        found = await self.run_in_thread(_schema, message(data), data)
        self.schema, self.columns = found.schema, found.columns
        self._times = TIMES_NESTED if found.is_nested else TIMES
        self._cell_bytes = CELL_BYTES + found.longest_name
        self._schema_bytes = 4 * len(data) + TEXT_TIMES * found.size.texts + FIELD_BYTES * found.size.fields

    async def _layout_of(self, index: int) -> BatchLayout:
        block = self._blocks[index]
        return self._checked(index, await self._read(block.offset, block.metadata), first=True)

    def _checked(self, index: int, data: bytes | memoryview, *, first: bool = False) -> BatchLayout:
        """The layout of a batch, from its metadata. Raises MalformedError where it is over a limit or inconsistent."""
        layout = batch(message(data[: self._blocks[index].metadata]))
        cells = max(layout.cells, layout.rows * len(self.columns))
        if layout.rows > ROWS_MAX or cells > CELLS_MAX or self._nested(layout) > NESTED_MAX:
            raise MalformedError("a batch has too many rows, or too many values within them")
        expected = min(self._batch_rows, self.rows - index * self._batch_rows)
        if not first and layout.rows != expected:
            raise MalformedError("its batches are not of equal length")
        return layout

    def _nested(self, layout: BatchLayout) -> int:
        """Bytes that the values within lists and structs may need as Python objects, however few they take in the
        file."""
        return max(0, layout.cells - layout.rows * len(self.columns)) * self._cell_bytes

    async def _read(self, offset: int, length: int) -> bytes:
        """Bytes of the file, from the two ends in memory where they have them."""
        if offset + length <= len(self._head):
            return self._head[offset : offset + length]
        start = self._size - len(self._tail)
        if offset >= start:
            return self._tail[offset - start : offset - start + length]
        return await self._read_from(offset, length)


@dataclass(frozen=True, slots=True)
class _Schema:
    """What a file's schema says: `longest_name` is of the fields within columns."""

    schema: Any
    columns: list[dict[str, str]]
    is_nested: bool
    longest_name: int
    size: SchemaSize


def _schema(metadata: memoryview, data: bytes) -> _Schema:
    """Blocking. The schema at the beginning of a file, `data`; `metadata` is its message's. Raises MalformedError."""
    import pyarrow as pa  # noqa: PLC0415 - the gateway's start does not pay for it
    from pyarrow import ipc  # noqa: PLC0415

    size = schema_size(metadata)
    try:
        found = ipc.read_schema(pa.py_buffer(data))
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise MalformedError(f"it has no schema: {_short(error)}") from None
    if len(found) > COLUMNS_MAX:
        raise MalformedError(f"it has {len(found)} columns")
    try:
        odd = [field.type for field in found if not is_plain(field.type)]
        # Arrow decodes names and types when they are used: a name that is no UTF-8 must fail here.
        columns = [{"name": field.name[:NAME_MAX], "type": _type_name(field)[:NAME_MAX]} for field in found]
        longest = max((_longest_name(field.type) for field in found), default=0)
    except UnicodeDecodeError:
        raise MalformedError("a column's name is not in UTF-8") from None
    if odd:
        raise MalformedError(f"a column's type is not one that engines keep: {str(odd[0])[:100]}")
    return _Schema(found, columns, any(field.type.num_fields for field in found), longest, size)


def _decode(parts: list[memoryview], schema: Any, rows: list[int]) -> list[Any]:
    """Blocking. Record batches with every value validated. Raises MalformedError."""
    import pyarrow as pa  # noqa: PLC0415 - see above
    from pyarrow import ipc  # noqa: PLC0415

    decoded = []
    for part, count in zip(parts, rows, strict=True):
        try:
            found = ipc.read_record_batch(ipc.read_message(pa.py_buffer(part)), schema)
            # Checks offsets and UTF-8: without it a wrong offset reads other memory of the process.
            found.validate(full=True)
        except (pa.ArrowException, OSError, ValueError, TypeError, MemoryError) as error:
            raise MalformedError(f"a batch cannot be read: {_short(error)}") from None
        if found.num_rows != count:
            raise MalformedError("a batch has other rows than it says")
        decoded.append(found)
    return decoded


def _type_name(field: Any) -> str:
    """The type's name in pandas or duckdb, which the engine noted; else Arrow's own."""
    name = (field.metadata or {}).get(TYPE_KEY)
    return name.decode(errors="replace") if name else str(field.type)


def _longest_name(kind: Any) -> int:
    """The longest name of the fields within a type: a struct's text repeats it in each row."""
    inner = [kind.field(n) for n in range(kind.num_fields)]
    return max((max(len(field.name), _longest_name(field.type)) for field in inner), default=0)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

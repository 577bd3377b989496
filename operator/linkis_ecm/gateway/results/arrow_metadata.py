"""Reads the sizes in Arrow's IPC metadata: the blocks of a file and the buffers of a record batch.

The engine's user controls the file, and Arrow's own reader trusts it: it would allocate a buffer of any announced size.
So the sizes are checked here before Arrow reads. Pure; raises MalformedError for malformed metadata (format:
https://arrow.apache.org/docs/format/Columnar.html, flatbuffers: https://flatbuffers.dev/internals).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"ARROW1"
CONTINUATION = b"\xff\xff\xff\xff"
_SCHEMA, _RECORD_BATCH = 1, 3
# Fields of a schema, with those within lists and structs, and remarks of them (a column has one: its type's name).
# Arrow needs minutes for a schema of 300,000.
FIELDS_MAX, REMARKS_MAX = 20_000, 40_000
# Of the flatbuffer's bytes, what a field or a remark takes at least: its place in a list, and a table.
_LEAST_BYTES = 12
_BLOCK = struct.Struct("<qi4xq")
_PAIR = struct.Struct("<qq")


class MalformedError(Exception):
    """The file is not an Arrow file as engines write it; the text says why."""


@dataclass(frozen=True, slots=True)
class Block:
    """The position of a message in its file: the lengths of its metadata, with the 8 bytes before it, and of its
    body."""

    offset: int
    metadata: int
    body: int

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.metadata + self.body

    @property
    def end(self) -> int:
        """Where in the file it ends."""
        return self.offset + self.size


class Blocks:
    """A file's record batches, kept in the footer's binary form: as objects they would be six times as big."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed

    def __len__(self) -> int:
        return len(self._packed) // _BLOCK.size

    @property
    def nbytes(self) -> int:
        return len(self._packed)

    def __getitem__(self, index: int) -> Block:
        return Block(*_BLOCK.unpack_from(self._packed, index * _BLOCK.size))

    def __iter__(self) -> Iterator[Block]:
        return (Block(*found) for found in _BLOCK.iter_unpack(self._packed))


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """The sizes of a record batch before it is read: its rows, the number of values of its columns with those nested in
    them, its buffers as (offset, length), and whether these are compressed."""

    rows: int
    cells: int
    buffers: tuple[tuple[int, int], ...]
    compressed: bool

    def plain_bytes(self, body: memoryview) -> int:
        """Bytes of its buffers after decompression. Raises MalformedError."""
        total = 0
        for offset, length in self.buffers:
            if offset < 0 or length < 0 or offset + length > len(body):
                raise MalformedError("a buffer is not within its batch")
            if not self.compressed or not length:
                total += length
                continue
            if length < 8:
                raise MalformedError("a packed buffer has no length")
            (size,) = struct.unpack_from("<q", body, offset)
            if size < -1:
                raise MalformedError("a packed buffer has a length below 0")
            total += length - 8 if size == -1 else size
        return total


class _Table:
    """A flatbuffers table."""

    def __init__(self, data: memoryview, position: int) -> None:
        self._data = data
        self._position = position
        self._vtable = position - _number("<i", data, position)
        self._size = _number("<H", data, self._vtable)

    @classmethod
    def root(cls, data: memoryview) -> _Table:
        return cls(data, _number("<I", data, 0))

    def number(self, field: int, kind: str) -> int:
        """A number, 0 where the field is absent."""
        position = self._field(field)
        return _number(kind, self._data, position) if position else 0

    def has(self, field: int) -> bool:
        return self._field(field) != 0

    def table(self, field: int) -> _Table:
        position = self._field(field)
        if not position:
            raise MalformedError("a part of the metadata is not there")
        return _Table(self._data, position + _number("<I", self._data, position))

    def vector(self, field: int, each: int) -> memoryview:
        """The bytes of a vector of structs of `each` bytes; empty where the field is absent."""
        position = self._field(field)
        if not position:
            return self._data[:0]
        start = position + _number("<I", self._data, position)
        length = _number("<I", self._data, start) * each
        found = self._data[start + 4 : start + 4 + length]
        if len(found) != length:
            raise MalformedError("a list in the metadata is longer than the metadata")
        return found

    def tables(self, field: int) -> Iterator[_Table]:
        """The tables of a list; none where the field is absent."""
        position = self._field(field)
        count = len(self.vector(field, 4)) // 4
        first = position + _number("<I", self._data, position) + 4 if count else 0
        for place in range(first, first + 4 * count, 4):
            yield _Table(self._data, place + _number("<I", self._data, place))

    def _field(self, field: int) -> int:
        slot = 4 + 2 * field
        offset = _number("<H", self._data, self._vtable + slot) if slot + 2 <= self._size else 0
        return self._position + offset if offset else 0


def blocks(footer: bytes, most: int) -> Blocks:
    """The record batches of a file, from its footer. Raises MalformedError, also for more than `most` of them."""
    table = _Table.root(memoryview(footer))
    if len(table.vector(2, _BLOCK.size)):
        raise MalformedError("it has dictionaries")
    packed = table.vector(3, _BLOCK.size)
    if len(packed) > most * _BLOCK.size:
        raise MalformedError(f"it has {len(packed) // _BLOCK.size} batches")
    return Blocks(bytes(packed))


def message(data: bytes | memoryview) -> memoryview:
    """The flatbuffer of the message at the beginning of `data`. Raises MalformedError."""
    if data[:4] != CONTINUATION or len(data) < 8:
        raise MalformedError("a message does not begin where one should")
    (length,) = struct.unpack_from("<i", data, 4)
    if length <= 0 or length > len(data) - 8:
        raise MalformedError("a message's metadata is not as long as it says")
    return memoryview(data)[8 : 8 + length]


@dataclass(frozen=True, slots=True)
class SchemaSize:
    """How many fields a schema has, with those nested in them, and how many bytes of text they and their remarks."""

    fields: int
    texts: int


def schema_size(metadata: memoryview) -> SchemaSize:
    """What Arrow makes of a schema's message. Raises MalformedError where that is more than the message has bytes for:
    places in a flatbuffer may share a table, so that a small one names millions of fields."""
    table = _Table.root(metadata)
    if table.number(1, "<B") != _SCHEMA:
        raise MalformedError("the first message is no schema")
    schema = table.table(2)
    fields = remarks = texts = 0
    waiting = [iter((schema,))]
    while waiting:
        one = next(waiting[-1], None)
        if one is None:
            waiting.pop()
            continue
        # A schema's fields are in its second field, a field's in its sixth; what is remarked of each is behind them.
        is_field = len(waiting) > 1
        fields += is_field
        texts += len(one.vector(0, 1)) if is_field else 0
        for remark in one.tables(6 if is_field else 2):
            remarks += 1
            texts += len(remark.vector(0, 1)) + len(remark.vector(1, 1))
            _require_place(fields, remarks, texts, metadata)
        _require_place(fields, remarks, texts, metadata)
        waiting.append(one.tables(5 if is_field else 1))
    return SchemaSize(fields, texts)


def _require_place(fields: int, remarks: int, texts: int, metadata: memoryview) -> None:
    if fields > FIELDS_MAX or remarks > REMARKS_MAX:
        raise MalformedError(f"its schema has over {FIELDS_MAX} fields, or over {REMARKS_MAX} remarks of them")
    if _LEAST_BYTES * (fields + remarks) + texts > len(metadata):
        raise MalformedError("its schema names more fields than it has bytes for")


def batch(metadata: memoryview) -> BatchLayout:
    """The layout of a record batch, from its message. Raises MalformedError."""
    table = _Table.root(metadata)
    if table.number(1, "<B") != _RECORD_BATCH:
        raise MalformedError("a message is no record batch")
    header = table.table(2)
    rows = header.number(0, "<q")
    lengths = [length for length, _ in _PAIR.iter_unpack(header.vector(1, _PAIR.size))]
    if rows < 0 or min(lengths, default=0) < 0:
        raise MalformedError("a length is below 0")
    buffers = tuple(_PAIR.iter_unpack(header.vector(2, _PAIR.size)))
    return BatchLayout(rows, sum(lengths), buffers, header.has(3))


def _number(kind: str, data: memoryview, position: int) -> int:
    try:
        if position < 0:
            raise MalformedError("the metadata points before its beginning")
        return int(struct.unpack_from(kind, data, position)[0])
    except struct.error:
        raise MalformedError("the metadata points behind its end") from None

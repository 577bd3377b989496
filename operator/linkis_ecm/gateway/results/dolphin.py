"""Encodes Linkis's result sets: "dolphin", the type in ten digits, then records, each after its length in ten digits.

The format is that of linkis-contract.md, section 6, as Linkis's own reader parses it. A table's records are its
columns (name, type, comment; flattened) and its rows: the length of the list of lengths, that list, the values. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from linkis_ecm.agent.formats.cells import TYPE_KEY

MAGIC = b"dolphin"
TEXT, TABLE, PICTURE, HTML = 1, 2, 4, 5
# A missing value, and the missing metadata of a text.
NULL = "LINKIS_NULL"
LINE_NULL = b"NULL"
# Bytes. Linkis's writer refuses a longer record, and its reader one of ten times that: long cells of longer ones are
# cut.
RECORD_MAX = 2 << 20
CELL_MAX = 10_000
# Characters; each has four bytes at most.
LINE_MAX = RECORD_MAX // 4
# Bytes of a text's records that are yielded at a time.
PIECE = 256 << 10
# Cells encoded at a time; a short one takes about 30 bytes.
CELLS = 1 << 18


def header(kind: int) -> bytes:
    """The beginning of a result set of that type."""
    return MAGIC + b"%010d" % kind


def record(payload: bytes) -> bytes:
    """One record."""
    return b"%010d" % len(payload) + payload


def row(values: list[str | None]) -> bytes:
    """A table's record of these values."""
    data = [(NULL if value is None else value).encode(errors="replace") for value in values]
    index = b"".join(b"%d," % len(value) for value in data)
    return record(b"%010d" % len(index) + index + b"".join(data))


def lines(text: str) -> Iterator[bytes]:
    """A text, in pieces: a record for each line, and for each part of one that is too long."""
    waiting = bytearray(header(TEXT) + record(LINE_NULL))
    begin, end = 0, len(text.removesuffix("\n"))
    while begin <= end and text:
        line_end = text.find("\n", begin, end)
        line_end = end if line_end < 0 else line_end
        for start in range(begin, max(begin + 1, line_end), LINE_MAX):
            waiting += record(text[start : min(start + LINE_MAX, line_end)].encode(errors="replace"))
            if len(waiting) > PIECE:
                yield bytes(waiting)
                waiting.clear()
        begin = line_end + 1
    yield bytes(waiting)


def single(kind: int, content: str) -> bytes:
    """A page or a picture: one record."""
    return header(kind) + record(LINE_NULL) + record(content.encode(errors="replace"))


def picture(mime: str, data: str) -> bytes:
    """A picture as an HTML element, the form that Linkis's console and client expect."""
    return single(PICTURE, f'<img src="data:{mime};base64,{data}">')


def columns(schema: Any) -> bytes:
    """A table's beginning: its header and its columns, without comments."""
    return header(TABLE) + row([part for field in schema for part in (field.name, type_name(field.type), None)])


def type_name(kind: Any) -> str:
    """Linkis's name for an Arrow type whose values its reader accepts unchanged."""
    import pyarrow.types as t  # noqa: PLC0415 - the gateway's start does not pay for it

    if t.is_integer(kind):
        return "decimal" if t.is_uint64(kind) else "long" if kind.bit_width == 64 or t.is_uint32(kind) else "int"
    for matches, name in (
        (t.is_boolean, "boolean"), (t.is_float64, "double"), (t.is_floating, "float"), (t.is_decimal, "decimal"),
        (t.is_date, "date"), (t.is_timestamp, "timestamp"), (t.is_struct, "struct"), (t.is_null, "void"),
        (t.is_list, "array"), (t.is_large_list, "array"), (t.is_fixed_size_list, "array"),
    ):  # fmt: skip
        if matches(kind):
            return name
    return "string"


def rows(batch: Any) -> Iterator[Any]:
    """A record batch's rows, in pieces that are bytes or buffers of Arrow's."""
    step = max(1, CELLS // max(1, batch.num_columns))
    for start in range(0, batch.num_rows, step):
        yield _rows(batch.slice(start, step))


def _rows(batch: Any) -> Any:
    """The records of all rows. Works on whole columns: Arrow joins the parts of all rows into one text array, whose
    bytes are the records."""
    import pyarrow as pa  # noqa: PLC0415 - see above
    import pyarrow.compute as pc  # noqa: PLC0415

    if not batch.num_columns:
        return row([]) * batch.num_rows
    texts = [
        pc.fill_null(_java_text(column, _type_name(field)), NULL)
        for column, field in zip(batch.columns, batch.schema, strict=True)
    ]
    index, index_length, length = _lengths(texts)
    long = pc.greater(length, RECORD_MAX)
    if pc.any(long).as_py():
        texts = [pc.if_else(long, _cut(text), text) for text in texts]
        index, index_length, length = _lengths(texts)
    parts = [_digits(length), _digits(index_length), index, *texts]
    joined = pc.binary_join_element_wise(*parts, pa.scalar("", pa.large_string()))
    offsets = memoryview(joined.buffers()[1]).cast("q")
    first, last = offsets[joined.offset], offsets[joined.offset + len(joined)]
    return joined.buffers()[2].slice(first, last - first)


def _lengths(texts: list[Any]) -> tuple[Any, Any, Any]:
    """The list of lengths, its length, and the record's."""
    import pyarrow as pa  # noqa: PLC0415 - see above
    import pyarrow.compute as pc  # noqa: PLC0415

    each = [pc.binary_length(text) for text in texts]
    empty = pa.scalar("", pa.large_string())
    index = pc.binary_join_element_wise(
        *(length.cast(pa.large_string()) for length in each), empty, pa.scalar(",", pa.large_string())
    )
    index_length = pc.binary_length(index)
    length = pc.add(index_length, 10)
    for part in each:
        length = pc.add(length, part)
    return index, index_length, length


def _digits(numbers: Any) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - see above
    import pyarrow.compute as pc  # noqa: PLC0415

    return pc.utf8_lpad(numbers.cast(pa.large_string()), 10, "0")


def _cut(text: Any) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - see above
    import pyarrow.compute as pc  # noqa: PLC0415

    short = pc.binary_join_element_wise(
        pc.utf8_slice_codeunits(text, 0, CELL_MAX), pa.scalar("…", pa.large_string()), pa.scalar("", pa.large_string())
    )
    return pc.if_else(pc.greater(pc.utf8_length(text), CELL_MAX), short, text)


def _type_name(field: Any) -> str:
    """The column's type as the engine noted it."""
    return bytes((field.metadata or {}).get(TYPE_KEY, b"")).decode(errors="replace")


def _java_text(column: Any, name: str) -> Any:
    """A column as text that Java's parsers of its type accept: 1.0, true, NaN, 2026-11-24 10:00:00.5."""
    import pyarrow as pa  # noqa: PLC0415 - see above
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.types as t  # noqa: PLC0415

    from linkis_ecm.agent.formats.cells import cells  # noqa: PLC0415 - for what has no better form

    kind, text = column.type, pa.large_string()
    if t.is_timestamp(kind):
        if kind.tz is not None:
            try:
                column = pc.local_timestamp(column)
            except pa.ArrowException:  # an unknown zone: UTC
                column = column.cast(pa.timestamp(kind.unit))
        words = column.cast(text)
        if _is_cut_off(words):
            return pa.array([_java_moment(value) for value in cells(column, name)], text)
        return words if kind.unit == "s" else pc.utf8_rtrim(pc.utf8_rtrim(words, "0"), ".")
    if t.is_floating(kind):
        # Of fewer bits, the shortest text is another number to whoever reads it as one of 64.
        words = pc.replace_substring_regex(column.cast(pa.float64()).cast(text), r"^(-?[0-9]+)$", r"\1.0")
        for ours, java in (("nan", "NaN"), ("inf", "Infinity")):
            words = pc.replace_substring(words, ours, java)
        return words
    if t.is_date(kind):
        return pa.array(cells(column, name), text) if _is_cut_off(words := column.cast(text)) else words
    if t.is_integer(kind) or t.is_boolean(kind) or t.is_string(kind) or t.is_large_string(kind):
        return column.cast(text)
    if t.is_null(kind):
        return pa.nulls(len(column), text)
    return pa.array([None if value is None else str(value) for value in cells(column, name)], text)


def _is_cut_off(words: Any) -> bool:
    """Whether Arrow had no text of a time: it writes "<value out of range: …>" for years beyond its own calendar."""
    import pyarrow.compute as pc  # noqa: PLC0415 - see above

    return bool(pc.any(pc.starts_with(words, "<")).as_py())


def _java_moment(value: str | None) -> str | None:
    if value is None:
        return None
    value = value.replace("T", " ")
    return value.rstrip("0").rstrip(".") if "." in value else value

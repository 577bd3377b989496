"""getResultSet: one output of a task that has ended, as a page of JSON, as an Arrow stream or as Linkis's result set.

A big table is read batch by batch, so memory and time do not depend on its size or on the page's position. Must not
know where results are kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any

import orjson

from linkis_ecm.agent.formats.cells import cells
from linkis_ecm.agent_client.errors import AgentNotFound
from linkis_ecm.api.models import RESULT_ROWS, RESULT_ROWS_MAX, ResultSetRequest
from linkis_ecm.gateway.answers import Answer, KeptRows, Stream
from linkis_ecm.gateway.context import Call
from linkis_ecm.gateway.http.errors import Refused, bad_request, timed_out, unavailable, upstream
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.gateway.methods.tasks import find_task, task_of_request, unknown_task
from linkis_ecm.gateway.results import arrow_inline, dolphin
from linkis_ecm.gateway.results.arrow_metadata import MalformedError
from linkis_ecm.gateway.results.source import NotKeptError, Output

log = logging.getLogger(__name__)

# A page ends early at this many cells or characters. It then has about 8 MiB of JSON.
PAGE_CELLS = 500_000
PAGE_CHARS = 8 << 20
# A batch up to this size is encoded at once: that is a copy, in less time than it takes to hand it to a thread.
AT_ONCE = 1 << 20
# The time limit of a page, and of the first bytes of a stream.
SECONDS = 60.0
ARROW_TYPE = "application/vnd.apache.arrow.stream"
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


async def get_result_set(call: Call, request: ResultSetRequest) -> Answer | Stream:
    """An output of a task as a page of rows, an Arrow stream, or Linkis's result set (dolphin)."""
    if request.format != "json" and (request.from_column or request.columns):
        raise bad_request(f"fromColumn and columns are of format json: {request.format} has all columns")
    engine, task_id = await task_of_request(call, request)
    source = call.gateway.results
    try:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(SECONDS):
                output = await source.output(engine, task_id, request.output, held=call.held)
                if request.format == "json":
                    return await _page(call, engine, task_id, output, request)
                stack.enter_context(source.stream_slot(call.caller.user))
                chunks = _result_bytes(call, engine, output, request)
                stack.push_async_callback(chunks.aclose)
                table = await anext(chunks)
                first = [await anext(chunks)]
            call.held.push_async_exit(stack.pop_all())
            return Stream(
                content_type=ARROW_TYPE if request.format == "arrow" else "application/octet-stream",
                file_name=f"{task_id}_{output.index}.{request.format}",
                chunks=_chunks(first, chunks),
                table=table,
            )
    except AgentNotFound:
        raise await _no_output(call, engine, task_id) from None
    except NotKeptError:
        raise _not_kept(engine) from None
    except MalformedError as why:
        raise upstream(f"The result of {engine.title} cannot be read: {why}; run the code again") from None
    except TimeoutError:
        # TimeoutError is an OSError, so it must come first.
        raise timed_out(f"The result of {engine.title} did not come within {SECONDS:g} s: try again later") from None
    except OSError as error:
        log.warning("the archive: %r", error)
        raise unavailable("The archive does not answer: try again in a second") from None


async def _page(call: Call, engine: KnownEngine, task_id: str, output: Output, request: ResultSetRequest) -> Answer:
    """`rows` rows from `fromRow` on, with `columns` columns from `fromColumn` on; of an output that is no table, the
    output itself."""
    first = (request.from_row or 1) - 1
    count = RESULT_ROWS if request.rows is None else request.rows
    if count > RESULT_ROWS_MAX:
        raise bad_request(f"rows is {count}: a page has at most {RESULT_ROWS_MAX} rows; ask for the next by fromRow")
    fields: dict[str, Any] = {"taskId": task_id, "output": output.index, "outputs": output.count, "type": output.kind,
                            "columns": [], "rows": [], "fromRow": first + 1, "endRow": first, "totalRows": 0,
                            "resultRows": 0, "fromColumn": 1, "endColumn": 0, "totalColumns": 0, "truncated": False,
                            "content": None}  # fmt: skip
    if output.kind != "table":
        return Answer(fields | {"content": output.content})
    if output.result_id is None:
        kept = _with_row(output.kept(), first)
        columns, width, span = _columns(output.columns, request)
        rows = [row[span] for row in output.rows[first : first + _fitting(count, columns)]]
        more = {"rows": rows, "columns": columns, "endRow": first + len(rows)}
        return Answer(fields | width | more | _totals(kept))
    part = _Part(output, output.result_id, first, count)
    try:
        return await _page_of_file(call, engine, part, request, fields)
    except (NotKeptError, MalformedError):
        # Opened for an earlier page, it may be in the archive alone by now.
        if not call.gateway.results.forget(engine, output.result_id):
            raise
    return await _page_of_file(call, engine, part, request, fields)


@dataclass(frozen=True, slots=True)
class _Part:
    """`count` rows behind the first `first` ones of an output's file."""

    output: Output
    result_id: str
    first: int
    count: int


def _with_row(table: KeptRows, first: int) -> KeptRows:
    """The table, of which the rows behind the first `first` ones are asked for. Raises Refused where the table has such
    rows and none is kept: an empty answer would look like its end."""
    if first and table.truncated and first >= table.kept and (table.total is None or first < table.total):
        whole = "of the table's rows" if table.total is None else f"of the table's {table.total} rows"
        raise bad_request(
            f"fromRow is {first + 1}: {whole} the first {table.kept} are kept; have the code show the others, or write"
            " the table to a file"
        )
    return table


def _totals(table: KeptRows) -> dict[str, Any]:
    """A page's fields about them."""
    return {"totalRows": table.total, "resultRows": table.kept, "truncated": table.truncated}


async def _page_of_file(
    call: Call, engine: KnownEngine, part: _Part, request: ResultSetRequest, fields: dict[str, Any]
) -> Answer:
    source = call.gateway.results
    async with source.page_slot(call.caller.user), source.page_file(engine, part.result_id) as file:
        first, count = part.first, part.count
        kept = _with_row(part.output.kept(file.rows), first)
        columns, width, span = _columns(file.columns, request)
        count = _fitting(count, columns)
        # Rows are turned into JSON batch by batch, because rows as Python objects are many times larger.
        parts: list[bytes] = []
        rows_read, chars = 0, 0
        async with aclosing(file.slices(first, first + count)) as batches:
            async for batch in batches:
                shown = batch.columns[span]
                rows, length, chars = await file.run_in_thread(_rows, shown, columns, batch.num_rows, chars)
                parts += [rows] if length else []
                rows_read += length
                if length < batch.num_rows:
                    break
                del batch, shown  # free its memory before waiting for the next one
        fields |= width | _totals(kept)
        fields |= {
            "columns": columns, "rows": orjson.Fragment(b"[" + b",".join(parts) + b"]"), "endRow": first + rows_read
        }  # fmt: skip
        # The rows are JSON already: the rest is a copy.
        small = sum(map(len, parts)) <= AT_ONCE
        del parts
        content = orjson.dumps(fields) if small else await file.run_in_thread(orjson.dumps, fields)
        await call.held.enter_async_context(call.gateway.budget.hold(2 * len(content)))
    return Answer(orjson.Fragment(content))


def _columns(
    columns: list[dict[str, str]], request: ResultSetRequest
) -> tuple[list[dict[str, str]], dict[str, int], slice]:
    """The columns that are asked for, the answer's fields about them, and their place in a row."""
    begin = (request.from_column or 1) - 1
    found = columns[begin:] if request.columns is None else columns[begin : begin + request.columns]
    end = begin + len(found)
    fields = {"fromColumn": begin + 1, "endColumn": end, "totalColumns": len(columns)}
    return found, fields, slice(begin, end)


def _fitting(count: int, columns: list[dict[str, str]]) -> int:
    """So many of `count` rows of these columns as a page may have in cells."""
    return min(count, max(1, PAGE_CELLS // max(1, len(columns))))


def _rows(arrays: list[Any], columns: list[dict[str, str]], count: int, chars: int) -> tuple[bytes, int, int]:
    """Blocking. A batch's `count` rows as JSON without the outer brackets, their number, and the page's characters so
    far. Rows over the limit of characters are left out."""
    values = [cells(array, column["type"]) for array, column in zip(arrays, columns, strict=True)]
    all_chars = sum(len(value) for column in values for value in column if type(value) is str)
    if values and chars + all_chars <= PAGE_CHARS:
        return orjson.dumps(list(zip(*values, strict=True)))[1:-1], count, chars + all_chars
    rows: list[list[Any]] = []
    for row in zip(*values, strict=True) if values else ([] for _ in range(count)):
        chars += sum(len(value) for value in row if isinstance(value, str))
        if chars > PAGE_CHARS and (rows or chars > 2 * PAGE_CHARS):
            break
        rows.append(list(row))
    return orjson.dumps(rows)[1:-1], len(rows), chars


async def _chunks(first: list[Any], chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The item of `first`, then `chunks`. `first` is emptied, so that no sent chunk stays in memory. Raises
    ConnectionResetError if the source breaks or is not a valid table."""
    yield first.pop()
    try:
        async for chunk in chunks:
            yield chunk
            del chunk
    except (MalformedError, NotKeptError, AgentNotFound, Refused) as why:
        raise ConnectionResetError(f"the result cannot be read on: {why}") from None


async def _result_bytes(
    call: Call, engine: KnownEngine, output: Output, request: ResultSetRequest
) -> AsyncGenerator[Any]:
    """What is kept of the table (None: it is none), then the result set's bytes. Errors of the source are raised before
    the first chunk, if they are known by then."""
    arrow, source = request.format == "arrow", call.gateway.results
    if output.kind != "table":
        if arrow:
            raise bad_request(
                f"output {output.index} of the task is {_with_article(output.kind)} and no table: ask for format json"
                " or dolphin"
            )
        yield None
        parts = _not_table(output)
        while (chunk := await source.run_in_thread(next, parts, None)) is not None:
            yield chunk
        return
    begin = (request.from_row or 1) - 1
    end = 1 << 60 if request.rows is None else begin + request.rows
    if output.result_id is None:
        kept = _with_row(output.kept(), begin)
        yield kept
        rows = output.rows[begin:end]
        schema, batches = await source.run_in_thread(arrow_inline.batches, output.columns, rows)
        yield _stream_head(schema, kept, arrow)
        for batch in batches:
            encoded = _encoded(batch, arrow)
            while (chunk := await source.run_in_thread(next, encoded, None)) is not None:
                yield chunk
    else:
        async with source.file(engine, output.result_id) as file:
            kept = _with_row(output.kept(file.rows), begin)
            yield kept
            head = _stream_head(file.schema, kept, arrow)
            async with aclosing(file.slices(begin, end)) as batches:
                async for batch in batches:
                    if arrow and batch.nbytes <= AT_ONCE:
                        chunk = memoryview(batch.serialize())
                        yield head + bytes(chunk) if head else chunk
                        head = b""
                        del chunk, batch
                        continue
                    encoded = _encoded(batch, arrow)
                    while (chunk := await file.run_in_thread(next, encoded, None)) is not None:
                        # The head goes with the first rows, so that an unreadable table is still refused.
                        yield head + bytes(chunk) if head else chunk
                        head = b""
                        del chunk
                    del batch, encoded
            if head:
                yield head
    if arrow:
        yield END_OF_STREAM


def _stream_head(schema: Any, kept: KeptRows, arrow: bool) -> bytes:
    if not arrow and not len(schema):
        # Linkis's reader fails on a table without columns ("Parsing metadata failed").
        raise bad_request("The table has no columns, which Linkis cannot read: ask for format json or arrow")
    return bytes(_told_of(schema, kept).serialize()) if arrow else dolphin.columns(schema)


def _told_of(schema: Any, kept: KeptRows) -> Any:
    """The schema, whose metadata says how much of the table is kept: a saved stream has no headers."""
    told = {
        b"linkis.truncated": b"true" if kept.truncated else b"false",
        b"linkis.resultRows": b"%d" % kept.kept,
        b"linkis.totalRows": b"" if kept.total is None else b"%d" % kept.total,
    }
    return schema.with_metadata({**(schema.metadata or {}), **told})


def _encoded(batch: Any, arrow: bool) -> Iterator[Any]:
    """A batch's bytes in chunks. Each step of the iterator blocks."""
    if arrow:
        yield memoryview(batch.serialize())
        return
    for chunk in dolphin.rows(batch):
        yield chunk if isinstance(chunk, bytes) else memoryview(chunk)


def _not_table(output: Output) -> Iterator[bytes]:
    """An output other than a table, as a result set."""
    content = output.content
    match output.kind:
        case "html":
            return iter([dolphin.single(dolphin.HTML, content["text"])])
        case "picture":
            return iter([dolphin.picture(content["mime"], content["data"])])
        case "error":
            return dolphin.lines("\n".join(content["traceback"]) or f"{content['name']}: {content['value']}")
    return dolphin.lines(content["text"])


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind == "error" else f"a {kind}"


async def _no_output(call: Call, engine: KnownEngine, task_id: str) -> Refused:
    """The refusal for an output that does not exist: no such task, or its outputs are not kept any more."""
    info = await find_task(call, engine, task_id)
    if info is None:
        return unknown_task(engine, task_id)
    if not info.final:
        return bad_request(f"the task is {info.status}: ask again when it has ended")
    return _not_kept(engine)


def _not_kept(engine: KnownEngine) -> Refused:
    return Refused(
        f"The output is not kept any more: an engine keeps its latest results, and the archive those of {engine.title}"
        " that were too big to be shown; run the code again",
        http=410,
    )

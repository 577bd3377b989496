"""Reads a task's outputs and spilled results: from the engine's agent while it lives, else from the archive.

The engine's user controls both contents: shapes are checked here, values by the code that reads them. Must not know
formats of answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from linkis_ecm.agent.formats.names import JOB_RESULT, JOB_TASK, RESULTS_LIST
from linkis_ecm.agent.formats.result_files import file_name, is_id
from linkis_ecm.agent_client import paths
from linkis_ecm.agent_client.client import header_number, read_exact
from linkis_ecm.agent_client.errors import AgentNotFound
from linkis_ecm.archive.bundles import Archive
from linkis_ecm.gateway.agents.link import READS_PER_ENGINE, AgentLink, can_ask_agent
from linkis_ecm.gateway.answers import KeptRows
from linkis_ecm.gateway.http.budget import ByteBudget
from linkis_ecm.gateway.http.errors import Refused, bad_request, too_many, upstream
from linkis_ecm.gateway.http.slots import Slots
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.gateway.results.arrow_file import EDGE_BYTES, ArrowFile
from linkis_ecm.gateway.results.arrow_metadata import MalformedError
from linkis_ecm.gateway.results.json_budget import objects
from linkis_ecm.gateway.results.opened import OpenedFiles

# One output: the agent's limit is 16 MiB, and JSON escapes a few characters of it.
MAX_OUTPUT_BYTES = 40 << 20
# Of a table within an output: more than the agent sends (500 columns of 5000 rows).
MAX_COLUMNS, MAX_CELLS = 10_000, 4_000_000
# Result sets sent at a time, each with one batch in memory; and those of one user.
STREAMS, STREAMS_PER_USER = 16, 4
# Pages of files made at a time, each with its rows in memory (about 16 MiB); and those of one user.
PAGES, PAGES_PER_USER = 8, 2
# Arrow's work is copying and decompressing: more threads would share the same cores.
THREADS = 4
# Characters of a column's name and of its type.
NAME_MAX = 1000
# A table's rows in all, as its engine says: no reader's number has to hold more.
ROWS_MAX = 1 << 53


@dataclass(frozen=True, slots=True)
class Output:
    """One of a task's `count` outputs. It has no rows of a spilled table."""

    index: int
    count: int
    content: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.content["type"])

    @property
    def result_id(self) -> str | None:
        """The id of the file that holds the table; None where the rows are in `content`."""
        found = self.content.get("resultId")
        return found if self.kind == "table" and is_id(found) else None

    def kept(self, rows: int | None = None) -> KeptRows:
        """How much of the table is kept; `rows`: so many are in its file."""
        told = self.content.get("totalRows")
        kept = len(self.rows) if rows is None else rows
        total = told if type(told) is int and kept <= told <= ROWS_MAX else None
        # In a file columns and cells are whole.
        cut = rows is None and bool(self.content.get("truncated"))
        return KeptRows(kept, total, cut or total != kept)

    @property
    def columns(self) -> list[dict[str, str]]:
        return [
            {"name": str(column.get("name", ""))[:NAME_MAX], "type": str(column.get("type", ""))[:NAME_MAX]}
            for column in self.content["columns"]
        ]

    @property
    def rows(self) -> list[list[Any]]:
        rows: list[list[Any]] = self.content.get("rows", [])
        return rows


class NotKeptError(Exception):
    """The result, or the task's outputs, are not kept (any more)."""


class ResultSource:
    """Finds outputs and opens result files; `close` ends its threads."""

    def __init__(self, link: AgentLink, archive: Archive | None, budget: ByteBudget) -> None:
        self._link = link
        self._archive = archive
        self._budget = budget
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="results")
        self._streams: Slots[str] = Slots()
        self._pages = asyncio.Semaphore(PAGES)
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._opened = OpenedFiles()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run_in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """A blocking call in one of the threads for results."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    @property
    def under_way(self) -> int:
        """Result sets that are being sent now."""
        return self._streams.total

    @contextmanager
    def stream_slot(self, user: str) -> Iterator[None]:
        """One of STREAMS result sets that are sent at a time, STREAMS_PER_USER of one user. Raises Refused."""
        mine = self._streams.taken(user)
        if mine >= STREAMS_PER_USER:
            raise too_many(f"{mine} result sets of {user} are being sent already: try again when one has ended")
        if self._streams.total >= STREAMS:
            raise too_many(f"{STREAMS} result sets are being sent already: try again when one has ended")
        with self._streams.hold(user):
            yield

    @asynccontextmanager
    async def page_slot(self, user: str) -> AsyncIterator[None]:
        """One of PAGES pages that are made at a time, PAGES_PER_USER of one user. Pages are short, so more wait for a
        slot. The holder of a slot may wait for bytes of the budget, so a slot must be taken before any bytes."""
        mine = self._turns.get(user)
        if mine is None:
            mine = self._turns[user] = asyncio.Semaphore(PAGES_PER_USER)
        async with mine, self._pages:
            yield

    async def output(self, engine: KnownEngine, task_id: str, index: int | None, *, held: AsyncExitStack) -> Output:
        """The output at `index`; None: the first table, or else the first output. `held` keeps its bytes reserved.

        Raises AgentNotFound where neither agent nor archive knows the task, NotKeptError where the output is not kept,
        and Refused.
        """
        if can_ask_agent(engine):
            try:
                return await self._live_output(engine, task_id, index, held)
            except AgentNotFound:
                pass  # the task belongs to another pod of the engine
            except Refused as why:
                if why.http != 410:
                    raise
        found = await self._kept_output(engine, task_id, index, held)
        if found is None:
            raise AgentNotFound
        return found

    @asynccontextmanager
    async def file(self, engine: KnownEngine, result_id: str) -> AsyncIterator[ArrowFile]:
        """A spilled result, opened. Raises NotKeptError, MalformedError and Refused."""
        async with AsyncExitStack() as stack:
            found = None
            if can_ask_agent(engine):
                # The agent drops old results; the archive may have it.
                with suppress(AgentNotFound, NotKeptError):
                    found = await self._live_file(engine, result_id)
            if found is None:
                found = await self._kept_file(engine, result_id, stack)
            if found is None:
                raise NotKeptError
            yield found

    @asynccontextmanager
    async def page_file(self, engine: KnownEngine, result_id: str) -> AsyncIterator[ArrowFile]:
        """As `file`, for the live engine's next page without questions but for the rows. The caller must have seen that
        the engine keeps the output. Where NotKeptError or MalformedError leaves the block, `forget` says whether it is
        worth another try."""
        key = _key(engine, result_id)
        known = self._opened.find(key) if can_ask_agent(engine) else None
        if known is not None:
            yield known
            return
        async with self.file(engine, result_id) as found:
            if found.is_live:
                self._opened.add(key, found)
            yield found

    def forget(self, engine: KnownEngine, result_id: str) -> bool:
        """Open the file anew for its next page; whether it was remembered."""
        return self._opened.forget(_key(engine, result_id))

    # -- with the agent ----------------------------------------------------------------------------------------------

    async def _live_output(self, engine: KnownEngine, task_id: str, index: int | None, held: AsyncExitStack) -> Output:
        path = paths.output(task_id, index)

        async def read(hold: Callable[[int], Awaitable[None]]) -> bytes:
            async with self._link.open(engine, path, kind="output", bound=READS_PER_ENGINE, what="outputs") as answer:
                size = answer.content_length
                if size is None or size > MAX_OUTPUT_BYTES:
                    raise self._link.bad_response(engine, "an output over the limit")
                await hold(size)
                with self._link.errors_as_refusals(engine):
                    return await read_exact(answer, size)

        async with AsyncExitStack() as holding:
            try:
                answer = await objects(read, budget=self._budget, run_in_thread=self.run_in_thread, held=holding)
                found = Output(_whole(answer["index"]), _whole(answer["outputs"]), _checked(answer["output"]))
            except (KeyError, TypeError, ValueError):
                raise self._link.bad_response(engine, "what is no output") from None
            if found.result_id is None:
                # For a file these bytes are released: its reader reserves its batches, and must not wait while holding
                # bytes.
                held.push_async_exit(holding.pop_all())
            return found

    async def _live_file(self, engine: KnownEngine, result_id: str) -> ArrowFile:
        size, identity, begin = await self._live_begin(engine, result_id)

        async def read(offset: int, length: int) -> bytes:
            path = paths.result_file(result_id, offset=offset, length=length)
            try:
                async with self._link.open(
                    engine, path, kind="result", bound=READS_PER_ENGINE, what="reads of results"
                ) as answer:
                    if answer.headers.get(paths.LOG_FILE, "") != identity or answer.content_length != length:
                        raise MalformedError("the file has changed while it was read")
                    with self._link.errors_as_refusals(engine):
                        return await read_exact(answer, length)
            except AgentNotFound:
                raise NotKeptError from None

        file = ArrowFile(read, size, threads=self._threads, budget=self._budget, begin=begin, is_live=True)
        return await file.open()

    async def _live_begin(self, engine: KnownEngine, result_id: str) -> tuple[int, str, bytes]:
        """The file's size and identity, and its first EDGE_BYTES: one question instead of two."""
        path = paths.result_file(result_id, length=EDGE_BYTES)
        async with self._link.open(
            engine, path, kind="result", bound=READS_PER_ENGINE, what="reads of results"
        ) as head:
            size = header_number(head, paths.LOG_SIZE)
            if size is None or head.content_length != min(size, EDGE_BYTES):
                raise self._link.bad_response(engine, "a result without its length")
            with self._link.errors_as_refusals(engine):
                return size, head.headers.get(paths.LOG_FILE, ""), await read_exact(head, head.content_length)

    # -- in the archive ----------------------------------------------------------------------------------------------

    async def _kept_output(
        self, engine: KnownEngine, task_id: str, index: int | None, held: AsyncExitStack
    ) -> Output | None:
        """From the archived list of spilled results, or from a job's archived result."""
        if self._archive is None or not engine.uid:
            return None
        for attempt in reversed(await self._archive.attempts(engine.uid)):
            for name in (JOB_RESULT, RESULTS_LIST) if task_id == JOB_TASK else (RESULTS_LIST,):
                async with AsyncExitStack() as holding:
                    content = await self._json(self._archive, engine, attempt, name, holding)
                    if content is None:
                        continue
                    found = _of_job(content, index) if name == JOB_RESULT else _listed(content, task_id, index)
                    if found is None:
                        continue
                    if found.result_id is None:
                        held.push_async_exit(holding.pop_all())
                    return found
        return None

    async def _json(
        self, archive: Archive, engine: KnownEngine, attempt: int, name: str, holding: AsyncExitStack
    ) -> dict[str, Any] | None:
        """The JSON object in an archived file, None where there is no such file; `holding` keeps its bytes reserved."""
        size = (await archive.files(engine.uid, attempt)).get(name, 0)
        if not size:
            return None
        if size > MAX_OUTPUT_BYTES:
            raise _bad_archive(engine, f"{name} is over the limit")

        async def read(hold: Callable[[int], Awaitable[None]]) -> bytes:
            await hold(size)
            content = await archive.get(engine.uid, attempt, name, limit=size)
            if content is None:
                raise NotKeptError
            return content

        try:
            found = await objects(read, budget=self._budget, run_in_thread=self.run_in_thread, held=holding)
        except NotKeptError:
            return None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise _bad_archive(engine, f"{name} is not what an agent writes")
        return found

    async def _kept_file(self, engine: KnownEngine, result_id: str, stack: AsyncExitStack) -> ArrowFile | None:
        if self._archive is None or not engine.uid:
            return None
        for attempt in reversed(await self._archive.attempts(engine.uid)):
            reader = await self._archive.open(engine.uid, attempt, file_name(result_id))
            if reader is not None:
                stack.push_async_callback(reader.close)
                return await ArrowFile(reader.read, reader.size, threads=self._threads, budget=self._budget).open()
        return None


def _key(engine: KnownEngine, result_id: str) -> tuple[str, int, str, str]:
    # Who has borrowed the engine has slots of its own for what it asks the agent.
    return engine.uid, engine.attempt, engine.borrower, result_id


def _listed(content: dict[str, Any], task_id: str, index: int | None) -> Output | None:
    tasks = content.get("tasks")
    task = tasks.get(task_id) if isinstance(tasks, dict) else None
    return _of_list(task, index) if isinstance(task, dict) else None


def _of_job(content: dict[str, Any], index: int | None) -> Output:
    outputs = content.get("outputs")
    if not isinstance(outputs, list):
        raise upstream("The job's result in the archive is not what an agent writes")
    if index is None:
        index = next((n for n, part in enumerate(outputs) if isinstance(part, dict) and part.get("type") == "table"), 0)
    if index >= len(outputs):
        raise no_output(index, len(outputs))
    try:
        return Output(index, len(outputs), _checked(outputs[index]))
    except (KeyError, TypeError, ValueError):
        raise upstream("The job's result in the archive is not what an agent writes") from None


def _of_list(task: dict[str, Any], index: int | None) -> Output:
    """The list has spilled outputs only. Raises NotKeptError for others."""
    try:
        kept = {int(position): _checked(output) for position, output in task["outputs"].items()}
        count = _whole(task["count"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise upstream("The list of results in the archive is not what an agent writes") from None
    index = min(kept, default=0) if index is None else index
    if index in kept:
        return Output(index, count, kept[index])
    if index >= count:
        raise no_output(index, count)
    raise NotKeptError


def no_output(index: int, count: int) -> Refused:
    """The task has fewer outputs."""
    return bad_request(f"output is {index}: the task has {count} outputs, counted from 0")


def _bad_archive(engine: KnownEngine, what: str) -> Refused:
    return upstream(f"In the archive of {engine.title}, {what}")


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("no number")
    return value


def _checked(output: Any) -> dict[str, Any]:
    """The output, with its fields' types checked. Raises KeyError, TypeError, ValueError."""
    kind = output["type"]
    texts = {"text": ("text",), "html": ("text",), "picture": ("mime", "data"), "error": ("name", "value")}
    if kind == "table":
        rows, columns = output.get("rows", []), output["columns"]
        if not isinstance(columns, list) or not all(isinstance(column, dict) for column in columns):
            raise TypeError("columns")
        if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            raise TypeError("rows")
        if len(columns) > MAX_COLUMNS or len(rows) * max(1, len(columns)) > MAX_CELLS:
            raise ValueError("cells")
    elif kind not in texts or not all(isinstance(output[name], str) for name in texts[kind]):
        raise TypeError("type")
    if kind == "error" and not all(isinstance(line, str) for line in output["traceback"]):
        raise TypeError("traceback")
    if kind == "table" and is_id(output.get("resultId")):
        # The other fields are in the file; no bytes are reserved for them here.
        total = output.get("totalRows")
        return {"type": kind, "resultId": output["resultId"], "totalRows": total if isinstance(total, int) else None}
    found: dict[str, Any] = output
    return found

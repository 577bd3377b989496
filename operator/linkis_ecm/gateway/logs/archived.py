"""Logs of engines whose pods are gone, read from the archive: a LogSource. Must not know requests."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from linkis_ecm.agent.formats.log_pages import (
    MAX_LINE_BYTES,
    MAX_PAGE_BYTES,
    Filter,
    LineIndex,
    Page,
    last_rows,
    page,
    said,
    tail,
)
from linkis_ecm.agent.formats.names import STREAM_LOGS
from linkis_ecm.archive.bundles import CONTAINER_LOG, Archive, Reader
from linkis_ecm.gateway.answers import OpenedFile
from linkis_ecm.gateway.http.budget import ByteBudget
from linkis_ecm.gateway.http.errors import bad_request
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.gateway.logs.source import FollowedLog, LogMissing, LogQuery

# Logs whose line index is kept in memory: 8 bytes for each 256 KiB of a log, so 64 KiB for 2 GiB.
INDEXES = 256

# A page ends with the line that passes its limit. Its bytes are in memory as the log's bytes, as lines, and as the
# answer's text.
PAGE_TIMES = 4
PAGE_BYTES = MAX_PAGE_BYTES + MAX_LINE_BYTES
# Longer than the sentence at the beginning of a log whose first bytes were dropped.
_SENTENCE = 256
Found = tuple[int, str]


class ArchiveLogSource:
    """Logs of ended engines, until their retention is over."""

    def __init__(self, archive: Archive, budget: ByteBudget) -> None:
        self._archive = archive
        self._budget = budget
        # A thread cannot be stopped, so these tasks are kept until they end.
        self._background: set[asyncio.Task[Any]] = set()
        self._indexes: OrderedDict[tuple[str, int, str], tuple[LineIndex, asyncio.Lock]] = OrderedDict()

    def has(self, engine: KnownEngine) -> bool:
        """Once the engine has ended, or between two of its attempts."""
        if engine.in_cluster:
            return engine.is_final or (engine.attempt > 0 and not engine.address)
        return bool(engine.uid)

    async def lines(
        self, engine: KnownEngine, log_type: str, query: LogQuery, *, held: AsyncExitStack
    ) -> dict[str, Any]:
        (attempt, name), reader = await self._reader(engine, log_type)
        index, lock = self._index((engine.uid, attempt, name))
        reading = AsyncExitStack()
        reading.push_async_callback(reader.close)
        async with AsyncExitStack() as holding:
            try:
                size = PAGE_TIMES * min(reader.size, PAGE_BYTES)
                # Bytes are reserved before the lock is taken: a call that waits for them does not block the log.
                shrink = await holding.enter_async_context(self._budget.hold(size))
                await reading.enter_async_context(lock)
            except BaseException:
                await reading.aclose()
                raise
            # The thread keeps the lock, the reader and the bytes until it is done, also after its caller was cancelled.
            task = self._run_to_end(_read_and_close(reading, reader, index, query))
            try:
                found: Page = await asyncio.shield(task)
            except asyncio.CancelledError:
                self._run_to_end(_hold_until(task, holding.pop_all()))
                raise
            shrink(PAGE_TIMES * sum(len(line) for line in found.logs))
            held.push_async_exit(holding.pop_all())
        return found.as_json()

    @asynccontextmanager
    async def open(
        self, engine: KnownEngine, log_type: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[OpenedFile]:
        (attempt, name), reader = await self._reader(engine, log_type)
        begin = min(offset, reader.size)
        size = reader.size - begin if length is None else min(length, reader.size - begin)
        try:
            yield OpenedFile(
                total=reader.size,
                length=size,
                identity=f"{engine.uid}-{attempt}-{name}",
                chunks=reader.chunks(begin, begin + size),
            )
        finally:
            await reader.close()

    @asynccontextmanager
    async def follow(
        self, engine: KnownEngine, log_type: str, *, offset: int | None, tail: int
    ) -> AsyncIterator[FollowedLog]:
        """The bytes that the archive has: an ended engine writes no more."""
        _, reader = await self._reader(engine, log_type)
        try:
            first, _ = said(await asyncio.to_thread(reader.read_at, 0, _SENTENCE))
            begin = max(0, reader.size - tail if offset is None else offset - first)
            yield FollowedLog(first + begin, reader.chunks(begin))
        finally:
            await reader.close()

    def _run_to_end(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that continues when nobody waits for it."""

        def done(task: asyncio.Task[Any]) -> None:
            self._background.discard(task)
            if not task.cancelled():
                task.exception()  # else asyncio logs that its error was never retrieved

        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(done)
        return task

    def _index(self, key: tuple[str, int, str]) -> tuple[LineIndex, asyncio.Lock]:
        found = self._indexes.pop(key, None) or (LineIndex(), asyncio.Lock())
        self._indexes[key] = found
        while len(self._indexes) > INDEXES:
            self._indexes.popitem(last=False)
        return found

    async def _reader(self, engine: KnownEngine, log_type: str) -> tuple[Found, Reader]:
        """The log of the last attempt that left one. Raises LogMissing, and Refused where nothing is kept at all."""
        attempts = await self._archive.attempts(engine.uid)
        if not attempts:
            raise bad_request(
                f"The logs of {engine.title} are gone: the engine has ended, and nothing of it is in the archive (any"
                " more)"
            )
        for attempt in reversed(attempts):
            # The kubelet's log holds both streams: it is read where the agent could not send its files.
            for name in (log_type, *((CONTAINER_LOG,) if log_type in STREAM_LOGS else ())):
                reader = await self._archive.open(engine.uid, attempt, name)
                if reader is not None:
                    return (attempt, name), reader
        raise LogMissing


async def _read_and_close(reading: AsyncExitStack, reader: Reader, index: LineIndex, query: LogQuery) -> Page:
    async with reading:
        return await asyncio.to_thread(_read, reader, index, query)


async def _hold_until(task: asyncio.Task[Any], holding: AsyncExitStack) -> None:
    async with holding:
        await asyncio.wait((task,))


def _read(reader: Reader, index: LineIndex, query: LogQuery) -> Page:
    """Blocking. Lines keep the numbers that they had while the engine lived."""
    read_at, size = reader.read_at, reader.size
    index.extend(read_at, size)
    if query.last_rows:
        return last_rows(read_at, size, index, rows=query.last_rows)
    wanted = Filter.parse(query.only, query.ignore)
    if query.tail:
        return tail(read_at, size, index, from_line=query.from_line, count=query.lines, wanted=wanted)
    before = said(read_at(0, _SENTENCE))[1] - 1
    found = page(read_at, size, index, from_line=query.from_line - before, count=query.lines, wanted=wanted)
    return Page(found.logs, found.end_line + before)

"""Logs of live engines, read from the agents in their pods: a LogSource. Must not know requests."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson
from aiohttp import StreamReader
from aiohttp.http_exceptions import LineTooLong

from linkis_ecm.agent_client import paths
from linkis_ecm.agent_client.client import header_number, read_exact
from linkis_ecm.agent_client.errors import AgentNotFound
from linkis_ecm.gateway.agents.link import READS_PER_ENGINE, AgentLink, can_ask_agent, chunks_of, stream_errors
from linkis_ecm.gateway.answers import OpenedFile
from linkis_ecm.gateway.http.socket_relay import SocketSource
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.gateway.logs.source import FollowedLog, LogMissing, LogQuery

DOWNLOADS_PER_ENGINE = 4
FOLLOWERS_PER_ENGINE = 8
# Concurrent downloads that may use a buffer of 4 MiB; others use aiohttp's, of an eighth of that.
SOCKET_DOWNLOADS = 16
# The agent's file id goes into an entity tag: other characters are removed.
_NO_TAG = re.compile("[^0-9a-f-]")
# An agent's page has at most 8 MiB, which JSON escaping makes at most six times as long.
MAX_PAGE_BYTES = 64 << 20


class AgentLogSource:
    """Logs of engines whose pods run."""

    def __init__(self, link: AgentLink) -> None:
        self._link = link
        self._downloads = 0

    def has(self, engine: KnownEngine) -> bool:
        """While the pod has an address and has not ended."""
        return can_ask_agent(engine)

    async def lines(
        self, engine: KnownEngine, log_type: str, query: LogQuery, *, held: AsyncExitStack
    ) -> dict[str, Any]:
        path = paths.log_lines(
            log_type,
            {
                "fromLine": query.from_line,
                "lines": query.lines,
                "lastRows": query.last_rows or None,
                "tail": "true" if query.tail else None,
                "onlyKeywords": query.only or None,
                "ignoreKeywords": query.ignore or None,
            },
        )
        try:
            async with self._link.open(engine, path, kind="lines", bound=READS_PER_ENGINE, what="log pages") as answer:
                size = answer.content_length
                if size is None or size > MAX_PAGE_BYTES:
                    raise self._link.bad_response(engine, "a page of its log over the limit: ask for fewer lines")
                # Three times: the agent's text, the objects, and the answer's text.
                await held.enter_async_context(self._link.budget.hold(3 * size))
                with self._link.errors_as_refusals(engine):
                    content = await read_exact(answer, size)
        except AgentNotFound:
            raise LogMissing from None
        try:
            page = orjson.loads(content)
        except orjson.JSONDecodeError:
            raise self._link.bad_response(engine, "a page of its log that is not JSON") from None
        logs, end_line = (page.get("logs"), page.get("endLine")) if isinstance(page, dict) else (None, None)
        if not isinstance(logs, list) or not isinstance(end_line, int) or not all(isinstance(x, str) for x in logs):
            raise self._link.bad_response(engine, "a page of its log without lines")
        return {"logs": logs, "endLine": end_line, "rows": len(logs)}

    @asynccontextmanager
    async def open(
        self, engine: KnownEngine, log_type: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[OpenedFile]:
        path = paths.log(log_type, offset=offset or None, length=length)
        try:
            async with self._link.open(
                engine, path, kind="download", bound=DOWNLOADS_PER_ENGINE, what="downloads"
            ) as answer:
                total = header_number(answer, paths.LOG_SIZE)
                if answer.content_length is None or total is None:
                    raise self._link.bad_response(engine, "a log without its length")
                # The file, its first byte and the pod that wrote it identify the bytes: written bytes do not change.
                file = _NO_TAG.sub("", answer.headers.get(paths.LOG_FILE, ""))[:40]
                self._downloads += 1
                try:
                    yield OpenedFile(
                        total=total,
                        length=answer.content_length,
                        identity=f"{engine.uid}-{engine.attempt}-{file}",
                        chunks=chunks_of(answer.content),
                        socket=SocketSource(answer, self._link.settings.agent_seconds)
                        if self._downloads <= SOCKET_DOWNLOADS
                        else None,
                    )
                finally:
                    self._downloads -= 1
        except AgentNotFound:
            raise LogMissing from None

    @asynccontextmanager
    async def follow(
        self, engine: KnownEngine, log_type: str, *, offset: int | None, tail: int
    ) -> AsyncIterator[FollowedLog]:
        path = paths.log_follow(log_type, offset=offset, tail=tail)
        try:
            async with self._link.open(
                engine, path, kind="follow", bound=FOLLOWERS_PER_ENGINE, what="followers"
            ) as answer:
                begins = header_number(answer, paths.LOG_OFFSET)
                if begins is None:
                    raise self._link.bad_response(engine, "a log without the place of its first byte")
                yield FollowedLog(begins, _unframed(answer.content))
        except AgentNotFound:
            raise LogMissing from None


async def _unframed(content: StreamReader) -> AsyncIterator[bytes]:
    """The bytes of the agent's frames. Raises ConnectionResetError where they break off, and for a malformed frame."""
    while line := await _read_line(content):
        if len(line) > 9 or not line[:-1].isdigit():
            raise ConnectionResetError("the agent sent what is no frame")
        left = int(line)
        while left:
            with stream_errors():
                data = await content.read(left)
            if not data:
                raise ConnectionResetError("the agent left in the middle of a frame")
            left -= len(data)
            yield data


async def _read_line(content: StreamReader) -> bytes:
    try:
        with stream_errors():
            return await content.readline()
    except LineTooLong:
        # Not one of aiohttp's client errors: it would count as a bug of the gateway.
        raise ConnectionResetError("the agent sent what is no frame") from None

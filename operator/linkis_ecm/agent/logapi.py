"""What the agent's paths about logs mean: a page of lines, the bytes or a part of them, and what comes next. The bytes
of a spilled result are served the same way.

One index of line ends is kept per log. Must not know of tasks.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable

from linkis_ecm.agent.engine import Engine
from linkis_ecm.agent.logfiles import LOG_NAMES, open_log
from linkis_ecm.agent.loglines import MAX_LINES, Filter, LineIndex, Page, last_rows, page, tail
from linkis_ecm.agent.results import open_result
from linkis_ecm.agent.web import HttpError, Request, Response, json_response
from linkis_ecm.agent.wire import only, whole

TEXT = b"text/plain; charset=utf-8"
# Each page of log lines may be a scan of a big file in a thread: so many at once.
MAX_SCANS = 4
TOP = 1 << 53
# A log that grows is looked at so often while somebody follows it.
FOLLOW_PAUSE = 0.2
FOLLOW_PIECE = 256 << 10
HEARTBEAT = 10.0


class LogApi:
    """The paths under /v1/logs."""

    def __init__(self, engine: Engine, log_dir: str) -> None:
        self._engine = engine
        self._log_dir = log_dir
        self._scans = asyncio.Semaphore(MAX_SCANS)
        self._indexes: dict[str, tuple[int, LineIndex, asyncio.Lock]] = {}

    async def logs(self, path: list[str], request: Request) -> Response:
        """What is behind /v1/logs."""
        only("GET", request)
        match path:
            case [name]:
                return self._download(name, request.query)
            case [name, "lines"]:
                return await self._lines(name, request.query)
            case [name, "follow"]:
                return self._follow(name, request.query)
        raise HttpError(404, "no such path: see the agent's API in docs/design/interfaces.md")

    def _download(self, name: str, query: dict[str, str]) -> Response:
        """The file's bytes from `offset` on, `length` of them; where the file ends is decided now."""
        part = _part(query)
        descriptor = self._open(name)
        self._engine.attach("download")
        return _bytes(descriptor, part, TEXT, lambda: self._engine.detach("download"))

    async def _lines(self, name: str, query: dict[str, str]) -> Response:
        from_line = whole(query, "fromLine", 1, top=TOP)
        count = whole(query, "lines", 1000, top=MAX_LINES)
        last = whole(query, "lastRows", 0, top=MAX_LINES)
        backwards = query.get("tail") == "true"
        wanted = Filter.parse(query.get("onlyKeywords", ""), query.get("ignoreKeywords", ""))
        descriptor = self._open(name)
        try:
            found = os.fstat(descriptor)
            index, lock = self._index(name, found)
            async with self._scans, lock:
                answer = await asyncio.to_thread(
                    _read, descriptor, found.st_size, index,
                    from_line=from_line, count=count, last=last, backwards=backwards, wanted=wanted,
                )  # fmt: skip
        finally:
            os.close(descriptor)
        return json_response(200, {**answer.as_json(), "logPath": f"{self._log_dir}/{name}"})

    def _index(self, name: str, found: os.stat_result) -> tuple[LineIndex, asyncio.Lock]:
        """The log's index; a new one where the file is another than it was."""
        known = self._indexes.get(name)
        if known is None or known[0] != found.st_ino:
            known = self._indexes[name] = (found.st_ino, LineIndex(), asyncio.Lock())
        return known[1], known[2]

    def _follow(self, name: str, query: dict[str, str]) -> Response:
        """The bytes from `offset` on, and those that are written from now on, until the engine ends."""
        offset = whole(query, "offset", 0, top=TOP)
        descriptor = self._open(name)
        self._engine.attach("follower")

        def done() -> None:
            os.close(descriptor)
            self._engine.detach("follower")

        return Response(200, content_type=b"application/octet-stream", stream=self._grow(descriptor, offset), done=done)

    async def _grow(self, descriptor: int, offset: int) -> AsyncGenerator[bytes]:
        """Frames: a length, a line end, so many bytes. An empty one tells that the engine is there."""
        quiet = 0.0
        while True:
            over = self._engine.ended.done()
            while data := os.pread(descriptor, FOLLOW_PIECE, offset):
                offset += len(data)
                quiet = 0.0
                yield b"%d\n%b" % (len(data), data)
            if over:
                return
            await asyncio.wait((self._engine.ended,), timeout=FOLLOW_PAUSE)
            quiet += FOLLOW_PAUSE
            if quiet >= HEARTBEAT:
                quiet = 0.0
                yield b"0\n"

    def _open(self, name: str) -> int:
        descriptor = open_log(self._log_dir, name)
        if descriptor is None:
            known = name in LOG_NAMES
            raise HttpError(
                404,
                f"this engine has written no log {name}" if known else f"no such log: ask for {', '.join(LOG_NAMES)}",
            )
        return descriptor


def send_result(engine: Engine, log_dir: str, result_id: str, query: dict[str, str]) -> Response:
    """A spilled result's bytes, as a log's. Raises HttpError."""
    part = _part(query)
    descriptor = open_result(log_dir, result_id)
    if descriptor is None:
        raise HttpError(404, "this engine keeps no such result (any more)")
    # One reader makes many of these calls.
    return _bytes(descriptor, part, b"application/vnd.apache.arrow.file", engine.touch)


def _part(query: dict[str, str]) -> tuple[int, int]:
    return whole(query, "offset", 0, top=TOP), whole(query, "length", TOP, top=TOP)


def _bytes(descriptor: int, part: tuple[int, int], content_type: bytes, done: Callable[[], None]) -> Response:
    """The open file's bytes from an offset on, so many of them at most."""
    offset, length = part
    found = os.fstat(descriptor)
    begin = min(offset, found.st_size)
    return Response(
        200,
        content_type=content_type,
        headers=((b"x-log-size", b"%d" % found.st_size), (b"x-log-file", b"%x" % found.st_ino)),
        file=descriptor,
        offset=begin,
        size=min(length, found.st_size - begin),
        done=done,
    )


def _read(
    descriptor: int,
    size: int,
    index: LineIndex,
    *,
    from_line: int,
    count: int,
    last: int,
    backwards: bool,
    wanted: Filter,
) -> Page:
    """Blocking. The part of a page's request that reads."""

    def read_at(offset: int, length: int) -> bytes:
        return os.pread(descriptor, length, offset)

    index.extend(read_at, size)
    if last:
        return last_rows(read_at, size, index, rows=last)
    return (tail if backwards else page)(read_at, size, index, from_line=from_line, count=count, wanted=wanted)

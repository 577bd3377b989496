"""What the agent's paths about logs mean: a page of lines, the bytes or a part of them, and what comes next. The bytes
of a spilled result are served the same way.

One index of line ends is kept per log. Must not know of tasks, nor of how a log is kept.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator

from linkis_ecm.agent.engine import Engine
from linkis_ecm.agent.formats.log_pages import MAX_LINES, Filter, LineIndex, Page, last_rows, page, tail
from linkis_ecm.agent.formats.names import LOG_NAMES
from linkis_ecm.agent.formats.result_files import open_result
from linkis_ecm.agent.http.requests import only, whole
from linkis_ecm.agent.http.server import HttpError, Request, Response, json_response
from linkis_ecm.agent.logs.files import LogFiles, OpenLog, OverwrittenError
from linkis_ecm.agent.logs.followed import ChangedError, FollowedLog

TEXT = b"text/plain; charset=utf-8"
# Each page of log lines may be a scan of a big file in a thread: so many at once.
MAX_SCANS = 4
MAX_NUMBER = 1 << 53
# A log that grows is looked at so often while somebody follows it.
FOLLOW_PAUSE = 0.2
FOLLOW_CHUNK = 256 << 10
HEARTBEAT = 10.0
# A page is read again where its lines were dropped under it.
MAX_TRIES = 3


class LogApi:
    """The paths under /v1/logs."""

    def __init__(self, engine: Engine, files: LogFiles) -> None:
        self._engine = engine
        self._files = files
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
        """What there is of the log, from its byte `offset` on, `length` of them; where the log ends is decided now.

        Where the beginning was dropped, this counts from the sentence that stands for it.
        """
        offset, length = (
            whole(query, "offset", 0, top=MAX_NUMBER),
            whole(query, "length", MAX_NUMBER, top=MAX_NUMBER),
        )
        log = self._open(name)
        total = log.size - log.start.first
        begin = min(offset, total)
        length = min(length, total - begin)
        said = log.start.head[begin : begin + length]
        self._engine.stream_opened("download")
        return Response(
            200,
            said,
            content_type=TEXT,
            headers=((b"x-log-size", b"%d" % total), (b"x-log-file", b"%x-%x" % (log.inode, log.start.begin))),
            file=log.descriptor,
            parts=log.parts(log.start.first + begin + len(said), length - len(said)),
            intact=log.intact,
            done=lambda: self._engine.stream_closed("download"),
        )

    async def _lines(self, name: str, query: dict[str, str]) -> Response:
        from_line = whole(query, "fromLine", 1, top=MAX_NUMBER)
        count = whole(query, "lines", 1000, top=MAX_LINES)
        last = whole(query, "lastRows", 0, top=MAX_LINES)
        backwards = query.get("tail") == "true"
        wanted = Filter.parse(query.get("onlyKeywords", ""), query.get("ignoreKeywords", ""))
        for _ in range(MAX_TRIES):
            log = self._open(name)
            try:
                index, lock = self._index(name, log.inode)
                async with self._scans, lock:
                    answer = await asyncio.to_thread(
                        _read, log, index, from_line=from_line, count=count, last=last, backwards=backwards,
                        wanted=wanted,
                    )  # fmt: skip
                return json_response(200, {**answer.as_json(), "logPath": f"{self._files.directory}/{name}"})
            except OverwrittenError:
                continue
            finally:
                log.close()
        raise HttpError(409, "these lines are being dropped while they are read: ask for later ones")

    def _index(self, name: str, inode: int) -> tuple[LineIndex, asyncio.Lock]:
        """The log's index; a new one where the file is another than it was."""
        known = self._indexes.get(name)
        if known is None or known[0] != inode:
            known = self._indexes[name] = (inode, LineIndex(), asyncio.Lock())
        return known[1], known[2]

    def _follow(self, name: str, query: dict[str, str]) -> Response:
        """The bytes from `offset`, or the last `tail`, on, and those that are written from now on, until the engine
        ends. Where the first of them is, is told: later, where some were dropped, and the log's beginning, where
        `offset` is behind its end: it is another log then than the one that its follower has read."""
        given, last = (
            whole(query, "offset", -1, top=MAX_NUMBER),
            whole(query, "tail", MAX_NUMBER, top=MAX_NUMBER),
        )
        log = self._open(name)
        wanted = given if given >= 0 else log.size - last
        offset = log.start.first if wanted > log.size else max(log.start.first, wanted)
        try:
            followed = FollowedLog(log, f"{self._files.directory}/{name}", offset)
        except OverwrittenError:
            log.close()
            raise HttpError(409, "this part of the log is being dropped: ask for a later one") from None
        self._engine.stream_opened("follower")

        def done() -> None:
            log.close()
            self._engine.stream_closed("follower")

        return Response(
            200,
            content_type=b"application/octet-stream",
            headers=((b"x-log-offset", b"%d" % offset),),
            stream=self._wait_for_growth(followed),
            done=done,
        )

    async def _wait_for_growth(self, followed: FollowedLog) -> AsyncGenerator[bytes]:
        """Frames: a length, a line end, so many bytes. An empty one tells that the engine is there."""
        quiet = 0.0
        while True:
            over = self._engine.ended.done()
            while data := self._read_chunk(followed):
                quiet = 0.0
                yield b"%d\n%b" % (len(data), data)
            if over:
                return
            await asyncio.wait((self._engine.ended,), timeout=FOLLOW_PAUSE)
            quiet += FOLLOW_PAUSE
            if quiet >= HEARTBEAT:
                quiet = 0.0
                yield b"0\n"

    @staticmethod
    def _read_chunk(followed: FollowedLog) -> bytes:
        try:
            return followed.read(FOLLOW_CHUNK)
        except OverwrittenError:
            raise ConnectionAbortedError("the log's beginning was dropped up to where its follower was") from None
        except ChangedError as why:
            raise ConnectionAbortedError(str(why)) from None

    def _open(self, name: str) -> OpenLog:
        log = self._files.open(name)
        if log is None:
            known = name in LOG_NAMES
            raise HttpError(
                404,
                f"this engine has no log {name} now: none was written, or its code has renamed or removed it"
                if known
                else f"no such log: ask for {', '.join(LOG_NAMES)}",
            )
        return log


def send_result(engine: Engine, log_dir: str, result_id: str, query: dict[str, str]) -> Response:
    """A spilled result's bytes from `offset` on, `length` of them at most. Raises HttpError."""
    offset, length = (
        whole(query, "offset", 0, top=MAX_NUMBER),
        whole(query, "length", MAX_NUMBER, top=MAX_NUMBER),
    )
    descriptor = open_result(log_dir, result_id)
    if descriptor is None:
        raise HttpError(404, "this engine keeps no such result (any more)")
    found = os.fstat(descriptor)
    begin = min(offset, found.st_size)
    return Response(
        200,
        content_type=b"application/vnd.apache.arrow.file",
        headers=((b"x-log-size", b"%d" % found.st_size), (b"x-log-file", b"%x" % found.st_ino)),
        file=descriptor,
        parts=[(begin, min(length, found.st_size - begin))],
        # One reader makes many of these calls.
        done=engine.record_activity,
    )


def _read(
    log: OpenLog, index: LineIndex, *, from_line: int, count: int, last: int, backwards: bool, wanted: Filter
) -> Page:
    """Blocking. The part of a page's request that reads."""
    read_at, size = log.read_at, log.size
    index.extend(read_at, size, log.start)
    if last:
        return last_rows(read_at, size, index, rows=last)
    return (tail if backwards else page)(read_at, size, index, from_line=from_line, count=count, wanted=wanted)

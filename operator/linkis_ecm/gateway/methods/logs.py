"""getEngineLogs, downloadEngineLog and followEngineLog.

A path of a client is never opened. logDirSuffix is only compared with the engine's own record; what is read is log
`logType` of that engine. Texts and the order of the checks are Linkis's (ECMRestfulApi).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from linkis_ecm.agent.formats.names import DOWNLOAD_LOGS, LOG_NAMES
from linkis_ecm.api.models import MAX_LINES, EngineLogsAnswer, EngineLogsRequest, FollowLogRequest
from linkis_ecm.gateway.answers import Answer, Download, OpenedFile, Stream
from linkis_ecm.gateway.context import Call
from linkis_ecm.gateway.http.errors import Refused, bad_request, shown
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.gateway.logs.source import LogMissing, LogQuery, missing

LOG_TYPE_TEXT = f"logType only supports {', '.join(DOWNLOAD_LOGS)}(logType仅支持{','.join(DOWNLOAD_LOGS)})"
TEXT = "text/plain; charset=utf-8"
REQUIRED = ("emInstance", "instance", "logDirSuffix", "logType")


async def get_engine_logs(call: Call, request: EngineLogsRequest) -> Answer:
    """A page of lines."""
    if request.log_type not in LOG_NAMES:
        raise bad_request(LOG_TYPE_TEXT)
    engine = await call.engine(request.engine_id)
    page = await read_page(
        call,
        engine,
        request.log_type,
        LogQuery(
            from_line=request.from_line,
            lines=request.lines,
            last_rows=request.last_rows,
            tail=request.enable_tail,
            only=request.only_keywords,
            ignore=request.ignore_keywords,
        ),
    )
    return Answer(EngineLogsAnswer(**page))


async def read_page(call: Call, engine: KnownEngine, log_type: str, query: LogQuery) -> dict[str, Any]:
    """A page as Linkis's log operator returns it, with our field names. Raises Refused."""
    if max(query.lines, query.last_rows) > MAX_LINES:
        raise bad_request(
            f"Cannot fetch more than {MAX_LINES} lines of logs.(无法获取超过{MAX_LINES}行的日志.) Give lines from 1 to"
            f" {MAX_LINES}"
        )
    source = call.gateway.logs.source(engine)
    try:
        page = await source.lines(engine, log_type, query, held=call.held)
    except LogMissing:
        raise missing(engine, log_type) from None
    return {
        # Linkis's consoles send this path's folder back as logDirSuffix.
        "log_path": f"{engine.log_dir_suffix}/{log_type}",
        "logs": page["logs"],
        "end_line": page["endLine"],
        "rows": page["rows"],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFile:
    """The log to download: `log_type` of the engine at `instance`. `log_dir_suffix` must be that engine's folder."""

    em_instance: str
    instance: str
    log_dir_suffix: str
    log_type: str


async def download_engine_log(call: Call, log: LogFile) -> Download:
    """The log's bytes as a file, as many as it had when it was opened; or the part of them that is asked for."""
    engine = await _engine_of_log(call, em_instance=log.em_instance, instance=log.instance, suffix=log.log_dir_suffix)
    source = call.gateway.logs.source(engine)
    limit = call.gateway.settings.max_download_bytes

    @asynccontextmanager
    async def read(*, offset: int = 0, length: int | None = None) -> AsyncIterator[OpenedFile]:
        try:
            async with source.open(engine, log.log_type, offset=offset, length=length) as opened:
                yield opened
        except LogMissing:
            raise missing(engine, log.log_type) from None

    def require_allowed(size: int) -> None:
        if limit and size > limit:
            megabytes = limit >> 20
            raise bad_request(
                f"Download file has exceeded {megabytes}MB(下载文件已超过{megabytes}M): read it in pages with"
                " getEngineLogs"
            )

    return Download(
        file_name=file_name(log.instance, log.log_type), content_type=TEXT, open=read, require_allowed=require_allowed
    )


async def follow_engine_log(call: Call, request: FollowLogRequest) -> Stream:
    """The log from its last lines on, and what is written from now on, as text: `tail -f`. Ends with the engine; where
    it ends before, because the gateway stops or the login has ended, the connection breaks."""
    if request.log_type not in LOG_NAMES:
        raise bad_request(LOG_TYPE_TEXT)
    engine = await call.engine(request.engine_id)
    source = call.gateway.logs.source(engine)
    try:
        followed = await call.held.enter_async_context(
            source.follow(engine, request.log_type, offset=request.from_byte, tail=request.tail_bytes)
        )
    except LogMissing:
        raise missing(engine, request.log_type) from None
    return Stream(content_type=TEXT, chunks=followed.chunks, log_offset=followed.offset)


def log_file(query: Mapping[str, Sequence[str]]) -> LogFile:
    """The log that the four parameters name. `query` has all values of each parameter. The checks are in Linkis's
    order: all parameters exist, none is blank, the type is known. Raises Refused."""
    for name in REQUIRED:
        if name not in query:
            raise _empty(name)
    for name in ("instance", "logDirSuffix", "logType"):
        if not query[name][0].strip():
            raise _empty(name)
    if query["logType"][0] not in DOWNLOAD_LOGS:
        raise bad_request(LOG_TYPE_TEXT)
    if not query["emInstance"][0].strip():
        raise _empty("emInstance")
    for name in REQUIRED:
        if len(query[name]) > 1:
            raise bad_request(f"Parameter {name} is given more than once: give it once")
    em_instance, instance, log_dir_suffix, log_type = (query[name][0] for name in REQUIRED)
    return LogFile(em_instance=em_instance, instance=instance, log_dir_suffix=log_dir_suffix, log_type=log_type)


def _empty(name: str) -> Refused:
    return bad_request(f"Parameter {name} cannot be empty (参数 {name} 不能为空)")


async def _engine_of_log(call: Call, *, em_instance: str, instance: str, suffix: str) -> KnownEngine:
    """The engine whose log is asked for: known, the caller's, and with that very folder."""
    user = call.caller.user
    # Linkis's MessageFormat of "You {0} have no permission to download Log in ECM {1}".
    ecm = shown(em_instance)
    refusal = f"You {user} have no permission to download Log in ECM {ecm}(用户 {user} 无权限下载  ECM {ecm} 日志)"
    engine = await call.engine_or_refusal((instance,), bad_request(refusal))
    if engine is None or not engine.log_dir_suffix or suffix.rstrip("/") != engine.log_dir_suffix:
        folder = shown(suffix)
        raise bad_request(
            f"Log directory {folder} does not exists.(日志目录 {folder} 不存在.) logDirSuffix and instance must"
            " be those of one engine: take both from getEngineStatus, or the folder of the logPath of getEngineLogs"
        )
    return engine


def file_name(instance: str, log_type: str) -> str:
    """`<instance with ":" as "_">_<logType>.txt`, with characters that are safe in a header."""
    return re.sub("[^A-Za-z0-9._-]", "_", f"{instance}_{log_type}.txt")

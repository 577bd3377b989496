"""getEngineLogs, downloadEngineLog and followEngineLog.

A client's path is never used as one: logDirSuffix is compared with what the engine's own record says, and what is read
is log `logType` of that engine. Texts and the order of the checks are Linkis's (ECMRestfulApi).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from aiohttp import web

from linkis_ecm.agent.formats.names import DOWNLOAD_LOGS, LOG_NAMES
from linkis_ecm.api.models import MAX_LINES, EngineLogsAnswer, EngineLogsRequest, FollowLogRequest
from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.context import Answer, Call, Gateway
from linkis_ecm.gateway.http import compression, ranges
from linkis_ecm.gateway.http.errors import Refused, bad_request, shown
from linkis_ecm.gateway.logs.source import Engine, LogDownload, LogMissing, LogQuery, missing

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


async def read_page(call: Call, engine: Engine, log_type: str, query: LogQuery) -> dict[str, Any]:
    """A page as Linkis's log operator gives it, in our names. Raises Refused."""
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


async def download_engine_log(call: Call, _: None) -> web.StreamResponse:
    """The log's bytes as a file, as many as it had when it was opened; or the part of them that is asked for."""
    em_instance, instance, suffix, log_type = _parameters(call.request)
    engine = await _find(call.gateway, call.caller, em_instance=em_instance, instance=instance, suffix=suffix)
    source = call.gateway.logs.source(engine)
    name = file_name(instance, log_type)
    wanted = ranges.parse(call.request.headers.get("Range")) if call.request.method == "GET" else None
    try:
        if wanted is not None:
            part = await _part(call, partial(source.open, engine, log_type), wanted, name)
            if part is not None:
                return part
        async with source.open(engine, log_type, length=0 if call.request.method == "HEAD" else None) as opened:
            return await _whole(call, opened, name)
    except LogMissing:
        raise missing(engine, log_type) from None


async def _part(
    call: Call, read: Callable[..., AbstractAsyncContextManager[LogDownload]], wanted: ranges.Range, name: str
) -> web.StreamResponse | None:
    """The part that is asked for; None where the client must have all: what it has is of another log."""
    async with read(length=0) as now:
        total, identity = now.total, now.identity
    if ranges.matches(call.request.headers.get("If-None-Match"), identity, total):
        return _not_modified(identity, total)
    if not ranges.still_valid(call.request.headers.get("If-Range"), identity, total):
        return None
    begin, end = wanted.within(total)
    _within_limit(call, end - begin)
    async with read(offset=begin, length=end - begin) as opened:
        if opened.identity != identity or opened.length != end - begin:
            return None  # its beginning was dropped between the two
        headers = {"Content-Range": f"bytes {begin}-{end - 1}/{total}", "ETag": ranges.etag(identity, total)}
        return await _send(call, opened, name, status=206, headers=headers)


async def follow_engine_log(call: Call, request: FollowLogRequest) -> web.StreamResponse:
    """The log from its last lines on, and what is written from now on, as text: `tail -f`. Ends with the engine."""
    if request.log_type not in LOG_NAMES:
        raise bad_request(LOG_TYPE_TEXT)
    engine = await call.engine(request.engine_id)
    source = call.gateway.logs.source(engine)
    try:
        async with source.follow(
            engine, request.log_type, offset=request.from_byte, tail=request.tail_bytes
        ) as followed:
            response = web.StreamResponse(headers={"Content-Type": TEXT, "X-Log-Offset": str(followed.offset)})
            sender = call.sender(response)
            await sender.begin()
            await sender.stream(followed.chunks)
            return await sender.end()
    except LogMissing:
        raise missing(engine, request.log_type) from None


def _parameters(request: web.Request) -> tuple[str, str, str, str]:
    """The four parameters, checked in Linkis's order: all there, then none blank, then the type."""
    query = request.query
    for name in REQUIRED:
        if name not in query:
            raise _empty(name)
    for name in ("instance", "logDirSuffix", "logType"):
        if not query[name].strip():
            raise _empty(name)
    if query["logType"] not in DOWNLOAD_LOGS:
        raise bad_request(LOG_TYPE_TEXT)
    if not query["emInstance"].strip():
        raise _empty("emInstance")
    for name in REQUIRED:
        if len(query.getall(name)) > 1:
            raise bad_request(f"Parameter {name} is given more than once: give it once")
    return query["emInstance"], query["instance"], query["logDirSuffix"], query["logType"]


def _empty(name: str) -> Refused:
    return bad_request(f"Parameter {name} cannot be empty (参数 {name} 不能为空)")


async def _find(gateway: Gateway, caller: Caller, *, em_instance: str, instance: str, suffix: str) -> Engine:
    """The engine whose log is asked for: known, the caller's, and with that very folder."""
    engine = await gateway.find(instance)
    if engine is not None and not caller.may_use(engine.user):
        # Linkis's MessageFormat of "You {0} have no permission to download Log in ECM {1}".
        ecm = shown(em_instance)
        raise bad_request(
            f"You {caller.user} have no permission to download Log in ECM {ecm}"
            f"(用户 {caller.user} 无权限下载  ECM {ecm} 日志)"
        )
    if engine is None or not engine.log_dir_suffix or suffix.rstrip("/") != engine.log_dir_suffix:
        folder = shown(suffix)
        raise bad_request(
            f"Log directory {folder} does not exists.(日志目录 {folder} 不存在.) logDirSuffix and instance must"
            " be those of one engine: take both from getEngineStatus, or the folder of the logPath of getEngineLogs"
        )
    return engine


def file_name(instance: str, log_type: str) -> str:
    """`<instance with ":" as "_">_<logType>.txt`, of characters that a header can hold."""
    return re.sub("[^A-Za-z0-9._-]", "_", f"{instance}_{log_type}.txt")


async def _whole(call: Call, opened: LogDownload, name: str) -> web.StreamResponse:
    """All of the log, compressed where the client accepts that; 304 where it has it already."""
    _within_limit(call, opened.total)
    headers = call.request.headers
    if ranges.matches(headers.get("If-None-Match"), opened.identity, opened.total):
        return _not_modified(opened.identity, opened.total)
    # A client that asks for a part, and is given all, counts bytes of the log itself.
    gzip = "Range" not in headers and compression.accepts_gzip(headers.get("Accept-Encoding", ""))
    if gzip and opened.total > compression.MIN_BYTES:
        return await _send_gzip(call, opened, name)
    return await _send(call, opened, name)


def _within_limit(call: Call, size: int) -> None:
    """Refuse more than may be downloaded at once, if there is a limit."""
    limit = call.gateway.settings.max_download_bytes
    if limit and size > limit:
        megabytes = limit >> 20
        raise bad_request(
            f"Download file has exceeded {megabytes}MB(下载文件已超过{megabytes}M): read it in pages with getEngineLogs"
        )


def _not_modified(identity: str, total: int) -> web.Response:
    return web.Response(status=304, headers={"ETag": ranges.etag(identity, total), "Vary": "Accept-Encoding"})


async def _send(
    call: Call, opened: LogDownload, name: str, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """The headers, and the bytes as they come."""
    response = web.StreamResponse(status=status, headers=_headers(opened, name) | dict(headers or {}))
    if call.request.method == "HEAD":
        response.content_length = opened.total
        return response
    response.content_length = opened.length
    sender = call.sender(response)
    await sender.begin()
    sent = await sender.relay(opened.chunks, opened.length, socket=opened.socket)
    call.gateway.metrics.download_bytes.inc(sent)
    return await sender.end()


async def _send_gzip(call: Call, opened: LogDownload, name: str) -> web.StreamResponse:
    """As gzip, whose length nobody knows beforehand. A log that breaks off breaks the connection."""
    headers = _headers(opened, name) | {
        "Content-Encoding": "gzip",
        "X-Log-Size": str(opened.total),
        "ETag": ranges.etag(opened.identity, opened.total, gzip=True),
    }
    response = web.StreamResponse(headers=headers)
    if call.request.method == "HEAD":
        return response
    sender = call.sender(response)
    await sender.begin()
    sent = await sender.relay(opened.chunks, opened.length, gzip=compression.GzipStream())
    call.gateway.metrics.download_bytes.inc(sent)
    return await sender.end()


def _headers(opened: LogDownload, name: str) -> dict[str, str]:
    return {
        "Content-Disposition": f"attachment;filename={name}",
        "Content-Type": TEXT,
        "Accept-Ranges": "bytes",
        "ETag": ranges.etag(opened.identity, opened.total),
        "Vary": "Accept-Encoding",
    }

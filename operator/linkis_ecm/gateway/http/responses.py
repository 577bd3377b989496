"""Makes HTTP responses of what methods give back (`gateway.answers`): Messages, streams, files with ranges and tags.

Must not know what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web
from pydantic import BaseModel

from linkis_ecm.api import result_headers
from linkis_ecm.gateway.answers import EVENT_STREAM, Answer, Download, KeptRows, LargeJson, OpenedFile, Result, Stream
from linkis_ecm.gateway.http import compression, envelope, ranges
from linkis_ecm.gateway.http.budget import SMALL
from linkis_ecm.gateway.http.sender import Sender
from linkis_ecm.gateway.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Responder:
    """Answers one request. `patience`: seconds that the client may take for one piece."""

    request: web.Request
    patience: float
    metrics: Metrics

    async def send(self, result: Result) -> web.StreamResponse:
        """Send the result; the response is returned for aiohttp, which sends it where it is small. Raises Refused."""
        match result:
            case Answer(data=LargeJson() as large):
                return await self._send_large(large)
            case Answer():
                return await self._send_message(result)
            case Stream():
                return await self._send_stream(result)
            case Download():
                return await self._send_download(result)

    def _sender(self, response: web.StreamResponse) -> Sender:
        return Sender(self.request, response, patience=self.patience, metrics=self.metrics)

    async def _send_message(self, answer: Answer) -> web.StreamResponse:
        """The Message. A small one is aiohttp's to send; a big one goes in pieces, with our bounds."""
        data = answer.data
        response = envelope.ok(
            self.request.path,
            data.model_dump(mode="json", by_alias=True) if isinstance(data, BaseModel) else data,
            message=answer.message,
        )
        body = response.body
        if not isinstance(body, bytes) or len(body) <= SMALL:
            return response
        big = web.StreamResponse(
            headers={"Content-Type": response.headers["Content-Type"], "Content-Length": str(len(body))}
        )
        sender = self._sender(big)
        await sender.begin()
        await sender.write(memoryview(body))
        return await sender.end()

    async def _send_large(self, large: LargeJson) -> web.StreamResponse:
        """The Message around the data, and the data's bytes as they come."""
        before, after = envelope.around(self.request.path)
        response = web.StreamResponse(
            headers={
                "Content-Type": envelope.CONTENT_TYPE,
                "Content-Length": str(len(before) + large.size + len(after)),
            }
        )
        sender = self._sender(response)
        await sender.begin()
        if await sender.write(before) and await sender.relay(large.chunks, large.size) == large.size:
            await sender.write(after)
        await large.after_sent()
        return await sender.end()

    async def _send_stream(self, stream: Stream) -> web.StreamResponse:
        """The bytes as they come. A source that breaks off breaks the connection."""
        headers = {"Content-Type": stream.content_type}
        if stream.content_type == EVENT_STREAM:
            # nginx would keep events back until its buffer is full.
            headers["X-Accel-Buffering"] = "no"
        if stream.file_name:
            headers["Content-Disposition"] = f"attachment;filename={stream.file_name}"
        if stream.log_offset is not None:
            headers["X-Log-Offset"] = str(stream.log_offset)
        if stream.table is not None:
            headers |= _of_table(stream.table)
        sender = self._sender(web.StreamResponse(headers=headers))
        await sender.begin()
        if stream.on_begin is not None:
            stream.on_begin(lambda: sender.abort("client"), sender.taken)
        await sender.stream(stream.chunks)
        return await sender.end()

    # -- files -------------------------------------------------------------------------------------------------------

    async def _send_download(self, download: Download) -> web.StreamResponse:
        """The file's bytes, as many as it had when it was opened; or the part of them that is asked for."""
        head = self.request.method == "HEAD"
        wanted = None if head else ranges.parse(self.request.headers.get("Range"))
        if wanted is not None:
            part = await self._send_part(download, wanted)
            if part is not None:
                return part
        async with download.open(length=0 if head else None) as opened:
            return await self._send_whole(download, opened)

    async def _send_part(self, download: Download, wanted: ranges.Range) -> web.StreamResponse | None:
        """The part that is asked for; None where the client must have all: what it has is of another file."""
        headers = self.request.headers
        async with download.open(length=0) as now:
            total, identity = now.total, now.identity
        tag = ranges.etag(identity, total)
        if ranges.matches(headers.get("If-None-Match"), tag):
            return _not_modified(tag)
        if not ranges.still_valid(headers.get("If-Range"), identity, total):
            return None
        begin, end = wanted.within(total)
        download.require_allowed(end - begin)
        async with download.open(offset=begin, length=end - begin) as opened:
            if opened.identity != identity or opened.length != end - begin:
                return None  # its beginning was dropped between the two
            part = {"Content-Range": f"bytes {begin}-{end - 1}/{total}", "ETag": tag}
            return await self._send_bytes(download, opened, status=206, headers=part)

    async def _send_whole(self, download: Download, opened: OpenedFile) -> web.StreamResponse:
        """All of the file, compressed where the client accepts that; 304 where it has it already."""
        download.require_allowed(opened.total)
        headers = self.request.headers
        # A client that asks for a part, and is given all, counts bytes of the file itself.
        gzip = (
            "Range" not in headers
            and opened.total > compression.MIN_BYTES
            and compression.accepts_gzip(headers.get("Accept-Encoding", ""))
        )
        tag = ranges.etag(opened.identity, opened.total, gzip=gzip)
        if ranges.matches(headers.get("If-None-Match"), tag):
            return _not_modified(tag)
        if gzip:
            return await self._send_gzip(download, opened)
        return await self._send_bytes(download, opened)

    async def _send_bytes(
        self, download: Download, opened: OpenedFile, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> web.StreamResponse:
        """The headers, and the bytes as they come."""
        response = web.StreamResponse(status=status, headers=_headers(download, opened) | dict(headers or {}))
        if self.request.method == "HEAD":
            response.content_length = opened.total
            return response
        response.content_length = opened.length
        sender = self._sender(response)
        await sender.begin()
        sent = await sender.relay(opened.chunks, opened.length, socket=opened.socket)
        self.metrics.download_bytes.inc(sent)
        return await sender.end()

    async def _send_gzip(self, download: Download, opened: OpenedFile) -> web.StreamResponse:
        """As gzip, whose length is not known beforehand. A file that breaks off breaks the connection."""
        headers = _headers(download, opened) | {
            "Content-Encoding": "gzip",
            "X-Log-Size": str(opened.total),
            "ETag": ranges.etag(opened.identity, opened.total, gzip=True),
        }
        response = web.StreamResponse(headers=headers)
        if self.request.method == "HEAD":
            return response
        sender = self._sender(response)
        await sender.begin()
        sent = await sender.relay(opened.chunks, opened.length, gzip=compression.GzipStream())
        self.metrics.download_bytes.inc(sent)
        return await sender.end()


def _of_table(table: KeptRows) -> dict[str, str]:
    """What is kept of a table: the bytes alone would look complete."""
    headers = {
        result_headers.TRUNCATED: "true" if table.truncated else "false",
        result_headers.RESULT_ROWS: str(table.kept),
    }
    return headers if table.total is None else headers | {result_headers.TOTAL_ROWS: str(table.total)}


def _not_modified(tag: str) -> web.Response:
    """`tag` is that of the answer with the bytes."""
    return web.Response(status=304, headers={"ETag": tag, "Vary": "Accept-Encoding"})


def _headers(download: Download, opened: OpenedFile) -> dict[str, str]:
    return {
        "Content-Disposition": f"attachment;filename={download.file_name}",
        "Content-Type": download.content_type,
        "Accept-Ranges": "bytes",
        "ETag": ranges.etag(opened.identity, opened.total),
        "Vary": "Accept-Encoding",
    }

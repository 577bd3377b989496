"""Sends answers in pieces. A client that takes no piece within the timeout is cut off; one that leaves ends the
sending.

Must not know what the bytes mean.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from aiohttp import ClientError, HttpVersion11, web

from linkis_ecm.gateway.answers import DirectSource
from linkis_ecm.gateway.http.compression import GzipStream
from linkis_ecm.gateway.http.socket_relay import (
    MIN_BYTES,
    YIELD_BYTES,
    SourceGoneError,
    acknowledged,
    plain_socket,
    send_all,
    transfer,
)
from linkis_ecm.gateway.http.streams import CutStreamError
from linkis_ecm.gateway.metrics import Metrics

log = logging.getLogger(__name__)

PIECE = 256 << 10
# From here on bytes are sent without a copy.
DIRECT_BYTES = 128 << 10
# What a client that does not read may have before it, of bytes that are pushed: what a stream reserves
# (`streams.STREAM_BYTES`).
PUSHED_BYTES = 128 << 10
# Set once the head of an answer is sent: no other answer can be sent on its connection then.
HEAD_SENT: web.RequestKey[bool] = web.RequestKey("head_sent", bool)


class Sender:
    """One answer."""

    def __init__(
        self, request: web.Request, response: web.StreamResponse, *, patience: float, metrics: Metrics
    ) -> None:
        self._request = request
        self._response = response
        self._patience = patience
        self._metrics = metrics
        self._chunked = False
        # aiohttp keeps the head back until something is written.
        self._began = False
        self._direct = 0
        self.cut = False

    async def begin(self) -> None:
        """Send the head. A client that has left meanwhile gets nothing more."""
        self._request[HEAD_SENT] = True
        if self._request.version < HttpVersion11 and self._response.content_length is None:
            # HTTP/1.0 has no chunks: such an answer ends with its connection, also where the client would keep that.
            self._response.force_close()
        try:
            await self._response.prepare(self._request)
        except OSError:
            self.abort("client")
        self._chunked = self._response.headers.get("Transfer-Encoding") == "chunked"

    async def write(self, data: bytes | memoryview) -> bool:
        """Send `data`; False where the client is gone or too slow, and the answer was aborted."""
        if self.cut:
            return False
        if len(data) >= DIRECT_BYTES and (sent := await self._send_direct(data)) is not None:
            return sent
        for start in range(0, len(data) or 1, PIECE):
            try:
                async with asyncio.timeout(self._patience):
                    await self._response.write(data[start : start + PIECE])
                self._began = True
            except (OSError, TimeoutError):
                self.abort("client")
                return False
        return True

    async def _send_direct(self, data: bytes | memoryview) -> bool | None:
        """The same without a copy of `data`, which asyncio's transport makes of what its client does not take at once;
        None where that is not possible."""
        transport = self._request.transport
        if not self._began or transport is None or transport.get_write_buffer_size():
            return None  # what waits there must go first
        target = plain_socket(transport)
        if target is None:
            return None
        size = memoryview(data).nbytes
        try:
            await send_all((b"%x\r\n" % size, data, b"\r\n") if self._chunked else (data,), target, self._patience)
        except (OSError, TimeoutError):
            self.abort("client")
            return False
        finally:
            target.close()
        self._direct += size
        if self._direct >= YIELD_BYTES:
            self._direct = 0
            await asyncio.sleep(0)  # a client that takes everything at once must not keep others waiting
        return True

    def taken(self) -> int:
        """The bytes that the client's host has taken on this connection; 0 where that cannot be known. What was sent
        says less: megabytes may wait in the transport and the socket, and leave them in big steps."""
        transport = self._request.transport
        return 0 if transport is None else acknowledged(transport.get_extra_info("socket"))

    def push(self, data: bytes, framed: bytes) -> bool:
        """Send `data` now, or `framed` where the answer is in chunks; False where the client has not taken what was
        sent before. Of use only between two calls of `write`."""
        transport = self._request.transport
        if (
            self.cut
            or transport is None
            or transport.is_closing()
            or transport.get_write_buffer_size() + len(framed) > PUSHED_BYTES
        ):
            return False
        transport.write(framed if self._chunked else data)
        return True

    async def relay(
        self,
        chunks: AsyncIterator[bytes],
        size: int,
        *,
        gzip: GzipStream | None = None,
        socket: DirectSource | None = None,
    ) -> int:
        """Send exactly `size` bytes of `chunks`, or of `socket`, which is faster; how many were sent. Fewer: the answer
        was aborted, because of either side."""
        if (
            not self.cut
            and socket is not None
            and size >= MIN_BYTES
            and (sent := await self._transfer(socket, size)) is not None
        ):
            return sent
        sent = 0
        while sent < size:
            try:
                chunk = await anext(chunks)
            except (StopAsyncIteration, ClientError, OSError, TimeoutError) as error:
                log.warning("an answer to %s is cut: its source gave %d of %d bytes: %r",
                            self._request.path, sent, size, error)  # fmt: skip
                self.abort("engine")
                return sent
            chunk = chunk[: size - sent]
            if not await self.write(chunk if gzip is None else await gzip.compress(chunk)):
                return sent
            sent += len(chunk)
        if gzip is not None:
            await self.write(gzip.finish())
        return sent

    async def _transfer(self, socket: DirectSource, size: int) -> int | None:
        """The same from socket to socket; None where that is not possible."""
        transport = self._request.transport
        if transport is None or transport.get_write_buffer_size():
            return None  # aiohttp would send the rest of the head after the body
        target = plain_socket(transport)
        taken = None if target is None else socket.take()
        if target is None or taken is None:
            if target is not None:
                target.close()
            return None
        received, source = taken
        sent = 0

        def on_sent(count: int) -> None:
            nonlocal sent
            sent += count

        try:
            await transfer(
                received,
                source,
                target,
                size,
                source_patience=socket.patience,
                target_patience=self._patience,
                on_sent=on_sent,
            )
        except SourceGoneError as error:
            log.warning("an answer to %s is cut: its source broke off: %r", self._request.path, error)
            self.abort("engine")
        except (OSError, TimeoutError):
            self.abort("client")
        finally:
            source.close()
            target.close()
        return sent

    async def stream(self, chunks: AsyncIterator[Any]) -> None:
        """Send all of `chunks`, and close them; a source that fails aborts the answer."""
        try:
            async for chunk in chunks:
                if not isinstance(chunk, bytes | memoryview):
                    if await self.write(b""):
                        await chunk.receive(self)
                elif not await self.write(chunk):
                    return
                if self.cut:
                    return
                del chunk  # it may be big, and the next may take long to come
        except CutStreamError as error:
            log.info("an answer to %s is cut: %s", self._request.path, error)
            self.abort("gateway")
        except (ClientError, OSError, TimeoutError) as error:
            log.warning("an answer to %s is cut: its source broke off: %r", self._request.path, error)
            self.abort("engine")
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()

    async def end(self) -> web.StreamResponse:
        """Finish the answer; it is returned for aiohttp."""
        if not self.cut:
            try:
                async with asyncio.timeout(self._patience):
                    await self._response.write_eof()
            except (OSError, TimeoutError):
                self.abort("client")
        return self._response

    def abort(self, side: str) -> None:
        """Break the connection: its head is sent, so an incomplete answer must not look complete."""
        self.cut = True
        self._metrics.answers_cut.labels(side).inc()
        if self._request.transport is not None:
            self._request.transport.abort()

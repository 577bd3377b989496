"""Sends answers in pieces. A client that takes no piece within the timeout is cut off; one that leaves ends the
sending.

Must not know what the bytes mean.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from aiohttp import ClientError, web

from linkis_ecm.gateway.answers import DirectSource
from linkis_ecm.gateway.http.compression import GzipStream
from linkis_ecm.gateway.http.socket_relay import MIN_BYTES, SourceGoneError, plain_socket, transfer
from linkis_ecm.gateway.metrics import Metrics

log = logging.getLogger(__name__)

PIECE = 256 << 10
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
        self.cut = False

    async def begin(self) -> None:
        """Send the head. A client that has left meanwhile gets nothing more."""
        self._request[HEAD_SENT] = True
        try:
            await self._response.prepare(self._request)
        except OSError:
            self.abort("client")

    async def write(self, data: bytes | memoryview) -> bool:
        """Send `data`; False where the client is gone or too slow, and the answer was aborted."""
        if self.cut:
            return False
        for start in range(0, len(data), PIECE):
            try:
                async with asyncio.timeout(self._patience):
                    await self._response.write(data[start : start + PIECE])
            except (OSError, TimeoutError):
                self.abort("client")
                return False
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

    async def stream(self, chunks: AsyncIterator[bytes]) -> None:
        """Send all of `chunks`; a source that fails aborts the answer."""
        try:
            async for chunk in chunks:
                if not await self.write(chunk):
                    return
                del chunk  # it may be big, and the next may take long to come
        except (ClientError, OSError, TimeoutError) as error:
            log.warning("an answer to %s is cut: its source broke off: %r", self._request.path, error)
            self.abort("engine")

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

"""Sends answers in pieces: one that is slow to take them is waited for so long and then cut, one that leaves ends it.

Must not know what the bytes are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from aiohttp import ClientError, web

from linkis_ecm.gateway.http.compression import Packer
from linkis_ecm.gateway.http.socket_relay import WORTH, Direct, SourceGoneError, plain, transfer
from linkis_ecm.gateway.metrics import Metrics

log = logging.getLogger(__name__)

PIECE = 256 << 10
# Set once an answer's head is out: from then on nothing else can be said on its connection.
BEGUN: web.RequestKey[bool] = web.RequestKey("begun", bool)


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
        """Send the head."""
        self._request[BEGUN] = True
        await self._response.prepare(self._request)

    async def write(self, data: bytes | memoryview) -> bool:
        """Send `data`; False where the client is gone or too slow, and the answer with it."""
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
        packed: Packer | None = None,
        direct: Direct | None = None,
    ) -> int:
        """Pass on exactly `size` bytes, past aiohttp's streams where they may come `direct`; how many were sent. Less:
        the answer is cut, by either side."""
        if direct is not None and size >= WORTH and (sent := await self._pass(direct, size)) is not None:
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
            if not await self.write(chunk if packed is None else await packed.pack(chunk)):
                return sent
            sent += len(chunk)
        if packed is not None:
            await self.write(packed.finish())
        return sent

    async def _pass(self, direct: Direct, size: int) -> int | None:
        """The same from socket to socket; None where it cannot be done so."""
        transport = self._request.transport
        if transport is None or transport.get_write_buffer_size():
            return None  # what aiohttp still has of the head would come behind
        target = plain(transport)
        taken = None if target is None else direct.take()
        if target is None or taken is None:
            if target is not None:
                target.close()
            return None
        begun, source = taken
        sent = 0

        def moved(count: int) -> None:
            nonlocal sent
            sent += count

        try:
            await transfer(
                begun,
                source,
                target,
                size,
                source_patience=direct.patience,
                target_patience=self._patience,
                moved=moved,
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
        """Pass on what comes until there is no more; a source that breaks off cuts the answer."""
        try:
            async for chunk in chunks:
                if not await self.write(chunk):
                    return
                del chunk  # it may be big, and the next long in coming
        except (ClientError, OSError, TimeoutError) as error:
            log.warning("an answer to %s is cut: its source broke off: %r", self._request.path, error)
            self.abort("engine")

    async def end(self) -> web.StreamResponse:
        """The answer, for aiohttp."""
        if not self.cut:
            try:
                async with asyncio.timeout(self._patience):
                    await self._response.write_eof()
            except (OSError, TimeoutError):
                self.abort("client")
        return self._response

    def abort(self, side: str) -> None:
        """The answer has begun, so the only honest end is a broken connection: half of it must not look whole."""
        self.cut = True
        self._metrics.answers_cut.labels(side).inc()
        if self._request.transport is not None:
            self._request.transport.abort()

"""Serves the operator's ports with bounds: engines' pods, which their users control, may connect to them.

A client that sends nothing, or half a request's head, is cut; so is each connection of one address beyond a number.
Must not know what is served.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from aiohttp import web

from linkis_ecm.process.web_runner import Runner

# Seconds for a request's head, and between two requests. An agent reports each 10 s by default; aiohttp's own is an
# hour.
KEEPALIVE_SECONDS = 75.0
# Seconds in which what a refused body still sends is thrown away.
LINGER_SECONDS = 5.0


@asynccontextmanager
async def serve(
    app: web.Application,
    port: int,
    *,
    per_peer: int = 0,
    on_refused: Callable[[], None] = lambda: None,
    host: str = "0.0.0.0",  # noqa: S104 - it is a pod's port
    idle_seconds: float = KEEPALIVE_SECONDS,
) -> AsyncIterator[int]:
    """An application on all addresses of the pod; yields its port. `per_peer` connections of one address at a time,
    0: no limit; `on_refused` is called for each one beyond."""
    runner = Runner(
        app,
        error_body=lambda _: (b"the request cannot be read", "text/plain; charset=utf-8"),
        access_log=None,
        keepalive_timeout=idle_seconds,
        lingering_time=LINGER_SECONDS,
        # Bodies with a Content-Encoding are refused, and not unpacked while they are thrown away.
        auto_decompress=False,
    )
    await runner.setup()
    peers: Counter[str] = Counter()
    server = runner.server
    assert server is not None  # noqa: S101 - set up above
    make = cast("Callable[[], asyncio.Protocol]", server)
    try:
        listener = await asyncio.get_running_loop().create_server(
            lambda: _Connection(make, peers, per_peer, on_refused), host, port, backlog=1024
        )
        try:
            yield listener.sockets[0].getsockname()[1]
        finally:
            listener.close()
    finally:
        await runner.cleanup()


class _Connection(asyncio.Protocol):
    """One connection: cut at once where its address has too many, else aiohttp's."""

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        peers: Counter[str],
        limit: int,
        on_refused: Callable[[], None],
    ) -> None:
        self._make = make
        self._peers = peers
        self._limit = limit
        self._on_refused = on_refused
        self._peer = ""
        self._inner: asyncio.Protocol | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # None where the other side is gone already.
        peer = str((transport.get_extra_info("peername") or ("",))[0])
        if self._limit and self._peers[peer] >= self._limit:
            self._on_refused()
            cast("asyncio.Transport", transport).abort()
            return
        self._peer = peer
        self._peers[peer] += 1
        self._inner = self._make()
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._inner is None:
            return
        self._peers[self._peer] -= 1
        if not self._peers[self._peer]:
            del self._peers[self._peer]
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

"""The listening socket of a server process, plain or TLS, with bounds on its connections (`process.ports.connections`).

Each connection is counted as soon as it is accepted, before its handshake, and is cut where it does not send a request
in time. Must not know what is served.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto
from collections.abc import Callable
from typing import cast

from aiohttp import web

from linkis_ecm.process.ports.addresses import counted_as
from linkis_ecm.process.ports.connections import ConnectionLimits, Connections, Counts
from linkis_ecm.process.ports.turns import Turns
from linkis_ecm.process.ports.web_runner import Handler, Runner

# Seconds for a whole handshake. asyncio's own default is 60: that long a stranger would hold a connection for nothing.
HANDSHAKE_SECONDS = 10
# Seconds that a client may take to say goodbye.
SHUTDOWN_SECONDS = 5.0
# Seconds from the connection, or from its handshake's end, to the end of the first request's head.
HEAD_SECONDS = 10.0
# Seconds that a stranger's request may take: a login is looked up in 10 at most, the longest page has 250 KiB.
STRANGER_SECONDS = 30.0
# asyncio gives each TLS connection a buffer of 256 KiB before it has sent a byte: 1000 strangers would hold 256 MiB. A
# TLS record has 16 KiB at most.
BUFFER_BYTES = 32 << 10
# Handshakes of one address a second, and at once; further ones wait for their turn. Each is 1 ms of CPU (measured), so
# one address has a fifth of a core. As many as strangers have places wait 2.5 s at most.
HANDSHAKES_PER_SECOND, HANDSHAKES_AT_ONCE = 200.0, 400
HANDSHAKE_PEERS = 10_000
# Connections that the kernel completes and nobody has accepted yet.
BACKLOG = 1024


class Site(web.TCPSite):
    """The listening socket of `runner`, HTTPS with a context. `connections` are its connections."""

    __slots__ = ("_handshakes", "_head_seconds", "_turns", "connections")

    def __init__(
        self,
        runner: Runner,
        host: str | None,
        port: int,
        *,
        limits: ConnectionLimits,
        counts: Counts,
        context: ssl.SSLContext | None = None,
        head_seconds: float = HEAD_SECONDS,
    ) -> None:
        super().__init__(runner, host, port, backlog=BACKLOG, ssl_context=context)
        self._head_seconds = head_seconds
        self.connections = Connections(limits, counts=counts, clock=asyncio.get_running_loop().time)
        self._handshakes: set[Accepted] = set()
        self._turns = Turns(
            per_second=HANDSHAKES_PER_SECOND,
            burst=HANDSHAKES_AT_ONCE,
            keys=HANDSHAKE_PEERS,
            clock=asyncio.get_running_loop().time,
        )

    async def start(self) -> None:
        await web.BaseSite.start(self)
        make = cast("Callable[[], Handler]", self._runner.server)
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Accepted(
                make,
                self.connections,
                self._ssl_context,
                self._head_seconds,
                handshakes=self._handshakes,
                turns=self._turns,
            ),
            self._host,
            self._port,
            backlog=self._backlog,
        )

    async def stop(self) -> None:
        await super().stop()
        # aiohttp knows a connection once its handshake is done.
        for one in tuple(self._handshakes):
            one.abort()


class Accepted(asyncio.Protocol):
    """One accepted connection: aiohttp's protocol takes over, after TLS's where there is a context."""

    def __init__(
        self,
        make: Callable[[], Handler],
        connections: Connections,
        context: ssl.SSLContext | None,
        head_seconds: float,
        *,
        handshakes: set[Accepted],
        turns: Turns,
    ) -> None:
        self.peer = ""
        self.is_busy = False
        self._make = make
        self._connections = connections
        self._context = context
        self._head_seconds = head_seconds
        self._handshakes = handshakes
        self._turns = turns
        # Until its handshake's turn comes.
        self._waits: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_known = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # None where the other side is gone already.
        self.peer = counted_as(str((transport.get_extra_info("peername") or ("",))[0]))
        if not self._connections.admit(self):
            self.abort()
            return
        if self._context is not None:
            self._handshakes.add(self)
            if (seconds := self._turns.take(self.peer)) > 0:
                # Nothing is read meanwhile, so its hanging up is not seen either. Soon, not now: with Python 3.11.2 a
                # new transport begins to read behind this call whatever it says, and what came would be lost.
                self._loop.call_soon(self._transport.pause_reading)
                self._waits = self._loop.call_later(seconds, self._begin, self._transport)
                return
        self._begin(self._transport)

    def _begin(self, transport: asyncio.Transport) -> None:
        self._waits = None
        handler = self._make()
        handler.accepted = self
        inner: asyncio.BaseProtocol = handler
        if self._context is not None:
            inner = _Tls(self, self._loop, handler, self._context)
        transport.set_protocol(inner)
        inner.connection_made(transport)
        transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cut before its handshake's turn came."""
        self.lost()

    def abort(self) -> None:
        """Cut the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def lost(self) -> None:
        """The connection is gone. May be called again."""
        self._handshakes.discard(self)
        if self._waits is not None:
            self._waits.cancel()
            self._waits = None
            self._turns.give_back(self.peer)
        self._set_timer(None, "")
        self._connections.lost(self)

    # The rest is called by the handler.

    def established(self) -> None:
        """The handshake is done, if there is one."""
        self._handshakes.discard(self)
        self._set_timer(self._head_seconds, "silent")

    def began(self) -> None:
        """The head of a request is there."""
        self.is_busy = True
        self._set_timer(None if self._is_known else STRANGER_SECONDS, "slow")

    def ended(self) -> None:
        """The request is answered."""
        self.is_busy = False
        self._set_timer(None, "")

    def prove(self, login: str) -> None:
        """The request has logged in."""
        self._is_known = True
        self._set_timer(None, "")
        self._connections.prove(self, login)

    def _set_timer(self, seconds: float | None, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._connections.cut, self, reason)


class _Tls(sslproto.SSLProtocol):
    """asyncio's own TLS, with a small buffer; it says when the connection is gone, also within its handshake."""

    max_size = BUFFER_BYTES

    def __init__(
        self, accepted: Accepted, loop: asyncio.AbstractEventLoop, handler: Handler, context: ssl.SSLContext
    ) -> None:
        super().__init__(
            loop,
            handler,
            context,
            # Nobody waits for the handshake: aiohttp's protocol is told when it is done.
            cast("asyncio.Future[None]", None),
            server_side=True,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=SHUTDOWN_SECONDS,
        )
        self._accepted = accepted

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._accepted.lost()


def prove(request: web.BaseRequest, login: str) -> None:
    """The request has logged in: its connection is no stranger's any more. `login` is a user, or an engine."""
    accepted = getattr(request.protocol, "accepted", None)
    if accepted is not None:
        accepted.prove(login)

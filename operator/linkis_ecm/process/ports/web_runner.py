"""Runs an aiohttp application whose refusals of malformed requests repeat nothing of them, nor does its log.

aiohttp answers what is no HTTP before any handler or middleware runs, as text with the bytes that it could not read,
and logs them with a traceback. Must not know what is served.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

# What is left of a stop's time for a call after its own: for its end after it was cancelled.
LAST_SECONDS = 0.5
# The body for an HTTP status, and its content type.
ErrorBody = Callable[[int], tuple[bytes, str]]


class Runner(web.AppRunner):
    """An AppRunner that answers malformed requests, and bugs outside of handlers, with `error_body`."""

    __slots__ = ("_error_body",)

    def __init__(self, app: web.Application, *, error_body: ErrorBody, **options: Any) -> None:
        super().__init__(app, **options)
        self._error_body = error_body

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
        server.error_body = self._error_body
        return server


class _Server(web.Server):
    error_body: ErrorBody

    def __call__(self) -> RequestHandler:
        return Handler(self, loop=self._loop, **self._kwargs)


class Accepted(Protocol):
    """The connection below a handler, which is told what becomes of it."""

    def established(self) -> None: ...

    def began(self) -> None: ...

    def ended(self) -> None: ...

    def lost(self) -> None: ...


class Handler(RequestHandler):
    """aiohttp's protocol of one connection."""

    __slots__ = ("accepted",)

    def __init__(self, manager: web.Server, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(manager, loop=loop, **options)
        self.accepted: Accepted | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.accepted is not None:
            self.accepted.established()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self.accepted is not None:
            self.accepted.lost()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Let the call under way have so many seconds, then cancel it. aiohttp itself waits for that time twice."""
        self._force_close = True
        call = self._task_handler
        if timeout and call is not None and not call.done():
            if self._request_in_progress:
                await asyncio.wait({call}, timeout=timeout)
            timeout = LAST_SECONDS
        await super().shutdown(timeout)

    async def _handle_request(
        self,
        request: web.BaseRequest,
        start_time: float | None,
        request_handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> tuple[web.StreamResponse, bool]:
        if self.accepted is None:
            return await super()._handle_request(request, start_time, request_handler)
        self.accepted.began()
        try:
            return await super()._handle_request(request, start_time, request_handler)
        finally:
            self.accepted.ended()

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """A traceback of our own bugs alone. A peer that leaves, or sends what is no HTTP, is no bug; its bytes may
        hold a login or a user's code, and it would choose how much is logged."""
        error = kw.get("exc_info")
        error = error if isinstance(error, BaseException) else sys.exc_info()[1]
        if isinstance(error, ConnectionError):
            self.log_debug("a request that could not be read or answered: %r", error)
        else:
            super().log_exception(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, HttpProcessingError):
            # Its text has the bytes, and aiohttp logs some of its kinds by itself.
            exc = ConnectionError(type(exc).__name__)
        # For its log line, and its error where an answer has begun.
        plain = super().handle_error(request, status, exc, message)
        if not isinstance(self._manager, _Server):
            return plain  # the connection is lost: nobody reads the answer
        body, content_type = self._manager.error_body(status)
        headers = {
            "Content-Type": content_type,
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            "Server": "linkis-ecm",
        }
        answer = web.Response(status=status, body=body, headers=headers)
        answer.force_close()
        return answer

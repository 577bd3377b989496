"""Runs an aiohttp application whose refusals of malformed requests repeat nothing of them.

aiohttp answers what is no HTTP before any handler or middleware runs, as text with the bytes that it could not read.
Must not know what is served.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

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
        return _Handler(self, loop=self._loop, **self._kwargs)


class _Handler(RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        # For its log line, and its error where an answer has begun.
        super().handle_error(request, status, exc, message)
        assert isinstance(self._manager, _Server)  # noqa: S101 - made by it
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

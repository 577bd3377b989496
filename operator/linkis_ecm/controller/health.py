"""Serves `/healthz`, `/readyz` and `/metrics` on the operator's own port. Must not act on what it sees."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Check = Callable[[], str]


def health_app(*, alive: Check, ready: Check) -> web.Application:
    """`alive` and `ready` answer with what is wrong, or with an empty text."""

    async def probe(check: Check) -> web.Response:
        wrong = check()
        return web.Response(status=503 if wrong else 200, text=wrong or "ok")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", lambda _: probe(alive))
    app.router.add_get("/readyz", lambda _: probe(ready))
    app.router.add_get("/metrics", metrics)
    return app

"""Serves `/healthz`, `/readyz` and `/metrics` on the operator's own port. Must not repair anything."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from linkis_ecm.process.registry import Registry
from linkis_ecm.process.scrape import scrape_handler

Check = Callable[[], str]


def health_app(*, alive: Check, ready: Check, registry: Registry, note: Check = lambda: "") -> web.Application:
    """`alive` and `ready` return the problem as a sentence, or an empty text; `note` returns what does not keep the
    process from being ready. `registry` is the process's registry."""

    async def probe(check: Check) -> web.Response:
        problem = check()
        return web.Response(status=503 if problem else 200, text="; ".join(filter(None, (problem or "ok", note()))))

    app = web.Application()
    app.router.add_get("/healthz", lambda _: probe(alive))
    app.router.add_get("/readyz", lambda _: probe(ready))
    app.router.add_get("/metrics", scrape_handler(registry))
    return app

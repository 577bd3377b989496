"""Serves a process's registry at /metrics. Nobody logs in there, so scrapers are bounded: the registry is rendered at
most once a second, and a few answers are sent at a time. Must not declare metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from linkis_ecm.process.registry import CONTENT_TYPE, Registry

# A rendering takes some 10 ms of the loop with 5000 engines. Scrapers come each 15 to 60 s, so 1 s is fresh to them.
FRESH_SECONDS = 1.0
# Answers at a time: two Prometheus servers, an autoscaler, and a person.
ANSWERS_MAX = 4
# A scraper that does not read its answer is cut: Prometheus itself waits for 10 s by default.
SEND_SECONDS = 10.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def scrape_handler(registry: Registry, *, clock: Callable[[], float] = time.monotonic) -> Handler:
    """The aiohttp handler of /metrics."""
    rendered, at, under_way = b"", float("-inf"), 0

    def text() -> bytes:
        nonlocal rendered, at
        if clock() >= at + FRESH_SECONDS:
            rendered, at = registry.text(), clock()
        return rendered

    async def metrics(request: web.Request) -> web.StreamResponse:
        nonlocal under_way
        if under_way >= ANSWERS_MAX:
            sentence = f"{under_way} scrapes are under way: try again in a second"
            return web.Response(status=503, text=sentence, headers={"Retry-After": "1"})
        under_way += 1
        try:
            response = web.Response(body=text(), headers={"Content-Type": CONTENT_TYPE})
            async with asyncio.timeout(SEND_SECONDS):
                # Sent here and not by aiohttp later, so that the answer counts until its last byte is taken.
                await response.prepare(request)
                await response.write_eof()
            return response
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the scraper did not read its answer") from None
        finally:
            under_way -= 1

    return metrics


def scrape_app(registry: Registry) -> web.Application:
    """/metrics and nothing else, for a port of its own."""
    app = web.Application()
    app.router.add_get("/metrics", scrape_handler(registry))
    return app

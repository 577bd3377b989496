"""Serves a process's registry at /metrics, in Prometheus's text format or, to whoever accepts it, in OpenMetrics's.

Nobody logs in there, so scrapers are bounded: the registry is rendered at most once a second in each format, and a few
answers are sent at a time. Must not declare metrics.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from linkis_ecm.process.registry import CONTENT_TYPE, OPEN_METRICS_CONTENT_TYPE, Registry

# A rendering takes some 10 ms of the loop with 5000 engines. Scrapers come each 15 to 60 s, so 1 s is fresh to them.
FRESH_SECONDS = 1.0
# Answers at a time: two Prometheus servers, an autoscaler, and a person.
ANSWERS_MAX = 4
# A scraper that does not read its answer is cut: Prometheus itself waits for 10 s by default.
SEND_SECONDS = 10.0
_OPEN_METRICS = "application/openmetrics-text"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def scrape_handler(registry: Registry, *, clock: Callable[[], float] = time.monotonic) -> Handler:
    """The aiohttp handler of /metrics."""
    formats = {CONTENT_TYPE: registry.text, OPEN_METRICS_CONTENT_TYPE: registry.open_metrics}
    # By content type, the last rendering and its time.
    rendered: dict[str, tuple[bytes, float]] = {}
    under_way = 0

    def text(content_type: str) -> bytes:
        last, at = rendered.get(content_type, (b"", float("-inf")))
        if clock() >= at + FRESH_SECONDS:
            last = formats[content_type]()
            rendered[content_type] = last, clock()
        return last

    async def metrics(request: web.Request) -> web.StreamResponse:
        nonlocal under_way
        if under_way >= ANSWERS_MAX:
            sentence = f"{under_way} scrapes are under way: try again in a second"
            return web.Response(status=503, text=sentence, headers={"Retry-After": "1"})
        under_way += 1
        try:
            content_type = wanted_format(request.headers.get("Accept", ""))
            response = web.Response(body=text(content_type), headers={"Content-Type": content_type})
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


def wanted_format(accept: str) -> str:
    """The content type to answer with: OpenMetrics where the Accept header lists a version that we write.

    Prometheus lists it first. Its order and its weights do not matter: a scraper that does not want it leaves it out.
    """
    for part in accept.split(","):
        media_type, *parameters = (word.strip() for word in part.split(";"))
        version = next((word[8:] for word in parameters if word.startswith("version=")), "1.0.0")
        if media_type == _OPEN_METRICS and version in ("0.0.1", "1.0.0") and "q=0" not in parameters:
            return OPEN_METRICS_CONTENT_TYPE
    return CONTENT_TYPE


def scrape_app(registry: Registry) -> web.Application:
    """/metrics and nothing else, for a port of its own."""
    app = web.Application()
    app.router.add_get("/metrics", scrape_handler(registry))
    return app

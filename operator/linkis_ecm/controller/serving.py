"""Serves the operator's ports with bounds: engines' pods, which their users control, may connect to them.

A client that sends nothing, or half a request's head, is cut; so is each connection beyond the bounds. Must not know
what is served.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from linkis_ecm.process.ports.connections import ConnectionLimits, Counts
from linkis_ecm.process.ports.listener import HEAD_SECONDS, Site
from linkis_ecm.process.ports.web_runner import Runner

# Seconds for a request's head, and between two requests. An agent reports each 10 s by default; aiohttp's own is an
# hour.
KEEPALIVE_SECONDS = 75.0
# Seconds in which what a refused body still sends is thrown away.
LINGER_SECONDS = 5.0
# What a request under way may still take at a stop: aiohttp's own 60 s are more than the chart's grace, and an engine's
# user could hold a stopping operator by an upload that does not end.
STOP_SECONDS = 5.0


@asynccontextmanager
async def serve(
    app: web.Application,
    port: int,
    *,
    limits: ConnectionLimits,
    counts: Counts,
    host: str | None = None,
    idle_seconds: float = KEEPALIVE_SECONDS,
    head_seconds: float = HEAD_SECONDS,
) -> AsyncIterator[int]:
    """An application on all addresses of the pod, of IPv4 and IPv6, where no `host` is given; yields its port."""
    runner = Runner(
        app,
        error_body=lambda _: (b"the request cannot be read", "text/plain; charset=utf-8"),
        access_log=None,
        keepalive_timeout=idle_seconds,
        lingering_time=LINGER_SECONDS,
        # Bodies with a Content-Encoding are refused, and not unpacked while they are thrown away.
        auto_decompress=False,
        shutdown_timeout=STOP_SECONDS,
    )
    await runner.setup()
    try:
        await Site(runner, host, port, limits=limits, counts=counts, head_seconds=head_seconds).start()
        # Only a test lets the system choose, and each family has a port of its own then: that of IPv4, if there is one.
        yield min(runner.addresses, key=len)[1]
    finally:
        await runner.cleanup()

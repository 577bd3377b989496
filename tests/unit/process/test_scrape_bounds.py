"""/metrics is rendered at most once a second and sent to a few scrapers at a time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from prometheus_client import Counter

from linkis_ecm.process.registry import Registry
from linkis_ecm.process.scrape import ANSWERS_MAX, FRESH_SECONDS, scrape_handler


class CountingRegistry(Registry):
    renderings = 0
    more = b""

    def text(self) -> bytes:
        self.renderings += 1
        return super().text() + self.more


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def served(registry: Registry, clock: Clock) -> AsyncIterator[tuple[str, int]]:
    app = web.Application()
    app.router.add_get("/metrics", scrape_handler(registry, clock=clock))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][:2]
    finally:
        await runner.cleanup()


async def test_many_scrapes_in_a_second_cost_one_rendering() -> None:
    registry, clock = CountingRegistry(), Clock()
    counter = Counter("ecm_test", "A counter.", registry=registry)
    async with served(registry, clock) as (host, port), aiohttp.ClientSession() as session:

        async def scrape() -> tuple[int, str]:
            async with session.get(f"http://{host}:{port}/metrics") as answer:
                return answer.status, await answer.text()

        for _ in range(20):
            assert (await scrape())[0] == 200
        assert registry.renderings == 1
        counter.inc()
        clock.now += FRESH_SECONDS
        assert "ecm_test_total 1.0" in (await scrape())[1]
        assert registry.renderings == 2


async def test_scrapers_that_do_not_read_are_few_and_the_next_is_refused() -> None:
    registry, clock = CountingRegistry(), Clock()
    registry.more = b"# x\n" * (8 << 20)  # more than the sockets' buffers hold
    async with served(registry, clock) as (host, port), aiohttp.ClientSession() as session:
        stuck = []
        for _ in range(ANSWERS_MAX):
            raw = socket.create_connection((host, port))
            raw.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(raw, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            # Its answer has begun, so it is under way.
            await asyncio.get_running_loop().sock_recv(raw, 1)
            stuck.append(raw)
        async with session.get(f"http://{host}:{port}/metrics") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        for raw in stuck:
            raw.close()
        async with asyncio.timeout(30):
            while True:
                async with session.get(f"http://{host}:{port}/metrics") as answer:
                    if answer.status == 200:
                        await answer.read()
                        break
                await asyncio.sleep(0.01)
    assert registry.renderings == 1

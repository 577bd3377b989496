"""A user's followers that do not read: they give way to one that does, and come back with their last id."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from linkis_ecm.gateway.followers import follow, places
from linkis_ecm.gateway.methods import task_events
from tests.gateway.process.test_tls import Secret
from tests.gateway.raw import Raw, head_of
from tests.gateway.tasks.test_followers import Reader, opened, read, until_true
from tools.testkit.gateway.harness import PATIENCE, Harness

Make = Callable[..., Awaitable[Harness]]
LONG = 10 << 20
# Bytes that a slow reader takes in a second: the long event takes several times SLOW_SECONDS.
RATE = 5 << 20


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SLOW_SECONDS", 0.3)
    monkeypatch.setattr(places, "LOOK_SECONDS", 0.02)
    # A busy machine takes long to fill the sockets' buffers, and to end what was broken off.
    monkeypatch.setattr(places, "TURN_SECONDS", PATIENCE)
    monkeypatch.setattr(places, "LEAVE_SECONDS", PATIENCE)


@asynccontextmanager
async def stuck(gw: Harness, engine: dict[str, Any], task_id: str) -> AsyncIterator[Raw]:
    """A follower that reads the head of its answer, and then nothing. The system takes little for it: a buffer that is
    not bounded grows up to a long event."""
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", gw.port))
        tls = {} if isinstance(gw.trust, bool) else {"ssl": gw.trust, "server_hostname": "127.0.0.1"}
        reader, writer = await asyncio.open_connection(sock=plain, limit=1 << 10, **tls)
        raw = Raw(reader, writer)
        try:
            query = {"engineId": engine["metadata"]["uid"], "taskId": task_id}
            await raw.send(head_of("GET", "taskEvents", query))
            assert (await raw.head())[0] == 200
            yield raw
        finally:
            raw.vanish()


def are_slow(*crowds: places.Crowd) -> bool:
    """All of them have taken nothing for so long that they may have to give way."""
    waits = [sending.waits for crowd in crowds for sending in crowd._sending]
    return bool(waits) and min(waits) >= places.SLOW_SECONDS


def cuts(gw: Harness) -> float:
    return float(gw.gateway.metrics.answers_cut.labels("client")._value.get())


async def flood(request: web.Request) -> web.StreamResponse:
    """An agent that tells without an end what nobody can share, since nothing of it has an id."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    told = json.dumps({"event": "output", "index": 0, "output": {"text": "x" * 30_000}}).encode() + b"\n"
    while True:
        await answer.write(told)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("task_id", ["t", "another"])
async def test_who_reads_gets_the_place_of_one_who_does_not(make: Make, task_id: str) -> None:
    """Also a follower of another task of the engine: the agent has its connections for all of them."""
    gw = await make(user_streams=100, user_at_once=0)
    _, engine = await gw.served(flood)
    async with AsyncExitStack() as held:
        for _ in range(follow.OWN_CONNECTIONS):
            await held.enter_async_context(stuck(gw, engine, "t"))
        (taken,) = gw.gateway.followers._places.values()
        await until_true(lambda: are_slow(taken._crowd))
        assert cuts(gw) == 0
        async with opened(gw, engine, task_id) as answer, asyncio.timeout(PATIENCE):
            assert answer.status == 200, await answer.text()
            await answer.content.readexactly(3_000_000)
            assert cuts(gw) == 1, "one place was wanted, and one has given way"
            assert gw.gateway.followers.own() == follow.OWN_CONNECTIONS


async def with_long_line(request: web.Request) -> web.StreamResponse:
    """The answer of an agent whose task has printed one long line, as far as that."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    # Behind something small a long event goes to the client's socket without a copy, which waits by itself.
    await answer.write(b'{"event": "status", "status": "Running"}\n')
    if "from" not in request.query:
        output = {"type": "text", "stream": "stdout", "text": "x" * LONG}
        await answer.write(
            json.dumps({"event": "output", "index": 0, "output": output, "id": "0.1.0.0"}).encode() + b"\n"
        )
    return answer


async def longs(request: web.Request) -> web.StreamResponse:
    """An agent whose task has printed much, and goes on."""
    answer = await with_long_line(request)
    await asyncio.Event().wait()
    return answer


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_who_reads_gets_the_memory_of_one_who_does_not(make: Make, tmp_path: Any, tls: bool) -> None:
    gw = await make(user_streams=100, user_at_once=0, **(Secret(tmp_path).settings() if tls else {}))
    _, engine = await gw.served(longs)
    budget = gw.gateway.followers.budget
    fit = budget._sent._total // 2 // LONG
    async with AsyncExitStack() as held:
        for number in range(fit):
            await held.enter_async_context(stuck(gw, engine, "t"))
            await until_true(lambda number=number: budget._sent.held > (number + 1) * LONG)
        await until_true(lambda: are_slow(*budget._crowds.values()))
        reader = Reader()
        reading = asyncio.create_task(read(gw, engine, "t", reader=reader))
        await until_true(lambda: len(reader.text) == LONG)
        assert cuts(gw) == 1
        reading.cancel()
    await until_true(lambda: not budget._sent.held and not gw.gateway.followers._places)


async def one_long(request: web.Request) -> web.StreamResponse:
    """An agent whose task has printed one long line, and has ended."""
    answer = await with_long_line(request)
    await answer.write(b'{"event": "end", "id": "0.1.0.0", "taskId": "t", "status": "Succeeded"}\n')
    return answer


async def read_slowly(gw: Harness, engine: dict[str, Any], ssl: Any, took: list[int]) -> tuple[int, bytes, int]:
    """A follower on a slow line, which reads steadily: how many bytes of the long line it has got, its last, and how
    many signs of life. `took` counts what all have read."""
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", gw.port))
        named = {"server_hostname": "127.0.0.1"} if ssl else {}
        reader, writer = await asyncio.open_connection(sock=plain, limit=32 << 10, ssl=ssl, **named)
        raw = Raw(reader, writer)
        try:
            await raw.send(head_of("GET", "taskEvents", {"engineId": engine["metadata"]["uid"], "taskId": "t"}))
            assert (await raw.head())[0] == 200
            got, last, signs = 0, b"", 0
            while not last.endswith(b"\r\n0\r\n\r\n") and (data := await reader.read(256 << 10)):
                took[0] += len(data)
                got += data.count(b"x")
                signs += data.count(b": here\n")
                last = (last + data)[-500:]
                await asyncio.sleep(len(data) / RATE)
            return got, last, signs
        finally:
            raw.vanish()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_of_many_who_read_slowly_none_is_cut_and_each_gets_the_long_event(
    make: Make, tmp_path: Any, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How long an event takes says nothing: whoever is cut comes back from its beginning, and cuts the next one."""
    gw = await make(user_streams=100, user_at_once=0, **(Secret(tmp_path).settings() if tls else {}))
    monkeypatch.setattr(follow, "KEEP_ALIVE_SECONDS", 0.1)
    budget = gw.gateway.followers.budget
    fit, took = budget._sent._total // 2 // LONG, [0]
    # The time in which they read so much: while the machine stands still for all of them, nobody is slow.
    monkeypatch.setattr(task_events, "Sending", lambda: places.Sending(lambda: took[0] / (fit * RATE)))
    _, engine = await gw.served(one_long)
    count = fit + 2
    async with asyncio.timeout(PATIENCE):
        ssl = gw.trust if tls else None
        got = await asyncio.gather(*(read_slowly(gw, engine, ssl, took) for _ in range(count)))
    # Told once; some words around it have the letter, too.
    assert all(LONG <= size < LONG + 100 for size, *_ in got), got
    assert all(b"event: end" in last and last.endswith(b"0\r\n\r\n") for _, last, _ in got)
    assert cuts(gw) == 0
    assert sum(signs > 0 for *_, signs in got) >= 2, "who waits hears that it does"
    await until_true(lambda: not budget._sent.held and not budget._crowds and not gw.gateway.followers._places)

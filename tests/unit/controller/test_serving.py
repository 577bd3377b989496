"""The operator's ports under clients that behave badly."""

from __future__ import annotations

import asyncio
import gzip
import logging

import pytest
from aiohttp import ClientSession, web

from linkis_ecm.controller import serving
from linkis_ecm.controller.serving import serve
from linkis_ecm.process.ports import listener
from linkis_ecm.process.ports.connections import ConnectionLimits
from tools.testkit.agents.process import until
from tools.testkit.gateway.connections import ROOMY, Told
from tools.testkit.servers.ports import reserved

PATIENCE = 30.0
REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab"


def app() -> web.Application:
    async def take(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    made = web.Application()
    made.router.add_post("/", take)
    return made


async def is_cut(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(PATIENCE):
            return await reader.read() == b""
    except ConnectionError:
        return True


async def test_connections_of_one_address_are_bounded_and_others_go_on() -> None:
    """Finding S16: 400 half requests of one pod kept another's report out."""
    told, limits = Told(), ConnectionLimits(total=100, strangers=100, per_peer=3)
    async with serve(app(), 0, limits=limits, counts=told, host="0.0.0.0") as port:
        kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for reader, _ in [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]:
            assert await is_cut(reader)
        assert told.cuts == {"peer": 4}
        # Another address: the same machine, by another name of it.
        _, writer = other = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        writer.write(REQUEST)
        assert (await asyncio.wait_for(other[0].read(), PATIENCE)).endswith(b"2")
        # The server closes a socket after it has counted the connection off.
        kept[0][1].write(REQUEST)
        assert (await asyncio.wait_for(kept[0][0].read(), PATIENCE)).endswith(b"2")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        assert (await asyncio.wait_for(reader.read(), PATIENCE)).endswith(b"2")
        kept.append((reader, writer))
        for _, writer in kept:
            writer.close()


async def test_a_probe_is_answered_while_silent_connections_take_each_place() -> None:
    """Here nobody logs in: the health port is bounded by what one connection takes from another."""
    told, limits = Told(), ConnectionLimits(total=8, strangers=8)
    async with serve(app(), 0, limits=limits, counts=told, host="0.0.0.0") as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
            writer.write(REQUEST)
            assert (await asyncio.wait_for(reader.read(), PATIENCE)).endswith(b"2")
            writer.close()
        for reader, _ in silent[:32]:
            assert await is_cut(reader)
        assert told.cuts["replaced"] >= 32
        assert told.connections is not None
        assert told.connections.strangers <= 8
        for _, writer in silent:
            writer.close()


async def test_who_asks_for_a_long_answer_and_takes_none_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "STRANGER_SECONDS", 0.2)

    async def long(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * (64 << 20))

    made = web.Application()
    made.router.add_get("/", long)
    told = Told()
    async with serve(made, 0, limits=ROOMY, counts=told, host="127.0.0.1") as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readline()
        await asyncio.to_thread(until, lambda: told.cuts == {"slow": 1})
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(64 << 20)
        writer.close()


async def test_a_request_under_way_does_not_hold_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "STOP_SECONDS", 0.2)
    begun = asyncio.Event()

    async def endless(_: web.Request) -> web.StreamResponse:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    made = web.Application()
    made.router.add_get("/", endless)
    async with asyncio.timeout(PATIENCE):
        async with serve(made, 0, limits=ROOMY, counts=Told(), host="127.0.0.1") as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await begun.wait()
        writer.close()


async def test_silence_and_half_a_request_are_cut() -> None:
    async with serve(app(), 0, limits=ROOMY, counts=Told(), host="127.0.0.1", idle_seconds=0.2) as port:
        for sent in (b"", b"POST / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            assert await is_cut(reader), sent
            writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nToken-Code: a-secret\x01\r\n\r\n",
        b"a-secret / HTTP/1.1\r\n\r\n",
        REQUEST + b"a-secret",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\na-secret\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a-secret" * 10_000,
    ],
)
async def test_what_is_no_http_leaves_nothing_of_it_in_the_log(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Found by the fuzzer: a login with one wrong byte stood in the log, and each such request was 30 lines of it."""
    caplog.set_level(logging.DEBUG)
    async with serve(app(), 0, limits=ROOMY, counts=Told(), host="127.0.0.1") as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        await asyncio.wait_for(reader.read(1), PATIENCE)
        writer.close()
    assert "a-secret" not in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_peer_that_leaves_is_no_error_and_a_bug_behind_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    left, seen = asyncio.Event(), asyncio.Event()

    async def fail(request: web.Request) -> web.Response:
        seen.set()
        await left.wait()
        raise RuntimeError("a bug")

    made = app()
    made.router.add_get("/fail", fail)
    async with serve(made, 0, limits=ROOMY, counts=Told(), host="127.0.0.1") as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab")
        await writer.drain()
        writer.transport.abort()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /fail HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(seen.wait(), PATIENCE)
        writer.transport.abort()
        # The server has seen both go when it has answered.
        async with ClientSession() as session, session.post(f"http://127.0.0.1:{port}/", data=b"ab") as answer:
            assert answer.status == 200
        left.set()
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [RuntimeError]


async def test_a_packed_body_stays_packed() -> None:
    packed = gzip.compress(b"x" * (1 << 20))
    async with serve(app(), 0, limits=ROOMY, counts=Told(), host="127.0.0.1") as port, ClientSession() as session:
        headers = {"Content-Encoding": "gzip"}
        async with session.post(f"http://127.0.0.1:{port}/", data=packed, headers=headers) as answer:
            assert await answer.text() == str(len(packed))


async def test_the_ports_are_open_to_both_families() -> None:
    """An engine's pod may have an address of IPv6 alone."""
    with reserved() as held:
        port = held.getsockname()[1]
        async with serve(app(), port, limits=ROOMY, counts=Told()):
            for host in ("127.0.0.1", "::1"):
                _, writer = await asyncio.open_connection(host, port)
                writer.close()

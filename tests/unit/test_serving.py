"""The operator's ports under clients that behave badly."""

from __future__ import annotations

import asyncio
import gzip

from aiohttp import ClientSession, web

from linkis_ecm.controller.serving import serve

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
    refused: list[int] = []
    async with serve(app(), 0, per_peer=3, on_refused=lambda: refused.append(1), host="0.0.0.0") as port:
        kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for reader, _ in [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]:
            assert await is_cut(reader)
        assert len(refused) == 4
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


async def test_silence_and_half_a_request_are_cut() -> None:
    async with serve(app(), 0, host="127.0.0.1", idle_seconds=0.2) as port:
        for sent in (b"", b"POST / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            assert await is_cut(reader), sent
            writer.close()


async def test_a_packed_body_stays_packed() -> None:
    packed = gzip.compress(b"x" * (1 << 20))
    async with serve(app(), 0, host="127.0.0.1") as port, ClientSession() as session:
        headers = {"Content-Encoding": "gzip"}
        async with session.post(f"http://127.0.0.1:{port}/", data=packed, headers=headers) as answer:
            assert await answer.text() == str(len(packed))

"""Bytes sent past aiohttp's streams: all of them, in order, to a client that takes its time."""

from __future__ import annotations

import asyncio
import socket

import pytest

from linkis_ecm.gateway.http.socket_relay import send_all


async def test_a_slow_reader_gets_every_byte_once() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data = bytes(range(256)) * 4096
    got = bytearray()

    async def read() -> None:
        while len(got) < len(data) + 8:
            got.extend(await asyncio.get_running_loop().sock_recv(theirs, 7001))

    with ours, theirs:
        parts = (b"head", memoryview(data).cast("I"), b"", b"tail")
        async with asyncio.timeout(30):
            await asyncio.gather(send_all(parts, ours, 30), read())
    assert got == b"head" + data + b"tail"


async def test_who_reads_nothing_or_has_left_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours:
        with theirs, pytest.raises(TimeoutError):
            await send_all((bytes(8 << 20),), ours, 0.01)
        with pytest.raises(OSError, match=r"."):
            await send_all((b"x",), ours, 0.01)

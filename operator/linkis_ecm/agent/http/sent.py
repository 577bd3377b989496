"""Sends body bytes by sendfile, past h11, and tells it of them. For the server and for the client."""

from __future__ import annotations

import asyncio
from typing import BinaryIO

import h11


class _SentBytes:
    """Stands for bytes that sendfile has sent."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


async def send_piece(transport: asyncio.WriteTransport, file: BinaryIO, offset: int, count: int) -> int:
    """At most `count` bytes of the file by sendfile; how many. Raises OSError where the peer has left: asyncio raises
    RuntimeError for a connection that closes, which nobody who sends takes for a broken one."""
    if transport.is_closing():
        raise ConnectionResetError("the peer left")
    return await asyncio.get_running_loop().sendfile(transport, file, offset, count)


def count_sent(http: h11.Connection, size: int) -> None:
    """h11 counts what passes through it: tells it of bytes that sendfile has sent, without the bytes."""
    http.send_with_data_passthrough(h11.Data(data=_SentBytes(size)))  # type: ignore[arg-type]

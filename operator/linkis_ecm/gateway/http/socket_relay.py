"""Sends to a client's socket without aiohttp's streams: what is in memory, and the rest of an agent's answer, which is
copied from its socket through one buffer.

Three times as fast as the streams, and a download holds this buffer only. Only for sockets without TLS and long
answers; `sender` decides. Must not know what the bytes mean.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientResponse

# Shorter answers go through aiohttp: their connections can be used again.
MIN_BYTES = 4 << 20
# As much as a socket's own buffer, so that the peers are woken rarely: 1 MiB costs a tenth of the rate, 256 KiB a
# third.
BUFFER = 4 << 20
# Where tcpi_bytes_acked is in Linux's struct tcp_info.
_ACKED = slice(120, 128)
# After so many bytes the event loop runs other tasks.
YIELD_BYTES = 4 << 20


class SourceGoneError(ConnectionError):
    """The agent closed the connection, or sent nothing for too long."""


@dataclass(frozen=True, slots=True)
class SocketSource:
    """An agent's answer whose body may be read from its socket. `patience`: seconds without a byte that are allowed."""

    answer: ClientResponse
    patience: float

    def take(self) -> tuple[bytes, socket.socket] | None:
        """The part of the body that aiohttp has read, and a socket with the rest, which the caller closes; None where
        there is no socket without TLS. The connection cannot be used for anything else afterwards."""
        connection = self.answer.connection
        if connection is None or connection.protocol is None or self.answer.content.exception() is not None:
            return None
        rest = plain_socket(connection.transport)
        if rest is None:
            return None
        connection.protocol.pause_reading()
        data = self.answer.content.read_nowait(-1)
        # Emptying aiohttp's buffer may have resumed its reading.
        connection.protocol.pause_reading()
        return data, rest


def plain_socket(transport: asyncio.BaseTransport | None) -> socket.socket | None:
    """A duplicate of the transport's socket, which the caller closes; None where it has no socket, or uses TLS."""
    if transport is None or transport.is_closing() or transport.get_extra_info("sslcontext") is not None:
        return None
    found: Any = transport.get_extra_info("socket")
    if found is None:
        return None
    # A duplicate, because the event loop refuses to watch a descriptor that a transport uses.
    return socket.socket(fileno=os.dup(found.fileno()))


def acknowledged(found: Any) -> int:
    """The bytes of a TCP connection that its other end has acknowledged; 0 where the system does not say."""
    try:
        info = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.stop)
    except (OSError, AttributeError):
        return 0
    return int.from_bytes(info[_ACKED], sys.byteorder)


async def transfer(
    received: bytes,
    source: socket.socket,
    target: socket.socket,
    size: int,
    *,
    source_patience: float,
    target_patience: float,
    on_sent: Callable[[int], object],
) -> None:
    """Copy exactly `size` bytes, of which `received` has the first; `on_sent` is called with the length of each piece
    sent. Raises SourceGoneError, and the target's OSError and TimeoutError."""
    loop = asyncio.get_running_loop()
    buffer = memoryview(bytearray(min(BUFFER, size)))
    data = memoryview(received)[:size]
    left, since = size - len(data), 0
    while True:
        while data:
            try:
                count = target.send(data)
            except BlockingIOError:
                await _wait_ready(loop.add_writer, loop.remove_writer, target, target_patience)
                continue
            data = data[count:]
            since += count
            on_sent(count)
        if not left:
            return
        if since >= YIELD_BYTES:
            since = 0
            await asyncio.sleep(0)
        try:
            count = source.recv_into(buffer, min(left, BUFFER))
        except BlockingIOError:
            try:
                await _wait_ready(loop.add_reader, loop.remove_reader, source, source_patience)
            except TimeoutError as error:
                raise SourceGoneError(str(error)) from None
            continue
        except OSError as error:
            raise SourceGoneError(str(error)) from None
        if not count:
            raise SourceGoneError(f"the agent broke off with {left} bytes to come")
        data = buffer[:count]
        left -= count


async def send_all(parts: Sequence[bytes | memoryview], target: socket.socket, patience: float) -> None:
    """Send all of the parts, one behind the other, without a copy of them. Raises OSError and TimeoutError."""
    loop = asyncio.get_running_loop()
    left = [part for part in (memoryview(part).cast("B") for part in parts) if len(part)]
    while left:
        try:
            count = target.sendmsg(left)
        except BlockingIOError:
            await _wait_ready(loop.add_writer, loop.remove_writer, target, patience)
            continue
        while left and count >= len(left[0]):
            count -= len(left.pop(0))
        if count:
            left[0] = left[0][count:]


async def _wait_ready(
    watch: Callable[..., object], unwatch: Callable[[int], object], waited: socket.socket, patience: float
) -> None:
    """Wait until the socket is ready. Raises TimeoutError."""
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    watch(waited.fileno(), _set, ready)
    try:
        async with asyncio.timeout(patience):
            await ready
    except TimeoutError:
        raise TimeoutError(f"nothing for {patience:g} s") from None
    finally:
        unwatch(waited.fileno())


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)

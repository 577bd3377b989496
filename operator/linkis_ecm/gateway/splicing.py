"""Passes the rest of an agent's answer from its socket to the client's inside the kernel, without a copy through here.

Three times as fast as reading and writing it, and nothing of it is in this process's memory. Only for plain sockets and
long answers; `sending` decides. Must not know what the bytes are.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientResponse

# A shorter answer is read and written: its connection can be used again.
WORTH = 4 << 20
# What an unprivileged process may ask for; it bounds what is under way between the two sockets.
PIPE = 1 << 20
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class SourceGoneError(ConnectionError):
    """The agent's side broke off, or gave nothing for too long."""


@dataclass(frozen=True, slots=True)
class Spliceable:
    """An agent's answer whose body may be taken off its socket. `patience`: seconds that it may stand still."""

    answer: ClientResponse
    patience: float

    def take(self) -> tuple[bytes, int] | None:
        """What has been read of the body, and a descriptor with the rest, the caller's to close; None where there is no
        plain socket. The connection cannot be used for anything else afterwards."""
        connection = self.answer.connection
        if connection is None or connection.protocol is None or self.answer.content.exception() is not None:
            return None
        rest = plain(connection.transport)
        if rest is None:
            return None
        connection.protocol.pause_reading()
        data = self.answer.content.read_nowait(-1)
        # Taking it out may have made room in aiohttp's eyes.
        connection.protocol.pause_reading()
        return data, rest


def plain(transport: asyncio.BaseTransport | None) -> int | None:
    """A descriptor of the transport's socket, the caller's to close; None where it is none, or packs what is sent."""
    if transport is None or transport.is_closing() or transport.get_extra_info("sslcontext") is not None:
        return None
    socket: Any = transport.get_extra_info("socket")
    return None if socket is None else os.dup(socket.fileno())


async def splice(
    source: int,
    target: int,
    size: int,
    *,
    source_patience: float,
    target_patience: float,
    moved: Callable[[int], object],
) -> None:
    """Move exactly `size` bytes; `moved` is told of each piece. Raises SourceGoneError, and the target's OSError and
    TimeoutError."""
    loop = asyncio.get_running_loop()
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # over the user's pipe quota: a smaller one does
            fcntl.fcntl(read_end, fcntl.F_SETPIPE_SZ, PIPE)
        left, held, since = size, 0, 0
        while left or held:
            taken = _take(source, write_end, left) if left else None
            if taken is not None:
                left, held = left - taken, held + taken
            if not held:
                await _ready(loop.add_reader, source, source_patience, SourceGoneError)
                continue
            count = _move(read_end, target, held)
            if count is None:
                await _ready(loop.add_writer, target, target_patience, TimeoutError)
                continue
            moved(count)
            held, since = held - count, since + count
            if since >= PIPE:
                since = 0
                await asyncio.sleep(0)  # others want the loop, too
    finally:
        os.close(read_end)
        os.close(write_end)


async def writable(target: int, patience: float) -> None:
    """Return when the socket takes bytes. Raises TimeoutError."""
    await _ready(asyncio.get_running_loop().add_writer, target, patience, TimeoutError)


def _take(source: int, pipe: int, count: int) -> int | None:
    """What the agent's socket gives; None where it would wait. Raises SourceGoneError."""
    try:
        taken = _move(source, pipe, count)
    except OSError as error:
        raise SourceGoneError(str(error)) from None
    if taken == 0:
        raise SourceGoneError(f"the agent broke off with {count} bytes to come")
    return taken


def _move(source: int, target: int, count: int) -> int | None:
    """One splice; None where it would wait."""
    try:
        return os.splice(source, target, min(count, PIPE), flags=_FLAGS)
    except BlockingIOError:
        return None


async def _ready(watch: Callable[..., None], descriptor: int, patience: float, late: type[Exception]) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    watch(descriptor, _set, ready)
    try:
        await asyncio.wait_for(ready, patience)
    except TimeoutError:
        raise late(f"nothing for {patience:g} s") from None
    finally:
        # One of the two is watched at a time.
        loop.remove_reader(descriptor)
        loop.remove_writer(descriptor)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)

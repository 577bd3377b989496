"""Bytes from socket to socket beside aiohttp's streams: exactly so many; and where either side stands still."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from linkis_ecm.gateway.http.socket_relay import BUFFER, SourceGoneError, transfer
from tools.testkit.gateway.harness import PATIENCE

Ends = tuple[socket.socket, socket.socket, socket.socket, socket.socket]


def tcp() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    return one, other


async def move(
    source: socket.socket, target: socket.socket, size: int, begun: bytes = b"", **patience: float
) -> list[int]:
    moved: list[int] = []
    await transfer(begun, source, target, size, on_sent=moved.append, **patience)
    return moved


def descriptors(ends: Ends) -> int:
    """How many descriptors of these sockets there are: other tests' threads open and close what is theirs."""
    inodes = {os.fstat(end.fileno()).st_ino for end in ends if end.fileno() >= 0}
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += os.fstat(int(name)).st_ino in inodes
    return found


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Who sends, where it is taken, where it is put, who receives; the middle two do not block."""
    sender, source = tcp()
    target, receiver = tcp()
    for middle in (source, target):
        middle.setblocking(False)
    yield sender, source, target, receiver
    left = [end for end in (sender, source, target, receiver) if end.fileno() >= 0]
    assert descriptors((sender, source, target, receiver)) == len(left), "no descriptor is left open"
    for end in left:
        end.close()


def exactly(end: socket.socket, count: int) -> bytes:
    """So many bytes, in however many pieces they arrive."""
    end.settimeout(PATIENCE)
    got = b""
    while len(got) < count:
        data = end.recv(count - len(got))
        assert data, got
        got += data
    return got


def arrived(end: socket.socket) -> None:
    """Returns when there is something to read: what was sent may be a moment on its way."""
    assert select.select([end], [], [], PATIENCE)[0]


@pytest.mark.parametrize("size", [1, 1000, BUFFER, BUFFER + 1, 9 * BUFFER + 17])
async def test_the_relay_moves_exactly_the_given_number_of_bytes(ends: Ends, size: int) -> None:
    sender, source, target, receiver = ends
    data = os.urandom(1000) * (size // 1000 + 1)
    got = bytearray()

    def receive() -> None:
        while len(got) < size:
            got.extend(receiver.recv(1 << 16))

    threads = [threading.Thread(target=sender.sendall, args=(data[:size] + b"next",)), threading.Thread(target=receive)]
    for thread in threads:
        thread.start()
    moved = await move(source, target, size, source_patience=PATIENCE, target_patience=PATIENCE)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert sum(moved) == size
    assert bytes(got) == data[:size]
    assert exactly(source, 4) == b"next"


@pytest.mark.parametrize("size", [3, 5, 1000])
async def test_bytes_that_were_already_read_are_relayed_first(ends: Ends, size: int) -> None:
    sender, source, target, receiver = ends
    sender.sendall(b"y" * 995)
    patience = {"source_patience": PATIENCE, "target_patience": PATIENCE}
    assert sum(await move(source, target, size, begun=b"begun", **patience)) == size
    target.shutdown(socket.SHUT_WR)
    assert exactly(receiver, size) == (b"begun" + b"y" * 995)[:size]
    assert receiver.recv(1) == b"", "and no more"


async def test_a_relay_distinguishes_a_broken_or_stalled_source_from_such_a_target(ends: Ends) -> None:
    sender, source, target, receiver = ends
    sender.sendall(b"half")
    arrived(source)
    with pytest.raises(SourceGoneError, match=r"nothing for 0\.05 s"):
        await move(source, target, 1000, source_patience=0.05, target_patience=PATIENCE)
    assert exactly(receiver, 4) == b"half"
    sender.sendall(b"more")
    sender.shutdown(socket.SHUT_WR)
    with pytest.raises(SourceGoneError, match="the agent broke off with 996 bytes to come"):
        await move(source, target, 1000, source_patience=PATIENCE, target_patience=PATIENCE)


async def test_an_agent_that_is_killed_is_no_fault_of_the_client(ends: Ends) -> None:
    sender, source, target, _ = ends
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sender.close()
    with pytest.raises(SourceGoneError):
        await move(source, target, 1000, source_patience=PATIENCE, target_patience=PATIENCE)


async def test_a_target_that_takes_nothing_is_given_up(ends: Ends) -> None:
    sender, source, target, _ = ends
    threading.Thread(target=_send_much, args=(sender,), daemon=True).start()
    with pytest.raises(TimeoutError):
        await move(source, target, 1 << 30, source_patience=PATIENCE, target_patience=0.1)
    source.shutdown(socket.SHUT_RDWR)


async def test_a_target_that_has_left_ends_it(ends: Ends) -> None:
    sender, source, target, receiver = ends
    threading.Thread(target=_send_much, args=(sender,), daemon=True).start()
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    receiver.shutdown(socket.SHUT_RDWR)
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        await move(source, target, 1 << 30, source_patience=PATIENCE, target_patience=PATIENCE)
    source.shutdown(socket.SHUT_RDWR)


def _send_much(sender: socket.socket) -> None:
    try:
        while True:
            sender.sendall(b"x" * (1 << 16))
    except OSError:
        return

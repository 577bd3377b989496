"""An agent in name only: proves the engine's key, as a user's code in the pod could, and then answers what it likes.

`python` code of a caller decides each answer. Must not be reachable from other machines.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import parse_qs

from linkis_ecm.agent.formats.proof import proof
from tools.loopback.installation import Engine

# What ends a connection: its peer, or the end of the agent.
GONE = (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError)
# Seconds for a request to come whole.
REQUEST_SECONDS = 30.0


@dataclass(frozen=True)
class Asked:
    """One request to it."""

    method: str
    path: str
    query: str
    body: bytes


# Writes the whole answer, head included; may raise ConnectionError, and may never end.
Behaviour = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def hostile_agent(engine: Engine, behaviour: Behaviour) -> AsyncIterator[None]:
    """Listens at the engine's address."""
    open_connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_connections.add(task)
        try:
            with contextlib.suppress(*GONE):
                while True:
                    asked = await _read(reader)
                    if asked.path == "/v1/identity":
                        challenge = parse_qs(asked.query).get("challenge", [""])[0]
                        writer.write(json_answer(b'{"proof":"%s"}' % proof(engine.key, challenge).encode()))
                        await writer.drain()
                    else:
                        await behaviour(asked, writer)
                        if writer.is_closing():
                            return
        finally:
            open_connections.discard(task)
            writer.transport.abort()

    host, _, port = engine.address.rpartition(":")
    server = await asyncio.start_server(serve, host, int(port), limit=1 << 20)
    try:
        yield
    finally:
        server.close()
        for task in list(open_connections):
            task.cancel()
        await asyncio.gather(*open_connections, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    method, target, *_ = head.split(" ", 2)
    length = 0
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    async with asyncio.timeout(REQUEST_SECONDS):
        body = await reader.readexactly(length) if length else b""
    path, _, query = target.partition("?")
    return Asked(method, path, query, body)


def json_answer(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    """An answer with a length."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body

"""A client on a bare socket: what a well-behaved one never sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

from tools.testkit.gateway.harness import BASE, PATIENCE, TOKEN, Harness


@dataclass
class Raw:
    """One connection to the gateway."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next answer."""
        async with asyncio.timeout(PATIENCE):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = [line.partition(":") for line in lines[1:] if line]
        names = [name.lower() for name, _, _ in fields]
        assert len(names) == len(set(names)), "no header comes twice"
        return int(lines[0].split()[1]), {name.lower(): value.strip() for name, _, value in fields}

    async def rest(self, seconds: float = PATIENCE) -> bytes:
        """All until the other side closes; a broken connection is an end, too."""
        got = bytearray()
        async with asyncio.timeout(seconds):
            try:
                while data := await self.reader.read(1 << 20):
                    got += data
            except ConnectionError:
                pass
        return bytes(got)

    def vanish(self) -> None:
        """As a process that is killed: no goodbye."""
        self.writer.transport.abort()


@asynccontextmanager
async def connect(gw: Harness, *, limit: int = 1 << 16) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gw.port, limit=limit)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


def head_of(
    verb: str, method: str, query: Mapping[str, str] | str = "", *, user: str = "alice", headers: str = ""
) -> bytes:
    """A request's head, with the blank line."""
    asked = query if isinstance(query, str) else urlencode(query)
    path = method if method.startswith("/") else f"{BASE}/{method}"
    return (
        f"{verb} {path}{'?' if asked else ''}{asked} HTTP/1.1\r\nHost: gateway\r\nToken-Code: {TOKEN}\r\n"
        f"Token-User: {user}\r\n{headers}\r\n"
    ).encode()

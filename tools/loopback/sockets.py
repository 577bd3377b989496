"""Bare HTTP over sockets, for callers that break rules: requests as bytes, answers as far as they come.

Each wait has a bound. Must not choose what is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

CONNECT_SECONDS = 5.0
# Of an answer: what comes after it is not read.
ANSWER_MAX = 1 << 20


@dataclass(frozen=True)
class Target:
    """Where to connect to, and from which address of loopback."""

    host: str
    port: int
    source: str = ""
    trust: ssl.SSLContext | None = None


@dataclass(frozen=True)
class Answer:
    """What came: the status (0: none that can be read), and all bytes."""

    status: int
    raw: bytes

    @property
    def body(self) -> bytes:
        """What stands behind the first head, in chunks where it came so. "100 Continue" is no answer yet."""
        raw = self.raw
        while raw.startswith(b"HTTP/1.1 100"):
            raw = raw.partition(b"\r\n\r\n")[2]
        return raw.partition(b"\r\n\r\n")[2]


@asynccontextmanager
async def connection(target: Target) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """An open connection, gone without a goodbye at the end. Raises OSError, TimeoutError."""
    async with asyncio.timeout(CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(
            target.host, target.port, ssl=target.trust, local_addr=(target.source, 0) if target.source else None
        )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def send(target: Target, data: bytes, *, seconds: float = 5.0, pieces: int = 1, pause: float = 0.0) -> Answer:
    """Send all of `data`, in so many pieces with a pause after each; then what comes until the other side closes, the
    first answer is whole, or the time is over. Raises OSError where nobody takes the connection."""
    got = bytearray()
    async with connection(target) as (reader, writer):
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(seconds):
                step = max(1, -(-len(data) // pieces))
                for start in range(0, len(data), step):
                    writer.write(data[start : start + step])
                    await writer.drain()
                    if pause:
                        await asyncio.sleep(pause)
                while not is_whole(got) and len(got) < ANSWER_MAX and (piece := await reader.read(64 << 10)):
                    got += piece
    return Answer(status_of(bytes(got[:64])), bytes(got))


def status_of(head: bytes) -> int:
    """The status of an answer that begins so; 0 where it is none."""
    first = head.split(b"\r\n", 1)[0].split(b" ")
    return int(first[1]) if len(first) > 1 and first[0].startswith(b"HTTP/1.") and first[1].isdigit() else 0


def is_whole(raw: bytes | bytearray) -> bool:
    """Whether an answer with a length is there to its end; those without one end with the connection."""
    head, gap, rest = raw.partition(b"\r\n\r\n")
    if not gap:
        return False
    lower = bytes(head).lower()
    if b"transfer-encoding: chunked" in lower:
        return rest.endswith(b"0\r\n\r\n")
    _, found, after = lower.partition(b"\r\ncontent-length:")
    length = after.split(b"\r\n", 1)[0].strip()
    if found and length.isdigit():
        return len(rest) >= int(length)
    return status_of(lower.upper()[:64]) in (204, 304)


def request(
    method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"", length: int | None = None
) -> bytes:
    """A request as bytes. `length`: what Content-Length says, if not the body's."""
    lines = [f"{method} {path} HTTP/1.1", "Host: loopback"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body or length is not None or method in ("POST", "PUT"):
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body

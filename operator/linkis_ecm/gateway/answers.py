"""What a method gives back, in plain terms: data for a Message, a stream of bytes, or a file to download.

The HTTP room (`http.responses`) makes responses of these; any other caller can read them as they are. Must not know
HTTP.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from pydantic import BaseModel

# The type of a stream of server-sent events.
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class LargeJson:
    """JSON of exactly `size` bytes that is too big to be kept in memory: `chunks` has them as they come, and raises
    OSError or TimeoutError where its source breaks off. `after_sent` is to be awaited once they are sent, whole or
    not."""

    size: int
    chunks: AsyncIterator[bytes]
    after_sent: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """The data of a Message: a model, Linkis's shapes, or JSON text as it is."""

    data: BaseModel | orjson.Fragment | LargeJson | dict[str, Any]
    message: str = "OK"


class Receiver(Protocol):
    """Who is sent a stream."""

    def push(self, data: bytes, framed: bytes) -> bool:
        """Send `data` at once; `framed` is the same as a chunk of HTTP's chunked coding. False where nothing was sent,
        because the receiver has not taken what was sent before, or is gone."""
        ...


class SharedPart(Protocol):
    """A part of a stream that many receivers are sent at the same time, by its source."""

    async def receive(self, receiver: Receiver) -> None:
        """Have the part sent to this receiver. Returns at the part's end, or where `push` returned False."""
        ...


@dataclass(frozen=True, slots=True)
class KeptRows:
    """How much of a table is kept: `kept` rows of `total`, which is None where nobody has counted. `truncated`: rows,
    columns or parts of cells are missing."""

    kept: int
    total: int | None
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Bytes whose number is not known beforehand. `chunks` raises OSError or TimeoutError where its source breaks off:
    what was read until then must not look complete."""

    content_type: str
    # Bytes, or what has a buffer of bytes; of a task that several follow also `SharedPart`.
    chunks: AsyncIterator[Any]
    # The name under which a caller would save it; empty for what is only followed.
    file_name: str = ""
    # Of a log that is followed: its byte with which `chunks` begins.
    log_offset: int | None = None
    # Of a table: what is kept of the whole, of which `chunks` may be a part.
    table: KeptRows | None = None
    # Its last word where it ends before its source, with the reason: so that its reader calls again. None: it has none,
    # and must not look complete.
    last: Callable[[str], bytes] | None = None
    # Is told, once the stream is being sent, what breaks it off at once, also where its reader takes nothing, and what
    # counts the bytes that its reader's host has taken.
    on_begin: Callable[[Callable[[], None], Callable[[], int]], None] | None = None


class DirectSource(Protocol):
    """A source whose bytes can also be read from its socket, which is faster."""

    @property
    def patience(self) -> float:
        """Seconds without a byte that are allowed."""
        ...

    def take(self) -> tuple[bytes, socket.socket] | None:
        """The bytes that were read already, and a socket with the rest, which the caller closes; None where there is no
        such socket."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedFile:
    """A file that is being read: it had `total` bytes when it was opened, and exactly `length` of them come in
    `chunks`, which raises OSError or TimeoutError where the source breaks off.

    `identity` changes when bytes that were already written change: when a log drops its beginning. Otherwise the file
    only grows.
    """

    total: int
    length: int
    identity: str
    chunks: AsyncIterator[bytes]
    # The same bytes from the source's socket. The reader uses this or `chunks`.
    socket: DirectSource | None = None


class OpenFile(Protocol):
    """Opens the file from byte `offset` on, for `length` bytes at most; leaving the block closes it. Raises Refused."""

    def __call__(self, *, offset: int = 0, length: int | None = None) -> AbstractAsyncContextManager[OpenedFile]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A file of which the caller may read all, a part, or the size alone (`length=0`)."""

    file_name: str
    content_type: str
    open: OpenFile
    # Raises Refused for more bytes than may be downloaded at once.
    require_allowed: Callable[[int], None]


Result = Answer | Stream | Download

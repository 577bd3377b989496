"""Answers without an end of their own: how many there are, for whom, and how they hear that they have to end.

They are counted apart from calls, so that streams that do nothing never stand in the way of a call. Must not know what
is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any

from linkis_ecm.gateway.answers import Receiver, SharedPart, Stream
from linkis_ecm.gateway.http.budget import ByteBudget
from linkis_ecm.gateway.http.errors import Refused, too_many, unavailable
from linkis_ecm.gateway.http.slots import Slots

# What a stream may hold: an event, and what its client's connection has not taken. Each reserves so much of the byte
# budget while it lasts.
STREAM_BYTES = 128 << 10
# All streams together have this part of the budget at most.
BUDGET_PART = 3
# One token, and one address, may have this part of all places: a service's token speaks for many users, a proxy's
# address too, but none of them for everybody.
SHARE = 2
# Seconds that a stream waits for its memory; a page gives it 5 s to begin.
MEMORY_SECONDS = 4.0

# Why a stream ends where the gateway stops.
STOPS = "the gateway stops: call again"


class CutStreamError(ConnectionAbortedError):
    """The stream has no last word of its own, so its connection breaks: what was sent must not look complete."""


class OpenStream:
    """One stream, and how it hears that it ends before its source does."""

    def __init__(self) -> None:
        # Why it ends; empty while it goes on.
        self.why = ""
        self._wait: asyncio.Timeout | None = None

    def end(self, why: str) -> None:
        """End it now where it waits, else before its next bytes. The first reason counts. May be called again."""
        self.why = self.why or why
        if self._wait is not None:
            self._wait.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """A wait that ends when the stream does: the block is left then."""
        wait = asyncio.timeout(None)
        try:
            async with wait:
                self._wait = wait
                try:
                    yield
                finally:
                    self._wait = None
        except TimeoutError:
            if not wait.expired():
                raise


class _EndingPart:
    """A part that is shared with others, for as long as its stream goes on."""

    def __init__(self, part: SharedPart, stream: OpenStream) -> None:
        self._part = part
        self._stream = stream

    async def receive(self, receiver: Receiver) -> None:
        if not self._stream.why:
            async with self._stream.waiting():
                await self._part.receive(receiver)


class Streams:
    """All streams of one gateway: `total` at a time, `of_user` of them one user's. `held_bytes`: the byte budget."""

    def __init__(self, *, total: int, of_user: int, held_bytes: int) -> None:
        self.stopped = False
        self._total = max(1, min(total, held_bytes // BUDGET_PART // STREAM_BYTES))
        self._of_user = of_user
        self._users, self._tokens, self._addresses = Slots[str](), Slots[str](), Slots[str]()
        self._streams: set[OpenStream] = set()
        # Called when the gateway stops, of what sends to streams without being waited for.
        self.on_stop: list[Callable[[], None]] = []

    @property
    def open(self) -> int:
        """Streams that are open now."""
        return self._users.total

    @contextmanager
    def hold(self, *, user: str, token: str, address: str) -> Iterator[None]:
        """One stream, for the block. `token` stands for the login's credentials. Raises Refused."""
        if self.open >= self._total:
            raise unavailable(
                f"The gateway has {self._total} streams open, and takes no more: try again in a moment", limit="streams"
            )
        share = max(1, self._total // SHARE)
        if self._users.taken(user) >= self._of_user:
            raise _refusal("You have", self._of_user)
        if self._tokens.taken(token) >= share:
            raise _refusal("The users of this token have", share)
        if self._addresses.taken(address) >= share:
            raise _refusal(f"From {address} there are", share)
        with ExitStack() as stack:
            for slots, key in ((self._users, user), (self._tokens, token), (self._addresses, address)):
                stack.enter_context(slots.hold(key))
            yield

    def stop(self) -> None:
        """The gateway stops: each stream that waits for its source ends now, each other one before its next bytes.
        May be called again."""
        if self.stopped:
            return
        self.stopped = True
        for stream in tuple(self._streams):
            stream.end(STOPS)
        for end in self.on_stop:
            end()

    async def until_end(self, sent: Stream, stream: OpenStream) -> AsyncGenerator[Any]:
        """What is sent, and where `stream` or the gateway ends before it, its last word in place of the rest. Raises
        CutStreamError then where it has none."""
        chunks = sent.chunks
        self._streams.add(stream)
        try:
            if self.stopped:
                stream.end(STOPS)
            while not stream.why:
                chunk: Any = None
                async with stream.waiting():
                    try:
                        chunk = await anext(chunks)
                    except StopAsyncIteration:
                        return
                if chunk is None:
                    break
                yield chunk if isinstance(chunk, bytes | memoryview) else _EndingPart(chunk, stream)
                del chunk  # it may be big, and the next may take long to come
        finally:
            self._streams.discard(stream)
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
        if sent.last is None:
            raise CutStreamError(stream.why)
        yield sent.last(stream.why)


async def hold_for_stream(held: AsyncExitStack, budget: ByteBudget, size: int) -> None:
    """Reserve so many bytes until `held` is closed. Raises Refused where they are not free soon."""
    try:
        async with asyncio.timeout(MEMORY_SECONDS):
            await held.enter_async_context(budget.hold(size))
    except TimeoutError:
        raise unavailable("The gateway has no memory for this stream now: try again", limit="budget") from None


def _refusal(whose: str, number: int) -> Refused:
    return too_many(
        f"{whose} {number} streams open (watchEngines, taskEvents, followEngineLog): close one of them", limit="streams"
    )

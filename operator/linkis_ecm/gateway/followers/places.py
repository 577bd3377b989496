"""What followers hold that is scarce, connections to an agent and memory of what is sent: where nothing is free, who
has not taken for longest what it is sent gives way. It comes back with the last id that it has seen.

Must not know tasks, events or HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

# Who has taken nothing of what it is sent for so many seconds may have to give way: a client that reads, and a page
# that draws what it has read, take less.
SLOW_SECONDS = 2.0
# While somebody waits for a place, such a follower is looked for this often.
LOOK_SECONDS = 0.25
# Seconds that a follower waits for a place: catching up takes less than one.
TURN_SECONDS = 5.0
# What is broken off has left after some rounds of the event loop.
LEAVE_SECONDS = 1.0


class Sending:
    """What one follower's client is being sent. Who sends it says how to break that off."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._break_off: Callable[[], None] | None = None
        self._since: float | None = None
        self.gives_way = False

    def begin(self, break_off: Callable[[], None]) -> None:
        """The stream's head is sent; `break_off` ends it now, also where its client does not read."""
        self._break_off = break_off

    @contextmanager
    def piece(self) -> Iterator[None]:
        """A piece is being sent, for the block."""
        self._since = self._clock()
        try:
            yield
        finally:
            self._since = None

    @property
    def waits(self) -> float:
        """Seconds since the piece that is being sent was given to be sent; 0 where none is, or it was broken off."""
        return 0.0 if self._since is None or self._break_off is None else self._clock() - self._since

    def break_off(self) -> None:
        """Give way. May be called again."""
        self.gives_way = True
        break_off, self._break_off = self._break_off, None
        if break_off is not None:
            break_off()


class Crowd:
    """Those who hold something scarce now."""

    def __init__(self) -> None:
        self._sending: set[Sending] = set()
        self._left = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._sending)

    @contextmanager
    def holds(self, sending: Sending) -> Iterator[None]:
        """It holds some, for the block."""
        self._sending.add(sending)
        try:
            yield
        finally:
            self._sending.discard(sending)
            self._left.set()

    @property
    def leaving(self) -> int:
        """How many have given way and still hold it."""
        return sum(sending.gives_way for sending in self._sending)

    def break_off_slowest(self) -> bool:
        """Have the one give way that has not read for longest; False where all read."""
        slowest = max(self._sending, key=lambda sending: sending.waits, default=None)
        if slowest is None or slowest.waits < SLOW_SECONDS:
            return False
        slowest.break_off()
        return True

    async def until_one_has_left(self) -> None:
        """Raises TimeoutError where nobody leaves."""
        self._left.clear()
        async with asyncio.timeout(LEAVE_SECONDS):
            await self._left.wait()


class Places:
    """The connections to one agent: `count` for followers, and one more, which is kept for a shared reader."""

    def __init__(self, count: int) -> None:
        self.followers = 0
        self._free = asyncio.Semaphore(count)
        self._kept_is_free = True
        self._waiting = 0
        self._crowd = Crowd()

    @asynccontextmanager
    async def own(self, sending: Sending) -> AsyncIterator[None]:
        """A follower's place, for the block. Raises TimeoutError where all are taken by those who read."""
        await self._take()
        try:
            with self._crowd.holds(sending):
                yield
        finally:
            self._free.release()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """A shared reader's place, for the block: the one that is kept, or, where another task's reader has that, one
        of the followers'. Raises TimeoutError."""
        if not self._kept_is_free:
            async with self.own(Sending()):
                yield
            return
        self._kept_is_free = False
        try:
            yield
        finally:
            self._kept_is_free = True

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal timer
            if self._crowd.leaving < self._waiting:
                self._crowd.break_off_slowest()
            timer = loop.call_later(LOOK_SECONDS, look)

        self._waiting += 1
        try:
            if self._free.locked():
                look()
            async with asyncio.timeout(TURN_SECONDS):
                await self._free.acquire()
        finally:
            self._waiting -= 1
            if timer is not None:
                timer.cancel()

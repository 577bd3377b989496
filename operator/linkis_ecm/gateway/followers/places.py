"""What followers hold that is scarce, connections to an agent and memory of what is sent: where nothing is free, who
has not taken for longest what it is sent gives way. It comes back with the last id that it has seen.

Must not know tasks, events or HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

# Who has taken nothing of what it is sent for so many seconds may have to give way: a client that reads, and a page
# that draws what it has read, take less.
SLOW_SECONDS = 2.0
# While somebody waits for a place, such a follower is looked for this often.
LOOK_SECONDS = 0.25
# Seconds that a follower waits for a place: catching up takes less than one.
TURN_SECONDS = 5.0
# Seconds that a follower waits, without memory, until its next long event can be sent: a few of the largest, one behind
# the other, on slow lines. Then it is broken off, and comes back.
WAIT_SECONDS = 300.0
# What is broken off has left after some rounds of the event loop.
LEAVE_SECONDS = 1.0


class Sending:
    """What one follower's client is being sent. Who sends it says how to break that off, and how much was taken."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._break_off: Callable[[], None] | None = None
        self._taken: Callable[[], int] = _unknown
        # When it was last seen that the client has taken something, and how much it had then; None: nothing is sent.
        self._since: float | None = None
        self._seen = 0
        self.gives_way = False

    def begin(self, break_off: Callable[[], None], taken: Callable[[], int] | None = None) -> None:
        """The stream's head is sent; `break_off` ends it now, also where its client does not read. `taken` counts the
        bytes that the client has taken."""
        self._break_off = break_off
        self._taken = taken or _unknown

    @contextmanager
    def piece(self) -> Iterator[None]:
        """A piece is being sent, for the block."""
        self._since, self._seen = self._clock(), self._taken()
        try:
            yield
        finally:
            self._since = None

    @property
    def waits(self) -> float:
        """Seconds for which the client was not seen to take anything of the piece that is being sent; 0 where none is,
        or it was broken off. How long a piece takes says nothing: a slow line takes a long one for minutes."""
        if self._since is None or self._break_off is None:
            return 0.0
        taken = self._taken()
        if taken != self._seen:
            self._since, self._seen = self._clock(), taken
        return self._clock() - self._since

    def break_off(self) -> None:
        """Give way. May be called again."""
        self.gives_way = True
        break_off, self._break_off = self._break_off, None
        if break_off is not None:
            break_off()


def _unknown() -> int:
    return 0


class Crowd:
    """Those who hold something scarce now, and those who wait for it."""

    def __init__(self) -> None:
        self._sending: set[Sending] = set()
        self._left = asyncio.Event()
        self._turn = asyncio.Lock()
        self.waiting = 0

    def __bool__(self) -> bool:
        return bool(self._sending or self.waiting)

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
    def holding(self) -> int:
        """How many hold it."""
        return len(self._sending)

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

    async def take_in_turn(self, take: Callable[[], bool]) -> None:
        """Wait until `take` gives True: first come, first served. Who takes nothing gives way meanwhile; who reads,
        however slowly, is waited for. Raises TimeoutError."""
        self.waiting += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS), self._turn:
                while not take():
                    if not self.leaving:
                        self.break_off_slowest()
                    self._left.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_SECONDS):
                            await self._left.wait()
        finally:
            self.waiting -= 1


class Places:
    """The connections to one agent: `count` for followers, and one more, which is kept for a shared reader."""

    def __init__(self, count: int) -> None:
        self.followers = 0
        self._count = count
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
            # A place that was left counts, too: who waits for it takes it at the loop's next turn.
            coming = self._count - self._crowd.holding + self._crowd.leaving
            if coming < self._waiting:
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

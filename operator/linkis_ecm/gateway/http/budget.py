"""Bounds the bytes of bodies and pages that the gateway holds in memory: a call that needs more waits in a queue.

A limit on calls alone does not bound memory: a thousand bodies of 8 MiB are eight gigabytes. Small ones are not
counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from linkis_ecm.gateway.http.slots import Slots

# Bodies up to this size do not wait: a thousand of them are 64 MiB.
SMALL = 64 << 10


class ByteBudget:
    """A counting semaphore of bytes, first come, first served."""

    def __init__(self, total: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._free = total
        self._clock = clock
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        # When a call began to wait with no bytes given or freed since; it stays when that call gives up.
        self._stalled_since: float | None = None

    @property
    def total(self) -> int:
        """Bytes that may be reserved at a time."""
        return self._total

    @property
    def held(self) -> int:
        """Bytes that are reserved now."""
        return self._total - self._free

    @property
    def stalled_seconds(self) -> float:
        """Seconds for which a call had to wait and no bytes were given or freed; 0 while there is progress."""
        return 0.0 if self._stalled_since is None else self._clock() - self._stalled_since

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[Callable[[int], None]]:
        """Reserve `size` bytes for the block, at most the whole budget; waits until they are free. Yields a function
        that reduces the reservation to the given size, for when less turns out to be needed."""
        if size <= SMALL:
            yield _not_counted
            return
        size = min(size, self._total)
        await self._take(size)

        def shrink(left: int) -> None:
            nonlocal size
            if left < size:
                self._release(size - left)
                size = left

        try:
            yield shrink
        finally:
            self._release(size)

    async def _take(self, size: int) -> None:
        if not self._waiting and size <= self._free:
            self._reserve(size)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, waiter))
        if self._stalled_since is None:
            self._stalled_since = self._clock()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._release(size)  # they had been reserved already
            else:
                # `_wake` may have dropped it: a cancelled waiter stays in the queue until its task runs.
                with suppress(ValueError):
                    self._waiting.remove((size, waiter))
                self._wake()
            raise

    def _reserve(self, size: int) -> None:
        self._free -= size
        self._stalled_since = None

    def _release(self, size: int) -> None:
        self._free += size
        self._stalled_since = None
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            size, waiter = self._waiting[0]
            if not waiter.done():
                if size > self._free:
                    break
                self._reserve(size)
                waiter.set_result(None)
            self._waiting.popleft()


class ByteShares:
    """A budget of the same size for each user: who has used it waits for his own calls, and others go on."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._budgets: dict[str, ByteBudget] = {}
        self._users = Slots[str]()

    @asynccontextmanager
    async def hold(self, user: str, size: int) -> AsyncIterator[Callable[[int], None]]:
        """Reserve `size` bytes of the user's share for the block, at most all of it; waits until they are free. Yields
        a function that reduces the reservation."""
        with self._users.hold(user):
            try:
                async with self._budgets.setdefault(user, ByteBudget(self._each)).hold(size) as shrink:
                    yield shrink
            finally:
                if self._users.taken(user) == 1:
                    del self._budgets[user]


class ByteQuota:
    """Bytes that may be held at a time, of which one user has half at most. Nobody waits: what is not free now is for
    the caller to do without."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._held: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """Bytes that are taken now."""
        return self._held.total()

    def can_take(self, size: int) -> bool:
        """Whether one user may ever have so many."""
        return size <= self._total // 2

    def take(self, user: str, size: int) -> bool:
        """Take so many bytes, to be given back; False where they are not free."""
        if self.held + size > self._total or self._held[user] + size > self._total // 2:
            return False
        self._held[user] += size
        return True

    def give_back(self, user: str, size: int) -> None:
        self._held[user] -= size
        if not self._held[user]:
            del self._held[user]


def _not_counted(_: int) -> None:
    """A small reservation is not counted, so it cannot be reduced."""

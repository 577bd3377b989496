"""Bounds the bytes of bodies and pages that the gateway holds in memory: a call that needs more waits in a queue.

A limit on calls alone does not bound memory: a thousand bodies of 8 MiB are eight gigabytes. Small ones are not
counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

# Bodies up to this size do not wait: a thousand of them are 64 MiB.
SMALL = 64 << 10


class ByteBudget:
    """A counting semaphore of bytes, first come, first served."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held(self) -> int:
        """Bytes that are reserved now."""
        return self._total - self._free

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
                self._free += size - left
                size = left
                self._wake()

        try:
            yield shrink
        finally:
            self._free += size
            self._wake()

    async def _take(self, size: int) -> None:
        if not self._waiting and size <= self._free:
            self._free -= size
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, waiter))
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._free += size  # they had been reserved already
            else:
                self._waiting.remove((size, waiter))
            self._wake()
            raise

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, waiter = self._waiting.popleft()
            self._free -= size
            waiter.set_result(None)


def _not_counted(_: int) -> None:
    """A small reservation is not counted, so it cannot be reduced."""

"""How many bytes of bodies and pages the gateway holds at a time: those who want more wait their turn.

A bound on calls alone is none on memory: a thousand bodies of 8 MiB are eight gigabytes. Small ones are not counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

# What is smaller is not worth a turn: a thousand of these are 64 MiB.
SMALL = 64 << 10


class ByteBudget:
    """A counting semaphore of bytes, first come, first served."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held(self) -> int:
        """Bytes that are held now."""
        return self._total - self._free

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[Callable[[int], None]]:
        """Hold `size` bytes (the whole budget where it is more) for the block, once they are free; what it gives is
        called with what is left to be held, once that is known to be less."""
        if size <= SMALL:
            yield _nothing
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
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._free += size  # it was our turn already
            else:
                self._waiting.remove((size, turn))
            self._wake()
            raise

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            self._free -= size
            turn.set_result(None)


def _nothing(_: int) -> None:
    """What was small is not counted."""

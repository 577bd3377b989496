"""The work queue: keys, each at most once, each with one worker at a time.

Ten events of one key cause one pass. An event during the key's pass causes one more pass after it. The size is bounded
by the number of keys. Must not hold objects or know the meaning of a key.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """`add` from anywhere in the event loop; workers call `get`, then `done`. `clock` is monotonic, in seconds."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Waiting keys, the first in line first, with the time when each was added.
        self._waiting: OrderedDict[K, float] = OrderedDict()
        self._working: set[K] = set()
        # Keys that were added while a worker had them.
        self._dirty: set[K] = set()
        # Workers that wait for a key: each key wakes one of them.
        self._idle: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._resting = asyncio.Event()
        self._resting.set()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """No key waits and none is worked on."""
        return not self._waiting and not self._working

    @property
    def age(self) -> float:
        """Seconds that the first in line has waited; 0 where none waits."""
        first = next(iter(self._waiting.values()), None)
        return 0.0 if first is None else self._clock() - first

    def is_working(self, key: K) -> bool:
        """Whether a worker has the key now."""
        return key in self._working

    def add(self, key: K) -> None:
        """Request a pass over the key."""
        if key in self._working:
            self._dirty.add(key)
        elif key not in self._waiting:
            self._waiting[key] = self._clock()
            self._wake_one()

    async def get(self) -> K:
        """The next key. The caller owns it until `done`. Waits forever once the queue is closed."""
        while self._closed or not self._waiting:
            await self._wait()
        key, _ = self._waiting.popitem(last=False)
        self._working.add(key)
        self._resting.clear()
        return key

    async def _wait(self) -> None:
        woken = asyncio.get_running_loop().create_future()
        self._idle.append(woken)
        try:
            await woken
        except BaseException:
            with suppress(ValueError):
                self._idle.remove(woken)
            if woken.done() and not woken.cancelled():
                # This worker was woken for a key and has ended: another one takes it.
                self._wake_one()
            raise

    def _wake_one(self) -> None:
        while self._idle:
            woken = self._idle.popleft()
            if not woken.done():
                woken.set_result(None)
                return

    def done(self, key: K) -> None:
        """The pass over the key has ended."""
        self._working.discard(key)
        if not self._working:
            self._resting.set()
        if key in self._dirty:
            self._dirty.discard(key)
            self.add(key)

    def close(self) -> None:
        """Give no more keys to workers."""
        self._closed = True

    async def rest(self) -> None:
        """Wait until no worker has a key."""
        await self._resting.wait()

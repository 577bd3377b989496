"""The work queue: keys, each at most once, each with one worker at a time.

Ten events on one engine are one pass; an event during its pass is one more pass after it. Bounded by the number of
engines. Must not hold payloads.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from linkis_ecm.controller import metrics

Key = tuple[str, str]


class WorkQueue:
    """`add` from anywhere in the loop; `get` … `done` by workers. `clock` is monotonic, in seconds."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waiting: OrderedDict[Key, float] = OrderedDict()
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._wake = asyncio.Event()
        metrics.QUEUE_DEPTH.set_function(lambda: float(len(self._waiting)))
        metrics.QUEUE_AGE.set_function(lambda: self.age)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Nobody waits and nobody works."""
        return not self._waiting and not self._working

    @property
    def age(self) -> float:
        """Seconds that the first in line has waited."""
        first = next(iter(self._waiting.values()), None)
        return 0.0 if first is None else self._clock() - first

    def add(self, key: Key) -> None:
        """Asks for a pass over the engine."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = self._clock()
            self._wake.set()

    async def get(self) -> Key:
        """The next engine; the caller owns it until `done`."""
        while not self._waiting:
            self._wake.clear()
            await self._wake.wait()
        key, _ = self._waiting.popitem(last=False)
        self._working.add(key)
        return key

    def done(self, key: Key) -> None:
        """The pass is over."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

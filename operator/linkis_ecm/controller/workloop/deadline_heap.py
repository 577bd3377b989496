"""One heap of deadlines for all keys: no timer, thread or task per object.

A plain data structure: the caller brings the clock. A key has one deadline at most, and a new one replaces it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """When each key needs another pass though nothing happens to it. Times are numbers of the caller's clock."""

    def __init__(self) -> None:
        # The number between time and key decides between equal times, so keys need no order.
        self._heap: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._count = itertools.count()

    def __len__(self) -> int:
        return len(self._due)

    def set(self, key: K, at: float | None) -> None:
        """Replaces the key's deadline; None removes it."""
        if at is None:
            self._due.pop(key, None)
        elif self._due.get(key) != at:
            self._due[key] = at
            heapq.heappush(self._heap, (at, next(self._count), key))
        # Replaced entries stay in the heap until they come up. It is rebuilt when they outnumber the valid ones.
        if len(self._heap) > 64 + 2 * len(self._due):
            self._heap = [(due, next(self._count), name) for name, due in self._due.items()]
            heapq.heapify(self._heap)

    def get(self, key: K) -> float | None:
        """The key's deadline; None without one."""
        return self._due.get(key)

    def next(self) -> float | None:
        """The earliest deadline, or None."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> list[K]:
        """Removes and returns every key whose deadline has come."""
        found = []
        while (at := self.next()) is not None and at <= now:
            _, _, key = heapq.heappop(self._heap)
            del self._due[key]
            found.append(key)
        return found

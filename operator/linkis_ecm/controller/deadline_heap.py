"""One heap of deadlines for all engines: no timer, thread or task per object.

Plain data structure; the caller brings the clock. An engine has one deadline at most, and a new one replaces it.
"""

from __future__ import annotations

import heapq

Key = tuple[str, str]


class Deadlines:
    """When each engine must be looked at again, though nothing happens to it."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, Key]] = []
        self._due: dict[Key, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def set(self, key: Key, at: float | None) -> None:
        """Replaces the engine's deadline; None takes it away."""
        if at is None:
            self._due.pop(key, None)
        elif self._due.get(key) != at:
            self._due[key] = at
            heapq.heappush(self._heap, (at, key))
        # Replaced entries stay in the heap until they come up; rebuilt when they outnumber the living.
        if len(self._heap) > 64 + 2 * len(self._due):
            self._heap = [(due, name) for name, due in self._due.items()]
            heapq.heapify(self._heap)

    def next(self) -> float | None:
        """The earliest deadline, or None."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> list[Key]:
        """Takes out every engine whose deadline has come."""
        found = []
        while (at := self.next()) is not None and at <= now:
            _, key = heapq.heappop(self._heap)
            del self._due[key]
            found.append(key)
        return found

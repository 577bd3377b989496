"""Counts calls under way, by key, so that more than a limit can be refused. Must not know what is counted."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Slots(Generic[Key]):
    """One counter for each key; a key without calls takes no memory."""

    def __init__(self) -> None:
        self._taken: dict[Key, int] = {}
        self.total = 0

    def taken(self, key: Key) -> int:
        """Calls of the key that are under way."""
        return self._taken.get(key, 0)

    @contextmanager
    def hold(self, key: Key) -> Iterator[None]:
        """Count one call for the block. The limit is the caller's to check before."""
        self._taken[key] = self.taken(key) + 1
        self.total += 1
        try:
            yield
        finally:
            self.total -= 1
            left = self._taken[key] - 1
            if left:
                self._taken[key] = left
            else:
                del self._taken[key]

"""Remembers what a function gave for an object that nobody changes, as long as the object is one of the last. Pure.

For parsed specs: they have no hash, and to compare two takes longer than most of what is computed of them. Must not be
used for objects that change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Objects: more engines than are on their way at a time. Each entry holds its object, so no other one has its id.
SIZE = 4096


class ByIdentity(Generic[T, R]):
    """Call it as the function; the same object gives the same result, which its caller must not change."""

    def __init__(self, function: Callable[[T], R], size: int = SIZE) -> None:
        self._function = function
        self._size = size
        self._known: OrderedDict[int, tuple[T, R]] = OrderedDict()

    def __call__(self, of: T) -> R:
        """What the function gives for that object."""
        entry = self._known.get(id(of))
        if entry is not None:
            return entry[1]
        result = self._function(of)
        self._known[id(of)] = of, result
        if len(self._known) > self._size:
            self._known.popitem(last=False)
        return result

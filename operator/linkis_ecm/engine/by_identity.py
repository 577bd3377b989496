"""Remembers what a function gave for an object that nobody changes, as long as there is the object. Pure.

For parsed specs: they have no hash, and to compare two takes longer than most of what is computed of them. Must not be
used for objects that change.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Objects: more engines than are on their way at a time. No entry holds its object: a spec may have half a million
# characters of code, and each event of its engine brings another one.
SIZE = 4096


class ByIdentity(Generic[T, R]):
    """Call it as the function; the same object gives the same result, which its caller must not change."""

    def __init__(self, function: Callable[[T], R], size: int = SIZE) -> None:
        self._function = function
        self._size = size
        self._known: OrderedDict[int, tuple[weakref.ref[T], R]] = OrderedDict()

    def __call__(self, of: T) -> R:
        """What the function gives for that object."""
        key = id(of)
        entry = self._known.get(key)
        # An object that is gone may have left its id to this one.
        if entry is not None and entry[0]() is of:
            return entry[1]
        result = self._function(of)

        def forget(gone: weakref.ref[T]) -> None:
            found = self._known.get(key)
            if found is not None and found[0] is gone:
                del self._known[key]

        self._known[key] = weakref.ref(of, forget), result
        self._known.move_to_end(key)
        if len(self._known) > self._size:
            self._known.popitem(last=False)
        return result

"""When each of many may begin something that costs: some at once, the rest in turn, at a rate for each key.

Nobody is refused: who comes too often waits, and others do not wait for it. Pure but for the clock, which is passed in.
Must not know what begins.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable


class Turns:
    """`burst` at once and `per_second` in the long run, for each key. Of more than `keys` keys the one that came last
    longest ago is forgotten."""

    def __init__(self, *, per_second: float, burst: int, keys: int, clock: Callable[[], float]) -> None:
        self._interval = 1 / per_second
        self._slack = (burst - 1) / per_second
        self._keys = keys
        self._clock = clock
        # By key, when it would be even with its rate again.
        self._even: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str) -> float:
        """The seconds until this one's turn; 0 for at once. The turn is taken."""
        now = self._clock()
        even = max(now, self._even.get(key, now))
        self._even[key] = even + self._interval
        self._even.move_to_end(key)
        if len(self._even) > self._keys:
            self._even.popitem(last=False)
        return max(0.0, even - now - self._slack)

    def give_back(self, key: str) -> None:
        """A turn that was taken is not used: the next one is sooner."""
        if (even := self._even.get(key)) is not None:
            self._even[key] = even - self._interval

"""Token buckets: how often something may happen, for each of many keys. Pure but for the clock, which is passed in.

Must not know what is limited or how a refusal is said.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class TokenBuckets(Generic[Key]):
    """One bucket for each key: `burst` at once, `per_second` on average. 0 a second: no limit.

    Of more than `keys` keys the one that was inactive longest is forgotten, and has a full bucket again.
    """

    def __init__(self, *, per_second: float, burst: int, keys: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = float(max(burst, 1))
        self._keys = keys
        self._clock = clock
        # Tokens at a time, by key.
        self._buckets: OrderedDict[Key, tuple[float, float]] = OrderedDict()

    def take(self, key: Key) -> float:
        """Take one token: 0 where there was one, else the seconds until there is."""
        if not self._per_second:
            return 0.0
        tokens = self._tokens(key)
        if tokens < 1:
            self._put(key, tokens)
            return (1 - tokens) / self._per_second
        self._put(key, tokens - 1)
        return 0.0

    def give_back(self, key: Key) -> None:
        """Return a token that was taken for nothing."""
        if self._per_second:
            self._put(key, min(self._burst, self._tokens(key) + 1))

    def _tokens(self, key: Key) -> float:
        now = self._clock()
        tokens, since = self._buckets.get(key, (self._burst, now))
        return min(self._burst, tokens + max(0.0, now - since) * self._per_second)

    def _put(self, key: Key, tokens: float) -> None:
        self._buckets[key] = (tokens, self._clock())
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._keys:
            self._buckets.popitem(last=False)

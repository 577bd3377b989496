"""Limits for each user: calls per second, and concurrent calls. Must not know permissions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from linkis_ecm.gateway.http.errors import Refused, too_many
from linkis_ecm.gateway.http.slots import Slots
from linkis_ecm.process.ports.ratelimit import TokenBuckets

# Users whose rate is remembered; the one that was inactive longest is dropped, and starts with a full bucket again.
USERS = 10_000


class Limits:
    """A token bucket and a counter of concurrent calls for each user. 0: no limit."""

    def __init__(
        self, *, per_second: int, burst: int, at_once: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._at_once = at_once
        self._rates = TokenBuckets[str](per_second=per_second, burst=burst, keys=USERS, clock=clock)
        self._under_way = Slots[str]()

    @contextmanager
    def call(self, name: str, *, is_stream: bool = False) -> Iterator[None]:
        """One call of that user, for the block. Raises Refused where a limit is reached. Of a stream the rate counts
        alone: how many are open is `http.streams`'s to say."""
        if self._at_once and not is_stream and self._under_way.taken(name) >= self._at_once:
            raise self._refusal(f"{self._at_once} calls under way already", 1.0, "calls")
        if seconds := self._rates.take(name):
            raise self._refusal(f"more than {self._per_second} calls a second", seconds, "rate")
        with nullcontext() if is_stream else self._under_way.hold(name):
            yield

    @staticmethod
    def _refusal(what: str, seconds: float, limit: str) -> Refused:
        refusal = too_many(f"You have {what}: ask less often, or wait for one of them", limit=limit)
        refusal.headers["Retry-After"] = str(max(1, round(seconds)))
        return refusal

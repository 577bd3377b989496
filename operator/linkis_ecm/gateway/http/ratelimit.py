"""Limits for each user: calls per second, and concurrent calls. Must not know permissions."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from linkis_ecm.gateway.http.errors import Refused, too_many

# Users whose rate is remembered; the one that was inactive longest is dropped, and starts with a full bucket again.
USERS = 10_000


@dataclass(slots=True)
class _User:
    tokens: float
    seen: float
    under_way: int = 0


class Limits:
    """A token bucket and a counter of concurrent calls for each user. 0: no limit."""

    def __init__(
        self, *, per_second: int, burst: int, at_once: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = max(burst, 1)
        self._at_once = at_once
        self._clock = clock
        self._users: OrderedDict[str, _User] = OrderedDict()

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """One call of that user, for the block. Raises Refused where a limit is reached."""
        user = self._user(name)
        if self._per_second and user.tokens < 1:
            raise self._refusal(
                f"more than {self._per_second} calls a second", (1 - user.tokens) / self._per_second, "rate"
            )
        if self._at_once and user.under_way >= self._at_once:
            raise self._refusal(f"{self._at_once} calls under way already", 1.0, "calls")
        user.tokens -= 1
        user.under_way += 1
        try:
            yield
        finally:
            user.under_way -= 1

    def _user(self, name: str) -> _User:
        now = self._clock()
        user = self._users.pop(name, None) or _User(float(self._burst), now)
        user.tokens = min(float(self._burst), user.tokens + (now - user.seen) * self._per_second)
        user.seen = now
        self._users[name] = user
        while len(self._users) > USERS:
            oldest = next(iter(self._users))
            if self._users[oldest].under_way:
                break
            del self._users[oldest]
        return user

    @staticmethod
    def _refusal(what: str, seconds: float, limit: str) -> Refused:
        refusal = too_many(f"You have {what}: ask less often, or wait for one of them", limit=limit)
        refusal.headers["Retry-After"] = str(max(1, round(seconds)))
        return refusal

"""When to try again: the one place that says so. Pure: no clock, no sleep, the random source is handed in."""

from __future__ import annotations

import random
from dataclasses import dataclass

from linkis_ecm.kube.errors import ApiError, ServerError, Throttled, Unreachable

# A create is missing on purpose: after a reset nobody knows whether it was executed, and the caller, who chose the
# name, has to look. A merge patch sets the same values twice, and a second delete says NotFound.
IDEMPOTENT = frozenset({"get", "list", "patch", "delete", "version"})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Doubling delays between `base` and `cap`, `attempts` tries in all.

    0.1 s is about ten times a healthy write; five tries then span 0.8 to 1.5 s, after which the caller's own queue has
    the better overview. `longest_wait` bounds how long a server may park a call by its Retry-After: above it the caller
    is told, rather than holding a worker.
    """

    base: float = 0.1
    cap: float = 5.0
    attempts: int = 5
    longest_wait: float = 10.0

    def delay(self, attempt: int, *, rng: random.Random, retry_after: float | None = None) -> float:
        """Seconds to wait after the failed try number `attempt` (from 1): half to whole of the doubling step.

        What the server asks for is the least, with up to a quarter on top, so that those it turned away together do not
        come back together.
        """
        # 2**30 base steps are beyond any cap; an unbounded exponent would overflow a float after days of failures.
        step = min(self.cap, self.base * 2.0 ** min(attempt - 1, 30))
        wait = step * (0.5 + 0.5 * rng.random())
        if retry_after is not None:
            wait = max(wait, retry_after * (1 + 0.25 * rng.random()))
        return wait

    def next_delay(self, verb: str, attempt: int, error: ApiError, *, rng: random.Random) -> float | None:
        """The wait before the next try of `verb`, or None where the error is the caller's to deal with."""
        if attempt >= self.attempts or not retryable(verb, error):
            return None
        if error.retry_after is not None and error.retry_after > self.longest_wait:
            return None
        return self.delay(attempt, rng=rng, retry_after=error.retry_after)


def retryable(verb: str, error: ApiError) -> bool:
    """Whether trying again can help and cannot harm. A throttled request was never executed, so any verb may."""
    if isinstance(error, Throttled):
        return True
    return isinstance(error, ServerError | Unreachable) and verb in IDEMPOTENT

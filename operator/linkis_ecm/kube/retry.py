"""When a call to the API server is tried again, and after how long. Pure: the random source is passed in."""

from __future__ import annotations

import random
from dataclasses import dataclass

from linkis_ecm.kube.errors import ApiError, ServerError, Throttled, Unreachable

# A create is missing on purpose: after a reset it is not known whether it was executed, and its caller, who chose the
# name, has to look. A second merge patch sets the same values, and a second delete is answered by NotFound.
IDEMPOTENT = frozenset({"get", "list", "patch", "delete", "version"})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Doubling delays between `base` and `cap`, `attempts` tries in all.

    0.1 s is about ten times a healthy write; five tries then take 0.8 to 1.5 s, after which the caller's own queue can
    decide better. `longest_wait` bounds the wait that a server's Retry-After may ask for: above it the caller gets the
    error, so that no worker is held.
    """

    base: float = 0.1
    cap: float = 5.0
    attempts: int = 5
    longest_wait: float = 10.0

    def delay(self, attempt: int, *, rng: random.Random, retry_after: float | None = None) -> float:
        """Seconds to wait after the failed try number `attempt` (from 1): half to whole of the doubling step.

        A server's Retry-After is the minimum, with up to a quarter on top, so that calls that were refused together do
        not return together.
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

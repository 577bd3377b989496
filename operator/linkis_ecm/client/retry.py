"""Decides whether and when a call is repeated. Pure: clock and randomness are passed in.

Repeated are calls that change nothing, calls that an id makes idempotent, and any call that the gateway certainly did
not accept.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from linkis_ecm.client.errors import EcmError


class RetryRule(Enum):
    """Whether a failed call may be made again."""

    NEVER = auto()
    IF_REPEATABLE = auto()
    ALWAYS = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Waits of 0 to `base` seconds, doubling up to 0 to `cap` (full jitter: clients that were refused together do not
    return together), until the call has failed for `patience` seconds. A gateway's pod is replaced within that.

    A try that was held for `alive` seconds before it failed shows that the gateway was there: patience starts again.
    """

    base: float = 0.25
    cap: float = 5.0
    patience: float = 30.0
    alive: float = 10.0


def retry_rule(error: EcmError) -> RetryRule:
    """What this error allows."""
    if not error.sent or error.http == 429:
        return RetryRule.ALWAYS
    if error.http == 502 and error.status is not None:
        # The gateway's own answer about an engine, for which it has waited for the cluster: a second try gets the same.
        return RetryRule.NEVER
    if error.http in (502, 503, 504) or (error.http is None and error.can_retry):
        return RetryRule.IF_REPEATABLE
    return RetryRule.NEVER


class RetryState:
    """The tries of one call."""

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        repeatable: bool,
        deadline: float,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._policy = policy
        self._repeatable = repeatable
        self._deadline = deadline
        self._clock = clock
        self._rng = rng
        self._failures = 0
        self._failing_since: float | None = None

    def progress(self) -> None:
        """The call made progress: patience starts again."""
        self._failures, self._failing_since = 0, None

    def wait(self, error: EcmError, *, began: float) -> float | None:
        """Seconds to wait after the try that `began` at that time and failed with `error`; None: do not try again."""
        allowed = retry_rule(error)
        if allowed is RetryRule.NEVER or (allowed is RetryRule.IF_REPEATABLE and not self._repeatable):
            return None
        now, policy = self._clock(), self._policy
        if error.sent and now - began >= policy.alive:
            self.progress()
        if self._failing_since is None:
            self._failing_since = now
        # 2**30 base steps are beyond any cap; a larger exponent overflows a float.
        step = min(policy.cap, policy.base * 2.0 ** min(self._failures, 30))
        self._failures += 1
        wait = (error.retry_after or 0.0) + self._rng.uniform(0.0, step)
        if now + wait > min(self._deadline, self._failing_since + policy.patience):
            return None
        return wait

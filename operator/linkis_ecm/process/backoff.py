"""How long to wait after a failure. Pure: the random source is passed in; must not sleep or count."""

from __future__ import annotations

import random
from dataclasses import dataclass

# Beyond 2**20 base steps each cap is reached; an unbounded exponent would overflow a float after days of failures.
_MAX_EXPONENT = 20


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds from `base`, doubling to `cap`; the jitter of a quarter up or down comes on top."""

    base: float
    cap: float

    def delay(self, failures: int, *, rng: random.Random) -> float:
        """Seconds to wait after so many failures in a row (from 1)."""
        step: float = self.base * 2 ** min(failures - 1, _MAX_EXPONENT)
        return min(self.cap, step) * rng.uniform(0.75, 1.25)

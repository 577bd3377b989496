"""How many pods of a warm pool one user may take within a time: the pool is for all, and is refilled in seconds. Pure.

A limit of engines says nothing of that: whoever creates and deletes one engine again and again has one at a time and
takes a pod with each. A user may take as many as the pool's size at once, and is given that back with time. What is
remembered may be lost: then a user may take so many once more. Must not know engines.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

# Seconds in which a user is given back one pod at least, whatever the pool's size: one that is replaced boots for one
# or two, and its refill waits for 1 s after each claim (`pacing`).
ONE_SECONDS = 3.0
# Seconds in which a user is given back a whole pool: about what its refill takes on a node that has room.
ALL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Taken:
    """What a user has taken and was not given back yet, as of a moment."""

    number: float
    at: datetime

    def by(self, now: datetime, size: int) -> Taken:
        """The same later. `size` is the pool's."""
        seconds = max(0.0, (now - self.at).total_seconds())
        return Taken(max(0.0, self.number - seconds * per_second(size)), now)

    def leaves_one(self, size: int) -> bool:
        """Whether the user may take another one."""
        return self.number + 1 <= size

    def plus(self, number: int) -> Taken:
        """One more, or one less."""
        return Taken(max(0.0, self.number + number), self.at)


def per_second(size: int) -> float:
    """How many pods a second a user is given back."""
    return max(1 / ONE_SECONDS, size / ALL_SECONDS)


def in_words(user: str, pool: str, size: int) -> str:
    """Why a user's engine is made its own pod, with what it may have."""
    return (
        f"User {user} takes pods of the warm pool of {pool} faster than one user may: {size} at once, and then one each"
        f" {1 / per_second(size):.2g} s."
    )

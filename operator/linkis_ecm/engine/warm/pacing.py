"""How many members of a pool may begin to start now, beside the claims of engines in its namespace. Pure.

A member that boots takes a core for half a second. A pool that is refilled while engines claim its members makes each
claim wait for that: 40 claims within 4 s took 2.1 s each on a node of two cores, and 0.06 s with nothing beside them.
So the refill gives way to claims, for a time that is bounded. Must not choose members, nor count what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

# Without a claim for so long the claims are over: the last one has its answer, and its user's first code, too.
QUIET = timedelta(seconds=1)
# While claims come one behind the other the refill waits no longer than this. Above it the pool would run empty.
LATEST = timedelta(seconds=5)
# Until so long after the last claim only some members start at a time: users come together, and the next one is near.
CALM = timedelta(seconds=10)
# Of the pool's size. With fewer ready members the refill does not wait for quiet; a few start even beside claims.
LOW = 0.25
# Of the pool's size, how many start at a time beside claims, and until CALM; and the least of each. Two cores boot
# four kernels within about a second.
BESIDE, BESIDE_LEAST = 0.05, 1
TOGETHER, TOGETHER_LEAST = 0.125, 4


@dataclass(frozen=True, slots=True)
class Pace:
    """`most` members may start at a time; None: as many as the pool lacks. `held`: claims hold the refill back.

    `again`: when it may be more.
    """

    most: int | None = None
    held: bool = False
    again: datetime | None = None


FREE = Pace()


def pace(
    *, size: int, ready: int, last_claim: datetime | None, held_since: datetime | None, now: datetime
) -> Pace:  # fmt: skip
    """The pace of a pool's refill in one namespace, `ready` members being there.

    `last_claim` is the last one of any pool in that namespace that is known: None after a restart, which only means
    that nothing is held back. `held_since` is when the refill was first held back without a pause since.
    """
    if last_claim is None or not timedelta(0) <= now - last_claim < CALM:
        # A claim in the future: the clock was put back.
        return FREE
    together = Pace(max(TOGETHER_LEAST, int(size * TOGETHER)), again=last_claim + CALM)
    if now >= last_claim + QUIET:
        return together
    since = now if held_since is None or held_since > now else held_since
    if now >= since + LATEST:
        return Pace(together.most, held=True, again=last_claim + CALM)
    again = min(last_claim + QUIET, since + LATEST)
    beside = max(BESIDE_LEAST, int(size * BESIDE)) if ready < max(1.0, size * LOW) else 0
    return Pace(beside, held=True, again=again)

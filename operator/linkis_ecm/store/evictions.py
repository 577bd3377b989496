"""Which bundles leave an archive that has too many bytes: of the owner who has most, the oldest first.

So who fills the archive loses own files and nobody else's. Pure.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kept:
    """All bundles of one engine. `expires` says how old they are: the smallest is the oldest."""

    uid: str
    owner: str
    size: int
    expires: int


def evictions(kept: Iterable[Kept], *, total: int, per_owner: int) -> list[str]:
    """uids to delete, in order, until no owner has more than `per_owner` bytes and all together `total` at most."""
    of_owner: defaultdict[str, list[Kept]] = defaultdict(list)
    for one in kept:
        of_owner[one.owner].append(one)
    queues = {owner: deque(sorted(own, key=lambda one: (one.expires, one.uid))) for owner, own in of_owner.items()}
    sizes = {owner: sum(one.size for one in own) for owner, own in of_owner.items()}
    held = sum(sizes.values())
    # The biggest first; of two as big, the one whose oldest is older.
    heap = [(-size, queues[owner][0].expires, owner) for owner, size in sizes.items()]
    heapq.heapify(heap)
    gone: list[str] = []
    while heap and (held > total or -heap[0][0] > per_owner):
        size, _, owner = heapq.heappop(heap)
        oldest = queues[owner].popleft()
        gone.append(oldest.uid)
        held -= oldest.size
        if queues[owner]:
            heapq.heappush(heap, (size + oldest.size, queues[owner][0].expires, owner))
    return gone

"""How many more pods a pool may have in a namespace, by its cap over all namespaces. Pure.

Pods that end take a place until they are gone, as their node still holds them. But whoever may edit pods can keep them
from going, by finalizers, and can make pods that look like members: neither may take the places of other namespaces for
good, so a pod that does not end is `stuck`: it is told, and takes no place. Must not decide where a pod is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from linkis_ecm.engine.pod_view import PodView

# After its grace a kubelet has killed all of a pod; what is still there later waits for a finalizer or a lost node.
ENDS_WITHIN = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Taken:
    """What one namespace of a pool takes: members that live, those that end, and how many it may have at most.

    `share` of the cap is its own, whether it has so many or not.
    """

    size: int
    live: int
    ending: int
    share: int = 0

    @property
    def beside(self) -> int:
        """As other namespaces count them."""
        return max(self.share, self.live + min(self.ending, self.size))

    @property
    def promised(self) -> int:
        """Once all that end are gone."""
        return max(self.share, self.live)


def shares(cap: int, sizes: Sequence[int]) -> list[int]:
    """What each of a pool's namespaces has of the cap for certain: as many for each, and none more than its size."""
    level, left = 0, cap
    for number, size in enumerate(sorted(sizes)):
        among = len(sizes) - number
        if (size - level) * among > left:
            level += left // among
            break
        left -= (size - level) * among
        level = size
    return [min(size, level) for size in sizes]


def takes_place(pod: PodView, now: datetime) -> bool:
    """Whether a pod that ends still takes a place: one that never had a node holds nothing."""
    over = pod.grace_ends_at
    return bool(pod.node) and (over is None or now < over + ENDS_WITHIN)


@dataclass(frozen=True, slots=True)
class Stuck:
    """Pods that do not end: how many, and the one that was to be gone first."""

    pods: int
    oldest: PodView


def is_stuck(pod: PodView, now: datetime) -> bool:
    """Whether a pod was to be gone, with a node or without one."""
    over = pod.grace_ends_at
    return pod.deleting and over is not None and now >= over + ENDS_WITHIN


def stuck(pods: Iterable[PodView], now: datetime) -> Stuck | None:
    """Those of them that do not end; None where there is none."""
    found = [pod for pod in pods if is_stuck(pod, now)]
    return Stuck(len(found), min(found, key=lambda pod: (pod.grace_ends_at or now, pod.name))) if found else None


class Rooms:
    """Of a pool whose namespaces take these places. `elsewhere`: pods in namespaces without a pool, of which as many
    count as one namespace may have."""

    def __init__(self, cap: int, taken: Iterable[Taken], elsewhere: int) -> None:
        self._cap = cap
        known = list(taken)
        self._all = sum(one.beside for one in known)
        self._promised = sum(one.promised for one in known)
        self._elsewhere = elsewhere

    def of(self, own: Taken) -> int:
        """How many more the namespace may have that takes these of them; below 0 where it has too many.

        Others' pods that end take none of its own share: whoever deletes pods chooses how long they end.
        """
        others = self._all - own.beside
        left = self._cap - own.live - own.ending - others - min(self._elsewhere, own.size)
        of_share = min(own.share - own.live - own.ending, self.later(own) - own.ending)
        return max(left, of_share) if of_share > 0 else left

    def later(self, own: Taken) -> int:
        """The same, once all that end are gone."""
        return self._cap - own.live - (self._promised - own.promised)

    def made(self, own: Taken) -> None:
        """The namespace that takes these of them has one more."""
        after = Taken(own.size, own.live + 1, own.ending, own.share)
        self._all += after.beside - own.beside
        self._promised += after.promised - own.promised

    @property
    def over(self) -> int:
        """How many places too many are taken and promised, once all that end are gone; below 0 where some are free."""
        return self._promised - self._cap

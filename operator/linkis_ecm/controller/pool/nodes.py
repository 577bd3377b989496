"""The nodes on which members wait: whether new pods may go there, and how much they have. Each is read once a minute.

A member on a node that takes no new pods is about to be evicted: a drain or an autoscaler has begun there. Nodes are
not watched, so the operator needs no more than `get` for them. Must not decide what becomes of a member.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.warm.room import free_on
from linkis_ecm.kube.client import ApiError, KubeClient, NotFound
from linkis_ecm.kube.resources import NODES
from linkis_ecm.model.formats import parse_quantity

log = logging.getLogger(__name__)

PERIOD = timedelta(seconds=60)
# In one look, those that were not looked at for longest; and at a time. Larger pools take several minutes for a round.
MOST, AT_A_TIME = 64, 8
# Seconds for each. A healthy API server answers within some ten milliseconds.
READ_SECONDS = 2.0
# A node on which no member was for so long is forgotten.
FORGOTTEN = timedelta(minutes=30)
# Taints by which autoscalers close a node that they take away: cluster autoscaler, Karpenter and its earlier versions.
_CLOSING = frozenset({"ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted", "karpenter.sh/disruption"})


@dataclass(slots=True)
class _Node:
    looked: datetime
    closed_since: datetime | None = None
    allocatable: Mapping[str, str] = field(default_factory=dict)
    # None: it was not read.
    labels: Mapping[str, str] | None = None
    taints: tuple[Mapping[str, Any], ...] = ()


class MemberNodes:
    """What is known of the nodes of all pools' members."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._known: dict[str, _Node] = {}

    def is_closed(self, pod: PodView) -> bool:
        """Whether the pod's node takes no new pods since a time after the pod was made.

        A pod that came later tolerates it: another one in its place would come there as well.
        """
        node = self._known.get(pod.node)
        if node is None or node.closed_since is None:
            return False
        return pod.created is None or pod.created < node.closed_since

    def free_on(self, name: str, pods: Iterable[PodView]) -> dict[str, Decimal]:
        """What the node has left beside these pods of it; empty where it was not read."""
        node = self._known.get(name)
        return free_on(node.allocatable, pods) if node is not None else {}

    def lets_in(self, name: str, pod: PodView) -> bool:
        """Whether a pod without a node may use that one. Yes where that is not known."""
        node = self._known.get(name)
        if node is None or node.labels is None or pod.placing is None:
            return True
        return pod.placing.may_use(node.labels, node.taints)

    def can_give(self, pod: PodView, requests: Mapping[str, str]) -> bool:
        """Whether the pod's node could give it these requests, if it were empty. Yes where that is not known: its
        kubelet says Infeasible then."""
        has = self.free_on(pod.node, ())
        return all(parse_quantity(asked) <= has[name] for name, asked in requests.items() if name in has)

    async def look(self, names: Iterable[str], now: datetime) -> bool:
        """Read the nodes that are due. Returns whether something of them has changed."""
        due = [one for one in set(names) - {""} if one not in self._known or self._known[one].looked + PERIOD <= now]
        due.sort(key=lambda one: (self._known[one].looked.timestamp() if one in self._known else 0.0, one))
        limit = asyncio.Semaphore(AT_A_TIME)
        changed = await asyncio.gather(*(self._read(one, now, limit) for one in due[:MOST]))
        self._known = {name: one for name, one in self._known.items() if one.looked + FORGOTTEN > now}
        return any(changed)

    async def _read(self, name: str, now: datetime, limit: asyncio.Semaphore) -> bool:
        before = self._known.get(name)
        since = before.closed_since if before is not None else None
        node = before if before is not None else _Node(now)
        allocatable, labels, taints = node.allocatable, node.labels, node.taints
        try:
            async with limit:
                found = await self._client.get(NODES, name, timeout=READ_SECONDS)
            closed, has = is_closed(found), (found.get("status") or {}).get("allocatable") or {}
            allocatable = {one: str(has[one]) for one in ("cpu", "memory") if one in has}
            labels = found["metadata"].get("labels") or {}
            taints = tuple((found.get("spec") or {}).get("taints") or ())
        except NotFound:
            closed = True
        except ApiError as error:
            # Without the right to read nodes nothing is known, and members stay.
            log.info("node %s: %s", name, error)
            closed = since is not None
        self._known[name] = _Node(now, (since or now) if closed else None, allocatable, labels, taints)
        return closed is not (since is not None) or (allocatable, labels, taints) != (
            node.allocatable, node.labels, node.taints
        )  # fmt: skip


def is_closed(node: dict[str, Any]) -> bool:
    """Whether the node is cordoned, or an autoscaler takes it away."""
    spec = node.get("spec") or {}
    taints = {taint.get("key") for taint in spec.get("taints") or []}
    return bool(spec.get("unschedulable")) or bool(taints & _CLOSING)

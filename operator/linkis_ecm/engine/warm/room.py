"""Whether an engine that waits for room would get any from a warm pool's members, and how much. Pure.

Kubernetes says what is missing by its words alone. Members hold cpu, memory, disk and their places as pods: an engine
that lacks anything else as well waits as long without them. Must not count members, nor choose them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.model import reasons
from linkis_ecm.model.formats import parse_quantity

# What a quota may name that members hold too: "" is a resource that is counted and not measured here.
_QUOTA = {
    "cpu": "cpu", "requests.cpu": "cpu", "limits.cpu": "cpu limit",
    "memory": "memory", "requests.memory": "memory", "limits.memory": "memory",
    "ephemeral-storage": "", "requests.ephemeral-storage": "", "limits.ephemeral-storage": "",
    "pods": "", "count/pods": "",
}  # fmt: skip
# The same for a node, in the scheduler's words.
_NODE = {
    "Insufficient cpu": "cpu", "Insufficient memory": "memory", "Insufficient ephemeral-storage": "",
    "Insufficient pods": "", "Too many pods": "",
}  # fmt: skip
# Characters of a refusal that are looked at: a cluster's message is shorter.
WORDS_MAX = 4000
_EXCEEDED = re.compile(r"exceeded quota: [^,]{1,300}, requested: ([^ ]{1,2000}), used: ")
_NODES = re.compile(r"\b0/(\d{1,6}) nodes are (?:un)?available: (.*)", re.DOTALL)
_COUNTED = re.compile(r"(\d{1,6}) (.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Need:
    """What an engine lacks that members hold. `amounts`: by resource, what the engine asks for; None where that is not
    known or is one of its kind. `on_node`: of a node, not of a quota."""

    amounts: Mapping[str, Decimal | None]
    on_node: bool

    def share(self, member: PodView) -> float:
        """Which part of it the member leaves when it goes, 1 for all."""
        if self.on_node and not member.node:
            return 0.0
        return float(min((_share(asked, _has(member, name)) for name, asked in self.amounts.items()), default=1))


def need(reason: str, message: str, pod: PodView | None) -> Need | None:
    """What would help an engine with this reason and message in its status; None where no member has it. `pod`: the
    engine's own, which waits for a node."""
    if reason == reasons.QUOTA_EXCEEDED.name:
        return _of_quota(message[:WORDS_MAX])
    if reason == reasons.UNSCHEDULABLE.name and pod is not None:
        return _of_nodes(pod.unschedulable[:WORDS_MAX], pod)
    return None


def _of_quota(words: str) -> Need | None:
    """A quota names all that it has too little of."""
    found = _EXCEEDED.search(words)
    if found is None:
        return None
    amounts: dict[str, Decimal | None] = {}
    for entry in found[1].split(","):
        name, _, asked = entry.partition("=")
        if name not in _QUOTA:
            return None
        if _QUOTA[name]:
            amounts[_QUOTA[name]] = _amount(asked)
    return Need(amounts, on_node=False)


def _of_nodes(words: str, pod: PodView) -> Need | None:
    """There must be a node that lacks nothing else. A node counts once for each resource that it lacks, and else for
    one reason, mostly; where it counts twice, no member goes."""
    found = _NODES.search(words)
    if found is None:
        return None
    lacking: set[str] = set()
    excluded = without = 0
    for part in found[2].split(" preemption:")[0].rstrip(". ").split(", "):
        counted = _COUNTED.fullmatch(part.strip())
        if counted is None:
            continue
        number, why = int(counted[1]), counted[2]
        if why in _NODE:
            lacking.add(_NODE[why])
        elif why.startswith("Insufficient "):
            without = max(without, number)
        else:
            excluded += number
    if not lacking or excluded + without >= int(found[1]):
        return None
    return Need({name: _has(pod, name) for name in lacking if name}, on_node=True)


def _share(asked: Decimal | None, has: Decimal | None) -> Decimal:
    return Decimal(1) if not asked or not has else min(Decimal(1), has / asked)


def _has(pod: PodView, name: str) -> Decimal | None:
    """What the pod holds of it."""
    return _amount({"cpu": pod.cpu_request, "cpu limit": pod.cpu_limit}.get(name, pod.memory_limit))


def _amount(text: str) -> Decimal | None:
    try:
        return parse_quantity(text)
    except ValueError:
        return None

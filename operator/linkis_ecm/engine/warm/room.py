"""Whether an engine that waits for room would get enough of it from warm pools' members, and how much. Pure.

Kubernetes says what is missing by its words alone. Members hold cpu, memory, disk and their places as pods: an engine
that lacks anything else as well waits as long without them, and so does one that lacks more than all of them hold. Must
not choose which members go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from linkis_ecm.engine import resizing
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.model import reasons
from linkis_ecm.model.formats import parse_quantity

# What a quota may name that members hold too: "" is a resource that is counted and not measured here.
_QUOTA = {
    "cpu": "cpu", "requests.cpu": "cpu", "limits.cpu": "cpu limit",
    "memory": "memory", "requests.memory": "memory", "limits.memory": "memory limit",
    "ephemeral-storage": "", "requests.ephemeral-storage": "", "limits.ephemeral-storage": "",
    "pods": "pods", "count/pods": "pods",
}  # fmt: skip
# The same for a node, in the scheduler's words.
_NODE = {
    "Insufficient cpu": "cpu", "Insufficient memory": "memory", "Insufficient ephemeral-storage": "",
    "Insufficient pods": "", "Too many pods": "",
}  # fmt: skip
# Characters of a refusal that are looked at: a cluster's message is shorter.
WORDS_MAX = 4000
_EXCEEDED = re.compile(
    r"exceeded quota: ([^,]{1,300}), requested: ([^ ]{1,1000}), used: ([^ ]{0,1000})(?: limited: ([^ ]{1,1000}))?"
)
# The kubelet's word for what its node has too little of.
_ENOUGH = re.compile(r"enough (?:resource|capacity): (cpu|memory)\b")
_NODES = re.compile(r"\b0/(\d{1,6}) nodes are (?:un)?available: (.*)", re.DOTALL)
_COUNTED = re.compile(r"(\d{1,6}) (.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Need:
    """What an engine lacks that members hold. `amounts`: by resource, what the engine asks for; None where that is not
    known or is one of its kind. `free`: what a quota still has of it, which only lacks the rest. `on_node`: of a node,
    not of a quota: what a node still has, the scheduler does not say. `about`: while that is the same, it is the same
    need, whatever others have taken or left meanwhile. `grows`: the engine runs, and its pod is to be larger by that;
    `node`: where it is, if that one has no room."""

    amounts: Mapping[str, Decimal | None]
    on_node: bool
    free: Mapping[str, Decimal] = field(default_factory=dict)
    about: tuple[str, ...] = ()
    grows: bool = False
    node: str = ""

    def share(self, member: PodView) -> float:
        """Which part of what is lacking the member leaves when it goes, 1 for all."""
        if self.on_node and not member.node:
            return 0.0
        return float(min((_share(self._lack(name), _has(member, name)) for name in self.amounts), default=1))

    def _lack(self, name: str) -> Decimal | None:
        """What a quota lacks: more than what is asked for where it was lowered below what is used. Of a node, all."""
        asked = self.amounts[name]
        return None if asked is None else asked - self.free.get(name, Decimal(0))

    def is_met(self, members: Sequence[PodView], free: Mapping[str, Decimal] | None = None) -> bool:
        """Whether these members together leave enough, beside what is free there anyway. An amount that is not known is
        enough."""
        return bool(members) and not self._short(members, free)

    def in_words(self, members: Sequence[PodView], free: Mapping[str, Decimal] | None = None) -> str:
        """What these members leave, and what is asked for, where that is not enough."""
        short = self._short(members, free)
        return ", and ".join(f"{_text(name, has)} of {name} where it asks for {_text(name, asked)}"
                             for name, (has, asked) in short.items())  # fmt: skip

    def _short(
        self, members: Sequence[PodView], free: Mapping[str, Decimal] | None
    ) -> dict[str, tuple[Decimal, Decimal]]:  # fmt: skip
        """By resource that is not enough: what there would be, and what is asked for."""
        found = {}
        for name, asked in sorted(self.amounts.items()):
            amounts = [_has(member, name) for member in members]
            if asked is None or None in amounts:
                continue
            there = self.free if free is None else free
            has = there.get(name, Decimal(0)) + sum(one for one in amounts if one is not None)
            if has < asked:
                found[name] = (has, asked)
        return found


def free_on(allocatable: Mapping[str, str], pods: Iterable[PodView]) -> dict[str, Decimal]:
    """What a node has left beside these pods of it, as far as they are known: there may be others."""
    known = [pod for pod in pods if pod.phase not in ("Succeeded", "Failed")]
    found = {}
    for name in ("cpu", "memory"):
        has = _amount(allocatable.get(name, ""))
        if has is not None:
            # Negative where a kubelet has no room yet for what a pod asks for.
            found[name] = has - sum(_has(pod, name) or Decimal(0) for pod in known)
    return found


def need(reason: str, message: str, pod: PodView | None) -> Need | None:
    """What would help an engine with this reason and message in its status; None where no member has it. `pod`: the
    engine's own, which waits for a node."""
    if reason == reasons.QUOTA_EXCEEDED.name:
        return _of_quota(message[:WORDS_MAX])
    if reason == reasons.UNSCHEDULABLE.name and pod is not None:
        return _of_nodes(pod.unschedulable[:WORDS_MAX], pod)
    return None


def need_to_grow(words: str, pod: PodView | None) -> Need | None:
    """What would help an engine that runs with less than it asks for, by its kubelet's words or by what the API server
    said to its resize; None where no member has it."""
    if pod is None:
        return None
    if pod.resize_pending:
        return _of_own_node(pod) if resizing.kind(pod.resize_pending) == resizing.DEFERRED else None
    found = _of_quota(words[:WORDS_MAX])
    return None if found is None else replace(found, grows=True)


def _of_own_node(pod: PodView) -> Need | None:
    """Its kubelet waits for room: for what the pod asks for, less what it has."""
    asked = {name: _has(pod, name) for name in ("cpu", "memory")}
    # A kubelet that says nothing of what a container has left a pool's pod as it was there.
    cpu, _, memory = parts if len(parts := pod.member_size.split("/")) == 3 else ("", "", "")
    cpu, memory = pod.actual_cpu or cpu, pod.actual_memory or memory
    whole, has = _amount(pod.memory_limit), _amount(memory)
    before = {
        "cpu": _has(replace(pod, cpu_request=cpu), "cpu") if cpu else None,
        # Of memory the limit is known alone: a part of it is requested, the same as of the new one.
        "memory": asked["memory"] * has / whole if asked["memory"] and has and whole else None,
    }
    named = _ENOUGH.search(pod.resize_pending)
    amounts: dict[str, Decimal | None] = {}
    for name, amount in asked.items():
        had = before[name]
        if amount is not None and had is not None and amount > had and (named is None or named[1] == name):
            amounts[name] = amount - had
    if not amounts or not pod.node:
        return None
    about = (pod.uid, pod.node, *(f"{name}+{more}" for name, more in amounts.items()))
    return Need(amounts, on_node=True, about=about, grows=True, node=pod.node)


def _of_quota(words: str) -> Need | None:
    """A quota names all that it has too little of."""
    found = _EXCEEDED.search(words)
    if found is None:
        return None
    amounts: dict[str, Decimal | None] = {}
    free: dict[str, Decimal] = {}
    used, limited = (_entries(found[number] or "") for number in (3, 4))
    for name, asked in _entries(found[2]).items():
        if name not in _QUOTA:
            return None
        if measured := _QUOTA[name]:
            amounts[measured] = _amount(asked)
            most, taken = (_amount(one.get(name, "")) for one in (limited, used))
            if most is not None and taken is not None:
                # Negative where the quota was lowered: so much more must go. It may have two names for one thing.
                free[measured] = min(most - taken, free.get(measured, most - taken))
    about = (found[1], *(f"{name}={asked}/{limited.get(name, '')}" for name, asked in _entries(found[2]).items()))
    return Need(amounts, on_node=False, free=free, about=about)


def _entries(words: str) -> dict[str, str]:
    """`a=1,b=2` as Kubernetes writes it."""
    return {name: amount for entry in words.split(",") for name, _, amount in [entry.rstrip(".").partition("=")]}


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
    amounts = {name: _has(pod, name) for name in sorted(lacking) if name}
    return Need(amounts, on_node=True, about=(pod.uid, *(f"{name}={asked}" for name, asked in amounts.items())))


def _share(asked: Decimal | None, has: Decimal | None) -> Decimal:
    return Decimal(1) if asked is None or asked <= 0 or not has else min(Decimal(1), has / asked)


def _has(pod: PodView, name: str) -> Decimal | None:
    """What all containers of the pod hold of it. A limit without a request is the request."""
    if name == "pods":
        return Decimal(1)
    texts = {
        "cpu": pod.cpu_request or pod.cpu_limit, "cpu limit": pod.cpu_limit,
        "memory": pod.memory_request or pod.memory_limit, "memory limit": pod.memory_limit,
    }  # fmt: skip
    own = _amount(texts[name])
    return None if own is None else own + pod.beside.get(name, Decimal(0))


def _text(name: str, amount: Decimal) -> str:
    amount = max(Decimal(0), amount)
    return f"{int(amount) >> 20}Mi" if name.startswith("memory") else f"{amount.normalize():f}"


def _amount(text: str) -> Decimal | None:
    try:
        return parse_quantity(text)
    except ValueError:
        return None

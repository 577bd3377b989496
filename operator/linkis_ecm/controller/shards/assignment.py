"""Which namespaces a shard may begin to serve, by what all shards have claimed. Pure.

A shard is an operator with a Lease of its own. The claims of all are the data of one ConfigMap: by the name of each
shard's Lease what its leader serves. A claim counts while its shard may have a leader. Must not read or write.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

# In place of namespaces' names: all of the cluster. Neither is a name that a namespace can have.
ALL = "*"
# Leaders of one shard, far more than there can be.
MAX_TERM = 1 << 53
# The work of the installation that is of no namespace: one shard at a time does it.
COMMON = "(common)"


@dataclass(frozen=True, slots=True)
class Claim:
    """What the leader of a shard serves. `term` counts its leaders; `holder` is the last one, for people to read."""

    namespaces: frozenset[str]
    term: int = 0
    holder: str = ""

    def overlap(self, wanted: Collection[str]) -> frozenset[str]:
        """What of `wanted` is claimed. Who wants ALL learns the names that are claimed."""
        if ALL in wanted:
            return self.namespaces
        return frozenset(wanted) if ALL in self.namespaces else self.namespaces & frozenset(wanted)

    def without(self, taken: Collection[str]) -> Claim:
        """The rest of it. Of a claim on ALL nothing is left: whoever it was writes a new one when it leads again."""
        left = frozenset() if ALL in {*self.namespaces, *taken} else self.namespaces - frozenset(taken)
        return Claim(left, self.term, self.holder)

    def text(self) -> str:
        """As it stands in the ConfigMap."""
        return json.dumps({"namespaces": sorted(self.namespaces), "term": self.term, "holder": self.holder})


# A shard that has written nothing yet, such as an operator from before there were shards, may serve everything.
UNKNOWN = Claim(frozenset({ALL}))


def read_claims(data: Mapping[str, str], neighbours: Iterable[str]) -> dict[str, Claim]:
    """The claims by the shards' Leases; UNKNOWN for a neighbour without one, and for a text that is none."""
    return dict.fromkeys(neighbours, UNKNOWN) | {name: _read(text) for name, text in data.items()}


def _read(text: str) -> Claim:
    try:
        found = json.loads(text)
        names, term, holder = found["namespaces"], found["term"], found["holder"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return UNKNOWN
    usable = isinstance(names, list) and all(isinstance(one, str) for one in names)
    # A bool is an int, and one of thousands of digits cannot be written again.
    if not usable or type(term) is not int or not 0 <= term <= MAX_TERM or not isinstance(holder, str):
        return UNKNOWN
    return Claim(frozenset(names), term, holder)


def rivals(claims: Mapping[str, Claim], *, own: str, wanted: Collection[str]) -> list[str]:
    """The shards that claim something of `wanted`: whether each may have a leader decides."""
    return sorted(name for name, claim in claims.items() if name != own and claim.overlap(wanted))


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the claims are to be, by Lease, where they change; and what of the own namespaces another shard serves,
    with that shard's Lease."""

    changed: dict[str, Claim]
    waiting: dict[str, str]


def assign(
    claims: Mapping[str, Claim], *, own: str, wanted: Collection[str], led: Collection[str], holder: str, begins: bool
) -> Assignment:  # fmt: skip
    """What the shard `own`, which leads, claims now.

    `led` are the rivals that may have a leader. `begins`: its leader has written nothing yet. Then its claim changes in
    any case, by its term: who has read the claims before and found this shard without a leader cannot write any more.
    """
    waiting = {
        name: lease for lease in sorted(led, reverse=True) for name in claims[lease].overlap(wanted)
    }  # fmt: skip
    taken = frozenset(wanted) - waiting.keys()
    changed: dict[str, Claim] = {}
    for lease in rivals(claims, own=own, wanted=wanted):
        if lease not in led:
            changed[lease] = claims[lease].without(taken)
    before = claims.get(own, UNKNOWN)
    mine = Claim(taken, before.term + begins, holder)
    if mine != before:
        changed[own] = mine
    return Assignment(changed, waiting)

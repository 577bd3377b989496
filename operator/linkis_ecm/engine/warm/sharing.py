"""How fast a pool makes members, and whose turn is next among its namespaces. Pure.

The tokens are one pool's, so what its plugin costs the API server is bounded however many namespaces it has. They go
round: a namespace whose members never stay takes its turn and not those of others. Must not know why members lack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

# Creates a second of one pool, and at once after a pause: a node starts about ten pods a second.
PER_SECOND, BURST = 20.0, 20
# Tokens are added up in floats: one that lacks a millionth of a microsecond would be waited for without a wait.
_LEAST_WAIT = 0.01
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tokens of a pool at a time. A new one is full. `turns`: of each namespace, the number of its last turn."""

    tokens: float = float(BURST)
    at: datetime = _LONG_AGO
    turns: Mapping[str, int] = field(default_factory=dict, compare=False)

    def refilled(self, now: datetime) -> Bucket:
        gained = max(0.0, (now - self.at).total_seconds()) * PER_SECOND
        return replace(self, tokens=min(float(BURST), self.tokens + gained), at=now)

    def next_at(self, now: datetime) -> datetime:
        """When there is a token again, where there is none."""
        return now + timedelta(seconds=max(_LEAST_WAIT, (1 - self.tokens) / PER_SECOND))

    def spent(self, wanted: Mapping[str, int]) -> tuple[tuple[str, ...], Bucket]:
        """The namespaces of new members, whoever waited longest first, and what is left. `wanted` has all of the
        pool's namespaces; of those that wait for as long, the first is first."""
        left = dict(wanted)
        turns = {namespace: turn for namespace, turn in self.turns.items() if namespace in left}
        turn = max(turns.values(), default=0)
        order: list[str] = []
        while len(order) < int(self.tokens):
            waiting = [namespace for namespace, number in left.items() if number > 0]
            if not waiting:
                break
            chosen = min(waiting, key=lambda namespace: turns.get(namespace, 0))
            turn += 1
            turns[chosen] = turn
            left[chosen] -= 1
            order.append(chosen)
        return tuple(order), replace(self, tokens=self.tokens - len(order), turns=turns)

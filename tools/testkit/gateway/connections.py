"""What the tests of bounded connections share: a count that keeps what it was told, and roomy bounds."""

from __future__ import annotations

from collections import Counter

from linkis_ecm.process.ports.connections import ConnectionLimits, Connections

ROOMY = ConnectionLimits(total=1000, strangers=1000)


class Told:
    """A Counts: the reasons, and the connections that it watches."""

    def __init__(self) -> None:
        self.cuts: Counter[str] = Counter()
        self.connections: Connections | None = None

    def watch(self, connections: Connections) -> None:
        self.connections = connections

    def cut(self, reason: str) -> None:
        self.cuts[reason] += 1

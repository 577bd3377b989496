"""Which connections one port keeps: bounds on all, on those of strangers, and on those of one address. No I/O.

A connection is a stranger's until a request on it has logged in (`prove`). Where strangers have no place left, a new
connection takes the place of one that has said nothing for long, of the address that has most: whoever sends a request
at once, such as a user or the kubelet, is served while others hold as many connections as they can. Must not know
HTTP, TLS or who logs in.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

# Addresses that have logged in are remembered: as many, for so many seconds. Their strangers are cut after others'.
KNOWN_ADDRESSES = 10_000
KNOWN_SECONDS = 600.0
# One login may hold this part of all places; its further connections stay strangers.
LOGIN_SHARE = 8


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Connections at a time: `total` of all, `strangers` before their first login, `per_peer` of one address (0: no
    limit)."""

    total: int
    strangers: int
    per_peer: int = 0


# Of a port of health and metrics: for the kubelet, some scrapers, a person.
NOBODY_LOGS_IN = ConnectionLimits(total=128, strangers=128)


class Counts(Protocol):
    """Where it is counted. Reasons: peer (the address has too many), full (each place is taken by a login), replaced
    (a stranger, for a newer one), silent (no request in time), slow (no login and no answer in time)."""

    def watch(self, connections: Connections) -> None:
        """Show how many are open from now on."""

    def cut(self, reason: str) -> None:
        """Count one that was refused or cut."""


class Connection(Protocol):
    """One connection, as far as the bounds look at it."""

    peer: str
    is_busy: bool

    def abort(self) -> None:
        """Cut it at once."""


class Connections:
    """The connections of one port. `clock` gives seconds."""

    def __init__(self, limits: ConnectionLimits, *, counts: Counts, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._counts = counts
        self._clock = clock
        self._peers: Counter[str] = Counter()
        # By address, the oldest first.
        self._strangers: dict[str, OrderedDict[Connection, None]] = {}
        self._stranger_count = 0
        # The login of each, that with the oldest request first.
        self._known: OrderedDict[Connection, str] = OrderedDict()
        self._logins: Counter[str] = Counter()
        # When an address last logged in.
        self._addresses: OrderedDict[str, float] = OrderedDict()
        counts.watch(self)

    @property
    def strangers(self) -> int:
        """Connections on which nobody has logged in, unfinished handshakes included."""
        return self._stranger_count

    @property
    def known(self) -> int:
        """Connections on which somebody has logged in."""
        return len(self._known)

    def admit(self, connection: Connection) -> bool:
        """Whether a new connection may stay; another one may have been cut for it."""
        limits, peer = self._limits, connection.peer
        if limits.per_peer and self._peers[peer] >= limits.per_peer:
            self._counts.cut("peer")
            return False
        full = self._stranger_count + len(self._known) >= limits.total
        if full or self._stranger_count >= limits.strangers:
            victim = self._victim(known_too=full)
            if victim is None:
                self._counts.cut("full")
                return False
            self.cut(victim, "replaced")
        self._peers[peer] += 1
        self._strangers.setdefault(peer, OrderedDict())[connection] = None
        self._stranger_count += 1
        return True

    def prove(self, connection: Connection, login: str) -> None:
        """Somebody has logged in on it. `login` is counted, not shown: a user, or an engine."""
        peer = connection.peer
        if connection in self._known:
            self._known.move_to_end(connection)
        elif connection in self._strangers.get(peer, ()):
            if self._logins[login] >= max(1, self._limits.total // LOGIN_SHARE):
                return
            self._forget_stranger(connection)
            self._known[connection] = login
            self._logins[login] += 1
        else:
            return
        self._addresses[peer] = self._clock()
        self._addresses.move_to_end(peer)
        if len(self._addresses) > KNOWN_ADDRESSES:
            self._addresses.popitem(last=False)

    def cut(self, connection: Connection, reason: str) -> None:
        """Cut a connection; it is counted off at once."""
        self._counts.cut(reason)
        self.lost(connection)
        connection.abort()

    def lost(self, connection: Connection) -> None:
        """The connection is gone. May be called again."""
        if (login := self._known.pop(connection, None)) is not None:
            _take_one(self._logins, login)
        elif connection in self._strangers.get(connection.peer, ()):
            self._forget_stranger(connection)
        else:
            return
        _take_one(self._peers, connection.peer)

    def _forget_stranger(self, connection: Connection) -> None:
        of_peer = self._strangers[connection.peer]
        del of_peer[connection]
        if not of_peer:
            del self._strangers[connection.peer]
        self._stranger_count -= 1

    def _victim(self, *, known_too: bool) -> Connection | None:
        """Which connection goes for a new one: a silent stranger of the address that has most, then one of an address
        that has logged in, then one whose request runs; at last a login's without a request."""
        first: list[str] = []
        later: list[str] = []
        for peer in self._strangers:
            (later if self._is_known(peer) else first).append(peer)
        for peers in (first, later):
            # Of several addresses with as many, the one that came first.
            peers.sort(key=lambda peer: -len(self._strangers[peer]))
        of_strangers = [self._strangers[peer] for peer in (*first, *later)]
        idle = _first(chain.from_iterable(of_strangers), busy=False)
        if idle is not None:
            return idle
        busy = _first(chain.from_iterable(of_strangers), busy=True)
        if busy is not None:
            return busy
        return _first(self._known, busy=False) if known_too else None

    def _is_known(self, peer: str) -> bool:
        at = self._addresses.get(peer)
        return at is not None and self._clock() - at < KNOWN_SECONDS


def _first(connections: Iterable[Connection], *, busy: bool) -> Connection | None:
    return next((one for one in connections if one.is_busy is busy), None)


def _take_one(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]

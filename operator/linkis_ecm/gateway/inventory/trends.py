"""The last hour of engines in figures, sampled by the gateway itself: curves for people without Prometheus.

Bounded: 360 samples, for all engines together, for each of 64 namespaces, and for each of the 256 users in a namespace
whose engines changed last. It begins anew with the process, and each replica has its own. Must not decide who may see
which curve.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from linkis_ecm.gateway.inventory.cache import EngineCache
from linkis_ecm.gateway.inventory.view import Key, KnownEngine, startup_millis
from linkis_ecm.model.states import FINAL, ORDER, EngineState

# Seconds between two samples, and how many there are: one hour.
EVERY_SECONDS = 10.0
SAMPLES = 360
# A curve has 360 samples of 12 small figures, some 60 KiB. A user has one in each namespace with engines of the user.
USERS_MAX, NAMESPACES_MAX = 256, 64
# A user and a namespace.
Owner = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment: engines by state in the order of `ORDER`, and what happened since the sample before."""

    at: float
    states: tuple[int, ...]
    ready: int = 0
    failed: int = 0
    # The longest start of those that became ready; 0 where none did.
    start_millis: int = 0

    def plus(self, other: Sample) -> Sample:
        """Both of one moment together."""
        states = tuple(map(sum, zip(self.states, other.states, strict=True)))
        ready, failed = self.ready + other.ready, self.failed + other.failed
        return Sample(self.at, states, ready, failed, max(self.start_millis, other.start_millis))


@dataclass(slots=True)
class _Since:
    """What has happened since the last sample."""

    ready: int = 0
    failed: int = 0
    start_millis: int = 0

    def add(self, before: KnownEngine | None, now: KnownEngine) -> None:
        if now.ready_time and (before is None or not before.ready_time):
            self.ready += 1
            self.start_millis = max(self.start_millis, startup_millis(now.startup).get("ready", 0))
        if now.state is EngineState.FAILED and (before is None or before.state not in FINAL):
            self.failed += 1


@dataclass(slots=True)
class _Curve:
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    since: _Since = field(default_factory=_Since)


class Trends:
    """The curves. `sample` is to be called every EVERY_SECONDS."""

    def __init__(self, engines: EngineCache, clock: Callable[[], datetime]) -> None:
        self._engines = engines
        self._clock = clock
        self._all = _Curve()
        self._owners: OrderedDict[Owner, _Curve] = OrderedDict()
        self._namespaces: OrderedDict[str, _Curve] = OrderedDict()
        self._before: dict[Key, KnownEngine] = {}
        engines.observe(self._on_change)

    def _on_change(self, key: Key, engine: KnownEngine | None) -> None:
        before = self._before.pop(key, None)
        if engine is None:
            return
        self._before[key] = engine
        if before is not None and before.uid != engine.uid:
            before = None
        # The first list has engines of long ago: they are no news.
        if self._engines.synced:
            self._all.since.add(before, engine)
            for curves, name, most in self._places(engine):
                _curve(curves, name, most).since.add(before, engine)

    def _places(self, engine: KnownEngine) -> tuple[tuple[OrderedDict[Any, _Curve], Any, int], ...]:
        """Where an engine counts besides the curve of all."""
        owner = engine.user, engine.namespace
        return (self._owners, owner, USERS_MAX), (self._namespaces, engine.namespace, NAMESPACES_MAX)

    def sample(self) -> None:
        """Take the figures of now."""
        at = self._clock().timestamp()
        by_place: dict[Any, list[KnownEngine]] = {}
        for engine in self._engines:
            for curves, name, most in self._places(engine):
                by_place.setdefault(name, []).append(engine)
                if name not in curves and len(curves) < most:
                    curves[name] = _Curve()
        for name, curve in (*self._owners.items(), *self._namespaces.items()):
            _take(curve, at, by_place.get(name, ()))
        _take(self._all, at, self._engines)

    def of(self, user: str | None) -> list[Sample]:
        """The samples of a user's engines in all namespaces, of everybody's for None; the oldest first."""
        if user is None:
            return list(self._all.samples)
        return self.sums(owner=lambda owner: owner[0] == user, namespace=lambda _: False)

    def sums(self, *, owner: Callable[[Owner], bool], namespace: Callable[[str], bool]) -> list[Sample]:
        """The samples of the engines of these owners, and of everybody's in these namespaces; the oldest first."""
        # Each curve has a sample of each moment since it began, so the last ones are of one moment, and so on.
        newest_first: list[Sample] = []
        chosen = [
            *(curve for name, curve in self._owners.items() if owner(name)),
            *(curve for name, curve in self._namespaces.items() if namespace(name)),
        ]
        for curve in chosen:
            for number, sample in enumerate(reversed(curve.samples)):
                if number < len(newest_first):
                    newest_first[number] = newest_first[number].plus(sample)
                else:
                    newest_first.append(sample)
        return newest_first[::-1]

    def is_kept(self, engine: KnownEngine) -> bool:
        """Whether there is a curve that this engine counts in besides that of all, or room for one."""
        return all(name in curves or len(curves) < most for curves, name, most in self._places(engine))

    @property
    def has_begun(self) -> bool:
        """Whether a sample was taken."""
        return bool(self._all.samples)

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            self.sample()
            await asyncio.sleep(EVERY_SECONDS)


def _curve(curves: OrderedDict[Any, _Curve], name: Any, most: int) -> _Curve:
    """The curve of that name, made where there is none; that which changed longest ago makes room for it."""
    curve = curves.setdefault(name, _Curve())
    curves.move_to_end(name)
    while len(curves) > most:
        curves.popitem(last=False)
    return curve


def _take(curve: _Curve, at: float, engines: Iterable[KnownEngine]) -> None:
    counts = dict.fromkeys(ORDER, 0)
    for engine in engines:
        counts[engine.state] += 1
    since, curve.since = curve.since, _Since()
    curve.samples.append(Sample(at, tuple(counts.values()), since.ready, since.failed, since.start_millis))

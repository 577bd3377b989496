"""Which engines wanted a member of each warm pool, and how long members need to get ready: what `engine.warm.demand`
decides by.

It is counted while this process leads. After a change of the leader it begins with what the engines' resources say:
when they were made, and whether they started warm or found the pool empty. Nothing here waits. Must not decide.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.engine.causes.cold_starts import UNMET, cold_reason
from linkis_ecm.engine.names import label_hash
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.view import EngineView, PluginView
from linkis_ecm.engine.warm import demand
from linkis_ecm.engine.warm.demand import Arrivals, Wanted
from linkis_ecm.engine.warm.schedule import scheduled


@dataclass(slots=True)
class _Demand:
    """Of one pool."""

    arrivals: dict[str, Arrivals] = field(default_factory=dict)
    # Seconds from the creation of each of the last members until it could be claimed.
    samples: deque[float] = field(default_factory=lambda: deque(maxlen=demand.READY_SAMPLES))

    def add(self, namespace: str, at: datetime) -> None:
        before = self.arrivals.get(namespace, Arrivals())
        self.arrivals[namespace] = before.after(at, demand.refill_seconds(self.samples))


class Demands:
    """Of one operator, by pool (the value of the label POOL_LABEL)."""

    def __init__(
        self, *, cache: Cache, clock: Callable[[], datetime], is_foreign: Callable[[EngineView], bool]
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._is_foreign = is_foreign
        self._pools: dict[str, _Demand] = {}

    def arrived(self, pool: str, namespace: str) -> None:
        """An engine took a member, or would have. Before the first pass nothing is counted: that recalls all."""
        if (known := self._pools.get(pool)) is not None:
            known.add(namespace, self._clock())

    def became_ready(self, pod: PodView) -> None:
        """A member can be claimed from now on."""
        known = self._pools.get(pod.member.pool) if pod.member is not None else None
        if known is not None and pod.created is not None:
            known.samples.append(max(0.0, (self._clock() - pod.created).total_seconds()))

    def wanted(self, plugin: PluginView, namespaces: list[str], now: datetime) -> dict[str, Wanted]:
        """How many members the plugin's pool is to have in each of these namespaces."""
        given = plugin.spec.warm_pool
        if given is None:
            return {}
        pool = label_hash(plugin.name)
        known = self._pools.get(pool)
        if known is None:
            known = self._pools[pool] = self._recalled(plugin, now)
        by_schedule = scheduled(given.schedule or (), now)
        return {
            name: demand.wanted(given, by_schedule, known.arrivals.get(name, Arrivals()), now) for name in namespaces
        }

    def forget(self, pool: str) -> None:
        """There is no such pool any more."""
        self._pools.pop(pool, None)

    def forget_all(self) -> None:
        """This replica does not lead any more."""
        self._pools.clear()

    def _recalled(self, plugin: PluginView, now: datetime) -> _Demand:
        """From the engines that the API server has. An engine that came and was deleted is not known any more."""
        since = now - timedelta(seconds=demand.LONGEST_WINDOW)
        found = _Demand()
        engines = [one for one in self._cache.engines.values() if since < one.created <= now and _wanted_one(one)]
        for engine in sorted(engines, key=lambda one: one.created):
            of = self._cache.plugin_for(engine.spec)
            if of is not None and of.name == plugin.name and not self._is_foreign(engine):
                found.add(engine.namespace, engine.created)
        return found


def _wanted_one(engine: EngineView) -> bool:
    startup = engine.status.get("startup")
    return (isinstance(startup, dict) and startup.get("kind") == "warm") or cold_reason(engine) in UNMET

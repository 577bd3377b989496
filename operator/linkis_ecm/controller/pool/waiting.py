"""The engines that wait for room, and what the warm pools of their namespaces have given them already.

Kept in memory alone: after a restart an engine that still waits may get as much once more. Must not delete, nor choose
a member: `engine.warm.sizing` does.
"""

from __future__ import annotations

from collections.abc import Callable

from linkis_ecm.controller.state.cache import Cache, Key
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.view import EngineView
from linkis_ecm.engine.warm.room import Need, need
from linkis_ecm.model import reasons
from linkis_ecm.model.states import FINAL

_WAITS = frozenset({reasons.QUOTA_EXCEEDED.name, reasons.UNSCHEDULABLE.name})
# Of what an engine lacks. Shares are sums of floats.
_ALL = 0.999


class WaitingEngines:
    """By namespace. An engine gets as much room as it asks for and no more: what it waits for then is something else,
    such as a single node's room, and the pool is filled again."""

    def __init__(self, *, cache: Cache, is_foreign: Callable[[EngineView], bool]) -> None:
        self._cache = cache
        self._is_foreign = is_foreign
        # The part that each engine has got of what it lacks.
        self._given: dict[str, dict[Key, float]] = {}

    def note(self, before: EngineView | None, after: EngineView | None) -> bool:
        """An engine has changed. Returns whether it began or ended to wait."""
        engine = after or before
        if engine is None:
            return False
        waits = after is not None and _waits(after) and not self._is_foreign(after)
        known = self._given.get(engine.namespace, {})
        if waits == (engine.key in known):
            return False
        if waits:
            self._given.setdefault(engine.namespace, {})[engine.key] = 0.0
        else:
            del known[engine.key]
            if not known:
                del self._given[engine.namespace]
        return True

    def helped(self, namespace: str) -> int:
        """How many engines would get room from a member that goes now."""
        return len(self._needs(namespace))

    def gave(self, pods: list[PodView]) -> None:
        """Members that go, one for each engine that waits."""
        for namespace in {pod.namespace for pod in pods}:
            going = (pod for pod in pods if pod.namespace == namespace)
            for (key, lacks), pod in zip(self._needs(namespace), going, strict=False):
                self._given[namespace][key] += lacks.share(pod)

    def _needs(self, namespace: str) -> list[tuple[Key, Need]]:
        found = []
        for key, given in self._given.get(namespace, {}).items():
            engine = self._cache.engines.get(key)
            if given >= _ALL or engine is None:
                continue
            lacks = need(engine.text("reason"), engine.text("message"), self._cache.pod_of(engine))
            if lacks is not None:
                found.append((key, lacks))
        return found


def _waits(engine: EngineView) -> bool:
    return engine.state not in FINAL and not engine.stop_requested and engine.text("reason") in _WAITS

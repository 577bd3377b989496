"""Gives engines their places under the limits of people (`engine.admission.limits`), before their pods are made.

An engine has a place from the moment that it is given one until it ends. Looking and giving are one step without an
await, so no two engines get the same place, in whatever order events arrive. What is given and has no pod yet is
remembered in this process alone: after a crash the engine asks again. It asks before each of its pods: its spec's
resources may have grown. Must not decide an engine's state.
"""

from __future__ import annotations

from linkis_ecm.controller.cache import Cache, Key, Scope
from linkis_ecm.engine.admission.limits import NO_LIMITS, NOTHING, Amount, Holder, Limits, Refusal, amount, refusal
from linkis_ecm.engine.facts import holds_place
from linkis_ecm.engine.podspec import InvalidSpecError, sizes
from linkis_ecm.engine.view import EngineView, PluginView
from linkis_ecm.model import reasons
from linkis_ecm.model.engineconn import EngineConnSpec


class Admission:
    """`ask` in each pass of an engine that may need a place; `waiting_for` when one has become free."""

    def __init__(self, *, cache: Cache, limits: Limits = NO_LIMITS) -> None:
        self._cache = cache
        self._limits = limits
        # By uid, what engines were given that may have no pod yet.
        self._given: dict[str, Amount] = {}
        # Holders by scope, as of the cache's `place_changes` and the number of places given: a burst of passes over
        # waiting engines counts them once.
        self._holders: dict[Scope, tuple[tuple[int, int], list[Holder]]] = {}
        self._gifts = 0
        # By uid: a spec, its plugin, and what a pod of both has. To compute it takes ten times as long as to look.
        self._sizes: dict[str, tuple[EngineConnSpec, PluginView, Amount | None]] = {}

    def start_leading(self) -> None:
        """Another operator may have led meanwhile: only what the cache shows counts."""
        self._given.clear()
        self._gifts += 1

    def ask(self, engine: EngineView) -> Refusal | None:
        """None: the engine has a place now, or needs none in this pass. Else why it gets none."""
        spec = engine.spec
        if self._limits == NO_LIMITS or spec is None or self._cache.pod_of(engine) is not None:
            return None
        wanted = self._wanted(engine)
        if wanted is None:
            return None  # it cannot start now, for another reason
        asked = Holder(engine.namespace, engine.name, spec.user, wanted)
        user, namespace = _scopes(engine)
        limited = self._limits.of_namespace(engine.namespace) != NOTHING
        refused = refusal(
            asked,
            of_user=self._holders_of(user, but=asked) if self._limits.of_user(spec.user) != NOTHING else (),
            of_namespace=self._holders_of(namespace, but=asked) if limited else (),
            limits=self._limits,
        )
        if refused is None and self._given.get(engine.uid) != wanted:
            self._given[engine.uid] = wanted
            self._gifts += 1
        return refused

    def has_place(self, engine: EngineView) -> bool:
        return engine.uid in self._given or holds_place(engine) or self._cache.has_pod(engine.uid)

    def waiting_for(self, ended: EngineView) -> list[Key]:
        """The engines that may get the place of one that has ended, the oldest first."""
        self._given.pop(ended.uid, None)
        self._sizes.pop(ended.uid, None)
        self._gifts += 1
        if self._limits == NO_LIMITS or ended.spec is None:
            return []
        found = {engine.key: engine for scope in _scopes(ended) for engine in self._cache.live_of(scope)}
        waiting = [one for one in found.values() if one.text("reason") == reasons.LIMIT_REACHED.name]
        return [one.key for one in sorted(waiting, key=lambda one: (one.created, one.uid))]

    def _holders_of(self, scope: Scope, *, but: Holder) -> list[Holder]:
        return [one for one in self._counted(scope) if (one.namespace, one.name) != (but.namespace, but.name)]

    def _counted(self, scope: Scope) -> list[Holder]:
        stamp = (self._cache.place_changes, self._gifts)
        known = self._holders.get(scope)
        if known is not None and known[0] == stamp:
            return known[1]
        found = [
            Holder(engine.namespace, engine.name, engine.spec.user, self._amount(engine))
            for engine in self._cache.live_of(scope)
            if engine.spec is not None and self.has_place(engine)
        ]
        if known is None:
            # Scopes without an engine are not kept.
            self._holders = {one: held for one, held in self._holders.items() if self._cache.live_of(one)}
        self._holders[scope] = (stamp, found)
        return found

    def _amount(self, engine: EngineView) -> Amount:
        """What its pod has: the spec may be edited once that is made. Without one, the most that the next may have."""
        pod = self._cache.pod_of(engine)
        if pod is not None and (pod.cpu_request or pod.memory_limit):
            return amount(pod.cpu_request, pod.memory_limit, pod.extended)
        given, wanted = self._given.get(engine.uid, NOTHING), self._wanted(engine) or NOTHING
        return Amount(1).at_least(given).at_least(wanted)

    def _wanted(self, engine: EngineView) -> Amount | None:
        """What its next pod will have; None where there can be none now."""
        plugin = self._cache.plugin_for(engine.spec)
        if engine.spec is None or plugin is None:
            return None
        known = self._sizes.get(engine.uid)
        if known is not None and known[0] is engine.spec and known[1] is plugin:
            return known[2]
        try:
            size = sizes(engine.spec, plugin.spec)
            found = amount(size.cpu, size.memory, size.extended)
        except InvalidSpecError:
            found = None
        self._sizes[engine.uid] = engine.spec, plugin, found
        return found


def _scopes(engine: EngineView) -> tuple[Scope, Scope]:
    return ("user", engine.spec.user if engine.spec is not None else ""), ("namespace", engine.namespace)

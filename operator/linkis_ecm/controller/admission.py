"""Gives engines their places under the limits of people (`engine.admission.limits`), before their pods are made.

An engine has a place from the moment that it is given one until it ends. Looking and giving are one step without an
await, so no two engines get the same place, in whatever order events arrive. What is given and has no pod yet is
remembered in this process alone: after a crash the engine asks again. It asks before each of its pods, and again before
a pod that it took from a warm pool is resized: its spec's resources may have grown. Must not decide an engine's state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from linkis_ecm.controller.state.cache import Cache, Key, Scope
from linkis_ecm.engine.admission.limits import (
    NO_LIMITS,
    NOTHING,
    Amount,
    Holder,
    Limits,
    Refusal,
    amount,
    refusal,
    shares,
)
from linkis_ecm.engine.facts import holds_place
from linkis_ecm.engine.pending import asks_as_at_claim, keeps_members_size
from linkis_ecm.engine.pod.spec import sizes_now
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.soft_pause import whole
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
        # By uid, to what a pod is being resized.
        self._growing: dict[str, Amount] = {}
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
        pod = self._cache.pod_of(engine)
        if self._limits == NO_LIMITS or (pod is not None and not _is_unconfirmed(engine, pod)):
            return None
        wanted = self._wanted(engine)
        if wanted is None:
            return None  # it cannot start now, for another reason
        refused = self._refusal(engine, wanted)
        if refused is None and pod is None and self._given.get(engine.uid) != wanted:
            self._given[engine.uid] = wanted
            self._gifts += 1
        return refused

    def has_lost_place(self, engine: EngineView) -> bool:
        """Whether an engine that was refused now was given a place before, and has no pod: its spec has grown. Others
        may have that place: `waiting_for` says who."""
        return engine.uid in self._given and not holds_place(engine) and not self._cache.has_pod(engine.uid)

    @contextmanager
    def growing(
        self, engine: EngineView, resources: Mapping[str, Mapping[str, str]] | None
    ) -> Iterator[Refusal | None]:
        """For the resize of an engine's pod to `resources`: asked at the moment of the write, for the spec may be
        edited at any time, and counted until its answer is known. Yields why it may not have them; None: it may."""
        if resources is None:
            yield None
            return
        asked = amount(resources["requests"]["cpu"], resources["limits"]["memory"])
        refused = self._refusal(engine, asked)
        if refused is None:
            self._growing[engine.uid] = asked
            self._gifts += 1
        try:
            yield refused
        finally:
            if self._growing.pop(engine.uid, None) is not None:
                self._gifts += 1

    def _refusal(self, engine: EngineView, wanted: Amount) -> Refusal | None:
        if self._limits == NO_LIMITS or engine.spec is None:
            return None
        spec = engine.spec
        asked = Holder(engine.namespace, engine.name, spec.user, wanted)
        user, namespace = _scopes(engine)
        limited = self._limits.of_namespace(engine.namespace) != NOTHING
        return refusal(
            asked,
            of_user=self._holders_of(user, but=asked) if self._limits.of_user(spec.user) != NOTHING else (),
            of_namespace=self._holders_of(namespace, but=asked) if limited else (),
            limits=self._limits,
        )

    def shares(self) -> dict[str, float]:
        """How much of each limit the one uses who has most of its own, by the limit's name; 1 is all."""
        if self._limits == NO_LIMITS:
            return {}
        most: dict[str, float] = {}
        for kind, name in self._cache.scopes():
            limit = self._limits.of_user(name) if kind == "user" else self._limits.of_namespace(name)
            if limit != NOTHING:
                for what, share in shares(kind, limit, self._counted((kind, name))).items():
                    most[what] = max(share, most.get(what, 0.0))
        return most

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
            # Of a soft-paused engine what it gets back: it has its place when it is used again.
            pod = whole(engine, pod)
            has = amount(pod.cpu_request, pod.memory_limit, pod.extended)
            has = has.at_least(self._growing.get(engine.uid, NOTHING))
            # What its kubelet has not taken back, or never will: it holds that, whatever it asks for.
            has = has.at_least(amount(pod.actual_cpu, pod.actual_memory))
            # From a warm pool, and to be resized: now, or again after a refusal.
            resized = _is_unconfirmed(engine, pod) or (
                keeps_members_size(engine, pod) and asks_as_at_claim(engine, pod)
            )
            return has.at_least(self._wanted(engine) or NOTHING) if resized else has
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
        size = sizes_now(engine, plugin)
        found = amount(size.cpu, size.memory, size.extended) if size is not None else None
        self._sizes[engine.uid] = engine.spec, plugin, found
        return found


def _is_unconfirmed(engine: EngineView, pod: PodView) -> bool:
    """Whether the pod came from a warm pool, and is about to be resized to the engine's spec as it is then."""
    return pod.claimed is not None and not engine.text("podName")


def _scopes(engine: EngineView) -> tuple[Scope, Scope]:
    return ("user", engine.spec.user if engine.spec is not None else ""), ("namespace", engine.namespace)

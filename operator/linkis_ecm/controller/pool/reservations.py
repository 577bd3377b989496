"""Gives each engine one ready member of its plugin's pool to claim, and no two engines the same one.

A reservation is of this process alone: what makes a claim safe is the API server's test (docs/design/warm.md). It ends
when the engine has a pod, has ended or gives it back. Nothing here waits, so no other engine comes between a look and a
reservation. Must not write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from linkis_ecm.controller.pool.claim_failures import ClaimFailures, Place
from linkis_ecm.controller.pool.roster import Roster
from linkis_ecm.controller.pool.templates import Templates
from linkis_ecm.controller.state.cache import Cache, Key
from linkis_ecm.engine.causes.cold_starts import Cold
from linkis_ecm.engine.names import label_hash
from linkis_ecm.engine.pod.spec import InvalidSpecError, sizes_now
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.view import EngineView, PluginView
from linkis_ecm.engine.warm.demand import largest_size
from linkis_ecm.engine.warm.members import Contact, oldest_first
from linkis_ecm.model.engine_status import ColdReason
from linkis_ecm.model.states import FINAL
from linkis_ecm.model.users import linkis_user


@dataclass(frozen=True, slots=True)
class _Reservation:
    engine: Key
    engine_uid: str
    pod: str
    pod_uid: str


class Reservations:
    """Over the roster. `on_refused(pod)` is called for a member that an engine could not take: it is deleted. One that
    `is_closing` is offered to nobody; where claims fail (`failures`) members are offered to one engine at a time. An
    engine is offered those alone whose nodes `can_give` them its requests, each if it were empty."""

    def __init__(
        self,
        *,
        cache: Cache,
        roster: Roster,
        templates: Templates,
        on_refused: Callable[[PodView], None] = lambda _: None,
        is_closing: Callable[[PodView], bool] = lambda _: False,
        contact: Callable[[PodView], Contact] = lambda _: Contact.REPORTS,
        failures: ClaimFailures,
        can_give: Callable[[PodView, Mapping[str, str]], bool] = lambda pod, requests: True,
    ) -> None:
        self._cache = cache
        self._roster = roster
        self._templates = templates
        self._on_refused = on_refused
        self._is_closing = is_closing
        self._contact = contact
        self._failures = failures
        self._can_give = can_give
        self._by_engine: dict[str, _Reservation] = {}
        self._by_pod: dict[str, _Reservation] = {}
        # Uids of members that were refused and may still be in the cache.
        self._refused: set[str] = set()

    def offer(self, engine: EngineView) -> tuple[PodView, dict[str, Any]] | None:
        """A member that is this engine's to claim, and the template that it was made of; the same on each call.

        None where there is none now: no pool, none ready, or all of them other engines'.
        """
        plugin = self._cache.plugin_for(engine.spec)
        found = self._ready(engine, plugin)
        if plugin is None or found is None:
            return None
        template, members = found[0], self._roomy(engine, plugin, found[1])
        own = self._by_engine.get(engine.uid)
        if own is not None:
            for pod in members:
                if pod.uid == own.pod_uid:
                    return pod, template
            self._remove(own)
        for pod in sorted(oldest_first(members), key=self._contact):
            if self.holder(pod) is None:
                if not self._failures.may_try(_place(engine, plugin), engine.uid, _user(engine)):
                    return None
                self._add(_Reservation(engine.key, engine.uid, pod.name, pod.uid))
                return pod, template
        return None

    def free(self, namespace: str) -> list[PodView]:
        """The members of all pools there that no engine is about to take."""
        pools = sorted(pool for space, pool in self._cache.pools() if space == namespace)
        found = [pod for pool in pools for pod in self._roster.members(namespace, pool)]
        return [pod for pod in found if not pod.deleting and not pod.ended and self.holder(pod) is None]

    def release(self, engine: EngineView) -> None:
        """The engine takes no member: another one may have it."""
        self._failures.release(engine.uid)
        own = self._by_engine.get(engine.uid)
        if own is not None:
            self._remove(own)

    def why_none(self, engine: EngineView) -> Cold | None:
        """Why it is offered no member though there are some; None where there are none."""
        plugin = self._cache.plugin_for(engine.spec)
        if plugin is None:
            return None
        because = self._failures.why_none(_place(engine, plugin), _user(engine), plugin.name)
        found = self._ready(engine, plugin) if because is None else None
        if found is None or not found[1] or self._roomy(engine, plugin, found[1]):
            return because
        said = (
            f"Each pod of the warm pool of {plugin.name} is on a node that can never give it what the engine asks for."
        )
        return Cold(ColdReason.MISFIT, said)

    def _ready(
        self, engine: EngineView, plugin: PluginView | None
    ) -> tuple[dict[str, Any], list[PodView]] | None:  # fmt: skip
        """The template and the members that engines may take now, whoever has reserved them; None without a pool."""
        if plugin is None or not largest_size(plugin.spec.warm_pool):
            return None
        try:
            template, as_made = self._templates.of(plugin, engine.namespace)
        except InvalidSpecError:
            return None
        return template, [
            pod
            for pod in self._roster.members(engine.namespace, label_hash(plugin.name))
            if as_made.is_ready(pod)
            and pod.uid not in self._refused
            and not self._is_closing(pod)
            and self._contact(pod) < Contact.SILENT
        ]

    def _roomy(self, engine: EngineView, plugin: PluginView, members: list[PodView]) -> list[PodView]:
        """Those whose nodes could give the engine its size."""
        size = sizes_now(engine, plugin)
        if size is None:
            return members
        requests = size.as_container["requests"]
        by_node = {pod.node: pod for pod in members}
        small = {node for node, pod in by_node.items() if not self._can_give(pod, requests)}
        return [pod for pod in members if pod.node not in small] if small else members

    def claim_failed(self, engine: EngineView, because: Cold) -> None:
        """A claim has cost a member and came to nothing."""
        if (plugin := self._cache.plugin_for(engine.spec)) is not None:
            self._failures.failed(_place(engine, plugin), _user(engine), because)

    def claim_succeeded(self, engine: EngineView) -> None:
        """The agent has taken the claim."""
        if (plugin := self._cache.plugin_for(engine.spec)) is not None:
            self._failures.succeeded(_place(engine, plugin), _user(engine))

    def refused(self, pod: PodView) -> None:
        """The member could not be claimed: nobody gets it any more, and it is deleted if it is still there."""
        if self._roster.is_there(pod):
            # Else it was forgotten already, and would never be again.
            self._refused.add(pod.uid)
        if (held := self._by_pod.get(pod.uid)) is not None:
            self._remove(held)
        self._on_refused(pod)

    def is_refused(self, pod: PodView) -> bool:
        return pod.uid in self._refused

    def holder(self, pod: PodView) -> str | None:
        """The uid of the engine for which the member is reserved; None where it is free."""
        held = self._by_pod.get(pod.uid)
        if held is None:
            return None
        engine = self._cache.engines.get(held.engine)
        wants = engine is not None and engine.uid == held.engine_uid and engine.state not in FINAL
        if wants and not self._cache.has_pod(held.engine_uid):
            return held.engine_uid
        self._remove(held)
        return None

    def is_claim(self, before: PodView, after: PodView | None) -> bool:
        """Whether the engine that was offered this member has it now. Anybody can take the label of a pool from a pod
        of his, so that alone is no claim."""
        held = self._by_pod.get(before.uid)
        return held is not None and after is not None and after.member is None and after.owner_uid == held.engine_uid

    def forget(self, pod: PodView) -> None:
        """The pod is gone, or is no member any more."""
        self._refused.discard(pod.uid)
        if (held := self._by_pod.get(pod.uid)) is not None:
            self._remove(held)

    def _add(self, reservation: _Reservation) -> None:
        self._by_engine[reservation.engine_uid] = self._by_pod[reservation.pod_uid] = reservation

    def _remove(self, reservation: _Reservation) -> None:
        self._by_engine.pop(reservation.engine_uid, None)
        self._by_pod.pop(reservation.pod_uid, None)


def _place(engine: EngineView, plugin: PluginView) -> Place:
    return engine.namespace, label_hash(plugin.name)


def _user(engine: EngineView) -> str:
    return linkis_user(engine.spec.user) if engine.spec is not None else ""

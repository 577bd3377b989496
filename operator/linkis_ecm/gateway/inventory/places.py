"""Whether a new engine, or a bigger one, would get a place under the limits of people, by this gateway's own cache.

Of a new engine it is an early answer with figure and remedy: the operator decides, with the same rule. Of an engine
that grows in place it is the decision: no pod is made, so the operator is not asked. Must not make or change anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from linkis_ecm.engine.admission.limits import NO_LIMITS, Amount, Holder, Limits, Refusal, refusal
from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.sizes import with_sizes
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.model import reasons


class Growing:
    """What engines of this gateway are growing to now: counted before their resources say so."""

    def __init__(self) -> None:
        self._to: dict[tuple[str, str], list[Amount]] = {}

    @contextmanager
    def hold(self, engine: tuple[str, str], to: Amount) -> Iterator[None]:
        """Count the engine, by namespace and name, as that big too, until the end of the block."""
        held = self._to.setdefault(engine, [])
        held.append(to)
        try:
            yield
        finally:
            held.remove(to)
            if not held:
                self._to.pop(engine, None)

    def at_least(self, engine: tuple[str, str], now: Amount) -> Amount:
        """The most that the engine has or is growing to."""
        for to in self._to.get(engine, ()):
            now = now.at_least(to)
        return now


def refused_place(
    asked: Holder, *, engines: EngineCache, plugins: PluginCache, growing: Growing, limits: Limits
) -> Refusal | None:
    """Why the engine would get no place now, else None. What waits for a place has none."""
    if limits == NO_LIMITS:
        return None
    held = _holders(asked, engines=engines, plugins=plugins, growing=growing)
    return refusal(
        asked,
        of_user=[one for one in held if one.user == asked.user],
        of_namespace=[one for one in held if one.namespace == asked.namespace],
        limits=limits,
    )


def refused_growth(
    before: Amount, asked: Holder, *, engines: EngineCache, plugins: PluginCache, growing: Growing, limits: Limits
) -> Refusal | None:
    """Why a live engine may not become as big as `asked`, else None. What does not grow is not asked about."""
    to = asked.amount
    grown = Amount(
        0,
        to.cpu_milli if to.cpu_milli > before.cpu_milli else 0,
        to.memory_bytes if to.memory_bytes > before.memory_bytes else 0,
    )
    return refused_place(
        Holder(asked.namespace, asked.name, asked.user, grown),
        engines=engines,
        plugins=plugins,
        growing=growing,
        limits=limits,
    )


def _amount(view: KnownEngine) -> Amount:
    """What its pod has: its spec may be edited below it, and above it too, where it would take others' places. While
    the operator has not seen the newest spec, as after a resize of a moment ago, the more of both."""
    spec = Amount(1, view.cpu_milli, view.memory_bytes, view.extended)
    if not view.pod_memory_bytes and not view.pod_cpu_milli:
        return spec
    pod = Amount(1, view.pod_cpu_milli, view.pod_memory_bytes, view.pod_extended)
    # One that has not got its size from the claim yet is resized as soon as there is room: its place is kept.
    return pod if view.is_observed and not view.is_unsized else pod.at_least(spec)


def _holders(asked: Holder, *, engines: EngineCache, plugins: PluginCache, growing: Growing) -> list[Holder]:
    """The engines of the same user or namespace that have a place, without `asked` itself."""
    return [
        Holder(
            view.namespace,
            view.name,
            view.user,
            growing.at_least((view.namespace, view.name), _amount(view)),
        )
        for engine in engines
        if (engine.user == asked.user or engine.namespace == asked.namespace)
        and (engine.namespace, engine.name) != (asked.namespace, asked.name)
        and not engine.is_final
        and engine.reason != reasons.LIMIT_REACHED.name
        for view in (with_sizes(plugins, engine),)
    ]

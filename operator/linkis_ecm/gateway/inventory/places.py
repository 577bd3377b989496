"""Whether a new engine would get a place under the limits of people, by this gateway's own cache.

An early answer with figure and remedy: the operator decides, with the same rule. Must not make or change anything.
"""

from __future__ import annotations

from linkis_ecm.engine.admission.limits import NO_LIMITS, Amount, Holder, Limits, Refusal, refusal
from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.sizes import with_sizes
from linkis_ecm.model import reasons


def refused_place(asked: Holder, *, engines: EngineCache, plugins: PluginCache, limits: Limits) -> Refusal | None:
    """Why the engine would get no place now, else None. What waits for a place has none."""
    if limits == NO_LIMITS:
        return None
    held = [
        Holder(view.namespace, view.name, view.user, Amount(1, view.cpu_milli, view.memory_bytes))
        for engine in engines
        if (engine.user == asked.user or engine.namespace == asked.namespace)
        and not engine.is_final
        and engine.reason != reasons.LIMIT_REACHED.name
        for view in (with_sizes(plugins, engine),)
    ]
    return refusal(
        asked,
        of_user=[one for one in held if one.user == asked.user],
        of_namespace=[one for one in held if one.namespace == asked.namespace],
        limits=limits,
    )

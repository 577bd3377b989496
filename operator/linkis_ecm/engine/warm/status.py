"""What an EngineConnPlugin's status says of its warm pool. Pure. Must not count members: `sizing` does.

Two installations may have pools of one plugin, each in its own namespaces: each writes what it knows of its own ones
and leaves the others' as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from linkis_ecm.engine.times import format_second
from linkis_ecm.engine.view import PluginView
from linkis_ecm.engine.warm import problems
from linkis_ecm.engine.warm.demand import largest_size
from linkis_ecm.engine.warm.problems import Problem
from linkis_ecm.engine.warm.sizing import PlaceState
from linkis_ecm.model.warm_pool import PLACES_MAX

CONDITION = "WarmPoolReady"


@dataclass(frozen=True, slots=True)
class Shown:
    """What the metrics say of a pool in all its namespaces."""

    # Members by their state; what is wanted, by where that comes from.
    members: Mapping[str, int]
    wanted: Mapping[str, int]
    # What keeps it from being filled.
    reasons: frozenset[str]


def shown(states: Sequence[PlaceState]) -> Shown:
    """Its numbers for the metrics."""
    wanted: Counter[str] = Counter()
    for one in states:
        wanted[one.size_from.value] += one.wanted
    kinds = ("ready", "starting", "ending")
    return Shown(
        members={kind: sum(getattr(one, kind) for one in states) for kind in kinds},
        wanted=wanted,
        reasons=frozenset(one.problem.reason.name for one in states if one.problem is not None),
    )


def status_patch(
    plugin: PluginView,
    states: Iterable[PlaceState],
    *,
    is_own: Callable[[str], bool],
    now: datetime,
    served: Sequence[str] = (),
    elsewhere: Collection[str] = (),
) -> dict[str, Any]:
    """A merge patch of the plugin's status; empty where it says all already.

    `is_own(namespace)`: whether this operator serves it; `served` are those, empty: all. `elsewhere` are those of other
    shards of the installation. Where a pool is in those alone and none is known yet, they say so, not this one.
    Without a pool the status says nothing of one.
    """
    before = plugin.status
    known = before.get("warmPool")
    foreign = [one for one in _places(known) if not is_own(str(one.get("namespace"))) and not _is_unserved(one)]
    unserved = _unserved(plugin, {*elsewhere, *(str(one.get("namespace")) for one in foreign)}, is_own)
    found = [*map(_place, states), *foreign, *unserved]
    places = sorted(found, key=lambda one: str(one.get("namespace")))[:PLACES_MAX]
    wanted = largest_size(plugin.spec.warm_pool) > 0
    if not wanted:
        places = []
    pool = _pool(places) if wanted else None
    others = [one for one in _list(before.get("conditions")) if one.get("type") != CONDITION]
    conditions = [*others, _condition(plugin, places, before, now, [*served, *elsewhere])] if wanted else others
    if wanted and not places and _is_elsewhere(plugin, elsewhere):
        return {}
    desired: dict[str, Any] = {"warmPool": pool, "conditions": conditions}
    return {
        name: value
        for name, value in desired.items()
        if (before.get(name) or None) != (value or None)
    }  # fmt: skip


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _places(pool: Any) -> list[Mapping[str, Any]]:
    return _list(pool.get("namespaces")) if isinstance(pool, Mapping) else []


def _place(state: PlaceState) -> dict[str, Any]:
    said = {"reason": state.problem.reason.name, "message": state.problem.message} if state.problem is not None else {}
    numbers = {"ready": state.ready, "starting": state.starting, "wanted": state.wanted}
    return {"namespace": state.namespace} | numbers | {"sizeFrom": state.size_from.value} | said


def _unserved(plugin: PluginView, others: Collection[str], is_own: Callable[[str], bool]) -> list[dict[str, Any]]:
    """Namespaces that the plugin names, and that neither this installation nor another one (`others`) serves. Another
    one that comes later writes its own numbers in their place."""
    given = plugin.spec.warm_pool.namespaces if plugin.spec.warm_pool is not None else None
    names = sorted(name for name in set(given or ()) if name not in others and not is_own(name))
    problem = Problem(problems.NOT_SERVED)
    return [_place(PlaceState(namespace=name, ready=0, starting=0, wanted=0, problem=problem)) for name in names]


def _is_unserved(place: Mapping[str, Any]) -> bool:
    return place.get("reason") == problems.NOT_SERVED.name


def _pool(places: list[Any]) -> dict[str, Any]:
    sums = {name: sum(_number(one.get(name)) for one in places) for name in ("ready", "starting", "wanted")}
    # 0/0 is a pool that is to have no pods now.
    nowhere = all(map(_is_unserved, places))
    summary = problems.NO_NAMESPACE.name if nowhere else f"{sums['ready']}/{sums['wanted']}"
    return {"summary": summary, **sums, "namespaces": [dict(one) for one in places]}


def _is_elsewhere(plugin: PluginView, elsewhere: Collection[str]) -> bool:
    """Whether the pool is to be in a namespace of another shard."""
    given = plugin.spec.warm_pool.namespaces if plugin.spec.warm_pool is not None else None
    return bool(elsewhere if given is None else set(given) & set(elsewhere))


def _nowhere(plugin: PluginView, served: Sequence[str]) -> str:
    """Which namespaces the plugin names, and which ones are served: none is in both."""
    given = plugin.spec.warm_pool.namespaces if plugin.spec.warm_pool is not None else None
    if not given:
        return ""
    there = f": it serves {_some(served)}" if served else ""
    return f"spec.warmPool.namespaces names {_some(given)}, and this installation serves none of them{there}."


def _some(names: Sequence[str]) -> str:
    """Some names, for a message that has a bound."""
    shown = ", ".join(sorted(names)[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _condition(
    plugin: PluginView, places: list[Any], before: Mapping[str, Any], now: datetime, served_here: Sequence[str]
) -> dict[str, Any]:  # fmt: skip
    """True while each namespace that is to have pods has one to give, and nothing keeps the pool from being filled."""
    reason, message = problems.FILLED.name, problems.FILLED.sentence
    in_trouble = [one for one in places if one.get("reason")]
    if all(map(_is_unserved, places)):
        reason, message = (
            problems.NO_NAMESPACE.name,
            Problem(problems.NO_NAMESPACE, _nowhere(plugin, served_here)).message,
        )
    elif in_trouble:
        reason = str(in_trouble[0]["reason"])
        more = f" So it is in {len(in_trouble) - 1} more namespaces or otherwise." if len(in_trouble) > 1 else ""
        message = f"In namespace {in_trouble[0].get('namespace')}: {in_trouble[0].get('message')}{more}"
    elif any(_number(one.get("ready")) < _number(one.get("wanted")) for one in places):
        reason, message = problems.FILLING.name, problems.FILLING.sentence
    # A schedule may say 0 for now.
    served = all(_number(one.get("ready")) or not _number(one.get("wanted")) for one in places)
    usable = not all(map(_is_unserved, places)) and not in_trouble and served
    status = "True" if usable else "False"
    old = next((one for one in _list(before.get("conditions")) if one.get("type") == CONDITION), {})
    since = old.get("lastTransitionTime") if old.get("status") == status else None
    return {
        "type": CONDITION, "status": status, "reason": reason, "message": message,
        "observedGeneration": plugin.generation, "lastTransitionTime": since or format_second(now),
    }  # fmt: skip

"""What an EngineConnPlugin's status says of its warm pool. Pure. Must not count members: `sizing` does.

Two installations may have pools of one plugin, each in its own namespaces: each writes what it knows of its own ones
and leaves the others' as they are.

The list of namespaces has a bound. `unlisted` has those beyond it, one entry for each writer: the sums and the
condition follow from the list and from these, so that all writers write the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from linkis_ecm.engine.pod_view import FINALIZERS_MAX, PodView
from linkis_ecm.engine.times import format_second
from linkis_ecm.engine.view import PluginView
from linkis_ecm.engine.warm import problems
from linkis_ecm.engine.warm.capping import Stuck
from linkis_ecm.engine.warm.demand import largest_size
from linkis_ecm.engine.warm.places import PlaceState
from linkis_ecm.engine.warm.problems import Problem
from linkis_ecm.model.formats import sentences
from linkis_ecm.model.warm_pool import PLACES_MAX, UNLISTED_MAX

CONDITION = "WarmPoolReady"
# What a name of Kubernetes has. A tenant chooses those of his pods' finalizers, and people read them in a terminal.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._/-]")
# Characters of one finalizer that are shown, and of a pod's or node's name.
_FINALIZER_SHOWN, _NAME_MAX = 100, 253


@dataclass(frozen=True, slots=True)
class Shown:
    """What the metrics say of a pool in all its namespaces."""

    # Members by their state; what is wanted, by where that comes from.
    members: Mapping[str, int]
    wanted: Mapping[str, int]
    # What keeps it from being filled.
    reasons: frozenset[str]


def shown(states: Sequence[PlaceState], stuck_elsewhere: int = 0) -> Shown:
    """Its numbers for the metrics."""
    wanted: Counter[str] = Counter()
    for one in states:
        wanted[one.size_from.value] += one.wanted
    kinds = ("ready", "starting", "ending")
    stuck = stuck_elsewhere + sum(one.stuck.pods for one in states if one.stuck is not None)
    return Shown(
        members={kind: sum(getattr(one, kind) for one in states) for kind in kinds} | {"stuck": stuck},
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
    wanted = largest_size(plugin.spec.warm_pool) > 0
    theirs = [one for one in _unlisted(known) if not is_own(str(one.get("namespace")))]
    places, cut = _listed(found, is_cut=bool(theirs)) if wanted else ([], [])
    unlisted = _beyond(theirs, cut, is_own) if wanted else []
    pool = _pool(places, unlisted) if wanted else None
    others = [one for one in _list(before.get("conditions")) if one.get("type") != CONDITION]
    mine = [_condition(plugin, places, unlisted, now, [*served, *elsewhere])] if wanted else []
    conditions = [*others, *mine]
    if wanted and not places and _is_elsewhere(plugin, elsewhere):
        return {}
    desired: dict[str, Any] = {"warmPool": pool, "conditions": conditions}
    patch = {
        name: value
        for name, value in desired.items()
        if (before.get(name) or None) != (value or None)
    }  # fmt: skip
    if patch.get("warmPool") and not unlisted and isinstance(known, Mapping) and "unlisted" in known:
        # A merge patch leaves what it does not name.
        patch["warmPool"] = {**patch["warmPool"], "unlisted": None}
    return patch


def _listed(
    found: Sequence[Mapping[str, Any]], *, is_cut: bool
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:  # fmt: skip
    """Those that the list has room for, and the others. All by name; where some are left out, also by another writer
    (`is_cut`), those in trouble first, then those with pods that do not end or with none to give: whatever the
    condition has to say is in the list, and all writers agree on the order."""
    by_name = sorted(found, key=lambda one: str(one.get("namespace")))
    if is_cut or len(by_name) > PLACES_MAX:
        by_name.sort(key=_rank)
    return by_name[:PLACES_MAX], by_name[PLACES_MAX:]


def _rank(place: Mapping[str, Any]) -> int:
    if place.get("reason"):
        return 0
    if place.get("stuck"):
        return 1
    ready, wanted = _number(place.get("ready")), _number(place.get("wanted"))
    return 4 if ready >= wanted else 3 if ready else 2


def _beyond(
    theirs: Sequence[Mapping[str, Any]], cut: Sequence[Mapping[str, Any]], is_own: Callable[[str], bool]
) -> list[Mapping[str, Any]]:
    """One entry for all that is cut of this writer, by its first name; those of others (`theirs`) as they are. What is
    cut of another one has an entry of its own until that one writes: its place cannot be known here."""
    found = {str(one.get("namespace")): one for one in theirs}
    own = [one for one in cut if is_own(str(one.get("namespace")))]
    for some in (own, *([one] for one in cut if not is_own(str(one.get("namespace"))) and not _is_unserved(one))):
        if some:
            name = min(str(one.get("namespace")) for one in some)
            stuck = [held for one in some if isinstance(held := one.get("stuck"), Mapping)]
            found[name] = {"namespace": name, "namespaces": len(some)} | _sums(some) | {
                "inTrouble": sum(bool(one.get("reason")) for one in some),
                "stuck": sum(_number(held.get("pods")) for held in stuck),
            }  # fmt: skip
    return [found[name] for name in sorted(found)][:UNLISTED_MAX]


def _sums(entries: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    entries = list(entries)
    return {name: sum(_number(one.get(name)) for one in entries) for name in ("ready", "starting", "wanted")}


def _list(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _places(pool: Any) -> list[Mapping[str, Any]]:
    return _list(pool.get("namespaces")) if isinstance(pool, Mapping) else []


def _unlisted(pool: Any) -> list[Mapping[str, Any]]:
    return _list(pool.get("unlisted")) if isinstance(pool, Mapping) else []


def _place(state: PlaceState) -> dict[str, Any]:
    said = {"reason": state.problem.reason.name, "message": state.problem.message} if state.problem is not None else {}
    numbers = {"ready": state.ready, "starting": state.starting, "wanted": state.wanted}
    return {"namespace": state.namespace} | numbers | {"sizeFrom": state.size_from.value} | said | _stuck(state.stuck)


def _stuck(stuck: Stuck | None) -> dict[str, Any]:
    """The same at each pass while the pods are the same: the status is written when they change."""
    if stuck is None or stuck.oldest.grace_ends_at is None:
        return {}
    pod = stuck.oldest
    since = format_second(stuck.oldest.grace_ends_at)
    return {"stuck": {"pods": stuck.pods, "since": since, "oldest": _name(pod.name), "message": _kept_by(pod)}}


def _kept_by(pod: PodView) -> str:
    """What keeps the pod, and the remedy."""
    its_name = f"-n {_name(pod.namespace)} {_name(pod.name)}"
    if pod.finalizers:
        names = [_name(one, _FINALIZER_SHOWN) for one in pod.finalizers[: FINALIZERS_MAX - 1]]
        more = " and more" if len(pod.finalizers) >= FINALIZERS_MAX else ""
        return sentences(
            f"Finalizers keep it: {', '.join(names)}{more}",
            f"`kubectl get pod {its_name} -o jsonpath='{{.metadata.finalizers}}'` shows all of them.",
            "What has put them there takes them away; where that is gone, take them out by `kubectl edit pod`.",
        )
    if pod.node:
        node = _name(pod.node)
        return sentences(
            f"Its node has not said that it has ended: see `kubectl get node {node}`.",
            f"Where that machine is gone for good, `kubectl delete node {node}` lets the cluster take its pods away.",
        )
    return f"See `kubectl get pod {its_name} -o yaml`."


def _name(text: str, most: int = _NAME_MAX) -> str:
    cut = text if len(text) <= most else f"{text[: most - 3]}..."
    return _NOT_IN_NAMES.sub("?", cut)


def _of_stuck(places: Iterable[Mapping[str, Any]], unlisted: int) -> str:
    """What the condition says of pods that do not end, "" where there are none. They are no lack: the pool is as full
    as without them. `unlisted`: so many are in namespaces of which no more is known."""
    found = [(one, stuck) for one in places if isinstance(stuck := one.get("stuck"), Mapping)]
    if not found:
        they = "One pod of the pool was deleted and does" if unlisted == 1 else f"{unlisted} pods were deleted and do"
        return sentences(f"{they} not end; the status has no room for more of it") if unlisted else ""
    place, oldest = min(found, key=lambda one: str(one[1].get("since")))
    number = sum(_number(stuck.get("pods")) for _, stuck in found) + unlisted
    where = f" in {len(found)}{' or more' if unlisted else ''} namespaces" if len(found) > 1 else ""
    they = f"{number} pods of the pool{where} were deleted and do not end; they take no place of spec.warmPool.cap"
    if number == 1:
        they = "One pod of the pool was deleted and does not end; it takes no place of spec.warmPool.cap"
    it = "It" if number == 1 else "The oldest"
    return sentences(
        they,
        f"{it} is {oldest.get('oldest')} in namespace {place.get('namespace')}, overdue since {oldest.get('since')}",
        str(oldest.get("message") or ""),
    )


def _unserved(plugin: PluginView, others: Collection[str], is_own: Callable[[str], bool]) -> list[dict[str, Any]]:
    """Namespaces that the plugin names, and that neither this installation nor another one (`others`) serves. Another
    one that comes later writes its own numbers in their place."""
    given = plugin.spec.warm_pool.namespaces if plugin.spec.warm_pool is not None else None
    names = sorted(name for name in set(given or ()) if name not in others and not is_own(name))
    problem = Problem(problems.NOT_SERVED)
    return [_place(PlaceState(namespace=name, ready=0, starting=0, wanted=0, problem=problem)) for name in names]


def _is_unserved(place: Mapping[str, Any]) -> bool:
    return place.get("reason") == problems.NOT_SERVED.name


def _pool(places: list[Any], unlisted: list[Any]) -> dict[str, Any]:
    sums = _sums([*places, *unlisted])
    # 0/0 is a pool that is to have no pods now.
    nowhere = all(map(_is_unserved, places))
    summary = problems.NO_NAMESPACE.name if nowhere else f"{sums['ready']}/{sums['wanted']}"
    more = {"unlisted": [dict(one) for one in unlisted]} if unlisted else {}
    return {"summary": summary, **sums, "namespaces": [dict(one) for one in places], **more}


def _of_cut(places: list[Any], unlisted: list[Any]) -> str:
    if not unlisted:
        return ""
    number = len(places) + sum(_number(one.get("namespaces")) for one in unlisted)
    return f"The status lists {len(places)} of {number} namespaces, those in trouble first."


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
    plugin: PluginView, places: list[Any], unlisted: list[Any], now: datetime, served_here: Sequence[str]
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
        others = len(in_trouble) - 1 + sum(_number(one.get("inTrouble")) for one in unlisted)
        more = f" So it is in {others} more namespaces or otherwise." if others else ""
        message = f"In namespace {in_trouble[0].get('namespace')}: {in_trouble[0].get('message')}{more}"
    elif any(_number(one.get("ready")) < _number(one.get("wanted")) for one in [*places, *unlisted]):
        reason, message = problems.FILLING.name, problems.FILLING.sentence
    message = sentences(
        message, _of_stuck(places, sum(_number(one.get("stuck")) for one in unlisted)), _of_cut(places, unlisted)
    )
    # A schedule may say 0 for now.
    served = all(_number(one.get("ready")) or not _number(one.get("wanted")) for one in places)
    usable = not all(map(_is_unserved, places)) and not in_trouble and served
    status = "True" if usable else "False"
    old = next((one for one in _list(plugin.status.get("conditions")) if one.get("type") == CONDITION), {})
    since = old.get("lastTransitionTime") if old.get("status") == status else None
    return {
        "type": CONDITION, "status": status, "reason": reason, "message": message,
        "observedGeneration": plugin.generation, "lastTransitionTime": since or format_second(now),
    }  # fmt: skip

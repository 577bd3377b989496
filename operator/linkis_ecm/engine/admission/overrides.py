"""What an engine may change of what its plugin fixed: one rule for the pod, the sizes and the lifetimes.

What a plugin sets, an engine of it cannot replace, unless the plugin names the field in `overridable`. What the plugin
leaves open, the engine may set. Maps are merged by key, lists by the key of their entries. Pure. Must not know what a
field does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from linkis_ecm.model.engineconn import EnvVar
from linkis_ecm.model.formats import parse_duration, parse_quantity
from linkis_ecm.model.plugin import EngineConnPluginSpec

# Labels and annotations that an engine may set without being asked for: a prefix that nothing of a cluster selects by.
USER_PREFIX = "user.linkis.apache.org/"
# What reaches nodes that are nobody's to run engines on.
_NODE_ROLES = "node-role.kubernetes.io/"

_MAPS = ("nodeSelector", "affinity", "dnsConfig")
# Of `affinity`, what says something of this pod alone. The scheduler holds podAntiAffinity of a pod that runs against
# each pod that comes after it, in the namespaces that it names, and podAffinity draws those pods near: both decide
# where other people's pods go.
_OWN_AFFINITY = "nodeAffinity"
_LISTS: dict[str, Callable[[Any], Any]] = {
    "tolerations": lambda one: (one.get("key"), one.get("effect")),
    "imagePullSecrets": lambda one: one.get("name"),
    "topologySpreadConstraints": lambda one: (one.get("topologyKey"), one.get("whenUnsatisfiable")),
}
_TEXTS = ("priorityClassName", "runtimeClassName", "schedulerName")


class FixedError(ValueError):
    """The engine changes what its plugin fixed; the text names the field and the remedy."""


def may_override(plugin: EngineConnPluginSpec, field: str, key: str = "") -> bool:
    """Whether the plugin lets its engines replace the field, or that key of it."""
    allowed = plugin.overridable or []
    return field in allowed or (key != "" and f"{field}/{key}" in allowed)


def merged_map(
    plugin: EngineConnPluginSpec, field: str, fixed: Mapping[str, Any], asked: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Both maps; `where` is the field's path in the engine. Raises FixedError for a key that the plugin fixed."""
    for key, value in asked.items():
        if key in fixed and fixed[key] != value and not may_override(plugin, field, key):
            raise _fixed(f"{where}.{key}", f"{field}/{key}")
    return {**fixed, **asked}


def merged_metadata(
    plugin: EngineConnPluginSpec, field: str, fixed: Mapping[str, str], asked: Mapping[str, str], where: str
) -> dict[str, str]:
    """Labels or annotations. What selects pods or configures other programs is the platform's: an engine adds keys of
    USER_PREFIX and those that the plugin lets it. Raises FixedError."""
    for key in asked:
        if key not in fixed and not key.startswith(USER_PREFIX) and not may_override(plugin, field, key):
            raise FixedError(
                f"{where}.{key} is not yours to set: begin it with {USER_PREFIX}, or ask the platform for"
                f" overridable: [{field}/{key}] in the EngineConnPlugin"
            )
    return merged_map(plugin, field, fixed, asked, where)


def merged_pod_spec(
    plugin: EngineConnPluginSpec, fixed: Mapping[str, Any], asked: Mapping[str, Any], *, admission: bool
) -> dict[str, Any]:
    """The overlay of the pod's spec. `admission`: the author's right to use a priority class was asked for already.

    Raises FixedError, also for a value whose type cannot be merged.
    """
    merged = dict(fixed)
    for field, value in asked.items():
        where = f"spec.podTemplate.spec.{field}"
        own = fixed.get(field)
        if field == "affinity":
            _refuse_affinity_of_others(plugin, own or {}, value, where)
        if field in _MAPS:
            merged[field] = merged_map(
                plugin, field, _mapping(own or {}, f"{field} of the plugin"), _mapping(value, where), where
            )
        elif field in _LISTS:
            merged[field] = _merged_list(plugin, field, own or [], value, where)
        else:
            if own not in (None, value) and not may_override(plugin, field):
                raise _fixed(where, field)
            merged[field] = value
    priority = asked.get("priorityClassName")
    if priority not in (None, fixed.get("priorityClassName")) and not (
        admission or may_override(plugin, "priorityClassName")
    ):
        raise FixedError(
            "spec.podTemplate.spec.priorityClassName is the platform's to set: leave it out, or ask for"
            " overridable: [priorityClassName] in the EngineConnPlugin"
        )
    return merged


def check_env(plugin: EngineConnPluginSpec, asked: Iterable[EnvVar]) -> None:
    """Raises FixedError for a variable of the engine that the plugin fixed to another value or source."""
    fixed = {variable.name: variable for variable in plugin.env or []}
    merged_map(plugin, "env", fixed, {variable.name: variable for variable in asked}, "spec.env")


def most_cpu_limit(plugin: EngineConnPluginSpec) -> str | None:
    """The greatest cpuLimit that an engine may ask for; None where there is no bound."""
    bound, default = plugin.max_resources, plugin.default_resources
    if bound is not None:
        return bound.cpu_limit or bound.cpu
    if default.cpu_limit is not None and not may_override(plugin, "cpuLimit"):
        return default.cpu_limit
    return None


def check_cpu_limit(plugin: EngineConnPluginSpec, asked: str | None) -> None:
    """Raises FixedError for a cpuLimit over the greatest one."""
    most = most_cpu_limit(plugin)
    if asked is not None and most is not None and parse_quantity(asked) > parse_quantity(most):
        raise FixedError(f"spec.resources.cpuLimit {asked} is over the plugin's {most}: ask for {most} at most")


def check_lifetimes(plugin: EngineConnPluginSpec, idle_timeout: str | None, max_lifetime: str | None) -> None:
    """Raises FixedError for an idleTimeout or maxLifetime that lets an engine live longer than the plugin's."""
    for field, asked, most in (
        ("idleTimeout", idle_timeout, plugin.idle_timeout),
        ("maxLifetime", max_lifetime, plugin.max_lifetime),
    ):
        if asked is not None and bounded_seconds(plugin, field, asked, most) != parse_duration(asked):
            raise FixedError(
                f"spec.{field} {asked} is over the plugin's {most} (0s: never): ask for {most} at most, or ask the"
                f" platform for overridable: [{field}] in the EngineConnPlugin"
            )


def bounded_seconds(plugin: EngineConnPluginSpec, field: str, asked: str, most: str) -> float:
    """The engine's idleTimeout or maxLifetime in seconds, the plugin's at most; 0 is never, so the longest."""
    own, limit = parse_duration(asked), parse_duration(most)
    if not limit or may_override(plugin, field):
        return own
    return min(own, limit) if own else limit


def _merged_list(plugin: EngineConnPluginSpec, field: str, fixed: Any, asked: Any, where: str) -> list[Any]:
    for entries, whose in ((asked, where), (fixed, f"podTemplate.spec.{field} of the EngineConnPlugin")):
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise FixedError(f"{whose} must be a list of objects")
    free = may_override(plugin, field)
    # As texts: what a user wrote for a key may be anything.
    out = {repr(_LISTS[field](one)): one for one in fixed}
    for one in asked:
        key = repr(_LISTS[field](one))
        if not free and key in out and out[key] != one:
            raise _fixed(where, field)
        if not free and field == "tolerations" and (not one.get("key") or str(one["key"]).startswith(_NODE_ROLES)):
            raise FixedError(
                f"{where} tolerates every taint, or one of {_NODE_ROLES}: name the key of a taint that is meant for"
                f" engines, or ask the platform for overridable: [tolerations] in the EngineConnPlugin"
            )
        out[key] = one
    return list(out.values())


def _refuse_affinity_of_others(plugin: EngineConnPluginSpec, fixed: Any, asked: Any, where: str) -> None:
    """Raises FixedError for an affinity that reaches other pods, unless the plugin sets it so or lets its engines."""
    below = _mapping(fixed, "affinity of the plugin")
    for key, value in _mapping(asked, where).items():
        same = key in below and below[key] == value
        if key != _OWN_AFFINITY and not same and not may_override(plugin, "affinity", key):
            raise FixedError(
                f"{where}.{key} decides where other pods may run: leave it out and take {_OWN_AFFINITY} or"
                f" topologySpreadConstraints, or ask the platform for overridable: [affinity/{key}] in the"
                " EngineConnPlugin"
            )


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise FixedError(f"{where} must be an object")
    return value


def _fixed(where: str, entry: str) -> FixedError:
    return FixedError(
        f"{where} is fixed by the EngineConnPlugin: leave it out, or ask the platform for overridable: [{entry}] there"
    )

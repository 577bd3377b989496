"""Which fields of a spec were changed after the engine's pod was made, and wait for its next pod. Pure.

A live engine follows its timeouts, its restart policy and its end. What its pod was made of stays as it is; a size may
be changed by the gateway's updateResource, which changes the pod as well. Must not change anything.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from linkis_ecm.engine.view import EngineView, PodView
from linkis_ecm.model.engineconn import EngineConnSpec
from linkis_ecm.model.formats import parse_quantity

# On a pod: JSON of a digest for each of FIELDS, of the spec that it was made from.
FIELDS = ("resources", "volumes", "workingDir", "podTemplate")


def digests(spec: EngineConnSpec) -> dict[str, str]:
    """Of the fields that only a new pod takes over."""
    body = spec.model_dump(by_alias=True, exclude_none=True, mode="json")
    return {
        name: hashlib.sha256(json.dumps(body.get(name), sort_keys=True).encode()).hexdigest()[:16] for name in FIELDS
    }


def pending(engine: EngineView, pod: PodView | None) -> str:
    """A sentence with the fields and the remedy; "" where the pod has all, or does not say what it was made from."""
    if pod is None or engine.spec is None or not pod.made_from:
        return ""
    now = digests(engine.spec)
    names = [name for name in FIELDS if pod.made_from.get(name, now[name]) != now[name]]
    if "resources" in names and _is_resized(engine.spec, pod):
        names.remove("resources")
    if not names:
        return ""
    fields = " and ".join(f"spec.{name}" for name in names)
    resize = " updateResource of the gateway changes cpu and memory of a live engine." if "resources" in names else ""
    return (
        f"{fields} changed after the engine's pod was made: only a next pod of it has the change. Undo it, or create"
        f" another engine.{resize}"
    )


def own_size(engine: EngineView, pod: PodView | None) -> dict[str, Any] | None:
    """What the pod has of cpu and memory, where the spec need not say it any more; None where it does, or without a
    pod. Limits of people count it: a spec may be edited to any size while its pod stays as it is."""
    if pod is None or engine.spec is None or not (pod.cpu_request or pod.memory_limit):
        return None
    wish = engine.spec.resources
    edited = pod.made_from.get("resources", "") not in ("", digests(engine.spec)["resources"])
    if not edited and (wish is None or _is_resized(engine.spec, pod)):
        return None
    sizes = {"cpu": pod.cpu_request, "cpuLimit": pod.cpu_limit, "memory": pod.memory_limit}
    found: dict[str, Any] = {name: size for name, size in sizes.items() if size}
    return found | ({"extended": dict(pod.extended)} if pod.extended else {})


def _is_resized(spec: EngineConnSpec, pod: PodView) -> bool:
    """Whether the pod itself has what the spec asks for now."""
    wish = spec.resources
    if wish is None:
        return False
    pairs = ((wish.cpu, pod.cpu_request), (wish.cpu_limit, pod.cpu_limit), (wish.memory, pod.memory_limit))
    extended = dict(pod.extended)
    if any(extended.get(name, 0) != number for name, number in (wish.extended or {}).items()):
        return False
    return all(asked is None or (had != "" and parse_quantity(asked) == parse_quantity(had)) for asked, had in pairs)

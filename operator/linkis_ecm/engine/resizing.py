"""A resize in place, as Kubernetes has it: the body of its request, what it never takes, and what a pod's status says
of it. Pure.

Must not choose a size.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from linkis_ecm.model.formats import parse_quantity

# The container that the operator puts into the pod. Admission policies may add others.
ENGINE_CONTAINER = "engine"
# Of the pod's conditions: the kubelet does not resize it now (and says why), or is at it.
PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"
# What a resize changes, and what a pod's class of quality of service follows from.
AMOUNTS = ("cpu", "memory")
# Their reasons.
INFEASIBLE, DEFERRED, ERROR = "Infeasible", "Deferred", "Error"
# Our own word for one that is in progress for longer than this: a kubelet needs a second or two.
SLOW, SLOW_AFTER = "InProgress", timedelta(seconds=60)


def body(resources: Mapping[str, Any], *, version: int = 0) -> dict[str, Any]:
    """For a strategic merge patch of `pods/resize`: what it does not name stays. With a `version` it is refused
    (Conflict) where the pod has changed since."""
    metadata = {"metadata": {"resourceVersion": str(version)}} if version else {}
    return metadata | {"spec": {"containers": [{"name": ENGINE_CONTAINER, "resources": dict(resources)}]}}


def pending(conditions: Mapping[str, Any]) -> str:
    """Why the kubelet has not resized the pod, its word first (`kind`); "" where it has, or where nobody asked.

    Infeasible: this node can never give it, and the kubelet does not try again. Deferred: not now. Error: it tried.
    """
    for name in (PENDING, IN_PROGRESS):
        condition = conditions.get(name)
        if not isinstance(condition, Mapping) or condition.get("status") != "True":
            continue
        # One that is in progress is no trouble, unless it says so.
        if name == PENDING or condition.get("reason") == ERROR:
            return f"{condition.get('reason') or 'Pending'}: {condition.get('message') or 'no message'}"[:500]
    return ""


def kind(why: str) -> str:
    """The kubelet's word of what `pending` says, INFEASIBLE, DEFERRED or ERROR, or SLOW; "" for any other."""
    word = why.partition(":")[0]
    return word if word in (INFEASIBLE, DEFERRED, ERROR, SLOW) else ""


def is_under_way(container: Mapping[str, Any], status: Mapping[str, Any], conditions: Mapping[str, Any]) -> bool:
    """Whether the kubelet has not given the engine's container yet what its spec asks for.

    Before Kubernetes 1.33 a container's status has no resources, and nothing is resized.
    """
    for kind in (PENDING, IN_PROGRESS):
        condition = conditions.get(kind)
        if isinstance(condition, Mapping) and condition.get("status") == "True":
            return True
    return bool(status.get("resources")) and _differs(container, status)


def in_progress(container: Mapping[str, Any], status: Mapping[str, Any], conditions: Mapping[str, Any]) -> str | None:
    """Since when, as it is written, the kubelet is at a resize that the engine's container does not have yet; "" where
    it does not say that, None where there is none."""
    condition = conditions.get(IN_PROGRESS)
    if not isinstance(condition, Mapping) or condition.get("status") != "True" or pending(conditions):
        return None
    if not status.get("resources") or not _differs(container, status):
        return None
    return str(condition.get("lastTransitionTime") or "")


def _differs(container: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether the engine's container has other amounts than its spec."""
    has = status.get("resources")
    return any(
        amount(container.get("resources"), kind, name) != amount(has, kind, name)
        for kind in ("requests", "limits")
        for name in AMOUNTS
    )


def amount(resources: Any, kind: str, name: str) -> str:
    """One amount of a container's resources, as it is written; "" where there is none."""
    amounts = resources.get(kind) if isinstance(resources, Mapping) else None
    found = amounts.get(name) if isinstance(amounts, Mapping) else None
    return str(found) if found else ""


def same_amount(one: str, other: str) -> bool:
    """Whether two amounts are as much. "" is none, and no number."""
    if one == other or not is_amount(one) or not is_amount(other):
        return one == other
    return parse_quantity(one) == parse_quantity(other)


def is_amount(text: str) -> bool:
    """Whether it is a quantity that engines have. Whoever may resize pods can write others, such as 100u."""
    try:
        parse_quantity(text)
    except ValueError:
        return False
    return True


def is_fixed(resources: Any) -> bool:
    """Whether a container has as much as it may use, of cpu and of memory. A limit alone is a request as well."""
    return all(
        _is_some(limit := amount(resources, "limits", name))
        and same_amount(amount(resources, "requests", name) or limit, limit)
        for name in AMOUNTS
    )


def is_guaranteed(spec: Mapping[str, Any]) -> bool:
    """Whether Kubernetes counts a pod of this spec as Guaranteed: all its containers are fixed, or the amounts of the
    pod as a whole, where it has some."""
    whole = spec.get("resources")
    if isinstance(whole, Mapping) and (whole.get("requests") or whole.get("limits")):
        return is_fixed(whole)
    return all(is_fixed(one.get("resources")) for one in _containers(spec))


def decides_class(spec: Mapping[str, Any]) -> bool:
    """Whether the pod's class follows from the engine's container: the others are fixed, and the pod as a whole has no
    amounts."""
    whole = spec.get("resources")
    if isinstance(whole, Mapping) and (whole.get("requests") or whole.get("limits")):
        return False
    return all(is_fixed(one.get("resources")) for one in _containers(spec) if one.get("name") != ENGINE_CONTAINER)


def never(has: Mapping[str, Any], wanted: Mapping[str, Any], *, guaranteed: bool, decides: bool) -> str:
    """Why the API server refuses the resize of a container that `has` these resources to `wanted`, however often it is
    asked; "" where nothing is known against it.

    A limit that `wanted` does not name stays: a LimitRange gave it when the pod was made, or the first resize since.
    `guaranteed`: the pod is of that class now, and it keeps its class for life. `decides`: its class follows from this
    container.
    """
    after = {kind: dict(has.get(kind) or {}) | dict(wanted.get(kind) or {}) for kind in ("requests", "limits")}
    for name in AMOUNTS:
        asked, most = amount(after, "requests", name), amount(after, "limits", name)
        if is_amount(asked) and is_amount(most) and parse_quantity(asked) > parse_quantity(most):
            return f"{name} {asked} is over the {name} limit {most} that its pod has"
    if not decides or is_fixed(after) is guaranteed:
        return ""
    before, then = ("Guaranteed", "Burstable") if guaranteed else ("Burstable", "Guaranteed")
    cpu, limit = amount(after, "requests", "cpu"), amount(after, "limits", "cpu") or "none"
    return (
        f"with cpu {cpu} and the cpu limit {limit} its pod would be {then} in place of {before}, and Kubernetes never"
        " changes a pod's quality of service"
    )


def _is_some(text: str) -> bool:
    return is_amount(text) and parse_quantity(text) > 0


def _containers(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]

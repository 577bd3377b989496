"""A resize in place, as Kubernetes has it: the body of its request, and what a pod's status says of it. Pure.

Must not choose a size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The container that the operator puts into the pod. Admission policies may add others.
ENGINE_CONTAINER = "engine"
# Of the pod's conditions: the kubelet does not resize it now (and says why), or is at it.
PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"
# Their reasons.
INFEASIBLE, DEFERRED, ERROR = "Infeasible", "Deferred", "Error"


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
    """The kubelet's word of what `pending` says: INFEASIBLE, DEFERRED or ERROR; "" for any other."""
    word = why.partition(":")[0]
    return word if word in (INFEASIBLE, DEFERRED, ERROR) else ""


def is_under_way(container: Mapping[str, Any], status: Mapping[str, Any], conditions: Mapping[str, Any]) -> bool:
    """Whether the kubelet has not given the engine's container yet what its spec asks for.

    Before Kubernetes 1.33 a container's status has no resources, and nothing is resized.
    """
    for kind in (PENDING, IN_PROGRESS):
        condition = conditions.get(kind)
        if isinstance(condition, Mapping) and condition.get("status") == "True":
            return True
    has = status.get("resources")
    return bool(has) and any(
        amount(container.get("resources"), kind, name) != amount(has, kind, name)
        for kind in ("requests", "limits")
        for name in ("cpu", "memory")
    )


def amount(resources: Any, kind: str, name: str) -> str:
    """One amount of a container's resources, as it is written; "" where there is none."""
    amounts = resources.get(kind) if isinstance(resources, Mapping) else None
    found = amounts.get(name) if isinstance(amounts, Mapping) else None
    return str(found) if found else ""

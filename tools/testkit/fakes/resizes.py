"""What the fake API server knows of pods' sizes: their class of quality of service, and which resizes it refuses.

Written from Kubernetes's documentation, apart from the operator's own rules (`linkis_ecm.engine.resizing`), which are
tested with it. Must not know engines.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from linkis_ecm.kube.resources import PODS
from linkis_ecm.model.formats import parse_quantity
from tools.testkit.fakes.rules import Object, invalid

_COUNTED = ("cpu", "memory")


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort, by the sums over all containers."""
    containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    amounts = [one.get("resources") or {} for one in containers]
    sums = {kind: _sums(one.get(kind) or {} for one in amounts) for kind in ("requests", "limits")}
    if not any(sums["requests"].values()) and not any(sums["limits"].values()):
        return "BestEffort"
    limited = all(_of(one.get("limits") or {}, name) for one in amounts for name in _COUNTED)
    return "Guaranteed" if limited and sums["requests"] == sums["limits"] else "Burstable"


def default_requests(pod: Object) -> None:
    """A container with a limit and no request gets the limit as its request."""
    for part in ("containers", "initContainers"):
        for container in pod["spec"].get(part) or []:
            resources = container.get("resources") or {}
            if limits := resources.get("limits"):
                resources["requests"] = dict(limits) | (resources.get("requests") or {})


def check_resize(new: Object, old: Object) -> None:
    """Raises StatusError (422) where Kubernetes refuses the resize of this pod."""
    for container, before in zip(new["spec"]["containers"], old["spec"]["containers"], strict=True):
        had, has = (one.get("resources") or {} for one in (before, container))
        for kind in ("requests", "limits"):
            if any(name in (had.get(kind) or {}) and name not in (has.get(kind) or {}) for name in _COUNTED):
                raise invalid(
                    PODS, new, f"spec.containers.resources.{kind}: Forbidden: resource {kind} cannot be removed"
                )
        requests, limits = has.get("requests") or {}, has.get("limits") or {}
        for name in _COUNTED:
            if name in limits and _of(requests, name) > _of(limits, name):
                what = (
                    f'Invalid value: "{requests[name]}": must be less than or equal to {name} limit of {limits[name]}'
                )
                raise invalid(PODS, new, f"spec.containers.resources.requests: {what}")
    if qos_class(new["spec"]) != (old["status"].get("qosClass") or qos_class(old["spec"])):
        raise invalid(PODS, new, "spec: Invalid value: Pod QOS Class may not change as a result of resizing")


def _sums(amounts: Any) -> dict[str, Decimal]:
    sums = dict.fromkeys(_COUNTED, Decimal(0))
    for one in amounts:
        for name in _COUNTED:
            sums[name] += _of(one, name)
    return sums


def _of(amounts: Object, name: str) -> Decimal:
    return parse_quantity(str(amounts[name])) if name in amounts else Decimal(0)

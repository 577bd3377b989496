"""What a pod takes of its node and of quotas beside its engine's container, and which nodes it may use. Pure.

Of what a scheduler looks at it knows nodeSelector, required node affinity and taints, as far as a node's labels and
taints say it. Must not choose a node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from linkis_ecm.engine.resizing import ENGINE_CONTAINER, amount
from linkis_ecm.engine.view import mapping
from linkis_ecm.model.formats import parse_quantity

_NONE = Decimal(0)
_SHUT = ("NoSchedule", "NoExecute")
# Of a pod: whoever may create pods can write any number of them.
_MOST = 64


def beside(spec: Mapping[str, Any]) -> dict[str, Decimal]:
    """What the pod takes in all, less its engine's container, by "cpu", "cpu limit", "memory" and "memory limit"; empty
    for a pod of that container alone. An admission webhook may have put others beside it."""
    containers, inits = (_mappings(spec.get(name)) for name in ("containers", "initContainers"))
    whole, overhead = mapping(spec.get("resources")), mapping(spec.get("overhead"))
    if len(containers) < 2 and not inits and not whole and not overhead:
        return {}
    found = {}
    for name in ("cpu", "memory"):
        for kind, key in (("requests", name), ("limits", f"{name} limit")):
            own = sum((_has(one, kind, name) for one in containers if one.get("name") == ENGINE_CONTAINER), _NONE)
            of_pod = _has({"resources": whole}, kind, name)
            total = of_pod or _at_most(containers, inits, kind, name)
            found[key] = max(_NONE, total + _amount(overhead.get(name)) - own)
    return found


def _at_most(containers: list[Mapping[str, Any]], inits: list[Mapping[str, Any]], kind: str, name: str) -> Decimal:
    """The most that runs at a time: an init container runs beside the sidecars before it, the others beside all."""
    sidecars = peak = _NONE
    for one in inits:
        if one.get("restartPolicy") == "Always":
            sidecars += _has(one, kind, name)
        else:
            peak = max(peak, sidecars + _has(one, kind, name))
    return max(peak, sidecars + sum((_has(one, kind, name) for one in containers), _NONE))


def _has(container: Mapping[str, Any], kind: str, name: str) -> Decimal:
    """A limit without a request is the request."""
    resources = container.get("resources")
    return _amount(amount(resources, kind, name) or (amount(resources, "limits", name) if kind == "requests" else ""))


def _amount(text: object) -> Decimal:
    try:
        return parse_quantity(str(text or "0"))
    except ValueError:
        return _NONE


@dataclass(frozen=True, slots=True)
class Placing:
    """Of a pod without a node: what it says of nodes. `terms`: of node affinity one must hold, with all its expressions
    as key, operator and values. `tolerations`: key, operator, value, effect."""

    selector: tuple[tuple[str, str], ...] = ()
    terms: tuple[tuple[tuple[str, str, tuple[str, ...]], ...], ...] = ()
    tolerations: tuple[tuple[str, str, str, str], ...] = ()

    def may_use(self, labels: Mapping[str, str], taints: Iterable[Mapping[str, Any]]) -> bool:
        """Whether a node of these lets the pod in, as far as they say it."""
        if any(labels.get(name) != value for name, value in self.selector):
            return False
        if self.terms and not any(all(_holds(labels, *one) for one in term) for term in self.terms):
            return False
        return all(self._tolerates(taint) for taint in taints if taint.get("effect") in _SHUT)

    def _tolerates(self, taint: Mapping[str, Any]) -> bool:
        return any(
            (not key or key == taint.get("key"))
            and (not effect or effect == taint.get("effect"))
            and (operator == "Exists" or value == str(taint.get("value") or ""))
            for key, operator, value, effect in self.tolerations
        )


def placing(spec: Mapping[str, Any]) -> Placing:
    """Of a pod's spec."""
    selector = mapping(spec.get("nodeSelector"))
    affinity = mapping(mapping(spec.get("affinity")).get("nodeAffinity"))
    required = mapping(affinity.get("requiredDuringSchedulingIgnoredDuringExecution"))
    terms = _mappings(required.get("nodeSelectorTerms"))
    names = ("key", "operator", "value", "effect")
    tolerations = (tuple(str(one.get(name) or "") for name in names) for one in _mappings(spec.get("tolerations")))
    return Placing(
        tuple((str(name), str(value)) for name, value in selector.items())[:_MOST],
        tuple(
            tuple(
                (str(one.get("key")), str(one.get("operator")), tuple(map(str, one.get("values") or ()))[:_MOST])
                for one in _mappings(term.get("matchExpressions"))
            )
            for term in terms
        ),
        tuple((key, operator, value, effect) for key, operator, value, effect in tolerations),
    )


def _holds(labels: Mapping[str, str], key: str, operator: str, values: tuple[str, ...]) -> bool:
    """Other operators count as held: the scheduler knows better."""
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return True


def _mappings(found: Any) -> list[Mapping[str, Any]]:
    return [one for one in found if isinstance(one, Mapping)][:_MOST] if isinstance(found, list) else []

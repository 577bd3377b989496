"""The schema of the containers that a plugin puts beside its engines: init containers, sidecars, and host aliases.

Of an EngineConnPlugin alone: they run with the engine's network, and see what the plugin's volumes hold. Each is as
restricted as the engine's own container (`engine.pod.spec`), so no security context is here. The fields are those of
Kubernetes, each with a bound; see `model.pod_template` for why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from linkis_ecm.model.extended import NAME_MAX
from linkis_ecm.model.formats import parse_quantity

Schema = dict[str, Any]

# Fields of a pod's spec that are here.
FIELDS = ("containers", "hostAliases", "initContainers")
# Containers of each kind. Meshes, log shippers and fetchers of models are one or two.
CONTAINERS_MAX = 4
WORDS = 32
WORD_MAX = 4096
VARIABLES = 16
MOUNTS = 16
RESOURCES = 8
ALIASES = 16
# As model.amounts has it, which imports nothing of containers.
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
STANDARD = ("cpu", "memory", "ephemeral-storage")
_HUGE = "hugepages-"
_AMOUNT = re.compile(QUANTITY)
_NAME, _PATH, _IMAGE = 253, 1024, 512


def _text(most: int = _NAME) -> Schema:
    return {"type": "string", "maxLength": most}


def _list(items: Schema, most: int) -> Schema:
    return {"type": "array", "maxItems": most, "items": items}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties}


def _amounts() -> Schema:
    amount = {"type": "string", "maxLength": 20, "pattern": QUANTITY, "x-kubernetes-int-or-string": True}
    rule = {
        "rule": f"self.all(k, size(k) <= {NAME_MAX})",
        "message": f"a key must have {NAME_MAX} characters at most",
        "reason": "FieldValueInvalid",
    }
    return {
        "type": "object", "maxProperties": RESOURCES, "additionalProperties": amount,
        "x-kubernetes-validations": [rule],
    }  # fmt: skip


def _is_extended(name: str) -> bool:
    return "/" in name and "kubernetes.io/" not in name


def _is_fixed(name: str) -> bool:
    """Whether a container gets as much as it asks for, and no more."""
    return name.startswith(_HUGE) or _is_extended(name)


_Amounts = Mapping[str, str]
_EXTENDED_CEL = "(k.contains('/') && !k.contains('kubernetes.io/'))"
_FIXED_CEL = f"(k.startsWith('{_HUGE}') || {_EXTENDED_CEL})"


@dataclass(frozen=True, slots=True)
class ResourceRule:
    """What Kubernetes asks of the amounts of a container, refused where they are written and not at each engine's pod.

    `cel` is of the object that has `requests` and `limits`; `holds` gets both, without amounts that are none.
    """

    text: str
    cel: str
    holds: Callable[[_Amounts, _Amounts], bool]


def _each(expression: str) -> str:
    """That it holds for each name k of both."""
    return " && ".join(
        f"(!has(self.{kind}) || self.{kind}.all(k, {expression.replace('AMOUNTS', f'self.{kind}')}))"
        for kind in ("requests", "limits")
    )


def _all(holds: Callable[[str, str], bool]) -> Callable[[_Amounts, _Amounts], bool]:
    return lambda requests, limits: all(holds(*one) for one in (*requests.items(), *limits.items()))


RESOURCE_RULES = (
    ResourceRule(
        f"a resource without a domain is one of {', '.join(STANDARD)} and {_HUGE}SIZE: correct its name",
        _each(f"k.contains('/') || k.startsWith('{_HUGE}') || k in {list(STANDARD)}"),
        _all(lambda name, _: "/" in name or name.startswith(_HUGE) or name in STANDARD),
    ),
    ResourceRule(
        "requests must not be above limits: lower the request, raise the limit or leave it out",
        "!has(self.requests) || !has(self.limits) || self.requests.all(k, !(k in self.limits) ||"
        " quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",
        lambda requests, limits: all(
            name not in limits or parse_quantity(amount) <= parse_quantity(limits[name])
            for name, amount in requests.items()
        ),
    ),
    ResourceRule(
        f"requests of {_HUGE}SIZE and of a device plugin's resources must equal their limits: write them below limits"
        " alone",
        f"!has(self.requests) || self.requests.all(k, !{_FIXED_CEL} || (has(self.limits) && k in self.limits &&"
        " quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) == 0))",
        lambda requests, limits: all(
            not _is_fixed(name) or (name in limits and parse_quantity(amount) == parse_quantity(limits[name]))
            for name, amount in requests.items()
        ),
    ),
    ResourceRule(
        "a device plugin's resources are counted in whole numbers: round the amount",
        _each(f"!{_EXTENDED_CEL} || quantity(string(AMOUNTS[k])).isInteger()"),
        _all(lambda name, amount: not _is_extended(name) or parse_quantity(amount) % 1 == 0),
    ),
    ResourceRule(
        f"{_HUGE}SIZE needs cpu or memory beside it: give one of them",
        f"!has(self.limits) || !self.limits.exists(k, k.startsWith('{_HUGE}')) || 'cpu' in self.limits || 'memory' in"
        " self.limits || (has(self.requests) && ('cpu' in self.requests || 'memory' in self.requests))",
        lambda requests, limits: (
            not any(name.startswith(_HUGE) for name in limits) or bool({"cpu", "memory"} & {*requests, *limits})
        ),
    ),
)


def broken_resources(template: Any) -> str:
    """What is wrong with the resources of a plugin's containers, with its field; "" for nothing. What is no object, no
    list or no amount is left to whoever looks at the schema."""
    spec = _object_at(template, "spec")
    for kind in ("initContainers", "containers"):
        entries = spec.get(kind)
        for number, container in enumerate(entries if isinstance(entries, list) else ()):
            if text := broken_amounts(_object_at(container, "resources")):
                return f"spec.podTemplate.spec.{kind}[{number}].resources: {text}"
    return ""


def broken_amounts(resources: Mapping[str, Any]) -> str:
    """The text of the first rule that a container's resources break; "" for none."""
    requests, limits = (_amounts_of(_object_at(resources, kind)) for kind in ("requests", "limits"))
    return next((one.text for one in RESOURCE_RULES if not one.holds(requests, limits)), "")


def _object_at(value: Any, name: str) -> Mapping[str, Any]:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _amounts_of(given: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(amount) for name, amount in given.items() if _AMOUNT.fullmatch(str(amount))}


_WHOLE: Schema = {"type": "integer", "format": "int64"}
_KEY = _object(name=_text(), key=_text())
_PROBE = _object(
    exec=_object(command=_list(_text(WORD_MAX), WORDS)), httpGet=_object(path=_text(_PATH), port=_WHOLE),
    tcpSocket=_object(port=_WHOLE), failureThreshold=_WHOLE, initialDelaySeconds=_WHOLE, periodSeconds=_WHOLE,
    timeoutSeconds=_WHOLE,
)  # fmt: skip
_CONTAINER: dict[str, Schema] = {
    "name": _text(63),
    "image": _text(_IMAGE),
    "imagePullPolicy": _text(16),
    "command": _list(_text(WORD_MAX), WORDS),
    "args": _list(_text(WORD_MAX), WORDS),
    "workingDir": _text(_PATH),
    "env": _list(
        _object(
            name=_text(), value=_text(WORD_MAX),
            valueFrom=_object(
                secretKeyRef=_KEY, configMapKeyRef=_KEY, fieldRef=_object(fieldPath=_text())
            ),
        ),
        VARIABLES,
    ),
    "ports": _list(_object(name=_text(15), containerPort=_WHOLE, protocol=_text(4)), 8),
    "resources": _object(requests=_amounts(), limits=_amounts())
    | {
        "x-kubernetes-validations": [
            {"rule": one.cel, "message": one.text, "reason": "FieldValueInvalid"} for one in RESOURCE_RULES
        ]
    },
    "startupProbe": _PROBE,
    "volumeMounts": _list(
        _object(name=_text(50), mountPath=_text(_PATH), subPath=_text(_PATH), readOnly={"type": "boolean"}), MOUNTS
    ),
}  # fmt: skip


def _containers(**more: Schema) -> Schema:
    container = _object(**_CONTAINER, **more) | {"required": ["image", "name"]}
    return _list(container, CONTAINERS_MAX)


SCHEMAS: dict[str, Schema] = {
    "containers": _containers(),
    "hostAliases": _list(_object(ip=_text(45), hostnames=_list(_text(), 8)), ALIASES),
    # Always: it runs beside the engine, and is ready before the engine's container starts.
    "initContainers": _containers(restartPolicy={"type": "string", "maxLength": 16, "enum": ["Always"]}),
}
assert tuple(SCHEMAS) == FIELDS  # noqa: S101 - two lists of one thing

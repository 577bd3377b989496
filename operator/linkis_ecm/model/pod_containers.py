"""The schema of the containers that a plugin puts beside its engines: init containers, sidecars, and host aliases.

Of an EngineConnPlugin alone: they run with the engine's network, and see what the plugin's volumes hold. Each is as
restricted as the engine's own container (`engine.pod.spec`), so no security context is here. The fields are those of
Kubernetes, each with a bound; see `model.pod_template` for why.
"""

from __future__ import annotations

from typing import Any

from linkis_ecm.model.extended import NAME_MAX

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
# As model.engineconn has it, which imports this module.
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
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
    "resources": _object(requests=_amounts(), limits=_amounts()),
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

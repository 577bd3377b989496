"""The schema of `podTemplate`: each field that an engine's or a plugin's overlay may have, with its bound.

An object without bounds is kept by the API server up to 1.5 MB. Half a million entries in one stop the operator for all
namespaces: it reads, compares and keeps each. The API server takes fields out that the schema does not name (kubectl
refuses them), and refuses those of NEVER, which people try, by a sentence. Must not say who may set a field: that is
`engine.admission.overrides`.
"""

from __future__ import annotations

from typing import Any

from linkis_ecm.model import pod_containers

Schema = dict[str, Any]

SPEC_FIELDS = (
    "affinity", "dnsConfig", "imagePullSecrets", "nodeSelector", "priorityClassName", "runtimeClassName",
    "schedulerName", "tolerations", "topologySpreadConstraints",
)  # fmt: skip
# Of the plugin's overlay alone: whoever may use the account may use what a cloud lets it (IRSA, Workload Identity). The
# pod has no token of it from us. Containers and names of hosts reach what an engine's user must not: the agent's way
# to the operator.
PLUGIN_FIELDS = (*SPEC_FIELDS, *pod_containers.FIELDS, "serviceAccountName")
# Lengths of Kubernetes's own forms: a DNS subdomain, a label's value, a label's key (a subdomain, "/", a name).
SUBDOMAIN = 253
LABEL_VALUE = 63
LABEL_KEY = SUBDOMAIN + 1 + LABEL_VALUE
# Entries of each kind: several times what an overlay of this project's users has, and together few (see LEAVES_MAX).
KEYS = 16
TERMS = 4
POD_TERMS = 2
EXPRESSIONS = 4
VALUES = 16
TOLERATIONS = 16
PULL_SECRETS = 8
# What Kubernetes itself takes of a dnsConfig.
NAMESERVERS = 3
SEARCHES = 32
ANNOTATION_MAX = 1024
# Values in the largest overlay. The operator handled 430,000 in 5 s, in which it lost its Lease: these are 1% of that.
LEAVES_MAX = 4_096


def _text(most: int = SUBDOMAIN) -> Schema:
    return {"type": "string", "maxLength": most}


def _whole() -> Schema:
    return {"type": "integer", "format": "int64"}


def _list(items: Schema, most: int) -> Schema:
    return {"type": "array", "maxItems": most, "items": items}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties}


def _map(value: Schema, most: int = KEYS) -> Schema:
    # The schema has no bound for keys.
    rule = {
        "rule": f"self.all(k, size(k) <= {LABEL_KEY})",
        "message": f"a key must have {LABEL_KEY} characters at most",
        "reason": "FieldValueInvalid",
    }
    return {
        "type": "object", "maxProperties": most, "additionalProperties": value, "x-kubernetes-validations": [rule],
    }  # fmt: skip


def _expressions(values: int = VALUES) -> Schema:
    requirement = _object(key=_text(LABEL_KEY), operator=_text(16), values=_list(_text(LABEL_VALUE), values))
    return _list(requirement, EXPRESSIONS)


def _selector() -> Schema:
    return _object(matchLabels=_map(_text(LABEL_VALUE), 4), matchExpressions=_expressions(8))


def _node_term() -> Schema:
    # A field is the node's name, and Kubernetes takes one value for it.
    field = _object(key=_text(LABEL_KEY), operator=_text(16), values=_list(_text(), 1))
    return _object(matchExpressions=_expressions(), matchFields=_list(field, 1))


def _node_affinity() -> Schema:
    return _object(
        requiredDuringSchedulingIgnoredDuringExecution=_object(nodeSelectorTerms=_list(_node_term(), TERMS)),
        preferredDuringSchedulingIgnoredDuringExecution=_list(
            _object(weight=_whole(), preference=_node_term()), TERMS
        ),
    )  # fmt: skip


def _pod_affinity() -> Schema:
    names = _list(_text(LABEL_VALUE), 8)
    term = _object(
        labelSelector=_selector(), namespaceSelector=_selector(), namespaces=names, topologyKey=_text(LABEL_KEY),
        matchLabelKeys=_list(_text(LABEL_KEY), 4), mismatchLabelKeys=_list(_text(LABEL_KEY), 4),
    )  # fmt: skip
    return _object(
        requiredDuringSchedulingIgnoredDuringExecution=_list(term, POD_TERMS),
        preferredDuringSchedulingIgnoredDuringExecution=_list(
            _object(weight=_whole(), podAffinityTerm=term), POD_TERMS
        ),
    )  # fmt: skip


_SPEC: dict[str, Schema] = {
    "affinity": _object(nodeAffinity=_node_affinity(), podAffinity=_pod_affinity(), podAntiAffinity=_pod_affinity()),
    "dnsConfig": _object(
        nameservers=_list(_text(LABEL_VALUE), NAMESERVERS), searches=_list(_text(), SEARCHES),
        options=_list(_object(name=_text(LABEL_VALUE), value=_text(LABEL_VALUE)), KEYS),
    ),
    "imagePullSecrets": _list(_object(name=_text()), PULL_SECRETS),
    "nodeSelector": _map(_text(LABEL_VALUE)),
    "priorityClassName": _text(),
    "runtimeClassName": _text(),
    "schedulerName": _text(),
    "tolerations": _list(
        _object(
            key=_text(LABEL_KEY), operator=_text(16), value=_text(LABEL_VALUE), effect=_text(32),
            tolerationSeconds=_whole(),
        ),
        TOLERATIONS,
    ),
    "topologySpreadConstraints": _list(
        _object(
            labelSelector=_selector(), matchLabelKeys=_list(_text(LABEL_KEY), 4), maxSkew=_whole(),
            minDomains=_whole(), nodeAffinityPolicy=_text(16), nodeTaintsPolicy=_text(16), topologyKey=_text(LABEL_KEY),
            whenUnsatisfiable=_text(32),
        ),
        TERMS,
    ),
}  # fmt: skip
assert tuple(_SPEC) == SPEC_FIELDS  # noqa: S101 - two lists of one thing

# Fields of a pod that people try and that no overlay has, or no engine's: named, so that they are refused and not taken
# out in silence.
_FLAG: Schema = {"type": "boolean"}
_ENTRIES = _list({"type": "object"}, KEYS)
NEVER: dict[str, Schema] = {
    "automountServiceAccountToken": _FLAG, "containers": _ENTRIES, "hostAliases": _ENTRIES, "hostIPC": _FLAG,
    "hostNetwork": _FLAG, "hostPID": _FLAG, "initContainers": _ENTRIES, "nodeName": _text(), "priority": _whole(),
    "securityContext": {"type": "object"}, "serviceAccountName": _text(), "terminationGracePeriodSeconds": _whole(),
    "volumes": _ENTRIES,
}  # fmt: skip


def not_taken(field: str, part: str, name: str, allowed: tuple[str, ...]) -> str:
    """The refusal of a field that no overlay has; `field` is the overlay's path."""
    return f"{field}.{part}.{name} is not taken: {part} may hold {', '.join(allowed)}"


def _schema(taken: tuple[str, ...]) -> Schema:
    refusals = [
        {
            "rule": f"!has(self.{name})",
            "message": not_taken("spec.podTemplate", "spec", name, taken),
            "reason": "FieldValueForbidden",
        }
        for name in NEVER
        if name not in taken
    ]
    own = {name: pod_containers.SCHEMAS[name] for name in pod_containers.FIELDS if name in taken}
    spec = {
        name: schema
        | {"description": f"As pod.spec.{name}, bounded." if name in taken else "Refused: see podTemplate."}
        for name, schema in (_SPEC | NEVER | own).items()
    }
    return _object(
        metadata=_object(labels=_map(_text(LABEL_VALUE)), annotations=_map(_text(ANNOTATION_MAX))),
        spec=_object(**spec) | {"x-kubernetes-validations": refusals},
    )


SCHEMA = _schema(SPEC_FIELDS)
PLUGIN_SCHEMA = _schema(PLUGIN_FIELDS)

_CONTAINERS: dict[str, type] = {"object": dict, "array": list, "string": str}


def excess(value: Any, schema: Schema = SCHEMA, path: str = "podTemplate") -> str:
    """What of a value is over the schema's bounds, in words; "" for nothing. Fields that it does not name are over.

    Of a value of another type than the schema's only the size is looked at: whoever uses it says what it must be. Stops
    at the first.
    """
    kind = schema["type"]
    if not isinstance(value, _CONTAINERS.get(kind, ())) and (size := len(repr(value))) > ANNOTATION_MAX * 4:
        return f"{path} has {size} characters, and is no {kind}"
    if isinstance(value, list) and kind == "array":
        if len(value) > (most := schema.get("maxItems", 0)):
            return f"{path} has {len(value)} entries: {most} are the most"
        return next(filter(None, (excess(one, schema["items"], f"{path}[{n}]") for n, one in enumerate(value))), "")
    if isinstance(value, dict) and kind == "object":
        free, known = schema.get("additionalProperties"), schema.get("properties", {})
        most = schema.get("maxProperties", len(known))
        if len(value) > most:
            return f"{path} has {len(value)} fields: {most} are the most"
        for key, child in value.items():
            if len(str(key)) > LABEL_KEY or (free is None and key not in known):
                return f"{path}.{str(key)[:LABEL_VALUE]} is not taken"
            if found := excess(child, free or known[key], f"{path}.{key}"):
                return found
        return ""
    if isinstance(value, str) and kind == "string" and len(value) > (most := schema.get("maxLength", 0)):
        return f"{path} has {len(value)} characters: {most} are the most"
    return ""

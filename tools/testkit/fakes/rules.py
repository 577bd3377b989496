"""The API server's pure rules: merge patch, selectors, schema of the custom resources, what a write may change.

Holds no state. Where the real server is richer, it says so here by refusing rather than by guessing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from linkis_ecm.kube.resources import (
    CONFIGMAPS,
    ENGINECONNS,
    EVENTS,
    LEASES,
    LIMIT_RANGES,
    NAMESPACES,
    NODES,
    PLUGINS,
    PODS,
    POLICIES,
    POLICY_BINDINGS,
    SECRETS,
    Resource,
)
from linkis_ecm.model import crd
from linkis_ecm.model.amounts import STORED
from linkis_ecm.model.engine_status import EngineConnStatus
from linkis_ecm.model.engineconn import IDENTITY, IDENTITY_REQUIRED, EngineConnSpec
from linkis_ecm.model.plugin import EngineConnPluginSpec, EngineConnPluginStatus

Object = dict[str, Any]
RESOURCES = (
    PODS,
    NODES,
    CONFIGMAPS,
    SECRETS,
    NAMESPACES,
    LIMIT_RANGES,
    LEASES,
    EVENTS,
    ENGINECONNS,
    PLUGINS,
    POLICIES,
    POLICY_BINDINGS,
)
# Whose status is a subresource of its own.
WITH_STATUS = (PODS, NAMESPACES, ENGINECONNS, PLUGINS)
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class StatusError(Exception):
    """A refusal, as a metav1.Status has it."""

    def __init__(self, code: int, reason: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    def body(self) -> Object:
        details = {"retryAfterSeconds": self.retry_after} if self.retry_after is not None else {}
        return {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": details, "code": self.code,
        }  # fmt: skip


def copied(value: Any) -> Any:
    """A deep copy of anything JSON can hold; several times faster than copy.deepcopy."""
    return orjson.loads(orjson.dumps(value))


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386; the result shares no part with the patch, and the target is left alone."""
    if not isinstance(patch, dict):
        return copied(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def pruned(value: Any, unknown: Collection[str]) -> Any:
    """Without the fields of those names, as a CRD that does not have them leaves it."""
    if isinstance(value, dict):
        return {name: pruned(one, unknown) for name, one in value.items() if name not in unknown}
    return [pruned(one, unknown) for one in value] if isinstance(value, list) else value


def operated(target: Any, operations: list[Object]) -> Any:
    """RFC 6902 on a copy: add, replace, remove and test. Raises StatusError 422 where one cannot be done."""
    result = copied(target)
    for operation in operations:
        steps = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
        holder, last = result, steps[-1]
        try:
            for step in steps[:-1]:
                holder = holder[int(step)] if isinstance(holder, list) else holder[step]
            key: Any = int(last) if isinstance(holder, list) and last != "-" else last
            match operation["op"]:
                case "test":
                    if holder[key] != operation["value"]:
                        raise KeyError(last)
                case "remove":
                    del holder[key]
                case "replace":
                    _ = holder[key]
                    holder[key] = copied(operation["value"])
                case "add" if isinstance(holder, list):
                    holder.insert(len(holder) if key == "-" else key, copied(operation["value"]))
                case "add":
                    holder[key] = copied(operation["value"])
                case other:
                    raise StatusError(400, "BadRequest", f"this fake API server has no operation {other}")
        except (KeyError, IndexError, TypeError, ValueError):
            what = "the server rejected our request due to an error in our request"
            raise StatusError(422, "Invalid", what) from None
    return result


def reached(value: Any, path: str) -> Any:
    """The value at a dotted path, None where there is none."""
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


@dataclass(frozen=True)
class CustomKind:
    """What the API server knows of a custom resource from its definition."""

    spec: type[BaseModel]
    status: type[BaseModel]
    identity: tuple[str, ...] = ()
    schema: Object = field(default_factory=dict)
    selectable: tuple[str, ...] = ()


def _custom(definition: Object, spec: type[BaseModel], status: type[BaseModel], *identity: str) -> CustomKind:
    version = definition["spec"]["versions"][0]
    return CustomKind(
        spec, status, identity, version["schema"]["openAPIV3Schema"],
        tuple(entry["jsonPath"].removeprefix(".") for entry in version["selectableFields"]),
    )  # fmt: skip


CUSTOM: dict[Resource, CustomKind] = {
    ENGINECONNS: _custom(crd.engineconn(), EngineConnSpec, EngineConnStatus, *IDENTITY, *IDENTITY_REQUIRED),
    PLUGINS: _custom(crd.plugin(), EngineConnPluginSpec, EngineConnPluginStatus),
}
_SELECTABLE: dict[Resource, tuple[str, ...]] = {
    PODS: ("spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.phase", "status.podIP"),
    EVENTS: ("regarding.name", "regarding.kind", "regarding.uid", "reason", "type"),
    **{resource: kind.selectable for resource, kind in CUSTOM.items()},
}


def by_schema(schema: Object, value: Any) -> Any:
    """Defaults filled in and unknown fields taken out, as a structural schema asks."""
    if isinstance(value, list):
        return [by_schema(schema.get("items", {}), item) for item in value]
    if not isinstance(value, dict):
        return value
    if "properties" not in schema:
        each = schema.get("additionalProperties")
        return {key: by_schema(each, item) for key, item in value.items()} if each else {}
    known = schema["properties"]
    result = {key: by_schema(known[key], item) for key, item in value.items() if key in known}
    for key, child in known.items():
        if key not in result and "default" in child:
            result[key] = copied(child["default"])
    return result


def judged(resource: Resource, new: Object, old: Object | None, *, ratchets: bool = True) -> Object:
    """The object as its definition lets it in: defaulted, pruned, valid, its identity unchanged; else Invalid.

    `ratchets`: a spec that was stored before a rule is let by while it stays as it is (Kubernetes 1.30; of each field
    there, of the whole spec here).
    """
    kind = CUSTOM.get(resource)
    if kind is None:
        return new
    if len(new["metadata"]["name"]) > 63:
        raise invalid(resource, new, "metadata.name must have 63 characters at most")
    properties = kind.schema["properties"]
    result = dict(new)
    for part, model in (("spec", kind.spec), ("status", kind.status)):
        if part not in new:
            if part == "spec":
                raise invalid(resource, new, "spec: Required value")
            continue
        result[part] = by_schema(properties[part], new[part])
        try:
            stored = ratchets and old is not None and part == "spec" and old.get(part) == result[part]
            model.model_validate(result[part], context=STORED if stored else None)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step) for step in (part, *first["loc"]))
            raise invalid(resource, new, f"{where}: {first['msg']}") from None
    if old is not None:
        for name in kind.identity:
            if reached(old, f"spec.{name}") != reached(result, f"spec.{name}"):
                raise invalid(resource, new, f"spec.{name}: Forbidden: identity cannot change: create another engine")
        if reached(old, "spec.desiredState") == "Stopped" != reached(result, "spec.desiredState"):
            raise invalid(resource, new, "spec.desiredState: a stopped engine stays stopped: create another engine")
    return result


def invalid(resource: Resource, item: Object, what: str) -> StatusError:
    name = item["metadata"].get("name", "")
    return StatusError(422, "Invalid", f'{resource.kind}.{resource.group} "{name}" is invalid: {what}')


def check_pod_change(new: Object, old: Object) -> None:
    """Of a pod's spec only images, tolerations and activeDeadlineSeconds may change (resources: by /resize alone).

    The node is set once, by the scheduler's binding.
    """
    unbound = not old["spec"].get("nodeName")

    def fixed(pod: Object) -> Object:
        # Scheduling gates may be removed from a pod that has no node.
        free = {"tolerations", "activeDeadlineSeconds"} | ({"nodeName", "schedulingGates"} if unbound else set())
        spec = {key: value for key, value in pod["spec"].items() if key not in free}
        for part in ("containers", "initContainers"):
            spec[part] = [
                {k: v for k, v in container.items() if k != "image"} for container in spec.get(part) or []
            ]  # fmt: skip
        return spec

    if fixed(new) != fixed(old):
        raise invalid(PODS, new, "spec: Forbidden: pod updates may not change fields other than images")


Matches = Callable[[Object], bool]


def selection(resource: Resource, namespace: str | None, labels: str | None, fields: str | None) -> Matches:
    """One predicate of a namespace, a label selector and a field selector; 400 where the server knows no such field."""
    label_terms, field_terms = _label_terms(labels or ""), _field_terms(resource, fields or "")

    def matches(item: Object) -> bool:
        metadata = item["metadata"]
        if namespace is not None and metadata.get("namespace") != namespace:
            return False
        own = metadata.get("labels") or {}
        return all(term(own) for term in label_terms) and all(term(item) for term in field_terms)

    return matches


def _label_terms(selector: str) -> list[Callable[[dict[str, str]], bool]]:
    terms: list[Callable[[dict[str, str]], bool]] = []
    for text in filter(None, (part.strip() for part in re.split(r",(?![^(]*\))", selector))):
        if match := re.fullmatch(r"([\w./-]+)\s+(in|notin)\s+\(([^)]*)\)", text):
            key, wanted, values = match[1], match[2] == "in", {value.strip() for value in match[3].split(",")}
            terms.append(lambda own, k=key, w=wanted, v=values: (own.get(k) in v) == w)  # type: ignore[misc]
        elif match := re.fullmatch(r"([\w./-]+)\s*(==|=|!=)\s*([\w.-]*)", text):
            key, wanted, value = match[1], match[2] != "!=", match[3]
            terms.append(lambda own, k=key, w=wanted, v=value: (own.get(k) == v) == w)  # type: ignore[misc]
        elif match := re.fullmatch(r"(!?)([\w./-]+)", text):
            key, wanted = match[2], not match[1]
            terms.append(lambda own, k=key, w=wanted: (k in own) == w)  # type: ignore[misc]
        else:
            raise StatusError(400, "BadRequest", f"unable to parse requirement: {text!r}")
    return terms


def _field_terms(resource: Resource, selector: str) -> list[Matches]:
    known = ("metadata.name", "metadata.namespace", *_SELECTABLE.get(resource, ()))
    terms: list[Matches] = []
    for text in filter(None, selector.split(",")):
        match = re.fullmatch(r"([\w.]+)(==|=|!=)(.*)", text)
        if match is None or match[1] not in known:
            raise StatusError(400, "BadRequest", f"field label not supported: {text!r}")
        path, wanted, value = match[1], match[2] != "!=", match[3]
        terms.append(lambda item, p=path, w=wanted, v=value: (str(reached(item, p) or "") == v) == w)  # type: ignore[misc]
    return terms

"""Makes the CustomResourceDefinitions from the pydantic models; `python -m linkis_ecm.model.crd DIR…` writes them.

The files in `crds/` are committed and the tests compare them with what this module makes. It must not name any field
except those of printer columns and selectable fields: everything else comes from the models.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from linkis_ecm.model.amounts import AMOUNT_PATTERN
from linkis_ecm.model.engine_status import EngineConnStatus
from linkis_ecm.model.engineconn import GROUP, VERSION, EngineConnSpec, rule
from linkis_ecm.model.plugin import EngineConnPluginSpec, EngineConnPluginStatus

# Keys of JSON Schema that a structural schema takes over as they are.
_KEEP = (
    "description", "type", "enum", "pattern", "format", "minLength", "maxLength", "minItems", "maxItems",
    "minimum", "maximum", "maxProperties",
)  # fmt: skip
_INT_OR_STRING = "x-kubernetes-int-or-string"
_LABELS = {"app.kubernetes.io/name": "linkis-ecm", "app.kubernetes.io/part-of": "linkis"}


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """The structural schema (apiextensions v1) of a model: references inlined, `T | None` as an optional T."""
    schema = model.model_json_schema(by_alias=True)
    return _convert(schema, schema.get("$defs", {}))


def _convert(node: dict[str, Any], defs: dict[str, Any], *, in_list: bool = False) -> dict[str, Any]:
    """`in_list`: the node is an entry of a list, or part of one. There is no default there: `kubectl apply` and Argo CD
    compare a list as a whole, so a value that the server adds to an entry would be a difference for ever."""
    if "$ref" in node:
        target = defs[node["$ref"].rsplit("/", 1)[1]]
        return _convert(target | {key: value for key, value in node.items() if key != "$ref"}, defs, in_list=in_list)
    if "anyOf" in node:
        arms = [arm for arm in node["anyOf"] if arm.get("type") != "null"]
        if len(arms) != 1:
            raise ValueError(f"a structural schema has no unions: {node}")
        merged = arms[0] | {key: value for key, value in node.items() if key not in ("anyOf", "default")}
        return _convert(merged, defs, in_list=in_list)
    out: dict[str, Any] = {key: node[key] for key in _KEEP if key in node}
    if "const" in node:
        out |= {"type": "string", "enum": [node["const"]]}
    if node.get("default") is not None and not in_list:
        out["default"] = node["default"]
    out |= {key: value for key, value in node.items() if key.startswith("x-kubernetes-")}
    if out.get(_INT_OR_STRING):
        # The one union that a structural schema has, in this order. The pattern is for texts, the minimum for numbers.
        least = 1 if out["pattern"] == AMOUNT_PATTERN else 0
        out |= {"anyOf": [{"type": "integer"}, {"type": out.pop("type")}], "minimum": least}
    if out.get("type") == "integer":
        out["format"] = "int64"
    if "items" in node:
        out["items"] = _convert(node["items"], defs, in_list=True)
    if "properties" in node:
        out["properties"] = {name: _convert(child, defs, in_list=in_list) for name, child in node["properties"].items()}
        if node.get("required"):
            out["required"] = sorted(node["required"])
    elif isinstance(node.get("additionalProperties"), dict):
        out["additionalProperties"] = _convert(node["additionalProperties"], defs)
    return out


def _column(name: str, path: str, *, kind: str = "string", priority: int = 0, text: str = "") -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path}
    if priority:
        column["priority"] = priority
    if text:
        column["description"] = text
    return column


def _definition(
    *,
    kind: str,
    plural: str,
    short: str,
    scope: str,
    spec: type[BaseModel],
    status: type[BaseModel],
    columns: list[dict[str, Any]],
    selectable: list[str],
) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["spec"],
        "description": (spec.__doc__ or "").strip(),
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(spec),
            "status": structural(status),
        },
        # Names go into labels, whose values end at 63 characters.
        "x-kubernetes-validations": [
            rule("size(self.metadata.name) <= 63", "metadata.name must have 63 characters at most")
        ],
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "selectableFields": [{"jsonPath": path} for path in selectable],
    }
    names = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": [short],
        "categories": ["linkis"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}", "labels": dict(_LABELS)},
        "spec": {"group": GROUP, "names": names, "scope": scope, "versions": [version]},
    }


def engineconn() -> dict[str, Any]:
    """The definition of EngineConn."""
    return _definition(
        kind="EngineConn",
        plural="engineconns",
        short="ec",
        scope="Namespaced",
        spec=EngineConnSpec,
        status=EngineConnStatus,
        columns=[
            _column("State", ".status.engineState", text="Linkis's word for the engine's state"),
            _column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            _column("Reason", ".status.reason"),
            _column("Type", ".status.engineType"),
            _column("User", ".spec.user"),
            _column("Version", ".status.engineVersion", priority=1),
            _column("Start", ".status.startup.kind", text="cold, or warm: from a warm pool", priority=1),
            _column(
                "Paused",
                '.status.conditions[?(@.type=="SoftPaused")].status',
                text="True: nobody uses it, and its cpu is given back until its next code",
                priority=1,
            ),
            _column("Lent", ".spec.share.level", text="group or server: lent to one asker after another", priority=1),
            _column("Group", ".spec.share.group", priority=1),
            _column("Lendable", ".status.share.shared", kind="boolean", priority=1),
            _column("Pod", ".status.podName", priority=1),
            _column("Node", ".status.nodeName", priority=1),
            _column("Ticket", ".status.ticketId", priority=1),
            _column("Message", ".status.message", priority=1),
            _column("Age", ".metadata.creationTimestamp", kind="date"),
        ],
        selectable=[".spec.engineType", ".spec.user", ".spec.desiredState", ".status.engineState"],
    )


def plugin() -> dict[str, Any]:
    """The definition of EngineConnPlugin."""
    return _definition(
        kind="EngineConnPlugin",
        plural="engineconnplugins",
        short="ecp",
        scope="Cluster",
        spec=EngineConnPluginSpec,
        status=EngineConnPluginStatus,
        columns=[
            _column("Type", ".spec.engineType"),
            _column("Version", ".spec.engineVersion"),
            _column("Default", ".spec.default", kind="boolean"),
            _column("Warm", ".status.warmPool.summary", text="Pods of the warm pool: ready/wanted, or NoNamespace"),
            _column("Share", ".spec.share", text="Who may get a running engine of this entry", priority=1),
            _column("Owner", ".spec.shareAs", text="Who has the engines that are lent", priority=1),
            _column("Image", ".spec.image", priority=1),
            _column("Age", ".metadata.creationTimestamp", kind="date"),
        ],
        selectable=[".spec.engineType"],
    )


def files() -> dict[str, str]:
    """File name → text of each generated file."""
    head = "# Generated from operator/linkis_ecm/model by `make generate`; do not edit.\n"
    definitions = {"engineconns.yaml": engineconn(), "engineconnplugins.yaml": plugin()}
    return {
        name: head + yaml.safe_dump(body, sort_keys=False, width=110, allow_unicode=True)
        for name, body in definitions.items()
    }


def main() -> None:
    """Writes the files into each folder that the arguments name."""
    for folder in map(Path, sys.argv[1:]):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files().items():
            (folder / name).write_text(text)


if __name__ == "__main__":
    main()

"""An admission policy is compared with what the chart gave, as the API server has it with its defaults."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from linkis_ecm.engine.admission.fields import ANNOTATION, difference, fields

POLICY: dict[str, Any] = {
    "failurePolicy": "Fail",
    "matchConstraints": {
        "resourceRules": [
            {"apiGroups": ["linkis.apache.org"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["x"]}
        ]
    },
    "matchConditions": [{"name": "new", "expression": "object.spec != oldObject.spec && 1 < 2"}],
    "variables": [{"name": "volumes", "expression": "object.spec.volumes"}],
    "validations": [{"expression": "size(variables.volumes) <= 16", "message": "too many: é", "reason": "Invalid"}],
}
BINDING: dict[str, Any] = {
    "policyName": "p",
    "validationActions": ["Deny"],
    "matchResources": {
        "namespaceSelector": {
            "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a"]}]
        }
    },
}
SPECS = {"policy": POLICY, "binding": BINDING}


def served(spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """As the API server answers: with its defaults."""
    spec = copy.deepcopy(spec)
    for name in ("matchConstraints", "matchResources"):
        if name in spec:
            spec[name] = {"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}} | spec[name]
            for rule in spec[name].get("resourceRules", ()):
                rule["scope"] = "*"
    return {"metadata": {"generation": 1, **metadata}, "spec": spec}


def said(spec: dict[str, Any]) -> dict[str, Any]:
    return {"annotations": {ANNOTATION: ",".join(sorted(fields(spec)))}}


@pytest.mark.parametrize("kind", SPECS)
def test_what_the_api_server_adds_is_no_difference(kind: str) -> None:
    spec = SPECS[kind]
    assert difference(fields(spec), served(spec, **said(spec))).fields == ""
    assert difference(fields(spec), served(spec)).fields == "", "without the annotation, as it says nothing more"


EXCLUDED = [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"], "scope": "*"}]
NOBODY = {"matchLabels": {"nobody": "has-this"}}
CHANGES: list[tuple[str, str, Any]] = [
    ("policy", "failurePolicy", "Ignore"),
    ("policy", "validations", []),
    ("policy", "validations", [{"expression": "true", "message": "too many: é", "reason": "Invalid"}]),
    ("policy", "variables", [{"name": "volumes", "expression": "[]"}]),
    ("policy", "matchConditions", [{"name": "new", "expression": "false"}]),
    ("policy", "matchConditions", None),
    ("policy", "paramKind", {"apiVersion": "v1", "kind": "ConfigMap"}),
    ("policy", "auditAnnotations", [{"key": "a", "valueExpression": "'b'"}]),
    ("policy", "matchConstraints", POLICY["matchConstraints"] | {"matchPolicy": "Exact"}),
    ("policy", "matchConstraints", POLICY["matchConstraints"] | {"namespaceSelector": NOBODY}),
    ("policy", "matchConstraints", POLICY["matchConstraints"] | {"objectSelector": NOBODY}),
    ("policy", "matchConstraints", POLICY["matchConstraints"] | {"excludeResourceRules": EXCLUDED}),
    ("policy", "matchConstraints", {"resourceRules": EXCLUDED}),
    ("binding", "validationActions", ["Deny", "Audit"]),
    ("binding", "policyName", "another"),
    ("binding", "paramRef", {"name": "p", "parameterNotFoundAction": "Allow"}),
    ("binding", "matchResources", None),
    ("binding", "matchResources", {"namespaceSelector": NOBODY}),
    ("binding", "matchResources", BINDING["matchResources"] | {"objectSelector": NOBODY}),
    ("binding", "matchResources", BINDING["matchResources"] | {"excludeResourceRules": EXCLUDED}),
]


@pytest.mark.parametrize(("kind", "field", "value"), CHANGES)
def test_each_field_that_somebody_changed_is_named(kind: str, field: str, value: Any) -> None:
    spec = SPECS[kind]
    changed = {name: one for name, one in (spec | {field: value}).items() if one is not None}
    found = difference(fields(spec), served(changed, **said(spec)))
    assert found.fields == f"spec.{field}"
    assert not found.other_release


def test_all_fields_that_differ_are_named() -> None:
    changed = POLICY | {"validations": [], "variables": []}
    assert difference(fields(POLICY), served(changed, **said(POLICY))).fields == "spec.validations, spec.variables"


def test_another_release_is_known_by_an_annotation_that_fits_its_own_spec() -> None:
    other = POLICY | {"validations": [{"expression": "true"}]}
    assert difference(fields(POLICY), served(other, **said(other))).other_release
    assert difference(fields(POLICY), served(other)).other_release, "of before the annotation"
    third = POLICY | {"validations": []}
    assert not difference(fields(POLICY), served(third, **said(other))).other_release, "changed after an upgrade"
    assert not difference(fields(POLICY), served(other, annotations={ANNOTATION: ""})).other_release

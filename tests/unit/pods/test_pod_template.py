"""The bounds of a pod template: the largest one that the schema takes, and what is over it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from linkis_ecm.model import crd, pod_template
from linkis_ecm.model.engineconn import EngineConnSpec
from tools.testkit.fakes.rules import by_schema

DEFINITION = crd.engineconn()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
TEMPLATE = DEFINITION["properties"]["podTemplate"]
# Of a whole EngineConn. The texts of env are the most of it; code, which is one text, comes on top.
BYTES_MAX = 768 << 10


def largest(schema: dict[str, Any], *, refused: tuple[str, ...] = tuple(pod_template.NEVER)) -> Any:
    """A greatest value of a schema: each field, each list full, each text as long as it may be."""
    # Without a type it is an integer or a text, as quantities are.
    match schema.get("type", "string"):
        case "array":
            return [largest(schema["items"])] * schema["maxItems"]
        case "string":
            return "x" * schema.get("maxLength", 40)
        case "integer":
            return 2**62
        case "boolean":
            return True
    if free := schema.get("additionalProperties"):
        return {str(n).rjust(pod_template.LABEL_KEY, "k"): largest(free) for n in range(schema["maxProperties"])}
    fields = schema.get("properties", {})
    return {name: largest(one) for name, one in fields.items() if name not in refused or name in DEFINITION}


def leaves(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(leaves, value.values()))
    return 1 + sum(map(leaves, value)) if isinstance(value, list) else 1


def test_the_largest_pod_template_is_taken_and_small() -> None:
    value = largest(TEMPLATE)
    assert pod_template.excess(value) == ""
    assert leaves(value) <= pod_template.LEAVES_MAX
    assert len(json.dumps(value)) <= 256 << 10
    assert by_schema(TEMPLATE, value) == value


def test_the_largest_engine_is_bounded() -> None:
    value = largest(DEFINITION, refused=("code",))
    assert leaves(value) <= 2 * pod_template.LEAVES_MAX
    assert len(json.dumps(value)) <= BYTES_MAX


def test_one_list_or_text_more_is_over() -> None:
    adapter = TypeAdapter(dict[str, Any])
    for field, schema in pod_template.SCHEMA["properties"]["spec"]["properties"].items():
        if field in pod_template.NEVER:
            continue
        value = largest(schema)
        match schema["type"]:
            case "array":
                value = [*value, value[0]]
            case "string":
                value += "x"
            case _:
                value = adapter.validate_python(value) | {f"more{n}": "x" for n in range(pod_template.KEYS + 1)}
        assert pod_template.excess({"spec": {field: value}}).startswith(f"podTemplate.spec.{field}")


JUNK: list[dict[str, Any]] = [
    {"spec": {"junk": [[]] * 430_000}},
    {"junk": [[]] * 430_000},
    {"spec": {"affinity": {"nodeAffinity": {"junk": [[]] * 430_000}}}},
    {"spec": {"tolerations": [{"key": [[]] * 430_000}]}},
    {"spec": {"nodeSelector": {"a": [[]] * 430_000}}},
    {"spec": {"nodeSelector": {"a" * 1000: "b"}}},
    {"spec": {"nodeSelector": {str(n): "" for n in range(100_000)}}},
    {"spec": {"imagePullSecrets": [{"name": "a"}] * 100_000}},
    {"metadata": {"annotations": {"a": "b" * 1_000_000}}},
    {"metadata": {"finalizers": ["a"] * 100_000}},
]


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_junk_is_over_wherever_it_stands_and_is_named_in_few_words(junk: dict[str, Any]) -> None:
    assert 0 < len(pod_template.excess(junk)) < 512


def test_what_the_schema_does_not_name_is_taken_out_before_it_is_kept() -> None:
    assert by_schema(TEMPLATE, {**JUNK[0], "junk": 1}) == {"spec": {}}


def test_a_field_that_no_overlay_has_is_refused_by_the_api_server_with_the_operators_words() -> None:
    rules = {rule["rule"]: rule["message"] for rule in TEMPLATE["properties"]["spec"]["x-kubernetes-validations"]}
    words = "spec.podTemplate.spec.hostNetwork is not taken: spec may hold affinity, dnsConfig,"
    assert rules["!has(self.hostNetwork)"].startswith(words)
    assert len(rules) == len(pod_template.NEVER)
    plugin = pod_template.PLUGIN_SCHEMA["properties"]["spec"]["x-kubernetes-validations"]
    assert set(rules) - {rule["rule"] for rule in plugin} == {
        f"!has(self.{name})" for name in set(pod_template.PLUGIN_FIELDS) - set(pod_template.SPEC_FIELDS)
    }


def test_an_engine_that_was_stored_before_is_read() -> None:
    spec = EngineConnSpec.model_validate({"user": "ana", "engineType": "python", "podTemplate": JUNK[0]})
    assert spec.pod_template == JUNK[0]

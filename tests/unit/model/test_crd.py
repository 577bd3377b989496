"""The CRDs: generated files are current, and pydantic judges the corpus as the schema's author meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from linkis_ecm.model import crd
from linkis_ecm.model.engine_status import EngineConn
from linkis_ecm.model.engineconn import EngineConnSpec
from linkis_ecm.model.plugin import EngineConnPlugin
from tools.testkit.corpus import cases

ROOT = Path(__file__).parents[3]
PRESERVE = "x-kubernetes-preserve-unknown-fields"
MODELS = {"EngineConn": EngineConn, "EngineConnPlugin": EngineConnPlugin}


@pytest.mark.parametrize("name", sorted(crd.files()))
def test_a_committed_crd_is_what_the_models_make(name: str) -> None:
    assert (ROOT / "crds" / name).read_text() == crd.files()[name], "run `make generate` and commit crds/"


def test_no_crd_file_lies_about_that_nothing_makes() -> None:
    assert {path.name for path in (ROOT / "crds").glob("*.yaml")} == set(crd.files())


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"])
def test_pydantic_judges_the_corpus(case: dict[str, Any]) -> None:
    model = MODELS[case["kind"]]
    body = {"metadata": {"name": "x"}, "spec": case["spec"]}
    if case["valid"]:
        model.model_validate(body)
        return
    with pytest.raises(ValidationError) as refusal:
        model.model_validate(body)
    assert case["names"] in str(refusal.value)


@pytest.mark.parametrize("kind", ["engineconns", "engineconnplugins"])
@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("engineVersion", "use letters, digits, '_' and '.'"),
        ("workingDir", "write an absolute path, which begins with '/'"),
    ],
)
def test_a_pattern_that_people_meet_has_a_rule_in_words(kind: str, field: str, words: str) -> None:
    (version,) = yaml.safe_load(crd.files()[f"{kind}.yaml"])["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    (found,) = (
        one
        for one in spec["x-kubernetes-validations"]
        if one.get("fieldPath") == f".{field}" and words in one["message"]
    )
    # The same form: who reads the words and follows them is not refused by the pattern.
    assert found["rule"] == f"!has(self.{field}) || self.{field}.matches('{spec['properties'][field]['pattern']}')"


def _walk(schema: dict[str, Any], path: str = "spec") -> list[tuple[str, dict[str, Any]]]:
    found = [(path, schema)]
    for name, child in schema.get("properties", {}).items():
        found += _walk(child, f"{path}.{name}")
    if "items" in schema:
        found += _walk(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        found += _walk(schema["additionalProperties"], f"{path}{{}}")
    return found


@pytest.mark.parametrize("definition", [crd.engineconn(), crd.plugin()], ids=lambda d: d["spec"]["names"]["kind"])
def test_every_string_and_list_of_a_spec_is_bounded(definition: dict[str, Any]) -> None:
    # Without bounds the API server's cost estimate refuses CEL rules, and etcd takes what a user sends.
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for path, schema in _walk(spec):
        if schema.get("type") == "array":
            assert "maxItems" in schema, path
        if schema.get("type") == "string" and "enum" not in schema:
            assert "maxLength" in schema, path
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, path
            assert "size(k)" in schema["x-kubernetes-validations"][0]["rule"], path


@pytest.mark.parametrize("definition", [crd.engineconn(), crd.plugin()], ids=lambda d: d["spec"]["names"]["kind"])
def test_a_schema_is_structural(definition: dict[str, Any]) -> None:
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path, node in _walk(schema, ""):
        if node.get("x-kubernetes-int-or-string"):
            assert "type" not in node, path
            assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
            assert {"pattern", "maxLength", "minimum"} <= set(node), path
            continue
        assert "type" in node, path
        assert not {"$ref", "anyOf", "oneOf", "allOf", "title", PRESERVE} & set(node), path
        assert not ("properties" in node and "additionalProperties" in node), path


@pytest.mark.parametrize("definition", [crd.engineconn(), crd.plugin()], ids=lambda d: d["spec"]["names"]["kind"])
def test_no_entry_of_a_list_has_a_default(definition: dict[str, Any]) -> None:
    """kubectl apply and Argo CD compare a list as a whole: what the server added to an entry would differ for ever."""
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    inside = [(path, node) for path, node in _walk(schema, "") if "[]" in path]
    assert inside
    assert [path for path, node in inside if "default" in node] == []
    # Outside of lists a default stands where `kubectl get -o yaml` shows it.
    assert [path for path, node in _walk(schema, "") if "default" in node]


def test_what_an_entry_leaves_out_is_as_if_it_had_its_default() -> None:
    body = {"engineType": "python", "user": "u", "env": [{"name": "EMPTY"}],
            "volumes": [{"name": "v", "mountPath": "/v", "emptyDir": {}}]}  # fmt: skip
    spec = EngineConnSpec.model_validate(body)
    assert spec.env is not None
    assert spec.volumes is not None
    assert (spec.env[0].value, spec.volumes[0].read_only) == ("", False)


@pytest.mark.parametrize(("written", "text"), [(1, "1"), ("1", "1"), ("500m", "500m"), (1073741824, "1073741824")])
def test_an_amount_is_a_number_or_a_text(written: int | str, text: str) -> None:
    spec = EngineConnSpec.model_validate(
        {"engineType": "python", "user": "u", "resources": {"cpu": written, "memory": written}}
    )
    assert spec.resources is not None
    assert (spec.resources.cpu, spec.resources.memory) == (text, text)


# Of CEL's own functions, and Kubernetes's, those that the rules use. The API server refuses a CRD with any other.
CEL = {
    "add", "all", "compareTo", "contains", "endsWith", "exists", "filter", "getSeconds", "isInteger", "matches", "size",
    "startsWith",
}  # fmt: skip


@pytest.mark.parametrize("definition", [crd.engineconn(), crd.plugin()], ids=lambda d: d["spec"]["names"]["kind"])
def test_rules_call_functions_of_cel_alone(definition: dict[str, Any]) -> None:
    """Python's `startswith` looks right, and no CRD with it can be installed."""
    called: set[str] = set()

    def look(node: Any) -> None:
        if isinstance(node, dict):
            called.update(re.findall(r"\.([A-Za-z]\w*)\(", str(node.get("rule", ""))))
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            look(child)

    look(definition)
    assert called
    assert called <= CEL

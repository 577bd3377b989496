"""The page of the chart's values: current, whole, and in step with the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.render import catalogue
from tools.values_table import VALUES, page, values

CHART = Path(__file__).parents[3] / "helm/linkis-ecm"


def leaves(content: Any, path: str = "") -> Iterator[str]:
    for name, child in content.items():
        inner = f"{path}.{name}" if path else name
        if isinstance(child, dict) and child:
            yield from leaves(child, inner)
        else:
            yield inner


def test_the_page_is_current() -> None:
    assert (CHART / "README.md").read_text() == page(), "run `make generate` and commit helm/"


def test_a_plain_kubectl_apply_installs_the_rendered_manifests() -> None:
    """Each object names its namespace, which comes before it; no resource stands in one file with its own CRD."""
    manifests = CHART.parents[1] / "manifests"
    install = [d for d in yaml.load_all((manifests / "install.yaml").read_text(), yaml.CSafeLoader) if d]
    offered = [d for d in yaml.load_all((manifests / "catalogue.yaml").read_text(), yaml.CSafeLoader) if d]
    assert (manifests / "catalogue.yaml").read_text() == catalogue(), "run `make generate` and commit manifests/"
    there: set[str] = set()
    for document in install:
        namespace = document["metadata"].get("namespace")
        assert namespace is None or namespace in there, document["metadata"]["name"]
        there |= {document["metadata"]["name"]} if document["kind"] == "Namespace" else set()
        assert not document["apiVersion"].startswith("linkis.apache.org/")
        assert document["kind"] not in ("Secret", "Pod")
    assert {d["kind"] for d in install} >= {"CustomResourceDefinition", "Deployment", "NetworkPolicy"}
    assert [d["metadata"]["name"] for d in offered] == ["python-3.11"]


def test_every_value_has_a_row_and_its_default() -> None:
    found = {one.path: one for one in values(VALUES.read_text())}
    defaults = yaml.safe_load(VALUES.read_text())
    for path in leaves(defaults):
        # A mapping that is written in one line is one value.
        row = next(found[".".join(path.split(".")[:n])] for n in range(path.count(".") + 1, 0, -1)
                   if found.get(".".join(path.split(".")[:n]))
                   and found[".".join(path.split(".")[:n])].default)  # fmt: skip
        content = defaults
        for part in row.path.split("."):
            content = content[part]
        assert yaml.safe_load(row.default) == content, row.path


def test_every_value_at_the_top_says_what_it_is() -> None:
    said = {one.path.split(".")[0] for one in values(VALUES.read_text()) if one.meaning}
    assert set(yaml.safe_load(VALUES.read_text())) - said == set()


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("# what\na: 1\n", [("a", "1", "what")]),
        ("a: x # so\n", [("a", "x", "so")]),
        ("a: '#x' # so\n", [("a", "'#x'", "so")]),
        ("# not its\n\na: 1\n", [("a", "1", "")]),
        ("# one\n# two\na: # three\n  # of b\n  b: []\n", [("a", "", "one two three"), ("a.b", "[]", "of b")]),
        ("a: {b: 1, c: {d: 2}} # e\n", [("a", "{b: 1, c: {d: 2}}", "e")]),
        ("a: # what\n  - b: 1\nc: null\n", [("a", "[{b: 1}]", "what"), ("c", "null", "")]),
    ],
)
def test_comments_above_and_behind_belong_to_a_value(text: str, rows: list[tuple[str, str, str]]) -> None:
    assert [(one.path, one.default, one.meaning) for one in values(text)] == rows


def schema_of(schema: Mapping[str, Any], definitions: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """The schema of a member; None where the schema does not name it."""
    if "$ref" in schema:
        schema = definitions[str(schema["$ref"]).rsplit("/", 1)[1]]
    child = schema.get("properties", {}).get(name)
    if child is None:
        child = next(iter(schema.get("patternProperties", {}).values()), None)
    return child


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    definitions = schema["definitions"]
    defaults = yaml.safe_load(VALUES.read_text())
    free = {"labels", "annotations", "podSecurityContext", "securityContext", "resources", "matchLabels"}

    def check(content: Any, node: Mapping[str, Any], path: str) -> None:
        for name, child in content.items():
            found = schema_of(node, definitions, name)
            assert found is not None, f"{path}.{name} is not in values.schema.json"
            if isinstance(child, dict) and name not in free:
                check(child, found, f"{path}.{name}")

    check(defaults, schema, "")
    assert set(schema["properties"]) == set(defaults)

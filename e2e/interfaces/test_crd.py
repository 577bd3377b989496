"""The CRDs on a real API server: it takes them, judges the corpus as pydantic does, and keeps identity immutable."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.testkit.cluster import kubectl
from tools.testkit.corpus import cases

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
CRDS = Path(__file__).parents[2] / "crds"
# Of this run alone: the last run's may still be on its way out.
NAMESPACE = f"ecm-crd-test-{uuid.uuid4().hex[:6]}"


@pytest.fixture(scope="module", autouse=True)
def namespace() -> Iterator[None]:
    kubectl.must("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    kubectl.must("wait", "--for=condition=Established", "-f", str(CRDS), "--timeout=60s")
    kubectl.must("create", "namespace", NAMESPACE)
    yield
    kubectl.must("delete", "namespace", NAMESPACE, "--wait=false")


def manifest(kind: str, name: str, spec: Any) -> str:
    body = {"apiVersion": "linkis.apache.org/v1alpha1", "kind": kind, "metadata": {"name": name}}
    return json.dumps(body | ({} if spec is None else {"spec": spec}))


@pytest.mark.parametrize("definition", ["engineconns", "engineconnplugins"])
def test_the_schema_is_accepted_as_structural(definition: str) -> None:
    crd = kubectl.get("crd", f"{definition}.linkis.apache.org")
    conditions = {c["type"]: c["status"] for c in crd["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert "NonStructuralSchema" not in conditions


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"])
def test_the_api_server_judges_the_corpus_as_pydantic_does(case: dict[str, Any]) -> None:
    answer = kubectl.run(
        "create", "-n", NAMESPACE, "--dry-run=server", "--validate=strict", "-f", "-",
        stdin=manifest(case["kind"], "corpus", case["spec"]),
    )  # fmt: skip
    if case["valid"]:
        assert answer.code == 0, answer.err
    else:
        assert answer.code != 0
        assert case["names"] in answer.err


WINDOW = {"from": "08:00", "to": "19:00", "size": 2}


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        ({"size": 11}, "cap must be at least size: raise cap or lower size"),
        ({"schedule": [WINDOW, WINDOW | {"size": 11}]}, "cap must be at least each size of schedule"),
        ({"schedule": [WINDOW | {"to": "08:00"}]}, "for a whole day write from 00:00 and to 24:00"),
        ({"scaling": {"max": 11}}, "cap must be at least scaling.max"),
        ({"size": 3, "scaling": {"max": 2}}, "scaling.max must be at least size"),
        ({"scaling": {"max": 2, "window": "30s"}}, "window must be between 1m and 1h"),
        ({"scaling": {"max": 2, "window": "61m"}}, "window must be between 1m and 1h"),
        ({"maxAge": "3s"}, "maxAge must be 10m or more, or 0s for never"),
        ({"maxAge": "0s"}, ""),
        ({"size": 2, "schedule": [WINDOW], "scaling": {"max": 10, "window": "1h"}}, ""),
    ],
)
def test_a_pool_that_cannot_be_is_refused_with_what_to_write(pool: dict[str, Any], words: str) -> None:
    spec = {"engineType": "python", "engineVersion": "3", "image": "i", "runTypes": ["python"],
            "defaultResources": {"cpu": "1", "memory": "1Gi"}, "warmPool": {"cap": 10} | pool}  # fmt: skip
    answer = kubectl.run(
        "create", "--dry-run=server", "-f", "-", stdin=manifest("EngineConnPlugin", "corpus", spec)
    )  # fmt: skip
    assert (answer.code == 0) == (words == ""), answer.err
    assert words in answer.err


@pytest.fixture(scope="module")
def engine() -> str:
    # Stopped, so that no operator makes a pod of it.
    spec = {"engineType": "python", "user": "hadoop", "desiredState": "Stopped"}
    kubectl.must("create", "-n", NAMESPACE, "-f", "-", stdin=manifest("EngineConn", "identity", spec))
    return "identity"


@pytest.mark.parametrize(
    "change",
    [
        {"engineType": "shell"},
        {"engineType": None, "plugin": "p"},
        {"engineVersion": "3"},
        {"user": "eve"},
        {"creator": "other"},
        {"mode": "once", "code": "1"},
        {"ticketId": "6d48068a-0e1e-44b5-8eb2-835034db5b30"},
        {"tenant": "t"},
        {"env": [{"name": "A", "value": "b"}]},
        {"desiredState": "Running"},
    ],
    ids="+".join,
)
def test_identity_cannot_change(engine: str, change: dict[str, Any]) -> None:
    patch = json.dumps({"spec": change})
    answer = kubectl.run("patch", "ec", engine, "-n", NAMESPACE, "--type=merge", "-p", patch)
    assert answer.code != 0
    assert "create another engine" in answer.err


@pytest.mark.parametrize(
    "change",
    [{"idleTimeout": "5m"}, {"maxLifetime": "1h"}, {"resources": {"memory": "2Gi"}}, {"ttlAfterFinished": "1h"}],
    ids="+".join,
)
def test_timeouts_and_resources_may_change(engine: str, change: dict[str, Any]) -> None:
    kubectl.must("patch", "ec", engine, "-n", NAMESPACE, "--type=merge", "-p", json.dumps({"spec": change}))


def test_engines_are_selected_by_type_user_and_state(engine: str) -> None:
    selector = "spec.engineType=python,spec.user=hadoop,spec.desiredState=Stopped"
    found = kubectl.get("ec", "-n", NAMESPACE, "--field-selector", selector)
    assert [item["metadata"]["name"] for item in found["items"]] == [engine]
    other = kubectl.get("ec", "-n", NAMESPACE, "--field-selector", "spec.user=eve")
    assert other["items"] == []

"""The YAML of examples/ and manifests/samples: what the API server and the operator would say to it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.pod.launch import PodSettings
from linkis_ecm.engine.pod.spec import build_pod
from linkis_ecm.engine.view import engine_view
from linkis_ecm.model.engineconn import EngineConnSpec
from linkis_ecm.model.plugin import EngineConnPluginSpec

EPOCH = datetime(2026, 11, 27, tzinfo=UTC)
ROOT = Path(__file__).parents[3]
FILES = sorted([*ROOT.glob("examples/*.yaml"), *ROOT.glob("manifests/samples/*.yaml")])


def specs(path: Path) -> list[tuple[dict[str, Any], EngineConnSpec | EngineConnPluginSpec]]:
    models = {"EngineConn": EngineConnSpec, "EngineConnPlugin": EngineConnPluginSpec}
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    return [(document, models[document["kind"]].model_validate(document["spec"])) for document in documents]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_document_is_one_that_the_api_server_takes(path: Path) -> None:
    found = specs(path)
    assert found
    assert all(document["apiVersion"] == "linkis.apache.org/v1alpha1" for document, _ in found)


def test_every_file_of_examples_is_in_the_readme() -> None:
    text = (ROOT / "examples/README.md").read_text()
    names = [path.name for path in (ROOT / "examples").iterdir() if path.is_file() and path.name != "README.md"]
    assert [name for name in names if f"[{name}]({name})" not in text] == []


@pytest.mark.parametrize(
    "path", [ROOT / "examples/08-process.yaml", ROOT / "manifests/samples/process.yaml"], ids=lambda path: path.name
)
def test_a_process_gets_a_pod_of_its_own_command_and_port(path: Path) -> None:
    (_, plugin), (document, engine) = specs(path)
    assert isinstance(plugin, EngineConnPluginSpec)
    assert isinstance(engine, EngineConnSpec)
    assert engine.engine_type == plugin.engine_type
    document["metadata"] |= {"namespace": "linkis", "uid": "uid-1", "resourceVersion": "1"}
    pod = build_pod(
        engine_view(document, epoch=EPOCH),
        engine,
        plugin,
        ticket="t-1",
        attempt=0,
        settings=PodSettings(report_url="http://op"),
    )
    (container,) = pod["spec"]["containers"]
    assert plugin.launch is not None
    assert container["command"] == plugin.command
    assert container["ports"] == [{"name": "engine", "containerPort": plugin.launch.port}]
    assert container["readinessProbe"] == launch.readiness_probe(plugin.launch)
    assert container["env"] == [], "no token, no agent's settings"

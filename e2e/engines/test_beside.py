"""What a platform puts into its engines' pods, on the real node: devices, containers beside the engine, a held node."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest

from e2e.shared.engines import Engines
from tools.cluster.tools import images
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.waiting import NAMESPACE, pods, status, until_holds, until_state
from tools.testkit.gateway.client import Gateway

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
# No device plugin runs here: the node's status says that it has two, which is all that the scheduler looks at.
DEVICE = "e2e.linkis.apache.org/gpu"
HELD = "karpenter.sh/do-not-disrupt"
PLUGIN = f"e2e-beside-{uuid.uuid4().hex[:6]}"


def node_has(number: int | None) -> None:
    """The node's status with so many devices, or with none of that name."""
    (node,) = kubectl.get("nodes")["items"]
    change = {"capacity": {DEVICE: None if number is None else str(number)}}
    name = node["metadata"]["name"]
    kubectl.must("patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": change}))
    shown = "0" if number is None else str(number)
    until_holds(
        "the node offers the devices",
        lambda: kubectl.get("node", name)["status"]["allocatable"].get(DEVICE, "0"),
        lambda found: found == shown or number is None,
        60,
    )


@pytest.fixture
def plugin(gateway: Gateway) -> Iterator[str]:
    image = images()["engine-python"]
    beside = {"image": image, "imagePullPolicy": "IfNotPresent", "resources": {"limits": {"memory": "64Mi"}}}
    write = "open('/to/model', 'w').write('weights')"
    wait = "import signal; signal.pause()"
    spec = {
        "engineType": "e2e_beside", "engineVersion": "1", "image": image, "imagePullPolicy": "IfNotPresent",
        "runTypes": ["python"], "defaultResources": {"cpu": "100m", "memory": "512Mi"},
        "maxResources": {"cpu": "1", "memory": "1Gi", "extended": {DEVICE: 1}}, "memoryRequestPercent": 50,
        "doNotDisrupt": "busy",
        "volumes": [{"name": "models", "mountPath": "/models", "readOnly": True, "emptyDir": {"sizeLimit": "16Mi"}}],
        "podTemplate": {"spec": {
            "hostAliases": [{"ip": "127.0.0.9", "hostnames": ["warehouse.e2e"]}],
            "initContainers": [beside | {"name": "fetch", "command": ["python", "-c", write],
                                         "volumeMounts": [{"name": "models", "mountPath": "/to"}]}],
            "containers": [beside | {"name": "shipper", "command": ["python", "-c", wait]}]}},
    }  # fmt: skip
    body = {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConnPlugin", "metadata": {"name": PLUGIN}}
    node_has(2)
    try:
        kubectl.must("create", "-f", "-", stdin=json.dumps(body | {"spec": spec}))
        yield PLUGIN
    finally:
        kubectl.run("delete", "ecp", PLUGIN)
        node_has(None)


def is_held(name: str) -> bool:
    return any(HELD in (pod["metadata"].get("annotations") or {}) for pod in pods(name))


def test_an_engine_has_what_its_plugin_puts_beside_it(plugin: str, engines: Engines, gateway: Gateway) -> None:
    name, ticket = engines.ready(plugin=plugin, resources={"extended": {DEVICE: 1}})
    assert is_held(name), "somebody waits for its start"
    (pod,) = pods(name)
    own = next(one for one in pod["spec"]["containers"] if one["name"] == "engine")["resources"]
    assert (own["requests"][DEVICE], own["limits"][DEVICE]) == ("1", "1")
    assert (own["requests"]["memory"], own["limits"]["memory"]) == ("256Mi", "512Mi")
    code = "import socket; print(open('/models/model').read(), socket.gethostbyname('warehouse.e2e'))"
    assert gateway.execute(ticket, code).data["outputs"][0]["text"].strip() == "weights 127.0.0.9"
    refused = engines.create(plugin=plugin, resources={"extended": {DEVICE: 2}})
    assert "spec.resources.extended" in until_state(refused, "Failed")["message"]
    # A minute after its task. An autoscaler may have its node then, and the engine is as it was.
    until_holds("the idle engine is released", lambda: is_held(name), lambda held: not held, 100)
    assert status(name)["engineState"] == "Idle"
    kubectl.must("patch", "ec", name, "-n", NAMESPACE, "--type=merge", "-p", '{"spec": {"desiredState": "Stopped"}}')
    until_state(name, "Success")
    until_holds("its pod goes though the other container would run on", lambda: pods(name), lambda found: not found, 90)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("ec.spec.resources.extended", "nvidia.com/gpu"),
        ("ecp.spec.memoryRequestPercent", "scheduler"),
        ("ecp.spec.doNotDisrupt", "autoscaler"),
        ("ecp.spec.volumes", "mountPath"),
        ("ecp.spec.podTemplate.spec.initContainers.volumeMounts", "mountPath"),
    ],
)
def test_kubectl_explains_the_field(gateway: Gateway, field: str, words: str) -> None:
    assert words in kubectl.must("explain", field)

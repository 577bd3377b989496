"""A pod that a real API server stores still has the operator's seal, for each kind of pod that the operator builds.

Most are created on trial (--dry-run=server): defaults, admission and storage's form, and no container. So there is no
need for their images, Secrets and claims. A few run, as the operator made them.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from e2e.engines.test_process_engine import HTTP, Processes
from e2e.shared.engines import Engines
from linkis_ecm.engine.names import SEAL_ANNOTATION
from linkis_ecm.engine.pod.made import PodSeals
from linkis_ecm.engine.pod.sealed_form import form, given
from linkis_ecm.model.agent_key import master_key
from tools.cluster.tools import images
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import RELEASE
from tools.testkit.cluster.waiting import NAMESPACE, RELEASE_NAMESPACE, pods, until_holds, until_state
from tools.testkit.pods.kinds import KINDS, manifest
from tools.testkit.pods.stored import LIMIT_RANGE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
KEY = b"k" * 32
RUN = uuid.uuid4().hex[:6]
# With nothing but the API server's own, and where admission fills in and adds.
PLAIN, FILLED, SANDBOX = f"ecm-seals-plain-{RUN}", f"ecm-seals-filled-{RUN}", f"ecm-seals-{RUN}"


def apply(*objects: dict[str, Any]) -> None:
    kubectl.must("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


@pytest.fixture(scope="module")
def places() -> Iterator[None]:
    for name in (PLAIN, FILLED):
        kubectl.must("create", "namespace", name)
    limits = {"type": "Container", "default": LIMIT_RANGE["limits"], "defaultRequest": LIMIT_RANGE["requests"]}
    apply(
        {
            "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "defaults", "namespace": FILLED},
            "spec": {"limits": [limits]},
        },
        {
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "engines", "namespace": FILLED},
            "imagePullSecrets": [{"name": "registry"}],
        },
        {
            "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": SANDBOX}, "handler": "runc",
            "overhead": {"podFixed": {"cpu": "250m"}},
            "scheduling": {
                "nodeSelector": {"sandbox": "yes"},
                "tolerations": [{"key": "sandbox", "operator": "Exists", "effect": "NoSchedule"}],
            },
        },
    )  # fmt: skip
    for name in (PLAIN, FILLED):
        until_holds("an account", partial(kubectl.run, "get", "sa", "default", "-n", name), lambda a: not a.code, 30)
    yield
    kubectl.run("delete", "runtimeclass", SANDBOX, "--ignore-not-found", "--wait=false")
    kubectl.run("delete", "namespace", PLAIN, FILLED, "--ignore-not-found", "--wait=false")


def differences(made: Any, stored: Any, path: str = "") -> list[str]:
    """Where the forms of two pods differ, for the message of a test that fails."""
    if isinstance(made, dict) and isinstance(stored, dict):
        names = sorted({*made, *stored})
        return [text for name in names for text in differences(made.get(name), stored.get(name), f"{path}.{name}")]
    if isinstance(made, list) and isinstance(stored, list) and len(made) == len(stored):
        both = enumerate(zip(made, stored, strict=True))
        return [text for number, (a, b) in both for text in differences(a, b, f"{path}[{number}]")]
    return [] if made == stored else [f"{path}: made {made!r}, stored {stored!r}"]


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize("filled", [False, True], ids=["plain", "filled"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_pod_that_the_api_server_stores_has_its_seal(kind: str, filled: bool) -> None:
    template = {"runtimeClassName": SANDBOX, "serviceAccountName": "engines"} if filled else {}
    pod = manifest(kind, FILLED if filled else PLAIN, **template)
    sealed = PodSeals((KEY,)).sealed(pod)
    answer = kubectl.must("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(sealed))
    stored = json.loads(answer)
    assert stored["spec"]["schedulerName"] == "default-scheduler", "it is what the API server makes of it"
    assert ("overhead" in stored["spec"]) == filled
    known = given(pod)
    assert differences(form(pod, known), form(stored, known)) == []
    assert PodSeals((KEY,)).holds(stored)
    stored["spec"]["containers"][0]["image"] = "evil:1"
    assert not PodSeals((KEY,)).holds(stored)


SCRATCH = {"name": "scratch", "mountPath": "/scratch", "emptyDir": {"sizeLimit": "64Mi"}}
SLEEP = ["python3", "-c", "import time; time.sleep(3600)"]


@pytest.fixture
def seals(installation: Any) -> PodSeals:
    """Of the release, by its key."""
    encoded = kubectl.get("secret", f"{RELEASE}-auth", "-n", RELEASE_NAMESPACE)["data"]["token-key"]
    return PodSeals((master_key(base64.b64decode(encoded)),))


@pytest.fixture
def secret() -> Iterator[str]:
    name = f"seals-{RUN}"
    kubectl.must("create", "secret", "generic", name, "-n", NAMESPACE, "--from-literal=key=value")
    yield name
    kubectl.run("delete", "secret", name, "-n", NAMESPACE, "--ignore-not-found", "--wait=false")


@pytest.fixture
def processes(installation: Any) -> Iterator[Processes]:
    made = Processes()
    yield made
    made.delete()


def has_seal(seals: PodSeals, name: str) -> bool:
    """Of an engine's pod as the scheduler, the kubelet and the network's plugin leave it."""
    (pod,) = pods(name)
    assert SEAL_ANNOTATION in pod["metadata"]["annotations"]
    assert pod["spec"]["nodeName"]
    return seals.holds(pod)


def test_an_engines_pod_that_runs_has_its_seal(engines: Engines, seals: PodSeals, secret: str) -> None:
    files = {"name": "files", "mountPath": "/files", "readOnly": True, "secret": {"secretName": secret}}
    variable = {"name": "A", "valueFrom": {"secretKeyRef": {"name": secret, "key": "key"}}}
    # Cold: no pod of a pool has a user's volume.
    name, _ = engines.ready(volumes=[SCRATCH, files], env=[variable, {"name": "B", "value": "$b"}])
    assert has_seal(seals, name)


def test_a_processs_pod_that_runs_has_its_seal(processes: Processes, seals: PodSeals, secret: str) -> None:
    beside = {"image": images()["ecm"], "imagePullPolicy": "IfNotPresent"}
    mount = {"name": "shared", "mountPath": "/shared"}
    template = {
        "initContainers": [
            beside | {"name": "first", "command": ["python3", "-V"], "volumeMounts": [mount]},
            beside
            | {
                "name": "sidecar", "command": SLEEP, "restartPolicy": "Always",
                "startupProbe": {"exec": {"command": ["python3", "-V"]}, "periodSeconds": 1},
            },
        ],
        "containers": [
            beside
            | {
                "name": "helper", "command": SLEEP, "resources": {"limits": {"cpu": "0.1", "memory": "64Mi"}},
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": secret, "key": "key"}}}],
            }
        ],
    }  # fmt: skip
    plugin = processes.plugin(HTTP, volumes=[mount | {"emptyDir": {}}], podTemplate={"spec": template})
    name = processes.engine(plugin, volumes=[SCRATCH])
    until_state(name, "Idle")
    assert has_seal(seals, name)

"""Waits and ends that others cause, on the real node: what its kubelet, its scheduler and admission policies do."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from e2e.shared.engines import Engines
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.waiting import NAMESPACE, pods, status, until, until_holds, until_state
from tools.testkit.gateway.client import Gateway

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(500)]
POLICIES = "mutatingadmissionpolicies.admissionregistration.k8s.io"


LABELS = {"app.kubernetes.io/managed-by": "linkis-ecm"}
# As restricted as an engine's pod: the namespace takes no other.
PROBE = {
    "apiVersion": "v1", "kind": "Pod",
    "metadata": {"name": "causes-probe", "namespace": NAMESPACE, "labels": LABELS},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "engine", "image": "none",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }],
    },
}  # fmt: skip


def new_pod() -> str:
    """What the API server does with a new pod of these tests: "changed", "kept", or "refused" in between."""
    made = kubectl.run("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(PROBE))
    if made.code:
        return "refused"
    seen = json.loads(made.out)["spec"]
    changed = len(seen["containers"]) + len(seen.get("initContainers", [])) > 1 or "schedulingGates" in seen
    return "changed" if changed else "kept"


@pytest.fixture
def mutate() -> Iterator[Callable[[str], None]]:
    """Changes each new pod of these tests by a CEL expression, as a mesh's webhook does."""
    found = kubectl.run("get", POLICIES)
    if found.code:
        pytest.skip("this API server has no MutatingAdmissionPolicy")
    name = f"cause-{uuid.uuid4().hex[:6]}"

    def mutate(expression: str) -> None:
        selector = {"matchLabels": LABELS}
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
        spec = {
            "matchConstraints": {"resourceRules": [rule], "objectSelector": selector},
            "matchConditions": [{"name": "ours", "expression": "object.metadata.name.startsWith('causes-')"}],
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        }  # fmt: skip
        group = "admissionregistration.k8s.io/v1"
        policy = {"apiVersion": group, "kind": "MutatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec}
        binding = {"apiVersion": group, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name},
                   "spec": {"policyName": name}}  # fmt: skip
        for body in (policy, binding):
            kubectl.must("create", "-f", "-", stdin=json.dumps(body))
        until("the policy to be in force", lambda: new_pod() == "changed", seconds=60)

    yield mutate
    for kind in (POLICIES, POLICIES.replace("policies", "policybindings")):
        kubectl.run("delete", kind, name, "--ignore-not-found")
    # The API server asks a policy for a moment after its end.
    until("the policy to be out of force", lambda: new_pod() == "kept", seconds=60)


def image() -> str:
    """The engines' own: it is on the node."""
    return str(kubectl.get("ecp", "python-3.11")["spec"]["image"])


def added(where: str, name: str, command: str) -> str:
    """The CEL expression that adds a container: a patch, as an apply configuration may hold no atomic list."""
    one = f"Object.spec.{where}"
    container = (
        f"{one}{{name: '{name}', image: '{image()}', command: ['sh', '-c', '{command}'],"
        f" securityContext: {one}.securityContext{{allowPrivilegeEscalation: false,"
        f" capabilities: {one}.securityContext.capabilities{{drop: ['ALL']}}}}}}"
    )
    if where == "containers":
        return f"[JSONPatch{{op: 'add', path: '/spec/containers/-', value: {container}}}]"
    return f"[JSONPatch{{op: 'add', path: '/spec/{where}', value: [{container}]}}]"


def test_an_init_container_that_fails_is_named_with_its_code_and_its_log(
    engines: Engines, mutate: Callable[[str], None]
) -> None:
    mutate(added("initContainers", "mesh-init", "echo no route to the mesh; exit 3"))
    found = until_state(engines.create(), "Failed")
    assert found["reason"] == "InitContainerFailed"
    for words in ("mesh-init", "Its exit code was 3", "no route to the mesh"):
        assert words in found["message"]


def test_a_pod_goes_with_its_engine_though_a_sidecar_runs_on(engines: Engines, mutate: Callable[[str], None]) -> None:
    mutate(added("containers", "mesh-proxy", "sleep 1000"))
    name = engines.create(mode="once", code="print(1)")
    assert until_state(name, "Success")["reason"] == "Completed"
    until("its pod to go", lambda: not pods(name), seconds=60)


def test_a_gated_engine_waits_as_long_as_its_gate(engines: Engines, mutate: Callable[[str], None]) -> None:
    gate = "Object.spec.schedulingGates{name: 'example.org/queue'}"
    mutate(f"[JSONPatch{{op: 'add', path: '/spec/schedulingGates', value: [{gate}]}}]")
    began = time.monotonic()
    name = engines.create(startTimeout="20s")
    until_holds("it to wait", lambda: status(name), lambda s: s.get("reason") == "SchedulingGated")
    until("its startTimeout to be over", lambda: time.monotonic() > began + 25)
    assert (status(name)["engineState"], status(name)["reason"]) == ("Starting", "SchedulingGated")
    (pod,) = pods(name)
    kubectl.must("patch", "pod", pod["metadata"]["name"], "-n", NAMESPACE, "--type=json", "-p",
                 '[{"op": "remove", "path": "/spec/schedulingGates"}]')  # fmt: skip
    assert until_state(name, "Idle")["startup"]["admitted"]


def test_a_missing_secret_is_told_while_the_engine_waits(engines: Engines) -> None:
    name = engines.create(
        volumes=[{"name": "s", "mountPath": "/s", "secret": {"secretName": "not-there"}}], startTimeout="5m"
    )
    found = until_holds(
        "the kubelet's words", lambda: status(name), lambda s: s.get("reason") == "MountFailed", seconds=90
    )
    assert 'secret "not-there" not found' in found["message"]


def test_an_idle_engine_that_the_node_evicts_is_evicted(engines: Engines, gateway: Gateway) -> None:
    name = engines.create(volumes=[{"name": "s", "mountPath": "/s", "emptyDir": {"sizeLimit": "2Mi"}}])
    ticket = until_state(name, "Idle")["ticketId"]
    gateway.execute(ticket, "open('/s/f', 'wb').write(b'x' * 9_000_000)").data  # noqa: B018
    found = until_state(name, "Failed", seconds=240)
    # Its own disk, and not the node's need (verdicts.evicted).
    assert found["reason"] == "StorageExceeded"
    assert "exceeds the limit" in found["message"]


@pytest.mark.parametrize(
    ("code", "state", "words"),
    [("exit(1)", "Failed", "exit code 1"), ("import sys; sys.exit(0)", "Success", ""),
     ("import sys; sys.exit('no data')", "Failed", "no data")],
)  # fmt: skip
def test_a_job_ends_with_its_own_exit_code(engines: Engines, code: str, state: str, words: str) -> None:
    name = engines.create(mode="once", code=code)
    found = until_state(name, state)
    assert words in found["message"]
    if state == "Failed":
        assert found["reason"] == "JobFailed"
        (pod,) = pods(name)
        assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 1


def test_a_user_with_a_mail_address_has_engines(engines: Engines) -> None:
    name = engines.create(user="jane-doe@corp.com", creator="IDE")
    found = until_state(name, "Idle")
    assert found["logDirSuffix"].startswith("jane_x2ddoe_x40corp.com/")
    refused = kubectl.run("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps({
        "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": "refused"},
        "spec": {"engineType": "python", "user": "hadoop", "creator": "my-app"},
    }))  # fmt: skip
    assert "Linkis writes it into a label and splits that at '-'" in refused.err

"""A pod of the engine's name whose uid nobody knows is the operator's by its seal, which is over what it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from linkis_ecm.engine.pod.made import PodSeals
from tests.unit.pods.test_pod_bounds import built
from tests.unit.pods.test_pod_containers import FETCH, PROXY, SHIPPER, plugin

KEY, OTHER = b"k" * 32, b"o" * 32
OWNER = {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "name": "e", "uid": "engine-uid"}


def manifest() -> dict[str, Any]:
    variable = {"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    volumes = [{"name": "data", "mountPath": "/data", "secret": {"secretName": "d"}}]
    offered = plugin(initContainers=[FETCH, PROXY], containers=[SHIPPER]) | {"env": [{"name": "EMPTY", "value": ""}]}
    spec = built(offered, {"env": [variable], "volumes": volumes})
    metadata = {"name": "e-01234567-0", "namespace": "team", "ownerReferences": [OWNER], "annotations": {"a": "b"}}
    return {"metadata": metadata, "spec": spec}


def stored(pod: dict[str, Any]) -> dict[str, Any]:
    """The pod as a real API server (1.35) stores it and a kubelet runs it."""
    found: dict[str, Any] = json.loads(json.dumps(pod))
    spec = found["spec"]
    spec |= {
        "dnsPolicy": "ClusterFirst", "nodeName": "node-1", "preemptionPolicy": "PreemptLowerPriority", "priority": 0,
        "schedulerName": "default-scheduler", "serviceAccount": "default", "serviceAccountName": "default",
        "tolerations": [{"effect": "NoExecute", "key": "node.kubernetes.io/not-ready", "operator": "Exists"}],
    }  # fmt: skip
    for container in (*spec["containers"], *spec["initContainers"]):
        container["imagePullPolicy"] = "IfNotPresent"
        container["terminationMessagePath"] = "/dev/termination-log"
        container.setdefault("terminationMessagePolicy", "File")
        container.setdefault("resources", {})["requests"] = {"cpu": "1", "memory": "1Gi"}
        for port in container.get("ports", []):
            port["protocol"] = "TCP"
        for variable in container.get("env", []):
            if variable.get("value") == "":
                del variable["value"]
            if "fieldRef" in variable.get("valueFrom", {}):
                variable["valueFrom"]["fieldRef"]["apiVersion"] = "v1"
        if probe := container.get("startupProbe"):
            probe |= {"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1}
    for volume in spec["volumes"]:
        for kind in ("secret", "projected"):
            if kind in volume:
                volume[kind].setdefault("defaultMode", 420)
        if "sizeLimit" in volume.get("emptyDir", {}):
            volume["emptyDir"]["sizeLimit"] = "3Gi"
    found["metadata"] |= {"uid": "pod-uid", "resourceVersion": "7"}
    return found


def test_a_pod_as_the_api_server_stores_it_runs_what_was_made() -> None:
    sealed = PodSeals((KEY,)).sealed(manifest())
    assert PodSeals((KEY,)).holds(sealed)
    assert PodSeals((KEY,)).holds(stored(sealed))


def engine(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]["containers"][0]
    return found


ATTACKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another image": lambda pod: engine(pod).update(image="evil:1"),
    "a command": lambda pod: engine(pod).update(command=["sh"]),
    "arguments": lambda pod: engine(pod).update(args=["-c", "evil"]),
    "a variable more": lambda pod: engine(pod)["env"].append({"name": "LD_PRELOAD", "value": "/data/x.so"}),
    "another value": lambda pod: engine(pod)["env"][0].update(value="evil"),
    "a hook": lambda pod: engine(pod).update(lifecycle={"postStart": {"exec": {"command": ["evil"]}}}),
    "a mount over the code": lambda pod: engine(pod)["volumeMounts"].append({"name": "data", "mountPath": "/opt"}),
    "another volume": lambda pod: pod["spec"]["volumes"][-1].update(secret={"secretName": "evil"}),
    "a container more": lambda pod: pod["spec"]["containers"].append({"name": "x", "image": "evil:1"}),
    "an init container more": lambda pod: pod["spec"]["initContainers"].append({"name": "x", "image": "evil:1"}),
    "a container for debugging": lambda pod: pod["spec"].update(ephemeralContainers=[{"name": "x"}]),
    "one process namespace": lambda pod: pod["spec"].update(shareProcessNamespace=True),
    "the node's processes": lambda pod: pod["spec"].update(hostPID=True),
    "another account": lambda pod: pod["spec"].update(serviceAccountName="admin"),
    "root": lambda pod: engine(pod)["securityContext"].update(runAsUser=0, runAsNonRoot=False),
    "a way to more rights": lambda pod: engine(pod)["securityContext"].pop("allowPrivilegeEscalation"),
    "another runtime": lambda pod: pod["spec"].update(runtimeClassName="evil"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_pod_that_runs_anything_else_is_not_it(attack: str) -> None:
    found = stored(PodSeals((KEY,)).sealed(manifest()))
    ATTACKS[attack](found)
    assert not PodSeals((KEY,)).holds(found)


def test_a_seal_is_of_one_name_namespace_and_owner() -> None:
    seals = PodSeals((KEY,))
    pod = seals.sealed(manifest())
    assert pod["metadata"]["annotations"]["a"] == "b"
    assert seals.holds(pod)
    assert not seals.holds(manifest())
    for part, value in (("name", "e-01234567-1"), ("namespace", "other"), ("ownerReferences", [OWNER | {"uid": "x"}])):
        assert not seals.holds({**pod, "metadata": pod["metadata"] | {part: value}}), part
    two = [*pod["metadata"]["ownerReferences"], OWNER | {"uid": "x"}]
    assert not seals.holds({**pod, "metadata": pod["metadata"] | {"ownerReferences": two}})


def test_the_keys_of_before_and_now_are_taken() -> None:
    pod = PodSeals((OTHER,)).sealed(manifest())
    assert PodSeals((KEY, OTHER)).holds(pod)
    assert not PodSeals((KEY,)).holds(pod)


@pytest.mark.parametrize("seal", [None, "", 7, "é" * 64])
def test_what_is_no_seal_is_none(seal: Any) -> None:
    pod = manifest()
    pod["metadata"]["annotations"] = {"linkis.apache.org/seal": seal}
    assert not PodSeals((KEY,)).holds(pod)
    assert not PodSeals((KEY,)).holds({"metadata": {"name": "e"}})


def test_a_pod_of_endless_depth_is_not_it() -> None:
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"a": deep}
    found = PodSeals((KEY,)).sealed(manifest())
    found["spec"]["containers"][0]["securityContext"] = deep
    assert not PodSeals((KEY,)).holds(found)

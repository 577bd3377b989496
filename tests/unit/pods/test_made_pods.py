"""A pod of the engine's name whose uid nobody knows is the operator's by its seal, which is over the whole of it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from linkis_ecm.engine.pod.made import PodSeals
from tools.testkit.pods.kinds import KINDS, manifest
from tools.testkit.pods.stored import LIMIT_RANGE, stored

KEY, OTHER = b"k" * 32, b"o" * 32
SEAL = "linkis.apache.org/seal"
Pod = dict[str, Any]
Change = Callable[[Pod], Any]
SANDBOX = {"runtimeClassName": "sandbox", "priorityClassName": "high", "serviceAccountName": "engines"}


def sealed(kind: str, **template: Any) -> Pod:
    return PodSeals((KEY,)).sealed(manifest(kind, **template))


def holds(pod: Pod) -> bool:
    return PodSeals((KEY,)).holds(pod)


@pytest.mark.parametrize("limit_range", [None, LIMIT_RANGE])
@pytest.mark.parametrize("template", [{}, SANDBOX], ids=["plain", "sandbox"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_pod_as_the_api_server_stores_it_is_what_was_made(kind: str, template: Any, limit_range: Any) -> None:
    pod = sealed(kind, **template)
    found = stored(pod, limit_range=limit_range)
    assert holds(pod)
    assert found["spec"] != pod["spec"]
    assert holds(found)


def engine(pod: Pod) -> Pod:
    found: Pod = pod["spec"]["containers"][0]
    return found


def beside(pod: Pod, name: str) -> Pod:
    containers = [*pod["spec"]["containers"], *pod["spec"]["initContainers"]]
    return next(one for one in containers if one["name"] == name)


def check(pod: Pod) -> Pod:
    found: Pod = beside(pod, "proxy")["startupProbe"]
    return found


def devices(pod: Pod, number: str) -> None:
    for side in engine(pod)["resources"].values():
        side["nvidia.com/gpu"] = number


def tolerate(pod: Pod, **toleration: str) -> None:
    pod["spec"]["tolerations"].append({"operator": "Exists"} | toleration)


def mounts(pod: Pod) -> list[Pod]:
    found: list[Pod] = engine(pod)["volumeMounts"]
    return found


def volume(pod: Pod, kind: str) -> Pod:
    found: Pod = next(one[kind] for one in pod["spec"]["volumes"] if kind in one)
    return found


def labels(pod: Pod) -> Pod:
    found: Pod = pod["metadata"]["labels"]
    return found


def notes(pod: Pod) -> Pod:
    found: Pod = pod["metadata"]["annotations"]
    return found


def affinity(pod: Pod) -> Pod:
    found: Pod = pod["spec"]["affinity"]["podAntiAffinity"]
    return found


REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
MESH = {"name": "mesh", "image": "mesh:1"}
# What a webhook, an admission plugin or a controller of the platform writes: it changes nothing of what runs.
HARMLESS: dict[str, Change] = {
    "a label more": lambda pod: labels(pod).update({"platform.example/cost": "7"}),
    "a standard label more": lambda pod: labels(pod).update({"app.kubernetes.io/created-by": "platform"}),
    "a note more": lambda pod: notes(pod).update({"cni.projectcalico.org/podIP": "10.0.0.1/32"}),
    "a policy's note": lambda pod: notes(pod).update({"policies.kyverno.io/last-applied-patches": "x"}),
    "a queue's note": lambda pod: notes(pod).update({"kueue.x-k8s.io/workload": "w"}),
    "autoscalers' mark": lambda pod: notes(pod).update({"karpenter.sh/do-not-disrupt": "true"}),
    "an account's pull secret": lambda pod: pod["spec"].update(imagePullSecrets=[{"name": "registry"}]),
    "a gate of a queue": lambda pod: pod["spec"].update(schedulingGates=[{"name": "queue"}]),
    "a finalizer": lambda pod: pod["metadata"].update(finalizers=["platform/x"]),
    "a pull at each start": lambda pod: engine(pod).update(imagePullPolicy="Always"),
    "a range's limit": lambda pod: engine(pod)["resources"]["limits"].update(cpu="3"),
    "other words for a default": lambda pod: pod["spec"].update(hostNetwork=False, dnsPolicy="ClusterFirst"),
    "a longer stay on a dead node": lambda pod: pod["spec"]["tolerations"][0].update(tolerationSeconds=9),
}  # fmt: skip
# What an attacker may change of a copy that has the seal: the kind of pod, and the change.
ATTACKS: dict[str, tuple[str, Change]] = {
    # What runs.
    "another image": ("python", lambda pod: engine(pod).update(image="evil:1")),
    "a command": ("python", lambda pod: engine(pod).update(command=["sh"])),
    "arguments": ("python", lambda pod: engine(pod).update(args=["-c", "evil"])),
    "a folder": ("python", lambda pod: engine(pod).update(workingDir="/evil")),
    "a variable more": ("python", lambda pod: engine(pod)["env"].append({"name": "LD_PRELOAD", "value": "/x.so"})),
    "another value": ("python", lambda pod: engine(pod)["env"][0].update(value="evil")),
    "a value in place of none": ("containers beside", lambda pod: beside(pod, "shipper")["env"][0].update(value="1")),
    "no value": ("python", lambda pod: engine(pod)["env"][0].pop("value")),
    "another Secret": (
        "containers beside",
        lambda pod: beside(pod, "shipper")["env"][1]["valueFrom"]["secretKeyRef"].update(name="evil"),
    ),
    "a Secret that may be absent": (
        "containers beside",
        lambda pod: beside(pod, "shipper")["env"][1]["valueFrom"]["secretKeyRef"].update(optional=True),
    ),
    "variables of a map": ("python", lambda pod: engine(pod).update(envFrom=[{"configMapRef": {"name": "evil"}}])),
    "a hook": ("python", lambda pod: engine(pod).update(lifecycle={"preStop": {"exec": {"command": ["evil"]}}})),
    "a container more": ("python", lambda pod: pod["spec"]["containers"].append(MESH)),
    "an init container more": ("python", lambda pod: pod["spec"].update(initContainers=[MESH])),
    "a container for debugging": ("python", lambda pod: pod["spec"].update(ephemeralContainers=[MESH])),
    "another order": ("containers beside", lambda pod: pod["spec"]["initContainers"].reverse()),
    "a sidecar that ends": ("containers beside", lambda pod: beside(pod, "proxy").pop("restartPolicy")),
    "a restart": ("python", lambda pod: pod["spec"].update(restartPolicy="Always")),
    "no pull": ("python", lambda pod: engine(pod).update(imagePullPolicy="Never")),
    "a pull that was asked for": ("other users", lambda pod: engine(pod).update(imagePullPolicy="IfNotPresent")),
    "a file for the last words": ("python", lambda pod: engine(pod).update(terminationMessagePath="/tmp/evil")),
    "other last words": ("python", lambda pod: engine(pod).update(terminationMessagePolicy="File")),
    "an input": ("python", lambda pod: engine(pod).update(stdin=True)),
    "a field that is not known": ("python", lambda pod: engine(pod).update(evil={})),
    "a field of the pod that is not known": ("python", lambda pod: pod["spec"].update(evil=0)),
    # Checks and ports.
    "another check": ("a process with a check", lambda pod: engine(pod)["readinessProbe"]["httpGet"].update(path="/")),
    "a slower check": ("a process with a check", lambda pod: engine(pod)["readinessProbe"].update(periodSeconds=60)),
    "a check at once": ("a process with a check", lambda pod: engine(pod)["readinessProbe"].pop("initialDelaySeconds")),
    "a check over TLS": ("containers beside", lambda pod: check(pod)["httpGet"].update(scheme="HTTPS")),
    "a check more": ("python", lambda pod: engine(pod).update(livenessProbe={"tcpSocket": {"port": 1}})),
    "another protocol": ("python", lambda pod: engine(pod)["ports"][0].update(protocol="UDP")),
    "a port of the node": ("python", lambda pod: engine(pod)["ports"][0].update(hostPort=80)),
    # Rights.
    "one process namespace": ("python", lambda pod: pod["spec"].update(shareProcessNamespace=True)),
    "the node's processes": ("python", lambda pod: pod["spec"].update(hostPID=True)),
    "the node's network": ("python", lambda pod: pod["spec"].update(hostNetwork=True)),
    "the node's users": ("other users", lambda pod: pod["spec"].pop("hostUsers")),
    "another account": ("python", lambda pod: pod["spec"].update(serviceAccountName="admin", serviceAccount="admin")),
    "the account's token": ("python", lambda pod: pod["spec"].update(automountServiceAccountToken=True)),
    "a token by default": ("python", lambda pod: pod["spec"].pop("automountServiceAccountToken")),
    "root": ("python", lambda pod: pod["spec"]["securityContext"].update(runAsUser=0, runAsNonRoot=False)),
    "no profile": ("python", lambda pod: pod["spec"]["securityContext"].pop("seccompProfile")),
    "root in the container": ("python", lambda pod: engine(pod)["securityContext"].update(runAsUser=0)),
    "a way to more rights": ("python", lambda pod: engine(pod)["securityContext"].pop("allowPrivilegeEscalation")),
    "another runtime": ("python", lambda pod: pod["spec"].update(runtimeClassName="evil")),
    # Volumes.
    "a mount over the code": ("python", lambda pod: mounts(pod).append({"name": "tmp", "mountPath": "/opt"})),
    "a mount to write": ("volumes and variables", lambda pod: [one.pop("readOnly", 0) for one in mounts(pod)]),
    "a part of a volume": ("python", lambda pod: mounts(pod)[0].update(subPath="x")),
    "another Secret as files": ("volumes and variables", lambda pod: volume(pod, "secret").update(secretName="evil")),
    "files for all": ("volumes and variables", lambda pod: volume(pod, "secret").update(defaultMode=511)),
    "one file": ("volumes and variables", lambda pod: volume(pod, "configMap").update(items=[{"key": "a"}])),
    "a claim to read": (
        "volumes and variables", lambda pod: volume(pod, "persistentVolumeClaim").update(readOnly=True),
    ),
    "a driver's volume": ("python", lambda pod: pod["spec"]["volumes"].append({"name": "x", "csi": {"driver": "d"}})),
    "a longer token": (
        "python",
        lambda pod: volume(pod, "projected")["sources"][0]["serviceAccountToken"].update(expirationSeconds=86400),
    ),
    "a token for others": (
        "python", lambda pod: volume(pod, "projected")["sources"][0]["serviceAccountToken"].pop("audience"),
    ),
    "more room": ("python", lambda pod: volume(pod, "emptyDir").update(sizeLimit="5Gi")),
    "room without end": ("python", lambda pod: volume(pod, "emptyDir").pop("sizeLimit")),
    "room in memory": ("python", lambda pod: volume(pod, "emptyDir").update(medium="Memory")),
    # Amounts.
    "more memory": ("python", lambda pod: engine(pod)["resources"]["limits"].update(memory="64Gi")),
    "a smaller request": ("python", lambda pod: engine(pod)["resources"]["requests"].update(cpu="1m")),
    "no limit": ("python", lambda pod: engine(pod)["resources"]["limits"].pop("memory")),
    "no amounts": ("python", lambda pod: engine(pod).pop("resources")),
    "another limit of cpu": ("volumes and variables", lambda pod: engine(pod)["resources"]["limits"].update(cpu="9")),
    "a device": ("python", lambda pod: devices(pod, "8")),
    "more devices": ("devices", lambda pod: devices(pod, "8")),
    "a claim of a device": ("python", lambda pod: engine(pod)["resources"].update(claims=[{"name": "x"}])),
    "amounts of the pod": ("python", lambda pod: pod["spec"].update(resources={"limits": {"cpu": "9"}})),
    "a restart at a resize": (
        "python",
        lambda pod: engine(pod)["resizePolicy"][0].update(restartPolicy="RestartContainer"),
    ),
    # Where it runs, and before whom.
    "a priority": ("python", lambda pod: pod["spec"].update(priorityClassName="system-node-critical")),
    "another scheduler": ("python", lambda pod: pod["spec"].update(schedulerName="evil")),
    "another resolver": ("python", lambda pod: pod["spec"].update(dnsConfig={"nameservers": ["6.6.6.6"]})),
    "the node's resolver": ("python", lambda pod: pod["spec"].update(dnsPolicy="Default")),
    "another domain": ("placed", lambda pod: pod["spec"]["dnsConfig"].update(searches=["evil.example"])),
    "any node": ("python", tolerate),
    "a node for others": ("python", lambda pod: tolerate(pod, key="nvidia.com/gpu", effect="NoSchedule")),
    "another toleration": ("placed", lambda pod: pod["spec"]["tolerations"][0].update(value="red")),
    "another node": ("placed", lambda pod: pod["spec"]["nodeSelector"].update(priority="low")),
    "one node more": ("placed", lambda pod: pod["spec"]["nodeSelector"].update(nodeName="x")),
    "no empty value": ("placed", lambda pod: pod["spec"]["nodeSelector"].pop("resources")),
    "no neighbours": ("placed", lambda pod: pod["spec"].pop("affinity")),
    "neighbours by nothing": (
        "placed", lambda pod: affinity(pod)[PREFERRED][0]["podAffinityTerm"].pop("labelSelector"),
    ),
    "other neighbours": (
        "placed", lambda pod: affinity(pod)[REQUIRED][0]["labelSelector"]["matchLabels"].update(a="b"),
    ),
    "neighbours of others": (
        "placed", lambda pod: affinity(pod)[REQUIRED][0]["labelSelector"]["matchExpressions"][0].update(values=["eve"]),
    ),
    "another spread": ("placed", lambda pod: pod["spec"]["topologySpreadConstraints"][0].update(maxSkew=9)),
    "another registry's Secret": ("placed", lambda pod: pod["spec"].update(imagePullSecrets=[{"name": "evil"}])),
    "another host": ("containers beside", lambda pod: pod["spec"]["hostAliases"][0].update(ip="10.6.6.6")),
    "another name of the host": ("python", lambda pod: pod["spec"].update(hostname="evil")),
    "a late end": ("python", lambda pod: pod["spec"].update(terminationGracePeriodSeconds=9999)),
    "an early end": ("python", lambda pod: pod["spec"].update(activeDeadlineSeconds=60)),
    # What the operator reads of it, and what nodes do.
    "another user": ("python", lambda pod: labels(pod).update({"linkis.apache.org/user": "eve"})),
    "another engine": ("python", lambda pod: labels(pod).update({"linkis.apache.org/engineconn": "eve"})),
    "another installation": ("python", lambda pod: labels(pod).pop("linkis.apache.org/ecm-instance")),
    "another attempt": ("python", lambda pod: labels(pod).update({"linkis.apache.org/attempt": "1"})),
    "another component": ("python", lambda pod: labels(pod).pop("app.kubernetes.io/component")),
    "a pool": ("python", lambda pod: labels(pod).update({"linkis.apache.org/warm-pool": "python"})),
    "a process's label": ("python", lambda pod: labels(pod).update({"linkis.apache.org/launch": "process"})),
    "a label of the plugin": ("placed", lambda pod: labels(pod).update(team="red")),
    "a label of the author": ("placed", lambda pod: labels(pod).pop("user.linkis.apache.org/job")),
    "another launch": ("python", lambda pod: notes(pod).update({"linkis.apache.org/launch": '{"kind":"process"}'})),
    "another spec": ("python", lambda pod: notes(pod).update({"linkis.apache.org/spec": "{}"})),
    "another ticket": ("python", lambda pod: notes(pod).pop("linkis.apache.org/ticket-id")),
    "a claim": ("python", lambda pod: notes(pod).update({"linkis.apache.org/warm-claimed": "0"})),
    "a note of the plugin": ("placed", lambda pod: notes(pod).update(note="evil")),
    "a profile": (
        "python", lambda pod: notes(pod).update({"container.apparmor.security.beta.kubernetes.io/engine": "none"}),
    ),
    "a device by a note": ("python", lambda pod: notes(pod).update({"cdi.k8s.io/x": "nvidia.com/gpu=all"})),
    "a mount by a note": ("python", lambda pod: notes(pod).update({"mounts.nri.containerd.io/container.engine": "[]"})),
    **{
        f"{name} by a note": ("python", lambda pod, name=name: notes(pod).update({name: "1"}))
        for name in (
            "seccomp-profile.kubernetes.cri-o.io/engine", "userns-mode.crio.io", "devices.crio.io", "cpu-quota.crio.io",
            "run.oci.keep_original_groups", "rdt.resources.beta.kubernetes.io/pod", "cni.projectcalico.org/ipAddrs",
            "io.kubernetes.cri.untrusted-workload", "k8s.ovn.org/pod-networks", "kubernetes.io/egress-bandwidth",
            "kubernetes.io/config.mirror", "nobody-knows.example/x",
        )
    },
    "a network by a note": ("python", lambda pod: notes(pod).update({"k8s.v1.cni.cncf.io/networks": "other"})),
}  # fmt: skip


@pytest.mark.parametrize("change", HARMLESS)
def test_what_the_platform_adds_does_not_break_the_seal(change: str) -> None:
    found = stored(sealed("python"))
    HARMLESS[change](found)
    assert holds(found)


@pytest.mark.parametrize("limit_range", [None, LIMIT_RANGE], ids=["plain", "range"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_pod_that_differs_in_anything_is_not_it(attack: str, limit_range: Any) -> None:
    kind, change = ATTACKS[attack]
    found = stored(sealed(kind), limit_range=limit_range)
    before = copy.deepcopy(found)
    change(found)
    assert found != before
    assert not holds(found)


# Of a stored pod, what may be another (a value), come (+) or go (-), by design (docs/design/identity.md).
FREE = re.compile(
    r"metadata[+-]|metadata\.(uid|resourceVersion|generation|creationTimestamp|managedFields.*|(labels|annotations)\+"
    r"|annotations\.kubernetes\.io/limit-ranger"
    r"|annotations\.(cluster-autoscaler\.kubernetes\.io/safe-to-evict|karpenter\.sh/do-not-disrupt))"
    r"|spec\.(nodeName|priority|preemptionPolicy|serviceAccount|overhead(\..*|[+-]))"
    # Without an entry that the API server writes, it is the same: it would write it.
    r"|spec\.(containers|initContainers)\.[0-9]+\.(resizePolicy|resources\.requests)-"
    r"|spec\..*\.labelSelector\.matchExpressions-|spec\.tolerations-|spec\.tolerations\.[0-9]+\.tolerationSeconds"
)
# What a LimitRange filled in.
FILLED = re.compile(r"spec\.(containers|initContainers)\.[0-9]+\.resources(\.(requests|limits)(\.(cpu|memory)|-)|-)")
# What RuntimeClass admission added; tolerations that the manifest had are the first.
ADDED = re.compile(r"spec\.nodeSelector([+-]|\.runtime)|spec\.tolerations(\+|\.[1-9].*)")
ALL_ADDED = re.compile(r"spec\.tolerations\.0.*")


def others(value: Any) -> list[tuple[str, Any]]:
    """Other values in the place of one."""
    if isinstance(value, dict):
        return [("+", value | {"evil": "x"}), *([("-", {})] if value else [])]
    if isinstance(value, list):
        return [("+", [*value, {"evil": "x"}]), *([("-", value[1:])] if value else [])]
    return [("", one) for one in ((not value,) if isinstance(value, bool) else (_another(value), "7"))]


def _another(value: Any) -> Any:
    return value + 1 if isinstance(value, int) else f"{value}x"


def changed(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """The same with one place changed, and where."""
    for how, other in others(value):
        yield ".".join(path) + how, other
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        for where, other in changed(part, (*path, str(name))):
            copied = value.copy()
            copied[name] = other
            yield where, copied


@pytest.mark.parametrize(("template", "limit_range"), [({}, None), (SANDBOX, LIMIT_RANGE)], ids=["plain", "filled"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_place_of_a_pod_is_sealed_but_those_that_are_named(kind: str, template: Any, limit_range: Any) -> None:
    found = stored(sealed(kind, **template), limit_range=limit_range)
    places = [
        (where, found | {part: other})
        for part in ("metadata", "spec")
        for where, other in changed(found[part], (part,))
    ]
    allowed = [FREE, *([FILLED] if limit_range else []), *([ADDED] if template else [])]
    if template and kind != "placed":
        allowed.append(ALL_ADDED)
    free = {where for where, pod in places if holds(pod)}
    assert len(places) > 200
    assert {where for where in free if not any(one.fullmatch(where) for one in allowed)} == set()


# Names that are left out, or have a default, where Kubernetes has them: elsewhere an author chooses them.
NAMES = (
    "priority",
    "nodeName",
    "resources",
    "protocol",
    "schedulerName",
    "defaultMode",
    "optional",
    "tolerations",
    "value",
)


@pytest.mark.parametrize("value", ["", "x", False, None, {}, 0])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_means_something_at_its_place_alone(name: str, value: Any) -> None:
    places: tuple[Change, ...] = (
        lambda pod: pod["spec"]["nodeSelector"].update({name: value}),
        lambda pod: affinity(pod)[REQUIRED][0]["labelSelector"]["matchLabels"].update({name: value}),
        lambda pod: pod["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"].update({name: value}),
        lambda pod: volume(pod, "csi")["volumeAttributes"].update({name: value}),
        lambda pod: labels(pod).update({f"linkis.apache.org/{name}": value}),
    )
    made = manifest("placed")
    made["spec"]["volumes"].append({"name": "x", "csi": {"driver": "d", "volumeAttributes": {"resources": "given"}}})
    found = stored(PodSeals((KEY,)).sealed(made))
    assert holds(found)
    for place in places:
        other = copy.deepcopy(found)
        place(other)
        assert other == found or not holds(other)


def test_with_a_runtime_class_what_the_manifest_gave_still_counts() -> None:
    found = stored(sealed("placed", **SANDBOX))
    assert holds(found)
    changes: tuple[Change, ...] = (
        lambda pod: pod["spec"]["nodeSelector"].update(priority="low"),
        lambda pod: pod["spec"]["nodeSelector"].pop("priority"),
        lambda pod: pod["spec"]["tolerations"].pop(0),
        lambda pod: pod["spec"].update(runtimeClassName="runc"),
        lambda pod: pod["spec"].pop("runtimeClassName"),
        lambda pod: pod["spec"].update(priorityClassName="higher"),
        lambda pod: pod["spec"].update(serviceAccountName="default", serviceAccount="default"),
    )
    for change in changes:
        other = copy.deepcopy(found)
        change(other)
        assert not holds(other)


@pytest.mark.parametrize(
    "claim",
    [
        {"open": {"engine": ["limits.memory", "requests.cpu", "imagePullPolicy"], "": ["imagePullSecrets"]}},
        {"labels": ["team"]}, {"annotations": ["note"]}, {"selector": ["priority"]}, {"tolerations": ["{}"]}, {},
    ],
)  # fmt: skip
def test_what_was_given_is_sealed_itself(claim: dict[str, Any]) -> None:
    """Whoever writes into the seal what the manifest left open has another seal."""
    found = stored(sealed("volumes and variables"))
    seal = json.loads(notes(found)[SEAL])
    notes(found)[SEAL] = json.dumps(seal | {"given": claim})
    engine(found)["resources"]["limits"]["memory"] = "64Gi"
    assert not holds(found)


def test_a_seal_is_of_one_name_namespace_and_owner() -> None:
    pod = sealed("python")
    owner = pod["metadata"]["ownerReferences"][0]
    assert not holds(manifest("python"))
    for part, value in (("name", "mine-0-1"), ("namespace", "other"), ("ownerReferences", [owner | {"uid": "x"}])):
        assert not holds({**pod, "metadata": pod["metadata"] | {part: value}}), part
    for field, value in (("kind", "Job"), ("name", "x"), ("controller", False), ("apiVersion", "v1")):
        assert not holds({**pod, "metadata": pod["metadata"] | {"ownerReferences": [owner | {field: value}]}}), field
    two = [owner, owner | {"uid": "x"}]
    assert not holds({**pod, "metadata": pod["metadata"] | {"ownerReferences": two}})


def test_the_keys_of_before_and_now_are_taken() -> None:
    pod = PodSeals((OTHER,)).sealed(manifest("python"))
    assert PodSeals((KEY, OTHER)).holds(pod)
    assert not PodSeals((KEY,)).holds(pod)


@pytest.mark.parametrize(
    "seal",
    [
        None, "", 7, "é" * 64, "0" * 64, "null", "[]", "{}", '{"mac":7,"given":{}}', '{"mac":"x"}',
        '{"mac":"é","given":{}}', '{"mac":"x","given":[]}', '{"mac":"x","given":{"labels":7}}',
        '{"mac":"x","given":{"open":[]}}', '{"mac":"x","given":{"open":{"a":[{}]}}}', "[" * 100_000,
        '{"mac":"' + "x" * 200_000 + '"}',
    ],
)  # fmt: skip
def test_what_is_no_seal_is_none(seal: Any) -> None:
    pod = manifest("python")
    pod["metadata"]["annotations"][SEAL] = seal
    assert not holds(pod)
    assert not holds({"metadata": {"name": "e", "annotations": {SEAL: seal}}})


def test_a_pod_of_endless_depth_is_not_it() -> None:
    deep: Pod = {}
    for _ in range(200):
        deep = {"a": deep}
    found = sealed("python")
    engine(found)["securityContext"] = deep
    assert not holds(found)


def test_the_seal_of_the_greatest_pod_template_is_read() -> None:
    metadata = {
        "labels": {f"{n}".rjust(317, "k"): "" for n in range(32)},
        "annotations": {f"{n}".rjust(317, "k"): "" for n in range(32)},
    }
    pod = manifest("containers beside", runtimeClassName="x")
    for part, more in metadata.items():
        pod["metadata"][part] |= more
    pod["spec"]["tolerations"] = [{"key": "k" * 317, "value": "v" * 63, "effect": str(n)} for n in range(16)]
    pod["spec"]["nodeSelector"] = {f"{n}".rjust(317, "k"): "v" for n in range(32)}
    assert holds(PodSeals((KEY,)).sealed(pod))

"""What an engine may change of what its plugin fixed, and what it may mount: checked at the pod that is built."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from linkis_ecm.engine import facts
from linkis_ecm.engine.decision import Snapshot
from linkis_ecm.engine.pod import spec as podspec
from linkis_ecm.engine.pod.launch import PodSettings, kernel_name
from linkis_ecm.engine.pod.spec import InvalidSpecError
from linkis_ecm.engine.view import engine_view, plugin_view
from linkis_ecm.model.plugin import EngineConnPluginSpec

T0 = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SETTINGS = PodSettings(report_url="http://op:9103")
PLUGIN = {
    "engineType": "python", "engineVersion": "3.11", "image": "engine:1", "runTypes": ["python"],
    "defaultResources": {"cpu": "500m", "memory": "1Gi"}, "maxResources": {"cpu": "4", "memory": "8Gi"},
    "idleTimeout": "10m", "maxLifetime": "8h",
    "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "LANG", "value": "C"}],
    "podTemplate": {
        "metadata": {"labels": {"cost": "shared"}, "annotations": {"sidecar.example/inject": "true"}},
        "spec": {
            "runtimeClassName": "gvisor", "nodeSelector": {"pool": "untrusted"},
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}},
            "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
            "imagePullSecrets": [{"name": "registry"}],
        },
    },
}  # fmt: skip


def snapshot(spec: dict[str, Any], overridable: list[str] | None = None, **plugin: Any) -> Snapshot:
    body = PLUGIN | plugin | ({"overridable": overridable} if overridable else {})
    metadata = {
        "namespace": "ns", "name": "e", "uid": "u1", "resourceVersion": "5", "generation": 1,
        "creationTimestamp": "2026-11-24T12:00:00Z",
    }  # fmt: skip
    engine = engine_view({"metadata": metadata, "spec": {"engineType": "python", "user": "ana"} | spec}, epoch=T0)
    assert engine.spec is not None, engine.invalid
    return Snapshot(
        engine=engine, plugin=plugin_view({"metadata": {"name": "p", "resourceVersion": "1"}, "spec": body}), pod=None
    )  # fmt: skip


def built(
    spec: dict[str, Any], overridable: list[str] | None = None, settings: PodSettings = SETTINGS, **plugin: Any
) -> dict[str, Any]:
    s = snapshot(spec, overridable, **plugin)
    assert s.engine.spec is not None
    assert s.plugin is not None
    return podspec.build_pod(s.engine, s.engine.spec, s.plugin.spec, ticket="t", attempt=0, settings=settings)


def pod_spec(**fields: Any) -> dict[str, Any]:
    return {"podTemplate": {"spec": fields}}


def labels(**fields: str) -> dict[str, Any]:
    return {"podTemplate": {"metadata": {"labels": fields}}}


# What is fixed: the engine's spec, the field that the refusal names, the entry of `overridable` that lifts it.
FIXED = [
    (pod_spec(runtimeClassName="runc"), "spec.podTemplate.spec.runtimeClassName", "runtimeClassName"),
    (pod_spec(nodeSelector={"pool": "trusted"}), "spec.podTemplate.spec.nodeSelector.pool", "nodeSelector/pool"),
    (pod_spec(nodeSelector={"pool": ""}), "spec.podTemplate.spec.nodeSelector.pool", "nodeSelector"),
    (pod_spec(affinity={"nodeAffinity": {}}), "spec.podTemplate.spec.affinity.nodeAffinity", "affinity/nodeAffinity"),
    (
        pod_spec(tolerations=[{"key": "dedicated", "operator": "Equal", "value": "x", "effect": "NoSchedule"}]),
        "spec.podTemplate.spec.tolerations", "tolerations",
    ),
    (pod_spec(tolerations=[{"operator": "Exists"}]), "tolerates every taint", "tolerations"),
    (
        pod_spec(tolerations=[{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]),
        "node-role.kubernetes.io/", "tolerations",
    ),
    (pod_spec(priorityClassName="system-node-critical"), "priorityClassName is the platform's", "priorityClassName"),
    ({"env": [{"name": "HTTPS_PROXY", "value": ""}]}, "spec.env.HTTPS_PROXY", "env/HTTPS_PROXY"),
    ({"env": [{"name": "LANG", "value": "C.UTF-8"}]}, "spec.env.LANG", "env"),
    ({"idleTimeout": "0s"}, "spec.idleTimeout 0s is over the plugin's 10m", "idleTimeout"),
    ({"idleTimeout": "11m"}, "spec.idleTimeout 11m", "idleTimeout"),
    ({"maxLifetime": "9h"}, "spec.maxLifetime 9h", "maxLifetime"),
    (labels(app="db"), "spec.podTemplate.metadata.labels.app", "labels/app"),
    (labels(cost="mine"), "spec.podTemplate.metadata.labels.cost", "labels"),
    (
        {"podTemplate": {"metadata": {"annotations": {"sidecar.example/inject": "false"}}}},
        "spec.podTemplate.metadata.annotations.sidecar.example/inject", "annotations/sidecar.example/inject",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "names", "entry"), FIXED)
def test_what_the_plugin_fixed_is_refused_by_name_unless_it_is_overridable(
    spec: dict[str, Any], names: str, entry: str
) -> None:
    with pytest.raises(InvalidSpecError) as refused:
        built(spec)
    assert names in str(refused.value)
    built(spec, [entry])
    with pytest.raises(InvalidSpecError):
        built(spec, ["schedulerName", "env/OTHER"])


def test_what_the_plugin_leaves_open_is_merged_by_key() -> None:
    spec = pod_spec(
        nodeSelector={"arch": "arm64", "pool": "untrusted"}, schedulerName="fair",
        tolerations=[{"key": "gpu", "operator": "Exists"}], imagePullSecrets=[{"name": "own"}, {"name": "registry"}],
    ) | {"env": [{"name": "MINE", "value": "1"}, {"name": "LANG", "value": "C"}]}  # fmt: skip
    spec["podTemplate"]["metadata"] = {"labels": {"user.linkis.apache.org/team": "a"}}
    pod = built(spec)
    found = pod["spec"]
    assert found["nodeSelector"] == {"pool": "untrusted", "arch": "arm64"}
    assert (found["schedulerName"], found["runtimeClassName"]) == ("fair", "gvisor")
    assert set(found["affinity"]) == {"nodeAffinity"}
    assert [one["key"] for one in found["tolerations"]] == ["dedicated", "gpu"]
    assert [one["name"] for one in found["imagePullSecrets"]] == ["registry", "own"]
    env = {one["name"]: one.get("value") for one in found["containers"][0]["env"]}
    assert (env["HTTPS_PROXY"], env["LANG"]) == ("http://proxy:3128", "C")
    assert env[kernel_name("MINE")] == "1"
    assert pod["metadata"]["labels"]["user.linkis.apache.org/team"] == "a"
    assert pod["metadata"]["labels"]["cost"] == "shared"


def test_the_cpu_limit_is_bounded_as_the_cpu_is() -> None:
    wish = {"resources": {"cpuLimit": "4000"}}
    with pytest.raises(InvalidSpecError, match="cpuLimit 4000 is over the plugin's 4: ask for 4 at most"):
        built(wish)
    limit = {"resources": {"cpuLimit": "2"}}
    assert built(limit)["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "2"
    with pytest.raises(InvalidSpecError, match="over the plugin's 1"):
        built(limit, maxResources={"cpu": "4", "cpuLimit": "1", "memory": "8Gi"})
    default = {"cpu": "500m", "cpuLimit": "1", "memory": "1Gi"}
    with pytest.raises(InvalidSpecError, match="over the plugin's 1"):
        built(limit, defaultResources=default, maxResources=None)
    assert built(limit, ["cpuLimit"], defaultResources=default, maxResources=None)


def test_a_live_engine_that_was_edited_ends_by_the_plugins_lifetime() -> None:
    def lifetime(spec: dict[str, Any], overridable: list[str] | None = None) -> timedelta | None:
        s = snapshot(spec, overridable)
        over = facts.lifetime_deadline(s)
        return over - s.engine.created if over is not None else None

    assert lifetime({"maxLifetime": "0s"}) == timedelta(hours=8)
    assert lifetime({"maxLifetime": "9999h"}) == timedelta(hours=8)
    assert lifetime({"maxLifetime": "1h"}) == timedelta(hours=1)
    assert lifetime({}) == timedelta(hours=8)
    assert lifetime({"maxLifetime": "0s"}, ["maxLifetime"]) is None
    assert facts.duration_setting(snapshot({"idleTimeout": "0s"}), "idle_timeout") == 600


def test_a_priority_class_is_taken_where_the_admission_policy_asked_for_it() -> None:
    spec = pod_spec(priorityClassName="batch")
    pod = built(spec, settings=replace(SETTINGS, admission=True))
    assert pod["spec"]["priorityClassName"] == "batch"
    # The plugin's own stays the plugin's.
    with pytest.raises(InvalidSpecError, match="is fixed by the EngineConnPlugin"):
        built(spec, settings=replace(SETTINGS, admission=True), podTemplate={"spec": {"priorityClassName": "low"}})
    same = {"podTemplate": {"spec": {"priorityClassName": "batch"}}}
    assert built(spec, podTemplate=same["podTemplate"])["spec"]["priorityClassName"] == "batch"


TERM = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}
EVERYWHERE = TERM | {"namespaceSelector": {}}


@pytest.mark.parametrize("field", ["podAntiAffinity", "podAffinity"])
@pytest.mark.parametrize(
    "value",
    [
        {"requiredDuringSchedulingIgnoredDuringExecution": [EVERYWHERE]},
        {"requiredDuringSchedulingIgnoredDuringExecution": [TERM | {"namespaces": ["linkis-ecm"]}]},
        {"requiredDuringSchedulingIgnoredDuringExecution": [TERM]},
        {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": EVERYWHERE}]},
        {},
        None,
    ],
)
def test_an_author_says_nothing_of_where_other_pods_run(field: str, value: Any) -> None:
    spec = pod_spec(affinity={field: value})
    with pytest.raises(InvalidSpecError) as refused:
        built(spec)
    assert str(refused.value).startswith(f"spec.podTemplate.spec.affinity.{field} decides where other pods may run")
    assert f"overridable: [affinity/{field}]" in str(refused.value)
    with pytest.raises(InvalidSpecError):
        built(spec, ["affinity/nodeAffinity"])
    # The platform's own, or what it lets its engines set.
    assert built(spec, [f"affinity/{field}"])["spec"]["affinity"][field] == value
    same = {"spec": {"affinity": {field: value}}}
    assert built(spec, podTemplate=same)["spec"]["affinity"] == {field: value}
    assert built({}, podTemplate=same)["spec"]["affinity"] == {field: value}


def test_an_author_chooses_nodes_and_spreads_what_is_its_own() -> None:
    node: dict[str, Any] = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    # The scheduler holds a spread constraint against the pod that has it, and against no other.
    spread = [{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}]
    found = built(pod_spec(affinity=node, topologySpreadConstraints=spread), podTemplate=None)["spec"]
    assert (found["affinity"], found["topologySpreadConstraints"]) == (node, spread)


# Fields of a pod that reach beyond it, and are in no overlay: ports of the node, the order of others' scheduling,
# gates and graces that keep a pod where it is.
REACHING = (
    "hostIPC", "hostNetwork", "hostPID", "hostname", "nodeName", "overhead",
    "preemptionPolicy", "priority", "readinessGates", "resourceClaims", "schedulingGates",
    "subdomain", "terminationGracePeriodSeconds",
)  # fmt: skip


@pytest.mark.parametrize("field", REACHING)
def test_a_field_that_reaches_beyond_the_pod_is_in_no_overlay(field: str) -> None:
    with pytest.raises(InvalidSpecError, match=rf"spec\.podTemplate\.spec\.{field} is not taken"):
        built(pod_spec(**{field: 1}))
    with pytest.raises(InvalidSpecError, match=f"EngineConnPlugin.spec.{field} is not taken"):
        built({}, podTemplate={"spec": {field: 1}})


@pytest.mark.parametrize("field", ["finalizers", "ownerReferences", "name", "namespace", "generateName"])
def test_a_pods_owners_and_finalizers_are_in_no_overlay(field: str) -> None:
    with pytest.raises(InvalidSpecError, match=f"metadata.{field} is not taken"):
        built({"podTemplate": {"metadata": {field: ["x"]}}})


WRONG = [
    pod_spec(tolerations={"key": "a"}),
    pod_spec(tolerations=["a"]),
    pod_spec(nodeSelector=["a"]),
    pod_spec(affinity="a"),
    pod_spec(imagePullSecrets=[3]),
]  # fmt: skip


@pytest.mark.parametrize("spec", WRONG)
def test_a_value_of_another_type_is_refused_by_name(spec: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpecError, match=r"spec\.podTemplate\.spec\.\w+ must be"):
        built(spec)


def test_a_key_of_any_type_is_merged() -> None:
    spec = pod_spec(tolerations=[{"key": {"a": []}}, {"key": {"a": []}}])
    assert len(built(spec)["spec"]["tolerations"]) == 2


@pytest.mark.parametrize(
    "path",
    [
        "/", "//", "/tmp", "/tmp/", "/proc", "//proc", "/tmp/../proc", "/./dev", "/sys/x", "/dev", "/run/x", "/var/run",
        "/etc", "/etc/passwd", "/usr/lib", "/opt/venv/lib", "/opt", "/bin", "/sbin", "/lib", "/lib64/x", "/libx32",
        "/root", "/boot", "/var", "/var/log", "/var/log/engine", "/var/log/./engine/", "/a/../../var/log/engine/x",
        "/mnt/../opt",
    ],
)  # fmt: skip
def test_a_folder_of_the_system_or_of_the_agent_is_not_mounted_over(path: str) -> None:
    with pytest.raises(InvalidSpecError, match="is the engine's own: take another"):
        built({"volumes": [{"name": "v", "mountPath": path, "emptyDir": {}}]})


@pytest.mark.parametrize(
    ("path", "mounted"),
    [("/data", "/data"), ("/mnt//a/./b/", "/mnt/a/b"), ("/library", "/library"), ("/tmp/mine", "/tmp/mine"),
     ("//srv/x", "/srv/x"), ("/home/me", "/home/me"), ("/optional", "/optional")],
)  # fmt: skip
def test_other_folders_are_mounted_as_the_kubelet_finds_them(path: str, mounted: str) -> None:
    pod = built({"volumes": [{"name": "v", "mountPath": path, "emptyDir": {}}]})
    mounts = pod["spec"]["containers"][0]["volumeMounts"]
    assert [mount["mountPath"] for mount in mounts if mount["name"] == "user-v"] == [mounted]


PROTECTED = replace(
    SETTINGS, own_namespace="ns", protected=frozenset({"secret/ecm-auth", "persistentvolumeclaim/ecm-data"})
)


@pytest.mark.parametrize(
    "source",
    [
        {"secret": {"secretName": "ecm-auth"}},
        {"persistentVolumeClaim": {"claimName": "ecm-data"}},
        {"secret": {"secretName": "sh.helm.release.v1.ecm.v1"}},
    ],
)
def test_the_ecms_own_objects_are_never_mounted(source: dict[str, Any]) -> None:
    spec = {"volumes": [{"name": "v", "mountPath": "/v"} | source]}
    with pytest.raises(InvalidSpecError, match="is the ECM's own"):
        built(spec, settings=PROTECTED)
    if "sh.helm" not in str(source):
        # Elsewhere the name is somebody else's.
        assert built(spec, settings=replace(PROTECTED, own_namespace="other"))


@pytest.mark.parametrize("entry", ["image", "env/", "tolerations/key", "cpuLimit\n", "/env", "volumes"])
def test_overridable_takes_fields_and_keys_that_exist(entry: str) -> None:
    with pytest.raises(ValidationError):
        EngineConnPluginSpec.model_validate(PLUGIN | {"overridable": [entry]})

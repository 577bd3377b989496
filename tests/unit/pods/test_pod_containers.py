"""Containers and volumes that a plugin puts beside its engines: what is taken, how restricted they are, and words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from linkis_ecm.engine.causes.start_problems import start_problem
from linkis_ecm.engine.pod.spec import InvalidSpecError
from linkis_ecm.engine.pod_view import pod_view
from linkis_ecm.model import crd, pod_template, reasons
from linkis_ecm.model.pod_containers import FIELDS
from tests.unit.pods.test_pod_bounds import SETTINGS, built, disk
from tests.unit.pods.test_pod_template import largest, leaves
from tools.testkit.fakes.rules import by_schema

TEMPLATE = crd.plugin()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][
    "podTemplate"
]
MODELS = {"name": "models", "mountPath": "/models", "readOnly": True, "emptyDir": {"sizeLimit": "2Gi"}}
FETCH = {
    "name": "fetch", "image": "fetch:1", "args": ["s3://models"], "resources": {"limits": {"cpu": 1, "memory": "64Mi"}},
    "volumeMounts": [{"name": "models", "mountPath": "/to"}],
}  # fmt: skip
PROXY = {"name": "proxy", "image": "proxy:1", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}}
SHIPPER = {"name": "shipper", "image": "shipper:1", "env": [{"name": "A", "value": "b"}]}
HOSTS = [{"ip": "10.0.0.9", "hostnames": ["warehouse"]}]


def plugin(volumes: Any = (MODELS,), **spec: Any) -> dict[str, Any]:
    return {"volumes": list(volumes), "podTemplate": {"spec": spec}}


def test_containers_of_the_plugin_are_as_restricted_as_the_engines() -> None:
    spec = plugin(initContainers=[FETCH, PROXY], containers=[SHIPPER], hostAliases=HOSTS)
    pod = built(spec)
    engine, *others = pod["containers"]
    assert [one["name"] for one in (engine, *others, *pod["initContainers"])] == [
        "engine", "shipper", "fetch", "proxy",
    ]  # fmt: skip
    for one in (*others, *pod["initContainers"]):
        assert one["securityContext"] == engine["securityContext"]
    assert (pod["hostAliases"], pod["automountServiceAccountToken"]) == (HOSTS, False)
    assert pod["initContainers"][1]["restartPolicy"] == "Always"
    # The plugin's volume by its name, read-only in the engine and writable for who fetches.
    assert {"name": "plugin-models", "mountPath": "/models", "readOnly": True} in engine["volumeMounts"]
    assert pod["initContainers"][0]["volumeMounts"] == [{"name": "plugin-models", "mountPath": "/to"}]
    assert json.dumps(pod).count("linkis-ecm-agent") == json.dumps(built()).count("linkis-ecm-agent")


def test_the_plugins_volumes_count_for_the_engines_disk() -> None:
    assert int(disk(built(plugin()))[1][:-2]) - int(disk(built())[1][:-2]) == 2 * 1024


@pytest.mark.parametrize("field", FIELDS)
def test_an_engine_has_none_of_them(field: str) -> None:
    with pytest.raises(InvalidSpecError, match=f"spec.podTemplate.spec.{field} is not taken"):
        built(spec={"podTemplate": {"spec": {field: [{}]}}})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (plugin(containers=[SHIPPER | {"name": "engine"}]), "a name of its own, other than engine"),
        (plugin(initContainers=[SHIPPER], containers=[SHIPPER]), "a name of its own"),
        (plugin(containers=[{"name": "x"}]), "give each its image"),
        (plugin((), initContainers=[FETCH]), "fetch mounts models, and the plugin's volumes are none"),
        # The agent's proof of its pod is a volume of ours.
        (plugin(containers=[SHIPPER | {"volumeMounts": [{"name": "identity", "mountPath": "/i"}]}]), "mounts identity"),
        (plugin(containers=[SHIPPER | {"securityContext": {"privileged": True}}]), "securityContext is not taken"),
        (plugin(containers=[SHIPPER | {"volumeDevices": []}]), "volumeDevices is not taken"),
        (plugin(containers=[SHIPPER] * 5), "has 5 entries"),
        (plugin(containers=1), "must be a list of objects"),
        (plugin(containers=[SHIPPER | {"env": ["A=b"]}]), "env of shipper must be a list of objects"),
        (plugin(hostNetwork=True), "hostNetwork is not taken"),
        (plugin((MODELS | {"mountPath": "/usr/lib"},)), "volumes of the EngineConnPlugin models: mountPath"),
        (
            plugin(({"name": "k", "mountPath": "/k", "secret": {"secretName": "ecm-auth"}},)),
            "volumes of the EngineConnPlugin k: secret ecm-auth is the ECM's own",
        ),
        (
            plugin(
                containers=[
                    SHIPPER | {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "ecm-auth", "key": "k"}}}]}
                ]
            ),
            "secret ecm-auth is the ECM's own",
        ),
    ],
)
def test_what_is_not_taken_is_named(spec: dict[str, Any], words: str) -> None:
    assert SETTINGS.protected
    with pytest.raises(InvalidSpecError, match=words):
        built(spec)


@pytest.mark.parametrize("path", ["/models", "/models/", "//models/x", "/models/../models"])
def test_an_engine_hides_no_volume_of_its_plugin(path: str) -> None:
    spec = {"volumes": [{"name": "mine", "mountPath": path, "emptyDir": {}}]}
    with pytest.raises(InvalidSpecError, match=r"is where the EngineConnPlugin has its volume models \(/models\)"):
        built(plugin(), spec)
    assert built(plugin(), {"volumes": [{"name": "mine", "mountPath": "/models2", "emptyDir": {}}]})


def test_the_api_server_takes_the_same_fields_and_the_largest_one_is_bounded() -> None:
    spec = plugin(initContainers=[FETCH, PROXY], containers=[SHIPPER], hostAliases=HOSTS)["podTemplate"]
    assert by_schema(TEMPLATE, spec) == spec
    value = largest(TEMPLATE)
    value["spec"] |= {name: largest(TEMPLATE["properties"]["spec"]["properties"][name]) for name in FIELDS}
    assert pod_template.excess(value, pod_template.PLUGIN_SCHEMA) == ""
    # Of a cluster-scoped entry, of which there are few: twice what an engine's may have.
    assert leaves(value) <= 2 * pod_template.LEAVES_MAX


def test_a_container_beside_the_engine_that_cannot_start_is_named_with_who_mends_it() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    pod = pod_view({"metadata": {}, "spec": {"nodeName": "n"}, "status": {"containerStatuses": [
        {"name": "engine", "state": {"running": {"startedAt": "2026-11-27T00:00:00Z"}}},
        {"name": "shipper", "state": waiting}]}})  # fmt: skip
    problem = start_problem(pod)
    assert problem is not None
    assert (problem.reason, problem.fatal) == (reasons.IMAGE_PULL, False)
    assert "sidecar container shipper" in problem.message
    assert "EngineConnPlugin's podTemplate" in problem.message

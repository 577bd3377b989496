"""Which engines may take a pod of a warm pool: what a claim carries, and what only a new pod has."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.engine.names import POD_SELECTOR, UNDISRUPTED
from linkis_ecm.engine.pod import spec as podspec
from linkis_ecm.engine.pod.launch import PodSettings
from linkis_ecm.engine.pod.spec import InvalidSpecError
from linkis_ecm.engine.pod_view import PodView, pod_view
from linkis_ecm.engine.view import PluginView, engine_view, plugin_view
from linkis_ecm.engine.warm import fit
from linkis_ecm.model.pod_template import SPEC_FIELDS

T0 = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
SETTINGS = PodSettings(report_url="http://op:9103", instance="ecm:9102")
ALL = frozenset({fit.TAKES_ENV, fit.TAKES_FOLDER})
SMALL = {"resources": {"cpu": "50m", "memory": "256Mi"}}
PLUGIN: dict[str, Any] = {
    "engineType": "python", "engineVersion": "3.11", "image": "engine:1", "runTypes": ["python"],
    "defaultResources": {"cpu": "500m", "memory": "1Gi"},
    "maxResources": {"cpu": "4", "memory": "8Gi", "cpuLimit": "8", "extended": {"nvidia.com/gpu": 2}},
    "env": [
        {"name": "LANG", "value": "C"}, {"name": "LICENCE", "valueFrom": {"secretKeyRef": {"name": "l", "key": "k"}}},
    ],
    "overridable": ["labels", "annotations", "affinity", "priorityClassName"],
    "podTemplate": {"metadata": {"labels": {"cost": "shared"}}, "spec": {"nodeSelector": {"pool": "engines"}}},
    "warmPool": {"size": 2, "preload": ["pandas", "os.path"]}, "doNotDisrupt": "always",
}  # fmt: skip


def a_plugin(**changes: Any) -> PluginView:
    body = {"metadata": {"name": "python-3.11", "uid": "plugin-uid", "resourceVersion": "1"}, "spec": PLUGIN | changes}
    found = plugin_view(body)
    assert found is not None
    return found


def own_pod(plugin: PluginView, namespace: str = "team", **spec: Any) -> dict[str, Any]:
    """The pod that an engine gets cold."""
    metadata = {"namespace": namespace, "name": "mine", "uid": "engine-uid", "resourceVersion": "5", "generation": 1}
    engine = engine_view(
        {"metadata": metadata, "spec": {"engineType": "python", "user": "amy"} | spec}, epoch=T0
    )  # fmt: skip
    assert engine.spec is not None, engine.invalid
    return podspec.build_pod(engine, engine.spec, plugin.spec, ticket="t-1", attempt=3, settings=SETTINGS)


def found(takes: frozenset[str] = ALL, plugin: PluginView | None = None, **spec: Any) -> tuple[str, ...]:
    plugin = plugin or a_plugin()
    return fit.differences(own_pod(plugin, **spec), fit.template(plugin, "team", SETTINGS), takes)


def member(plugin: PluginView | None = None, name: str = "python-3-11-abcde") -> dict[str, Any]:
    pod = fit.member_pod(fit.template(plugin or a_plugin(), "team", SETTINGS), name)
    pod["metadata"] |= {"uid": "pod-uid", "resourceVersion": "7"}
    return pod


def env_of(pod: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one for one in pod["spec"]["containers"][0]["env"]}


def test_a_warm_engine_has_the_priority_of_a_cold_one_and_another_class_is_cold() -> None:
    """A pod keeps its priority for life, so a member has the class that the engine is to have."""
    plugin = a_plugin(podTemplate={"spec": {"priorityClassName": "batch"}})
    assert own_pod(plugin)["spec"]["priorityClassName"] == "batch"
    assert member(plugin)["spec"]["priorityClassName"] == "batch"
    assert found(plugin=plugin) == ()
    asked = {"spec": {"priorityClassName": "interactive"}}
    assert found(plugin=plugin, podTemplate=asked) == ("spec.podTemplate.spec.priorityClassName",)
    assert found(podTemplate=asked) == ("spec.podTemplate.spec.priorityClassName",)
    assert "priorityClassName" not in member()["spec"]


def test_a_member_knows_of_no_engine_and_no_user() -> None:
    pod = member()
    assert not {"ECM_NAME", "ECM_UID", "ECM_ATTEMPT", "ECM_TICKET_ID"} & env_of(pod).keys()
    assert env_of(pod)["ECM_MEMBER"] == {"name": "ECM_MEMBER", "value": "1"}
    assert env_of(pod)["ECM_PRELOAD"] == {"name": "ECM_PRELOAD", "value": "pandas,os.path"}
    names = pod["metadata"]["labels"].keys() | pod["metadata"]["annotations"].keys()
    assert not {name for name in names if name.rpartition("/")[2] in ("user", "engineconn", "attempt", "instance")}
    assert "linkis.apache.org/ticket-id" not in names
    # Autoscalers may take a node on which members wait; the cluster autoscaler must be told so.
    assert pod["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "true"
    assert not {name for name in names if name.endswith("do-not-disrupt")}


def test_a_member_is_the_plugins_and_is_selected_like_an_engines_pod() -> None:
    pod = member()
    assert pod["metadata"]["ownerReferences"] == [
        {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConnPlugin", "name": "python-3.11",
         "uid": "plugin-uid", "controller": True}
    ]  # fmt: skip
    labels = pod["metadata"]["labels"]
    assert dict(one.split("=") for one in POD_SELECTOR.split(",")).items() <= labels.items()
    assert labels["linkis.apache.org/engine-type"] == "python"
    assert labels["linkis.apache.org/ecm-instance"].startswith("sha256-")
    assert labels["cost"] == "shared"
    assert pod["metadata"]["name"] == pod["spec"]["hostname"] == "python-3-11-abcde"
    assert pod["spec"]["subdomain"] == "linkis-engines"
    view = pod_view(pod)
    assert view.member is not None
    assert view.member.pool == "python-3.11"
    assert view.member.template == fit.digest(a_plugin(), "team", SETTINGS)


def test_a_plugins_name_that_no_label_takes_is_hashed() -> None:
    body = {"metadata": {"name": "p" * 80, "uid": "u", "resourceVersion": "1"}, "spec": PLUGIN}
    plugin = plugin_view(body)
    assert plugin is not None
    assert fit.template(plugin, "team", SETTINGS)["metadata"]["labels"]["linkis.apache.org/warm-pool"].startswith(
        "sha256-"
    )


def test_the_digest_follows_everything_that_a_member_is_made_of() -> None:
    first = fit.digest(a_plugin(), "team", SETTINGS)
    assert fit.digest(a_plugin(), "team", SETTINGS) == first
    # What no pod has.
    assert (
        fit.digest(a_plugin(ttlAfterFinished="2h", warmPool=PLUGIN["warmPool"] | {"size": 9}), "team", SETTINGS)
        == first
    )
    others = [
        fit.digest(a_plugin(image="engine:2"), "team", SETTINGS),
        fit.digest(a_plugin(warmPool={"size": 2, "preload": ["polars"]}), "team", SETTINGS),
        fit.digest(a_plugin(warmPool=PLUGIN["warmPool"] | SMALL), "team", SETTINGS),
        fit.digest(a_plugin(), "other", SETTINGS),
        fit.digest(a_plugin(), "team", PodSettings(report_url="http://op:9104", instance="ecm:9102")),
    ]  # fmt: skip
    assert len({first, *others}) == 6


def test_a_process_has_no_pool() -> None:
    with pytest.raises(InvalidSpecError, match=r"spec\.warmPool needs launch\.kind agent"):
        fit.template(a_plugin(launch={"kind": "process"}, runTypes=None), "team", SETTINGS)


def test_a_plugin_that_gives_no_pod_has_no_pool() -> None:
    default, most = {"cpu": "500m", "memory": "9Gi"}, {"cpu": "4", "memory": "8Gi"}
    with pytest.raises(InvalidSpecError, match=r"memory 9Gi is over the plugin's 8Gi"):
        fit.template(a_plugin(defaultResources=default, maxResources=most), "team", SETTINGS)


def test_members_may_be_smaller() -> None:
    pod = member(a_plugin(warmPool=PLUGIN["warmPool"] | SMALL))
    resources = pod["spec"]["containers"][0]["resources"]
    assert resources["requests"] == {"cpu": "50m", "memory": "256Mi", "ephemeral-storage": "0"}
    assert resources["limits"]["memory"] == "256Mi"
    assert "cpu" not in resources["limits"]
    assert resources["limits"]["ephemeral-storage"].endswith("Mi")


@pytest.mark.parametrize(
    ("default", "limit"),
    [
        ({"cpu": "500m", "memory": "1Gi", "cpuLimit": "500m"}, "50m"),
        ({"cpu": "500m", "memory": "1Gi", "cpuLimit": "2"}, "2"),
        ({"cpu": "20m", "memory": "1Gi", "cpuLimit": "40m"}, "50m"),
    ],
)
def test_a_smaller_member_keeps_the_class_of_its_engines(default: dict[str, str], limit: str) -> None:
    small = PLUGIN["warmPool"] | SMALL
    plugin = a_plugin(warmPool=small, defaultResources=default)
    assert member(plugin)["spec"]["containers"][0]["resources"]["limits"]["cpu"] == limit
    if limit != "50m" or default["cpuLimit"] == default["cpu"]:
        assert found(plugin=plugin) == ()


# What a claim carries: spec of the engine.
CARRIED: list[dict[str, Any]] = [
    {},
    {"user": "bob", "creator": "nb", "tenant": "t", "ticketId": "0f6f7f5e-0000-4000-8000-000000000000"},
    {"env": [{"name": "A", "value": "$x"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
    {"workingDir": "/tmp/mine"},
    {"resources": {"cpu": "2"}},
    {"resources": {"memory": "4Gi"}},
    {"resources": {"cpuLimit": "3"}},
    {"stopGrace": "10s"},
    {"startTimeout": "1m", "idleTimeout": "1m", "maxLifetime": "1h", "ttlAfterFinished": "1m"},
    {"restartPolicy": {"type": "OnFailure"}},
    {"podTemplate": {"metadata": {"labels": {"user.linkis.apache.org/a": "b"}}}},
    {"podTemplate": {"metadata": {"annotations": {"user.linkis.apache.org/a": "b"}}}},
    # The plugin's own value is no wish.
    {"podTemplate": {"spec": {"nodeSelector": {"pool": "engines"}}}},
]

# What it does not, and the field that is named.
OWN: list[tuple[dict[str, Any], str]] = [
    ({"mode": "once", "code": "1", "runType": "python"}, "spec.mode"),
    ({"stopGrace": "31s"}, "spec.stopGrace"),
    ({"resources": {"cpu": "1", "cpuLimit": "1"}}, "spec.resources.cpuLimit"),
    ({"resources": {"extended": {"nvidia.com/gpu": 1}}}, "spec.resources.extended"),
    ({"volumes": [{"name": "d", "mountPath": "/data", "persistentVolumeClaim": {"claimName": "c"}}]}, "spec.volumes"),
    ({"volumes": [{"name": "d", "mountPath": "/data", "emptyDir": {}}]}, "spec.volumes"),
    ({"volumes": [{"name": "d", "mountPath": "/data", "secret": {"secretName": "s"}}]}, "spec.volumes"),
    ({"podTemplate": {"metadata": {"labels": {"team": "x"}}}}, "spec.podTemplate.metadata.labels"),
    ({"podTemplate": {"metadata": {"annotations": {"team": "x"}}}}, "spec.podTemplate.metadata.annotations"),
]  # fmt: skip
OVERLAY: dict[str, Any] = {
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "dnsConfig": {"searches": ["corp"]},
    "imagePullSecrets": [{"name": "mine"}],
    "nodeSelector": {"disk": "ssd"},
    "priorityClassName": "high",
    "runtimeClassName": "gvisor",
    "schedulerName": "volcano",
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
    ],
}


@pytest.mark.parametrize("spec", CARRIED)
def test_what_a_claim_carries_is_no_difference(spec: dict[str, Any]) -> None:
    assert found(**spec) == ()


@pytest.mark.parametrize(("spec", "field"), OWN)
def test_what_only_a_new_pod_has_is_named(spec: dict[str, Any], field: str) -> None:
    assert found(**spec) == (field,)


def test_a_zone_that_is_a_path_is_named() -> None:
    path, name = [{"name": "TZ", "value": ":/proc/self/fd/1"}], [{"name": "TZ", "value": "Europe/Berlin"}]
    assert found(env=path) == ("spec.env TZ",)
    assert found(env=name) == ()
    # The plugin's own: the member was started with it.
    assert found(plugin=a_plugin(env=[{"name": "TZ", "value": "/etc/localtime"}])) == ()


def test_what_a_preloaded_module_reads_at_its_import_is_named() -> None:
    env = [{"name": "ARROW_DEFAULT_MEMORY_POOL", "value": "system"}, {"name": "MPLBACKEND", "value": "agg"}]
    assert found(env=env) == ("spec.env ARROW_DEFAULT_MEMORY_POOL",)
    assert found(env=env, plugin=a_plugin(warmPool={"size": 1})) == ()
    both = a_plugin(warmPool={"size": 1, "preload": ["matplotlib.pyplot", "pandas"]})
    assert found(env=env, plugin=both) == ("spec.env ARROW_DEFAULT_MEMORY_POOL", "spec.env MPLBACKEND")


def test_every_field_of_the_overlay_is_named() -> None:
    assert set(OVERLAY) == set(SPEC_FIELDS)
    for name, value in OVERLAY.items():
        assert found(podTemplate={"spec": {name: value}}) == (f"spec.podTemplate.spec.{name}",)


@given(
    st.sets(st.integers(0, len(CARRIED) - 1)),
    st.sets(st.sampled_from(sorted(OVERLAY))),
    st.sets(st.integers(0, len(OWN) - 1)),
)
def test_nothing_that_a_claim_carries_hides_a_difference(carried: set[int], overlay: set[str], own: set[int]) -> None:
    """Wishes of both kinds together: exactly the fields of those that need a new pod are named."""
    spec: dict[str, Any] = {}
    for wish in [*(CARRIED[i] for i in sorted(carried)), *(OWN[i][0] for i in sorted(own))]:
        spec = _joined(spec, wish)
    names = {OWN[i][1] for i in own} - ({"spec.stopGrace"} if spec.get("stopGrace") == "10s" else set())
    if overlay:
        spec = _joined(spec, {"podTemplate": {"spec": {name: OVERLAY[name] for name in overlay}}})
        names |= {f"spec.podTemplate.spec.{name}" for name in overlay}
    try:
        fields = found(**spec)
    except InvalidSpecError:
        return
    guaranteed = spec.get("resources", {}).get("cpuLimit") == spec.get("resources", {}).get("cpu", "500m")
    assert set(fields) - {"spec.resources.cpuLimit"} == names - {"spec.resources.cpuLimit"}
    assert ("spec.resources.cpuLimit" in fields) == guaranteed


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    out = copy.deepcopy(one)
    for name, value in other.items():
        out[name] = _joined(out[name], value) if isinstance(value, dict) and isinstance(out.get(name), dict) else value
    return out


def test_a_kernel_that_takes_nothing_fits_engines_that_give_it_nothing() -> None:
    assert found(frozenset()) == ()
    assert found(frozenset(), env=[{"name": "A", "value": "1"}]) == ("spec.env",)
    assert found(frozenset(), workingDir="/tmp/mine") == ("spec.workingDir",)
    assert found(frozenset({fit.TAKES_ENV}), env=[{"name": "A", "value": "1"}], workingDir="/tmp/mine") == (
        "spec.workingDir",
    )


def test_a_field_that_nobody_knows_is_a_difference() -> None:
    plugin = a_plugin()
    template, pod = fit.template(plugin, "team", SETTINGS), own_pod(plugin)
    pod["spec"]["shareProcessNamespace"] = True
    pod["spec"]["containers"][0]["lifecycle"] = {}
    pod["spec"]["containers"][0]["env"].append({"name": "ECM_NEW", "value": "1"})
    assert fit.differences(pod, template, ALL) == ("pod.lifecycle", "pod.spec.shareProcessNamespace", "spec.env")


def test_another_plugin_and_another_namespace_do_not_fit() -> None:
    template = fit.template(a_plugin(), "team", SETTINGS)
    assert "image of the EngineConnPlugin" in fit.differences(own_pod(a_plugin(image="engine:2")), template, ALL)
    assert fit.differences(own_pod(a_plugin(), "other"), template, ALL) == ("metadata.namespace",)


def applied(pod: dict[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    """The patch as RFC 6902 has it, for the operations that are used; raises AssertionError at a test that fails."""
    out = copy.deepcopy(pod)
    for one in patch:
        *path, last = [part.replace("~1", "/").replace("~0", "~") for part in one["path"].split("/")[1:]]
        place = out
        for part in path:
            place = place[part]
        if one["op"] == "test":
            assert place.get(last) == one["value"]
        elif one["op"] == "remove":
            del place[last]
        else:
            assert one["op"] == "add" or last in place
            place[last] = one["value"]
    return out


def test_a_claim_makes_the_member_the_engines_pod() -> None:
    plugin = a_plugin()
    pod = own_pod(plugin, podTemplate={"metadata": {"labels": {"user.linkis.apache.org/a": "b"}}})
    before = member(plugin)
    after = applied(before, fit.claim_patch(pod_view(before), pod, 3))
    view = pod_view(after)
    assert (view.owner_uid, view.owner_name, view.claimed, view.member) == ("engine-uid", "mine", 3, None)
    assert (view.ticket, view.undisrupted, view.name) == ("t-1", True, "python-3-11-abcde")
    assert after["metadata"]["labels"] == pod["metadata"]["labels"]
    assert pod["metadata"]["annotations"].items() <= after["metadata"]["annotations"].items()
    assert after["metadata"]["ownerReferences"] == pod["metadata"]["ownerReferences"]


@pytest.mark.parametrize("wish", ["always", "busy", "never", None])
@pytest.mark.parametrize("has", ["true", None])
def test_after_a_claim_autoscalers_are_told_what_the_engines_own_pod_tells(wish: str | None, has: str | None) -> None:
    plugin = a_plugin(doNotDisrupt=wish)
    before, own = member(plugin), own_pod(plugin)
    if has is None:
        del before["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"]
    after = applied(before, fit.claim_patch(pod_view(before), own, 3))["metadata"]["annotations"]
    told = {name: value for name, value in after.items() if name.endswith(("safe-to-evict", "do-not-disrupt"))}
    assert told == (UNDISRUPTED if wish in ("always", "busy") else {})


def test_a_claim_of_a_pod_that_is_no_member_any_more_fails() -> None:
    plugin = a_plugin()
    before = member(plugin)
    patch = fit.claim_patch(pod_view(before), own_pod(plugin), 0)
    for other in ({"uid": "another"}, {"labels": {}}):
        with pytest.raises(AssertionError):
            applied(before | {"metadata": before["metadata"] | other}, patch)
    with pytest.raises(AssertionError):
        applied(applied(before, patch), patch)


def test_the_claim_carries_the_environment_of_the_engines_own_pod() -> None:
    plugin = a_plugin()
    secret = {"secretKeyRef": {"name": "s", "key": "k"}}
    pod = own_pod(plugin, env=[{"name": "PRICE", "value": "$5 $(HOME)"}, {"name": "PASSWORD", "valueFrom": secret}])
    carried = {one["name"]: one for one in fit.claim_environment(pod)}
    assert carried["ECM_ENV_PRICE"]["value"] == "$5 $(HOME)"
    assert carried["ECM_ENV_PASSWORD"] == {"name": "ECM_ENV_PASSWORD", "valueFrom": secret}
    assert carried["ECM_UID"]["value"] == "engine-uid"
    assert carried["ECM_ATTEMPT"]["value"] == "3"
    assert carried["LANG"]["value"] == "C"
    # The plugin's Secret may be another one since the member was made.
    assert carried["LICENCE"]["valueFrom"] == {"secretKeyRef": {"name": "l", "key": "k"}}


def sized(cpu: str, cpu_limit: str, memory: str) -> PodView:
    return PodView(
        namespace="team", name="m", uid="pod-uid", version=1, owner_uid="", owner_name="", phase="Running",
        cpu_request=cpu, cpu_limit=cpu_limit, memory_limit=memory,
    )  # fmt: skip


def test_an_engine_of_another_size_needs_a_resize() -> None:
    pod = own_pod(a_plugin(), resources={"cpu": "2", "memory": "4Gi", "cpuLimit": "3"})
    assert fit.resize(pod, sized("500m", "", "1Gi")) == {
        "requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"cpu": "3", "memory": "4Gi"},
    }  # fmt: skip
    assert fit.resize(pod, sized("2000m", "3", "4096Mi")) is None
    assert fit.resize(own_pod(a_plugin()), sized("0.5", "", "1Gi")) is None

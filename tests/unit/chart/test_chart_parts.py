"""What a platform sets of operator and gateway by value: names, images, accounts, pods, Services, scraping."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.chart.test_chart import MODES, refusal, template

ROOT = Path(__file__).parents[3]
PARTS = ("operator", "gateway")
COMPONENT = "app.kubernetes.io/component"
# operator.x=… of both parts.
DATABASE = ("--set", "database.url=mysql+pymysql://u:p@db/linkis,archive.persistence.accessMode=ReadWriteMany")


def part_of(part: str, *arguments: str) -> dict[str, Any]:
    (found,) = [d for d in of_kind("Deployment", *arguments) if d["metadata"]["labels"][COMPONENT] == part]
    return found


def pod_of(part: str, *arguments: str) -> dict[str, Any]:
    spec: dict[str, Any] = part_of(part, *arguments)["spec"]["template"]["spec"]
    return spec


def container_of(part: str, *arguments: str) -> dict[str, Any]:
    (found,) = [one for one in pod_of(part, *arguments)["containers"] if one["name"] == part]
    return dict(found)


def value(path: str, content: Any) -> tuple[str, str]:
    return "--set-json", f"{path}={json.dumps(content)}"


def of_kind(kind: str, *arguments: str) -> list[dict[str, Any]]:
    return [d for d in template(*arguments) if d["kind"] == kind]


# --- names and labels ---


@pytest.mark.parametrize(
    ("arguments", "prefix", "app"),
    [
        ((), "x", "linkis-ecm"),
        (("--set", "fullnameOverride=ecm"), "ecm", "linkis-ecm"),
        (("--set", "nameOverride=engines"), "x-engines", "engines"),
        (("--set", "nameOverride=x"), "x", "x"),
        (("--set", "fullnameOverride=ecm,nameOverride=y"), "ecm", "y"),
    ],
)
@pytest.mark.parametrize("mode", ["embedded", "one namespace for all"])
def test_every_name_and_every_selector_follows_the_overrides(
    mode: str, arguments: tuple[str, ...], prefix: str, app: str
) -> None:
    documents = template(*MODES[mode], *arguments)
    of_the_release = [d for d in documents if d["metadata"].get("namespace") == "ns"]
    for document in of_the_release:
        name = document["metadata"]["name"]
        assert name.startswith(f"{prefix}-") or name == "linkis-engines", name
    for document in documents:
        assert document["metadata"]["labels"]["app.kubernetes.io/name"] == app
        if document["kind"] == "Deployment":
            labels = document["spec"]["template"]["metadata"]["labels"]
            assert document["spec"]["selector"]["matchLabels"].items() <= labels.items()
            own = f"{prefix}-{labels[COMPONENT]}"
            services = [d["spec"]["selector"] for d in of_the_release
                        if d["kind"] == "Service" and d["metadata"]["name"].startswith(own)]  # fmt: skip
            assert services
            assert all(selector.items() <= labels.items() for selector in services)
    instance = {one["name"]: one.get("value") for one in container_of("gateway", *arguments)["env"]}["ECM_INSTANCE"]
    assert instance == f"{prefix}-gateway.ns:9102"


@pytest.mark.parametrize("mode", ["some namespaces", "with a database"])
def test_common_labels_are_everywhere_and_replace_none_of_ours(mode: str) -> None:
    labels = {"team": "data", "app.kubernetes.io/instance": "y", "app.kubernetes.io/component": "z"}
    for document in template(*MODES[mode], *value("commonLabels", labels)):
        assert document["metadata"]["labels"]["team"] == "data", document["metadata"]["name"]
        assert document["metadata"]["labels"]["app.kubernetes.io/instance"] == "x"
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["metadata"]["labels"]
            assert pod["team"] == "data"
            assert document["spec"]["selector"]["matchLabels"].items() <= pod.items()
            assert "team" not in document["spec"]["selector"]["matchLabels"], "a selector cannot change"


def test_two_releases_in_one_namespace_share_no_object_but_what_is_the_clusters() -> None:
    def objects(*arguments: str) -> set[tuple[str, ...]]:
        return {(d["kind"], d["metadata"].get("namespace", ""), d["metadata"]["name"]) for d in template(*arguments)}

    second = objects("--set", "fullnameOverride=y,engines.python.enabled=false,userRoles.create=false")
    assert objects() & second == set()
    env = container_of("gateway", "--set", "fullnameOverride=y")["env"]
    assert {"name": "ECM_STATE_CONFIGMAP", "value": "y-em"} in env


# --- images ---


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ("image.tag=v1", "linkis-ecm/ecm:v1"),
        ("image.registry=reg:5000,image.tag=v1", "reg:5000/linkis-ecm/ecm:v1"),
        ("image.registry=reg,global.imageRegistry=mirror,image.tag=v1", "mirror/linkis-ecm/ecm:v1"),
        (f"image.tag=v1,image.digest=sha256:{'a' * 64}", f"linkis-ecm/ecm@sha256:{'a' * 64}"),
        (f"image.registry=reg,image.digest=sha256:{'a' * 64}", f"reg/linkis-ecm/ecm@sha256:{'a' * 64}"),
    ],
)
def test_an_image_is_named_by_registry_tag_or_digest(values: str, image: str) -> None:
    assert {container_of(part, "--set", values)["image"] for part in PARTS} == {image}
    (test,) = of_kind("Pod", "--set", values)
    assert test["spec"]["containers"][0]["image"] == image


def test_pull_secrets_are_names_or_objects_and_none_stands_twice() -> None:
    values = (*value("imagePullSecrets", ["a", {"name": "b"}]), *value("global.imagePullSecrets", [{"name": "a"}, "g"]))
    for part in PARTS:
        assert pod_of(part, *values)["imagePullSecrets"] == [{"name": "a"}, {"name": "g"}, {"name": "b"}]
        assert "imagePullSecrets" not in pod_of(part)


# --- accounts ---


def test_accounts_have_a_clouds_annotations_or_are_ones_own() -> None:
    annotation = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/ecm"}
    found = of_kind("ServiceAccount", *value("gateway.serviceAccount.annotations", annotation),
                    "--set", "operator.serviceAccount.labels.a=b,operator.serviceAccount.name=op")  # fmt: skip
    accounts = {d["metadata"]["name"]: d["metadata"] for d in found}
    assert set(accounts) == {"op", "x-gateway"}
    assert accounts["x-gateway"]["annotations"] == annotation
    assert accounts["op"]["labels"]["a"] == "b"
    own = ("--set", "operator.serviceAccount.create=false,operator.serviceAccount.name=mine")
    assert [d["metadata"]["name"] for d in of_kind("ServiceAccount", *own)] == ["x-gateway"]
    assert pod_of("operator", *own)["serviceAccountName"] == "mine"
    subjects = [s["name"] for d in template(*own) if d["kind"].endswith("Binding") for s in d.get("subjects", [])]
    assert "mine" in subjects
    assert "x-operator" not in subjects
    assert "operator.serviceAccount.name" in refusal("--set", "operator.serviceAccount.create=false")


def test_roles_can_be_made_by_others() -> None:
    kinds = {d["kind"] for d in template("--set", "rbac.create=false,userRoles.create=false")}
    assert not {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} & kinds
    assert "ServiceAccount" in kinds


# --- pods ---

POD_FIELDS: dict[str, Any] = {
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "priorityClassName": "high",
    "runtimeClassName": "gvisor",
    "schedulerName": "volcano",
    "dnsPolicy": "ClusterFirst",
    "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["db"]}],
    "terminationGracePeriodSeconds": 90,
    "initContainers": [{"name": "wait", "image": "busybox"}],
}
CONTAINER_FIELDS: dict[str, Any] = {
    "envFrom": [{"secretRef": {"name": "s3"}}],
    "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": False,
        "capabilities": {"drop": ["ALL"]},
    },
    "resources": {"limits": {"memory": "1Gi", "cpu": "1"}, "requests": {"memory": "1Gi", "cpu": "1"}},
}


@pytest.mark.parametrize("part", PARTS)
def test_the_fields_of_a_pod_and_its_container_are_that_parts_alone(part: str) -> None:
    values = [
        word for name, content in (POD_FIELDS | CONTAINER_FIELDS).items() for word in value(f"{part}.{name}", content)
    ]
    (other,) = set(PARTS) - {part}
    pod, container = pod_of(part, *values), container_of(part, *values)
    assert {name: pod[name] for name in POD_FIELDS} == POD_FIELDS
    assert {name: container[name] for name in CONTAINER_FIELDS} == CONTAINER_FIELDS
    assert pod_of(other, *values) == pod_of(other)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_without_its_own_scheduling_has_the_charts(part: str) -> None:
    both = ("--set", "nodeSelector.a=b", *value("tolerations", [{"key": "k"}]))
    assert pod_of(part, *both)["nodeSelector"] == {"a": "b"}
    own = (*both, *value(f"{part}.nodeSelector", {"c": "d"}))
    assert pod_of(part, *own)["nodeSelector"] == {"c": "d"}
    assert pod_of(part, *own)["tolerations"] == [{"key": "k"}]


@pytest.mark.parametrize("part", PARTS)
def test_volumes_mounts_and_containers_stand_beside_the_parts_own(part: str) -> None:
    volume, mount = {"name": "ca", "configMap": {"name": "ca"}}, {"name": "ca", "mountPath": "/ca", "readOnly": True}
    sidecar = {"name": "proxy", "image": "p"}
    values = (*value(f"{part}.extraVolumes", [volume]), *value(f"{part}.extraVolumeMounts", [mount]),
              *value(f"{part}.extraContainers", [sidecar]))  # fmt: skip
    pod = pod_of(part, *values)
    assert pod["volumes"] == [*pod_of(part)["volumes"], volume]
    assert [one["name"] for one in pod["containers"]] == [part, "proxy"]
    assert container_of(part, *values)["volumeMounts"] == [*container_of(part)["volumeMounts"], mount]


@pytest.mark.parametrize(
    ("part", "name"), [("operator", "ECM_REPORT_URL"), ("operator", "ECM_INSTANCE"), ("gateway", "ECM_ADMINS")]
)
def test_extra_env_replaces_a_variable_of_the_charts_and_no_name_stands_twice(part: str, name: str) -> None:
    extra = [{"name": name, "value": "mine"}, {"name": "OTHER", "value": "1"}]
    env = container_of(part, *value(f"{part}.extraEnv", extra))["env"]
    names = [one["name"] for one in env]
    assert len(names) == len(set(names))
    assert env[-2:] == extra
    assert set(names) == {one["name"] for one in container_of(part)["env"]} | {"OTHER"}


@pytest.mark.parametrize("part", PARTS)
def test_a_spread_without_a_selector_counts_the_pods_of_its_part(part: str) -> None:
    bare = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
    whole = bare | {"labelSelector": {"matchLabels": {"a": "b"}}}
    first, second = pod_of(part, *value(f"{part}.topologySpreadConstraints", [bare, whole]))[
        "topologySpreadConstraints"
    ]
    labels = part_of(part)["spec"]["template"]["metadata"]["labels"]
    assert first["labelSelector"]["matchLabels"].items() <= labels.items()
    assert first["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == part
    assert second == whole


@pytest.mark.parametrize("part", PARTS)
def test_a_probe_is_changed_field_by_field(part: str) -> None:
    before = container_of(part)["readinessProbe"]
    after = container_of(part, "--set", f"{part}.readinessProbe.periodSeconds=30")["readinessProbe"]
    assert after == before | {"periodSeconds": 30}


@pytest.mark.parametrize("part", PARTS)
def test_annotations_and_labels_of_pods_and_deployments(part: str) -> None:
    values = (*value(f"{part}.podLabels", {"a": "b", COMPONENT: "other"}), *value(f"{part}.annotations", {"e": "f"}),
              *value(f"{part}.podAnnotations", {"c": "d"}), "--set", f"{part}.revisionHistoryLimit=2")  # fmt: skip
    found = part_of(part, *values)
    metadata = found["spec"]["template"]["metadata"]
    assert metadata["labels"]["a"] == "b"
    assert found["spec"]["selector"]["matchLabels"].items() <= metadata["labels"].items()
    assert metadata["annotations"] == {"c": "d"}
    assert found["metadata"]["annotations"] == {"e": "f"}
    assert found["spec"]["revisionHistoryLimit"] == 2


@pytest.mark.parametrize("part", PARTS)
def test_updates_and_budgets_are_by_value_where_there_is_a_database(part: str) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    many = (*DATABASE, "--set", f"{part}.replicas=3")
    assert part_of(part, *many, *value(f"{part}.updateStrategy", strategy))["spec"]["strategy"] == strategy

    def budgets(*more: str) -> dict[str, Any]:
        found = of_kind("PodDisruptionBudget", *many, *more)
        return {d["metadata"]["name"]: {k: v for k, v in d["spec"].items() if k != "selector"} for d in found}

    assert budgets() == {f"x-{part}": {"maxUnavailable": 1}}
    assert budgets("--set", f"{part}.podDisruptionBudget.maxUnavailable=50%") == {
        f"x-{part}": {"maxUnavailable": "50%"}
    }
    assert budgets("--set", f"{part}.podDisruptionBudget.minAvailable=2") == {f"x-{part}": {"minAvailable": 2}}
    assert budgets("--set", f"{part}.podDisruptionBudget.enabled=false") == {}
    # One SQLite file is for one process: said, not passed over.
    assert f"{part}.replicas is 2" in refusal("--set", f"{part}.replicas=2")
    assert f"{part}.updateStrategy.type" in refusal("--set", f"{part}.updateStrategy.type=RollingUpdate")


@pytest.mark.parametrize("part", PARTS)
def test_a_security_context_loses_the_fields_that_a_platform_chooses(part: str) -> None:
    values = [f"{part}.podSecurityContext.{field}=null" for field in ("runAsUser", "runAsGroup", "fsGroup")]
    context = pod_of(part, "--set", ",".join(values))["securityContext"]
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(context)
    assert context["runAsNonRoot"] is True


# --- Services, domain, scraping, tests ---


def test_the_gateways_service_is_by_value() -> None:
    wanted = {
        "type": "LoadBalancer", "loadBalancerClass": "internal", "loadBalancerIP": "10.0.0.9",
        "loadBalancerSourceRanges": ["10.0.0.0/8"], "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local",
        "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"], "sessionAffinity": "ClientIP",
    }  # fmt: skip
    more = {"annotations": {"a": "b"}, "labels": {"c": "d"}, "nodePort": 30000}
    (found,) = [d for d in of_kind("Service", *value("gateway.service", wanted | more))
                if d["metadata"]["name"] == "x-gateway"]  # fmt: skip
    assert wanted.items() <= found["spec"].items()
    assert found["spec"]["ports"][0]["nodePort"] == 30000
    assert found["metadata"]["annotations"] == {"a": "b"}
    assert found["metadata"]["labels"]["c"] == "d"
    (bare,) = [d for d in of_kind("Service") if d["metadata"]["name"] == "x-gateway"]
    assert set(bare["spec"]) == {"type", "selector", "ports"}


def test_the_alerts_are_those_of_the_rule_file_without_the_unwanted() -> None:
    assert not [d for d in template() if d["kind"] == "PrometheusRule"]
    values = {
        "enabled": True,
        "labels": {"release": "p"},
        "disabled": ["LinkisEcmQuotaNear"],
        "runbookUrl": "https://r",
    }
    (rule,) = [d for d in template(*value("metrics.prometheusRule", values)) if d["kind"] == "PrometheusRule"]
    assert rule["metadata"]["labels"]["release"] == "p"
    plain = yaml.safe_load((ROOT / "manifests/alerts/linkis-ecm.yaml").read_text())
    expected = {one["alert"]: one for group in plain["groups"] for one in group["rules"]}
    found = {one["alert"]: one for group in rule["spec"]["groups"] for one in group["rules"]}
    assert set(found) == set(expected) - {"LinkisEcmQuotaNear"}
    for name, one in found.items():
        assert one["annotations"].pop("runbook_url") == f"https://r/{name.removeprefix('LinkisEcm')}.md"
        del expected[name]["annotations"]["runbook_url"]
        # absent() has the labels that it asks for: the release's namespace, by which one is told from another.
        expected[name]["expr"] = re.sub(r"absent\((\w+)\)", r'absent(\1{namespace="ns"})', expected[name]["expr"])
        assert one == expected[name]
    assert "there is no such alert" in refusal(
        *value("metrics.prometheusRule", {"enabled": True, "disabled": ["LinkisEcmNone"]})
    )


def test_the_dashboards_are_those_of_the_manifests_for_the_sidecar() -> None:
    def found(*arguments: str) -> dict[str, dict[str, Any]]:
        maps = [d for d in template(*arguments) if d["kind"] == "ConfigMap"]
        return {d["metadata"]["name"]: d for d in maps if "-dashboard-" in d["metadata"]["name"]}

    assert found() == {}
    values = {"enabled": True, "annotations": {"grafana_folder": "Linkis"}, "consoleUrl": "https://ecm/console"}
    boards = found(*value("dashboards", values))
    files = list((ROOT / "manifests/dashboards").glob("*.json"))
    assert set(boards) == {f"x-dashboard-{path.stem}" for path in files}
    for path in files:
        board = boards[f"x-dashboard-{path.stem}"]
        assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert board["metadata"]["annotations"] == {"grafana_folder": "Linkis"}
        ((name, text),) = board["data"].items()
        assert name == f"ns-x-{path.name}"
        found_text, expected = json.loads(text), json.loads(path.read_text())
        assert text.count("https://ecm/console") == path.read_text().count('"/console"') == 1
        # One release's, beside another's: the rest is the same.
        assert found_text.pop("title") == expected.pop("title").replace("Linkis ECM", "Linkis ECM ns/x")
        assert re.fullmatch(rf"{expected.pop('uid')}-[0-9a-f]{{8}}", found_text.pop("uid"))
        assert found_text["panels"] == expected["panels"]


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PodMonitor"])
@pytest.mark.parametrize("tls", [False, True])
def test_monitors_find_both_parts(kind: str, tls: bool) -> None:
    key = kind[0].lower() + kind[1:]
    values = {"enabled": True, "labels": {"release": "prometheus"}, "interval": "15s", "honorLabels": True,
              "relabelings": [{"action": "labeldrop", "regex": "pod"}]}  # fmt: skip
    arguments = (*value(f"metrics.{key}", values), *(("--set", "tls.enabled=true,tls.secretName=t") if tls else ()))
    documents = template(*arguments)
    monitors = {d["metadata"]["name"]: d for d in documents if d["kind"] == kind}
    assert set(monitors) == {"x-operator", "x-gateway"}
    for part in PARTS:
        monitor = monitors[f"x-{part}"]
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
        (endpoint,) = monitor["spec"]["endpoints" if kind == "ServiceMonitor" else "podMetricsEndpoints"]
        assert (endpoint["interval"], endpoint["honorLabels"]) == ("15s", True)
        # Ours come first, so that a platform's own have the last word.
        ours, *others = endpoint["relabelings"]
        assert (ours["targetLabel"], others) == ("release", values["relabelings"])
        selector = monitor["spec"]["selector"]["matchLabels"]
        if kind == "ServiceMonitor":
            (target,) = [d for d in documents if d["kind"] == "Service"
                         and selector.items() <= d["metadata"]["labels"].items()]  # fmt: skip
            ports = {port["name"] for port in target["spec"]["ports"]}
        else:
            pod = part_of(part, *arguments)["spec"]["template"]
            assert selector.items() <= pod["metadata"]["labels"].items()
            ports = {port["name"] for one in pod["spec"]["containers"] for port in one["ports"]}
        assert endpoint["port"] in ports
        assert (endpoint.get("scheme") == "https") == (tls and part == "gateway")
    assert not of_kind(kind)


@pytest.mark.parametrize("part", PARTS)
def test_annotations_for_prometheus_name_the_port_that_serves_metrics(part: str) -> None:
    found = part_of(part, "--set", "metrics.annotations=true")["spec"]["template"]
    annotations = found["metadata"]["annotations"]
    ports = {port["name"]: port["containerPort"] for port in found["spec"]["containers"][0]["ports"]}
    assert int(annotations["prometheus.io/port"]) in (ports.get("op-metrics"), ports.get("gw-metrics"))
    assert annotations["prometheus.io/scheme"] == "http"
    assert "annotations" not in part_of(part)["spec"]["template"]["metadata"]


@pytest.mark.parametrize("more", [(), ("--set", "tls.enabled=true,tls.secretName=t")])
def test_helm_test_asks_the_gateway_and_is_no_part_of_the_release(more: tuple[str, ...]) -> None:
    documents = template(*more)
    (pod,) = [d for d in documents if d["kind"] == "Pod"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    compile(container["args"][0], "test", "exec")
    assert container["args"][1] == f"{'https' if more else 'http'}://x-gateway.ns:9102/readyz"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    labels = pod["metadata"]["labels"]
    for document in documents:
        if document["kind"] == "Service":
            assert not document["spec"]["selector"].items() <= labels.items(), "no Service leads to it"
    assert not of_kind("Pod", "--set", "tests.enabled=false")


def test_more_objects_are_rendered_as_maps_and_as_texts() -> None:
    one = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-a", "namespace": "ns"}}
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, namespace: {{ .Release.Namespace }}}\n"
    own = {d["metadata"]["name"] for d in of_kind("ConfigMap")}
    found = [d for d in of_kind("ConfigMap", *value("extraObjects", [one, text])) if d["metadata"]["name"] not in own]
    assert [d["metadata"]["name"] for d in found] == ["x-a", "b"]
    assert {d["metadata"]["namespace"] for d in found} == {"ns"}


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ("image.digest=abc", "/image/digest"),
        ("fullnameOverride=A", "/fullnameOverride"),
        ("clusterDomain=a b", "/clusterDomain"),
        ("operator.podLabel.a=b", "/operator"),
        ("gateway.dnsPolicy=x", "/gateway/dnsPolicy"),
        ("operator.service.type=NodePort", "/operator"),
        ("gateway.service.ipFamilies={IPv5}", "/gateway/service/ipFamilies/0"),
        ("metrics.serviceMonitor.interval=often", "/metrics/serviceMonitor/interval"),
        ("operator.podDisruptionBudget.minAvailable=most", "/operator/podDisruptionBudget/minAvailable"),
        ("imagePullSecrets[0].nam=x", "/imagePullSecrets/0"),
    ],
)
def test_a_wrong_value_is_named(values: str, names: str) -> None:
    assert names in refusal("--set", values)


@pytest.mark.parametrize("mode", MODES)
def test_every_label_and_every_selector_is_one_that_the_api_server_takes(mode: str) -> None:
    label = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")

    def values_of(node: Any, inside: bool = False) -> list[str]:
        if isinstance(node, list):
            return [text for child in node for text in values_of(child, inside)]
        if not isinstance(node, dict):
            return [str(node)] if inside else []
        return [
            text for name, child in node.items()
            for text in values_of(child, inside or name in ("labels", "matchLabels", "values"))
        ]  # fmt: skip

    for document in template(*MODES[mode]):
        wrong = [text for text in values_of(document) if not label.fullmatch(text)]
        assert wrong == [], (document["kind"], document["metadata"]["name"])

"""The Helm chart: it lints, its rendered form is current, and what it installs is restricted and asks for little."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from linkis_ecm.controller.settings import from_environment
from linkis_ecm.engine.admission.limits import Amount, parse_limits
from linkis_ecm.engine.names import AGENT_PORT
from linkis_ecm.engine.pod.launch import AGENT, container_ports
from linkis_ecm.engine.pod.spec import USER_ID
from linkis_ecm.gateway.settings import OidcSettings, read_settings
from linkis_ecm.model.engineconn import Launch
from tools.cluster.tools import helm
from tools.render import render

ROOT = Path(__file__).parents[3]
CHART = str(ROOT / "helm/linkis-ecm")
# Without a cluster to look it up in, the chart makes no Secret (test_chart_secret.py).
SECRET = ("--set", "auth.existingSecret=x-auth")
MODES = {
    "embedded": [],
    "with a database": ["--set", "database.url=mysql+pymysql://u:p@db:3306/linkis", "--set", "operator.replicas=2"],
    "some namespaces": ["--set-json", 'engineNamespaces=[{"name": "a"}, {"name": "b", "create": false}]'],
    "every namespace": ["--set", "clusterWide=true"],
    "one namespace for all": ["--set", "enginesInReleaseNamespace=true"],
    "nothing kept": ["--set", "persistence.enabled=false,archive.persistence.enabled=false"],
}


@functools.cache
def _rendered(arguments: tuple[str, ...]) -> str:
    done = subprocess.run(
        [str(helm()), "template", "x", CHART, "--namespace", "ns", *SECRET, *arguments],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout


def template(*arguments: str) -> list[dict[str, Any]]:
    """The documents of the chart under these arguments: the caller's own, whoever asked for the same before."""
    return [document for document in yaml.load_all(_rendered(arguments), yaml.CSafeLoader) if document]


def refusal(*arguments: str) -> str:
    done = subprocess.run(
        [str(helm()), "template", "x", CHART, *SECRET, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    return done.stderr


def test_the_chart_lints_without_a_warning() -> None:
    done = subprocess.run(
        [str(helm()), "lint", "--strict", CHART], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rendered_manifest_is_current() -> None:
    assert (ROOT / "manifests/install.yaml").read_text() == render(), "run `make generate` and commit manifests/"


@pytest.mark.parametrize("name", ["engineconns.yaml", "engineconnplugins.yaml"])
def test_the_chart_carries_the_same_crds(name: str) -> None:
    assert (Path(CHART) / "crds" / name).read_text() == (ROOT / "crds" / name).read_text(), "run `make generate`"


@pytest.mark.parametrize("mode", MODES)
def test_every_pod_is_restricted_and_bounded(mode: str) -> None:
    pods = [d["spec"]["template"]["spec"] for d in template(*MODES[mode]) if d["kind"] == "Deployment"]
    assert pods
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any("hostPath" in volume for volume in pod["volumes"])
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]) == {"requests", "limits"}


@pytest.mark.parametrize("mode", MODES)
def test_no_role_has_a_wildcard_reads_secrets_or_acts_as_a_user_of_the_api_server(mode: str) -> None:
    documents = template(*MODES[mode], "--set", "warmPools.secrets=false")
    roles = [d for d in documents if d["kind"] in ("Role", "ClusterRole")]
    assert roles
    for rule in (rule for role in roles for rule in role["rules"]):
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert not {"secrets", "pods/exec", "rolebindings"} & set(rule["resources"])
        # In the core group the API server itself acts on it; in ours the admission policy alone asks for it.
        assert "impersonate" not in rule["verbs"] or rule["apiGroups"] == ["linkis.apache.org"]


@pytest.mark.parametrize("mode", MODES)
def test_secrets_are_read_by_the_operator_alone_each_by_its_name_where_engines_are(mode: str) -> None:
    found = [
        (role["metadata"]["name"], role["metadata"].get("namespace"), rule["verbs"])
        for role in template(*MODES[mode])
        if role["kind"] in ("Role", "ClusterRole")
        for rule in role["rules"]
        if "secrets" in rule["resources"]
    ]
    assert found
    assert all(name.endswith("-operator") and verbs == ["get"] for name, _, verbs in found)
    wide = "clusterWide=true" in " ".join(MODES[mode])
    assert all((namespace is None) is wide for _, namespace, _ in found)


def rules_of(documents: list[dict[str, Any]], account: str) -> dict[str, set[tuple[str, str]]]:
    """What an account of the release may do, as verbs on resources, by namespace ("" is everywhere)."""
    rights: dict[str, set[tuple[str, str]]] = {}
    roles = {(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]): d["rules"]
             for d in documents if d["kind"] in ("Role", "ClusterRole")}  # fmt: skip
    for binding in documents:
        if binding["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        if binding["subjects"] != [{"kind": "ServiceAccount", "name": account, "namespace": "ns"}]:
            continue
        namespace = binding["metadata"].get("namespace")
        for rule in roles[binding["roleRef"]["kind"], namespace, binding["roleRef"]["name"]]:
            rights.setdefault(namespace or "", set()).update((v, r) for v in rule["verbs"] for r in rule["resources"])
    return rights


@pytest.mark.parametrize(("mode", "namespaces"), [("embedded", {"x-engines"}), ("some namespaces", {"a", "b"})])
def test_operator_and_gateway_have_rights_of_their_own_in_the_engines_namespaces_alone(
    mode: str, namespaces: set[str]
) -> None:
    documents = template(*MODES[mode])
    operator, gateway = rules_of(documents, "x-operator"), rules_of(documents, "x-gateway")
    catalogue = {(verb, "engineconnplugins") for verb in ("get", "list", "watch")}
    read = ("get", "list", "watch")
    policies = {(verb, f"validatingadmission{kind}") for kind in ("policies", "policybindings") for verb in read}
    assert operator.pop("") == catalogue | {("patch", "engineconnplugins/status"), ("get", "nodes")} | policies
    assert gateway.pop("") == catalogue
    own = operator.pop("ns")
    assert {resource for _, resource in own} == {"leases", "configmaps"}
    assert {verb for verb, resource in own if resource == "configmaps"} == {"get", "patch"}
    assert {resource for _, resource in gateway.pop("ns")} == {"configmaps"}
    assert set(operator) == set(gateway) == namespaces
    for namespace in namespaces:
        assert ("patch", "engineconns/status") in operator[namespace]
        assert ("create", "pods") in operator[namespace]
        assert ("patch", "engineconns") not in operator[namespace]
        assert {right for right in gateway[namespace] if right[1].startswith("pods")} == {
            ("get", "pods"), ("patch", "pods/resize"),
        }  # fmt: skip
        assert not [right for right in gateway[namespace] if right[1] in ("engineconns/status", "pods/log")]


@pytest.mark.parametrize("mode", MODES)
def test_operator_gateway_and_engines_are_three_users_and_two_accounts(mode: str) -> None:
    pods = {d["metadata"]["name"]: d["spec"]["template"]["spec"] for d in template(*MODES[mode])
            if d["kind"] == "Deployment"}  # fmt: skip
    assert set(pods) == {"x-operator", "x-gateway"}
    assert len({pod["securityContext"]["runAsUser"] for pod in pods.values()} | {USER_ID}) == 3
    assert len({pod["securityContext"]["fsGroup"] for pod in pods.values()} - {USER_ID}) == 1
    assert {pod["serviceAccountName"] for pod in pods.values()} == {"x-operator", "x-gateway"}
    # The gateway's tokens are none of the operator's business, and the archive is for the gateway to read.
    (auth,) = [volume for volume in pods["x-operator"]["volumes"] if volume["name"] == "auth"]
    assert [item["key"] for item in auth["secret"]["items"]] == ["token-key"]
    mounts = {mount["name"]: mount for mount in pods["x-gateway"]["containers"][0]["volumeMounts"]}
    assert mounts.get("archive", {"readOnly": True})["readOnly"] is True


def test_the_operator_knows_what_no_engine_may_mount() -> None:
    def env(*arguments: str) -> dict[str, str]:
        pods = {d["metadata"]["name"]: d["spec"]["template"]["spec"] for d in template(*arguments)
                if d["kind"] == "Deployment"}  # fmt: skip
        return {one["name"]: one.get("value", "") for one in pods["x-operator"]["containers"][0]["env"]}

    names = env("--set", "persistence.existingClaim=mine")
    found = from_environment(names | {
        "ECM_POD_NAMESPACE": "ns", "ECM_TOKEN_KEY_FILE": str(ROOT / "README.md"),
    })  # fmt: skip
    assert set(found.protected) == {"secret/x-auth", "persistentvolumeclaim/mine", "persistentvolumeclaim/x-archive"}
    assert found.admission is True
    assert "secret/x-database" in env(*MODES["with a database"])["ECM_PROTECTED_OBJECTS"]
    assert env("--set", "admission.enabled=false")["ECM_ADMISSION_POLICY"] == "false"


def test_operator_and_gateway_read_the_same_limits_of_people(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(
        "limits: {user: {engines: 10, cpu: 2.5, memory: 64Gi}, users: {'O''Brien \"x\"': {engines: 0}}, namespaces:"
        " {lab: {engines: 1000000}}}"
    )
    found = [
        variable["value"]
        for document in template("-f", str(values))
        if document["kind"] in ("Deployment", "StatefulSet")
        for container in document["spec"]["template"]["spec"]["containers"]
        for variable in container["env"]
        if variable["name"] == "ECM_LIMITS"
    ]
    assert len(found) == 2
    assert found[0] == found[1]
    limits = parse_limits(found[0])
    assert limits.user == Amount(10, 2500, 64 << 30)
    assert limits.of_user('O\'Brien "x"') == Amount(0, 2500, 64 << 30)
    assert limits.of_namespace("lab") == Amount(engines=1_000_000)
    assert not any("ECM_LIMITS" in str(document) for document in template())
    assert "limits" in refusal("--set", "limits.user.gpu=1")


def test_pods_that_share_a_volume_of_one_node_stay_together_and_keep_the_users_affinity() -> None:
    near = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "db"}}}
    values = json.dumps({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [near]}})
    for document in template("--set-json", f"affinity={values}"):
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]
            first, own = pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            assert first == near
            # It fits the pod itself: the first pod of a release waits for no other.
            assert own["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
            assert own["topologyKey"] == "kubernetes.io/hostname"
    many = [*MODES["with a database"], "--set", "archive.persistence.accessMode=ReadWriteMany"]
    assert not [d for d in template(*many) if d["kind"] == "Deployment" and "affinity" in d["spec"]["template"]["spec"]]


def test_what_is_on_an_empty_dir_of_the_operator_the_gateway_does_not_have() -> None:
    found = {d["metadata"]["name"]: d["spec"]["template"]["spec"] for d in template(*MODES["nothing kept"])
             if d["kind"] == "Deployment"}  # fmt: skip
    names = {name: {one["name"] for one in pod["containers"][0]["env"]} for name, pod in found.items()}
    assert {"ECM_DATABASE_URL", "ECM_ARCHIVE_URL"} <= names["x-operator"]
    assert not {"ECM_DATABASE_URL", "ECM_ARCHIVE_URL"} & names["x-gateway"]
    assert {mount["name"] for mount in found["x-gateway"]["containers"][0]["volumeMounts"]} == {"auth", "tmp"}


def test_a_made_namespace_is_restricted_bounded_and_outlives_the_release() -> None:
    labels = {"team": "a", "pod-security.kubernetes.io/enforce": "privileged"}
    entry = {"name": "team-a", "labels": labels, "resourceQuota": {"hard": {"pods": "9"}},
             "limitRange": {"limits": [{"type": "Container", "max": {"memory": "8Gi"}}]}}  # fmt: skip
    documents = template("--set-json", f"engineNamespaces={json.dumps([entry, {'name': 'b', 'create': False}])}")
    (made,) = [d for d in documents if d["kind"] == "Namespace"]
    assert made["metadata"]["name"] == "team-a"
    assert made["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert made["metadata"]["labels"]["team"] == "a"
    assert made["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    bounds = {d["kind"]: (d["metadata"].get("namespace"), d.get("spec")) for d in documents}
    assert bounds["ResourceQuota"] == ("team-a", entry["resourceQuota"])
    assert bounds["LimitRange"] == ("team-a", entry["limitRange"])


def test_engines_in_the_releases_namespace_must_be_asked_for() -> None:
    says = refusal("--namespace", "ns", "--set", "engineNamespaces[0].name=ns")
    assert "enginesInReleaseNamespace=true" in says
    documents = template(*MODES["one namespace for all"])
    assert not [d for d in documents if d["kind"] == "Namespace"]
    (gateway,) = [d for d in documents if d["kind"] == "Deployment" and d["metadata"]["name"] == "x-gateway"]
    env = {one["name"]: one.get("value") for one in gateway["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert (env["ECM_NAMESPACE"], env["ECM_WATCH_NAMESPACES"]) == ("ns", "ns")
    assert "twice" in refusal("--set", "engineNamespaces[0].name=a,engineNamespaces[1].name=a")


def test_the_roles_for_people_are_aggregated_and_view_lets_nobody_act() -> None:
    roles = {d["metadata"]["name"]: d for d in template() if d["kind"] == "ClusterRole"}
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    for name, into in (
        ("view", {"view", "edit", "admin"}),
        ("edit", {"edit", "admin"}),
        ("admin", {"admin"}),
        ("claims", {"edit", "admin"}),
    ):
        labels = roles[f"linkis-ecm-{name}"]["metadata"]["labels"]
        assert {label.removeprefix(prefix) for label in labels if label.startswith(prefix)} == into
    (view,) = roles["linkis-ecm-view"]["rules"]
    assert set(view["verbs"]) == {"get", "list", "watch"}
    assert set(view["resources"]) == {"engineconns", "engineconnplugins"}
    (edit,) = roles["linkis-ecm-edit"]["rules"]
    assert edit["resources"] == ["engineconns"], "the status is the operator's"
    # It may be bound alone: to apply, to wait, to see and to end.
    assert {"get", "list", "watch", "create", "patch", "delete"} <= set(edit["verbs"])
    apart = [d["metadata"]["labels"] for d in template("--set", "userRoles.aggregate=false")
             if d["kind"] == "ClusterRole" and d["metadata"]["name"].startswith("linkis-ecm-")]  # fmt: skip
    assert len(apart) == 4
    assert not [label for labels in apart for label in labels if label.startswith(prefix)]
    (claims,) = roles["linkis-ecm-claims"]["rules"]
    assert (claims["resources"], claims["verbs"]) == (["persistentvolumeclaims"], ["use"])
    assert not [d for d in template("--set", "userRoles.create=false")
                if d["kind"] == "ClusterRole" and d["metadata"]["name"].startswith("linkis-ecm-")]  # fmt: skip


@pytest.mark.parametrize("offered", [True, False])
def test_the_notes_offer_an_engine_that_there_is(offered: bool) -> None:
    python = f"engines.python.enabled={offered}".lower()
    done = subprocess.run(
        [str(helm()), "install", "x", CHART, "--dry-run=client", *SECRET, "--set", python],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert ("engineType: python" in done.stdout.partition("\nNOTES:")[2]) == offered
    assert ("examples/03-plugin.yaml" in done.stdout) != offered


@pytest.mark.parametrize("amount", ["lots", "64 Gi", "-1", -1, True])
def test_a_wrong_amount_of_a_limit_is_refused_with_its_form(amount: Any) -> None:
    says = refusal("--set-json", f"limits={json.dumps({'user': {'memory': amount}})}")
    assert "/limits/user/memory" in says
    assert "anyOf" not in says
    assert any(words in says for words in ("does not match pattern", "minimum", "want number or string"))


def test_the_admission_policy_is_there_for_the_engines_namespaces_unless_it_is_switched_off() -> None:
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")

    def found(*arguments: str) -> dict[str, dict[str, Any]]:
        return {
            d["kind"]: d["spec"] for d in template(*arguments)
            if d["kind"] in kinds and not d["metadata"]["name"].endswith(("-env", "-metadata"))
        }  # fmt: skip

    policy, binding = (found(*MODES["some namespaces"])[kind] for kind in kinds)
    assert policy["failurePolicy"] == "Fail"
    assert policy["matchConstraints"]["resourceRules"][0]["operations"] == ["CREATE", "UPDATE"]
    assert binding["validationActions"] == ["Deny"]
    assert binding["matchResources"]["namespaceSelector"]["matchExpressions"][0]["values"] == ["a", "b"]
    # 16 volumes, 4 pull secrets, a priority class, the user, the group: each question of its own, 28 at most in all.
    asked = [one for one in policy["validations"] if "authorizer" in one["expression"]]
    assert len(asked) == 23
    assert all(one["messageExpression"] and one["message"] for one in asked)
    assert "matchResources" not in found(*MODES["every namespace"])[kinds[1]]
    assert len(found(*MODES["every namespace"])[kinds[0]]["validations"]) == len(policy["validations"]) + 1
    assert found("--set", "admission.enabled=false") == {}


def test_each_list_and_map_of_metadata_is_bounded_for_all_but_our_own_accounts() -> None:
    (policy,) = [
        d["spec"] for d in template()
        if d["kind"] == "ValidatingAdmissionPolicy" and d["metadata"]["name"].endswith("-metadata")
    ]  # fmt: skip
    (rule,) = policy["matchConstraints"]["resourceRules"]
    assert rule["operations"] == ["CREATE", "UPDATE"]
    assert rule["resources"] == ["engineconns", "engineconns/status"]
    bounded = {one["message"].split()[0] for one in policy["validations"]}
    # All of ObjectMeta that an author writes and that has no bound of the API server's own.
    assert bounded == {f"metadata.{name}" for name in
                       ("labels", "annotations", "finalizers", "ownerReferences", "managedFields")}  # fmt: skip
    (condition,) = policy["matchConditions"]
    assert all(f":x-{part}'" in condition["expression"] for part in ("operator", "gateway"))


def test_volumes_are_no_more_than_the_policy_asks_for() -> None:
    crd = yaml.safe_load((ROOT / "crds/engineconns.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert spec["volumes"]["maxItems"] == 16


def policies(*arguments: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(d["metadata"]["namespace"], d["metadata"]["name"]): d["spec"]
            for d in template(*arguments) if d["kind"] == "NetworkPolicy"}  # fmt: skip


def test_the_gateways_metrics_have_a_port_of_their_own_that_leads_out_of_no_cluster() -> None:
    documents = template("--set", "gateway.service.type=LoadBalancer")
    services = {d["metadata"]["name"]: d["spec"] for d in documents if d["kind"] == "Service"}
    assert [port["port"] for port in services["x-gateway"]["ports"]] == [9102]
    assert [port["port"] for port in services["x-gateway-metrics"]["ports"]] == [9106]
    assert "type" not in services["x-gateway-metrics"]
    (container,) = [
        c for d in documents if d["kind"] == "Deployment" for c in d["spec"]["template"]["spec"]["containers"]
        if c["name"] == "gateway"
    ]  # fmt: skip
    assert {"name": "ECM_GATEWAY_METRICS_PORT", "value": "9106"} in container["env"]
    assert {"name": "gw-metrics", "containerPort": 9106} in container["ports"]


@pytest.mark.parametrize("mode", MODES)
def test_everything_names_its_namespace(mode: str) -> None:
    cluster_wide = {"Namespace", "ClusterRole", "ClusterRoleBinding", "EngineConnPlugin",
                    "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}  # fmt: skip
    for document in template(*MODES[mode]):
        assert (document["kind"] in cluster_wide) == ("namespace" not in document["metadata"]), document["metadata"]


@pytest.mark.parametrize("mode", MODES)
def test_a_private_issuer_is_configured_whole(mode: str) -> None:
    oidc = {"issuer": "https://login", "audience": "ecm", "caConfigMap": "company-ca", "tokenFile": "/run/token"}
    arguments = [part for name, value in oidc.items() for part in ("--set", f"auth.oidc.{name}={value}")]
    pods = [d["spec"]["template"]["spec"] for d in template(*MODES[mode], *arguments) if d["kind"] == "Deployment"]
    (pod,) = [pod for pod in pods if any(container["name"] == "gateway" for container in pod["containers"])]
    (gateway,) = [container for container in pod["containers"] if container["name"] == "gateway"]
    values = {one["name"]: one.get("value") for one in gateway["env"]}
    # The key is any file of 32 bytes: the settings must be whole.
    found = read_settings(
        {name: value for name, value in values.items() if name.startswith("ECM_OIDC")}
        | {"ECM_NAMESPACE": "ns", "ECM_TOKEN_KEY_FILE": str(ROOT / "README.md")}
    ).oidc
    assert found == OidcSettings(
        issuer="https://login", audience="ecm", ca_file="/etc/linkis-ecm/oidc/ca.crt", token_file="/run/token"
    )
    (mount,) = [one for one in gateway["volumeMounts"] if found.ca_file.startswith(one["mountPath"] + "/")]
    (volume,) = [one for one in pod["volumes"] if one["name"] == mount["name"]]
    assert volume["configMap"]["name"] == "company-ca"


def engine_policies(*arguments: str) -> list[dict[str, Any]]:
    return [spec for (_, name), spec in policies(*arguments).items() if name == "linkis-engines"]


@pytest.mark.parametrize("mode", MODES)
def test_engines_take_connections_from_operator_and_gateway_to_the_agent_alone(mode: str) -> None:
    found = engine_policies(*MODES[mode])
    assert found
    for policy in found:
        (rule,) = policy["ingress"]
        assert rule["ports"] == [{"port": AGENT_PORT, "protocol": "TCP"}]
        (peer,) = rule["from"]
        assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "ns"}}
        assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "x"


@pytest.mark.parametrize("mode", MODES)
def test_clients_of_processes_reach_the_port_that_the_plugin_names_and_no_other(mode: str) -> None:
    web = {"podSelector": {"matchLabels": {"app": "web"}}}
    outside = {"ipBlock": {"cidr": "10.1.0.0/16"}}
    found = engine_policies(*MODES[mode], "--set-json", f"engines.processClients={json.dumps([web, outside])}")
    assert found
    for policy in found:
        agents, processes = policy["ingress"]
        assert agents["ports"] == [{"port": AGENT_PORT, "protocol": "TCP"}]
        assert processes == {"from": [web, outside], "ports": [{"port": "engine", "protocol": "TCP"}]}
    # The name is that of a process's container port; a pod with an agent must not have it.
    process = Launch(kind="process", port=8443)
    assert container_ports(process) == [{"name": "engine", "containerPort": 8443}]
    assert "engine" not in [port["name"] for port in container_ports(AGENT)]


def test_without_the_policy_there_is_none() -> None:
    assert engine_policies("--set", "networkPolicy.enabled=false") == []


def test_the_database_password_stands_in_a_secret_only() -> None:
    for document in template(*MODES["with a database"]):
        if document["kind"] != "Secret":
            assert "u:p@db" not in yaml.safe_dump(document)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("databse.url=x", "databse"),
        ("database.url=sqlite:///x", "/database/url"),
        ("operator.replicas=0", "/operator/replicas"),
        ("engines.python.resources.memory=lots", "/engines/python/resources/memory"),
        ("auth.admins={a b}", "/auth/admins"),
        ("engineNamespaces[0].name=A", "/engineNamespaces/0/name"),
        ("watchNamespaces={a}", "watchNamespaces"),
        ("networkPolicy.egress[0].cidr=10.0.0.0", "/networkPolicy/egress/0/cidr"),
        ("networkPolicy.apiServer={1.2.3.4/33}", "/networkPolicy/apiServer/0"),
        ("networkPolicy.database.pods=x", "/networkPolicy/database"),
        ("auth.oidc.tokenFile=token", "/auth/oidc/tokenFile"),
        ("engines.processClients[0].pod=x", "/engines/processClients/0"),
    ],
)
def test_a_wrong_value_is_named(value: str, names: str) -> None:
    assert names in refusal("--set", value)

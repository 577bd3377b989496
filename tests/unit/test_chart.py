"""The Helm chart: it lints, its rendered form is current, and what it installs is restricted and asks for little."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from linkis_ecm.engine.launch import AGENT, container_ports
from linkis_ecm.engine.names import AGENT_PORT
from linkis_ecm.gateway.settings import OidcSettings, read_settings
from linkis_ecm.model.engineconn import Launch
from tools.cluster.tools import helm
from tools.render import render

ROOT = Path(__file__).parents[2]
CHART = str(ROOT / "helm/linkis-ecm")
MODES = {
    "embedded": [],
    "with a database": ["--set", "database.url=mysql+pymysql://u:p@db:3306/linkis", "--set", "operator.replicas=2"],
    "some namespaces": ["--set", "watchNamespaces={a,b}"],
}


def template(*arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [str(helm()), "template", "x", CHART, "--namespace", "ns", *arguments],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def refusal(*arguments: str) -> str:
    done = subprocess.run(
        [str(helm()), "template", "x", CHART, *arguments], capture_output=True, text=True, check=False, timeout=60
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
def test_no_role_has_a_wildcard_or_reads_secrets(mode: str) -> None:
    roles = [d for d in template(*MODES[mode]) if d["kind"] in ("Role", "ClusterRole")]
    assert roles
    for rule in (rule for role in roles for rule in role["rules"]):
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert not {"secrets", "pods/exec", "rolebindings"} & set(rule["resources"])


def test_named_namespaces_get_roles_of_their_own_and_no_cluster_wide_right_to_pods() -> None:
    documents = template(*MODES["some namespaces"])
    wide = [rule for d in documents if d["kind"] == "ClusterRole" for rule in d["rules"]]
    rights = {resource: rule["verbs"] for rule in wide for resource in rule["resources"]}
    assert rights == {"engineconnplugins": ["get", "list", "watch"], "nodes": ["get"], "namespaces": ["get"]}
    narrow = {d["metadata"]["namespace"] for d in documents if d["kind"] == "Role" and "namespace" in d["metadata"]}
    assert narrow == {"a", "b"}


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


def policies(*arguments: str) -> list[dict[str, Any]]:
    return [d["spec"] for d in template(*arguments) if d["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize("mode", MODES)
def test_engines_take_connections_from_operator_and_gateway_to_the_agent_alone(mode: str) -> None:
    found = policies(*MODES[mode])
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
    found = policies(*MODES[mode], "--set-json", f"engines.processClients={json.dumps([web, outside])}")
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
    assert policies("--set", "engines.networkPolicy=false") == []


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
        ("auth.oidc.tokenFile=token", "/auth/oidc/tokenFile"),
        ("engines.processClients[0].pod=x", "/engines/processClients/0"),
    ],
)
def test_a_wrong_value_is_named(value: str, names: str) -> None:
    assert names in refusal("--set", value)

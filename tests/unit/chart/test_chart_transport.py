"""The chart's way to the gateway: TLS by a Secret or by cert-manager, an Ingress, a route of the Gateway API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.gateway.settings import Settings
from tests.unit.chart.test_chart import MODES, policies, refusal, template

SECRET = ("--set", "tls.enabled=true,tls.secretName=ecm-tls")
ISSUED = ("--set", "tls.enabled=true,tls.certManager.enabled=true,tls.certManager.issuerRef.name=company")
TRANSPORT = {"Certificate", "Ingress", "HTTPRoute"}
NOWHERE = {"ECM_NAMESPACE": "ns", "ECM_TOKEN_KEY_FILE": str(Path(__file__))}


def gateway_of(documents: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The gateway's pod, its container, and the port of its Service."""
    (pod,) = [d["spec"]["template"]["spec"] for d in documents
              if d["kind"] == "Deployment" and d["metadata"]["name"] == "x-gateway"]  # fmt: skip
    (service,) = [d for d in documents if d["kind"] == "Service" and d["metadata"]["name"] == "x-gateway"]
    (container,), (port,) = pod["containers"], service["spec"]["ports"]
    return pod, container, port


def of_kind(kind: str, *arguments: str) -> dict[str, Any]:
    (found,) = [d for d in template(*arguments) if d["kind"] == kind]
    return found


def probes(container: dict[str, Any]) -> list[dict[str, Any]]:
    return [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]


def test_without_values_there_is_http_and_nothing_in_front() -> None:
    documents = template()
    pod, container, port = gateway_of(documents)
    assert not {d["kind"] for d in documents} & TRANSPORT
    assert port == {"name": "http", "port": 9102, "targetPort": "http", "appProtocol": "http"}
    assert all("scheme" not in probe for probe in probes(container))
    assert not [one for one in container["env"] if "TLS" in one["name"]]
    assert "tls" not in [volume["name"] for volume in pod["volumes"]]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("how", "secret"), [(SECRET, "ecm-tls"), (ISSUED, "x-gateway-tls")])
def test_with_tls_the_pair_is_mounted_probed_and_named_to_the_gateway(
    mode: str, how: tuple[str, ...], secret: str
) -> None:
    documents = template(*MODES[mode], *how, "--set", "tls.minVersion=1.3")
    pod, container, port = gateway_of(documents)
    assert port == {"name": "https", "port": 9102, "targetPort": "https", "appProtocol": "https"}
    assert container["ports"][0] == {"name": "https", "containerPort": 9102}
    assert all((probe["scheme"], probe["port"]) == ("HTTPS", "https") for probe in probes(container))
    (volume,) = [one for one in pod["volumes"] if one["name"] == "tls"]
    assert volume["secret"]["secretName"] == secret
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "tls"]
    assert mount["readOnly"] is True
    assert "subPath" not in mount, "the kubelet does not renew a file that is mounted by subPath"
    files = {f"{mount['mountPath']}/{item['path']}" for item in volume["secret"]["items"]}
    env = {one["name"]: one.get("value", "") for one in container["env"] if "ECM_TLS" in one["name"]}
    found = Settings.read(NOWHERE | env)
    assert {found.tls_cert_file, found.tls_key_file} == files
    assert found.tls_min_version == "1.3"
    operator = next(d for d in documents if d["kind"] == "Deployment" and d["metadata"]["name"] == "x-operator")
    pod = operator["spec"]["template"]["spec"]
    assert secret not in json.dumps(pod["volumes"]), "the operator has no part in it"
    (protected,) = [one["value"] for one in pod["containers"][0]["env"] if one["name"] == "ECM_PROTECTED_OBJECTS"]
    assert f"secret/{secret}" in protected.split(","), "no engine mounts it"


def test_cert_manager_is_asked_for_the_services_names_and_those_of_the_values() -> None:
    more = ("--set", "tls.certManager.issuerRef.kind=ClusterIssuer,tls.certManager.dnsNames={ecm.example.org}")
    certificate = of_kind("Certificate", *ISSUED, *more)
    assert (certificate["apiVersion"], certificate["metadata"]["namespace"]) == ("cert-manager.io/v1", "ns")
    spec = certificate["spec"]
    assert spec["issuerRef"] == {"name": "company", "kind": "ClusterIssuer"}
    assert (spec["duration"], spec["renewBefore"]) == ("2160h", "720h")
    assert spec["dnsNames"] == [
        "x-gateway", "x-gateway.ns", "x-gateway.ns.svc", "x-gateway.ns.svc.cluster.local", "ecm.example.org",
    ]  # fmt: skip
    assert spec["secretName"] == "x-gateway-tls"
    assert of_kind("Certificate", *ISSUED, "--set", "tls.secretName=mine")["spec"]["secretName"] == "mine"
    assert not [d for d in template(*SECRET) if d["kind"] == "Certificate"]


@pytest.mark.parametrize("how", [(), SECRET])
def test_an_ingress_leads_each_host_to_the_gateways_port(how: tuple[str, ...]) -> None:
    values = {
        "enabled": True, "className": "nginx", "annotations": {"a.example.org/timeout": "3600"},
        "hosts": ["ecm.example.org", "*.ecm.example.org"],
        "tls": [{"hosts": ["ecm.example.org"], "secretName": "front"}],
    }  # fmt: skip
    arguments = (*how, "--set-json", f"ingress={json.dumps(values)}")
    ingress = of_kind("Ingress", *arguments)
    _, _, port = gateway_of(template(*arguments))
    assert ingress["metadata"]["annotations"] == values["annotations"]
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert ingress["spec"]["tls"] == values["tls"]
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == values["hosts"]
    for rule in ingress["spec"]["rules"]:
        (path,) = rule["http"]["paths"]
        assert (path["path"], path["pathType"]) == ("/", "Prefix")
        assert path["backend"]["service"] == {"name": "x-gateway", "port": {"number": port["port"]}}
    bare = of_kind("Ingress", "--set", "ingress.enabled=true,ingress.hosts={ecm.example.org}")
    assert set(bare["spec"]) == {"rules"}
    assert "annotations" not in bare["metadata"]


def test_a_route_of_the_gateway_api_leads_to_the_gateways_port() -> None:
    parent = {"name": "public", "namespace": "gateways", "sectionName": "https"}
    values = {"enabled": True, "parentRefs": [parent], "hostnames": ["ecm.example.org"]}
    route = of_kind("HTTPRoute", "--set-json", f"gatewayAPI={json.dumps(values)}")
    assert (route["apiVersion"], route["metadata"]["namespace"]) == ("gateway.networking.k8s.io/v1", "ns")
    (rule,) = route["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": "x-gateway", "port": 9102}]
    assert (route["spec"]["parentRefs"], route["spec"]["hostnames"]) == ([parent], ["ecm.example.org"])
    bare = of_kind("HTTPRoute", "--set-json", f"gatewayAPI={json.dumps({'enabled': True, 'parentRefs': [parent]})}")
    assert set(bare["spec"]) == {"parentRefs", "rules"}


def test_a_controller_on_the_nodes_network_is_let_in_beside_the_default_or_the_list() -> None:
    nodes = {"ipBlock": {"cidr": "10.0.0.0/24"}}
    pods = {"podSelector": {"matchLabels": {"app": "web"}}}
    controller = ("--set-json", f"networkPolicy.ingressControllerFrom={json.dumps([nodes])}")
    (rule,) = policies(*controller)["ns", "x-gateway"]["ingress"]
    assert [sorted(peer) for peer in rule["from"]] == [["namespaceSelector"], ["ipBlock"]]
    listed = ("--set-json", f"networkPolicy.gatewayFrom={json.dumps([pods])}")
    (rule,) = policies(*controller, *listed, *SECRET)["ns", "x-gateway"]["ingress"]
    assert rule == {"from": [pods, nodes], "ports": [{"port": 9102, "protocol": "TCP"}]}


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("tls.enabled=true", "set tls.secretName to a Secret of type kubernetes.io/tls, or tls.certManager.enabled"),
        ("tls.certManager.enabled=true,tls.certManager.issuerRef.name=a", "without tls.enabled: set both"),
        ("tls.enabled=true,tls.certManager.enabled=true", "tls.certManager.issuerRef has no name"),
        ("tls.minVersion=1", "/tls/minVersion"),
        ("tls.secretName=A_b", "/tls/secretName"),
        ("tls.certManager.duration=long", "/tls/certManager/duration"),
        ("ingress.enabled=true", "ingress.enabled without ingress.hosts"),
        ("ingress.hosts={https://x}", "/ingress/hosts/0"),
        ("ingress.host=x", "/ingress"),
        ("gatewayAPI.enabled=true", "gatewayAPI.enabled without gatewayAPI.parentRefs"),
        ("gatewayAPI.parentRefs[0].namespace=x", "/gatewayAPI/parentRefs/0"),
        ("networkPolicy.ingressControllerFrom[0].pod=x", "/networkPolicy/ingressControllerFrom/0"),
    ],
)
def test_a_wrong_value_is_named(value: str, names: str) -> None:
    assert names in refusal("--set", value)


def test_proxies_are_named_to_the_gateway_and_by_default_there_are_none() -> None:
    names = {"ECM_TRUSTED_PROXIES", "ECM_FORWARDED_HEADER", "ECM_AUTH_SERVICE_ACCOUNTS_ONLY"}
    assert not names & {one["name"] for one in gateway_of(template())[1]["env"]}
    asked = "gateway.trustedProxies={10.244.0.0/16,fd00::/8},gateway.forwardedHeader=Forwarded"
    kubernetes = "auth.kubernetes.enabled=true,auth.kubernetes.serviceAccountsOnly=true"
    _, container, _ = gateway_of(template("--set", asked, "--set", kubernetes))
    given = {one["name"]: one["value"] for one in container["env"] if one["name"] in names}
    found = Settings.read(NOWHERE | given)
    assert [str(network) for network in found.trusted_proxies] == ["10.244.0.0/16", "fd00::/8"]
    assert (found.forwarded_header, found.kubernetes_service_accounts_only) == ("FORWARDED", True)


@pytest.mark.parametrize("value", ["{ingress}", "{10.0.0.0/33}", "10.0.0.0/8"])
def test_what_is_no_network_is_no_proxy(value: str) -> None:
    assert "trustedProxies" in refusal("--set", f"gateway.trustedProxies={value}")

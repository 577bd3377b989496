"""The chart's network policies: what reaches operator, gateway, engines and database, and what these reach."""

from __future__ import annotations

import ipaddress
import json
import random
from typing import Any

import pytest

from linkis_ecm.engine.names import AGENT_PORT, POD_SELECTOR
from tests.unit.chart.test_chart import MODES, policies, refusal, template


def with_policy(**values: Any) -> tuple[str, ...]:
    return ("--set-json", f"networkPolicy={json.dumps(values)}")


def ports_of(rule: dict[str, Any]) -> list[Any]:
    return [port["port"] for port in rule.get("ports", [])]


def test_each_engines_namespace_has_its_policies_and_a_made_one_denies_the_rest() -> None:
    found = policies(*MODES["some namespaces"])
    assert set(found) == {
        ("a", "x-default-deny"), ("a", "linkis-engines"), ("b", "linkis-engines"),
        ("ns", "x-operator"), ("ns", "x-gateway"),
    }  # fmt: skip
    assert found["a", "x-default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert all(policy["policyTypes"] == ["Ingress", "Egress"] for policy in found.values())
    assert policies(*MODES["some namespaces"], "--set", "networkPolicy.enabled=false") == {}


def test_only_operator_and_gateway_reach_an_engine_and_it_reaches_names_and_reports() -> None:
    policy = policies()["x-engines", "linkis-engines"]
    assert policy["podSelector"]["matchLabels"] == dict(part.split("=") for part in POD_SELECTOR.split(","))
    (rule,) = policy["ingress"]
    (peer,) = rule["from"]
    pods = {d["metadata"]["name"]: d["spec"]["template"]["metadata"]["labels"] for d in template()
            if d["kind"] == "Deployment"}  # fmt: skip
    assert all(peer["podSelector"]["matchLabels"].items() <= labels.items() for labels in pods.values())
    dns, reports = policy["egress"]
    assert ports_of(dns) == [53, 53]
    assert ports_of(reports) == [9103]
    (operator,) = reports["to"]
    assert operator["namespaceSelector"] == peer["namespaceSelector"]
    assert operator["podSelector"]["matchLabels"].items() <= pods["x-operator"].items()
    assert not operator["podSelector"]["matchLabels"].items() <= pods["x-gateway"].items()


def test_engines_reach_what_the_platform_lists_but_never_metadata_and_the_api_server() -> None:
    https = [{"port": 443, "protocol": "TCP"}]
    listed = [
        {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"], "ports": https}, {"cidr": "10.1.0.0/16"},
        {"cidr": "192.168.7.0/24"}, {"cidr": "::/0"}, {"cidr": "fd00::/8"}, {"cidr": "fd01::/16"},
    ]  # fmt: skip
    policy = policies(*with_policy(egress=listed, apiServer=["10.1.2.3/32", "192.168.0.1/32"]))
    rules = policy["x-engines", "linkis-engines"]["egress"][2:]
    blocks = [rule["to"][0]["ipBlock"] for rule in rules]
    metadata = ["169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32"]
    metadata_of_ipv6 = ["fd00:ec2::254/128", "fd20:ce::254/128"]
    assert blocks == [
        {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", *metadata, "10.1.2.3/32", "192.168.0.1/32"]},
        {"cidr": "10.1.0.0/16", "except": ["10.1.2.3/32"]},
        {"cidr": "192.168.7.0/24"},
        {"cidr": "::/0", "except": ["fe80::/10", *metadata_of_ipv6]},
        {"cidr": "fd00::/8", "except": metadata_of_ipv6},
        {"cidr": "fd01::/16"},
    ]
    assert (rules[0]["ports"], "ports" in rules[1]) == (https, False)


@pytest.mark.parametrize(
    "cidr",
    [
        "169.254.169.254/32", "169.254.0.0/16", "fe80::1/128", "10.1.2.0/24", "10.1.2.3/32", "168.63.129.16/32",
        "fd00:ec2::254/128", "fd00:0ec2::254/128", "FD00:EC2::254/128", "fd00:ec2:0:0:0:0:0:254/128", "FEBF::/16",
    ],
)  # fmt: skip
def test_an_entry_inside_of_what_engines_never_reach_is_refused(cidr: str) -> None:
    says = refusal(*with_policy(egress=[{"cidr": cidr}], apiServer=["10.1.0.0/16"]))
    assert f"networkPolicy.egress has {cidr}" in says


@pytest.mark.parametrize(
    ("cidr", "left_out"),
    [
        ("::0/0", ["fe80::/10", "fd00:ec2::254/128", "fd20:ce::254/128", "2001:db8:0:1::5/128", "64:FF9B::1/128"]),
        (
            "0:0:0:0:0:0:0:0/0",
            ["fe80::/10", "fd00:ec2::254/128", "fd20:ce::254/128", "2001:db8:0:1::5/128", "64:FF9B::1/128"],
        ),
        ("2000::/3", ["2001:db8:0:1::5/128"]),
        ("8000::/1", ["fe80::/10", "fd00:ec2::254/128", "fd20:ce::254/128"]),
        ("FE00::/7", ["fe80::/10"]),
        ("2001:db8::/32", ["2001:db8:0:1::5/128"]),
        ("2001:0DB8:0000:0001::/64", ["2001:db8:0:1::5/128"]),
        ("2001:db8:0:2::/64", []),
        ("fd00:ec2::/32", ["fd00:ec2::254/128"]),
        ("fd00:ec2:0:0::/64", ["fd00:ec2::254/128"]),
        ("fd20::/16", ["fd20:ce::254/128"]),
        ("64:ff9b::/127", ["64:FF9B::1/128"]),
        ("64:ff9b::2/127", []),
        ("128.0.0.0/1", ["169.254.0.0/16", "168.63.129.16/32", "192.0.0.192/32"]),
    ],
)  # fmt: skip
def test_every_way_to_write_a_network_leaves_out_what_lies_in_it(cidr: str, left_out: list[str]) -> None:
    servers = ["2001:db8:0:1::5/128", "64:FF9B::1/128"]
    policy = policies(*with_policy(egress=[{"cidr": cidr}], apiServer=servers))["x-engines", "linkis-engines"]
    assert policy["egress"][2]["to"][0]["ipBlock"].get("except", []) == left_out


def test_networks_are_compared_as_pythons_ipaddress_does() -> None:
    """200 pairs near the servers and the metadata services, in four ways to write an address."""
    rng = random.Random(12)
    near = [ipaddress.IPv6Address(text) for text in ("fd00:ec2::254", "fe80::1", "2001:db8:0:1::5", "fd20:ce::254")]
    never = [
        ipaddress.ip_network(text)
        for text in ("fe80::/10", "fd00:ec2::254/128", "fd20:ce::254/128", "2001:db8:0:1::5/128")
    ]
    listed: dict[str, ipaddress.IPv6Network] = {}
    while len(listed) < 50:
        address = ipaddress.IPv6Address(int(rng.choice(near)) ^ (rng.getrandbits(1) << rng.randrange(128)))
        network = ipaddress.IPv6Network((address, rng.randrange(129)), strict=False)
        if any(network.subnet_of(one) for one in never):
            continue
        text = rng.choice([str, lambda a: a.exploded, lambda a: str(a).upper(), lambda a: a.exploded.upper()])(
            network.network_address
        )
        listed[f"{text}/{network.prefixlen}"] = network
    policy = policies(*with_policy(egress=[{"cidr": cidr} for cidr in listed], apiServer=["2001:db8:0:1::5/128"]))
    blocks = [rule["to"][0]["ipBlock"] for rule in policy["x-engines", "linkis-engines"]["egress"][2:]]
    for block, network in zip(blocks, listed.values(), strict=True):
        assert block.get("except", []) == [str(one) for one in never if one.subnet_of(network)], block


@pytest.mark.parametrize(
    "values",
    [
        {"egress": [{"cidr": "999.1.1.1/8"}]}, {"egress": [{"cidr": "10.1.1/8"}]}, {"egress": [{"cidr": "1.2.3.4"}]},
        {"egress": [{"cidr": "010.1.2.3/8"}]}, {"egress": [{"cidr": "::/129"}]}, {"egress": [{"cidr": "1::2::3/64"}]},
        {"egress": [{"cidr": ":::/0"}]}, {"egress": [{"cidr": "1:2:3/48"}]}, {"egress": [{"cidr": "12345::/16"}]},
        {"egress": [{"cidr": "1:2:3:4:5:6:7:8:9/64"}]}, {"egress": [{"cidr": "::ffff:169.254.169.254/128"}]},
        {"egress": [{"cidr": "1:2:3:4:5:6:7::8/64"}]}, {"egress": [{"cidr": "fe80::1%eth0/128"}]},
        {"egress": [{"cidr": "::/0", "except": ["300.0.0.0/8"]}]}, {"apiServer": ["10.0.0.256/32"]},
        {"egress": [{"cidr": "10.0.0.0/8", "ports": [{"proto": "TCP", "port": 443}]}]},
        {"egress": [{"cidr": "10.0.0.0/8", "ports": [{"protocol": "tcp", "port": 443}]}]},
        {"egress": [{"cidr": "10.0.0.0/8", "ports": [{"port": 70000}]}]},
        {"operatorEgress": [{"port": [{"port": 443}]}]}, {"gatewayEgress": [{"ports": [{"proto": "TCP"}]}]},
        {"gatewayFrom": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}, {"metricsFrom": [{"ipBlock": {"cidrs": "::/0"}}]},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_what_is_no_network_or_no_port_is_refused(values: dict[str, Any]) -> None:
    assert "networkPolicy" in refusal(*with_policy(**values))


def test_operator_and_gateway_take_from_and_reach_what_they_need() -> None:
    found = policies(*MODES["with a database"])
    operator, gateway = found["ns", "x-operator"], found["ns", "x-gateway"]
    assert [ports_of(rule) for rule in operator["ingress"]] == [[9103]]
    assert [ports_of(rule) for rule in gateway["ingress"]] == [[9102]]
    (anybody,) = gateway["ingress"][0]["from"]
    (but,) = anybody["namespaceSelector"]["matchExpressions"]
    assert (but["operator"], but["values"]) == ("NotIn", ["x-engines"])
    for policy in (operator, gateway):
        assert [ports_of(rule) for rule in policy["egress"]] == [[53, 53], [443, 6443], [3306], [AGENT_PORT]]
    tight = policies(
        *with_policy(
            apiServer=["10.0.0.1/32"], gatewayFrom=[{"podSelector": {}}], metricsFrom=[{"namespaceSelector": {}}],
            operatorEgress=[{"ports": [{"port": 9000}]}],
        )
    )  # fmt: skip
    operator, gateway = tight["ns", "x-operator"], tight["ns", "x-gateway"]
    assert [ports_of(rule) for rule in operator["ingress"]] == [[9103], [9104]]
    assert gateway["ingress"][0]["from"] == [{"podSelector": {}}]
    assert gateway["ingress"][1:] == [
        {"from": [{"namespaceSelector": {}}], "ports": [{"port": 9106, "protocol": "TCP"}]}
    ]
    assert [ports_of(rule) for rule in operator["egress"]] == [[53, 53], [], [AGENT_PORT], [9000]]
    assert operator["egress"][1]["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]
    other = policies("--set", "database.url=mysql+pymysql://u:p%40x@db:3307/linkis")["ns", "x-operator"]
    assert [3307] in [ports_of(rule) for rule in other["egress"]]


def test_the_databases_pods_take_from_operator_gateway_and_whom_the_platform_names() -> None:
    pods, backup = {"matchLabels": {"app": "mariadb"}}, {"podSelector": {"matchLabels": {"app": "backup"}}}
    database = {"podSelector": pods, "namespace": "data", "from": [backup]}
    found = policies(*MODES["with a database"], *with_policy(database=database))
    policy = found["data", "x-database"]
    assert (policy["podSelector"], policy["policyTypes"]) == (pods, ["Ingress"])
    ours, others = policy["ingress"]
    assert (ports_of(ours), others) == ([3306], {"from": [backup]})
    (peer,) = ours["from"]
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "ns"}}
    for part in ("x-operator", "x-gateway"):
        (rule,) = [rule for rule in found["ns", part]["egress"] if ports_of(rule) == [3306]]
        (peer,) = rule["to"]
        assert peer == {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "data"}},
            "podSelector": pods,
        }
    assert ("ns", "x-database") in policies(*with_policy(database={"podSelector": pods}))


def test_the_engines_policies_outlive_the_release_and_the_parts_own_do_not() -> None:
    """Engines outlive both a `helm uninstall` and their namespace's place in engineNamespaces."""
    found = {
        (d["metadata"]["namespace"], d["metadata"]["name"]): d["metadata"].get("annotations", {})
        for d in template("--set-json", 'engineNamespaces=[{"name": "a"}, {"name": "b", "create": false}]')
        if d["kind"] == "NetworkPolicy"
    }
    kept = {where for where, notes in found.items() if notes.get("helm.sh/resource-policy") == "keep"}
    assert kept == {where for where in found if where[0] in ("a", "b")}
    assert {name for space, name in kept if space == "a"} >= {"x-default-deny"}
    assert {space for space, _ in kept} == {"a", "b"}

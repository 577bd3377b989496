"""The chart's network policies on a network that enforces them: attacks from engines' and from strangers' pods.

Each attack has its counterpart that passes: from somewhere else where the target must be shown to listen, or from the
same place where the policy lets through. A forbidden connection is "silent"; see netprobe.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from e2e.shared import netprobe
from e2e.shared.netprobe import Target, from_engine, from_pod, idle, server
from e2e.shared.release import DATABASE_LABELS, FREE, LISTED, LISTED_PORT, SCRAPER, upgrade
from linkis_ecm.engine.names import AGENT_PORT
from tools.cluster import tools
from tools.cluster.layout import API_PORT, DNS_ADDRESS, NODE_ADDRESS, SERVICE_ADDRESS
from tools.cluster.paths import namespace as node_namespace
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import RELEASE, Installation
from tools.testkit.cluster.waiting import (
    NAMESPACE,
    RELEASE_NAMESPACE,
    gateway_pods,
    is_ready,
    operator_pods,
    pods,
    until,
    until_holds,
)
from tools.testkit.gateway.client import Gateway

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.skipif(tools.backend() != "node", reason="its targets are addresses of the node built from source"),
]
METADATA = "169.254.169.254"  # a cloud's metadata service
OTHER_PORT, ECHO_PORT = 8081, 8082
KUBELET_PORT, REPORTS, OPERATOR_METRICS, API, GATEWAY_METRICS, DATABASE = 10250, 9103, 9104, 9102, 9106, 3306
ENGINE_LABELS = {"app.kubernetes.io/managed-by": "linkis-ecm", "app.kubernetes.io/component": "engine"}
OPERATOR_LABELS = {
    "app.kubernetes.io/name": "linkis-ecm", "app.kubernetes.io/instance": RELEASE,
    "app.kubernetes.io/component": "operator",
}  # fmt: skip
# Beside the place that the release lists.
EVERYWHERE = ("networkPolicy.egress[1].cidr=0.0.0.0/0",)


@dataclass(frozen=True)
class Scene:
    """Two engines, the parts' addresses, and strangers."""

    tickets: tuple[str, str]
    agents: tuple[str, str]
    # The second engine by its host name and by its link-local address.
    neighbour_name: str
    neighbour_link: str
    operator: str
    gateway: str
    database: str
    # (namespace, name) to address.
    strangers: dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def outside(installation: Installation) -> Iterator[None]:
    """A metadata service and a server somewhere outside, in the node's network."""
    ip = ["ip", "-n", node_namespace(), "address"]
    ports = [f"tcp,{METADATA},80", f"tcp,{LISTED},{LISTED_PORT}", f"tcp,{LISTED},{OTHER_PORT}"]
    command = tools.in_cluster_network([sys.executable, "-c", netprobe.SERVE, *ports, f"udp,{LISTED},{ECHO_PORT}"])
    for address in (METADATA, LISTED):
        subprocess.run([*ip, "replace", f"{address}/32", "dev", "lo"], check=True, timeout=10)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "serving\n"
            yield
        finally:
            process.kill()
            for address in (METADATA, LISTED):
                subprocess.run([*ip, "delete", f"{address}/32", "dev", "lo"], check=False, timeout=10)


@pytest.fixture(scope="module")
def scene(installation: Installation, outside: None) -> Iterator[Scene]:
    kubectl.run("delete", "namespace", FREE, "--ignore-not-found", "--timeout=90s")
    kubectl.must("create", "namespace", FREE)
    everybody = (NAMESPACE, FREE, RELEASE_NAMESPACE)
    made = [
        *(idle(namespace, "stranger") for namespace in everybody),
        *(idle(namespace, "scraper", SCRAPER) for namespace in everybody),
        # Somebody who may make pods in a namespace of his own gives them whatever labels he likes.
        idle(FREE, "as-engine", ENGINE_LABELS),
        idle(FREE, "as-operator", OPERATOR_LABELS),
        # What the address of an engine that ended may lead to.
        server(NAMESPACE, "heir", AGENT_PORT),
        server(FREE, "heir", AGENT_PORT, labels=ENGINE_LABELS),
        server(RELEASE_NAMESPACE, "database", DATABASE, labels=DATABASE_LABELS),
    ]
    names: list[str] = []
    try:
        with installation.forward() as port, Gateway("127.0.0.1", port, installation.token) as gateway:
            engines = [gateway.create().data for _ in range(2)]
            tickets = [engine["ticketId"] for engine in engines]
            names += [engine["name"] for engine in engines]
            strangers = netprobe.start(*made)
            found = [pods(name)[0] for name in names]
            victim = found[1]["metadata"]["name"]
            links = kubectl.must("exec", "-n", NAMESPACE, victim, "--", "cat", "/proc/net/if_inet6").splitlines()
            (link,) = [line.split()[0] for line in links if line.split()[5] == "eth0"]
            halves = [link[at : at + 4] for at in range(0, 32, 4)]
            yield Scene(
                tickets=(tickets[0], tickets[1]),
                agents=(found[0]["status"]["podIP"], found[1]["status"]["podIP"]),
                neighbour_name=gateway.status(tickets[1]).data["serviceInstance"].rpartition(":")[0],
                neighbour_link=f"{':'.join(halves)}%eth0",
                operator=operator_pods()[0]["status"]["podIP"],
                gateway=gateway_pods()[0]["status"]["podIP"],
                database=strangers[RELEASE_NAMESPACE, "database"],
                strangers=strangers,
            )
    finally:
        kubectl.run("delete", "ec", *names, "-n", NAMESPACE, "--ignore-not-found", "--timeout=60s")
        for pod in made:
            meta = pod["metadata"]
            kubectl.run("delete", "pod", meta["name"], "-n", meta["namespace"], "--ignore-not-found", "--wait=false")
        kubectl.run("delete", "namespace", FREE, "--wait=false")


def all_of(targets: list[Target], result: str) -> dict[Target, str]:
    return dict.fromkeys(targets, result)


def services() -> list[Target]:
    """What is nobody's business in an engine, by each address that it has."""
    return [
        ("tcp", SERVICE_ADDRESS, 443),
        ("mapped", SERVICE_ADDRESS, 443),
        ("tcp", "kubernetes.default.svc.cluster.local", 443),
        ("tcp", NODE_ADDRESS, API_PORT),
        ("mapped", NODE_ADDRESS, API_PORT),
        ("tcp", NODE_ADDRESS, KUBELET_PORT),
        ("tcp", METADATA, 80),
        ("mapped", METADATA, 80),
    ]


def elsewhere() -> list[Target]:
    """What the platform did not list: another port, UDP, and UDP that looks like an answer of DNS."""
    return [("tcp", LISTED, OTHER_PORT), ("udp", LISTED, ECHO_PORT), ("udp-from-53", LISTED, ECHO_PORT)]


def parts(scene: Scene) -> list[Target]:
    """Of operator, gateway and database all but the reports, by pod and by Service."""
    release = f"{RELEASE_NAMESPACE}.svc.cluster.local"
    return [
        ("tcp", scene.operator, OPERATOR_METRICS),
        ("tcp", f"{RELEASE}-operator.{release}", OPERATOR_METRICS),
        ("tcp", scene.gateway, API),
        ("tcp", f"{RELEASE}-gateway.{release}", API),
        ("tcp", scene.gateway, GATEWAY_METRICS),
        ("tcp", f"{RELEASE}-gateway-metrics.{release}", GATEWAY_METRICS),
        ("tcp", scene.database, DATABASE),
    ]


def neighbours(scene: Scene) -> list[Target]:
    """The other engine's agent, by each name and address."""
    return [
        ("tcp", scene.agents[1], AGENT_PORT),
        ("mapped", scene.agents[1], AGENT_PORT),
        ("tcp", scene.neighbour_name, AGENT_PORT),
        ("tcp", scene.neighbour_link, AGENT_PORT),
    ]


def test_an_engine_reaches_names_reports_and_what_the_platform_listed(scene: Scene, gateway: Gateway) -> None:
    allowed: list[Target] = [
        ("name", "kubernetes.default.svc.cluster.local", 443),
        ("tcp", DNS_ADDRESS, 53),
        ("tcp", f"{RELEASE}-operator.{RELEASE_NAMESPACE}.svc.cluster.local", REPORTS),
        ("tcp", scene.operator, REPORTS),
        ("mapped", scene.operator, REPORTS),
        ("tcp", LISTED, LISTED_PORT),
    ]
    assert from_engine(gateway, scene.tickets[0], allowed) == all_of(allowed, "open")
    assert from_engine(gateway, scene.tickets[0], elsewhere()) == all_of(elsewhere(), "silent")
    assert from_pod(FREE, "stranger", elsewhere()) == all_of(elsewhere(), "open")


def test_an_engine_reaches_no_api_server_metadata_or_kubelet(scene: Scene, gateway: Gateway) -> None:
    assert from_pod(FREE, "stranger", services()) == all_of(services(), "open")
    assert from_engine(gateway, scene.tickets[0], services()) == all_of(services(), "silent")


def test_an_engine_reaches_no_other_engine_and_nothing_else_of_the_release(scene: Scene, gateway: Gateway) -> None:
    forbidden = neighbours(scene) + parts(scene)
    forbidden += [("tcp", address, AGENT_PORT) for (_, name), address in scene.strangers.items() if name == "heir"]
    assert from_engine(gateway, scene.tickets[0], forbidden) == all_of(forbidden, "silent")
    # Its own agent it has anyway, and the other's listens: the gateway has just made both.
    own: list[Target] = [("tcp", "127.0.0.1", AGENT_PORT)]
    assert from_engine(gateway, scene.tickets[1], own) == all_of(own, "open")


@pytest.mark.parametrize("namespace", [NAMESPACE, FREE, RELEASE_NAMESPACE])
def test_a_stranger_reaches_the_gateway_at_most(scene: Scene, namespace: str) -> None:
    api = [target for target in parts(scene) if target[2] == API]
    rest = [target for target in parts(scene) if target[2] != API]
    rest += [*neighbours(scene), ("tcp", scene.operator, REPORTS), ("tcp", scene.agents[0], AGENT_PORT)]
    found = from_pod(namespace, "stranger", api + rest)
    assert found == all_of(api, "silent" if namespace == NAMESPACE else "open") | all_of(rest, "silent")


def test_a_stranger_beside_the_engines_reaches_nothing_at_all(scene: Scene) -> None:
    forbidden: list[Target] = [
        *services(), *elsewhere(), ("tcp", LISTED, LISTED_PORT), ("tcp", DNS_ADDRESS, 53),
        ("name", "kubernetes.default.svc.cluster.local", 443),
    ]  # fmt: skip
    assert from_pod(NAMESPACE, "stranger", forbidden) == all_of(forbidden, "silent")


def test_labels_alone_open_nothing(scene: Scene) -> None:
    reports: list[Target] = [("tcp", scene.operator, REPORTS)]
    agents: list[Target] = [("tcp", address, AGENT_PORT) for address in scene.agents]
    database: list[Target] = [("tcp", scene.database, DATABASE)]
    assert from_pod(FREE, "as-engine", reports) == all_of(reports, "silent")
    assert from_pod(FREE, "as-operator", agents + database) == all_of(agents + database, "silent")


def test_metrics_are_for_whom_the_values_name(scene: Scene, gateway: Gateway) -> None:
    metrics: list[Target] = [
        ("get /metrics", scene.operator, OPERATOR_METRICS),
        ("get /metrics", scene.gateway, GATEWAY_METRICS),
        ("get /metrics", f"{RELEASE}-gateway-metrics.{RELEASE_NAMESPACE}.svc.cluster.local", GATEWAY_METRICS),
    ]
    assert from_pod(FREE, "scraper", metrics) == all_of(metrics, "200")
    for namespace, pod in ((FREE, "stranger"), (RELEASE_NAMESPACE, "scraper")):
        assert from_pod(namespace, pod, metrics) == all_of(metrics, "silent"), (namespace, pod)
    # Beside the engines no name resolves for a stranger.
    assert from_pod(NAMESPACE, "scraper", metrics[:2]) == all_of(metrics[:2], "silent")
    assert from_engine(gateway, scene.tickets[0], metrics) == all_of(metrics, "silent")
    # Whoever reaches the gateway finds no metrics on that port.
    there: list[Target] = [("get /metrics", scene.gateway, API), ("get /healthz", scene.gateway, API)]
    assert from_pod(FREE, "stranger", there) == dict(zip(there, ("404", "200"), strict=True))


@pytest.mark.parametrize("part", ["operator", "gateway"])
def test_operator_and_gateway_reach_agents_and_nothing_that_took_an_agents_address(scene: Scene, part: str) -> None:
    (pod,) = operator_pods() if part == "operator" else gateway_pods()
    allowed: list[Target] = [("tcp", address, AGENT_PORT) for address in scene.agents]
    allowed += [("tcp", scene.database, DATABASE), ("tcp", SERVICE_ADDRESS, 443)]
    heirs: list[Target] = [("tcp", address, AGENT_PORT) for (_, n), address in scene.strangers.items() if n == "heir"]
    forbidden: list[Target] = [*heirs, ("tcp", METADATA, 80), ("tcp", LISTED, OTHER_PORT)]
    found = from_pod(RELEASE_NAMESPACE, pod["metadata"]["name"], allowed + forbidden, container=part)
    assert found == all_of(allowed, "open") | all_of(forbidden, "silent")
    # The one in a namespace without policies listens.
    free: list[Target] = [("tcp", scene.strangers[FREE, "heir"], AGENT_PORT)]
    assert from_pod(FREE, "stranger", free) == all_of(free, "open")


def test_probes_pass_though_nobody_else_reaches_their_ports(scene: Scene) -> None:
    for found in (operator_pods(), gateway_pods()):
        (pod,) = found
        assert is_ready(pod)
        assert [status["restartCount"] for status in pod["status"]["containerStatuses"]] == [0]


# Tries from its first moment on, each for 0.2 s, and says how often it got through.
AT_ONCE = """
began, through = time.monotonic(), {targets}
counts = [0] * len(through)
while time.monotonic() < began + 4:
    for number, target in enumerate(through):
        counts[number] += attempt(*target, seconds=0.2) == "open"
print(json.dumps(counts), flush=True)
print(json.dumps(attempts([["name", "kubernetes.default.svc.cluster.local", 443]])), flush=True)
time.sleep(600)
"""


def test_policies_count_before_a_pods_first_packet(scene: Scene) -> None:
    targets = [("tcp", SERVICE_ADDRESS, 443), ("tcp", METADATA, 80), ("tcp", scene.agents[0], AGENT_PORT)]
    code = netprobe.CODE + AT_ONCE.format(targets=targets)
    name = f"at-once-{uuid.uuid4().hex[:6]}"
    plugin = {
        "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConnPlugin", "metadata": {"name": name},
        "spec": {
            "engineType": "e2e_at_once", "engineVersion": name.rpartition("-")[2], "image": tools.images()["ecm"],
            "imagePullPolicy": "IfNotPresent", "command": ["python3", "-u", "-c"], "args": [code],
            "launch": {"kind": "process", "port": 8080},
            "defaultResources": {"cpu": "50m", "memory": "64Mi"}, "startTimeout": "5m",
        },
    }  # fmt: skip
    engine = {
        "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"engineType": "e2e_at_once", "engineVersion": name.rpartition("-")[2], "user": "hadoop"},
    }  # fmt: skip
    free = netprobe.pod(FREE, name, "python3", "-u", "-c", code)
    try:
        for body in (plugin, engine, free):
            kubectl.must("create", "-f", "-", stdin=json.dumps(body))
        (pod,) = until("the engine has a pod", lambda: pods(name))
        reached, _ = said(FREE, name)
        assert reached[0], reached
        assert reached[1], reached
        counts, names = said(NAMESPACE, pod["metadata"]["name"])
        assert counts == [0, 0, 0]
        assert names == ["open"], "and what is allowed passes"
    finally:
        kubectl.run("delete", "ec", name, "-n", NAMESPACE, "--ignore-not-found", "--wait=false")
        kubectl.run("delete", "engineconnplugin", name, "--ignore-not-found", "--wait=false")
        kubectl.run("delete", "pod", name, "-n", FREE, "--ignore-not-found", "--wait=false")


def said(namespace: str, pod: str) -> list[Any]:
    """The two lines that the pod prints."""

    def lines() -> list[str]:
        return kubectl.run("logs", "-n", namespace, pod).out.splitlines()

    found = until_holds(f"what {namespace}/{pod} says", lines, lambda seen: len(seen) >= 2)
    return [json.loads(line) for line in found[:2]]


def test_policies_are_older_than_the_pods_that_they_are_for(scene: Scene) -> None:
    for namespace in (NAMESPACE, RELEASE_NAMESPACE):
        policies = kubectl.get("networkpolicies", "-n", namespace)["items"]
        named = {policy["metadata"]["name"] for policy in policies}
        assert named >= (
            {f"{RELEASE}-default-deny", "linkis-engines"} if namespace == NAMESPACE
            else {f"{RELEASE}-operator", f"{RELEASE}-gateway"}
        )  # fmt: skip
    (policy,) = [p for p in kubectl.get("networkpolicies", "-n", NAMESPACE)["items"]
                 if p["metadata"]["name"] == "linkis-engines"]  # fmt: skip
    # Not of each pod there: an engine may have outlived another installation, whose policies went with it.
    mine = [pod for pod in kubectl.get("pods", "-n", NAMESPACE)["items"] if pod["status"].get("podIP") in scene.agents]
    assert len(mine) == len(scene.agents)
    for pod in mine:
        assert policy["metadata"]["creationTimestamp"] <= pod["metadata"]["creationTimestamp"]


def test_an_egress_to_everywhere_still_leaves_out_api_server_metadata_and_engines(
    scene: Scene, gateway: Gateway
) -> None:
    try:
        upgrade(*EVERYWHERE)
        # Applied already: the kernel asks for each connection, and the watch of policies is behind by moments.
        assert netprobe.settled(
            lambda: from_engine(gateway, scene.tickets[0], elsewhere()), all_of(elsewhere(), "open")
        ) == all_of(elsewhere(), "open")
        forbidden = services() + neighbours(scene) + parts(scene)
        assert from_engine(gateway, scene.tickets[0], forbidden) == all_of(forbidden, "silent")
    finally:
        upgrade()

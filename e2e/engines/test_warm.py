"""Warm starts on the real node: by kubectl and by REST, with a Secret and a size; cold ones that say why; a race."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.shared.engines import Engines
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import Installation
from tools.testkit.cluster.waiting import NAMESPACE, RELEASE_NAMESPACE, operator_pods, status, until_holds, until_state
from tools.testkit.cluster.warm_pods import claimable
from tools.testkit.gateway.client import BASE, Gateway, texts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

# Of this run alone: plugins are the cluster's, and the release group imports this file, too.
VERSION = f"3.13.warm_{uuid.uuid4().hex[:6]}"
# The least that the CRD takes.
PAUSE = {"after": "60s", "cpu": "15m"}
POOL_LABEL = "linkis.apache.org/warm-pool"


class Pool:
    """A plugin like the chart's of Python, with a warm pool."""

    def __init__(self, version: str = VERSION, cap: int = 12) -> None:
        self.plugin = f"warm-{uuid.uuid4().hex[:6]}"
        spec = kubectl.get("ecp", "python-3.11")["spec"]
        small = {"cpu": "20m", "memory": "200Mi"}
        pool = {"size": 2, "cap": cap, "namespaces": [NAMESPACE], "preload": ["json", "decimal"], "resources": small}
        spec = spec | {"default": False, "engineVersion": version, "warmPool": pool, "softPause": PAUSE}
        body = {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConnPlugin"}
        kubectl.must("create", "-f", "-", stdin=json.dumps(body | {"metadata": {"name": self.plugin}, "spec": spec}))

    def size(self, number: int) -> None:
        change = json.dumps({"spec": {"warmPool": {"size": number}}})
        kubectl.must("patch", "ecp", self.plugin, "--type=merge", "-p", change)

    def ready(self) -> list[str]:
        found = kubectl.listed("pods", NAMESPACE, f"{POOL_LABEL}={self.plugin}")
        return [pod["metadata"]["name"] for pod in found if claimable(pod)]

    def on_nodes(self) -> list[str]:
        """Members that have a node and that nobody has ended, ready or not."""
        found = kubectl.listed("pods", NAMESPACE, f"{POOL_LABEL}={self.plugin}")
        live = [pod for pod in found if "nodeName" in pod["spec"] and "deletionTimestamp" not in pod["metadata"]]
        return [pod["metadata"]["name"] for pod in live]

    def told(self) -> dict[str, Any]:
        """What the plugin's status says of the pool in its only namespace, {} before its first."""
        places = (kubectl.get("ecp", self.plugin).get("status", {}).get("warmPool") or {}).get("namespaces")
        return dict(places[0]) if places else {}

    def until_ready(self, number: int) -> None:
        until_holds(f"{number} members", self.ready, lambda names: len(names) == number, 90)


@pytest.fixture(scope="module")
def pool(installation: Installation) -> Iterator[Pool]:
    made = Pool()
    yield made
    kubectl.run("delete", "ecp", made.plugin, "--wait=false")


@pytest.fixture(scope="module")
def unused(pool: Pool) -> Iterator[str]:
    """An engine that nobody uses while the other tests run; its name."""
    name = f"unused-{uuid.uuid4().hex[:6]}"
    body = {
        "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": name},
        "spec": {"user": "hadoop", "plugin": pool.plugin, "resources": {"cpu": "200m", "memory": "300Mi"}},
    }  # fmt: skip
    kubectl.must("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(body))
    yield name
    kubectl.run("delete", "ec", name, "-n", NAMESPACE, "--wait=false")


@pytest.fixture
def secret(installation: Installation) -> Iterator[str]:
    name = f"warm-{uuid.uuid4().hex[:6]}"
    kubectl.must("create", "secret", "generic", name, "-n", NAMESPACE, "--from-literal=password=s3cret$5")
    yield name
    kubectl.run("delete", "secret", name, "-n", NAMESPACE)


def ran(gateway: Gateway, ticket: str, code: str) -> str:
    return texts(gateway.execute(ticket, code).data)


def engine_pod(name: str) -> dict[str, Any]:
    return kubectl.get("pod", status(name)["podName"], "-n", NAMESPACE)


@pytest.mark.usefixtures("unused")
def test_a_warm_engine_by_kubectl_has_its_secret_its_folder_and_its_size(
    pool: Pool, engines: Engines, gateway: Gateway, secret: str
) -> None:
    pool.until_ready(2)
    env = [
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": secret, "key": "password"}}},
        {"name": "GREETING", "value": "costs $(PASSWORD)"},
    ]
    name, ticket = engines.ready(
        plugin=pool.plugin, env=env, workingDir="/tmp/mine", resources={"cpu": "150m", "memory": "300Mi"}
    )
    found = status(name)
    assert found["startup"]["kind"] == "warm", found["startup"]
    assert set(found["startup"]) == {"kind", "accepted", "claimed", "ready"}
    code = (
        "import os, sys; print(os.environ['PASSWORD'], os.environ['GREETING'], os.getcwd(), 'decimal' in sys.modules)"
    )
    assert ran(gateway, ticket, code) == "s3cret$5 costs $(PASSWORD) /tmp/mine True\n"
    pod = until_holds(
        "the kubelet has resized it",
        lambda: engine_pod(name),
        lambda pod: pod["status"]["containerStatuses"][0]["resources"]["limits"]["memory"] == "300Mi",
        30,
    )
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    assert pod["metadata"]["ownerReferences"][0]["name"] == name
    assert POOL_LABEL not in pod["metadata"]["labels"]
    assert "s3cret" not in json.dumps(pod)
    conditions = {one["type"]: one["status"] for one in status(name)["conditions"]}
    assert conditions["Ready"] == "True"
    assert not {"Resized", "SpecPending"} & conditions.keys()


def test_a_warm_engine_by_rest_and_a_cold_one_that_says_why(pool: Pool, engines: Engines, gateway: Gateway) -> None:
    pool.until_ready(2)
    made = gateway.create(engineVersion=VERSION, env={"A": "1"}).data
    assert made["startup"]["kind"] == "warm", made["startup"]
    assert ran(gateway, made["ticketId"], "import os; print(os.environ['A'])") == "1\n"
    told = gateway.request("GET", f"{BASE}/explainEngine?engineId={made['ticketId']}").data
    assert "warm pool" in told["summary"]
    name, ticket = engines.ready(plugin=pool.plugin, stopGrace="3m")
    told = gateway.request("GET", f"{BASE}/explainEngine?engineId={ticket}").data
    assert "spec.stopGrace" in told["summary"], told["summary"]
    assert status(name)["startup"]["kind"] == "cold"
    gateway.terminate(made["ticketId"])


def test_an_engine_that_nobody_uses_gives_cpu_back_and_has_it_again_with_its_next_code(
    unused: str, gateway: Gateway
) -> None:
    def has_cpu(amount: str, seconds: float) -> dict[str, Any]:
        found: dict[str, Any] = until_holds(
            f"the kubelet has given it {amount}",
            lambda: engine_pod(unused),
            lambda pod: pod["status"]["containerStatuses"][0]["resources"]["requests"]["cpu"] == amount,
            seconds,
        )
        return found

    before = has_cpu(PAUSE["cpu"], 90)
    found = status(unused)
    assert {name: found["softPause"][name] for name in ("cpu", "fullCpu")} == {"cpu": "15m", "fullCpu": "200m"}
    assert {one["type"]: one["status"] for one in found["conditions"]}["SoftPaused"] == "True"
    assert found["engineState"] == "Idle"
    told = gateway.request("GET", f"{BASE}/explainEngine?engineId={found['ticketId']}").data
    assert "It is soft-paused since" in told["summary"], told["summary"]
    assert ran(gateway, found["ticketId"], "print(6 * 7)") == "42\n"
    after = has_cpu("200m", 30)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    (container,) = after["status"]["containerStatuses"]
    assert container["restartCount"] == 0
    assert container["resources"]["limits"]["memory"] == "300Mi"
    until_holds("the record goes", lambda: status(unused), lambda told: "softPause" not in told, 15)


def evict(name: str) -> kubectl.Answer:
    """By the Eviction API, as `kubectl drain` does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
    return kubectl.run("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def test_members_that_are_evicted_are_made_again_and_who_goes_on_is_told(installation: Installation) -> None:
    """A drain costs seconds. Beyond twenty in a row the pool says that they went, with the last one and its node."""
    # Those that end are in its cap, too.
    pool = Pool(f"{VERSION}.evicted", cap=40)
    try:
        pool.until_ready(2)
        for name in pool.ready():
            assert evict(name).code == 0
        pool.until_ready(2)
        assert pool.told().get("reason") != "MembersRemoved"
        seen: set[str] = set()
        deadline = time.monotonic() + 120
        while pool.told().get("reason") != "MembersRemoved":
            assert time.monotonic() < deadline, (len(seen), pool.told())
            # Before they are ready, too: on a slow node six a minute may be all that get there.
            for name in set(pool.on_nodes()) - seen:
                seen.add(name)
                evict(name)  # its name is of one that may be gone
        message = pool.told()["message"]
        assert re.search(
            r"\d\d went since [-0-9]+ [:0-9]+ UTC\. The last one: [-a-z0-9]+, on node \S+, was", message
        ), message
        assert "six a minute" in message
    finally:
        kubectl.run("delete", "ecp", pool.plugin, "--wait=false")


@pytest.mark.release
@pytest.mark.timeout(600)
def test_twenty_engines_over_a_pool_of_five_while_the_operator_is_killed(pool: Pool, engines: Engines) -> None:
    pool.size(5)
    pool.until_ready(5)
    members = set(pool.ready())
    names = [f"race-{uuid.uuid4().hex[:6]}" for _ in range(20)]
    bodies = [
        {
            "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": name},
            "spec": {"user": "hadoop", "plugin": pool.plugin, "resources": {"cpu": "20m", "memory": "200Mi"}},
        }
        for name in names
    ]  # fmt: skip
    (operator,) = operator_pods()
    try:
        listed = {"apiVersion": "v1", "kind": "List", "items": bodies}
        kubectl.must("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(listed))
        victim = operator["metadata"]["name"]
        kubectl.must("delete", "pod", victim, "-n", RELEASE_NAMESPACE, "--grace-period=0", "--force")
        for name in names:
            until_state(name, "Idle", seconds=400)
        startups = [status(name)["startup"] for name in names]
        # A member whose agent does not answer in time is given up: that engine says so, and starts cold.
        given_up = [one for one in startups if one.get("coldReason") in ("AgentRefused", "MemberTaken", "MemberEnded")]
        assert [one["kind"] for one in startups].count("warm") + len(given_up) >= 5, startups
        owned: dict[str, list[str]] = {}
        for pod in kubectl.listed("pods", NAMESPACE):
            for owner in pod["metadata"].get("ownerReferences", []):
                if owner["name"] in names:
                    owned.setdefault(owner["name"], []).append(pod["metadata"]["name"])
        assert {name: len(pods) for name, pods in owned.items()} == dict.fromkeys(names, 1)
        taken = [pods[0] for pods in owned.values() if pods[0] in members]
        assert len(taken) == len(set(taken)) <= 5
    finally:
        kubectl.run("delete", "ec", *names, "-n", NAMESPACE, "--wait=false")
        pool.size(0)

"""What one engine and one user may take of a real cluster: processes, local disk, places. The others go on."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.shared.engines import Engines
from e2e.shared.release import upgrade
from tools.cluster import tools
from tools.cluster.layout import POD_PIDS
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import Installation
from tools.testkit.cluster.waiting import (
    NAMESPACE,
    gateway_pods,
    operator_pods,
    pods,
    status,
    until_holds,
    until_row,
    until_state,
)
from tools.testkit.gateway.client import Gateway, Reply, texts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(500)]
API = "linkis.apache.org/v1alpha1"
# The kubelet looks at local disk every 10 s, and measures volumes once a minute.
EVICTION_SECONDS = 180

# Each copy makes copies, as fast as it can and for ever.
FORK_BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
# As many as there may be; they end again. Threads, which count as processes do and cost little memory.
MANY = """
import threading
over, threads = threading.Event(), []
try:
    while len(threads) < 5000:
        thread = threading.Thread(target=over.wait)
        thread.start()
        threads.append(thread)
except RuntimeError as error:
    print(len(threads), error)
finally:
    over.set()
    for thread in threads:
        thread.join()
"""
FILL = "open('/tmp/big', 'wb').write(bytes(200 << 20))"


@pytest.fixture
def plugin(installation: Installation) -> Iterator[Callable[..., str]]:
    """Makes plugins like the chart's own with other bounds."""
    made = []

    def make(**bounds: Any) -> str:
        name = f"bounds-{uuid.uuid4().hex[:6]}"
        spec = kubectl.get("ecp", "python-3.11")["spec"] | bounds
        spec |= {"default": False, "engineVersion": name.replace("-", "_")}
        body = {"apiVersion": API, "kind": "EngineConnPlugin", "metadata": {"name": name}, "spec": spec}
        kubectl.must("create", "-f", "-", stdin=json.dumps(body))
        made.append(name)
        return name

    yield make
    kubectl.run("delete", "ecp", *made, "--ignore-not-found", "--wait=false")


def parts() -> set[tuple[str, int]]:
    """Pods of operator and gateway, each with how often it was started again."""
    return {
        (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
        for pod in (*operator_pods(), *gateway_pods())
    }


def works(gateway: Gateway, ticket: str) -> bool:
    return texts(gateway.as_user("ana").execute(ticket, "print(6 * 7)").data).strip() == "42"


def test_a_fork_bomb_ends_its_engine_with_the_reason_and_the_others_go_on(
    engines: Engines, plugin: Callable[..., str], gateway: Gateway
) -> None:
    _, other = engines.ready(engineType="python", user="ana")
    name, ticket = engines.ready(plugin=plugin(maxProcesses=200), resources={"memory": "1Gi"})
    before = parts()
    result = gateway.execute(ticket, FORK_BOMB).data
    ended = until_state(name, "Failed")
    assert ended["reason"] == "TooManyProcesses"
    assert "and 200 are the most" in ended["message"]
    assert "maxProcesses" in ended["message"]
    assert (result["status"], result["outputs"][-1]["name"]) == ("Failed", "TooManyProcesses")
    assert until_row(ticket, "Failed", final=True)
    assert works(gateway, other)
    assert parts() == before


@pytest.mark.skipif(tools.backend() != "node", reason="the kubelets of another's cluster have bounds of their own")
def test_the_kubelets_bound_refuses_one_more_and_the_engine_lives(
    engines: Engines, plugin: Callable[..., str], gateway: Gateway
) -> None:
    name, ticket = engines.ready(plugin=plugin(maxProcesses=0), resources={"memory": "1Gi"})
    count, _, error = texts(gateway.execute(ticket, MANY).data).strip().partition(" ")
    assert error == "can't start new thread"
    # Without the agent's, the kernel's and the sandbox's own.
    assert POD_PIDS - 100 < int(count) < POD_PIDS
    assert texts(gateway.execute(ticket, "print('alive')").data).strip() == "alive"
    # A task of over a second is shown as Busy for a moment longer.
    until_state(name, "Idle")


def test_a_full_tmp_ends_its_engine_with_the_reason_and_the_others_go_on(
    engines: Engines, plugin: Callable[..., str], gateway: Gateway
) -> None:
    _, other = engines.ready(engineType="python", user="ana")
    name, ticket = engines.ready(plugin=plugin(storage={"tmp": "64Mi"}))
    before = parts()
    assert gateway.execute(ticket, FILL).ok
    ended = until_state(name, "Failed", seconds=EVICTION_SECONDS)
    assert ended["reason"] == "StorageExceeded"
    assert 'EmptyDir volume "tmp" exceeds the limit "64Mi"' in ended["message"]
    assert "storage of the EngineConnPlugin" in ended["message"]
    assert works(gateway, other)
    assert parts() == before


def test_scratch_volumes_together_have_a_bound(engines: Engines, plugin: Callable[..., str], gateway: Gateway) -> None:
    """Each under its own limit, and over what the engine may have."""
    scratch = [{"name": name, "mountPath": f"/{name}", "emptyDir": {"sizeLimit": "150Mi"}} for name in "abc"]
    bounded = plugin(storage={"tmp": "1Mi", "volumes": "150Mi"})
    name, ticket = engines.ready(plugin=bounded, volumes=scratch)
    (pod,) = pods(name)
    # 4 GiB of log, which is not written here, are more than the three: the kubelet is asked for the sum alone.
    assert pod["spec"]["containers"][0]["resources"]["limits"]["ephemeral-storage"] == f"{4096 + 64 + 1 + 150}Mi"
    for folder in "abc":
        assert gateway.execute(ticket, f"open('/{folder}/x', 'wb').write(bytes(100 << 20))").ok


# --- a user's credentials


def test_a_variable_comes_from_a_secret_and_stands_nowhere_else(engines: Engines, gateway: Gateway) -> None:
    secret, value = f"db-{uuid.uuid4().hex[:6]}", uuid.uuid4().hex
    kubectl.must("create", "secret", "generic", secret, "-n", NAMESPACE, f"--from-literal=password={value}")
    try:
        source = {"secretKeyRef": {"name": secret, "key": "password"}}
        name, ticket = engines.ready(engineType="python", env=[{"name": "PASSWORD", "valueFrom": source}])
        code = "import os; print(os.environ['PASSWORD'], [n for n in os.environ if n.startswith('ECM_')])"
        assert texts(gateway.execute(ticket, code).data).split() == [value, "[]"]
        shown = [kubectl.must("get", kind, "-n", NAMESPACE, "-o", "yaml") for kind in ("ec", "pods", "events")]
        assert not [text for text in shown if value in text]
    finally:
        kubectl.run("delete", "secret", secret, "-n", NAMESPACE)
    assert status(name)["engineState"] == "Idle"


def test_a_secret_that_is_missing_is_named(engines: Engines) -> None:
    source = {"secretKeyRef": {"name": "not-there", "key": "password"}}
    name = engines.create(engineType="python", startTimeout="5m", env=[{"name": "PASSWORD", "valueFrom": source}])
    until_holds("the kubelet's word", lambda: status(name), lambda s: s.get("reason") == "CreateContainerConfigError")
    engines.change(name, startTimeout="1s")
    ended = until_state(name, "Failed")
    assert ended["reason"] == "CreateContainerConfigError"
    assert 'secret "not-there" not found' in ended["message"]


# --- limits of people


@pytest.fixture(scope="module")
def limited(installation: Installation) -> Iterator[Installation]:
    """The release, which has limits of these users, with one of the namespace, too; without that again afterwards."""
    yield upgrade(f"limits.namespaces.{NAMESPACE}.engines=4")
    upgrade()


@pytest.mark.release
def test_limits_of_users_and_namespaces_are_told_with_figure_and_remedy(
    limited: Installation, engines: Engines
) -> None:
    until_holds("no engine is left", live, lambda names: not names, 120)
    with limited.forward() as port, Gateway("127.0.0.1", port, limited.token, "lia") as lia:
        small = {"engineType": "python", "resources": {"cpu": "100m", "memory": "256Mi"}}
        first = engines.ready(user="lia", **small)[0]
        engines.ready(user="lia", **small)
        refused(lia.create(), "engines", "user lia", "2")
        # By kubectl nobody is there to be told at once: the engine waits, says so, and goes on when there is a place.
        waiting = engines.create(user="lia", **small)
        seen = until_holds(waiting, lambda: status(waiting), lambda found: found.get("reason") == "LimitReached")
        assert (seen["engineState"], pods(waiting)) == ("Starting", [])
        assert "User lia has 2 of 2 engines: stop one of" in seen["message"]
        assert "limits of the chart" in seen["message"]
        kubectl.must("delete", "ec", first, "-n", NAMESPACE, "--timeout=60s")
        until_state(waiting, "Idle")

        refused(lia.as_user("cai").create(resources={"cpu": "1500m"}), "cpu", "user cai", "1")
        refused(lia.as_user("mia").create(resources={"memory": "2Gi"}), "memory", "user mia", "1Gi")

        engines.ready(user="ana", **small)
        engines.ready(user="ana", **small)
        refused(lia.as_user("ana").create(), "engines", f"namespace {NAMESPACE}", "4")


def live() -> list[str]:
    items = kubectl.get("ec", "-n", NAMESPACE)["items"]
    return [one["metadata"]["name"] for one in items if not one.get("status", {}).get("finishedTime")]


def refused(reply: Reply, *words: str) -> None:
    assert not reply.ok
    said = reply.message.lower()
    assert [word for word in words if word.lower() not in said] == [], reply.message

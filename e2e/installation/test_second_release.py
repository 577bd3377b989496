"""Two releases on one cluster: what is of the whole cluster belongs to one of them, and nobody sees the other's."""

from __future__ import annotations

import base64
import json
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tools.cluster.tools import helm, images, kubeconfig
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import OF_THE_CLUSTER, RELEASE, ROOT, Installation, PortForward, dns, engines_of
from tools.testkit.cluster.waiting import NAMESPACE, RELEASE_NAMESPACE, status, until_state
from tools.testkit.gateway.client import Gateway

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(500)]
NAME = "second"
SPACE = "ecm-e2e-second"
ENGINES = engines_of(SPACE)
# What the documentation says (docs/security/hardening.md, "Two installations on one cluster").
LEFT_OUT = OF_THE_CLUSTER
# The engines' namespace of the first, whose policies outlive it.
LEFT_BEHIND = (f"engineNamespaces[0].name={NAMESPACE}", "engineNamespaces[0].create=false")
ROLES = [f"linkis-ecm-{role}" for role in ("view", "edit", "admin", "claims")]


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(helm()), *arguments, "-n", SPACE, "--kubeconfig", str(kubeconfig())]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def install(*values: str) -> subprocess.CompletedProcess[str]:
    repository, _, tag = images()["ecm"].rpartition(":")
    values = (
        f"image.repository={repository}", f"image.tag={tag}", f"engineNamespaces[0].name={ENGINES}",
        # The node has few volumes.
        "persistence.enabled=false", "archive.persistence.enabled=false", *dns(), *values,
    )  # fmt: skip
    settings = [word for value in values for word in ("--set", value)]
    chart = str(ROOT / "helm/linkis-ecm")
    return run_helm("install", NAME, chart, "--create-namespace", "--wait", "--timeout=180s", *settings)


@pytest.fixture
def second(installation: Installation) -> Iterator[str]:
    """The second release; its token."""
    try:
        done = install(*LEFT_OUT)
        assert done.returncode == 0, done.stderr
        tokens = json.loads(base64.b64decode(kubectl.get("secret", f"{NAME}-auth", "-n", SPACE)["data"]["tokens.json"]))
        yield next(iter(tokens))
    finally:
        kubectl.run("delete", "ec", "--all", "-n", ENGINES, "--timeout=60s")
        run_helm("uninstall", NAME, "--wait", "--timeout=200s", "--ignore-not-found")
        kubectl.run("delete", "namespace", ENGINES, SPACE, "--ignore-not-found", "--timeout=90s")


@pytest.fixture
def first_engine(gateway: Gateway) -> Iterator[dict[str, Any]]:
    made = gateway.create().data
    yield made
    gateway.close()
    gateway.terminate(made["ticketId"])


def of_the_cluster() -> tuple[list[str], list[str]]:
    """The uids of the users' roles and of the first release's plugins: other tests make plugins of their own."""
    show = ("-o", "jsonpath={range .items[*]}{.metadata.uid} {end}")
    plugins = kubectl.must("get", "ecp", "-l", f"app.kubernetes.io/instance={RELEASE}", *show).split()
    assert plugins
    return kubectl.must("get", "clusterrole", *ROLES, *show).split(), plugins


def test_a_second_release_has_what_is_its_own_and_leaves_the_first_alone(
    installation: Installation, first_engine: dict[str, Any], gateway: Gateway, second: str
) -> None:
    shared = of_the_cluster()
    name = f"two-{uuid.uuid4().hex[:6]}"
    body = {
        "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": name},
        "spec": {"engineType": "python", "user": "hadoop"},
    }  # fmt: skip
    kubectl.must("create", "-n", ENGINES, "-f", "-", stdin=json.dumps(body))
    ticket = until_state(name, "Idle", namespace=ENGINES)["ticketId"]
    with PortForward(SPACE, f"service/{NAME}-gateway", 9102) as port, Gateway("127.0.0.1", port, second) as other:
        assert other.execute(ticket, "1+1").data["outputs"][0]["text"] == "2"
        assert not other.execute(first_engine["ticketId"], "1+1").ok
        assert [one["ticketId"] for one in other.engines().data["engines"]] == [ticket]
        assert not other.as_user("hadoop", installation.token).engines().ok
    assert not gateway.execute(ticket, "1+1").ok
    tested = run_helm("test", NAME, "--logs", "--timeout=120s")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "Phase:          Succeeded" in tested.stdout
    assert "/readyz 200" in tested.stdout, "the log of its pod"

    kubectl.must("delete", "ec", name, "-n", ENGINES, "--timeout=60s")
    done = run_helm("uninstall", NAME, "--wait", "--timeout=200s")
    assert done.returncode == 0, done.stderr
    assert of_the_cluster() == shared
    gateway.close()  # the gateway ends a connection that was silent for so long
    assert gateway.execute(first_engine["ticketId"], "1+1").data["outputs"][0]["text"] == "2"
    assert status(first_engine["name"], NAMESPACE)["engineState"] == "Idle"


def test_a_second_release_that_would_take_what_is_the_firsts_is_refused(installation: Installation) -> None:
    before = of_the_cluster()
    try:
        for values, shared, remedy in (
            (LEFT_OUT[:1], "EngineConnPlugin python-3.11", LEFT_OUT[1]),
            (LEFT_OUT[1:], "ClusterRole linkis-ecm-view", LEFT_OUT[0]),
            ((*LEFT_OUT, *LEFT_BEHIND), "NetworkPolicy linkis-engines", "install under its name"),
        ):
            done = install(*values)
            assert done.returncode != 0
            assert f"{shared} belongs to the release {RELEASE} in the namespace {RELEASE_NAMESPACE}: " in done.stderr
            assert remedy in done.stderr
    finally:
        run_helm("uninstall", NAME, "--wait", "--timeout=200s", "--ignore-not-found")
        kubectl.run("delete", "namespace", ENGINES, SPACE, "--ignore-not-found", "--timeout=90s")
    assert of_the_cluster() == before

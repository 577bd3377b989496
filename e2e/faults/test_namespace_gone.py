"""Namespaces of engines that are gone, without the operator's rights, or no longer listed: the others go on, and what
lives there is not ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.shared.components import kill_component
from e2e.shared.engines import Engines
from e2e.shared.operators import gateway_pod, operator_pod
from e2e.shared.release import upgrade
from tools.cluster import tools
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import RELEASE, guards
from tools.testkit.cluster.waiting import (
    NAMESPACE,
    RELEASE_NAMESPACE,
    is_ready,
    status,
    until_holds,
    until_row,
    until_state,
)

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.alone,
    pytest.mark.timeout(400),
    pytest.mark.skipif(tools.backend() != "node", reason="an open watch ends with the API server, which is not ours"),
]
BOUND, GONE = f"{NAMESPACE}-bound", f"{NAMESPACE}-gone"
LISTED = (f"engineNamespaces[1].name={BOUND}", f"engineNamespaces[2].name={GONE}")
# Five of them on two cores, beside operator and gateway.
SMALL = {"cpu": "100m"}
OF_RELEASE = ("-l", f"app.kubernetes.io/instance={RELEASE}")


def until_operator_says(*sentences: str) -> None:
    def said() -> list[str]:
        log = kubectl.run("logs", "-n", RELEASE_NAMESPACE, operator_pod()["metadata"]["name"], "-c", "operator").out
        return [one for one in sentences if one not in log]

    until_holds("the operator's log has it", said, lambda left: not left, 60)


def processes() -> list[tuple[str, list[int]]]:
    """Of operator and gateway: the pod's uid and its containers' restarts."""
    return [
        (pod["metadata"]["uid"], [one["restartCount"] for one in pod["status"]["containerStatuses"]])
        for pod in (operator_pod(), gateway_pod())
    ]


@pytest.fixture
def three(installation: Any) -> Iterator[dict[str, Engines]]:
    """The release with two more namespaces, which the test takes out of its values; the engines of each."""
    engines = {space: Engines("gone", space) for space in (NAMESPACE, BOUND, GONE)}
    upgrade(*LISTED)
    try:
        yield engines
    finally:
        for of_space in engines.values():
            of_space.delete()
        upgrade()
        kubectl.run("delete", "namespace", BOUND, GONE, "--ignore-not-found", "--wait=false")


def test_namespaces_that_are_gone_refused_or_not_listed_harm_no_engine_elsewhere(three: dict[str, Engines]) -> None:
    until_holds("the operator's pod is ready", operator_pod, is_ready, 60)
    before = processes()
    made = {space: engines.create(resources=SMALL) for space, engines in three.items()}
    tickets = {space: until_state(name, "Idle", namespace=space)["ticketId"] for space, name in made.items()}

    # A tenant deletes what gives operator and gateway their rights, and another its namespace.
    bindings = kubectl.must("get", "rolebinding", "-n", BOUND, *OF_RELEASE, "-o", "yaml")
    kubectl.must("delete", "namespace", GONE, "--wait=false")
    kubectl.must("delete", "rolebinding", "-n", BOUND, *OF_RELEASE)
    kubectl.must("wait", "--for=delete", f"namespace/{GONE}", "--timeout=240s", seconds=270)
    until_row(tickets[GONE], "ShuttingDown", final=True)
    # RBAC does not end a watch that is open; this does.
    kill_component("kube-apiserver")
    tools.up()
    until_operator_says(*(f"the namespace {space} is gone, or this operator has no rights" for space in (BOUND, GONE)))
    three[NAMESPACE].ready(resources=SMALL)
    # While the API server was away nobody heard of the node: its pods count as not ready until it is heard of again.
    until_holds("the operator's pod is ready again", operator_pod, is_ready, 60)
    assert status(made[NAMESPACE])["engineState"] == "Idle"

    # Both come back without a new process.
    kubectl.must("apply", "-f", "-", stdin=bindings)
    upgrade(*LISTED)
    until_operator_says(*(f"the namespace {space} is served again" for space in (BOUND, GONE)))
    three[GONE].ready(resources=SMALL)
    _, again = three[BOUND].ready(resources=SMALL)
    assert status(made[BOUND], BOUND)["engineState"] == "Idle"
    assert processes() == before, "the same processes, without a restart"

    # Out of engineNamespaces, with a live engine.
    guarded = guards(BOUND)
    assert guarded
    upgrade()
    until_operator_says(f"the namespace {BOUND} is not watched, or not served: 2 rows of its engines are left")
    assert guards(BOUND) == guarded
    assert {one["status"]["phase"] for one in kubectl.get("pods", "-n", BOUND)["items"]} == {"Running"}
    for ticket in (tickets[BOUND], again):
        until_row(ticket, "Idle", final=False)
    until_row(tickets[NAMESPACE], "Idle", final=False)

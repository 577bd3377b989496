"""Whatever dies of one engine, or is changed by hand, on the real node: the engine ends as it must, or goes on.

What dies of the node or of the release is in test_faults.py. Each test adds its row to the fault table. Only on the
node built from source, where processes can be seen and killed; elsewhere the simulation holds these.
"""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest

from e2e.shared.engines import Engines
from e2e.shared.faulttable import TABLE, ended_as, pod_uid
from tools.cluster import tools
from tools.testkit.cluster import kubectl, processes
from tools.testkit.cluster.waiting import NAMESPACE, pods, status, until_holds, until_state
from tools.testkit.gateway.client import Gateway

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("installation"),
    pytest.mark.skipif(tools.backend() != "node", reason="processes of another's node are not ours to kill"),
]


@pytest.fixture
def engine(engines: Engines) -> str:
    """A ready engine by kubectl."""
    return engines.ready()[0]


def test_a_killed_agent_ends_the_engine_with_the_kubelets_log(engine: str, gateway: Gateway) -> None:
    ticket = status(engine)["ticketId"]
    gateway.execute(ticket, "print('said before')").data  # noqa: B018 - it raises where the call failed
    began = time.monotonic()
    assert processes.kill(pod_uid(engine), b"linkis_ecm.agent") >= 1
    found = ended_as("agent killed -9", engine, "AgentExited", began)
    assert any("container.log" in line for line in found["postMortem"]["missing"])
    # The gateway's own watch tells it, and from then on it reads what is in the archive.
    until_holds("the gateway knows", lambda: gateway.status(ticket).data["status"], "Failed".__eq__)
    lines = gateway.logs(ticket, logType="stdout", fromLine=1, lines=500).data["logs"]
    assert any("said before" in line for line in lines)


def test_a_killed_kernel_ends_the_engine_with_its_logs(engine: str) -> None:
    began = time.monotonic()
    assert processes.kill(pod_uid(engine), b"agent.kernel.main") >= 1
    found = ended_as("kernel killed -9", engine, "KernelDied", began)
    assert "SIGKILL" in found["message"]
    assert {"stdout", "stderr"} <= set(found["postMortem"]["files"])


def test_a_frozen_agent_is_lost_within_a_minute_and_a_half(engine: str) -> None:
    uid = pod_uid(engine)
    began = time.monotonic()
    assert processes.send(uid, b"linkis_ecm", signal.SIGSTOP) >= 1
    try:
        ended_as("agent frozen (SIGSTOP)", engine, "AgentLost", began, seconds=150)
    finally:
        processes.send(uid, b"linkis_ecm", signal.SIGCONT)
    until_holds("no pod", lambda: pods(engine), lambda left: not left)


def test_an_evicted_engine_is_told_as_evicted(engine: str) -> None:
    (pod,) = pods(engine)
    name = pod["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
    began = time.monotonic()
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
    kubectl.must("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
    ended_as("pod evicted by the Eviction API", engine, "Evicted", began)


@pytest.mark.parametrize("grace", [0, 30])
def test_a_pod_deleted_by_hand_ends_the_engine(engine: str, grace: int) -> None:
    (pod,) = pods(engine)
    force = ["--grace-period=0", "--force"] if grace == 0 else []
    began = time.monotonic()
    kubectl.must("delete", "pod", pod["metadata"]["name"], "-n", NAMESPACE, "--wait=false", *force)
    ended_as(f"pod deleted by hand, grace {grace} s", engine, "PodDeleted", began)


STATUS_EDITS: dict[str, dict[str, Any]] = {
    "state Success": {"engineState": "Success"},
    "state Starting": {"engineState": "Starting"},
    "reason Nonsense": {"reason": "Nonsense"},
    "no conditions": {"conditions": []},
    "no podName": {"podName": None},
    "another attempt": {"attempt": 7},
}


@pytest.mark.parametrize("what", STATUS_EDITS)
def test_a_status_edited_by_hand_is_contained(engines: Engines, what: str) -> None:
    victim, other = engines.create(), engines.create()
    for name in (victim, other):
        until_state(name, "Idle", seconds=120)
    began = time.monotonic()
    edit = json.dumps({"status": STATUS_EDITS[what]})
    kubectl.must("patch", "ec", victim, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", edit)
    time.sleep(3)
    assert status(other)["engineState"] == "Idle"
    live = [p for p in pods(victim) if p["status"]["phase"] == "Running" and "deletionTimestamp" not in p["metadata"]]
    assert len(live) <= 1
    kubectl.must("patch", "ec", victim, "-n", NAMESPACE, "--type=merge", "-p", '{"spec": {"desiredState": "Stopped"}}')
    until_state(victim, "Success", "Failed", seconds=150)
    until_holds("no live pod", lambda: [p for p in pods(victim) if p["status"]["phase"] == "Running"], lambda p: not p)
    TABLE.add(f"status edited by hand: {what}", "nothing of others", time.monotonic() - began)
    kubectl.must("delete", "ec", victim, other, "-n", NAMESPACE, "--wait=false")


def test_an_engine_edited_while_it_stops_ends(engine: str) -> None:
    began = time.monotonic()
    stop = '{"spec": {"desiredState": "Stopped"}}'
    kubectl.must("patch", "ec", engine, "-n", NAMESPACE, "--type=merge", "-p", stop)
    kubectl.must("patch", "ec", engine, "-n", NAMESPACE, "--type=merge", "-p", '{"spec": {"idleTimeout": "1h"}}')
    back = kubectl.run(
        "patch", "ec", engine, "-n", NAMESPACE, "--type=merge", "-p", '{"spec": {"desiredState": "Running"}}'
    )
    assert back.code
    assert "a stopped engine stays stopped" in back.err
    until_state(engine, "Success")
    TABLE.add("resource edited while it stops", "nothing", time.monotonic() - began)


def test_an_immutable_field_is_refused_and_nothing_changes(engine: str) -> None:
    answer = kubectl.run("patch", "ec", engine, "-n", NAMESPACE, "--type=merge", "-p", '{"spec": {"user": "eve"}}')
    assert answer.code
    assert "spec.user is part of the engine's identity" in answer.err
    assert status(engine)["engineState"] == "Idle"
    TABLE.add("immutable field changed", "nothing (refused)", 0.0)

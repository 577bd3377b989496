"""Whatever dies on the real node: what was done, that nothing was lost, and how long it took until all was right again.

Each test tells its row of the fault table, which the run prints at its end. Only on the node built from source, where
processes can be seen and killed; elsewhere the simulation holds these.
"""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from e2e.components import kill_component
from e2e.engines import Engines
from e2e.faulttable import TABLE
from e2e.operators import gateway_pod, operator_pod, renew_operator
from tools.cluster import node, tools
from tools.testkit import kubectl, processes
from tools.testkit.gateway_client import Gateway, texts
from tools.testkit.waiting import (
    NAMESPACE,
    RELEASE_NAMESPACE,
    Gate,
    pods,
    status,
    until,
    until_holds,
    until_row,
    until_state,
)

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.alone,
    pytest.mark.timeout(600),
    pytest.mark.skipif(tools.backend() != "node", reason="processes of another's node are not ours to kill"),
]


ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def fresh_operator(installation: Any) -> None:
    renew_operator()


@pytest.fixture
def engine(engines: Engines) -> str:
    """A ready engine by kubectl."""
    return engines.ready()[0]


def ready_again(what: str, name: str, uid: str, since: float) -> None:
    """The engine still is what it was: Idle, with its only pod and its row; tells the fault table."""
    ticket = until_state(name, "Idle", seconds=120)["ticketId"]
    assert [pod["metadata"]["uid"] for pod in pods(name)] == [uid], "the same pod, and no other"
    until_row(ticket, "Idle")
    TABLE.add(what, "nothing", time.monotonic() - since)


def ended_as(what: str, name: str, reason: str, since: float, *, seconds: float = 120) -> dict[str, Any]:
    """The engine has Failed for that reason, with its row; tells the fault table."""
    found = until_state(name, "Failed", seconds=seconds)
    assert found["reason"] == reason, found["message"]
    told = until_row(found["ticketId"], "Failed", final=True)
    assert told["reason"] == reason
    TABLE.add(what, f"the engine, as it must: {reason}", time.monotonic() - since)
    return found


INSIDE = """
import json, sys
from tools.testkit.gateway_client import Gateway
address, token, ticket, code = sys.argv[1:]
with Gateway(address, 9102, token) as gateway:
    print(json.dumps(gateway.execute(ticket, code).data))
"""


class Execution:
    """Code sent from within the node's network: a port-forward would die with what is killed here."""

    def __init__(self, installation: Any, ticket: str, code: str) -> None:
        address = gateway_pod()["status"]["podIP"]
        command = [sys.executable, "-c", INSIDE, address, installation.token, ticket, code]
        self._process = subprocess.Popen(node.inside(command), cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def text(self) -> str:
        """What it printed, or its last value; waits for its end."""
        out, _ = self._process.communicate(timeout=120)
        assert self._process.returncode == 0
        return texts(json.loads(out))


def pod_uid(name: str) -> str:
    (pod,) = pods(name)
    return str(pod["metadata"]["uid"])


def test_a_killed_api_server_loses_nothing(engine: str, installation: Any) -> None:
    uid = pod_uid(engine)
    task = Execution(installation, status(engine)["ticketId"], "import time; time.sleep(12); print('worked on')")
    # It has begun: who sends it needs the API server no more, and the outage is shorter than what is left of it.
    until_state(engine, "Busy")
    began = time.monotonic()
    kill_component("kube-apiserver")
    time.sleep(5)
    tools.up()
    assert task.text() == "worked on\n", "code waits on no API server"
    ready_again("kube-apiserver killed -9 for 5 s while a task runs", engine, uid, began)


def test_a_killed_etcd_loses_nothing(engine: str) -> None:
    uid = pod_uid(engine)
    began = time.monotonic()
    kill_component("etcd")
    time.sleep(2)
    tools.up()
    ready_again("etcd killed -9", engine, uid, began)


def test_a_killed_kubelet_loses_nothing(engine: str, installation: Any) -> None:
    uid, ticket = pod_uid(engine), status(engine)["ticketId"]
    began = time.monotonic()
    kill_component("kubelet")
    try:
        assert Execution(installation, ticket, "6*7").text() == "42"
    finally:
        tools.up()
    ready_again("kubelet killed -9", engine, uid, began)


def test_a_killed_controller_manager_and_scheduler_delay_only_new_engines(engines: Engines) -> None:
    began = time.monotonic()
    for name in ("kube-scheduler", "kube-controller-manager"):
        kill_component(name)
    late = engines.create()
    until_state(late, "Starting")
    (pod,) = until_holds("its pod is made", lambda: pods(late), bool)
    assert "nodeName" not in pod["spec"], "and waits for a scheduler"
    tools.up()
    until_state(late, "Idle")
    TABLE.add("scheduler and controller-manager killed -9 while an engine starts", "nothing", time.monotonic() - began)
    kubectl.must("delete", "ec", late, "-n", NAMESPACE, "--wait=false")


def test_a_killed_gateway_loses_no_code_and_no_engine(engine: str, installation: Any) -> None:
    uid, ticket, gate = pod_uid(engine), status(engine)["ticketId"], Gate()

    def call() -> str:
        """What its caller is told of the code, in words."""
        try:
            with installation.forward() as port, Gateway("127.0.0.1", port, installation.token) as client:
                reply = client.execute(ticket, f"{gate.code}done = 'whatever happened'")
        except (OSError, http.client.HTTPException) as error:
            return f"broken: {error!r}"
        return f"broken: {reply.http} {reply.message}" if not reply.ok else f"answered: {reply.data}"

    with ThreadPoolExecutor(1) as background:
        caller = background.submit(call)
        try:
            until_state(engine, "Busy")
            began = time.monotonic()
            assert processes.kill(gateway_pod()["metadata"]["uid"], b"linkis_ecm gateway") == 1
            told = caller.result(60)
            assert told.startswith("broken"), told
            until("a gateway answers", lambda: _answers(installation))
        finally:
            gate.open(engine)
    with installation.forward() as port, Gateway("127.0.0.1", port, installation.token) as client:
        assert client.execute(ticket, "done").data["outputs"][0]["text"] == "'whatever happened'", "the code ran once"
    ready_again("gateway killed -9 while a task runs", engine, uid, began)


def _answers(installation: Any) -> bool:
    try:
        with installation.forward() as port, Gateway("127.0.0.1", port, installation.token) as client:
            return client.engines().ok
    except (OSError, http.client.HTTPException, RuntimeError, subprocess.TimeoutExpired):
        return False  # the last two are kubectl's: it had nobody to lead to, or ended slowly


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


def test_an_engine_whose_node_vanished_is_told_as_node_lost(engine: str) -> None:
    """The node's kubelet dies and the engine is frozen: what a vanished node looks like from outside."""
    uid, ticket = pod_uid(engine), status(engine)["ticketId"]
    began = time.monotonic()
    kill_component("kubelet")
    assert processes.send(uid, b"linkis_ecm", signal.SIGSTOP) >= 1
    try:
        found = until_state(engine, "Failed", seconds=200)
        took = time.monotonic() - began
        assert found["reason"] == "NodeLost", found["message"]
        assert found["postMortem"]["missing"], "nothing could be had, and that is said"
        until_holds("the pod is taken out of the API by force", lambda: pods(engine), lambda left: not left)
    finally:
        processes.send(uid, b"linkis_ecm", signal.SIGCONT)
        tools.up()
    until("the node is Ready", tools.is_up)
    until_row(ticket, "Failed", final=True)
    TABLE.add("node vanished (kubelet dead, engine frozen)", "the engine, as it must: NodeLost", took)


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


def test_an_operator_that_gets_sigterm_hands_over_at_once(engine: str, engines: Engines) -> None:
    """Released, not run out: the next one leads as soon as it is there, and a pod made meanwhile starts."""
    uid = pod_uid(engine)
    began = time.monotonic()
    old = operator_pod()["metadata"]["name"]
    kubectl.must("delete", "pod", old, "-n", RELEASE_NAMESPACE, "--wait=false")
    late = engines.create()
    until_state(late, "Idle", seconds=120)
    ready_again("operator ended by SIGTERM (pod replaced), with a new engine meanwhile", engine, uid, began)
    kubectl.must("delete", "ec", late, "-n", NAMESPACE, "--wait=false")

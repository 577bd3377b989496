"""Whatever dies of the real node and of a release: nothing was lost, and how long it took until all was right again.

What dies of one engine is in test_engine_faults.py. Each test adds its row to the fault table, which the run prints at
its end. Only on the node built from source, where processes can be seen and killed; elsewhere the simulation holds
these.
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

from e2e.shared.components import kill_component
from e2e.shared.engines import Engines
from e2e.shared.faulttable import TABLE, pod_uid, ready_again
from e2e.shared.operators import gateway_pod, operator_pod, renew_operator
from tools.cluster import node, tools
from tools.testkit.cluster import kubectl, processes
from tools.testkit.cluster.waiting import (
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
from tools.testkit.gateway.client import Gateway, texts

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.skipif(tools.backend() != "node", reason="processes of another's node are not ours to kill"),
]


ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def fresh_operator(installation: Any) -> None:
    renew_operator()


@pytest.fixture
def engine(engines: Engines) -> str:
    """A ready engine by kubectl."""
    return engines.ready()[0]


INSIDE = """
import json, sys
from tools.testkit.gateway.client import Gateway
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


@pytest.mark.alone
def test_a_killed_api_server_loses_nothing(engine: str, installation: Any) -> None:
    uid = pod_uid(engine)
    gate = Gate()
    task = Execution(installation, status(engine)["ticketId"], f"{gate.code}print('worked on')")
    # It has begun: who sends it needs the API server no more.
    until_state(engine, "Busy")
    began = time.monotonic()
    kill_component("kube-apiserver")
    time.sleep(5)
    tools.up()
    gate.open(engine)
    assert task.text() == "worked on\n", "code waits on no API server"
    ready_again("kube-apiserver killed -9 for 5 s while a task runs", engine, uid, began)


@pytest.mark.alone
def test_a_killed_etcd_loses_nothing(engine: str) -> None:
    uid = pod_uid(engine)
    began = time.monotonic()
    kill_component("etcd")
    time.sleep(2)
    tools.up()
    ready_again("etcd killed -9", engine, uid, began)


@pytest.mark.alone
def test_a_killed_kubelet_loses_nothing(engine: str, installation: Any) -> None:
    uid, ticket = pod_uid(engine), status(engine)["ticketId"]
    began = time.monotonic()
    kill_component("kubelet")
    try:
        assert Execution(installation, ticket, "6*7").text() == "42"
    finally:
        tools.up()
    ready_again("kubelet killed -9", engine, uid, began)


@pytest.mark.alone
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


@pytest.mark.release
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


@pytest.mark.alone
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


@pytest.mark.release
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

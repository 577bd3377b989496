"""kill -9 on the real node: the operator while an engine starts and while it works, the kernel, and memory run out."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import pytest

from e2e import kubectl, processes
from e2e.cluster.tools import backend
from e2e.conftest import NAMESPACE, pods, record, status, until
from e2e.gateway import Gateway, texts
from e2e.operators import kill_operator, operator_pod, renew_operator, restarts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


@pytest.fixture(autouse=True)
def fresh_operator(installation: Any) -> None:
    renew_operator()


def created(user: str = "hadoop") -> str:
    """An engine by kubectl, not waited for; its name."""
    name = f"crash-{uuid.uuid4().hex[:6]}"
    body = (
        '{"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": "%s"},'
        ' "spec": {"engineType": "python", "user": "%s"}}'
    )
    kubectl.must("create", "-n", NAMESPACE, "-f", "-", stdin=body % (name, user))
    return name


@pytest.mark.parametrize("delay", [0.0, 0.15, 0.4])
def test_the_operator_killed_while_an_engine_starts_loses_nothing(installation: Any, delay: float) -> None:
    name = created()
    time.sleep(delay)
    kill_operator()
    until("Idle", lambda: status(name).get("engineState") == "Idle", 90)
    assert len(pods(name)) == 1
    row = until("the row", lambda: (r := record(status(name)["ticketId"]))["record"]["status"] == "Idle" and r)
    assert row["record"]["request_times"] == 1
    kubectl.must("delete", "ec", name, "-n", NAMESPACE)


def test_the_operator_killed_while_an_engine_works_loses_nothing(installation: Any, port: int) -> None:
    name = created()
    until("Idle", lambda: status(name).get("engineState") == "Idle", 60)
    found = status(name)
    uid = pods(name)[0]["metadata"]["uid"]
    answers: list[Any] = []
    with Gateway("127.0.0.1", port, installation.token) as gateway:
        code = "import time; time.sleep(12); print('still here')"
        task = threading.Thread(target=lambda: answers.append(gateway.execute(found["ticketId"], code)))
        task.start()
        until("Busy", lambda: status(name)["engineState"] == "Busy", 10)
        kill_operator()
        task.join(60)
    assert texts(answers[0].data) == "still here\n", "code waits on no operator"
    until("Idle again", lambda: status(name)["engineState"] == "Idle", 60)
    assert [pod["metadata"]["uid"] for pod in pods(name)] == [uid]
    until("the row", lambda: record(found["ticketId"])["record"]["status"] == "Idle")
    kubectl.must("delete", "ec", name, "-n", NAMESPACE)
    until("the final row", lambda: record(found["ticketId"])["record"]["status"] == "ShuttingDown")


def test_an_engine_deleted_while_the_operator_is_dead_gets_its_last_row(installation: Any) -> None:
    name = created()
    until("Idle", lambda: status(name).get("engineState") == "Idle", 60)
    ticket = status(name)["ticketId"]
    until("the row", lambda: record(ticket)["record"]["status"] == "Idle")
    before = restarts()
    if backend() == "node":
        processes.kill(operator_pod()["metadata"]["uid"], b"linkis_ecm operator")
    kubectl.must("delete", "ec", name, "-n", NAMESPACE, "--wait=false")
    until("the operator's restart", lambda: backend() != "node" or restarts() > before, 90)
    row = until("the final row", lambda: (r := record(ticket))["record"]["status"] == "ShuttingDown" and r, 60)
    assert row["final"] is True
    assert row["record"]["release_times"] == 1


def test_a_killed_kernel_and_spent_memory_are_told(installation: Any, gateway: Gateway) -> None:
    died = gateway.create().data
    lost = gateway.execute(died["ticketId"], "import os; os.kill(os.getpid(), 9)").data
    assert lost["status"] == "Failed"
    until("Failed", lambda: status(died["name"]).get("engineState") == "Failed", 30)
    assert status(died["name"])["reason"] in ("KernelDied", "AgentExited")
    assert "SIGKILL" in status(died["name"])["message"]

    small = gateway.create(resources={"memory": "256Mi"}).data
    gateway.execute(small["ticketId"], "x = bytearray(400 << 20); x[::4096] = b'1' * len(x[::4096])")
    until("Failed", lambda: status(small["name"]).get("engineState") == "Failed", 60)
    found = status(small["name"])
    assert found["reason"] == "OOMKilled", found["message"]
    assert "256Mi" in found["message"]
    row = until("the row", lambda: (r := record(small["ticketId"]))["record"]["status"] == "Failed" and r)
    assert row["reason"] == "OOMKilled"

"""kill -9 on the real node: the operator while an engine starts and while it works, the kernel, and memory run out."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from e2e.shared.engines import Engines
from e2e.shared.operators import kill_operator, operator_pod, renew_operator, restarts, until_running_again
from tools.cluster.tools import backend
from tools.testkit.cluster import kubectl, processes
from tools.testkit.cluster.waiting import NAMESPACE, Gate, pods, until_row, until_state
from tools.testkit.gateway.client import Gateway, texts

pytestmark = [pytest.mark.cluster, pytest.mark.release, pytest.mark.timeout(400)]


@pytest.fixture(autouse=True)
def fresh_operator(installation: Any) -> None:
    renew_operator()


@pytest.mark.parametrize("delay", [0.0, 0.15, 0.4])
def test_the_operator_killed_while_an_engine_starts_loses_nothing(engines: Engines, delay: float) -> None:
    name = engines.create()
    time.sleep(delay)
    kill_operator()
    found = until_state(name, "Idle", seconds=120)
    assert len(pods(name)) == 1
    row = until_row(found["ticketId"], "Idle")
    assert row["record"]["request_times"] == 1
    kubectl.must("delete", "ec", name, "-n", NAMESPACE)


def test_the_operator_killed_while_an_engine_works_loses_nothing(
    installation: Any, engines: Engines, port: int
) -> None:
    name, gate = engines.create(), Gate()
    ticket = until_state(name, "Idle")["ticketId"]
    uid = pods(name)[0]["metadata"]["uid"]
    with ThreadPoolExecutor(1) as background, Gateway("127.0.0.1", port, installation.token) as gateway:
        task = background.submit(gateway.execute, ticket, f"{gate.code}print('still here')")
        try:
            until_state(name, "Busy")
            kill_operator()
        finally:
            gate.open(name)
        assert texts(task.result(60).data) == "still here\n", "code waits on no operator"
    until_state(name, "Idle")
    assert [pod["metadata"]["uid"] for pod in pods(name)] == [uid]
    until_row(ticket, "Idle")
    kubectl.must("delete", "ec", name, "-n", NAMESPACE)
    until_row(ticket, "ShuttingDown", final=True)


def test_an_engine_deleted_while_the_operator_is_dead_gets_its_last_row(engines: Engines) -> None:
    name = engines.create()
    ticket = until_state(name, "Idle")["ticketId"]
    until_row(ticket, "Idle")
    before = restarts()
    if backend() == "node":
        assert processes.kill(operator_pod()["metadata"]["uid"], b"linkis_ecm operator") == 1
    kubectl.must("delete", "ec", name, "-n", NAMESPACE, "--wait=false")
    if backend() == "node":
        until_running_again(before)
    # Not the first row that says so: an operator that sees the pod go before it hears of the engine's deletion tells of
    # a drain.
    row = until_row(ticket, "ShuttingDown", final=True)
    assert row["record"]["release_times"] == 1


def test_a_killed_kernel_and_spent_memory_are_told(installation: Any, gateway: Gateway) -> None:
    died = gateway.create().data
    lost = gateway.execute(died["ticketId"], "import os; os.kill(os.getpid(), 9)").data
    assert lost["status"] == "Failed"
    found = until_state(died["name"], "Failed")
    assert found["reason"] in ("KernelDied", "AgentExited")
    assert "SIGKILL" in found["message"]

    small = gateway.create(resources={"memory": "256Mi"}).data
    gateway.execute(small["ticketId"], "x = bytearray(400 << 20); x[::4096] = b'1' * len(x[::4096])")
    found = until_state(small["name"], "Failed")
    assert found["reason"] == "OOMKilled", found["message"]
    assert "256 MiB" in found["message"]
    row = until_row(small["ticketId"], "Failed")
    assert row["reason"] == "OOMKilled"

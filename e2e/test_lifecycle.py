"""Ends and what is left of them on the real node: memory, images, nodes, restarts, culls, jobs, logs after the pod."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from e2e import kubectl
from e2e.conftest import NAMESPACE, pods, record, status, until
from e2e.gateway import BASE, Gateway, texts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


class Engines:
    """Makes engines by kubectl and takes them away."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, **spec: Any) -> str:
        name = f"life-{uuid.uuid4().hex[:6]}"
        body = {
            "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": name},
            "spec": {"engineType": "python", "user": "hadoop"} | spec,
        }  # fmt: skip
        kubectl.must("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(body))
        self.names.append(name)
        return name

    def ready(self, **spec: Any) -> str:
        name = self(**spec)
        until(f"{name} is Idle", lambda: status(name).get("engineState") == "Idle")
        return name


@pytest.fixture
def engines(installation: Any) -> Iterator[Engines]:
    made = Engines()
    yield made
    if made.names:
        kubectl.run("delete", "ec", *made.names, "-n", NAMESPACE, "--ignore-not-found", "--wait=false")


def failed(name: str, seconds: float = 60) -> dict[str, Any]:
    found: dict[str, Any] = until(
        f"{name} is Failed", lambda: (s := status(name)).get("engineState") == "Failed" and s, seconds
    )
    return found


def post_mortem(gateway: Gateway, ticket: str) -> dict[str, Any]:
    return gateway.request("GET", f"{BASE}/getPostMortem?engineId={ticket}").data


def test_an_out_of_memory_engine_leaves_a_post_mortem_that_says_so(engines: Engines, gateway: Gateway) -> None:
    name = engines.ready(resources={"memory": "256Mi"})
    ticket = status(name)["ticketId"]
    gateway.execute(ticket, "print('about to grow')")
    gateway.execute(ticket, "x = bytearray(400 << 20); x[::4096] = b'1' * len(x[::4096])")
    found = failed(name)
    assert found["reason"] == "OOMKilled"
    assert "256Mi" in found["message"]
    assert found["postMortem"]["files"]
    told = post_mortem(gateway, ticket)
    assert told["bundle"]["reason"] == "OOMKilled"
    assert told["bundle"]["pod"]["containers"], told
    kubectl.must("delete", "ec", name, "-n", NAMESPACE)
    until("no pod", lambda: not pods(name))
    lines = gateway.logs(ticket, logType="stdout", fromLine=1, lines=500).data["logs"]
    assert any("about to grow" in line for line in lines), "the log outlives pod and resource"


def test_logs_are_downloaded_after_the_engine_was_stopped_and_its_resource_deleted(
    engines: Engines, gateway: Gateway
) -> None:
    name = engines.ready()
    found = status(name)
    gateway.execute(found["ticketId"], "for n in range(5000): print('kept', n)")
    assert gateway.terminate(found["ticketId"]).ok
    ended = until("Success", lambda: (s := status(name)).get("engineState") == "Success" and s)
    assert {"stdout", "stderr", "bundle.json"} <= set(ended["postMortem"]["files"])
    assert "missing" not in ended["postMortem"]
    kubectl.must("delete", "ec", name, "-n", NAMESPACE)
    until("the resource is gone", lambda: not kubectl.run("get", "ec", name, "-n", NAMESPACE, "-o", "name").out)
    reply = gateway.download(
        emInstance=found["ecmInstance"], instance=found["serviceInstance"],
        logDirSuffix=found["logDirSuffix"], logType="stdout",
    )  # fmt: skip
    assert reply.http == 200, reply.message
    assert b"kept 4999\n" in reply.raw
    page = gateway.logs(found["ticketId"], logType="stdout", fromLine=1, lines=5).data
    assert page["rows"] == 5


def test_the_logs_of_a_deleted_engine_come_with_its_sigterm(engines: Engines, gateway: Gateway) -> None:
    name = engines.ready()
    ticket = status(name)["ticketId"]
    gateway.execute(ticket, "print('before the deletion')")
    kubectl.must("delete", "ec", name, "-n", NAMESPACE)

    def kept() -> bool:
        reply = gateway.logs(ticket, logType="stdout", fromLine=1, lines=500)
        return reply.ok and any("before the deletion" in line for line in reply.data["logs"])

    until("the log is in the archive", kept, 45)


def test_a_dead_kernel_is_told_with_its_signal_its_task_and_its_last_words(engines: Engines, gateway: Gateway) -> None:
    name = engines.ready()
    ticket = status(name)["ticketId"]
    # As a crashing library does: straight to the descriptor. What Python itself still buffers dies with it.
    code = "import os; os.write(2, b'last words\\n'); os.kill(os.getpid(), 11)"
    gateway.execute(ticket, code)
    found = failed(name)
    assert found["reason"] == "KernelDied"
    assert "SIGSEGV" in found["message"]
    assert "last words" in found["message"]
    told = post_mortem(gateway, ticket)
    assert "os.kill" in told["bundle"]["execution"]["code"]
    row = until("the row", lambda: (r := record(ticket))["record"]["status"] == "Failed" and r)
    assert json.loads(row["record"]["metrics"])["reason"] == "KernelDied"


def test_a_crashing_engine_is_restarted_and_then_a_dead_letter(engines: Engines, gateway: Gateway) -> None:
    name = engines.ready(restartPolicy={"type": "OnFailure", "maxAttempts": 2})
    ticket = status(name)["ticketId"]
    gateway.execute(ticket, "import os; os.kill(os.getpid(), 9)")
    again = until("attempt 1", lambda: (s := status(name)).get("attempt") == 1 and s, 30)
    assert again["lastEnd"]["reason"] == "KernelDied"
    until("Idle again", lambda: status(name).get("engineState") == "Idle", 60)
    assert len([p for p in pods(name) if p["status"]["phase"] == "Running"]) == 1
    assert gateway.execute(ticket, "6*7").data["outputs"][0]["text"] == "42"
    gateway.execute(ticket, "import os; os.kill(os.getpid(), 9)")
    found = failed(name)
    assert {c["type"]: c["status"] for c in found["conditions"]}["DeadLettered"] == "True"
    row = until("the row", lambda: (r := record(ticket))["final"] and r)
    assert (row["record"]["request_times"], row["record"]["used_times"], row["record"]["release_times"]) == (2, 2, 2)


def test_a_once_engine_runs_its_job_and_its_result_is_kept(engines: Engines, gateway: Gateway) -> None:
    name = engines(mode="once", code="print('working'); sum(range(10))")
    found = until("Success", lambda: (s := status(name)).get("engineState") == "Success" and s)
    assert found["reason"] == "Completed"
    told = post_mortem(gateway, found["ticketId"])
    assert texts(told["result"]) == "working\n45"
    steps = [t["state"] for t in record(found["ticketId"])["transitions"]]
    assert steps[-1] == "Success"


def test_a_once_engine_that_fails_says_why(engines: Engines, gateway: Gateway) -> None:
    name = engines(mode="once", code="import nothing_of_that_name")
    found = failed(name)
    assert found["reason"] == "JobFailed"
    assert "nothing_of_that_name" in found["message"]


def test_events_on_the_engine_tell_its_life(engines: Engines) -> None:
    name = engines.ready()

    def reasons() -> set[str]:
        items = kubectl.get("events.v1.events.k8s.io", "-n", NAMESPACE)["items"]
        return {item["reason"] for item in items if item["regarding"].get("name") == name}

    until("events", lambda: {"PodCreated", "KernelReady"} <= reasons(), 20)


def test_a_config_that_cannot_be_is_told_before_the_start_timeout(engines: Engines) -> None:
    name = engines(
        startTimeout="60s",
        volumes=[{"name": "x", "mountPath": "/x", "secret": {"secretName": "no-such-secret"}}],
    )
    until("a reason", lambda: status(name).get("engineState") == "Starting")
    time.sleep(3)
    found = status(name)
    assert found["engineState"] == "Starting"
    kubectl.must("delete", "ec", name, "-n", NAMESPACE)


def test_a_quota_is_told_and_waited_out(engines: Engines) -> None:
    quota = json.dumps({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight"},
        "spec": {"hard": {"requests.memory": "1Mi"}},
    })  # fmt: skip
    kubectl.must("apply", "-n", NAMESPACE, "-f", "-", stdin=quota)
    try:
        until("the quota counts", lambda: kubectl.get("quota", "tight", "-n", NAMESPACE).get("status", {}).get("used"))
        name = engines()
        found = until("QuotaExceeded", lambda: (s := status(name)).get("reason") == "QuotaExceeded" and s, 30)
        assert "tight" in found["message"]
    finally:
        kubectl.run("delete", "quota", "tight", "-n", NAMESPACE)
    until("Idle", lambda: status(name).get("engineState") == "Idle", 60)


def test_a_deleted_namespace_leaves_final_rows(engines: Engines, gateway: Gateway) -> None:
    space = f"e2e-gone-{uuid.uuid4().hex[:6]}"
    kubectl.must("create", "namespace", space)
    body = {
        "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": "e", "namespace": space},
        "spec": {"engineType": "python", "user": "hadoop"},
    }  # fmt: skip
    made = json.loads(kubectl.must("create", "-o", "json", "-f", "-", stdin=json.dumps(body)))
    uid = made["metadata"]["uid"]
    until("Idle", lambda: kubectl.get("ec", "e", "-n", space).get("status", {}).get("engineState") == "Idle")
    kubectl.must("delete", "namespace", space, "--wait=true", "--timeout=90s", seconds=120)
    row = until("the final row", lambda: (r := record(uid))["final"] and r)
    assert row["record"]["status"] == "ShuttingDown"


def test_explain_and_preview_answer_for_a_real_engine(engines: Engines, gateway: Gateway) -> None:
    name = engines.ready(idleTimeout="10m")
    ticket = status(name)["ticketId"]
    told = gateway.request("GET", f"{BASE}/explainEngine?engineId={ticket}").data
    assert told["heard"] is True
    (deadline,) = [d for d in told["deadlines"] if d["name"] == "idleTimeout"]
    assert 500 < deadline["inSeconds"] <= 600
    preview = gateway.request("GET", f"{BASE}/previewCull?withinSeconds=700").data
    assert ticket in [candidate["engineId"] for candidate in preview["culled"]]


def test_the_canary_flies_on_the_real_cluster(installation: Any) -> None:
    def flown() -> bool:
        out = kubectl.must(
            "exec", "-n", NAMESPACE, "deployment/linkis-ecm", "-c", "operator", "--", "python", "-c",
            "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9104/metrics').read().decode())",
        )  # fmt: skip
        return "ecm_canary_ok 1.0" in out

    until("a canary round", flown, 90)

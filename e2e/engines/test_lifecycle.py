"""Ends and what is left of them on the real node: memory, images, nodes, restarts, culls, jobs, logs after the pod."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.shared.engines import Engines
from e2e.shared.release import upgrade
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import Installation
from tools.testkit.cluster.waiting import (
    NAMESPACE,
    RELEASE_NAMESPACE,
    pods,
    status,
    until,
    until_holds,
    until_row,
    until_state,
)
from tools.testkit.gateway.client import BASE, Gateway, texts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(500)]


def post_mortem(gateway: Gateway, ticket: str) -> dict[str, Any]:
    return gateway.request("GET", f"{BASE}/getPostMortem?engineId={ticket}").data


def test_an_out_of_memory_engine_leaves_a_post_mortem_that_says_so(engines: Engines, gateway: Gateway) -> None:
    name, _ = engines.ready(resources={"memory": "256Mi"})
    ticket = status(name)["ticketId"]
    gateway.execute(ticket, "print('about to grow')").data  # noqa: B018 - it raises where the call failed
    gateway.execute(ticket, "x = bytearray(400 << 20); x[::4096] = b'1' * len(x[::4096])")
    found = until_state(name, "Failed")
    assert found["reason"] == "OOMKilled"
    assert "256 MiB" in found["message"]
    assert found["postMortem"]["files"]
    told = post_mortem(gateway, ticket)
    assert told["bundle"]["reason"] == "OOMKilled"
    assert told["bundle"]["pod"]["containers"], told
    kubectl.must("delete", "ec", name, "-n", NAMESPACE)
    until_holds("no pod", lambda: pods(name), lambda left: not left)
    lines = gateway.logs(ticket, logType="stdout", fromLine=1, lines=500).data["logs"]
    assert any("about to grow" in line for line in lines), "the log outlives pod and resource"


def test_logs_are_downloaded_after_the_engine_was_stopped_and_its_resource_deleted(
    engines: Engines, gateway: Gateway
) -> None:
    name, _ = engines.ready()
    found = status(name)
    gateway.execute(found["ticketId"], "for n in range(5000): print('kept', n)").data  # noqa: B018 - as above
    assert gateway.terminate(found["ticketId"]).ok
    ended = until_state(name, "Success")
    assert {"stdout", "stderr", "bundle.json"} <= set(ended["postMortem"]["files"])
    assert "missing" not in ended["postMortem"]
    kubectl.must("delete", "ec", name, "-n", NAMESPACE)
    ticket = found["ticketId"]
    until_holds("the gateway knows its end", lambda: gateway.status(ticket).data, lambda told: told["finishedTime"])
    reply = gateway.download(
        emInstance=found["ecmInstance"], instance=found["serviceInstance"],
        logDirSuffix=found["logDirSuffix"], logType="stdout",
    )  # fmt: skip
    assert reply.http == 200, reply.message
    assert b"kept 4999\n" in reply.raw
    page = gateway.logs(found["ticketId"], logType="stdout", fromLine=1, lines=5).data
    assert page["rows"] == 5


def test_the_logs_of_a_deleted_engine_come_with_its_sigterm(engines: Engines, gateway: Gateway) -> None:
    name, _ = engines.ready()
    ticket = status(name)["ticketId"]
    gateway.execute(ticket, "print('before the deletion')").data  # noqa: B018 - as above
    kubectl.must("delete", "ec", name, "-n", NAMESPACE)

    def kept() -> bool:
        reply = gateway.logs(ticket, logType="stdout", fromLine=1, lines=500)
        return reply.ok and any("before the deletion" in line for line in reply.data["logs"])

    until("the log is in the archive", kept)


def test_a_dead_kernel_is_reported_with_its_signal_task_and_last_stderr_lines(
    engines: Engines, gateway: Gateway
) -> None:
    name, _ = engines.ready()
    ticket = status(name)["ticketId"]
    # As a crashing library does: straight to the descriptor. What Python itself still buffers dies with it.
    code = "import os; os.write(2, b'last words\\n'); os.kill(os.getpid(), 11)"
    gateway.execute(ticket, code)
    found = until_state(name, "Failed")
    assert found["reason"] == "KernelDied"
    assert "SIGSEGV" in found["message"]
    assert "last words" in found["message"]
    told = post_mortem(gateway, ticket)
    assert "os.kill" in told["bundle"]["execution"]["code"]
    row = until_row(ticket, "Failed")
    assert json.loads(row["record"]["metrics"])["reason"] == "KernelDied"


def test_a_crashing_engine_is_restarted_and_then_a_dead_letter(engines: Engines, gateway: Gateway) -> None:
    name, _ = engines.ready(restartPolicy={"type": "OnFailure", "maxAttempts": 2})
    ticket = status(name)["ticketId"]
    gateway.execute(ticket, "import os; os.kill(os.getpid(), 9)")
    again = until_holds("attempt 1", lambda: status(name), lambda s: s.get("attempt") == 1)
    assert again["lastEnd"]["reason"] == "KernelDied"
    until_state(name, "Idle", seconds=120)
    assert len([p for p in pods(name) if p["status"]["phase"] == "Running"]) == 1
    assert gateway.execute(ticket, "6*7").data["outputs"][0]["text"] == "42"
    gateway.execute(ticket, "import os; os.kill(os.getpid(), 9)")
    found = until_state(name, "Failed")
    assert {c["type"]: c["status"] for c in found["conditions"]}["DeadLettered"] == "True"
    row = until_row(ticket, "Failed", final=True)
    assert (row["record"]["request_times"], row["record"]["used_times"], row["record"]["release_times"]) == (2, 2, 2)


def test_a_once_engine_runs_its_job_and_its_result_is_kept(engines: Engines, gateway: Gateway) -> None:
    name = engines.create(mode="once", code="print('working'); sum(range(10))")
    found = until_state(name, "Success")
    assert found["reason"] == "Completed"
    told = post_mortem(gateway, found["ticketId"])
    assert texts(told["result"]) == "working\n45"
    steps = [t["state"] for t in until_row(found["ticketId"], "Success", final=True)["transitions"]]
    assert steps[-1] == "Success"


def test_a_once_engine_that_fails_says_why(engines: Engines, gateway: Gateway) -> None:
    name = engines.create(mode="once", code="import nothing_of_that_name")
    found = until_state(name, "Failed")
    assert found["reason"] == "JobFailed"
    assert "nothing_of_that_name" in found["message"]


def test_events_on_the_engine_tell_its_life(engines: Engines) -> None:
    name, _ = engines.ready()

    def reasons() -> set[str]:
        items = kubectl.get("events.v1.events.k8s.io", "-n", NAMESPACE)["items"]
        return {item["reason"] for item in items if item["regarding"].get("name") == name}

    until_holds("events", reasons, {"PodCreated", "KernelReady"}.issubset)


@pytest.mark.release
def test_a_quota_is_told_and_waited_out(engines: Engines) -> None:
    quota = json.dumps({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight"},
        "spec": {"hard": {"requests.memory": "1Mi"}},
    })  # fmt: skip
    kubectl.must("apply", "-n", NAMESPACE, "-f", "-", stdin=quota)
    try:
        until("the quota counts", lambda: kubectl.get("quota", "tight", "-n", NAMESPACE).get("status", {}).get("used"))
        name = engines.create()
        found = until_holds("QuotaExceeded", lambda: status(name), lambda s: s.get("reason") == "QuotaExceeded")
        assert "tight" in found["message"]
    finally:
        # What follows cannot make a pod while it is there.
        kubectl.must("delete", "quota", "tight", "-n", NAMESPACE)
    until_state(name, "Idle", seconds=120)


@pytest.fixture
def every_namespace(installation: Installation) -> Iterator[None]:
    """The release serves all namespaces for as long as the test runs."""
    upgrade("clusterWide=true")
    yield
    upgrade()


@pytest.mark.alone
def test_a_deleted_namespace_leaves_final_rows(every_namespace: None) -> None:
    space = f"e2e-gone-{uuid.uuid4().hex[:6]}"
    kubectl.must("create", "namespace", space)
    body = {
        "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": "e", "namespace": space},
        "spec": {"engineType": "python", "user": "hadoop"},
    }  # fmt: skip
    made = json.loads(kubectl.must("create", "-o", "json", "-f", "-", stdin=json.dumps(body)))
    uid = made["metadata"]["uid"]
    until_holds(
        "Idle", lambda: kubectl.get("ec", "e", "-n", space).get("status", {}), lambda s: s.get("engineState") == "Idle"
    )
    # Kubernetes looks again after 15 s and more where a pod is not gone at once.
    kubectl.must("delete", "namespace", space, "--wait=true", "--timeout=150s", seconds=180)
    until_row(uid, "ShuttingDown", final=True)


def test_explain_and_preview_answer_for_a_real_engine(engines: Engines, gateway: Gateway) -> None:
    name, _ = engines.ready(idleTimeout="10m")
    ticket = status(name)["ticketId"]
    told = gateway.request("GET", f"{BASE}/explainEngine?engineId={ticket}").data
    assert told["agentAnswered"] is True
    (deadline,) = [d for d in told["deadlines"] if d["name"] == "idleTimeout"]
    assert 500 < deadline["inSeconds"] <= 600

    def culled() -> list[str]:
        preview = gateway.request("GET", f"{BASE}/previewCull?withinSeconds=700").data
        return [candidate["engineId"] for candidate in preview["culled"]]

    # What kubectl shows, the gateway's watch shows it a moment later.
    until_holds("the preview has it", culled, lambda engines: ticket in engines)


def test_the_canary_flies_on_the_real_cluster(installation: Any) -> None:
    def told() -> list[str]:
        out = kubectl.must(
            "exec", "-n", RELEASE_NAMESPACE, "deployment/linkis-ecm-operator", "-c", "operator", "--", "python", "-c",
            "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9104/metrics').read().decode())",
        )  # fmt: skip
        return [line for line in out.splitlines() if line.startswith("ecm_canary_ok")]

    # A round a minute; one that came upon a busy moment is followed by another.
    until_holds("a canary round", told, lambda lines: "ecm_canary_ok 1.0" in lines, 200)

"""The gateway on a real cluster: a pod resized in place, Kubernetes's own tokens, a task whose engine is lost."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from linkis_ecm.client import EcmClient
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.waiting import NAMESPACE, pods, until, until_holds
from tools.testkit.gateway.client import BASE, Gateway

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
LINKIS = "/api/rest_j/v1/linkisManager"
SMALL = {"cpu": "50m", "memory": "300Mi"}


@pytest.fixture(scope="module")
def ticket(installation: Any) -> Iterator[str]:
    """An engine by Linkis's own call."""
    with installation.forward() as port, Gateway("127.0.0.1", port, installation.token) as gateway:
        body = {"labels": {"engineType": "python", "userCreator": "hadoop-IDE"}, "timeout": 80_000}
        made = gateway.request("POST", f"{LINKIS}/createEngineConn", body).data["engine"]
        yield made["ticketId"]
        assert gateway.terminate(made["ticketId"]).ok


def test_an_engine_is_resized_in_place_and_keeps_its_memory(ticket: str, gateway: Gateway) -> None:
    name = gateway.status(ticket).data["name"]
    gateway.execute(ticket, "kept = 6 * 7").data  # noqa: B018 - it raises where the call failed
    (before,) = pods(name)
    answer = gateway.request("POST", f"{BASE}/updateResource", {"engineId": ticket, "resources": SMALL})
    assert answer.data["after"]["memory"] == "300Mi", answer.data
    (after,) = pods(name)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["containers"][0]["resources"]["limits"]["memory"] == "300Mi"
    (container,) = after["status"]["containerStatuses"]
    assert container["restartCount"] == 0
    assert container["resources"]["limits"]["memory"] == "300Mi", "as the kubelet has it"
    assert gateway.execute(ticket, "kept").data["outputs"][0]["text"] == "42"
    assert kubectl.get("ec", name, "-n", NAMESPACE)["spec"]["resources"] == SMALL
    usage = gateway.request("GET", f"{BASE}/getResourceUsage?{urlencode({'engineId': ticket})}").data
    assert usage["requested"]["memory"] == "300Mi"
    assert usage["used"]["source"] == "agent"
    assert usage["used"]["memoryBytes"] > 1 << 20


def test_more_than_the_plugin_allows_is_refused_and_changes_nothing(ticket: str, gateway: Gateway) -> None:
    name = gateway.status(ticket).data["name"]
    asked = {"engineId": ticket, "resources": {"memory": "900Gi"}}
    refused = gateway.request("POST", f"{BASE}/updateResource", asked)
    assert not refused.ok
    (pod,) = pods(name)
    assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] != "900Gi"


def test_a_submitted_task_is_in_the_journal_whatever_becomes_of_its_engine(gateway: Gateway) -> None:
    ticket = gateway.create().data["ticketId"]
    task = gateway.execute(ticket, "import time; time.sleep(600)", wait=False).data
    name = gateway.status(ticket).data["name"]
    (pod,) = pods(name)
    kubectl.must("delete", "pod", pod["metadata"]["name"], "-n", NAMESPACE, "--grace-period=0", "--force")
    query = urlencode({"engineId": ticket, "taskId": task["taskId"]})

    def over() -> dict[str, Any] | None:
        told = gateway.request("GET", f"{BASE}/getTask?{query}")
        return told.data if told.ok and told.data["final"] else None

    told = until("the task has an end", over)
    assert told["status"] in ("Lost", "Cancelled")
    assert told["status"] == "Cancelled" or told["message"]
    gateway.terminate(ticket)


def test_a_kubernetes_token_logs_in_as_far_as_its_rights_go(installation: Any, gateway: Gateway) -> None:
    accounts = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}} for name in ("analyst", "stranger")
    ]
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "analyst"},
        "rules": [{"apiGroups": ["linkis.apache.org"], "resources": ["engineconns"], "verbs": ["create"]}],
    }  # fmt: skip
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "analyst"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "analyst"},
        "subjects": [{"kind": "ServiceAccount", "name": "analyst", "namespace": NAMESPACE}],
    }  # fmt: skip
    for body in (*accounts, role, binding):
        kubectl.must("apply", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(body))
    # The API server's own cache of roles is behind, and the gateway remembers a refusal.
    asking = ("auth", "can-i", "create", "engineconns.linkis.apache.org", "-n", NAMESPACE, "--as")
    analyst_user = f"system:serviceaccount:{NAMESPACE}:analyst"
    until_holds("the rights count", lambda: kubectl.run(*asking, analyst_user), lambda answer: answer.code == 0)

    def listed(token: str) -> int:
        connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=30)
        connection.request("GET", f"{BASE}/listEngines", headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().status

    analyst = kubectl.must("create", "token", "analyst", "-n", NAMESPACE).strip()
    stranger = kubectl.must("create", "token", "stranger", "-n", NAMESPACE).strip()
    began = time.monotonic()
    assert listed(analyst) == 200
    assert listed(stranger) == 403
    assert listed(analyst[:-4] + "AAAA") == 401
    assert time.monotonic() - began < 10


def test_linkis_console_reads_log_record_and_ecm(ticket: str, gateway: Gateway) -> None:
    gateway.execute(ticket, "print('for the console')").data  # noqa: B018
    instance = gateway.status(ticket).data["serviceInstance"]
    body = {"instance": instance, "emInstance": "", "parameters": {"logType": "stdout", "fromLine": 0, "pageSize": 50}}
    log = gateway.request("POST", f"{LINKIS}/openEngineLog", body).data
    assert log["isError"] is False
    assert any("for the console" in line for line in log["result"]["logs"])
    row = until("its row", lambda: gateway.request("GET", f"{LINKIS}/ecinfo/get?ticketid={ticket}").body.get("data"))
    assert row["ecResourceInfoRecord"]["ticketId"] == ticket
    ems = gateway.as_user("root").request("GET", f"{LINKIS}/listAllEMs").data["EMs"]
    assert ems[0]["usedResource"]["instance"] >= 1


def test_a_job_runs_once_and_its_result_outlives_its_pod(gateway: Gateway) -> None:
    made = gateway.create(mode="once", code="import duckdb; duckdb.sql('select sum(range) as s from range(10)')")
    ticket = made.data["ticketId"]

    ended = until_holds("the job has ended", lambda: gateway.status(ticket).data, lambda told: told["finishedTime"])
    assert ended["status"] == "Success"
    kept = gateway.request("GET", f"{BASE}/getPostMortem?{urlencode({'engineId': ticket})}").data
    (table,) = [output for output in kept["result"]["outputs"] if output["type"] == "table"]
    assert table["rows"] == [[45]]


def test_a_long_table_is_read_in_pages_and_outlives_its_engine(installation: Any, tmp_path: Path) -> None:
    with (
        installation.forward() as port,
        EcmClient(f"http://127.0.0.1:{port}", token=installation.token, user="hadoop") as client,
    ):
        with client.engine("python") as engine:
            task = engine.execute(
                "import duckdb; duckdb.sql('select range as n, range * 2 as twice from range(20000)')"
            )
            live = engine.result_set(task.task_id, from_row=19_999)
            assert (live.total_rows, live.rows) == (20_000, [[19_998, 39_996], [19_999, 39_998]])

        # Not by its state: a record tells ShuttingDown of one that was killed, and so does a drain under way.
        until_holds(
            "the engine has ended", lambda: client.get_engine_status(engine.engine_id), lambda told: told.finished_time
        )
        kept = client.get_result_set(engine.engine_id, task.task_id, from_row=19_999)
        assert kept.rows == live.rows
        size = client.download_result_set(engine.engine_id, tmp_path / "r.dolphin", task.task_id, format="dolphin")
        assert (tmp_path / "r.dolphin").read_bytes()[:17] == b"dolphin0000000002"
        assert size > 20_000 * 20

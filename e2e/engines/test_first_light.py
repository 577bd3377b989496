"""The main job on a real cluster: an engine by kubectl and by the gateway, code, states, rows, logs, refusals."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.engine.pod.launch import IDENTITY_AUDIENCE
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.waiting import NAMESPACE, Gate, pods, status, until_holds, until_row, until_state
from tools.testkit.gateway.client import BASE, Gateway, texts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
SAMPLES = Path(__file__).parents[2] / "manifests/samples"


@pytest.fixture(scope="module")
def engine(installation: Any) -> Iterator[str]:
    """The sample engine, applied by kubectl, ready."""
    kubectl.must("apply", "-n", NAMESPACE, "-f", str(SAMPLES / "engine.yaml"))
    kubectl.must("wait", "-n", NAMESPACE, "ec/first-light", "--for=condition=Ready", "--timeout=90s")
    yield "first-light"
    kubectl.run("delete", "ec", "first-light", "-n", NAMESPACE)


def test_an_applied_engine_is_idle_with_addresses_and_startup_timings(engine: str) -> None:
    found = status(engine)
    uid = kubectl.get("ec", engine, "-n", NAMESPACE)["metadata"]["uid"]
    assert found["engineState"] == "Idle"
    assert found["ticketId"] == uid
    assert found["serviceInstance"].endswith(f".linkis-engines.{NAMESPACE}:9105")
    phases = ["accepted", "scheduled", "containerStarted", "agentStarted", "kernelReady", "ready"]
    assert all(found["startup"][phase] for phase in phases), found["startup"]


def test_its_pod_is_restricted_and_has_no_token_of_the_api_server(engine: str) -> None:
    (pod,) = pods(engine)
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    # One token that proves its pod to the operator: for our audience, so the API server takes it not.
    projected = [volume["projected"]["sources"] for volume in spec["volumes"] if "projected" in volume]
    assert [[source["serviceAccountToken"]["audience"] for source in sources] for sources in projected] == [
        [IDENTITY_AUDIENCE]
    ]
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in spec["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_kubectl_get_shows_state_reason_type_and_user(engine: str) -> None:
    header, line = kubectl.must("get", "ec", engine, "-n", NAMESPACE).splitlines()
    assert header.split()[:6] == ["NAME", "STATE", "READY", "REASON", "TYPE", "USER"]
    assert line.split()[:6] == [engine, "Idle", "True", "KernelReady", "python", "hadoop"]


def test_code_gives_text_table_picture_and_error(engine: str, gateway: Gateway) -> None:
    ticket = status(engine)["ticketId"]
    result = gateway.execute(ticket, (SAMPLES / "stocks.py").read_text()).data
    assert result["status"] == "Succeed"
    kinds = {output["type"] for output in result["outputs"]}
    assert {"text", "table", "picture"} <= kinds
    assert "391 months, 1990-01 to 2022-06" in texts(result)
    (table,) = [output for output in result["outputs"] if output["type"] == "table"]
    assert [column["name"] for column in table["columns"]] == ["company", "first_price", "last_price", "times"]
    assert table["rows"][0][0] == "AMZN"
    (picture,) = [output for output in result["outputs"] if output["type"] == "picture"]
    assert base64.b64decode(picture["data"]).startswith(b"\x89PNG")

    failed = gateway.execute(ticket, "1/0").data
    assert failed["status"] == "Failed"
    (error,) = [output for output in failed["outputs"] if output["type"] == "error"]
    assert error["name"] == "ZeroDivisionError"
    assert any("1/0" in line for line in error["traceback"])


def test_a_running_task_shows_as_busy_in_status_and_row_and_idle_after(engine: str, gateway: Gateway) -> None:
    ticket, gate = status(engine)["ticketId"], Gate()
    with ThreadPoolExecutor(1) as background, gateway.as_user("hadoop") as other:
        task = background.submit(other.execute, ticket, f"{gate.code}print('done')")
        try:
            until_state(engine, "Busy")
            until_row(ticket, "Busy")
            assert gateway.status(ticket).data["status"] == "Busy"
        finally:
            gate.open(engine)
        assert texts(task.result(60).data) == "done\n"
    until_state(engine, "Idle")
    until_row(ticket, "Idle")


def test_logs_are_read_by_line_and_downloaded_whole(engine: str, gateway: Gateway) -> None:
    found = status(engine)
    ticket = found["ticketId"]
    gateway.execute(ticket, "for n in range(200): print('line', n)").data  # noqa: B018
    logs = gateway.logs(ticket, logType="stdout", fromLine=1, lines=5000).data
    assert any("line 199" in line for line in logs["logs"])
    reply = gateway.download(
        emInstance=found["ecmInstance"], instance=found["serviceInstance"],
        logDirSuffix=found["logDirSuffix"], logType="stdout",
    )  # fmt: skip
    assert reply.http == 200
    assert b"line 199\n" in reply.raw
    assert int(reply.headers["content-length"]) == len(reply.raw)
    name = found["serviceInstance"].replace(":", "_")
    assert f"{name}_stdout.txt" in reply.headers["content-disposition"]


BAD_DOWNLOADS = [
    ({"logType": "secret"}, "logType only supports"),
    ({"logType": "../../etc/passwd"}, "logType only supports"),
    ({"logDirSuffix": "../../../etc"}, "logDirSuffix"),
    ({"logDirSuffix": "/etc"}, "logDirSuffix"),
    ({"logDirSuffix": " "}, "logDirSuffix"),
    ({"instance": ""}, "instance"),
]


@pytest.mark.parametrize(("change", "names"), BAD_DOWNLOADS)
def test_a_bad_download_is_refused_in_a_sentence(
    engine: str, gateway: Gateway, change: dict[str, str], names: str
) -> None:
    found = status(engine)
    good = {
        "emInstance": found["ecmInstance"], "instance": found["serviceInstance"],
        "logDirSuffix": found["logDirSuffix"], "logType": "stdout",
    }  # fmt: skip
    reply = gateway.download(**(good | change))
    assert reply.http == 400
    assert names in reply.message


def test_another_user_may_neither_run_nor_read_nor_stop(engine: str, gateway: Gateway) -> None:
    found = status(engine)
    with gateway.as_user("eve") as eve:
        replies = [
            eve.execute(found["ticketId"], "1"),
            eve.status(found["ticketId"]),
            eve.logs(found["ticketId"], logType="stdout", fromLine=1, lines=1),
            eve.terminate(found["ticketId"]),
            eve.download(
                emInstance=found["ecmInstance"], instance=found["serviceInstance"],
                logDirSuffix=found["logDirSuffix"], logType="stdout",
            ),
        ]  # fmt: skip
        for reply in replies:
            assert reply.http in (400, 403), reply
            assert reply.message
        assert eve.engines().data["engines"] == []
    assert kubectl.get("ec", engine, "-n", NAMESPACE)["spec"]["desiredState"] == "Running"
    # A test before this one may have had it run code, which shows for a second longer.
    until_state(engine, "Idle")
    with gateway.as_user("root") as admin:
        until_holds("as an admin sees it", lambda: admin.status(found["ticketId"]).data["status"], "Idle".__eq__)


def test_a_wrong_token_is_refused(installation: Any, gateway: Gateway) -> None:
    with gateway.as_user("hadoop", token="guess") as stranger:
        assert stranger.engines().http == 401


def test_an_engine_made_by_the_gateway_lives_and_ends_as_the_row_says(gateway: Gateway) -> None:
    ticket = str(uuid.uuid4())
    made = gateway.create(ticketId=ticket).data
    assert made["ticketId"] == ticket
    assert gateway.execute(ticket, "6*7").data["outputs"][0]["text"] == "42"
    again = gateway.create(ticketId=ticket).data
    assert again["serviceInstance"] == made["serviceInstance"], "creation is idempotent on the ticket"
    assert ticket in [engine["ticketId"] for engine in gateway.engines().data["engines"]]
    assert gateway.terminate(ticket).ok
    row = until_row(ticket, "ShuttingDown", final=True)
    assert row["record"]["label_value"] == "hadoop-IDE,python-3.11"
    assert (row["record"]["request_times"], row["record"]["used_times"], row["record"]["release_times"]) == (1, 1, 1)
    assert json.loads(row["record"]["used_resource"])["instance"] == 1
    assert row["record"]["service_instance"] == made["serviceInstance"]
    states = [transition["state"] for transition in row["transitions"]]
    assert states[:2] == ["Starting", "Idle"]
    assert "ShuttingDown" in states
    refused = gateway.execute(ticket, "1")
    assert refused.http == 400
    assert refused.message
    assert gateway.terminate(ticket).ok, "stopping twice is harmless"


def test_an_unknown_engine_type_is_refused_before_anything_is_made(gateway: Gateway) -> None:
    # Of that type alone: the operator's canary comes and goes in this namespace.
    def made() -> set[str]:
        items = kubectl.get("ec", "-n", NAMESPACE, "--field-selector", "spec.engineType=cobol")["items"]
        return {item["metadata"]["uid"] for item in items}

    before = made()
    reply = gateway.create(engineType="cobol")
    assert reply.http == 400
    assert "engineType" in reply.message
    assert "cobol" in reply.message
    assert made() <= before


def test_an_unknown_engine_type_by_kubectl_fails_with_the_reason(installation: Any) -> None:
    body = {
        "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn", "metadata": {"name": "no-plugin"},
        "spec": {"engineType": "cobol", "user": "hadoop", "startTimeout": "3s"},
    }  # fmt: skip
    kubectl.must("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(body))
    found = until_holds("the reason", lambda: status("no-plugin"), lambda s: s.get("reason") == "PluginMissing")
    assert "kubectl get ecp" in found["message"]
    kubectl.must("delete", "ec", "no-plugin", "-n", NAMESPACE)


def test_code_while_starting_and_a_body_over_the_limit_are_refused(engine: str, gateway: Gateway) -> None:
    ticket = str(uuid.uuid4())
    assert gateway.create(ticketId=ticket, wait=False).ok
    refused = gateway.execute(ticket, "1")
    assert refused.http == 400
    assert "Starting" in refused.message
    assert gateway.terminate(ticket).ok
    with gateway.as_user("hadoop") as other:
        big = other.request("POST", f"{BASE}/executeCode", b'{"code": "' + b"x" * (9 << 20) + b'"}')
    assert big.http == 413
    assert big.message
    missing = gateway.request("POST", f"{BASE}/executeCode", {"engineId": status(engine)["ticketId"]})
    assert missing.http == 400
    assert "code" in missing.message

"""Tasks through the gateway, with a real agent, a real kernel and the journal in a real SQLite file."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from linkis_ecm.gateway.http.sender import Sender
from linkis_ecm.gateway.inventory.history import History
from linkis_ecm.gateway.inventory.view import view_of
from linkis_ecm.gateway.journal import ExecutionJournal, Observation, Settler, settled, with_report
from linkis_ecm.gateway.methods.tasks import task_id_for_key
from linkis_ecm.model.record import ExecutionRecord
from tools.testkit.agents.process import AgentProcess, until
from tools.testkit.gateway import harness
from tools.testkit.gateway.harness import BASE, PATIENCE, TOKEN, Harness, engine_item
from tools.testkit.gateway.real_agents import AGENT_TOKEN, NAME, UID, engine_at
from tools.testkit.gateway.stores import Store, store_in


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with store_in(tmp_path) as opened:
        yield opened


@pytest.fixture
async def gw(make: Callable[..., Awaitable[Harness]], store: Store) -> Harness:
    return await make(database=store.parts)


async def over(gw: Harness, engine: dict[str, Any], task_id: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        while True:
            task: dict[str, Any] = (
                await gw.get("getTask", {"engineId": engine["metadata"]["uid"], "taskId": task_id})
            ).data
            if task["final"]:
                return task
            await asyncio.sleep(0.02)


async def test_a_submitted_task_is_followed_by_its_id_to_its_result(gw: Harness, engine: dict[str, Any]) -> None:
    task = (await gw.execute(engine, "print('here'); 6*7", wait=False)).data
    assert task["status"] in ("Scheduled", "Running", "Succeed")
    assert not task["reason"]
    ended = await over(gw, engine, task["taskId"])
    assert (ended["status"], ended["caller"], ended["runType"]) == ("Succeed", "alice", "python")
    query = {"engineId": engine["metadata"]["uid"], "taskId": task["taskId"]}
    result = (await gw.get("getTaskResult", query)).data
    assert [output["text"] for output in result["outputs"]] == ["here\n", "42"]
    listed = (await gw.get("listTasks", {"engineId": engine["metadata"]["uid"]})).data["tasks"]
    assert listed[0]["taskId"] == task["taskId"]
    assert listed[0]["firstLine"] == "print('here'); 6*7"


async def test_a_key_sent_again_runs_nothing_twice(gw: Harness, engine: dict[str, Any]) -> None:
    code, key = "n = globals().get('n', 0) + 1; n", uuid.uuid4().hex
    first = (await gw.execute(engine, code, idempotencyKey=key)).data
    again = (await gw.execute(engine, code, idempotencyKey=key)).data
    assert first["taskId"] == again["taskId"]
    assert first["outputs"] == again["outputs"]
    other = await gw.execute(engine, "something else", idempotencyKey=key)
    assert other.http == 400
    assert "was given to other code" in other.message


async def test_another_users_task_is_not_told(gw: Harness, engine: dict[str, Any]) -> None:
    task = (await gw.execute(engine, "1")).data
    for method in ("getTask", "getTaskResult", "taskEvents", "listTasks"):
        query = {"engineId": engine["metadata"]["uid"]} | ({} if method == "listTasks" else {"taskId": task["taskId"]})
        assert (await gw.get(method, query, user="bob")).http == 403, method
    answer = await gw.post("cancelTask", {"engineId": engine["metadata"]["uid"], "taskId": task["taskId"]}, user="bob")
    assert answer.http == 403


async def test_a_task_is_told_while_it_runs_and_cancelled(gw: Harness, engine: dict[str, Any]) -> None:
    code = "print('begun', flush=True)\nimport time\nwhile True: time.sleep(0.05)"
    task = (await gw.execute(engine, code, wait=False)).data
    query = {"engineId": engine["metadata"]["uid"], "taskId": task["taskId"]}
    events: list[tuple[str, dict[str, Any]]] = []
    headers = {"Token-Code": TOKEN, "Token-User": "alice"}
    async with gw.session.get(f"{gw.url}{BASE}/taskEvents", params=query, headers=headers) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        name = ""
        async for raw in stream.content:
            line = raw.decode().rstrip("\n")
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                events.append((name, json.loads(line[6:])))
                if "begun" in json.dumps(events[-1]):
                    assert (await gw.post("cancelTask", query)).http == 200
    assert [name for name, _ in events][-1] == "end"
    assert events[-1][1]["status"] == "Cancelled"
    assert (await over(gw, engine, task["taskId"]))["status"] == "Cancelled"


async def test_code_that_the_engine_refuses_is_refused_in_the_journal(
    gw: Harness, engine: dict[str, Any], store: Store
) -> None:
    key = uuid.uuid4().hex
    await gw.execute(engine, "1", idempotencyKey=key)
    await gw.execute(engine, "2", idempotencyKey=key)
    assert store.journal.flush(PATIENCE)
    record = store.queries.execution(task_id_for_key(view_of(engine), key))
    assert record is not None
    assert record.status == "Succeed", "a final line stays"


async def test_code_that_was_refused_and_is_sent_again_with_its_key_ends_as_it_ended_then(
    gw: Harness, store: Store
) -> None:
    answers = [
        web.json_response({"error": "16 tasks wait already"}, status=429),
        web.json_response({"taskId": "t", "status": "Succeed", "endedAt": 2.0, "outputs": []}),
    ]

    async def agent(request: web.Request) -> web.Response:
        return answers.pop(0) if request.path == "/v1/execute" else web.Response(status=404)

    _, engine = await gw.served(agent, name="python-alice-full")
    refused = await gw.execute(engine, "1", idempotencyKey="k")
    assert refused.http == 429
    assert store.journal.flush(PATIENCE)
    record = store.queries.execution(task_id_for_key(view_of(engine), "k"))
    assert record is not None
    assert (record.status, record.reason) == ("Failed", "Refused")
    assert (await gw.execute(engine, "1", idempotencyKey="k")).data["status"] == "Succeed"
    assert store.journal.flush(PATIENCE)
    record = store.queries.execution(task_id_for_key(view_of(engine), "k"))
    assert record is not None
    assert (record.status, record.reason) == ("Succeed", "")


async def test_a_task_whose_engine_is_gone_is_told_as_lost_with_its_reason(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess, store: Store
) -> None:
    task = (await gw.execute(engine, "import time; time.sleep(30)", wait=False)).data
    ended = {"address": "", "engineState": "Failed", "reason": "OOMKilled", "message": "the limit was 1Gi"}
    gone = gw.engine(name=NAME, status=ended)
    told = await over(gw, gone, task["taskId"])
    assert (told["status"], told["reason"]) == ("Lost", "OOMKilled")
    assert "the limit was 1Gi" in told["message"]
    assert store.journal.flush(PATIENCE)
    record = store.queries.execution(task["taskId"])
    assert record is not None
    assert record.status == "Lost"
    # The engine's kernel is other tests' too.
    assert (await asyncio.to_thread(agent.call, "POST", f"/v1/tasks/{task['taskId']}/cancel", {}))[0] == 202
    await asyncio.to_thread(agent.wait_for_state, "Idle")


async def test_a_task_needs_exactly_one_of_id_and_key(gw: Harness, engine: dict[str, Any]) -> None:
    engine_id = engine["metadata"]["uid"]
    for more in ({}, {"taskId": "a", "idempotencyKey": "b"}):
        answer = await gw.get("getTask", {"engineId": engine_id} | more)
        assert answer.http == 400
        assert "taskId" in answer.message
    unknown = await gw.get("getTask", {"engineId": engine_id, "taskId": "none"})
    assert "is no task of" in unknown.message


# -- what is decided -------------------------------------------------------------------------------------------------


EVICTED = {"engineState": "Failed", "reason": "Evicted"}
RECORD = ExecutionRecord(
    task_id="t", ticket_id="e", uid=UID, attempt=0, caller="alice",
    run_type="python", code_sha256="", code_chars=1, status="Accepted", accepted=100.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("found", "status", "reason"),
    [
        (Observation(None), "Lost", "EngineGone"),
        (Observation(view_of(engine_item(name=NAME)), answered=True), "Lost", "Unknown"),
        (Observation(view_of(engine_item(name=NAME))), "Accepted", ""),
        (Observation(view_of(engine_item(name=NAME)), answered=True, reported={"status": "Running"}), "Running", ""),
        (
            Observation(view_of(engine_item(name=NAME)), answered=True, reported={"status": "Cancelled"}),
            "Cancelled",
            "",
        ),
        (Observation(view_of(engine_item(name=NAME, status={"attempt": 1}))), "Lost", "EngineRestarted"),
        (Observation(view_of(engine_item(name="another"))), "Lost", "EngineGone"),
        (
            Observation(view_of(engine_item(name=NAME, status={"engineState": "Failed", "reason": "Evicted"}))),
            "Lost",
            "Evicted",
        ),
    ],
)
def test_an_open_record_is_settled_by_the_observation(found: Observation, status: str, reason: str) -> None:
    after = settled(RECORD, found, 200.0)
    assert (after.status, after.reason) == (status, reason)
    assert settled(after, Observation(None), 300.0) == after or not after.final


async def test_tasks_of_another_user_with_the_same_ticket_are_not_shown(
    gw: Harness, store: Store, engine: dict[str, Any]
) -> None:
    """A ticket can be used again once its engine is deleted."""
    ticket = engine["metadata"]["uid"]
    for name, uid, caller in (("bobs", "v", "bob"), ("admins", ticket, "root"), ("earlier", "w", "alice")):
        record = replace(RECORD, task_id=name, ticket_id=ticket, uid=uid, caller=caller, status="Succeed", accepted=5.0)
        store.journal.offer(record)
    assert await asyncio.to_thread(store.journal.flush, PATIENCE)
    listed = (await gw.get("listTasks", {"engineId": ticket})).data["tasks"]
    # The agent is shared by this file's tests, and remembers their tasks.
    assert {task["taskId"] for task in listed} & {"bobs", "admins", "earlier"} == {"admins", "earlier"}
    assert (await gw.get("getTask", {"engineId": ticket, "taskId": "earlier"})).data["status"] == "Succeed"
    unknown = await gw.get("getTask", {"engineId": ticket, "taskId": "bobs"})
    assert unknown.http == 400
    assert "is no task of" in unknown.message


# -- commands and figures --------------------------------------------------------------------------------------------


async def test_commands_reach_the_engine_and_answer_as_linkis_operators_do(gw: Harness, engine: dict[str, Any]) -> None:
    engine_id = engine["metadata"]["uid"]

    async def send(command: str, **parameters: Any) -> dict[str, Any]:
        body = {"engineId": engine_id, "command": command, "parameters": parameters}
        return (await gw.post("sendEngineCommand", body)).data

    await gw.execute(engine, "kept = 1; print('for the log')")
    assert (await send("interrupt")) == {"result": {}, "errorMsg": "", "isError": False}
    assert (await send("status"))["result"]["state"] == "Idle"
    assert (await send("engineConnProgress"))["result"]["progress"] == 0.0
    lines = (await send("engineConnLog", logType="stdout", lastRows="3"))["result"]
    assert set(lines) == {"logs", "rows"}
    page = (await send("engineConnLog", fromLine=1, pageSize=5))["result"]
    assert set(page) == {"logs", "rows", "logPath", "endLine"}
    wrong = await send("engineConnLog", lastRows="many")
    assert wrong["isError"] is True
    assert "lastRows is 'many'" in wrong["errorMsg"]
    await send("restartKernel")
    assert (await gw.execute(engine, "'kept' in globals()")).data["outputs"][0]["text"] == "False"
    unknown = await gw.post("sendEngineCommand", {"engineId": engine_id, "command": "rm -rf"})
    assert unknown.http == 400


async def test_metrics_and_usage_are_the_agents_own_word(gw: Harness, engine: dict[str, Any]) -> None:
    engine_id = engine["metadata"]["uid"]
    before = (await gw.get("getEngineMetrics", {"engineId": engine_id})).data
    await gw.execute(engine, "1/0")
    metrics = (await gw.get("getEngineMetrics", {"engineId": engine_id})).data
    assert metrics["live"] is True
    assert metrics["tasksFailed"] == before["tasksFailed"] + 1
    assert metrics["totalIdleTimeMills"] >= before["totalIdleTimeMills"]


async def test_an_engine_reports_of_itself_only(gw: Harness, engine: dict[str, Any]) -> None:
    body = {"engineId": engine["metadata"]["uid"], "memoryBytes": 5, "cpuSeconds": 1.5}
    for headers, http in (
        ({}, 401),
        ({"Authorization": "Bearer not-its-token"}, 403),
        ({"Authorization": f"Bearer {AGENT_TOKEN}"}, 200),
    ):
        answer = await gw.post("reportResourceUsage", body, headers=headers)
        assert answer.http == http, answer.raw
    other = body | {"engineId": gw.engine(name="another")["metadata"]["uid"]}
    assert (await gw.post("reportResourceUsage", other, headers={"Authorization": f"Bearer {AGENT_TOKEN}"})).http == 403


# -- updateResource: what a kubelet may say; the rest is e2e/interfaces/test_gateway.py's ------------------------------


def sized_pod(memory: str, condition: str = "", message: str = "") -> dict[str, Any]:
    """A pod with the plugin's CPU and so much memory, which its kubelet has granted."""
    resources = {"requests": {"cpu": "500m", "memory": memory}, "limits": {"memory": memory}}
    told = {"type": "PodResizePending", "status": "True", "reason": condition, "message": message}
    return {
        "metadata": {"name": f"{NAME}-0"},
        "spec": {"containers": [{"name": "engine", "image": "i", "resources": resources}]},
        "status": {
            "containerStatuses": [{"name": "engine", "resources": resources}],
            "conditions": [told] if condition else [],
        },
    }


async def test_a_resize_that_the_node_refuses_is_taken_back(gw: Harness, agent: AgentProcess) -> None:
    engine = engine_at(gw, agent, podName=f"{NAME}-0")
    pod = gw.cluster.other_pods["pods", f"{NAME}-0"] = sized_pod("1Gi", "Infeasible", "node has 1Gi")
    body = {"engineId": engine["metadata"]["uid"], "resources": {"memory": "2Gi"}}
    answer = await gw.post("updateResource", body)
    assert answer.http == 400, answer.raw
    assert "Infeasible node has 1Gi" in answer.message
    assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] == "1Gi"
    assert [verb for verb, _, _ in gw.cluster.writes] == ["patch pods/resize"] * 2, "the resource is as it was"


async def test_a_resize_leaves_local_disk_and_devices_as_they_are(gw: Harness, agent: AgentProcess) -> None:
    """They cannot be resized: the API server refuses a change of them, and their loss would be one."""
    engine = engine_at(gw, agent, podName=f"{NAME}-0")
    pod = gw.cluster.other_pods["pods", f"{NAME}-0"] = sized_pod("2Gi")
    before, disk = sized_pod("1Gi")["spec"], {"ephemeral-storage": "8Gi", "nvidia.com/gpu": "1"}
    for amounts in before["containers"][0]["resources"].values():
        amounts.update(disk)
    pod["spec"] = before
    answer = await gw.post("updateResource", {"engineId": engine["metadata"]["uid"], "resources": {"memory": "2Gi"}})
    assert answer.http == 200, answer.raw
    assert pod["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "500m", "memory": "2Gi"} | disk, "limits": {"memory": "2Gi"} | disk
    }  # fmt: skip


PAUSED = {"since": "2026-11-24T12:00:00Z", "cpu": "50m", "fullCpu": "500m"}


def paused_pod(memory: str, *conditions: str) -> dict[str, Any]:
    pod = sized_pod(memory, *conditions)
    # The fake's kubelet gives what the spec says, in one and the same object.
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "50m"
    return pod


async def test_a_paused_engine_is_resized_from_its_whole_size_and_back_to_it(gw: Harness, agent: AgentProcess) -> None:
    engine = engine_at(gw, agent, podName=f"{NAME}-0", softPause=PAUSED)
    pod = gw.cluster.other_pods["pods", f"{NAME}-0"] = paused_pod("1Gi", "Infeasible", "node has 1Gi")
    body = {"engineId": engine["metadata"]["uid"], "resources": {"memory": "2Gi"}}
    assert (await gw.post("updateResource", body)).http == 400
    assert pod["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}
    }  # fmt: skip


async def test_an_engine_that_is_paused_again_at_once_has_its_new_size(
    gw: Harness, agent: AgentProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_at(gw, agent, podName=f"{NAME}-0", softPause=PAUSED)
    plugin = harness.PLUGIN | {"spec": harness.PLUGIN["spec"] | {"softPause": {"after": "60s", "cpu": "50m"}}}
    monkeypatch.setattr(harness, "PLUGIN", plugin)
    pod = gw.cluster.other_pods["pods", f"{NAME}-0"] = paused_pod("1Gi")
    patch, small = gw.cluster.patch, paused_pod("2Gi")

    async def and_the_operator_pauses_it(resource: Any, *args: Any, **more: Any) -> dict[str, Any]:
        answer = await patch(resource, *args, **more)
        if more.get("subresource") == "resize":
            pod.update(small)
        return answer

    monkeypatch.setattr(gw.cluster, "patch", and_the_operator_pauses_it)
    answer = await gw.post("updateResource", {"engineId": engine["metadata"]["uid"], "resources": {"memory": "2Gi"}})
    assert answer.http == 200, answer.raw
    assert [verb for verb, _, _ in gw.cluster.writes].count("patch pods/resize") == 1


async def test_a_resize_of_an_engine_without_a_pod_or_a_wish_is_refused(gw: Harness, engine: dict[str, Any]) -> None:
    body = {"engineId": engine["metadata"]["uid"], "resources": {"memory": "2Gi"}}
    assert "has no running pod" in (await gw.post("updateResource", body)).message
    gw.engine(name=NAME, status={"podName": f"{NAME}-0"})
    device = await gw.post("updateResource", body | {"resources": {"extended": {"nvidia.com/gpu": 1}}})
    assert "resources.extended cannot be changed while the engine runs" in device.message
    empty = await gw.post("updateResource", body | {"resources": {}})
    assert "Parameter resources cannot be empty" in empty.message
    gone = await gw.post("updateResource", body)
    assert "cannot be resized: it is gone" in gone.message


async def test_a_big_event_is_held_until_it_is_sent(gw: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    write = Sender.write

    async def watched(self: Sender, data: bytes | memoryview) -> bool:
        sent = await write(self, data)
        if len(data) > 4 << 20:
            held.append(gw.gateway.budget.held)
        return sent

    monkeypatch.setattr(Sender, "write", watched)
    big = b'{"event": "output", "id": "1", "text": "' + b"x" * (4 << 20) + b'"}\n'

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(big + b'{"event": "end"}\n')
        return response

    _, item = await gw.served(handler)
    url = f"{gw.url}{BASE}/taskEvents"
    headers = {"Token-Code": TOKEN, "Token-User": "alice"}
    query = {"engineId": item["metadata"]["uid"], "taskId": "t"}
    async with gw.session.get(url, params=query, headers=headers) as answer:
        assert (await answer.read()).count(b"event: ") == 2
    assert [size >= 4 << 20 for size in held] == [True]
    await asyncio.to_thread(until, lambda: not gw.gateway.budget.held)


# -- the journal, whatever an agent says -------------------------------------------------------------------------------

LINE = ExecutionRecord(
    task_id="t", ticket_id="e", uid="u", attempt=0, caller="alice", run_type="python", code_sha256="", code_chars=1,
    status="Accepted", accepted=1.0,
)  # fmt: skip


@pytest.mark.parametrize(
    "told",
    [
        {"status": "Lost"},
        {"status": ["Succeed"]},
        {"status": "Running", "outputs": [1, None, "x"]},
        {"status": "Running", "outputs": 7, "startedAt": 1e300, "endedAt": "soon"},
        {"status": "Running", "startedAt": float("nan"), "endedAt": -5},
    ],
)
def test_unknown_values_in_an_agents_report_do_not_change_the_record(told: dict[str, Any]) -> None:
    after = with_report(LINE, told)
    assert after.status in ("Accepted", "Running")
    assert (after.started, after.ended, after.reason) == (0.0, 0.0, "")


async def test_one_line_that_cannot_be_settled_leaves_no_other_open() -> None:
    lines = {name: replace(LINE, task_id=name) for name in ("bad", "good")}
    written: list[ExecutionRecord] = []

    class Journal(ExecutionJournal):
        async def open(self) -> list[ExecutionRecord]:
            return list(lines.values())

        def write(self, record: ExecutionRecord) -> None:
            written.append(record)

    async def engine(_: str) -> Any:
        return view_of(engine_item(uid="u", status={"address": "127.0.0.1:1"}))

    async def get_task(_: Any, task_id: str) -> dict[str, Any]:
        if task_id == "bad":
            raise RuntimeError("nobody foresaw this")
        return {"status": "Succeed"}

    settler = Settler(Journal(History(None)), engine=engine, get_task=get_task)
    assert await settler.run_once() == 1
    assert [(record.task_id, record.status) for record in written] == [("good", "Succeed")]


async def test_an_end_that_was_streamed_stays_though_the_engine_is_stopped_at_once(
    gw: Harness, engine: dict[str, Any], store: Store
) -> None:
    task = (await gw.execute(engine, "print('kept')", wait=False)).data
    query = {"engineId": engine["metadata"]["uid"], "taskId": task["taskId"]}
    headers = {"Token-Code": TOKEN, "Token-User": "alice"}
    async with gw.session.get(f"{gw.url}{BASE}/taskEvents", params=query, headers=headers) as stream:
        assert b"event: end" in await stream.read()
    assert store.journal.flush(PATIENCE)
    record = store.queries.execution(task["taskId"])
    assert record is not None
    assert (record.status, record.caller) == ("Succeed", "alice")
    stopped = {"engineState": "Success", "reason": "StoppedByUser", "address": ""}
    gw.engine(name=NAME, status=stopped)
    assert (await gw.get("getTask", query)).data["status"] == "Succeed"


async def test_other_code_under_a_running_tasks_key_leaves_its_line_alone(
    gw: Harness, engine: dict[str, Any], store: Store, tmp_path: Path
) -> None:
    key, go = uuid.uuid4().hex, tmp_path / "go"
    code = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)"
    task = (await gw.execute(engine, code, wait=False, idempotencyKey=key)).data
    refused = await gw.execute(engine, "2", idempotencyKey=key)
    assert "was given to other code before" in refused.message
    assert store.journal.flush(PATIENCE)
    record = store.queries.execution(task["taskId"])
    assert record is not None
    assert (record.final, record.reason) == (False, "")
    go.touch()
    assert (await over(gw, engine, task["taskId"]))["status"] == "Succeed"


async def test_tasks_are_counted_by_outcome_with_their_times(gw: Harness, engine: dict[str, Any]) -> None:
    task = (await gw.execute(engine, "1")).data
    await gw.execute(engine, "1/0")
    query = {"engineId": engine["metadata"]["uid"], "taskId": task["taskId"]}
    # Asking again for a task that has ended counts nothing.
    assert (await gw.get("getTask", query)).data["status"] == "Succeed"
    text = gw.gateway.metrics.registry.open_metrics().decode()
    for line in (
        'ecm_tasks_total{outcome="Succeed"} 1.0',
        'ecm_tasks_total{outcome="Failed"} 1.0',
        'ecm_task_seconds_count{outcome="Succeed"} 1.0',
        "ecm_task_wait_seconds_count 2.0",
    ):
        assert line in text.splitlines()
    assert f'# {{ticket="{task["engineId"] if "engineId" in task else engine["metadata"]["uid"]}"}}' in text

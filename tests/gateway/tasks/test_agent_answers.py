"""Whatever an engine's agent answers, the gateway's answers have their types, and nobody gets a 500."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from linkis_ecm.engine.agent_report import InvalidReportError, parse_report
from linkis_ecm.engine.times import from_unix
from linkis_ecm.engine.view import engine_view
from linkis_ecm.gateway.agents import reported
from tools.testkit.gateway.harness import Harness, engine_item

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.text(max_size=20), st.integers(-(1 << 63), 1 << 64), st.floats(),
    st.sampled_from(["Idle", "Running", "python", 1e15, 1e300, -1.0, 1 << 63]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner), max_leaves=8
)
STATUS_NAMES = st.sampled_from(
    ["state", "since", "attempt", "sequence", "reason", "message", "timings", "lastTaskEnded", "lastActivity", "active",
     "task", "usage", "metrics", "tasksStarted", "tasksFailed"]
)  # fmt: skip
TASK_NAMES = st.sampled_from(
    ["taskId", "status", "executionCount", "acceptedAt", "startedAt", "endedAt", "progress", "progressMessage"]
)


@given(st.dictionaries(STATUS_NAMES | st.text(max_size=5), VALUES))
def test_a_status_report_of_any_values_can_be_used_and_sent(body: dict[str, Any]) -> None:
    report = reported.status_report(body)
    orjson.dumps(report)
    for name in ("usage", "metrics", "timings"):
        assert all(isinstance(value, int | float) and value >= 0 for value in report[name].values())
    assert 0 <= report.get("lastTaskEnded", 0.0) < reported.MAX_TIMESTAMP
    try:
        parsed = parse_report(report, engine_view(engine_item(), epoch=NOW), None, NOW)
    except InvalidReportError:
        return
    for moment in (parsed.last_task_ended, parsed.last_activity, *parsed.timings.values()):
        from_unix(moment)


@given(st.dictionaries(STATUS_NAMES, VALUES))
def test_the_operator_reads_any_report(body: dict[str, Any]) -> None:
    body = {"state": "Idle", "attempt": 0, "sequence": 1} | body
    try:
        parsed = parse_report(body, engine_view(engine_item(), epoch=NOW), None, NOW)
    except InvalidReportError:
        return
    for moment in (parsed.last_task_ended, parsed.last_activity, *parsed.timings.values()):
        from_unix(moment)
    orjson.dumps({name: int(value) for name, value in parsed.usage.items()})


@given(VALUES, st.lists(st.dictionaries(TASK_NAMES, VALUES)))
def test_tasks_of_any_values_can_be_sorted_and_sent(other: Any, bodies: list[dict[str, Any]]) -> None:
    found = [*reported.tasks(bodies), *reported.tasks(other)]
    orjson.dumps(found)
    sorted(task["acceptedAt"] for task in found)
    for task in found:
        assert 0.0 <= task["progress"] <= 1.0
        assert task.get("status", "Running") in reported.REPORTED_STATUSES


def test_what_an_agent_says_stays_as_it_is() -> None:
    task = {
        "taskId": "t", "status": "Running", "executionCount": 3, "acceptedAt": 1.5, "startedAt": 2.0, "endedAt": 0.0,
        "progress": 0.25, "progressMessage": "a quarter", "firstLine": "1/0",
    }  # fmt: skip
    assert reported.task(task) == task
    assert len(reported.task(task | {"firstLine": "x" * 10_000})["firstLine"]) == 128
    report = {
        "state": "Busy", "since": 5.0, "reason": "", "message": "", "timings": {"kernelReady": 4.0}, "tasksStarted": 2,
        "lastTaskEnded": 4.5, "active": "", "lastActivity": 0.0, "usage": {"memoryBytes": 1 << 40, "cpuSeconds": 0.5},
        "metrics": {"totalIdleTimeMills": 1}, "task": {"id": "t", "started": 5.0, "code": "1"},
    }  # fmt: skip
    assert reported.status_report(report) == report


async def test_an_event_of_too_many_levels_does_not_end_the_stream(make: Callable[..., Awaitable[Harness]]) -> None:
    gw = await make()
    deep = b'{"event": "output", "x": ' + b"[" * 400 + b"]" * 400 + b"}\n"

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=deep + b'7\n[]\n{"event": "end", "status": "Succeed"}\n')

    _, item = await gw.served(handler)
    answer = await gw.get("taskEvents", {"engineId": item["metadata"]["uid"], "taskId": "t"})
    # Beside an event, lines that are none are not told: they keep no connection open.
    assert (answer.raw.count(b": here"), answer.raw.count(b"event: end")) == (0, 1)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"7", b'{"a": ' + b"[" * 400 + b"]" * 400 + b"}"])
async def test_a_jobs_result_of_any_content_leaves_the_post_mortem_readable(
    make: Callable[..., Awaitable[Harness]], content: bytes
) -> None:
    gw = await make()
    item = gw.engine(status={"engineState": "Failed", "reason": "KernelDied"})
    uid = item["metadata"]["uid"]
    await gw.archive.put(uid, 0, "bundle.json", b'{"reason": "KernelDied", "missing": ["x"]}')
    await gw.archive.put(uid, 0, "result.json", content)
    answer = await gw.get("getPostMortem", {"engineId": uid})
    assert answer.http == 200
    assert answer.data["missing"][0] == "x"


ODD: list[dict[str, Any]] = [
    {"lastTaskEnded": 1e15, "lastActivity": -1e300, "timings": {"kernelReady": 1e15}},
    {"metrics": [1, 2], "usage": "much", "task": 7, "timings": None, "tasksStarted": {"a": 1}},
    {"metrics": {"totalIdleTimeMills": 1e300, "totalBusyTimeMills": "x"}, "usage": {"memoryBytes": 1e300}},
    {"metrics": None, "usage": {"memoryBytes": [1], "cpuSeconds": {}}, "lastTaskEnded": "soon", "active": [1]},
    {"status": 5, "progress": "half", "progressMessage": {"a": 1}, "acceptedAt": "x", "executionCount": [1]},
    {"taskId": {"x": 1}, "status": ["Running"], "progress": -5, "startedAt": 1e18, "endedAt": True},
    {"tasks": [7, None, {"taskId": "a", "acceptedAt": "x"}, {"taskId": "b", "acceptedAt": 1, "status": "Running",
               "progress": "most"}]},
    {"tasks": {"a": 1}},
]  # fmt: skip
COMMANDS = ("status", "engineConnProgress", "engineConnMetrics", "interrupt", "restartKernel")


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
async def test_no_answer_of_an_agent_is_a_500(make: Callable[..., Awaitable[Harness]], odd: dict[str, Any]) -> None:
    gw = await make()
    body = {"state": "Idle", "attempt": 0, "sequence": 1, "tasks": []} | odd

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(body)

    _, item = await gw.served(handler)
    engine_id, instance = item["metadata"]["uid"], item["status"]["serviceInstance"]
    one, task = {"engineId": engine_id}, {"engineId": engine_id, "taskId": "t"}
    answers = {
        "explainEngine": await gw.get("explainEngine", one),
        "previewCull": await gw.get("previewCull", {"withinSeconds": "60"}, user="root"),
        "getEngineMetrics": await gw.get("getEngineMetrics", one),
        "getResourceUsage": await gw.get("getResourceUsage", one),
        "listTasks": await gw.get("listTasks", one),
        "getTask": await gw.get("getTask", task),
        "getTaskResult": await gw.get("getTaskResult", task),
        "cancelTask": await gw.post("cancelTask", task),
        "executeCode": await gw.execute(item),
        "executeCode without wait": await gw.execute(item, wait=False),
        "getEngineConn": await gw.call(
            "POST", "/api/rest_j/v1/linkisManager/getEngineConn", json={"instance": instance}
        ),
    }
    for command in COMMANDS:
        answers[command] = await gw.post("sendEngineCommand", one | {"command": command})
    assert {name: answer.http for name, answer in answers.items() if answer.http == 500} == {}
    # The others' engines are previewed all the same.
    assert answers["previewCull"].http == 200
    assert answers["explainEngine"].http == 200
    assert answers["getEngineMetrics"].http == 200

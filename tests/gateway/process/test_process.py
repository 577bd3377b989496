"""Engines that run a process in place of an agent: nothing is sent to their port, and a sentence says what they are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from tools.testkit.gateway.harness import Harness, ScriptedAgent

LAUNCH = {"kind": "process", "port": 8080}
SENTENCE = "runs a process (launch.kind of its EngineConnPlugin) and no agent"


async def answer_all(_: web.Request) -> web.StreamResponse:
    return web.json_response({"status": "Succeed", "outputs": [], "tasks": []})


async def process(gw: Harness, **status: Any) -> tuple[ScriptedAgent, dict[str, Any]]:
    """An Idle engine without an agent, and what listens at its address."""
    return await gw.served(answer_all, status={"launch": LAUNCH, "reason": "ProcessReady", "podName": "w-0"} | status)


def calls(engine: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Each call that an agent would have to answer."""
    uid = engine["metadata"]["uid"]
    task = {"engineId": uid, "taskId": "0f0e3f6e-6f3f-4d3b-9a55-1c5a0c2f7a11"}
    return [
        ("POST", "executeCode", {"engineId": uid, "code": "1", "runType": "python"}),
        ("POST", "executeCode", {"engineId": uid, "code": "1", "runType": "python", "wait": False}),
        ("POST", "executeCode", {"engineId": uid, "code": "1", "runType": "python", "idempotencyKey": "k"}),
        ("GET", "getEngineLogs", {"engineId": uid, "logType": "stdout"}),
        ("GET", "followEngineLog", {"engineId": uid, "logType": "stdout"}),
        ("GET", "taskEvents", task),
    ]


@pytest.mark.parametrize("number", range(6))
async def test_agent_calls_for_a_process_are_refused_and_nothing_is_sent(gw: Harness, number: int) -> None:
    listener, engine = await process(gw)
    verb, method, parameters = calls(engine)[number]
    answer = await (gw.post(method, parameters) if verb == "POST" else gw.get(method, parameters))
    assert answer.http == 400
    assert SENTENCE in answer.message
    assert engine["status"]["serviceInstance"] in answer.message
    assert "kubectl logs w-0 -n linkis" in answer.message
    assert listener.requests == [], "the engine's token goes to agents alone"


@pytest.mark.parametrize("command", ["interrupt", "restartKernel", "status", "engineConnProgress", "engineConnLog"])
async def test_a_command_is_refused_as_linkis_refuses(gw: Harness, command: str) -> None:
    listener, engine = await process(gw)
    answer = await gw.post(
        "sendEngineCommand", {"engineId": engine["metadata"]["uid"], "command": command, "parameters": {}}
    )
    assert answer.data["isError"] is True
    assert SENTENCE in answer.data["errorMsg"]
    assert listener.requests == []


@pytest.mark.parametrize("method", ["getEngineStatus", "listTasks", "getEngineMetrics", "explainEngine", "previewCull"])
async def test_the_status_of_a_process_is_answered_without_a_request_to_it(gw: Harness, method: str) -> None:
    listener, engine = await process(gw)
    answer = await gw.get(method, {} if method == "previewCull" else {"engineId": engine["metadata"]["uid"]})
    assert answer.http == 200, answer.raw
    assert listener.requests == []


async def test_explain_says_why_the_idle_time_of_a_process_does_not_count(gw: Harness) -> None:
    _, engine = await process(gw)
    uid = engine["metadata"]["uid"]
    assert "a process reports no activity" in (await gw.get("explainEngine", {"engineId": uid})).data["cullBlockedBy"]
    (kept,) = (await gw.get("previewCull", {})).data["kept"]
    assert kept["engineId"] == uid
    engine["status"] |= {"engineState": "Success", "reason": "Completed"}
    gw.cluster.put(engine)
    assert (await gw.get("explainEngine", {"engineId": uid})).data["cullBlockedBy"] is None, "it has ended"


async def test_the_status_of_a_process_says_that_it_takes_no_code(gw: Harness) -> None:
    _, engine = await process(gw)
    told = (await gw.get("getEngineStatus", {"engineId": engine["metadata"]["uid"]})).data
    assert (told["status"], told["available"]) == ("Idle", False)


async def test_a_launch_that_cannot_be_read_gets_no_token_either(gw: Harness) -> None:
    listener, engine = await process(gw, launch="agent?")
    answer = await gw.execute(engine)
    assert answer.http == 400
    assert "no agent" in answer.message
    assert listener.requests == []


@pytest.mark.parametrize("address", ["10.0.0.1:8080", ""])
async def test_a_creation_waits_for_the_process_to_be_ready(gw: Harness, address: str) -> None:
    def created(item: dict[str, Any]) -> None:
        async def write() -> None:
            for status in ({"engineState": "Starting", "launch": LAUNCH}, ready):
                await asyncio.sleep(0)
                gw.cluster.put(item | {"status": status})

        gw.writing = asyncio.create_task(write())  # type: ignore[attr-defined]

    ready = {"engineState": "Idle", "reason": "ProcessReady", "launch": LAUNCH, "address": address,
             "serviceInstance": "p-0.linkis-engines.linkis:8080"}  # fmt: skip
    gw.cluster.on_create = created
    made = (await gw.post("createEngineConnection", {"engineType": "python"})).data
    assert (made["status"], made["serviceInstance"]) == ("Idle", "p-0.linkis-engines.linkis:8080")

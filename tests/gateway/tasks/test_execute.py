"""executeCode: what reaches the agent, what comes back, and each way in which it can fail, said in words.

The agent here is scripted, for faults that a real one does not produce on demand; test_agent.py has the real one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from linkis_ecm.gateway.agents.client import END_REPORT_SECONDS, EXECUTES_PER_ENGINE, WHOLE_RESULT
from linkis_ecm.gateway.inventory.view import engine_of_record
from tools.testkit.agents.keys import agent_key_of
from tools.testkit.clocks import LoopClock
from tools.testkit.gateway.harness import KEY, PATIENCE, Harness, engine_item

Make = Callable[..., Awaitable[Harness]]
RESULT = {
    "taskId": "t", "status": "Succeed", "executionCount": 1, "startedAt": 1.0, "endedAt": 2.0,
    "outputs": [{"type": "text", "name": "stdout", "text": "zwölf <&>\n"}],
}  # fmt: skip


async def succeed(_: web.Request) -> web.StreamResponse:
    return web.json_response(RESULT)


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    raise AssertionError


def refusing(status: int, error: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": error}, status=status)

    return refuse


async def test_the_code_reaches_the_agent_once_with_the_engines_own_token(gw: Harness) -> None:
    agent, engine = await gw.served(succeed)
    answer = await gw.execute(engine, "print('zwölf')", timeoutSeconds=7)
    assert answer.data == RESULT
    ((verb, path, headers, body),) = agent.requests
    assert (verb, path) == ("POST", "/v1/execute")
    assert headers["Authorization"] == f"Bearer {agent_key_of(KEY, engine['metadata']['uid'], 0)}"
    sent = json.loads(body)
    assert sent.pop("taskId")
    assert sent == {"code": "print('zwölf')", "runType": "python", "timeoutSeconds": 7}


@pytest.mark.parametrize("written", ["Python", "PY", "py"])
async def test_a_run_type_may_be_written_in_any_case(gw: Harness, written: str) -> None:
    agent, engine = await gw.served(succeed)
    assert (await gw.execute(engine, "1", runType=written)).data == RESULT
    assert json.loads(agent.requests[0][3])["runType"] == written.lower()


@pytest.mark.parametrize("identity", ["uid", "serviceInstance", "namespace/name"])
async def test_an_engine_is_found_by_each_of_its_ids(gw: Harness, identity: str) -> None:
    _, engine = await gw.served(succeed)
    names = {
        "uid": engine["metadata"]["uid"],
        "serviceInstance": engine["status"]["serviceInstance"],
        "namespace/name": f"linkis/{engine['metadata']['name']}",
    }
    assert (await gw.execute(engine, engineId=names[identity])).data["status"] == "Succeed"


async def test_a_failed_task_is_a_result_not_an_error_of_the_call(gw: Harness) -> None:
    failed = RESULT | {"status": "Failed", "outputs": [{"type": "error", "name": "E", "value": "v", "traceback": []}]}

    async def fail(_: web.Request) -> web.StreamResponse:
        return web.json_response(failed)

    _, engine = await gw.served(fail)
    assert (await gw.execute(engine)).data == failed


async def test_a_big_result_is_passed_on_whole_inside_its_message(gw: Harness) -> None:
    text = "ä" * WHOLE_RESULT

    async def big(_: web.Request) -> web.StreamResponse:
        return web.json_response(RESULT | {"outputs": [{"type": "text", "name": "stdout", "text": text}]})

    _, engine = await gw.served(big)
    answer = await gw.execute(engine)
    assert len(answer.raw) == int(answer.headers["Content-Length"]) > WHOLE_RESULT
    assert answer.data["outputs"][0]["text"] == text


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"engineState": "Starting"}, "is Starting: wait until it is Idle"),
        ({"engineState": "ShuttingDown"}, "is ShuttingDown and takes no more code: create another"),
        ({"reason": "KeyMismatch"}, "does not have the key that the engine's agent was given"),
        ({"engineState": "Success", "reason": "StoppedByUser"}, "has ended (Success, StoppedByUser): create another"),
        ({"engineState": "Failed", "reason": "OOMKilled"}, "has ended (Failed, OOMKilled): create another"),
    ],
)
async def test_code_before_the_start_or_after_the_end_is_refused_and_reaches_nobody(
    gw: Harness, status: dict[str, Any], says: str
) -> None:
    agent, engine = await gw.served(succeed, status=status)
    answer = await gw.execute(engine)
    assert answer.http == 400
    assert says in answer.message
    assert agent.requests == []


async def test_code_for_an_engine_whose_resource_is_gone_says_that_it_has_ended(make: Make) -> None:
    ticket = "6d48068a-0e1e-44b5-8eb2-835034db5b30"
    past = engine_of_record(
        ticket_id=ticket, label_value="alice-IDE,python-3.11", user="alice", service_instance="p:9105",
        ecm_instance="e:1", status="Failed", log_dir_suffix="a/b/logs", create_time=None, used_time=None,
        release_time=None,
    )  # fmt: skip
    gw = await make(find=lambda engine_id: past if engine_id == ticket else None)
    answer = await gw.execute(engine_item(uid=ticket))
    assert answer.http == 400
    assert "has ended (Failed): create another engine" in answer.message


@pytest.mark.parametrize("user", ["bob", "mallory"])
async def test_code_for_another_users_engine_is_refused_without_details(gw: Harness, user: str) -> None:
    agent, engine = await gw.served(succeed)
    answer = await gw.execute(engine, user=user)
    assert answer.http == 403
    assert f"belongs to another user than {user}" in answer.message
    assert agent.requests == []


async def test_an_admin_may_run_code_in_anybodys_engine(gw: Harness) -> None:
    _, engine = await gw.served(succeed)
    assert (await gw.execute(engine, user="root")).data["status"] == "Succeed"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"code": "1", "runType": "python"}, "Parameter engineId is missing"),
        ({"engineId": "", "code": "1", "runType": "python"}, "Parameter engineId cannot be empty"),
        ({"engineId": "nobody", "code": "1", "runType": "python"}, "engineId 'nobody' is no engine"),
        ({"engineId": "ENGINE", "runType": "python"}, "Parameter code is missing"),
        ({"engineId": "ENGINE", "code": " \n\t", "runType": "python"}, "Parameter code cannot be empty"),
        ({"engineId": "ENGINE", "code": 7, "runType": "python"}, "Parameter code is 7: give text"),
        ({"engineId": "ENGINE", "code": "1"}, "Parameter runType is missing"),
        ({"engineId": "ENGINE", "code": "1", "runType": "scala"}, "runs python, py"),
        ({"engineId": "ENGINE", "code": "1", "runType": "python", "timeoutSeconds": 0}, "give 1 or more"),
        ({"engineId": "ENGINE", "code": "1", "runType": "python", "timeoutSeconds": 1e9}, "give 86400 or less"),
        ({"engineId": "ENGINE", "code": "1", "runType": "python", "shell": "x"}, "Unknown parameter 'shell'"),
    ],
)
async def test_bad_input_names_the_field_and_the_remedy_and_reaches_no_agent(
    gw: Harness, body: dict[str, Any], says: str
) -> None:
    agent, engine = await gw.served(succeed)
    if body.get("engineId") == "ENGINE":
        body = body | {"engineId": engine["metadata"]["uid"]}
    answer = await gw.post("executeCode", body)
    # An engine that is not there is answered as another user's.
    assert answer.http == (403 if body.get("engineId") == "nobody" else 400)
    assert says in answer.message
    assert agent.requests == []


@pytest.mark.parametrize(
    ("status", "error", "http", "says"),
    [
        (400, "code is blank", 400, "code is blank"),
        (409, "the kernel is restarting", 400, "the kernel is restarting"),
        (413, "", 413, "the code is too long"),
        (429, "16 tasks wait already", 429, "16 tasks wait already"),
        (401, "no", 502, "must read the same token key"),
        (302, "", 502, "HTTP 302"),
        (500, "boom", 502, "HTTP 500"),
    ],
)
async def test_the_agents_refusal_becomes_the_callers(
    gw: Harness, status: int, error: str, http: int, says: str
) -> None:
    agent, engine = await gw.served(refusing(status, error))
    answer = await gw.execute(engine)
    assert answer.http == http
    assert says in answer.message
    assert len(agent.requests) == 1


async def test_an_agent_that_answers_with_no_result_is_named_not_believed(gw: Harness) -> None:
    async def nonsense(_: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>", content_type="text/html")

    _, engine = await gw.served(nonsense)
    answer = await gw.execute(engine)
    assert answer.http == 502
    assert "not JSON" in answer.message


async def test_an_agent_that_cannot_be_reached_says_that_the_code_has_not_run(gw: Harness, clock: LoopClock) -> None:
    agent, engine = await gw.served(succeed)
    await agent.stop()
    gw.cluster.put(engine | {"status": engine["status"] | {"engineState": "Failed", "message": "Memory ran out."}})
    gw.cluster.put(engine)
    asking = asyncio.create_task(gw.execute(engine))
    # It waits for the cluster to report the engine's end.
    await clock.until_over(asking, END_REPORT_SECONDS)
    answer = await asking
    assert answer.http == 502
    assert "could take the code, which has not run" in answer.message


async def test_a_connection_that_breaks_under_the_code_is_made_again_for_the_same_task(gw: Harness) -> None:
    broken = False

    async def break_once(request: web.Request) -> web.StreamResponse:
        nonlocal broken
        if broken:
            return await succeed(request)
        broken = True
        assert request.transport is not None
        request.transport.abort()
        raise ConnectionResetError

    agent, engine = await gw.served(break_once)
    assert (await gw.execute(engine)).data["status"] == "Succeed"
    (first, again) = [json.loads(body) for _, _, _, body in agent.requests]
    assert first == again, "the agent joins a task of the same id to the first"


async def test_a_connection_that_breaks_again_is_given_up(gw: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linkis_ecm.gateway.agents.client.END_REPORT_SECONDS", 0.05)

    async def broken(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        raise ConnectionResetError

    agent, engine = await gw.served(broken)
    answer = await gw.execute(engine)
    assert answer.http == 502
    assert "broke while the code was under way, which may have run" in answer.message
    assert len(agent.requests) == 2


async def test_a_connection_that_breaks_with_its_engine_is_not_made_again_and_tells_why_the_engine_died(
    gw: Harness,
) -> None:
    async def die(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        dead = {"engineState": "Failed", "reason": "OOMKilled", "message": "Memory ran out."}
        gw.cluster.put(engine | {"status": engine["status"] | dead})
        request.transport.abort()
        await asyncio.sleep(0)
        raise ConnectionResetError

    agent, engine = await gw.served(die)
    answer = await gw.execute(engine)
    assert answer.http == 502
    assert "ended (Failed) while the code was under way, which may have run: Memory ran out." in answer.message
    assert len(agent.requests) == 1


async def test_an_engine_that_ends_while_its_agent_is_silent_ends_the_call(
    gw: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linkis_ecm.gateway.agents.client.FINAL_ANSWER_SECONDS", 0.05)
    agent, engine = await gw.served(hang)
    call = asyncio.create_task(gw.execute(engine))
    await agent.asked.wait()
    gw.cluster.put(engine | {"status": engine["status"] | {"engineState": "Failed", "message": "The node is gone."}})
    async with asyncio.timeout(PATIENCE):
        answer = await call
    assert answer.http == 502
    assert "The node is gone." in answer.message


async def test_an_engine_deleted_under_its_code_ends_the_call(gw: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linkis_ecm.gateway.agents.client.FINAL_ANSWER_SECONDS", 0.05)
    agent, engine = await gw.served(hang)
    call = asyncio.create_task(gw.execute(engine))
    await agent.asked.wait()
    gw.cluster.drop(engine)
    async with asyncio.timeout(PATIENCE):
        answer = await call
    assert answer.http == 502
    assert "was deleted while the code was under way" in answer.message


async def test_code_that_outlives_its_limit_and_the_agents_patience_is_504(
    gw: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linkis_ecm.gateway.agents.client.EXECUTE_SLACK", -0.9)
    _, engine = await gw.served(hang)
    answer = await gw.execute(engine, timeoutSeconds=1)
    assert answer.http == 504
    assert "may still run or wait there" in answer.message


async def test_a_client_that_leaves_takes_its_call_with_it(gw: Harness) -> None:
    agent, engine = await gw.served(hang)
    call = asyncio.create_task(gw.execute(engine))
    await agent.asked.wait()
    call.cancel()
    async with asyncio.timeout(PATIENCE):
        await agent.left.wait()


async def test_more_calls_than_an_engine_can_queue_are_refused_at_once(gw: Harness) -> None:
    full, came = asyncio.Event(), 0

    async def count(request: web.Request) -> web.StreamResponse:
        nonlocal came
        came += 1
        if came == EXECUTES_PER_ENGINE:
            full.set()
        return await hang(request)

    _, engine = await gw.served(count)
    calls = [asyncio.create_task(gw.execute(engine)) for _ in range(EXECUTES_PER_ENGINE)]
    async with asyncio.timeout(PATIENCE):
        await full.wait()
    answer = await gw.execute(engine)
    assert answer.http == 429
    assert f"{EXECUTES_PER_ENGINE} tasks of" in answer.message
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_calls_one_after_the_other_share_one_connection(gw: Harness) -> None:
    peers = set()

    async def note(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return await succeed(request)

    _, engine = await gw.served(note)
    for _ in range(3):
        assert (await gw.execute(engine)).http == 200
    assert len(peers) == 1


async def test_an_agent_that_begins_an_answer_and_stalls_holds_no_call(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linkis_ecm.gateway.agents.client.END_REPORT_SECONDS", 0.05)
    gw = await make(agent_seconds=0.2)

    async def stall(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await asyncio.sleep(30)
        return response

    _, engine = await gw.served(stall)
    async with asyncio.timeout(PATIENCE):
        answer = await gw.execute(engine)
    assert answer.http == 502
    assert "while it answered: the code has run" in answer.message

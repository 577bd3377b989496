"""What methods do, called with plain arguments and a caller: no request, no HTTP on the caller's side.

An RPC receiver, a pool or a command line calls them so. A real agent is behind the engine where code runs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web
from pydantic import ValidationError

from linkis_ecm.api import models
from linkis_ecm.gateway.answers import LargeJson
from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.context import Audit, Call, call_as
from linkis_ecm.gateway.http.errors import Refused
from linkis_ecm.gateway.linkis.records import delete_record
from linkis_ecm.gateway.methods.create import create_engine_connection
from linkis_ecm.gateway.methods.engines import get_engine_status, list_engines, terminate_engine
from linkis_ecm.gateway.methods.logs import LogFile, download_engine_log, follow_engine_log, get_engine_logs
from linkis_ecm.gateway.methods.resources import EngineReport, report_resource_usage
from linkis_ecm.gateway.methods.results import get_result_set
from linkis_ecm.gateway.methods.task_events import task_events
from linkis_ecm.gateway.methods.tasks import execute_code, get_task_result
from tools.testkit.agents.keys import agent_key_of
from tools.testkit.agents.process import AgentProcess
from tools.testkit.gateway.harness import EM, KEY, Harness
from tools.testkit.gateway.real_agents import UID

ALICE, BOB = Caller("alice"), Caller("bob")
BIG = orjson.dumps({"status": "Succeed", "outputs": [{"type": "text", "name": "stdout", "text": "x" * (2 << 20)}]})


@asynccontextmanager
async def caller(gw: Harness, who: Caller = ALICE) -> AsyncIterator[Call]:
    """A call; whatever it held must be free afterwards."""
    async with call_as(gw.gateway, who) as call:
        yield call
    assert not gw.gateway.budget.held


async def test_an_engine_is_created_looked_at_listed_and_terminated(gw: Harness) -> None:
    async with caller(gw) as call:
        created: Any = (await create_engine_connection(
            call, models.CreateEngineRequest(engine_type="python", wait=False)
        )).data  # fmt: skip
        assert (created.user, created.engine_type, created.status) == ("alice", "python", "Starting")
        assert call.audit.engines == [created.engine_id]
        asked = models.EngineRequest(engine_id=created.engine_id)
        found: Any = (await get_engine_status(call, asked)).data
        assert found.name == created.name
        listed: Any = (await list_engines(call, models.ListEnginesRequest())).data
        # In a list the ticket names it once the operator has taken it.
        assert [engine.engine_id for engine in listed.engines] == [f"linkis/{created.name}"]
        ended = await terminate_engine(call, asked)
        assert ended.message == "Kill engineConn succeed."
    assert [write[0] for write in gw.cluster.writes] == ["create", "patch"]
    assert gw.cluster.writes[1][2] == {"spec": {"desiredState": "Stopped"}}


@pytest.mark.parametrize(
    "make",
    [
        lambda text: models.ExecuteRequest(engine_id="e", code=text, run_type="python"),
        lambda text: models.CreateEngineRequest(engine_type="python", env={"A": text}),
        lambda text: models.CreateEngineRequest(engine_type="python", mode="once", code=text),
        lambda text: models.EngineCommandRequest(engine_id="e", command="status", parameters={"a": [{"b": text}]}),
        lambda text: models.EngineCommandRequest(engine_id="e", command="status", parameters={text: 1}),
        lambda text: models.ListEnginesRequest(status=text),
        lambda text: models.EngineRequest(engine_id=text),
    ],
)
def test_text_that_is_no_unicode_is_refused_before_anything_is_done(make: Callable[[str], models.Request]) -> None:
    """Over HTTP JSON's decoder refuses it; without HTTP it came as far as the agent, after the journal's first line."""
    assert make("zwölf 😀")
    with pytest.raises(ValidationError):
        make("x\ud800")


async def test_a_refused_call_for_another_users_engine_is_in_the_audit(gw: Harness) -> None:
    item = gw.engine()
    audit = Audit()
    async with call_as(gw.gateway, BOB, audit=audit) as call:
        with pytest.raises(Refused, match="belongs to another user than bob") as refused:
            await terminate_engine(call, models.EngineRequest(engine_id=item["metadata"]["uid"]))
    assert refused.value.status == 3
    assert audit.engines == [item["metadata"]["uid"]]
    assert not gw.cluster.writes


async def test_code_runs_and_its_log_and_result_are_read(gw: Harness, engine: dict[str, Any]) -> None:
    del engine
    async with caller(gw) as call:
        ran = await execute_code(
            call,
            models.ExecuteRequest(
                engine_id=UID,
                code="import pandas as pd\nprint('hello, use case')\npd.DataFrame({'n': [1, 2, 3]})",
                run_type="python",
            ),
        )
        result = orjson.loads(orjson.dumps(ran.data))
        assert result["status"] == "Succeed"
    async with caller(gw) as call:
        page: Any = (await get_engine_logs(
            call, models.EngineLogsRequest(engine_id=UID, log_type="stdout", last_rows=100)
        )).data  # fmt: skip
        assert "hello, use case" in page.logs
    async with caller(gw) as call:
        request = models.ResultSetRequest(engine_id=UID, task_id=result["taskId"], rows=2)
        rows: Any = await get_result_set(call, request)
        assert rows.data["rows"] == [[1], [2]]
    async with caller(gw) as call:
        stream: Any = await get_result_set(call, request.model_copy(update={"format": "dolphin", "rows": None}))
        assert stream.file_name == f"{result['taskId']}_{rows.data['output']}.dolphin"
        assert b"".join([bytes(chunk) async for chunk in stream.chunks]).startswith(b"dolphin")
        assert gw.gateway.results.under_way == 1
    assert gw.gateway.results.under_way == 0
    async with caller(gw) as call:
        task = models.TaskEventsRequest(engine_id=UID, task_id=result["taskId"])
        events = await task_events(call, task)
        assert events.content_type == "text/event-stream"
        assert b"event: end" in b"".join([chunk async for chunk in events.chunks])


async def test_a_log_is_read_in_parts_by_a_plain_reader(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess
) -> None:
    agent.execute("print('0123456789')")
    async with caller(gw) as call:
        download = await download_engine_log(
            call,
            LogFile(
                em_instance=EM,
                instance=engine["status"]["serviceInstance"],
                log_dir_suffix=engine["status"]["logDirSuffix"],
                log_type="stdout",
            ),
        )
        async with download.open() as whole:
            content = b"".join([chunk async for chunk in whole.chunks])
        assert len(content) == whole.total
        begin = content.index(b"0123456789")
        async with download.open(offset=begin + 5, length=5) as part:
            assert (part.length, part.total) == (5, whole.total)
            assert b"".join([chunk async for chunk in part.chunks]) == b"56789"
        download.require_allowed(1 << 40)
    async with AsyncExitStack() as held:
        request = models.FollowLogRequest(engine_id=UID, log_type="stdout", tail_bytes=6)
        followed = await follow_engine_log(Call(gw.gateway, ALICE, held), request)
        assert followed.log_offset == whole.total - 6
        assert await anext(followed.chunks) == content[-6:]


async def test_a_big_result_is_read_as_it_comes_and_its_connection_ends_with_the_call(gw: Harness) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=BIG, content_type="application/json") if request.path.endswith("result") else (
            web.json_response({"taskId": "t", "status": "Succeed"})
        )  # fmt: skip

    agent, item = await gw.served(handler)
    async with caller(gw) as call:
        request = models.TaskRequest(engine_id=item["metadata"]["uid"], task_id="t")
        data = (await get_task_result(call, request)).data
        assert isinstance(data, LargeJson)
        assert data.size == len(BIG)
        assert b"".join([chunk async for chunk in data.chunks]) == BIG
        await data.after_sent()
    assert [path for _, path, _, _ in agent.requests] == ["/v1/tasks/t/result", "/v1/tasks/t"]


async def test_a_source_that_breaks_off_raises_no_error_of_aiohttps(gw: Harness) -> None:
    """An agent that leaves in the middle: whoever reads without HTTP has OSError to catch, as `answers` says."""

    async def handler(request: web.Request) -> web.StreamResponse:
        head = {"X-Log-Size": str(len(BIG)), "X-Log-Offset": "0"}
        response = web.StreamResponse(headers=head)
        if not request.path.endswith("follow"):
            response.content_length = len(BIG)
        await response.prepare(request)
        await response.write(b"4\nlog\n" if request.path.endswith("follow") else b"the beginning")
        assert request.transport is not None
        request.transport.close()
        return response

    _, item = await gw.served(handler)
    uid, status = item["metadata"]["uid"], item["status"]

    async def drain(chunks: AsyncIterator[bytes]) -> None:
        with pytest.raises(OSError):  # noqa: PT011 - the class is what is promised
            async for _ in chunks:
                pass

    async with caller(gw) as call:
        followed = await follow_engine_log(call, models.FollowLogRequest(engine_id=uid, log_type="stdout"))
        await drain(followed.chunks)
    async with caller(gw) as call:
        data = (await get_task_result(call, models.TaskRequest(engine_id=uid, task_id="t"))).data
        assert isinstance(data, LargeJson)
        await drain(data.chunks)
    async with caller(gw) as call:
        log = LogFile(
            em_instance=EM,
            instance=status["serviceInstance"],
            log_dir_suffix=status["logDirSuffix"],
            log_type="stdout",
        )
        async with (await download_engine_log(call, log)).open() as opened:
            await drain(opened.chunks)


async def test_an_engine_reports_with_its_own_token(gw: Harness) -> None:
    item = gw.engine()
    uid = item["metadata"]["uid"]
    usage = models.ReportResourceUsageRequest(engine_id=uid, memory_bytes=7, cpu_seconds=1.5)
    async with caller(gw, Caller("")) as call:
        with pytest.raises(Refused, match="Authorization is missing"):
            await report_resource_usage(call, EngineReport("", usage))
        await report_resource_usage(call, EngineReport(agent_key_of(KEY, uid, 0), usage))
    kept = gw.gateway.usage_reports.get(uid)
    assert kept is not None
    assert (kept.memory_bytes, kept.source) == (7, "reported")


async def test_without_a_database_a_record_cannot_be_deleted(gw: Harness) -> None:
    async with caller(gw) as call:
        with pytest.raises(Refused, match="no database"):
            await delete_record(call, "ticket")

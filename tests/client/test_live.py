"""Both clients against a live gateway with a real agent and a real kernel; the cluster alone is in memory."""

from __future__ import annotations

import asyncio
import io
import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import ipc

from linkis_ecm.client import (
    BadRequest,
    EngineFailed,
    Forbidden,
    NotLoggedIn,
    ResultTruncated,
    TruncatedTable,
    tables_of,
    text_of,
)
from tests.client.support import Both
from tools.testkit.agents.process import AgentProcess
from tools.testkit.gateway.harness import TOKEN, Harness, engine_item
from tools.testkit.gateway.real_agents import AGENT_TOKEN, NAME, UID, engine_at

# Its end is a cancellation, or its own where a test fails before that: the engine is other tests' too.
LOOP = "print('begun', flush=True)\nimport time\nfor _ in range(1200): time.sleep(0.05)"


@pytest.fixture
def client(gw: Harness, client_at: Callable[..., Both]) -> Both:
    return client_at(gw.url, token=TOKEN)


def made_by(gw: Harness, agent: AgentProcess) -> None:
    """What is created is ready at once, with the one agent behind it: it takes the token of that uid."""

    def become(item: dict[str, Any]) -> None:
        item["metadata"]["uid"] = UID
        status = engine_item(name=item["metadata"]["name"], uid=UID)["status"]
        status["logDirSuffix"] = f"alice/20261124/python/{item['spec']['ticketId']}/logs"
        gw.cluster.put(item | {"status": status | {"address": f"127.0.0.1:{agent.port}"}})

    gw.cluster.on_create = become


async def test_a_journey_from_create_to_terminate(
    gw: Harness, agent: AgentProcess, client: Both, tmp_path: Path
) -> None:
    made_by(gw, agent)

    async def body(call: Callable[..., Any], engine: Any) -> None:
        assert engine.info.available
        ticket = engine.engine_id
        assert text_of(await call("execute", "print('zwölf'); 6*7")) == "zwölf\n42"
        table = await call("execute", "import pandas as pd; pd.DataFrame({'n': [1, 2]})")
        assert [row["n"] for row in tables_of(table)[0]] == [1, 2]
        failed = await call("execute", "1/0")
        assert failed.status == "Failed"
        assert "ZeroDivisionError" in text_of(failed)

        task = await call("submit", LOOP)
        kinds = []
        async for event in client.stream("task_events", ticket, task.task_id):
            kinds.append(event.event)
            if "begun" in str(event.data):
                assert (await call("cancel", task.task_id)).task_id == task.task_id
        assert "output" in kinds
        assert kinds[-1] == "end"
        assert event.data["status"] == "Cancelled"
        assert (await call("task", task.task_id)).final
        assert (await call("result", task.task_id)).outputs[0]["text"] == "begun\n"
        assert (await client("list_tasks", ticket)).tasks[0].task_id == task.task_id

        page = await call("logs", last_rows=1)
        assert page.rows == 1
        (tmp_path / "logs").mkdir()
        whole = tmp_path / "logs" / "log.txt"
        assert await call("download_log", whole) == len(whole.read_bytes())
        assert whole.read_text() == agent.log("stdout")
        assert "zwölf" in whole.read_text()
        assert os.listdir(whole.parent) == ["log.txt"], "nothing is left beside it"
        opened = io.BytesIO(b"before")
        opened.seek(6)
        await client("download_engine_log", engine.info, opened, "stdout")
        assert opened.getvalue() == b"before" + whole.read_bytes()

        assert (await client("get_engine_metrics", ticket)).tasks_started >= 4
        assert (await client("get_resource_usage", ticket)).requested.memory == "1Gi"
        assert (await client("explain_engine", ticket)).agent_answered
        assert (await client("preview_cull")).looked_at == 1
        assert (await client("list_engines", status="Idle")).total == 1
        status = await client("send_engine_command", ticket, "status")
        assert (status.is_error, status.result["state"]) == (False, "Idle")

    await client.with_engine(body, engine_type="python", creator="IDE", resources={"memory": "1Gi"})
    (item,) = gw.cluster.items.values()
    assert item["spec"]["desiredState"] == "Stopped"
    assert item["spec"]["resources"] == {"memory": "1Gi"}


async def test_the_eleven_are_called_by_their_own_names_too(client: Both, engine_id: str) -> None:
    assert text_of(await client("executeCode", engine_id, "1+1")) == "2"
    assert (await client("getEngineStatus", engine_id)).name == NAME


async def test_a_key_of_the_callers_is_one_task(client: Both, engine_id: str) -> None:
    key = uuid.uuid4().hex
    code = "n = globals().get('n', 0) + 1; n"
    first = await client("execute_code", engine_id, code, idempotency_key=key)
    again = await client("execute_code", engine_id, code, idempotency_key=key)
    assert first == again
    assert (await client("get_task", engine_id, idempotency_key=key)).status == "Succeed"


async def test_code_without_a_key_runs_each_time(client: Both, engine_id: str) -> None:
    await client("execute_code", engine_id, "m = 0")
    for number in (1, 2):
        assert text_of(await client("execute_code", engine_id, "m += 1; m")) == str(number)


async def test_a_log_is_followed_line_by_line(client: Both, engine_id: str, agent: AgentProcess) -> None:
    mark = uuid.uuid4().hex
    at = len(agent.log("stdout").encode())
    code = f"for n in range(3): print('{mark}', n, flush=True)"
    task = asyncio.create_task(client("execute_code", engine_id, code))
    seen = []
    async for line in client.stream("follow_engine_log", engine_id, from_byte=at):
        seen += [line] if mark in line else []
        if len(seen) == 3:
            break
    await task
    assert seen == [f"{mark} {n}" for n in range(3)]


async def test_events_go_on_from_an_earlier_one(client: Both, engine_id: str, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    # One write: print has two, and the kernel may tell them apart.
    code = "import os, sys, time\nsys.stdout.write('one\\n')\nsys.stdout.flush()\n"
    code += f"while not os.path.exists({str(heard)!r}): time.sleep(0.01)\nprint('two')"
    task = await client("submit_code", engine_id, code)
    told = []
    async for event in client.stream("task_events", engine_id, task.task_id):
        told.append(event)
        if event.event == "output":
            heard.touch()
    texts = [event.data["output"]["text"] for event in told if event.event == "output"]
    assert "".join(texts) == "one\ntwo\n"
    first = next(event for event in told if event.event == "output")
    rest = await client("task_events", engine_id, task.task_id, last_event_id=first.id)
    assert "".join(event.data["output"]["text"] for event in rest if event.event == "output") == "two\n"


async def test_refusals_are_the_gateways_own_sentences(
    client: Both, client_at: Callable[..., Both], gw: Harness, engine_id: str
) -> None:
    with pytest.raises(BadRequest, match="Parameter code cannot be empty") as blank:
        await client("execute_code", engine_id, " ")
    assert (blank.value.http, blank.value.status, blank.value.can_retry) == (400, 1, False)
    with pytest.raises(Forbidden, match="bob"):
        await client_at(gw.url, token=TOKEN, user="bob")("get_engine_status", engine_id)
    with pytest.raises(NotLoggedIn) as stranger:
        await client_at(gw.url, token="LINKIS-WRONG-0123456789")("list_engines")
    assert "WRONG" not in str(stranger.value) + repr(stranger.value)
    with pytest.raises(BadRequest, match="No such path") as nowhere:
        await client_at(gw.url + "/elsewhere", token=TOKEN)("list_engines")
    assert nowhere.value.http == 404


async def test_an_engine_that_never_becomes_ready_is_ended_and_told(gw: Harness, client: Both) -> None:
    async def body(*_: Any) -> None:
        raise AssertionError("it is not ready")

    with pytest.raises(EngineFailed, match="it goes on starting") as failure:
        await client.with_engine(body, engine_type="python", timeout_seconds=1)
    assert failure.value.can_retry
    (item,) = gw.cluster.items.values()
    assert item["spec"]["desiredState"] == "Stopped"


async def test_an_error_in_the_block_still_ends_the_engine(gw: Harness, agent: AgentProcess, client: Both) -> None:
    made_by(gw, agent)

    async def body(*_: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await client.with_engine(body, engine_type="python")
    (item,) = gw.cluster.items.values()
    assert item["spec"]["desiredState"] == "Stopped"


async def test_an_engine_reports_with_its_own_token(
    gw: Harness, client_at: Callable[..., Both], engine_id: str
) -> None:
    engine = client_at(gw.url, token=None, user=None, bearer=lambda: AGENT_TOKEN)
    await engine("report_resource_usage", engine_id, memory_bytes=5 << 20, cpu_seconds=1.5)
    assert gw.gateway.usage_reports.get(UID).memory_bytes == 5 << 20
    with pytest.raises(Forbidden, match="not that of this engine"):
        await client_at(gw.url, token=None, user=None, bearer="wrong")("report_resource_usage", engine_id, 1, 1.0)


async def test_a_starting_engine_is_waited_for(gw: Harness, client: Both, agent: AgentProcess) -> None:
    gw.engine(name=NAME, status={"engineState": "Starting", "address": ""})
    waiting = asyncio.create_task(client("wait_until_ready", UID, timeout=60.0))
    asked = 'ecm_gateway_requests_total{code="200",method="getEngineStatus"}'
    async with asyncio.timeout(60):
        while True:
            async with gw.session.get(f"{gw.url}/metrics") as metrics:
                if asked in await metrics.text():
                    break
            await asyncio.sleep(0.01)
    assert not waiting.done()
    engine_at(gw, agent)
    assert (await waiting).available
    gw.engine(name=NAME, status={"engineState": "Failed", "reason": "OOMKilled", "message": "the limit was 1Gi"})
    with pytest.raises(EngineFailed, match="the limit was 1Gi") as failure:
        await client("wait_until_ready", UID)
    assert failure.value.data["reason"] == "OOMKilled"


async def test_a_long_table_comes_in_pages_and_as_a_file(client: Both, engine_id: str, tmp_path: Path) -> None:
    code = "import pandas as pd; pd.DataFrame({'n': range(12_000)})"
    task = await client("execute_code", engine_id, code)
    with pytest.warns(TruncatedTable, match="5000 of 12000 rows are here; get_result_set and download_result_set"):
        assert len(tables_of(task)[0]) == 5000
    page = await client("get_result_set", engine_id, task.task_id, from_row=11_999, rows=5000)
    assert (page.total_rows, page.end_row) == (12_000, 12_000)
    assert [row[-1] for row in page.rows] == [11_998, 11_999]
    await client("download_result_set", engine_id, tmp_path / "table.arrow", task.task_id)
    with ipc.open_stream(str(tmp_path / "table.arrow")) as stream:
        assert stream.read_all().column("n").to_pylist() == list(range(12_000))
    size = await client("download_result_set", engine_id, tmp_path / "table.dolphin", task.task_id, format="dolphin")
    content = (tmp_path / "table.dolphin").read_bytes()
    assert len(content) == size
    assert content.startswith(b"dolphin0000000002")


async def test_a_table_that_was_cut_is_not_taken_for_whole(client: Both, engine_id: str, tmp_path: Path) -> None:
    table = {"columns": [{"name": "n", "type": "int64"}], "rows": [[0], [1], [2]], "totalRows": 9, "truncated": True}
    code = f"display({{'application/vnd.linkis.table+json': {table!r}}}, raw=True)"
    task = await client("execute_code", engine_id, code)
    with pytest.warns(TruncatedTable, match="3 of 9 rows are here; no more is kept"):
        tables_of(task)
    page = await client("get_result_set", engine_id, task.task_id)
    assert (page.total_rows, page.result_rows, page.truncated) == (9, 3, True)
    with pytest.raises(BadRequest, match="of the table's 9 rows the first 3 are kept"):
        await client("get_result_set", engine_id, task.task_id, from_row=4)
    path = tmp_path / "table"
    for form in ("arrow", "dolphin"):
        with pytest.raises(ResultTruncated, match="the first 3 of its 9 rows are kept") as cut:
            await client("download_result_set", engine_id, path, task.task_id, format=form)
        assert cut.value.data == {"resultRows": 3, "totalRows": 9}
        assert not path.exists()
        with pytest.raises(ResultTruncated):
            await client("download_result_set", engine_id, path, task.task_id, format=form, from_row=2, rows=3)
        # Rows that are there are there, and who wants what is kept has it.
        for more in ({"from_row": 2, "rows": 2}, {"allow_truncated": True}):
            await client("download_result_set", engine_id, path, task.task_id, format=form, **more)
            assert path.exists()
            path.unlink()


async def test_an_engine_is_asked_for_used_with_its_lock_and_given_back(client: Both, engine_id: str) -> None:
    asked = await client("ask_engine_conn", "python", engine_version="3.11", creator="IDE", explain=True)
    ticket, lock = asked.engine.ticket_id, asked.engine.lock
    assert (ticket, asked.engine.node_status) == (engine_id, "Idle")
    assert asked.engine.service_instance.application_name == "linkis-cg-engineconn"
    assert [(one.engine, one.verdict) for one in asked.verdicts] == [(engine_id, "Fits")]
    assert text_of(await client("execute_code", ticket, "6*7", lock=lock)) == "42"
    with pytest.raises(BadRequest):
        await client("execute_code", ticket, "1", lock="another")
    await client("send_engine_command", ticket, "unlock", parameters={"lock": lock})
    with pytest.raises(BadRequest, match="engineType"):
        await client("ask_engine_conn", "-")


async def test_what_the_console_reads_is_there_for_programs_too(client: Both, engine_id: str) -> None:
    assert (await client("who_am_i")).user == "alice"
    (plugin,) = (await client("list_engine_plugins")).plugins
    assert (plugin.engine_type, plugin.engine_version) == ("python", "3.11")
    assert (await client("get_overview")).scope == "own"


async def test_the_readmes_example_runs_as_it_stands(
    gw: Harness,
    agent: AgentProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made_by(gw, agent)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (code,) = re.findall("```python\n(.*?)```", readme, re.DOTALL)
    for name, value in (("URL", gw.url), ("TOKEN", TOKEN), ("USER", "alice")):
        monkeypatch.setenv(f"LINKIS_ECM_{name}", value)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    await asyncio.to_thread(exec, code, found)
    assert [row["n"] for row in found["rows"]] == [1, 2]
    printed = capsys.readouterr().out.splitlines()
    assert (printed[0], printed[-1]) == ("42", "1")
    assert "stdout.txt" in os.listdir(tmp_path)

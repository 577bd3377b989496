"""What a result may cost the gateway's memory: estimated before it is parsed, held while it is there, else refused."""

from __future__ import annotations

import asyncio
import json
import sys
import tracemalloc
from typing import Any

import pytest
from aiohttp import web

from linkis_ecm.gateway.results import json_budget
from linkis_ecm.gateway.results import source as result_source
from tools.testkit.gateway.harness import Harness


@pytest.mark.parametrize(
    ("content", "least"),
    [(b"[" + b"[]," * 20_000 + b"1]", 56 * 20_000), (b"[" + b'{"a":1},' * 20_000 + b"1]", 184 * 20_000),
     (b"[" + b"1000000," * 20_000 + b"1]", 32 * 20_000), (b"[" + b"[0]," * 20_000 + b"1]", 72 * 20_000)],
)  # fmt: skip
async def test_the_parsed_size_of_json_is_estimated_from_above_before_it_is_parsed(content: bytes, least: int) -> None:
    tracemalloc.start()
    found = json.loads(content)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 20_001
    assert least <= taken <= json_budget.parsed_size(content)


async def test_brackets_and_commas_within_text_are_no_objects() -> None:
    text = "[,{" * 1_000_000 + '\\"' * 99 + "\\"
    content = json.dumps({"type": "text", "text": text, "more": [text, "x" * (1 << 20)]}).encode()
    assert json_budget.parsed_size(content) < 1000


def made_up(output: bytes, asked: list[int]) -> Any:
    async def handler(request: web.BaseRequest) -> web.Response:
        asked.append(1)
        return web.Response(body=b'{"index":0,"outputs":1,"output":' + output + b"}", content_type="application/json")

    return handler


async def test_an_output_of_more_objects_than_memory_has_is_refused(gw: Harness) -> None:
    asked: list[int] = []
    rows = b"[]," * (json_budget.MAX_OBJECT_BYTES // 168 + 1)
    table = b'{"type":"table","columns":[],"rows":[' + rows + b"[]]}"
    assert len(table) < result_source.MAX_OUTPUT_BYTES
    _, engine = await gw.served(made_up(table, asked))
    answer = await gw.get("getResultSet", {"engineId": engine["metadata"]["uid"], "taskId": "t"})
    assert (answer.http, "what is no output" in answer.message) == (502, True)
    assert not gw.gateway.budget.held
    # As much in the archive, where it was a job's.
    uid = gw.engine(name="job", spec={"mode": "once"}, status={"engineState": "Success",
                    "finishedTime": "2026-11-24T04:10:00Z"})["metadata"]["uid"]  # fmt: skip
    await gw.archive.put(uid, 0, "result.json", b'{"outputs":[' + table + b"]}")
    answer = await gw.get("getResultSet", {"engineId": uid, "taskId": "job"})
    assert (answer.http, "is not what an agent writes" in answer.message) == (502, True)
    assert not gw.gateway.budget.held


async def test_an_output_is_held_as_what_it_becomes_from_its_engine_and_from_the_archive(
    gw: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    checked = result_source._checked

    def watched(output: Any) -> dict[str, Any]:
        held.append(gw.gateway.budget.held)
        return checked(output)

    monkeypatch.setattr(result_source, "_checked", watched)
    asked: list[int] = []
    table = b'{"type":"table","columns":[{}],"rows":[' + b"[1]," * 200_000 + b'[2]],"totalRows":200001}'
    _, engine = await gw.served(made_up(table, asked))
    job = gw.engine(name="job", spec={"mode": "once"}, status={"engineState": "Success",
                    "finishedTime": "2026-11-24T04:10:00Z"})  # fmt: skip
    await gw.archive.put(job["metadata"]["uid"], 0, "result.json", b'{"outputs":[' + table + b"]}")
    for item, task_id in ((engine, "t"), (job, "job")):
        query = {"engineId": item["metadata"]["uid"], "taskId": task_id, "fromRow": "200001"}
        assert (await gw.get("getResultSet", query)).data["rows"] == [[2]]
        assert held.pop() > 168 * 200_000
        assert not gw.gateway.budget.held
    # Once to know, once to read, and no third time.
    assert len(asked) == 2


async def test_nothing_of_arrow_is_loaded_before_a_result_is_asked_for() -> None:
    code = "import sys, linkis_ecm.gateway.main, linkis_ecm.controller.agents.uploads; print('pyarrow' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert await process.communicate() == (b"False\n", None)

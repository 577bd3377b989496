"""getResultSet in front of a real agent and a real kernel: pages, Arrow, Linkis's result sets, live and archived."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow as pa
import pytest
from pyarrow import ipc

from linkis_ecm.gateway.methods import results
from linkis_ecm.gateway.results import source as result_source
from tools.testkit.agents.process import AgentProcess, until
from tools.testkit.gateway.dolphin import dolphin
from tools.testkit.gateway.harness import BASE, BOB_TOKEN, TOKEN, Answer, Harness
from tools.testkit.gateway.real_agents import NAME, UID

ROWS = 200_000
FRAME = (
    "import pandas as pd, numpy as np\n"
    f"n = np.arange({ROWS})\n"
    "pd.DataFrame({'n': n, 'x': n / 2, 's': [f's{i}' if i % 3 else None for i in n],"
    " 't': pd.date_range('2026-01-01', periods=len(n), freq='s')})"
)
QUERY = f"import duckdb\nduckdb.sql('select range as n, range * 0.5 as x, sum(range) over () as h from range({ROWS})')"
LAST = [ROWS - 1, (ROWS - 1) / 2, f"s{ROWS - 1}", "2026-01-03T07:33:19"]


@pytest.fixture(scope="module")
def frame(agent: AgentProcess) -> dict[str, Any]:
    return run(agent, FRAME)


@pytest.fixture(scope="module")
def query(agent: AgentProcess) -> dict[str, Any]:
    return run(agent, QUERY)


def run(agent: AgentProcess, code: str) -> dict[str, Any]:
    result = agent.execute(code)
    assert result["status"] in ("Succeed", "Failed")
    return result


async def ask(gw: Harness, task: dict[str, Any], **more: Any) -> Answer:
    parameters = {name: str(value) for name, value in more.items() if name not in ("user", "token")}
    caller = {name: value for name, value in more.items() if name in ("user", "token")}
    return await gw.get("getResultSet", {"engineId": UID, "taskId": task["taskId"]} | parameters, **caller)


async def test_a_page_has_the_first_rows_as_they_were_shown(
    gw: Harness, engine: dict[str, Any], frame: dict[str, Any]
) -> None:
    page = (await ask(gw, frame)).data
    shown = frame["outputs"][0]
    assert page["columns"] == shown["columns"]
    assert page["rows"] == shown["rows"][:1000]
    assert (page["fromRow"], page["endRow"], page["totalRows"], page["truncated"]) == (1, 1000, ROWS, False)


async def test_pages_go_on_to_the_last_row(gw: Harness, engine: dict[str, Any], frame: dict[str, Any]) -> None:
    seen, begin = 0, 1
    while True:
        page = (await ask(gw, frame, fromRow=begin, rows=5000)).data
        if not page["rows"]:
            break
        assert page["rows"][0][0] == begin - 1
        seen += len(page["rows"])
        last, begin = page["rows"][-1], page["endRow"] + 1
    assert seen == ROWS
    assert last == LAST


async def test_a_wide_table_is_paged_by_columns_too(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import pandas as pd, numpy as np\npd.DataFrame(np.arange(18_000).reshape(6, 3000)).add_prefix('c')"
    task = await asyncio.to_thread(run, agent, code)
    page = (await ask(gw, task, fromColumn=2901, columns=200, fromRow=5)).data
    assert [column["name"] for column in page["columns"]] == [f"c{n}" for n in range(2900, 3000)]
    assert page["rows"] == [list(range(row * 3000 + 2900, row * 3000 + 3000)) for row in (4, 5)]
    assert (page["fromColumn"], page["endColumn"], page["totalColumns"]) == (2901, 3000, 3000)
    beyond = (await ask(gw, task, fromColumn=3001, columns=10)).data
    assert (beyond["columns"], beyond["rows"], beyond["endColumn"]) == ([], [[]] * 6, 3000)
    # The bound in cells is of what is sent.
    monkeypatch.setattr(results, "PAGE_CELLS", 400)
    assert [(await ask(gw, task, columns=n)).data["endRow"] for n in (100, 200, 500)] == [4, 2, 1]
    refused = await ask(gw, task, columns=10, format="arrow")
    assert (refused.http, "of format json" in refused.message) == (400, True)


async def test_a_small_table_is_bounded_in_cells_and_paged_by_columns_too(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = [{"name": f"c{n}", "type": "int64"} for n in range(5)]
    task = await shown(agent, columns=columns, rows=[list(range(5))] * 10, totalRows=10)
    page = (await ask(gw, task, fromColumn=3, columns=2)).data
    assert (page["columns"], page["rows"]) == (columns[2:4], [[2, 3]] * 10)
    assert (page["fromColumn"], page["endColumn"], page["totalColumns"]) == (3, 4, 5)
    monkeypatch.setattr(results, "PAGE_CELLS", 20)
    assert (await ask(gw, task)).data["endRow"] == 4


async def test_arrow_is_a_stream_of_all_rows(gw: Harness, engine: dict[str, Any], frame: dict[str, Any]) -> None:
    answer = await ask(gw, frame, format="arrow")
    assert answer.headers["Content-Type"] == "application/vnd.apache.arrow.stream"
    table = ipc.open_stream(answer.raw).read_all()
    table.validate(full=True)
    assert table.num_rows == ROWS
    assert table.schema.types[:2] == [pa.int64(), pa.float64()]
    assert table.column("n").to_pylist() == list(range(ROWS))
    assert table.column("s").null_count == (ROWS + 2) // 3


README = Path(__file__).parents[3] / "README.md"


async def test_the_readme_asks_for_arrow_of_a_task_that_has_a_table(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess
) -> None:
    block = README.read_text().partition("createEngineConnection")[2].partition("format=arrow")[0]
    assert "fromRow=1001" in block.splitlines()[-2]
    body = re.findall(r"executeCode -d '(.*)'", block)[-1]
    task = run(agent, json.loads(body)["code"])
    table = ipc.open_stream((await ask(gw, task, format="arrow")).raw).read_all()
    assert table.num_rows > 1001, "and there is the second page that it asks for"
    assert len((await ask(gw, task, fromRow=1001)).data["rows"]) == 1000
    # A task without one is refused, which curl -f does not save as a file.
    refused = await ask(gw, run(agent, "1+1"), format="arrow")
    assert refused.http == 400
    assert "ecm -fOJ" in README.read_text()


async def test_a_part_is_what_is_asked_for_in_every_format(
    gw: Harness, engine: dict[str, Any], query: dict[str, Any]
) -> None:
    part = {"fromRow": 16_380, "rows": 10}
    expected = list(range(16_379, 16_389))
    page = (await ask(gw, query, **part)).data
    assert [row[0] for row in page["rows"]] == expected
    assert page["rows"][0][1:] == ["8189.5", ROWS * (ROWS - 1) // 2]
    table = ipc.open_stream((await ask(gw, query, format="arrow", **part)).raw).read_all()
    assert table.column(0).to_pylist() == expected
    kind, columns, rows = dolphin((await ask(gw, query, format="dolphin", **part)).raw)
    assert kind == 2
    assert columns == ["n", "long", None, "x", "decimal", None, "h", "decimal", None]
    assert [row[0] for row in rows] == [str(n) for n in expected]


async def test_a_part_of_a_small_table_is_what_is_asked_for_too(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess
) -> None:
    code = "import pandas as pd\npd.DataFrame({'n': range(9)})"
    task = await asyncio.to_thread(run, agent, code)
    for part, expected in (({"fromRow": 3, "rows": 2}, [2, 3]), ({"rows": 1}, [0]), ({"fromRow": 8}, [7, 8])):
        told = await ask(gw, task, format="arrow", **part)
        assert ipc.open_stream(told.raw).read_all().column("n").to_pylist() == expected


async def test_linkis_reads_all_rows_of_its_own_format(
    gw: Harness, engine: dict[str, Any], frame: dict[str, Any]
) -> None:
    answer = await ask(gw, frame, format="dolphin")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == f"attachment;filename={frame['taskId']}_0.dolphin"
    kind, columns, rows = dolphin(answer.raw)
    assert (kind, len(rows)) == (2, ROWS)
    assert columns == ["n", "long", None, "x", "double", None, "s", "string", None, "t", "timestamp", None]
    assert rows[0] == ["0", "0.0", None, "2026-01-01 00:00:00"]
    assert rows[-1] == [str(ROWS - 1), "99999.5", f"s{ROWS - 1}", "2026-01-03 07:33:19"]


async def test_an_output_other_than_a_table_is_a_result_set_too(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess
) -> None:
    code = (
        "print('zwölf'); print(); print('end')\n"
        "from IPython.display import HTML, Image, display\n"
        "import io, matplotlib.pyplot as plt\n"
        "b = io.BytesIO(); plt.figure(figsize=(1, 1)); plt.savefig(b); plt.close()\n"
        "display(HTML('<b>x</b>')); display(Image(b.getvalue()))\n"
        "import pandas as pd; display(pd.DataFrame({'a': [1, None], 'b': ['x', 'y']}))\n"
        "1/0"
    )
    task = await asyncio.to_thread(run, agent, code)
    told = {output["type"]: n for n, output in enumerate(task["outputs"])}
    text = (await ask(gw, task, output=told["text"], format="dolphin")).raw
    assert dolphin(text) == (1, "NULL", ["zwölf", "", "end"])
    html = (await ask(gw, task, output=told["html"], format="dolphin")).raw
    assert dolphin(html) == (5, "NULL", ["<b>x</b>"])
    kind, _, (image,) = dolphin((await ask(gw, task, output=told["picture"], format="dolphin")).raw)
    assert kind == 4
    assert image.startswith('<img src="data:image/png;base64,')
    kind, _, trace = dolphin((await ask(gw, task, output=told["error"], format="dolphin")).raw)
    assert (kind, trace[-1]) == (1, "ZeroDivisionError: division by zero")
    page = (await ask(gw, task, output=told["html"])).data
    assert page["content"]["text"] == "<b>x</b>"
    # By default it is the table, which is small and not kept as a file.
    page = (await ask(gw, task)).data
    assert (page["output"], page["rows"]) == (told["table"], [[1.0, "x"], [None, "y"]])
    table = ipc.open_stream((await ask(gw, task, format="arrow")).raw).read_all()
    assert table.to_pydict() == {"a": [1.0, None], "b": ["x", "y"]}
    refused = await ask(gw, task, output=told["text"], format="arrow")
    assert (refused.http, "is a text and no table" in refused.message) == (400, True)


async def test_a_table_without_columns_is_no_result_set_of_linkiss(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess
) -> None:
    task = await asyncio.to_thread(run, agent, "import pandas as pd; display(pd.DataFrame())")
    refused = await ask(gw, task, format="dolphin")
    assert (refused.http, "has no columns" in refused.message) == (400, True), refused.message
    assert (await ask(gw, task)).data["rows"] == []
    # In Arrow it has its rows, as in JSON.
    for rows, kept in ((3000, 3000), (6000, 5000)):
        task = await asyncio.to_thread(run, agent, f"import pandas as pd; display(pd.DataFrame(index=range({rows})))")
        page = (await ask(gw, task)).data
        assert (page["totalRows"], page["resultRows"], page["truncated"]) == (rows, kept, rows > kept)
        answer = await ask(gw, task, format="arrow")
        assert ipc.open_stream(answer.raw).read_all().num_rows == kept
        assert told(answer) == ("true" if rows > kept else "false", str(kept), str(rows))


@pytest.mark.parametrize(
    ("more", "http", "words"),
    [
        ({"output": 7}, 400, "output is 7: the task has 1 outputs, counted from 0"),
        ({"format": "csv"}, 400, "format"),
        ({"rows": 5001}, 400, "rows is 5001: a page has at most 5000 rows"),
        ({"fromRow": 0}, 400, "fromRow"),
        ({"taskId": "nobodys"}, 400, "taskId nobodys is no task of"),
        ({"user": "bob", "token": BOB_TOKEN}, 403, "belongs to another user"),
    ],
)
async def test_impossible_parameters_of_get_result_set_are_refused(
    gw: Harness, engine: dict[str, Any], frame: dict[str, Any], more: dict[str, Any], http: int, words: str
) -> None:
    answer = await ask(gw, frame, **more)
    assert answer.http == http, answer.message
    assert words in answer.message


async def test_a_task_that_runs_has_no_result_yet(gw: Harness, engine: dict[str, Any], agent: AgentProcess) -> None:
    task = (await gw.execute(engine, "import time; time.sleep(30)", wait=False)).data
    answer = await ask(gw, task)
    assert answer.http == 400
    assert "ask again when it has ended" in answer.message
    await gw.post("cancelTask", {"engineId": UID, "taskId": task["taskId"]})
    await gw.execute(engine, "1")


async def archived(gw: Harness, agent: AgentProcess, task: dict[str, Any]) -> None:
    """What the agent sends to the operator, without one."""
    output = {name: value for name, value in task["outputs"][0].items() if name != "rows"}
    name = f"result-{output['resultId']}.arrow"
    await gw.archive.put(UID, 0, name, await asyncio.to_thread(Path(agent.log_dir, "results", name).read_bytes))
    listed = {"tasks": {task["taskId"]: {"status": "Succeed", "count": 1, "outputs": {"0": output}}}}
    await gw.archive.put(UID, 0, "results.json", json.dumps(listed).encode())


async def test_the_results_of_an_ended_engine_come_from_the_archive(
    gw: Harness, agent: AgentProcess, frame: dict[str, Any]
) -> None:
    gw.engine(name=NAME, status={"engineState": "Failed", "finishedTime": "2026-11-24T04:10:00Z"})
    await archived(gw, agent, frame)
    page = (await ask(gw, frame, fromRow=ROWS, rows=10)).data
    assert (page["rows"], page["totalRows"], page["columns"]) == ([LAST], ROWS, frame["outputs"][0]["columns"])
    assert len(dolphin((await ask(gw, frame, format="dolphin")).raw)[2]) == ROWS
    assert ipc.open_stream((await ask(gw, frame, format="arrow")).raw).read_all().num_rows == ROWS


async def test_a_result_that_the_engine_has_dropped_comes_from_the_archive_else_it_is_gone(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess
) -> None:
    task = await asyncio.to_thread(run, agent, "import pandas as pd; pd.DataFrame({'n': range(6000)})")
    await archived(gw, agent, task)
    name = f"result-{task['outputs'][0]['resultId']}.arrow"
    await asyncio.to_thread(Path(agent.log_dir, "results", name).unlink)
    assert (await ask(gw, task, fromRow=6000)).data["rows"] == [[5999]]
    await gw.archive.discard(UID, 0, name)
    for form in ("json", "arrow", "dolphin"):
        gone = await ask(gw, task, format=form)
        assert gone.http == 410
        assert "not kept any more" in gone.message


async def test_a_jobs_outputs_are_all_in_the_archive(gw: Harness) -> None:
    gw.engine(
        name=NAME, spec={"mode": "once"}, status={"engineState": "Success", "finishedTime": "2026-11-24T04:10:00Z"}
    )
    table = {"type": "table", "columns": [{"name": "n", "type": "int64"}], "rows": [[1], [2]], "totalRows": 2}
    outputs = [{"type": "text", "stream": "stdout", "text": "a\n"}, table | {"truncated": False}]
    await gw.archive.put(UID, 0, "result.json", json.dumps({"status": "Succeed", "outputs": outputs}).encode())
    job = {"taskId": "job"}
    page = (await ask(gw, job)).data
    assert (page["output"], page["outputs"], page["rows"], page["totalRows"]) == (1, 2, [[1], [2]], 2)
    assert dolphin((await ask(gw, job, output=0, format="dolphin")).raw) == (1, "NULL", ["a"])
    assert (await ask(gw, job, output=2)).http == 400


FORGED = "0" * 20


@pytest.fixture
def forged(agent: AgentProcess) -> Iterator[Path]:
    """A result's file that is the user's own work, and no table of it: the test writes it."""
    path = Path(agent.log_dir, "results", f"result-{FORGED}.arrow")
    path.parent.mkdir(exist_ok=True)
    yield path
    path.unlink(missing_ok=True)


async def shown(agent: AgentProcess, **table: Any) -> dict[str, Any]:
    """A task that displays what it calls a table."""
    content = {"columns": [{"name": "n", "type": "int64"}], "rows": [], "totalRows": None, "truncated": True} | table
    code = f"display({{'application/vnd.linkis.table+json': {content!r}}}, raw=True)"
    return await asyncio.to_thread(run, agent, code)


def arrow_file(*counts: int) -> bytes:
    sink = BytesIO()
    with ipc.new_file(sink, pa.schema({"n": pa.int64()})) as writer:
        for count in counts:
            writer.write_batch(pa.RecordBatch.from_pydict({"n": pa.array(range(count), pa.int64())}))
    return sink.getvalue()


def told(answer: Answer) -> tuple[str | None, ...]:
    """Truncated, the rows that are kept, and those of the table."""
    names = ("X-Result-Truncated", "X-Result-Rows", "X-Result-Total-Rows")
    return tuple(answer.headers.get(name) for name in names)


@pytest.mark.parametrize("total", [45, None, "many", True, -1, 7, 10**400])
@pytest.mark.parametrize("in_file", [True, False])
async def test_a_table_that_was_cut_looks_complete_in_no_format(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess, forged: Path, total: Any, in_file: bool
) -> None:
    await asyncio.to_thread(forged.write_bytes, arrow_file(10, 10, 5))
    where = {"resultId": FORGED} if in_file else {"rows": [[n % 10] for n in range(25)]}
    task = await shown(agent, totalRows=total, **where)
    known = 45 if total == 45 else None
    page = (await ask(gw, task)).data
    assert (page["totalRows"], page["resultRows"], page["truncated"], page["endRow"]) == (known, 25, True, 25)
    for part in ({}, {"fromRow": 2, "rows": 10}):
        for form in ("arrow", "dolphin"):
            answer = await ask(gw, task, format=form, **part)
            assert told(answer) == ("true", "25", None if known is None else "45")
            if form == "arrow":
                metadata = ipc.open_stream(answer.raw).schema.metadata
                assert metadata[b"linkis.truncated"] == b"true"
                assert metadata[b"linkis.resultRows"] == b"25"
                assert metadata[b"linkis.totalRows"] == (b"" if known is None else b"45")
    for form in ("json", "arrow", "dolphin"):
        assert (await ask(gw, task, format=form, fromRow=25)).http == 200
        refused = await ask(gw, task, format=form, fromRow=26)
        assert (refused.http, "fromRow is 26: " in refused.message) == (400, True), refused.message
        assert "the first 25 are kept" in refused.message
    if known:
        assert (await ask(gw, task, fromRow=46)).data["rows"] == [], "there is no such row"


@pytest.mark.parametrize("in_file", [True, False])
async def test_a_whole_table_says_that_it_is_whole_and_ends(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess, forged: Path, in_file: bool
) -> None:
    await asyncio.to_thread(forged.write_bytes, arrow_file(2))
    where = {"resultId": FORGED} if in_file else {"rows": [[0], [1]], "truncated": False}
    task = await shown(agent, totalRows=2, **where)
    page = (await ask(gw, task)).data
    assert (page["totalRows"], page["resultRows"], page["truncated"]) == (2, 2, False)
    for form in ("arrow", "dolphin"):
        answer = await ask(gw, task, format=form)
        assert told(answer) == ("false", "2", "2")
    assert (await ask(gw, task, fromRow=3)).data["rows"] == []


async def test_cut_cells_are_told_too(gw: Harness, engine: dict[str, Any], agent: AgentProcess) -> None:
    task = await shown(agent, rows=[[0], [1]], totalRows=2, truncated=True)
    assert (await ask(gw, task)).data["truncated"] is True
    for form in ("arrow", "dolphin"):
        assert told(await ask(gw, task, format=form)) == ("true", "2", "2")
    assert (await ask(gw, task, fromRow=3)).data["rows"] == [], "all rows are here"


@pytest.mark.parametrize(
    "content",
    [b"", b"ARROW1", b"x" * 100_000, arrow_file(10)[:-20], b"ARROW1\0\0" + b"\xff" * 200 + b"\x10\0\0\0ARROW1"],
)
async def test_a_result_file_that_is_not_arrow_is_refused(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess, forged: Path, content: bytes
) -> None:
    await asyncio.to_thread(forged.write_bytes, content)
    task = await shown(agent, resultId=FORGED)
    for form in ("json", "arrow", "dolphin"):
        answer = await ask(gw, task, format=form)
        assert answer.http == 502
        assert "cannot be read" in answer.message


async def test_a_file_that_is_broken_in_the_middle_is_never_taken_for_whole(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess, forged: Path
) -> None:
    await asyncio.to_thread(forged.write_bytes, arrow_file(10_000, 10_000, 9_000, 10_000))
    task = await shown(agent, resultId=FORGED)
    assert (await ask(gw, task, fromRow=10_001)).data["rows"][0] == [0]
    assert (await ask(gw, task, fromRow=20_001)).http == 502
    for form in ("arrow", "dolphin"):
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask(gw, task, format=form)


@pytest.mark.parametrize(
    "table",
    [{"resultId": 5}, {"resultId": "../../etc/passwd"}, {"columns": 5}, {"columns": [5]}, {"rows": 5}, {"rows": [5]},
     {"rows": [[{"a": [1]}, 2, 3], []], "columns": [{"name": 5}, {"type": {}}]}, {"type": "picture"},
     {"rows": [[]] * 3000, "columns": [{}] * 9000}],
)  # fmt: skip
async def test_a_table_that_user_code_made_up_breaks_nothing(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess, table: dict[str, Any]
) -> None:
    task = await shown(agent, **table)
    for form in ("json", "arrow", "dolphin"):
        assert (await ask(gw, task, format=form)).http in (200, 400, 502)


async def test_only_a_fixed_number_of_pages_is_made_at_a_time_and_others_wait(
    gw: Harness, engine: dict[str, Any], frame: dict[str, Any]
) -> None:
    source = gw.gateway.results
    async with AsyncExitStack() as others:
        for n in range(result_source.PAGES - result_source.PAGES_PER_USER):
            await others.enter_async_context(source.page_slot(f"user{n}"))
        async with AsyncExitStack() as mine:
            for _ in range(result_source.PAGES_PER_USER):
                await mine.enter_async_context(source.page_slot("alice"))
            waiting = [asyncio.create_task(ask(gw, frame)) for _ in range(4)]
            # Who asks for no page does not wait.
            assert (await ask(gw, frame, format="arrow", rows=1)).http == 200
            assert not any(task.done() for task in waiting)
        for answer in await asyncio.gather(*waiting):
            assert (answer.http, len(answer.data["rows"])) == (200, 1000)
    assert not gw.gateway.budget.held


async def test_a_key_finds_its_tasks_result(gw: Harness, engine: dict[str, Any]) -> None:
    code = "import pandas as pd; pd.DataFrame({'n': range(3)})"
    await gw.execute(engine, code, idempotencyKey="mine")
    page = (await gw.get("getResultSet", {"engineId": UID, "idempotencyKey": "mine"})).data
    assert page["rows"] == [[0], [1], [2]]


BIG = "import duckdb\nduckdb.sql('select ' + ', '.join(f'random() as c{n}' for n in range(4)) + ' from range(3000000)')"


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_memory_does_not_grow_with_the_result_and_a_user_has_so_many_at_a_time(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess
) -> None:
    task = await asyncio.to_thread(run, agent, BIG)
    assert task["outputs"][0]["resultRows"] == 3_000_000
    await ask(gw, task, format="dolphin", rows=1)
    before = await asyncio.to_thread(resident)
    url = f"{gw.url}{BASE}/getResultSet"
    headers = {"Token-Code": TOKEN, "Token-User": "alice"}
    query = {"engineId": UID, "taskId": task["taskId"]}
    most = 0
    for form, least in (("arrow", 96_000_000), ("dolphin", 250_000_000)):
        async with gw.session.get(url, params=query | {"format": form}, headers=headers) as answer:
            seen = 0
            async for chunk in answer.content.iter_chunked(1 << 20):
                seen += len(chunk)
                most = max(most, resident())
        assert seen > least
    assert most - before < 64 << 20
    async with AsyncExitStack() as readers:
        for _ in range(4):
            await readers.enter_async_context(gw.session.get(url, params=query | {"format": "arrow"}, headers=headers))
        fifth = await ask(gw, task, format="arrow")
        assert fifth.http == 429
        assert "4 result sets of alice are being sent already" in fifth.message
        assert len((await ask(gw, task)).data["rows"]) == 1000
    # Readers that have left make room.
    await asyncio.to_thread(until, lambda: not gw.gateway.results.under_way and not gw.gateway.budget.held)
    assert (await ask(gw, task, format="arrow", rows=1)).http == 200

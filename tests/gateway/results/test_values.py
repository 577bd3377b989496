"""One value through every method of the gateway, in front of a real agent and a real kernel."""

from __future__ import annotations

import json
import math
from io import BytesIO
from typing import Any

import pytest
from pyarrow import ipc

from linkis_ecm.agent.formats.cells import cell_text, cells
from tools.testkit.agents.process import AgentProcess
from tools.testkit.gateway.dolphin import dolphin
from tools.testkit.gateway.harness import BASE, TOKEN, Harness

HEAD = "import pandas as pd, numpy as np, math, datetime, decimal\nfrom unittest.mock import MagicMock\n"
BIG = "pd.concat([f] * 6000, ignore_index=True)"
# A frame of one row, and what each reader has of it as text.
FRAMES = {
    "integers": (
        "{'a': [10**20+1], 'b': [2**63], 'c': [-2**70], 'd': [math.factorial(200)], 'e': [2**53+1]}, dtype=object",
        [str(10**20 + 1), str(2**63), str(-(2**70)), str(math.factorial(200)), str(2**53 + 1)],
    ),
    "unsigned": ("{'a': np.array([2**64-1], 'u8')}", [str(2**64 - 1)]),
    "decimals": ("{'a': [decimal.Decimal('1.10')], 'b': [decimal.Decimal('9'*60)]}", ["1.10", "9" * 60]),
    "dates": (
        "{'a': np.array(['20000-01-01'], 'M8[s]'), 'b': [datetime.date(2024, 1, 2)], 'c': [datetime.date]}",
        ["20000-01-01T00:00:00", "2024-01-02", "<class 'datetime.date'>"],
    ),
    "nested": ("{'a': [[1, 2]], 'b': [{'k': 2**70}], 'c': [np.array([0.5])]}",
        ["[1, 2]", f"{{'k': {2**70}}}", "[0.5]"]),
}  # fmt: skip


async def every_answer(gw: Harness, engine: dict[str, Any], code: str) -> dict[str, list[Any]]:
    """The first row of the code's table, as each method has it."""
    result = (await gw.execute(engine, HEAD + code)).data
    assert result["status"] == "Succeed", result
    query = {"engineId": engine["metadata"]["uid"], "taskId": result["taskId"]}
    rows = {"executeCode": result["outputs"][0]["rows"][0]}
    rows["getTaskResult"] = (await gw.get("getTaskResult", query)).data["outputs"][0]["rows"][0]
    headers = {"Token-Code": TOKEN, "Token-User": "alice"}
    async with gw.session.get(f"{gw.url}{BASE}/taskEvents", params=query, headers=headers) as stream:
        text = await stream.text()
    (event,) = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ") and '"rows"' in line]
    rows["taskEvents"] = event["output"]["rows"][0]
    page = await gw.get("getResultSet", query)
    assert page.http == 200, page.message
    rows["getResultSet"] = page.data["rows"][0]
    table = ipc.open_stream((await gw.get("getResultSet", query | {"format": "arrow"})).raw).read_all()
    table.validate(full=True)
    rows["arrow"] = [cells(column.chunk(0))[0] for column in table.columns]
    _, _, found = dolphin((await gw.get("getResultSet", query | {"format": "dolphin"})).raw)
    rows["dolphin"] = [value.replace(" 00:00:00", "T00:00:00") for value in found[0]]
    assert len(found) == table.num_rows == page.data["totalRows"]
    return rows


@pytest.mark.parametrize("show", ["f", BIG])
@pytest.mark.parametrize("kind", FRAMES)
async def test_a_value_is_the_same_in_every_answer(gw: Harness, engine: dict[str, Any], kind: str, show: str) -> None:
    made, wanted = FRAMES[kind]
    for method, row in (await every_answer(gw, engine, f"f = pd.DataFrame({made})\n{show}")).items():
        assert [cell_text(value) for value in row] == wanted, method


async def test_all_rows_of_big_integers_can_be_had(gw: Harness, engine: dict[str, Any]) -> None:
    code = "pd.DataFrame({'a':range(6000),'b':[10**20+i for i in range(6000)]})"
    result = (await gw.execute(engine, HEAD + code)).data
    query = {"engineId": engine["metadata"]["uid"], "taskId": result["taskId"]}
    page = (await gw.get("getResultSet", query | {"fromRow": "5999"})).data
    assert page["rows"] == [[n, str(10**20 + n)] for n in (5998, 5999)]
    table = ipc.open_stream(BytesIO((await gw.get("getResultSet", query | {"format": "arrow"})).raw)).read_all()
    assert table.column("b").to_pylist() == [str(10**20 + n) for n in range(6000)]


async def test_a_cell_without_a_text_fails_no_task(gw: Harness, engine: dict[str, Any]) -> None:
    code = (
        "class Gone:\n    def __str__(self): raise RuntimeError('no connection')\n    __repr__ = __str__\n"
        "f = pd.DataFrame({'a': [Gone(), MagicMock(name='m')]}, dtype=object)\nf"
    )
    result = (await gw.execute(engine, HEAD + code)).data
    assert (result["status"], [output["type"] for output in result["outputs"]]) == ("Succeed", ["table"])
    (first,), (second,) = result["outputs"][0]["rows"]
    assert first == "<__main__.Gone: it has no text (RuntimeError)>"
    assert second.startswith("<MagicMock name='m'")


def test_a_query_runs_once_where_its_table_is_shown(agent: AgentProcess) -> None:
    head = (
        "import duckdb\ncalls = []\ncon = duckdb.connect()\n"
        "con.create_function('seen', lambda n: calls.append(n) or n, ['BIGINT'], 'BIGINT', side_effects=True)\n"
    )
    (table,) = agent.outputs(head + "con.sql('select seen(range) as n from range(20)')")
    assert len(table["rows"]) == 20
    (text,) = agent.outputs("print(len(calls))")
    assert text["text"] == "20\n"
    agent.outputs("display(con.sql('select seen(range) as n from range(20)'))")
    assert agent.outputs("print(len(calls))")[0]["text"] == "40\n"


def test_the_error_of_a_query_that_is_shown_fails_the_task_once(agent: AgentProcess) -> None:
    result = agent.execute("import duckdb\nduckdb.sql(\"select cast(range || 'x' as integer) as n from range(3)\")")
    assert result["status"] == "Failed"
    (error,) = result["outputs"]
    assert (error["type"], error["name"]) == ("error", "ConversionException")

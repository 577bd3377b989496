"""The gateway in front of a real agent and a real kernel: the whole way of code and of a log, but for the cluster."""

from __future__ import annotations

import asyncio
from typing import Any

from tools.testkit.agents.process import AgentProcess
from tools.testkit.gateway.harness import Harness


async def test_text_table_picture_and_error_come_back_typed(gw: Harness, engine: dict[str, Any]) -> None:
    code = (
        "import pandas as pd, matplotlib; matplotlib.use('Agg'); import matplotlib.pyplot as plt\n"
        "print('zwölf'); display(pd.DataFrame({'n': [1, 2]}))\n"
        "from IPython.display import Image, display as show\n"
        "import io; b = io.BytesIO(); plt.figure(figsize=(1, 1)); plt.savefig(b, format='png')\n"
        "show(Image(b.getvalue()))"
    )
    result = (await gw.execute(engine, code)).data
    assert result["status"] == "Succeed", result
    kinds = [output["type"] for output in result["outputs"]]
    assert kinds == ["text", "table", "picture"]
    assert result["outputs"][0]["text"] == "zwölf\n"
    assert [column["name"] for column in result["outputs"][1]["columns"]][-1] == "n"
    failed = (await gw.execute(engine, "1/0")).data
    assert failed["status"] == "Failed"
    (error,) = [output for output in failed["outputs"] if output["type"] == "error"]
    assert (error["name"], error["value"]) == ("ZeroDivisionError", "division by zero")
    assert error["traceback"]


async def test_a_task_over_its_limit_is_interrupted_and_the_next_one_runs(gw: Harness, engine: dict[str, Any]) -> None:
    late = (await gw.execute(engine, "import time; time.sleep(30)", timeoutSeconds=1)).data
    assert late["status"] == "Timeout"
    assert (await gw.execute(engine, "1+1")).data["outputs"][0]["text"] == "2"


async def test_tasks_sent_together_run_one_after_the_other(gw: Harness, engine: dict[str, Any]) -> None:
    await gw.execute(engine, "order = []")
    await asyncio.gather(*(gw.execute(engine, f"order.append({n}); import time; time.sleep(0.01)") for n in range(8)))
    told = (await gw.execute(engine, "sorted(order) == list(range(8))")).data
    assert told["outputs"][0]["text"] == "True"


async def test_printed_text_is_in_the_log_pages_and_in_the_download(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess
) -> None:
    await gw.execute(engine, "for n in range(50): print('printed', n)")
    file = (await gw.get("downloadEngineLog", gw.download_query(engine))).raw
    assert file.decode() == agent.log("stdout")
    lines = file.decode().splitlines()
    first = lines.index("printed 0") + 1
    query = {"engineId": engine["metadata"]["uid"], "fromLine": str(first), "lines": "50"}
    page = (await gw.get("getEngineLogs", query)).data
    assert page["logs"] == [f"printed {n}" for n in range(50)]
    assert page["endLine"] == first + 49
    assert page["rows"] == 50


async def test_a_token_of_another_attempt_opens_nothing(gw: Harness, engine: dict[str, Any]) -> None:
    later = gw.cluster.put(engine | {"status": engine["status"] | {"attempt": 1}})
    answer = await gw.execute(later)
    assert answer.http == 502
    assert "must read the same token key" in answer.message

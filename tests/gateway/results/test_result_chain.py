"""A spilled result on its whole way: kernel, agent, operator, archive, gateway; its pod is killed in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.gateway.inventory.view import engine_of_record
from tests.agent.operator import TICKET, TOKEN, UID, Operator
from tools.testkit.agents.process import AgentProcess
from tools.testkit.gateway.dolphin import dolphin
from tools.testkit.gateway.harness import EM, PATIENCE, Harness

ROWS = 20_000
CODE = (
    "import pandas as pd\n"
    f"print('x'); pd.DataFrame({{'n': range({ROWS}), 't': pd.date_range('2026-01-01', periods={ROWS}, freq='s')}})"
)


GONE = engine_of_record(
    ticket_id=TICKET, label_value="alice-IDE,python-3.11", user="alice", service_instance="gone:9105",
    ecm_instance=EM, status="Failed", log_dir_suffix=f"alice/20261124/python/{TICKET}/logs", create_time=None,
    used_time=None, release_time=None, reason="PodKilled", uid=UID,
)  # fmt: skip


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    made = Operator(tmp_path, file_max=1 << 30)
    await made.start()
    yield made
    await made.runner.cleanup()


async def killed_after(code: str, operator: Operator, folder: Path) -> dict[str, Any]:
    """What the code gave in an engine whose pod was killed once its result was in the archive."""
    agent = await asyncio.to_thread(
        AgentProcess,
        folder,
        ECM_REPORT_URL=operator.url,
        ECM_UID=UID,
        ECM_TICKET_ID=TICKET,
        ECM_AGENT_KEY=TOKEN,
        ECM_POD_UID=f"pod-{UID}",
    )
    try:
        result = await asyncio.to_thread(agent.execute, code)
        async with asyncio.timeout(PATIENCE):
            await operator.listed.wait()
        agent.process.kill()
    finally:
        await asyncio.to_thread(agent.close)
    return result


async def test_big_integers_are_the_same_after_their_pod_was_killed(
    make: Any, operator: Operator, tmp_path: Path
) -> None:
    folder = tmp_path / "agent"
    folder.mkdir()
    code = "import pandas as pd; pd.DataFrame({'b': [10**20 + i for i in range(6000)], 'u': [2**63] * 6000})"
    result = await killed_after(code, operator, folder)
    gw: Harness = await make(
        find=lambda engine_id: GONE if engine_id == TICKET else None, archive=operator.archive
    )  # fmt: skip
    query = {"engineId": TICKET, "taskId": result["taskId"], "fromRow": "6000"}
    wanted = [[str(10**20 + 5999), str(2**63)]]
    assert (await gw.get("getResultSet", query)).data["rows"] == wanted
    assert dolphin((await gw.get("getResultSet", query | {"format": "dolphin"})).raw)[2] == wanted


async def test_a_spilled_result_is_read_after_its_pod_was_killed(make: Any, operator: Operator, tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    folder.mkdir()
    result = await killed_after(CODE, operator, folder)
    gw: Harness = await make(find=lambda engine_id: GONE if engine_id == TICKET else None, archive=operator.archive)
    query = {"engineId": TICKET, "taskId": result["taskId"]}
    page = (await gw.get("getResultSet", query | {"fromRow": str(ROWS)})).data
    assert (page["output"], page["outputs"], page["totalRows"]) == (1, 2, ROWS)
    assert page["columns"] == result["outputs"][1]["columns"]
    assert page["rows"] == [[ROWS - 1, "2026-01-01T05:33:19"]]
    kind, columns, rows = dolphin((await gw.get("getResultSet", query | {"format": "dolphin"})).raw)
    assert (kind, columns[0], len(rows), rows[0]) == (2, "n", ROWS, ["0", "2026-01-01 00:00:00"])
    # The text beside it went with the pod; the log has it.
    text = await gw.get("getResultSet", query | {"output": "0"})
    assert (text.http, "not kept any more" in text.message) == (410, True)

"""The next page of a big table: the file that was opened for the page before is read on, for as long as it is there."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.agent.formats.names import RESULTS_FOLDER
from linkis_ecm.agent.formats.result_files import file_name
from linkis_ecm.gateway.agents.link import AgentLink
from linkis_ecm.gateway.results.opened import FILE_BYTES, FILES, OpenedFiles
from tools.testkit.agents.process import AgentProcess
from tools.testkit.gateway.harness import Answer, Harness
from tools.testkit.gateway.real_agents import UID

ROWS = 100_000
CODE = (
    f"import pandas as pd, numpy as np\nn = np.arange({ROWS})\n"
    "pd.DataFrame({'n': n, 'x': np.random.default_rng(1).random(len(n)), 's': n.astype(str)})"
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of which agents were asked for bytes."""
    found: list[str] = []
    whole = AgentLink.open

    def watched(self: AgentLink, engine: Any, path: str, **options: Any) -> Any:
        found.append(path)
        return whole(self, engine, path, **options)

    monkeypatch.setattr(AgentLink, "open", watched)
    return found


async def task_and_file(agent: AgentProcess) -> tuple[str, Path]:
    result = await asyncio.to_thread(agent.execute, CODE)
    table = result["outputs"][0]
    return result["taskId"], agent.log_dir / RESULTS_FOLDER / file_name(table["resultId"])


async def page(gw: Harness, task_id: str, first: int) -> Answer:
    return await gw.get("getResultSet", {"engineId": UID, "taskId": task_id, "fromRow": str(first), "rows": "100"})


async def test_the_next_page_asks_for_its_rows_alone(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess, asked: list[str]
) -> None:
    task_id, _ = await task_and_file(agent)
    assert (await page(gw, task_id, 1)).data["rows"][99][0] == 99
    assert len(asked) > 3
    for first in (50_001, 60_001):
        asked.clear()
        found = (await page(gw, task_id, first)).data
        assert [row[0] for row in found["rows"]] == list(range(first - 1, first + 99))
        assert found["totalRows"] == ROWS
        assert [path.split("/")[2] for path in asked] == ["tasks", "results"]


async def test_a_file_that_became_another_one_is_opened_anew(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess
) -> None:
    task_id, path = await task_and_file(agent)
    await page(gw, task_id, 1)
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    os.replace(copy, path)
    assert (await page(gw, task_id, 101)).data["rows"][0][0] == 100


async def test_a_file_that_is_gone_is_not_kept_any_more(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess
) -> None:
    task_id, path = await task_and_file(agent)
    await page(gw, task_id, 1)
    path.unlink()
    refused = await page(gw, task_id, 101)
    assert refused.http == 410
    assert "The output is not kept any more" in refused.message


class File:
    """As much of a file as is looked at."""

    def __init__(self, held_bytes: int) -> None:
        self.held_bytes = held_bytes


def test_so_many_files_are_remembered_and_no_big_one() -> None:
    opened = OpenedFiles()
    files: dict[int, Any] = {number: File(FILE_BYTES) for number in range(FILES + 2)}
    for number in range(FILES):
        opened.add(number, files[number])
    assert opened.find(0) is files[0]
    opened.add(FILES, files[FILES])
    # The one that was used longest ago has gone.
    assert opened.find(1) is None
    assert opened.find(0) is files[0]
    big: Any = File(FILE_BYTES + 1)
    opened.add("big", big)
    assert opened.find("big") is None
    assert len(opened) == FILES
    assert opened.forget(0)
    assert not opened.forget(0)

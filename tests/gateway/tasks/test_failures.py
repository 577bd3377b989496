"""Why a task has failed, by every method that tells of it, while its engine lives and after its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.gateway.inventory.view import engine_of_record
from tests.gateway.tasks.test_tasks import over
from tools.testkit.agents.process import until
from tools.testkit.gateway.harness import EM, Harness
from tools.testkit.gateway.real_agents import UID, engine_at
from tools.testkit.gateway.stores import Store, store_in

CODE = "def load(path): return open(path)\nload('/data/missing.csv')"
VALUE = "[Errno 2] No such file or directory: '/data/missing.csv'"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with store_in(tmp_path) as opened:
        yield opened


@pytest.fixture
async def gw(make: Callable[..., Awaitable[Harness]], store: Store) -> Harness:
    return await make(database=store.parts)


@pytest.mark.parametrize("wait", [True, False])
async def test_a_failed_tasks_error_is_in_its_status(gw: Harness, engine: dict[str, Any], wait: bool) -> None:
    task = (await gw.execute(engine, CODE, wait=wait)).data
    info = await over(gw, engine, task["taskId"])
    assert (info["status"], info["reason"], info["message"]) == ("Failed", "FileNotFoundError", VALUE)
    listed = (await gw.get("listTasks", {"engineId": UID})).data["tasks"]
    (found,) = [entry for entry in listed if entry["taskId"] == task["taskId"]]
    assert (found["reason"], found["message"]) == ("FileNotFoundError", VALUE)


@pytest.mark.parametrize("without", [True, False])
async def test_its_status_has_it_without_a_database_too(
    make: Callable[..., Awaitable[Harness]], agent: Any, without: bool, store: Store
) -> None:
    gw = await make(database=None if without else store.parts)
    engine = engine_at(gw, agent)
    task = (await gw.execute(engine, CODE)).data
    assert (task["reason"], task["message"]) == ("FileNotFoundError", VALUE)
    assert (await over(gw, engine, task["taskId"]))["reason"] == "FileNotFoundError"


async def test_a_word_of_its_traceback_is_found_in_the_log(gw: Harness, engine: dict[str, Any]) -> None:
    await gw.execute(engine, CODE)
    query = {"engineId": UID, "logType": "stderr", "onlyKeywords": "Error,Traceback"}
    lines = (await gw.get("getEngineLogs", query)).data["logs"]
    assert any(VALUE in line for line in lines)


async def test_it_is_still_told_when_the_engine_has_ended(
    make: Callable[..., Awaitable[Harness]], gw: Harness, engine: dict[str, Any], store: Store
) -> None:
    task = (await gw.execute(engine, CODE)).data
    query = {"engineId": UID, "taskId": task["taskId"]}
    record = until(lambda: (found := store.queries.execution(task["taskId"])) and found.final and found)
    assert (record.reason, record.message) == ("FileNotFoundError", VALUE)
    gone = engine_of_record(
        ticket_id=record.ticket_id, label_value="alice-IDE,python-3.11", user="alice",
        service_instance="gone:9105", ecm_instance=EM, status="Success", log_dir_suffix="alice/20261124/python/x/logs",
        create_time=None, used_time=None, release_time=None, reason="", uid=UID,
    )  # fmt: skip
    later = await make(find=lambda engine_id: gone if engine_id == UID else None, database=store.parts)
    info = (await later.get("getTask", query)).data
    assert (info["status"], info["reason"], info["message"]) == ("Failed", "FileNotFoundError", VALUE)
    answer = await later.get("getTaskResult", query)
    assert (answer.http, f"the task is Failed (FileNotFoundError: {VALUE})" in answer.message) == (410, True)

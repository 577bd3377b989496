"""Results in the archive: a real agent sends them while its engine lives, and the operator keeps the latest of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from linkis_ecm.controller.pods import evidence
from tests.agent.operator import QUERY, TICKET, TOKEN, UID, Operator, Start, ended, started
from tools.testkit.agents.process import PATIENCE

SPILLS = "import duckdb\nduckdb.sql('select * from range(20000)')"


async def in_archive(operator: Operator, task_id: str) -> dict[str, Any]:
    """What the list says of the task, once it is there."""
    async with asyncio.timeout(PATIENCE):
        while True:
            listed = json.loads(await operator.archive.get(UID, 0, "results.json") or b"{}")
            if found := listed.get("tasks", {}).get(task_id):
                return found
            await asyncio.sleep(0.02)


async def test_a_spilled_result_is_in_the_archive_while_its_engine_lives(start: Start, operator: Operator) -> None:
    agent = await started(start, operator)
    operator.busy = 2  # it is sent again
    result = await asyncio.to_thread(agent.execute, SPILLS)
    told = await in_archive(operator, result["taskId"])
    (shown,) = result["outputs"]
    assert told["outputs"] == {"0": {name: value for name, value in shown.items() if name != "rows"}}
    assert (told["count"], told["status"]) == (1, "Succeed")
    name = f"result-{shown['resultId']}.arrow"
    assert (await operator.archive.files(UID, 0))[name] == shown["resultBytes"]
    assert agent.status()["state"] == "Idle"
    assert operator.index.entries[-1].files[name] == shown["resultBytes"]


async def test_a_result_that_could_not_be_sent_yet_is_sent_on_the_way_out(start: Start, operator: Operator) -> None:
    agent = await started(start, operator)
    operator.hang = True
    first = await asyncio.to_thread(agent.execute, SPILLS)
    second = await asyncio.to_thread(agent.execute, SPILLS)
    await asyncio.to_thread(agent.execute, "print('printed')")
    assert await operator.archive.attempts(UID) == []
    operator.hang = False
    agent.process.terminate()
    assert await ended(agent) == 143
    for result in (first, second):
        told = await in_archive(operator, result["taskId"])
        assert f"result-{told['outputs']['0']['resultId']}.arrow" in await operator.archive.files(UID, 0)
    assert b"printed" in (await operator.archive.get(UID, 0, "stdout", limit=64 << 20) or b"")


async def test_the_archive_keeps_the_latest_of_too_many_results(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "RESULTS_MAX", 3)
    query = QUERY
    headers = {"Authorization": f"Bearer {TOKEN}"}
    names = [f"result-{n:020x}.arrow" for n in range(5)]
    async with aiohttp.ClientSession(operator.url) as session:

        async def put(name: str, data: bytes) -> tuple[int, str]:
            async with session.put(f"/v1/archive/{name}", params=query, data=data, headers=headers) as answer:
                return answer.status, await answer.text()

        await put("stdout", b"log")
        for name in names:
            assert (await put(name, b"x" * 100))[0] == 200
        assert sorted(await operator.archive.files(UID, 0)) == [*names[2:], "stdout"]
        # By bytes, too; and half of a result is none.
        monkeypatch.setattr(evidence, "RESULT_BYTES", 150)
        monkeypatch.setattr(evidence, "RESULTS_BYTES", 350)
        assert (await put(names[0], b"x" * 150))[0] == 200
        assert sorted(await operator.archive.files(UID, 0)) == [names[0], *names[3:], "stdout"]
        status, text = await put(names[1], b"x" * 200)
        assert (status, "it has 200 bytes, and the archive's bound for a result is 150" in text) == (413, True)
        assert names[1] not in await operator.archive.files(UID, 0)
        for name in ("result-x.arrow", "result-00000000000000000000.arrow.part", "results-0.json"):
            assert (await put(name, b"x"))[0] == 404


async def test_a_result_makes_room_for_what_it_announces_and_no_more(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "RESULT_BYTES", 300)
    monkeypatch.setattr(evidence, "RESULTS_BYTES", 500)
    query = QUERY
    headers = {"Authorization": f"Bearer {TOKEN}"}
    names = [f"result-{n:020x}.arrow" for n in range(6)]
    async with aiohttp.ClientSession(operator.url) as session:

        async def put(name: str, data: bytes) -> int:
            async with session.put(f"/v1/archive/{name}", params=query, data=data, headers=headers) as answer:
                return answer.status

        async def breaks() -> AsyncIterator[bytes]:
            yield b"x" * 50
            raise ConnectionResetError

        for name in names[:5]:
            assert await put(name, b"x" * 100) == 200
        assert sorted(await operator.archive.files(UID, 0)) == names[:5]
        # Too long: refused before anything is dropped or read.
        assert await put(names[5], b"x" * 301) == 413
        assert sorted(await operator.archive.files(UID, 0)) == names[:5]
        # Broken off: it has cost no more than the 100 bytes that it announced.
        size, cut = await operator.keeper.add_result(
            UID, 0, names[5], breaks(), limit=1000, ticket=TICKET, announced=100
        )
        assert (size, cut) == (0, "cut at 50 bytes: ConnectionResetError")
        assert sorted(await operator.archive.files(UID, 0)) == names[1:5]

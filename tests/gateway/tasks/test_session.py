"""docs/session.md is made by e2e.session: it runs whole against a gateway with a real agent, and tells no token."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import insert, update

from e2e.session import ENTRIES, LINES, cut_lines, shortened
from linkis_ecm.gateway.main import finder
from linkis_ecm.store.linkis import record
from linkis_ecm.store.queries import Queries
from linkis_ecm.store.rows import naive
from tools.testkit.agents.keys import agent_key_of, key_status
from tools.testkit.agents.process import AgentProcess
from tools.testkit.gateway.harness import EM, KEY, TOKEN, Harness
from tools.testkit.gateway.stores import database_in

ROOT = Path(__file__).parents[3]
NAME = "python-hadoop-session"


class Operator:
    """What the operator does for one engine: a pod's agent, the row, the archive at its end."""

    def __init__(self, gw: Harness, database: Any, folder: Path) -> None:
        self.gw = gw
        self.database = database
        self.folder = folder
        self.agent: AgentProcess | None = None
        self.work: set[asyncio.Task[None]] = set()
        gw.cluster.on_create = lambda item: self.go(self.start(item))
        self._patch = gw.cluster.patch
        gw.cluster.patch = self.patch  # type: ignore[method-assign]

    def go(self, work: Any) -> None:
        self.work.add(asyncio.create_task(work))

    async def patch(self, resource: Any, name: str, body: dict[str, Any], **more: Any) -> dict[str, Any]:
        item = await self._patch(resource, name, body, **more)
        if item["spec"]["desiredState"] == "Stopped":
            self.go(self.stop(item))
        return item

    async def start(self, item: dict[str, Any]) -> None:
        uid, ticket = item["metadata"]["uid"], item["spec"].get("ticketId") or item["metadata"]["uid"]
        token = agent_key_of(KEY, uid, 0)
        self.agent = await asyncio.to_thread(AgentProcess, self.folder, ECM_AGENT_KEY=token)
        suffix = f"hadoop/20261124/python/{ticket}/logs"
        instance = f"{item['metadata']['name']}-0.linkis-engines.linkis:9105"
        now = naive(self.gw.clock())
        with self.database.begin() as connection:
            connection.execute(
                insert(record).values(
                    label_value="hadoop-IDE,python-3.11", create_user="hadoop", service_instance=instance,
                    ecm_instance=EM, ticket_id=ticket, status="Running", log_dir_suffix=suffix, request_times=1,
                    used_times=1, create_time=now, used_time=now,
                )
            )  # fmt: skip
        status = {
            "engineState": "Idle", "reason": "KernelReady", "engineType": "python", "engineVersion": "3.11",
            "serviceInstance": instance, "address": f"127.0.0.1:{self.agent.port}", "attempt": 0, "ecmInstance": EM,
            "logDirSuffix": suffix, "agentKey": key_status(KEY, uid),
        }  # fmt: skip
        self.gw.cluster.put(item | {"status": status})

    async def stop(self, item: dict[str, Any]) -> None:
        assert self.agent is not None
        await asyncio.to_thread(self.agent.close)
        uid = item["metadata"]["uid"]
        for name in ("stdout", "stderr"):
            await self.gw.archive.put(uid, 0, name, self.agent.log(name).encode())
        await self.gw.archive.put(uid, 0, "bundle.json", orjson.dumps({"reason": "StoppedByUser", "events": []}))
        with self.database.begin() as connection:
            connection.execute(
                update(record).values(status="ShuttingDown", release_times=1, release_time=record.c.create_time)
            )
        ended = {"engineState": "Success", "reason": "StoppedByUser", "finishedTime": "2026-11-24T05:00:09Z"}
        self.gw.cluster.put(item | {"status": item["status"] | ended})


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Any]:
    with database_in(tmp_path) as opened:
        yield opened


@pytest.fixture
async def operator(make: Any, database: Any, tmp_path: Path) -> AsyncIterator[Operator]:
    queries = Queries(database)
    # The history page is today's: the session must not run over midnight.
    noon = datetime(2026, 11, 24, 12, tzinfo=UTC)
    gw: Harness = await make(find=finder(queries), database={"records": queries}, now=noon)
    operator = Operator(gw, database, tmp_path)
    yield operator
    await asyncio.gather(*operator.work)
    if operator.agent is not None:
        await asyncio.to_thread(operator.agent.close)


async def session(gw: Harness, token: str = TOKEN) -> tuple[int, str, str]:
    """The exit code, what was printed, and the errors."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "e2e.session", gw.url, token, "--seconds", "60",
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 150)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_whole_session_is_run_and_written_down(operator: Operator) -> None:
    code, page, errors = await session(operator.gw)
    assert errors == ""
    assert code == 0
    assert TOKEN not in page
    assert page.count("```") % 2 == 0
    calls = re.findall(r"(?:\$LINKIS|\$ECM)/([\w/]+)", "\n".join(re.findall(r"^\$ .*ecm .*", page, re.MULTILINE)))
    assert calls == [
        "createEngineConn", "getEngineStatus", "listUserEngines", "executeCode", "executeCode", "taskEvents",
        "getTaskResult", "getEngineLogs", "openEngineLog", "downloadEngineLog", "downloadEngineLog", "getEngineStatus",
        "ecinfo/ecrHistoryList", "killEngineConn", "getEngineStatus", "getPostMortem", "getEngineLogs",
        "downloadEngineLog", "ecinfo/ecrHistoryList",
    ]  # fmt: skip
    for told in (
        "step 5",
        "event: end",
        "206 Partial Content",
        "bytes 0-79/",
        "StoppedByUser",
        '"city"',
        '"status": 3',
    ):
        assert told in page
    after = page.partition("## After its end")[2]
    assert '"step 1"' in after, "the log is read after the end"
    assert "206 Partial Content" in after
    # What a person would type is what was run: bash takes each command as it stands.
    for command in re.findall(r"^\$ (.*)", page, re.MULTILINE):
        checked = await asyncio.create_subprocess_exec("bash", "-n", "-c", command)
        assert await checked.wait() == 0, command


async def test_a_token_that_is_not_accepted_ends_it_with_the_gateways_sentence(gw: Harness) -> None:
    code, page, errors = await session(gw, "LINKIS-WRONG-0123456789")
    assert code == 1
    assert "answered -1: Token-Code is not accepted" in errors
    assert "LINKIS-WRONG" not in page + errors


def test_long_answers_are_cut_and_say_so() -> None:
    assert shortened({"logs": [1] * (ENTRIES + 6), "text": "x" * 500}) == {
        "logs": [1] * ENTRIES + ["… and 6 more"],
        "text": "x" * 160 + " … 500 characters",
    }
    assert cut_lines("a\n" * (LINES + 2)).endswith("a\n… and 2 more lines")
    assert cut_lines("a\nb\n") == "a\nb"

"""Real connections that break in the middle, between a client and a live gateway with a real agent and kernel."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.client import text_of
from tests.agent.harness import AgentProcess
from tests.client.proxy import CuttingProxy
from tests.client.support import Both
from tests.gateway.realagent import UID
from tests.gateway.support import TOKEN, Harness

Through = Callable[..., Awaitable[tuple[Both, CuttingProxy]]]


@pytest.fixture
async def through(gw: Harness, engine_id: str, client_at: Callable[..., Both]) -> AsyncIterator[Through]:
    """A client of that engine behind a proxy that cuts as asked."""
    proxies: list[CuttingProxy] = []

    async def make(*cuts: int) -> tuple[Both, CuttingProxy]:
        proxies.append(CuttingProxy(gw.port, *cuts))
        return client_at(await proxies[-1].start(), token=TOKEN), proxies[-1]

    yield make
    for proxy in proxies:
        await proxy.stop()


async def begun(agent: AgentProcess, mark: str) -> None:
    """Until the code has printed this."""
    for _ in range(400):
        if mark in agent.log("stdout"):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{mark} is not in the log")


async def test_code_whose_connection_breaks_runs_once_and_its_result_comes(
    through: Through, agent: AgentProcess
) -> None:
    client, proxy = await through()
    mark = uuid.uuid4().hex
    code = f"runs = globals().get('runs_{mark}', 0) + 1; runs_{mark} = runs\nprint('{mark}', flush=True)\n"
    code += "import time; time.sleep(0.5)\nruns"
    call = asyncio.create_task(client("execute_code", UID, code))
    await begun(agent, mark)
    assert proxy.cut() == 1
    assert text_of(await call) == f"{mark}\n1"
    assert proxy.connections == 2
    assert agent.log("stdout").count(mark) == 1


async def test_events_whose_connection_breaks_are_told_once_each(through: Through, agent: AgentProcess) -> None:
    client, proxy = await through()
    code = "import time\nfor n in range(20): print('event', n, flush=True); time.sleep(0.06)"
    task = await client("submit_code", UID, code)
    texts: list[str] = []
    cuts = 0
    events: list[Any] = []
    async for event in client.stream("task_events", UID, task.task_id):
        events.append(event)
        if event.event == "output":
            texts.append(event.data["output"]["text"])
            # What came together before the last cut is told first: nothing is open then.
            cuts += proxy.cut() if cuts < 3 else 0
    assert "".join(texts) == "".join(f"event {n}\n" for n in range(20))
    assert cuts >= 1
    assert (events[-1].event, events[-1].data["status"]) == ("end", "Succeed")


async def test_a_download_whose_connection_breaks_is_whole(
    through: Through, agent: AgentProcess, tmp_path: Path
) -> None:
    client, proxy = await through()
    await client("execute_code", UID, "for n in range(40000): print('a line of the log, number', n)")
    # What the status takes comes first on the first connection.
    proxy.cut()
    proxy.cuts[:] = [200_000, 500_000, 3]
    target = tmp_path / "download"
    size = await client("download_engine_log", UID, target)
    assert size == len(target.read_bytes()) > 1_000_000
    assert target.read_text() == agent.log("stdout")
    assert proxy.connections >= 4


async def test_a_followed_log_whose_connection_breaks_loses_no_line(through: Through, agent: AgentProcess) -> None:
    client, proxy = await through()
    mark = uuid.uuid4().hex
    at = len(agent.log("stdout").encode())
    code = f"import time\nfor n in range(15): print('{mark}', n, flush=True); time.sleep(0.03)"
    await client("submit_code", UID, code)
    seen: list[str] = []
    cuts = 0
    async for line in client.stream("follow_engine_log", UID, from_byte=at):
        if mark not in line:
            continue
        seen.append(line)
        cuts += proxy.cut() if cuts < 3 else 0
        if len(seen) == 15:
            break
    assert seen == [f"{mark} {n}" for n in range(15)]
    assert cuts >= 1


async def test_a_gateway_that_is_away_for_a_moment_is_waited_for(through: Through) -> None:
    client, proxy = await through(0, 0)
    assert (await client("get_engine_status", UID)).available
    assert proxy.connections == 3

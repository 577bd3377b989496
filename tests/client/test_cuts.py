"""Real connections that break in the middle, between a client and a live gateway with a real agent and kernel."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.client import text_of
from tests.client.proxy import CuttingProxy
from tests.client.support import Both
from tools.testkit.agents.process import AgentProcess, until
from tools.testkit.gateway.harness import TOKEN, Harness
from tools.testkit.gateway.real_agents import UID

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
    await asyncio.to_thread(until, lambda: mark in agent.log("stdout"))


def held(step: str, folder: Path) -> str:
    """Code that waits for the file of its step, so that what was printed before it is read and cut in time."""
    return f"while not os.path.exists({str(folder)!r} + f'/{{{step}}}'): time.sleep(0.01)"


async def test_code_whose_connection_breaks_runs_once_and_its_result_comes(
    through: Through, agent: AgentProcess, tmp_path: Path
) -> None:
    client, proxy = await through()
    mark = uuid.uuid4().hex
    code = f"import os, time\nruns = globals().get('runs_{mark}', 0) + 1; runs_{mark} = runs\n"
    code += f"print('{mark}', flush=True)\nstep = 0\n{held('step', tmp_path)}\nruns"
    call = asyncio.create_task(client("execute_code", UID, code))
    await begun(agent, mark)
    assert proxy.cut() == 1
    (tmp_path / "0").touch()
    assert text_of(await call) == f"{mark}\n1"
    assert proxy.connections == 2
    assert agent.log("stdout").count(mark) == 1


async def test_events_whose_connection_breaks_are_told_once_each(through: Through, tmp_path: Path) -> None:
    client, proxy = await through()
    code = "import os, time\nfor n in range(20):\n    print('event', n, flush=True)\n"
    code += f"    if n % 6 == 5:\n        {held('n', tmp_path)}"
    task = await client("submit_code", UID, code)
    texts: list[str] = []
    cuts = 0
    events: list[Any] = []
    async for event in client.stream("task_events", UID, task.task_id):
        events.append(event)
        if event.event == "output":
            texts.append(event.data["output"]["text"])
            for step in (5, 11, 17):
                if "".join(texts).endswith(f"event {step}\n"):
                    cuts += proxy.cut() >= 1
                    (tmp_path / str(step)).touch()
    assert "".join(texts) == "".join(f"event {n}\n" for n in range(20))
    assert cuts == 3
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


async def test_a_followed_log_whose_connection_breaks_loses_no_line(
    through: Through, agent: AgentProcess, tmp_path: Path
) -> None:
    client, proxy = await through()
    mark = uuid.uuid4().hex
    at = len(agent.log("stdout").encode())
    code = f"import os, time\nfor n in range(15):\n    print('{mark}', n, flush=True)\n"
    code += f"    if n % 5 == 3:\n        {held('n', tmp_path)}"
    await client("submit_code", UID, code)
    seen: list[str] = []
    cuts = 0
    async for line in client.stream("follow_engine_log", UID, from_byte=at):
        if mark not in line:
            continue
        seen.append(line)
        step = len(seen) - 1
        if step % 5 == 3:
            cuts += proxy.cut() >= 1
            (tmp_path / str(step)).touch()
        if len(seen) == 15:
            break
    assert seen == [f"{mark} {n}" for n in range(15)]
    assert cuts == 3


async def test_a_gateway_that_is_away_for_a_moment_is_waited_for(through: Through) -> None:
    client, proxy = await through(0, 0)
    assert (await client("get_engine_status", UID)).available
    assert proxy.connections == 3

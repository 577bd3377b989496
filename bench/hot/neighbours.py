"""Whether others slow a caller: who reads slowly, who leaves in the middle, and an agent that answers late.

One caller calls `1+1`, in turns alone and beside such a neighbour on another engine of the same gateway. The time in
which the processes of its call had no processor is taken off: on a machine that others use, too, it is not theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from aiohttp import web

from bench.figures.table import Table
from bench.hot.client import Caller
from bench.processes.loopback import HEADERS, engine_id, name_of
from linkis_ecm.api.paths import BASE
from tools.loopback.watch import waited
from tools.testkit.agents.keys import agent_key_of
from tools.testkit.gateway.harness import KEY, ScriptedAgent, engine_item

# Engines: who is measured, who floods and is left, and whose agent answers late.
MEASURED, BUSY, LATE = 0, 1, 2
TURNS, CALLS = 15, 30
SLOW, LEAVERS, WAITING = 12, 2, 12
# Seconds until they are what they are: a follower that joins is sent 2 MB at once, which is no slowness of its own.
SETTLE = 1.0
# 4 MB that are there at once; the engine then does nothing but wait, so that it takes no processor itself.
FLOOD = "import time\nfor n in range(4000): print('x' * 1000)\ntime.sleep(3600)"
Neighbour = Callable[[], AbstractAsyncContextManager[None]]


async def measure(table: Table, port: int, pids: tuple[int, ...]) -> None:
    """Prints the figures, of each neighbour for itself. `pids`: the processes of the call that is measured."""
    async with Caller(port) as caller:

        @asynccontextmanager
        async def slow_followers() -> AsyncIterator[None]:
            async with _tasks(*(_follow_slowly(port, task) for _ in range(SLOW))):
                yield

        @asynccontextmanager
        async def leavers() -> AsyncIterator[None]:
            async with _tasks(*(_leave(port) for _ in range(LEAVERS))):
                yield

        @asynccontextmanager
        async def late_agent() -> AsyncIterator[None]:
            async with _tasks(*(_wait(caller) for _ in range(WAITING))):
                yield

        await _compare(table, caller, pids, "leavers", "callers that leave in the middle", leavers)
        await _compare(table, caller, pids, "late-agent", "an agent that answers late", late_agent)
        task = (await caller.execute(BUSY, FLOOD, wait=False))["taskId"]
        await asyncio.sleep(1)
        await _compare(table, caller, pids, "slow-followers", "slow followers of 4 MB", slow_followers)


async def _compare(
    table: Table, caller: Caller, pids: tuple[int, ...], name: str, what: str, neighbour: Neighbour
) -> None:
    ratios, alone = [], []
    for turn in range(TURNS):
        took = {}
        # Whoever comes second finds the machine as the first has left it: each is second in turn.
        for beside in (False, True) if turn % 2 else (True, False):
            async with neighbour() if beside else contextlib.nullcontext():
                took[beside] = await _median(caller, pids)
        ratios.append(took[True] / took[False])
        alone.append(took[False])
    table.judge(
        f"beside-{name}",
        f"1+1 beside {what}, to alone",
        statistics.median(ratios),
        at_most=1.1,
        floor=statistics.median(alone) * 1000,
        floor_unit="ms",
        samples=ratios,
    )


async def _median(caller: Caller, pids: tuple[int, ...]) -> float:
    took = []
    for _ in range(CALLS):
        before, begin = waited(pids), time.perf_counter()
        await caller.execute(MEASURED)
        took.append(time.perf_counter() - begin - (waited(pids) - before))
    return statistics.median(took)


@asynccontextmanager
async def _tasks(*coroutines: object) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(one) for one in coroutines]  # type: ignore[call-overload]
    await asyncio.sleep(SETTLE)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _request(method: str, path: str, body: object = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    return (
        f"{method} {BASE}/{path} HTTP/1.1\r\nHost: bench\r\n{head}Content-Length: {len(content)}\r\n\r\n".encode()
        + content
    )


async def _follow_slowly(port: int, task: str) -> None:
    """4 KiB each tenth of a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    try:
        writer.write(_request("GET", f"taskEvents?engineId={engine_id(BUSY)}&taskId={task}"))
        while await reader.read(4096):
            await asyncio.sleep(0.1)
    finally:
        writer.transport.abort()


async def _leave(port: int) -> None:
    """Calls and is gone before the answer, twice a second."""
    body = {"engineId": engine_id(BUSY), "code": "import time; time.sleep(0.2)", "runType": "python"}
    while True:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_request("POST", "executeCode", body))
        await asyncio.sleep(0.1)
        writer.transport.abort()
        await asyncio.sleep(0.4)


async def _wait(caller: Caller) -> None:
    body = {"engineId": engine_id(LATE), "code": "1+1", "runType": "python"}
    async with caller.session.post(f"{BASE}/executeCode", json=body) as answer:
        await answer.read()


@asynccontextmanager
async def late_agent() -> AsyncIterator[str]:
    """The address of an agent that proves itself and answers nothing else in this run."""

    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3600)
        return web.Response()

    # aiohttp's remark on an option of the tests' agent, at each connection.
    logging.getLogger("aiohttp.server").setLevel(logging.ERROR)
    agent = ScriptedAgent(never, key=agent_key_of(KEY, engine_item(name=name_of(LATE))["metadata"]["uid"], 0))
    yield await agent.start()
    await agent.stop()

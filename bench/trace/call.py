"""The trace of a warm `1+1`: through the gateway, and straight by jupyter_client, in turns, one call at a time.

Gateway, agent and kernels are real processes on loopback. Must not judge.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from bench.calls import Direct, Kernels
from bench.clean import scratch
from bench.processes.loopback import HEADERS, agents, engine_id, gateway
from bench.trace import launch
from bench.trace.hops import hops, lines
from bench.trace.processes import Usage, usage
from bench.trace.ring import read
from linkis_ecm.api.paths import BASE
from tools.testkit.agents.process import AgentProcess

# The calls of a side come in so many turns, so that both have the same neighbours on the machine.
TURNS = 10
WARM = 20


class TracedAgent(AgentProcess):
    """An agent with stamps, and its kernel."""

    arguments = (*launch.command("agent"),)


class _Side:
    """The calls of one way, and what its processes used for them."""

    def __init__(self, title: str, call: Callable[[], Awaitable[None]], pids: dict[str, int], rings: list[str]) -> None:
        self.title = title
        self.rings = rings
        self._call = call
        self._pids = pids
        self.calls: list[tuple[int, int]] = []
        self._used: dict[str, list[Usage]] = {name: [] for name in pids}

    async def run(self, count: int) -> None:
        before = {name: usage(pid) for name, pid in self._pids.items()}
        for _ in range(count):
            begin = time.monotonic_ns()
            await self._call()
            self.calls.append((begin, time.monotonic_ns()))
        for name, pid in self._pids.items():
            self._used[name].append(usage(pid) - before[name])

    def forget(self) -> None:
        """What was warm-up."""
        self.calls.clear()
        self._used = {name: [] for name in self._pids}

    def used(self) -> dict[str, tuple[float, float]]:
        """Microseconds of a call on a processor and waiting, by process."""
        calls = len(self.calls)
        return {
            name: (sum(use.ran for use in uses) / calls * 1e6, sum(use.waited for use in uses) / calls * 1e6)
            for name, uses in self._used.items()
        }


def trace(count: int) -> list[str]:
    """The lines of both tables, of `count` calls each."""
    with scratch() as folder:
        os.environ[launch.FOLDER] = str(folder)
        with (
            agents(1, folder, TracedAgent) as started,
            gateway([f"127.0.0.1:{started[0].port}"], folder, launch.command("gateway")) as served,
        ):
            pids = {"gateway": served.pid, "agent": started[0].process.pid, "kernel": started[0].kernel_pid()}
            sides = asyncio.run(_run(count, folder, served.port, pids))
        found = []
        for side in sides:
            stamps = [stamp for ring in side.rings for path in folder.glob(f"{ring}-*.ring") for stamp in read(path)]
            found += [*lines(side.title, hops(side.calls, stamps), side.used()), ""]
        return found


async def _run(count: int, folder: Path, port: int, pids: dict[str, int]) -> list[_Side]:
    kernels = Kernels(folder)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=HEADERS) as session:
        try:
            await kernels.start(1, launch.command("bare"))
            direct = Direct(kernels.clients[0])

            async def through() -> None:
                body = {"engineId": engine_id(0), "code": "1+1", "runType": "python"}
                async with session.post(f"{BASE}/executeCode", json=body) as answer:
                    told = await answer.json()
                if told["status"] != 0 or told["data"]["outputs"][0]["text"] != "2":
                    raise RuntimeError(f"executeCode failed: {told}")

            own = {"this client": os.getpid()}
            sides = [
                _Side("executeCode through the gateway, µs", through, own | pids, ["gateway", "agent", "kernel"]),
                _Side("jupyter_client straight, µs", direct.execute, own | {"kernel": kernels.pids()[0]}, ["bare"]),
            ]
            for side in sides:
                await side.run(WARM)
                side.forget()
            for _ in range(TURNS):
                for side in sides:
                    await side.run(max(1, count // TURNS))
            direct.stop()
        finally:
            kernels.stop()
    return sides

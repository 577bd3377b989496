"""Looks at an installation while something else happens to it: health, a legitimate user, memory, logs.

Health is asked each 50 ms on a connection of its own, as the kubelet does; the user lists engines and runs code each
200 ms. Of each time it is also known how long the processes asked were ready to run and had no processor: on a
machine that others use, too, that is not theirs. Must not judge what it saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from linkis_ecm.api.paths import BASE
from tools.loopback.installation import Engine, Installation, Part, forget_peak, memory_of
from tools.loopback.sockets import Target, request, send
from tools.testkit.agents.process import children
from tools.testkit.gateway.harness import TOKEN

HEALTH_SECONDS, USER_SECONDS = 0.05, 0.2
# A probe that takes longer is given up, and counts as so long.
GIVE_UP = 10.0
HEALTH = request("GET", "/healthz", headers={"Connection": "close"})


@dataclass
class Times:
    """Seconds of calls of one kind, and what was no answer of 200."""

    took: list[float] = field(default_factory=list)
    # The same without the time in which the processes asked waited for a processor.
    own: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def longest(self) -> float:
        return max(self.took, default=0.0)

    @property
    def longest_own(self) -> float:
        return max(self.own, default=0.0)

    @property
    def median(self) -> float:
        return statistics.median(self.took) if self.took else 0.0


@dataclass
class Seen:
    """What was seen of an installation in some time."""

    gateway_health: Times = field(default_factory=Times)
    operator_health: Times = field(default_factory=Times)
    user: Times = field(default_factory=Times)
    # The highest memory of each process in that time, bytes.
    peaks: dict[str, int] = field(default_factory=dict)


@asynccontextmanager
async def watching(made: Installation, engine: Engine, gateway: Part) -> AsyncIterator[Seen]:
    """Look within the block; `engine` is the legitimate user's, `gateway` the one that is looked at."""
    seen = Seen()
    agent = made.agent_pid(engine)
    pids = {part.name: part.pid for part in made.parts.values()} | ({"agent": agent} if agent else {})
    for pid in pids.values():
        forget_peak(pid)
    trust, own = made.trust if gateway.name == "tls" else None, os.getpid()
    tasks = [
        asyncio.create_task(
            _health(Target("127.0.0.1", gateway.port, trust=trust), seen.gateway_health, (own, gateway.pid))
        ),
        asyncio.create_task(
            _health(Target("127.0.0.1", made.health_port), seen.operator_health, (own, made.operator.pid))
        ),
        asyncio.create_task(_user(gateway, trust is not None, made, engine, seen.user)),
    ]
    try:
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for name, pid in pids.items():
            seen.peaks[name] = max(seen.peaks.get(name, 0), memory_of(pid, "VmHWM"))


def waited(pids: Iterable[int]) -> float:
    """Seconds that the main threads of these processes were ready to run and did not (schedstat of proc(5))."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return total


async def _health(target: Target, times: Times, pids: tuple[int, ...]) -> None:
    while True:
        before, began = waited(pids), time.perf_counter()
        status = 0
        with contextlib.suppress(OSError, TimeoutError):
            status = (await send(target, HEALTH, seconds=GIVE_UP)).status
        took = time.perf_counter() - began
        times.took.append(took)
        times.own.append(max(0.0, took - (waited(pids) - before)))
        if status != 200:
            times.failed.append(f"{status} after {took:.2f} s")
        await asyncio.sleep(max(0.0, HEALTH_SECONDS - took))


async def _user(gateway: Part, secure: bool, made: Installation, engine: Engine, times: Times) -> None:
    base = f"{'https' if secure else 'http'}://127.0.0.1:{gateway.port}{BASE}"
    headers = {"Token-Code": TOKEN, "Token-User": engine.user}
    body = {"engineId": f"engines/{engine.name}", "code": "1+1", "runType": "python"}
    agent = made.agent_pid(engine)
    pids = (os.getpid(), gateway.pid, agent, *children(agent))
    connector = aiohttp.TCPConnector(ssl=made.trust if secure and made.trust is not None else True)
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, timeout=aiohttp.ClientTimeout(total=GIVE_UP)
    ) as session:
        while True:
            began = time.perf_counter()
            await _timed(session, "GET", f"{base}/listEngines", None, times, pids)
            await _timed(session, "POST", f"{base}/executeCode", body, times, pids)
            await asyncio.sleep(max(0.0, USER_SECONDS - (time.perf_counter() - began)))


async def _timed(
    session: aiohttp.ClientSession, verb: str, url: str, body: object, times: Times, pids: tuple[int, ...]
) -> None:
    before, began = waited(pids), time.perf_counter()
    problem = ""
    try:
        async with session.request(verb, url, json=body) as answer:
            content = await answer.json(content_type=None)
            if answer.status != 200:
                problem = f"{answer.status} {str(content.get('message'))[:200]}"
            elif verb == "POST" and content["data"]["status"] != "Succeed":
                problem = f"the task is {content['data']['status']}"
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        problem = f"{type(error).__name__} after {time.perf_counter() - began:.2f} s"
    took = time.perf_counter() - began
    times.took.append(took)
    times.own.append(max(0.0, took - (waited(pids) - before)))
    if problem:
        times.failed.append(problem)


def tracebacks(log: Path, offset: int) -> tuple[list[str], int]:
    """The tracebacks that a log has since `offset`, and where it ends now."""
    with log.open("rb") as file:
        file.seek(offset)
        text = file.read(16 << 20)
    found, lines = [], text.decode(errors="replace").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("Traceback (most recent call last)"):
            end = next(
                (n for n in range(number + 1, len(lines)) if not lines[n].startswith((" ", "\t"))), len(lines) - 1
            )
            found.append("\n".join(lines[max(0, number - 1) : end + 1]))
    return found, offset + len(text)

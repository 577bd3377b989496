"""From a print to a follower of its task, and what many followers cost the gateway."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from pathlib import Path

from bench.figures.table import Table
from bench.hot.client import Caller
from bench.trace.processes import usage

PRINTS, PAUSE = 30, 0.3
TURNS, PATIENCE = 2, 120.0
# As many as an agent has connections for (gateway.agents.client.FOLLOWERS_PER_ENGINE), and a crowd.
FOLLOWERS, CROWD, LINES, EACH = 16, 200, 40, 0.1
FIRST = f"import time\nfor n in range({PRINTS}):\n    time.sleep({PAUSE}); print('at', time.monotonic(), 'end')"
MANY = (
    "import os, time\nwhile not os.path.exists({go!r}): time.sleep(0.01)\n"
    f"for n in range({LINES}):\n    time.sleep({EACH}); print(n)\n"
    "print('the last')\nwhile os.path.exists({go!r}): time.sleep(0.01)"
)


async def measure(table: Table, port: int, gateway_pid: int, folder: Path) -> None:
    """Prints the figures. The engine's pod is a process of this machine, so its clock is ours."""
    async with Caller(port) as caller:
        took = await _first_bytes(caller)
        p50, p90 = statistics.median(took), statistics.quantiles(took, n=10)[-1]
        table.judge(
            "first-byte",
            "taskEvents, from print to follower, p50",
            p50 * 1000,
            "ms",
            at_most=5,
            samples=[one * 1000 for one in took],
        )
        table.tell("taskEvents, from print to follower, p90", f"{p90 * 1000:.1f} ms")
        costs: dict[int, list[tuple[float, float]]] = {count: [] for count in (1, FOLLOWERS, CROWD)}
        for turn in range(TURNS):
            for count, found in costs.items():
                found.append(await _cost(caller, gateway_pid, count, folder / f"go-{turn}-{count}"))
        for count, found in costs.items():
            event, end = (statistics.median(part) * 1000 for part in zip(*found, strict=True))
            table.tell(f"gateway, an event of a task with {count} followers", f"{event:.2f} ms CPU")
            table.tell("  the end of the task", f"{end:.0f} ms CPU")
        one = statistics.median(event for event, _ in costs[1])
        many, crowd = (
            [cost / alone for (cost, _), (alone, _) in zip(costs[count], costs[1], strict=True)]
            for count in (FOLLOWERS, CROWD)
        )
        table.tell(f"gateway's processor for an event, {FOLLOWERS} followers to one", f"{statistics.median(many):.2f}")
        table.judge(
            "followers",
            f"gateway's processor for an event, {CROWD} followers to one",
            statistics.median(crowd),
            at_most=2,
            floor=one * 1000,
            floor_unit="ms",
            samples=crowd,
        )


async def _first_bytes(caller: Caller) -> list[float]:
    """Seconds from each print to its event. Prints that came together with another are left out."""
    task = await caller.execute(0, FIRST, wait=False)
    took = []
    async with caller.get_raw("taskEvents", 0, {"taskId": task["taskId"]}) as answer:
        async for line in answer.content:
            now = time.monotonic()
            event = json.loads(line[5:]) if line.startswith(b"data:") else {}
            words = str(event.get("output", {}).get("text", "")).split() if event.get("event") == "output" else []
            if len(words) == 3 and words[0] == "at":
                took.append(now - float(words[1]))
    if len(took) < PRINTS / 2:
        raise SystemExit(f"only {len(took)} of {PRINTS} prints came alone")
    return took


async def _cost(caller: Caller, pid: int, followers: int, go: Path) -> tuple[float, float]:
    """Seconds of the gateway's processor for one event of a task with so many followers, of which several
    prints make one on a busy machine; and for the end of the task."""
    task = await caller.execute(0, MANY.format(go=str(go)), wait=False)
    ready, told = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def follow() -> int:
        seen = 0
        async with caller.get_raw("taskEvents", 0, {"taskId": task["taskId"]}) as answer:
            if answer.status != 200:
                raise SystemExit(f"a follower was refused: {await answer.text()}")
            ready.release()
            async for data in answer.content.iter_any():
                seen += data.count(b"event: output")
                if b"the last" in data:
                    told.release()
        return seen

    following = [asyncio.create_task(follow()) for _ in range(followers)]
    await _all(ready, following)
    await asyncio.sleep(1)
    before = usage(pid)
    go.touch()
    await _all(told, following)
    between = usage(pid)
    go.unlink()
    seen = await asyncio.gather(*following)
    return (between - before).ran / statistics.median(seen), (usage(pid) - between).ran


async def _all(reached: asyncio.Semaphore, following: list[asyncio.Task[int]]) -> None:
    """Wait until each of them has released the semaphore. Raises what one of them raised."""
    everyone = asyncio.create_task(_acquire(reached, len(following)))
    deadline = asyncio.get_running_loop().time() + PATIENCE
    # Those that failed before this wait, too: it raises what they raised, and does not last until its end.
    running = set(following)
    try:
        while not everyone.done():
            left = deadline - asyncio.get_running_loop().time()
            done, _ = await asyncio.wait({everyone, *running}, return_when=asyncio.FIRST_COMPLETED, timeout=left)
            if not done:
                raise SystemExit("a follower was not told in time")
            running -= done
            for one in done:
                one.result()
    finally:
        everyone.cancel()


async def _acquire(reached: asyncio.Semaphore, times: int) -> None:
    for _ in range(times):
        await reached.acquire()

"""`python -m bench.viewers`: what a viewer of the console costs the gateway, with 1000 engines of which some change.

A gateway in a process of its own on loopback, the cluster in memory; viewers read watchEngines. The cost of one is the
processor time with viewers less that without, by their number. Exits 1 where it is over 1 % of a core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from pathlib import Path

import aiohttp

from bench import arguments
from bench.clean import end_on_signals, scratch
from bench.figures.table import Table
from linkis_ecm.api.paths import BASE
from linkis_ecm.gateway.settings import Settings
from tools.testkit.gateway.harness import EM, KEY, TOKEN, Harness
from tools.testkit.servers.serving import Server, serving, until_let_go

ENGINES = 1000
VIEWERS = 20
# Changes a second: a quiet day, a busy one, and all engines at once.
CHANGES = (0, 20, 200, 1000)
# Seconds until each viewer has read the list, and of the measurement.
SETTLE, MEASURE = 4.0, 15.0
GOAL = 0.01


async def serve(changes: int, folder: Path) -> None:
    """The gateway's process: each second so many engines, chosen at random, change their state."""
    tokens = folder / "tokens.json"
    await asyncio.to_thread(tokens.write_text, json.dumps({TOKEN: {"users": ["*"]}}))
    settings = Settings(
        namespace="linkis",
        instance=EM,
        tokens_file=str(tokens),
        admins=frozenset({"root"}),
        token_key=KEY,
        agent_port=0,
    )
    gw = Harness(settings)
    await gw.start()
    for number in range(ENGINES):
        gw.engine(name=f"python-{number}")

    async def change() -> None:
        turn = 0
        while True:
            for _ in range(changes):
                turn += 1
                state = {"engineState": "Busy" if turn % 2 else "Idle", "message": f"change {turn}"}
                gw.engine(name=f"python-{random.randrange(ENGINES)}", status=state)
            await asyncio.sleep(1)

    changing = asyncio.create_task(change())
    await until_let_go(gw.port)
    changing.cancel()
    await gw.stop()


async def load(gateway: Server, viewers: int) -> float:
    """The cores that the gateway uses with so many viewers."""

    async def view(session: aiohttp.ClientSession) -> None:
        login = {"Token-Code": TOKEN, "Token-User": "root"}
        async with session.get(f"http://127.0.0.1:{gateway.port}{BASE}/watchEngines", headers=login) as stream:
            async for _ in stream.content.iter_any():
                pass

    unlimited = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=unlimited, connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = [asyncio.create_task(view(session)) for _ in range(viewers)]
        await asyncio.sleep(SETTLE)
        before = gateway.cpu_seconds()
        await asyncio.sleep(MEASURE)
        used = gateway.cpu_seconds() - before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return used / MEASURE


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.viewers", description=__doc__)
    parser.add_argument(
        "settings", nargs="?", type=arguments.settings("changes", "folder"), help="of the gateway's own process"
    )
    told = parser.parse_args().settings
    if told is not None:
        asyncio.run(serve(told["changes"], Path(told["folder"])))
        return 0
    end_on_signals()
    table = Table(58, 12, 12)
    for changes in CHANGES:
        with scratch() as folder:
            settings = json.dumps({"changes": changes, "folder": str(folder)})
            with serving("bench.viewers", settings) as gateway:
                alone = asyncio.run(load(gateway, 0))
                viewed = asyncio.run(load(gateway, VIEWERS))
        one = (viewed - alone) / VIEWERS
        table.tell(
            f"{ENGINES} engines, {changes} changes a second: a viewer", f"{100 * one:.3f} %", "≤ 1 %", met=one <= GOAL
        )
    return table.finish()


if __name__ == "__main__":
    sys.exit(main())

"""`python -m bench.hot [streams|results|crowd|neighbours …]`: the paths that users wait on, on loopback.

Floors and ours take turns within the run. Exits 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from bench.clean import end_on_signals, scratch
from bench.figures.table import Table
from bench.hot import crowd, neighbours, results, streams
from bench.hot.cheap_agents import cheap_agents
from bench.processes.loopback import agents, gateway

PARTS = ("streams", "results", "crowd", "neighbours")


def main() -> int:
    """Measure what is asked for, all by default."""
    parser = argparse.ArgumentParser(prog="python -m bench.hot", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"which of {', '.join(PARTS)} (default: all)")
    wanted = parser.parse_args().parts or PARTS
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    end_on_signals()
    table = Table(62, 14, 8)
    for part in wanted:
        with scratch() as folder:
            {"streams": _streams, "results": _results, "crowd": _crowd, "neighbours": _neighbours}[part](table, folder)
    return table.finish()


def _streams(table: Table, folder: Path) -> None:
    with agents(1, folder) as (agent,), gateway([f"127.0.0.1:{agent.port}"], folder) as served:
        asyncio.run(streams.measure(table, served.port, served.pid, folder))


def _results(table: Table, folder: Path) -> None:
    with agents(1, folder) as (agent,), gateway([f"127.0.0.1:{agent.port}"], folder) as served:
        asyncio.run(results.measure(table, served.port, folder))


def _crowd(table: Table, folder: Path) -> None:
    with cheap_agents(crowd.ENGINES) as addresses, gateway(addresses, folder) as served:
        asyncio.run(crowd.measure(table, served.port, served.pid))


def _neighbours(table: Table, folder: Path) -> None:
    async def measure(addresses: list[str], pids: tuple[int, ...]) -> None:
        async with neighbours.late_agent() as late:
            # Started by a thread: this loop is the late agent's.
            served = gateway([*addresses, late], folder)
            server = await asyncio.to_thread(served.__enter__)
            try:
                await neighbours.measure(table, server.port, (os.getpid(), server.pid, *pids))
            finally:
                await asyncio.to_thread(served.__exit__, None, None, None)

    with agents(2, folder) as started:
        pids = started[neighbours.MEASURED].process.pid, started[neighbours.MEASURED].kernel_pid()
        asyncio.run(measure([f"127.0.0.1:{agent.port}" for agent in started], pids))


if __name__ == "__main__":
    sys.exit(main())

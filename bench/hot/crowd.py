"""How many executeCode one core of a gateway serves, with 50 callers at once over 10 engines that cost nothing."""

from __future__ import annotations

import asyncio
import time

from bench.figures.table import Table
from bench.hot.client import Caller
from bench.trace.processes import usage

ENGINES, CALLERS, EACH, ROUNDS = 10, 50, 40, 3


async def measure(table: Table, port: int, gateway_pid: int) -> None:
    """Prints the figures: the best of three rounds, for a round that others disturb says less of the gateway."""
    async with Caller(port) as caller:
        await _round(caller, 4)  # warm
        by_core, by_clock = [], []
        for _ in range(ROUNDS):
            before, begin = usage(gateway_pid), time.perf_counter()
            await _round(caller, EACH)
            by_clock.append(CALLERS * EACH / (time.perf_counter() - begin))
            by_core.append(CALLERS * EACH / (usage(gateway_pid) - before).ran)
        what = f"executeCode of {CALLERS} callers, a second of one gateway's core"
        table.judge("call-rate", what, max(by_core), "/s", at_least=500, samples=by_core)
        table.tell("  a second of the clock, client and agents on the other core", f"{max(by_clock):.0f}")


async def _round(caller: Caller, each: int) -> None:
    async def call(number: int) -> None:
        for _ in range(each):
            await caller.execute(number % ENGINES)

    # A call that fails ends the run: no error is left out of the count.
    await asyncio.gather(*(call(number) for number in range(CALLERS)))

"""The bytes that the gateway holds at a time."""

from __future__ import annotations

import asyncio

from linkis_ecm.gateway.http.budget import SMALL, ByteBudget


async def test_budget_that_is_released_early_admits_the_next_call() -> None:
    budget = ByteBudget(10 * SMALL)
    entered = asyncio.Event()

    async def second() -> None:
        async with budget.hold(4 * SMALL):
            entered.set()

    async with asyncio.timeout(5), budget.hold(100 * SMALL) as shrink:
        assert budget.held == 10 * SMALL
        waiting = asyncio.create_task(second())
        shrink(20 * SMALL)  # no less than what is held
        await asyncio.sleep(0)
        assert (budget.held, entered.is_set()) == (10 * SMALL, False)
        shrink(6 * SMALL)
        await waiting
        assert budget.held == 6 * SMALL
    assert not budget.held

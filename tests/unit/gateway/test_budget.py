"""The bytes that the gateway holds at a time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

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


async def test_holders_that_time_out_in_one_turn_leave_nothing_held() -> None:
    budget = ByteBudget(10 * SMALL)

    async def hold() -> None:
        async with budget.hold(5 * SMALL):
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(hold()) for _ in range(5)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * 5
    assert not budget.held


# A step: start a call of so many units, cancel or finish one of those started, or let the loop run for a turn.
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.integers(2, 15)),
        st.tuples(st.sampled_from(["cancel", "finish", "shrink"]), st.integers(0, 20)),
        st.tuples(st.just("turn"), st.just(0)),
    ),
    max_size=60,
)


@given(_STEPS)
def test_no_order_of_cancellations_leaks_or_overdraws(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        budget = ByteBudget(10 * SMALL)
        tasks: list[asyncio.Task[None]] = []
        ends: list[asyncio.Event] = []
        shrinks: dict[int, object] = {}

        async def hold(units: int, number: int) -> None:
            async with budget.hold(units * SMALL) as shrink:
                shrinks[number] = shrink
                try:
                    await ends[number].wait()
                finally:
                    del shrinks[number]

        for step, value in steps:
            if step == "start":
                ends.append(asyncio.Event())
                tasks.append(asyncio.create_task(hold(value, len(tasks))))
            elif step == "turn":
                await asyncio.sleep(0)
            elif value < len(tasks):
                if step == "cancel":
                    tasks[value].cancel()
                elif step == "finish":
                    ends[value].set()
                elif value in shrinks:
                    shrinks[value](SMALL)  # type: ignore[operator]
            assert 0 <= budget.held <= 10 * SMALL
        for end in ends:
            end.set()
        async with asyncio.timeout(10):  # who still waits is served: nothing is lost
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
        assert not budget.held
        async with asyncio.timeout(10), budget.hold(10 * SMALL):
            pass

    asyncio.run(play())


async def test_a_budget_that_stands_still_says_so() -> None:
    now = 0.0
    budget = ByteBudget(10 * SMALL, clock=lambda: now)

    async def hold() -> None:
        async with budget.hold(5 * SMALL):
            pass

    async with budget.hold(10 * SMALL):
        assert not budget.stalled_seconds  # nobody waits
        waiting = asyncio.create_task(hold())
        await asyncio.sleep(0)
        now = 100.0
        assert budget.stalled_seconds == 100.0
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert budget.stalled_seconds == 100.0  # whoever gives up is no progress
    assert not budget.stalled_seconds

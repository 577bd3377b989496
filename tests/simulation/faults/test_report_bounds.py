"""Reports with a token in wrong hands, and bodies of strangers: rate, sequence, size, time."""

from __future__ import annotations

import asyncio

import pytest

from linkis_ecm.controller.agents import reports
from tools.testkit.simulation.world import Agent, World

pytestmark = pytest.mark.looptime


async def ready(world: World, name: str = "e") -> Agent:
    world.create(name)
    await world.until_state(name, "Idle")
    return world.agent(name)


def refusals(world: World, limit: str) -> float:
    found: float = world.operators[0].parts.metrics.limits.labels(limit)._value.get()
    return found


async def test_a_flood_of_reports_of_one_engine_stays_its_own(world: World) -> None:
    """Finding S15: 2171 flips in 2 s were as many rows."""
    agent, other = await ready(world), await ready(world, "other")
    codes = [agent.report(state="Busy" if number % 2 else "Idle") for number in range(1000)]
    assert codes.count(204) <= reports.BURST
    assert set(codes) == {204, 429}
    assert refusals(world, "rate") == codes.count(429)
    assert other.report() == 204
    await asyncio.sleep(1)
    again = [agent.report() for _ in range(100)]
    assert 20 <= again.count(204) <= 21
    await asyncio.sleep(60)
    agent.become("Busy")
    await world.until_state("e", "Busy")


async def test_a_sequence_far_beyond_the_last_is_refused(world: World) -> None:
    """Finding S17: one forged report held an engine Busy until its end."""
    agent = await ready(world)
    assert agent.report(sequence=10**12, state="Busy") == 409
    assert refusals(world, "sequence") == 1
    for wrong in (2**53 + 1, 2**63, True, "7"):
        assert agent.report(sequence=wrong) == 400
    assert agent.report(state="Idle") == 204
    assert world.state("e") == "Idle"


async def test_a_forged_report_silences_the_real_agent_for_a_minute_at_most(world: World) -> None:
    agent = await ready(world)
    assert agent.report(sequence=agent.sequence + 900, state="Busy") == 204
    await world.until_state("e", "Busy")
    agent.report()
    assert world.state("e") == "Busy"
    await asyncio.sleep(61)  # the agent goes on reporting Idle, with its own numbers
    await world.until_state("e", "Idle", 15)


async def test_reports_that_are_late_for_seconds_change_nothing(world: World) -> None:
    agent = await ready(world)
    agent.become("Busy")
    await world.until_state("e", "Busy")
    await asyncio.sleep(5)
    assert agent.report(sequence=1, state="Idle") == 204
    await asyncio.sleep(1)
    assert world.state("e") == "Busy"


async def test_an_agent_that_was_cut_off_for_hours_may_have_counted_on(world: World) -> None:
    agent = await ready(world)
    world.cut_off.add("e")
    await asyncio.sleep(20)
    world.cut_off.clear()
    agent.sequence += 1300  # 20 s at the rate, and the slack
    assert agent.report() == 204

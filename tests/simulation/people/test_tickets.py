"""A ticket is chosen by users: a second engine that names one gets a clear verdict and touches nothing of the first."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from tools.testkit.simulation.world import World

pytestmark = pytest.mark.looptime


def ended_by_ticket(world: World, name: str) -> bool:
    return (world.state(name), world.status(name).get("reason")) == ("Failed", "InvalidSpec")


@pytest.mark.parametrize("user", ["mallory", "hadoop"])
@pytest.mark.parametrize("own", [True, False])
async def test_an_engine_with_a_live_engines_ticket_fails_and_the_first_lives_on(
    world: World, user: str, own: bool
) -> None:
    """`own`: the first engine has a ticket of its own; else its uid, which anybody who may list engines can read."""
    ticket = str(uuid.UUID(int=7))
    uid = world.create("first", ticketId=ticket) if own else world.create("first")
    await world.until_state("first", "Idle")
    row = world.row("first")
    world.create("second", user=user, ticketId=ticket if own else uid)
    await world.until(lambda: ended_by_ticket(world, "second"))
    message = world.status("second")["message"]
    assert "spec.ticketId" in message
    assert "Give a new UUID" in message
    assert "hadoop" not in message, "it says nothing of the first engine"
    assert world.pods("second") == []
    await asyncio.sleep(600)
    assert world.state("first") == "Idle"
    assert world.row("first") == row
    assert world.row("second") is None
    world.delete("second")
    world.agent("first").become("Busy")
    await world.until(lambda: (now := world.row("first")) is not None and now.status.value == "Busy")


async def test_an_engine_with_the_ticket_of_one_that_was_removed_fails(world: World) -> None:
    ticket = str(uuid.UUID(int=7))
    world.create("first", ticketId=ticket)
    await world.until_state("first", "Idle")
    world.edit("first", desiredState="Stopped")
    await world.until_state("first", "Success")
    world.delete("first")
    await asyncio.sleep(1)
    before = world.rows.rows[ticket]
    world.create("second", user="mallory", ticketId=ticket)
    await world.until(lambda: ended_by_ticket(world, "second"))
    await world.until(lambda: not world.pods("second"))
    assert world.rows.rows[ticket] == before


async def test_two_engines_of_one_ticket_at_once_are_one_that_runs(world: World) -> None:
    ticket = str(uuid.UUID(int=7))
    names = ["a", "b", "c"]
    for name in names:
        world.create(name, ticketId=ticket)
    await world.until(lambda: sum(ended_by_ticket(world, name) for name in names) == 2)
    await world.until(lambda: sum(world.state(name) == "Idle" for name in names) == 1)
    (one,) = [name for name in names if world.state(name) == "Idle"]
    row = world.row(one)
    assert row is not None
    assert row.status.value == "Idle"


async def test_the_verdict_outlives_the_operator(world: World) -> None:
    ticket = str(uuid.UUID(int=7))
    world.create("first", ticketId=ticket)
    await world.until_state("first", "Idle")
    await world.crash(world.operators[0])
    await asyncio.sleep(1)
    world.create("second", user="mallory", ticketId=ticket)
    await world.start("two")
    await world.until(lambda: ended_by_ticket(world, "second"), 120)
    assert world.state("first") == "Idle"
    row = world.row("first")
    assert row is not None
    assert row.uid == world.rows.rows[ticket].uid

"""Keys: an agent that refuses an operator's key is alive. It is neither ended nor shown as ready."""

from __future__ import annotations

import asyncio

import pytest

from linkis_ecm.model.agent_key import key_id
from linkis_ecm.process.registry import Registry
from tools.testkit.simulation.world import KEY, Script, World

pytestmark = pytest.mark.looptime

OTHER = b"another key of thirty-two bytes!"


@pytest.fixture
def world(bare_world: World) -> World:
    return bare_world


def value(registry: Registry, name: str) -> float | None:
    return registry.get_sample_value(name)


async def lost_key(world: World, *names: str, **spec: str) -> None:
    """Engines that got ready, and after them an operator that has another key."""
    running = await world.start()
    for name in names:
        world.create(name, **spec)
    for name in names:
        await world.until_state(name, "Idle")
    await world.crash(running)
    await world.start("two", token_key=OTHER)


async def until_ready(world: World, name: str, ready: str, seconds: float = 60) -> None:
    await world.until(lambda: world.condition(name, "Ready").get("status") == ready, seconds)


@pytest.mark.parametrize("count", [1, 3, 8])
async def test_engines_live_on_under_an_operator_that_lost_the_key(world: World, count: int) -> None:
    names = [f"e{n}" for n in range(count)]
    await lost_key(world, *names, idleTimeout="60s")
    for name in names:
        await until_ready(world, name, "False", 20)
        assert world.status(name)["reason"] == "KeyMismatch"
    writes = world.writes()
    await asyncio.sleep(900)
    assert world.writes() == writes
    assert {world.state(name) for name in names} == {"Idle"}
    assert len(world.pods_made) == count
    metrics = world.operators[0].parts.metrics
    assert value(metrics.registry, "ecm_engines_key_mismatch") == count
    assert value(metrics.registry, "ecm_report_path_down") in (None, 0.0)
    row = world.row("e0")
    assert row is not None
    assert (row.status.value, row.final) == ("Idle", False)


async def test_an_engine_is_idle_again_when_its_key_is_back(world: World) -> None:
    await lost_key(world, "e")
    await until_ready(world, "e", "False")
    await world.crash(world.operators[0])
    await world.start("three", token_key=KEY)
    await until_ready(world, "e", "True")
    assert (world.state("e"), world.status("e")["reason"]) == ("Idle", "KernelReady")
    world.agent("e").become("Busy")
    await world.until_state("e", "Busy")


async def test_with_the_key_of_before_as_the_previous_one_nothing_happens_to_an_engine(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "linkis_ecm")
    running = await world.start()
    world.create("old")
    await world.until_state("old", "Idle")
    await world.crash(running)
    await world.start("two", token_key=OTHER, previous_token_key=KEY)
    of_before = world.status("old")["agentKey"]["keyId"]
    assert f"the token key has the id {key_id(OTHER)}, the one before {of_before}" in caplog.messages
    world.create("new")
    await world.until_state("new", "Idle")
    await asyncio.sleep(300)
    assert world.status("old")["reason"] == "KernelReady"
    assert world.status("old")["agentKey"]["keyId"] != world.status("new")["agentKey"]["keyId"]
    for name in ("old", "new"):
        world.edit(name, desiredState="Stopped")
        await world.until_state(name, "Success")
    assert world.stops == ["old", "new"]


async def test_an_engine_whose_key_is_lost_is_stopped_by_the_deletion_of_its_pod(world: World) -> None:
    await lost_key(world, "e")
    await until_ready(world, "e", "False")
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success", 10)
    assert (world.status("e")["reason"], world.stops) == ("StoppedByUser", [])
    await world.until(lambda: not world.pods("e"))


async def test_an_engine_whose_key_is_lost_ends_with_its_lifetime(world: World) -> None:
    await lost_key(world, "e", maxLifetime="5m")
    await until_ready(world, "e", "False")
    await world.until_state("e", "Success", 320)
    assert world.status("e")["reason"] == "LifetimeOver"


async def test_an_agent_that_is_gone_is_lost_whatever_its_key(world: World) -> None:
    await lost_key(world, "e")
    await until_ready(world, "e", "False")
    world.cut_off.add("e")
    await world.until_state("e", "Failed", 150)
    assert world.status("e")["reason"] == "AgentLost"


async def test_an_enrolment_whose_answer_was_lost_is_made_anew_where_the_key_has_changed(world: World) -> None:
    """The operator took the first report, its answer got lost, and the next one has another key."""
    running = await world.start()
    world.create("e", Script(silent=True))
    await world.until(lambda: world.agents)
    agent = world.agent("e")
    agent.become("Idle")
    await world.until_state("e", "Idle")
    agent.key = ""
    await world.crash(running)
    second = await world.start("two", token_key=OTHER)
    await world.until(second.parts.reconciler.leading.is_set)
    assert agent.report() == 204
    await asyncio.sleep(5)
    assert world.status("e")["reason"] == "KernelReady"
    assert world.status("e")["agentKey"]["keyId"] == key_id(OTHER)
    assert agent.report() == 204

"""A pool that nobody can take from: engines start cold without a detour, few members are lost, the plugin says why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from linkis_ecm.controller.pool.claims import ClaimRefused
from linkis_ecm.engine.times import parse_time
from linkis_ecm.kube.resources import PODS
from linkis_ecm.model.engine_status import ColdReason
from tests.simulation.warm.test_warm_pools import POOL, change, condition, filled, members
from tools.testkit.fakes.cluster import loop_now
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.members import MemberAgent, claim_of
from tools.testkit.simulation.world import World

pytestmark = pytest.mark.looptime
ENGINES = 40


@dataclass
class Refuses(MemberAgent):
    at_claim: str = "refuse"


@dataclass
class Hangs(MemberAgent):
    at_claim: str = "hang"


@dataclass
class Dies(MemberAgent):
    at_claim: str = "die"


@pytest.fixture
async def pooled() -> AsyncIterator[World]:
    made = World()
    made.answer_claim = partial(claim_of, made)
    made.install_plugin(warmPool=POOL | {"size": 4})
    yield made
    await made.close()


async def come(world: World, number: int, first: int = 0) -> list[dict[str, Any]]:
    """Engines one after the other, each of another user; their status.startup."""
    names = [f"e{first + one}" for one in range(number)]
    for name in names:
        world.create(name, user=name)
        await world.until_state(name, "Idle", 20)
        await asyncio.sleep(2)
    return [world.status(name)["startup"] for name in names]


@pytest.mark.parametrize("agent", [Refuses, Hangs, Dies])
async def test_few_members_are_lost_and_the_plugin_says_why(pooled: World, agent: type[MemberAgent]) -> None:
    pooled.agent_type = agent
    await pooled.start()
    await filled(pooled, 4)
    started = await come(pooled, ENGINES)
    assert {one["kind"] for one in started} == {"cold"}
    assert {one["coldReason"] for one in started} == {"AgentRefused"}
    # Each has a pod of its own; beside them the pool's four, two that were no chance, and one for each trial.
    lost = len(pooled.pods_made) - ENGINES - len(members(pooled))
    assert 2 <= lost <= 8
    assert condition(pooled)[:2] == ("False", "ClaimsFail")
    assert "The last one: The " in condition(pooled)[2]


async def test_the_first_claim_that_goes_through_ends_it(pooled: World) -> None:
    pooled.agent_type = Refuses
    await pooled.start()
    await filled(pooled, 4)
    await come(pooled, 8)
    assert condition(pooled)[1] == "ClaimsFail"
    # What kept the agents from it is mended, also for those that are there.
    pooled.agent_type = MemberAgent
    for agent in pooled.agents.values():
        if isinstance(agent, Refuses):
            agent.at_claim = ""
    await asyncio.sleep(300)
    started = await come(pooled, 6, first=8)
    assert {one["kind"] for one in started} == {"warm"}
    await filled(pooled, 4)
    await pooled.until(lambda: condition(pooled)[:2] == ("True", "Filled"))


@pytest.mark.parametrize("agent", [Refuses, Hangs])
async def test_at_night_pods_are_replaced_in_time_and_the_pool_says_that_nobody_tries(
    pooled: World, agent: type[MemberAgent]
) -> None:
    """Claims fail, then nobody comes: new pods start well, so the old ones need not serve on."""
    pooled.agent_type = agent
    change(pooled, warmPool=POOL | {"size": 8, "cap": 12, "maxAge": "10m"})
    running = await pooled.start()
    await filled(pooled, 8)
    await come(pooled, 2)
    pooled.agent_type = MemberAgent

    def told(reason: str) -> float | None:
        labels = {"plugin": "python-3.11", "reason": reason}
        return running.parts.metrics.registry.get_sample_value("ecm_warm_pool_problem", labels)

    oldest, seen = 0.0, set()
    for _ in range(360):
        await asyncio.sleep(10)
        born = [parse_time(pod["metadata"]["creationTimestamp"]) for pod in members(pooled)]
        oldest = max(oldest, *((loop_now() - at).total_seconds() for at in born if at is not None))
        seen.add(condition(pooled)[1])
        assert len(members(pooled)) >= 5
    assert oldest < 11 * 60
    assert seen == {"ClaimsFail", "ClaimsUntried"}
    status, reason, message = condition(pooled)
    assert (status, reason) == ("False", "ClaimsUntried")
    assert "none has tried since. It was at " in message
    assert "older than spec.warmPool.maxAge" not in message
    # No alert of ClaimsFail goes on for ever.
    assert (told("ClaimsFail") or 0, told("ClaimsUntried")) == (0, 1)
    # In the morning one tries, and that ends it.
    assert [one["kind"] for one in await come(pooled, 2, first=2)] == ["warm"] * 2
    await pooled.until(lambda: condition(pooled)[:2] == ("True", "Filled"))


async def test_a_changed_plugin_is_tried_at_once(pooled: World) -> None:
    pooled.agent_type = Refuses
    await pooled.start()
    await filled(pooled, 4)
    await come(pooled, 20)
    pooled.agent_type = MemberAgent
    change(pooled, image="engine:2")
    await pooled.until(lambda: condition(pooled)[:2] == ("True", "Filled"))
    assert [one["kind"] for one in await come(pooled, 2, first=20)] == ["warm"] * 2


async def test_a_claim_that_the_api_server_forbids_is_a_failure_too(pooled: World) -> None:
    pooled.agent_type = MemberAgent
    await pooled.start()
    await filled(pooled, 4)
    pooled.server.faults.add(Fault(verb="patch", resource=PODS, status=403, reason="Forbidden", times=None))
    reasons = [one["coldReason"] for one in await come(pooled, 12)]
    assert reasons[:2] == ["ClaimForbidden"] * 2
    assert reasons.count("AgentRefused") >= 7
    assert condition(pooled)[1] == "ClaimsFail"


async def test_what_one_engine_asks_for_keeps_nobody_from_the_pool(pooled: World) -> None:
    """Its agent answers 400 to each claim of that user: the member is lost, and others take theirs."""
    pooled.agent_type = MemberAgent
    await pooled.start()
    await filled(pooled, 4)
    answer = pooled.answer_claim

    async def claim(address: str, keys: tuple[str, str], body: dict[str, Any]) -> Any:
        if body["environment"].get("ECM_WORK_DIR") == "/tmp/nowhere":
            return ClaimRefused("It refused it (HTTP 400: no folder).", ColdReason.ENVIRONMENT)
        return await answer(address, keys, body)

    pooled.answer_claim = claim
    for number in range(5):
        pooled.create(f"bad{number}", user=f"bad{number}", workingDir="/tmp/nowhere")
        await pooled.until_state(f"bad{number}", "Idle")
        assert pooled.status(f"bad{number}")["startup"]["coldReason"] == "Environment"
        await asyncio.sleep(3)
    assert [one["kind"] for one in await come(pooled, 3)] == ["warm"] * 3


async def test_a_user_whose_claims_kill_members_keeps_nobody_else_from_the_pool(pooled: World) -> None:
    """Whatever he does it by, others get theirs warm; and after a while he starts cold without a claim."""
    change(pooled, warmPool=POOL | {"size": 8, "cap": 20})
    pooled.agent_type = MemberAgent
    answer, killed = pooled.answer_claim, 0

    async def claim(address: str, keys: tuple[str, str], body: dict[str, Any]) -> Any:
        nonlocal killed
        if body["environment"].get("ECM_ENV_EVIL"):
            killed += 1
            await asyncio.sleep(2)
            return ClaimRefused("It refused it (HTTP 500: no answer within 2 s).")
        return await answer(address, keys, body)

    pooled.answer_claim = claim
    await pooled.start()
    await filled(pooled, 8)

    async def attack() -> None:
        for number in range(100):
            pooled.create(f"evil{number}", user="mallory", env=[{"name": "EVIL", "value": "1"}])
            await asyncio.sleep(3)
            pooled.delete(f"evil{number}")

    attacker = asyncio.create_task(attack())
    await asyncio.sleep(10)
    started, seen = [], set()
    for number in range(50):
        started += await come(pooled, 1, first=number)
        pooled.delete(f"e{number}")
        await asyncio.sleep(2)
        seen.add(condition(pooled)[1])
    attacker.cancel()
    assert [one["kind"] for one in started] == ["warm"] * 50
    assert "ClaimsFail" not in seen
    assert 3 <= killed <= 10

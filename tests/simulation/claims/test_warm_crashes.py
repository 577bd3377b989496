"""An operator dies in the middle of a claim: its successor goes on, and no engine gets a second pod."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import Any

import pytest

from linkis_ecm.engine.names import INSTANCE, READY_ANNOTATION, label_hash
from linkis_ecm.kube.resources import PODS
from tests.simulation.claims.test_warm_claims import SMALL, started, watch_pods
from tests.simulation.people.test_ownership import NAMES
from tools.testkit.fakes.faults import Call, Fault
from tools.testkit.simulation.members import (
    AnyPool,
    MemberAgent,
    add_members,
    claim_of,
    members_left,
)
from tools.testkit.simulation.world import NAMESPACE, Running, Script, World

pytestmark = pytest.mark.looptime


async def test_a_claim_that_is_executed_after_its_sender_died_is_cleared_up(world: World) -> None:
    first = await started(world)
    add_members(world, "m1", "m2")
    await asyncio.sleep(1)
    # The API server executes it when the sender is gone and its successor has claimed the other one.
    late: list[Call] = []

    def keep(call: Call) -> bool:
        if isinstance(call.body, list):
            late.append(call)
            return True
        return False

    world.server.faults.add(Fault(verb="patch", resource=PODS, when=keep, latency=30))
    world.create("mine")
    await world.until(lambda: late, 5)
    await world.crash(first)
    world.cluster.change(PODS, (NAMESPACE, "m1"), lambda item: item["metadata"]["annotations"].pop(READY_ANNOTATION))
    await started(world)
    await world.until_state("mine", "Idle", 30)
    assert world.status("mine")["podName"] == "m2"
    world.cluster.patch(PODS, "m1", late[0].body, namespace=NAMESPACE)
    assert len(world.pods("mine")) == 2
    await world.until(lambda: len(world.pods("mine")) == 1, 10)
    await asyncio.sleep(5)
    assert world.status("mine")["podName"] == "m2"
    assert world.state("mine") == "Idle"


STEPS = ["before the patch", "after the patch", "before the agent", "after the agent", "before the status", "after it"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_successor_goes_on_from_each_step(world: World, step: str) -> None:
    first = await started(world, **SMALL)
    (agent,) = add_members(world, "m1")
    await asyncio.sleep(1)
    most = watch_pods(world)
    reached = asyncio.Event()
    stop_at(world, agent, step, reached)
    world.create("mine", env=[{"name": "A", "value": "1"}])
    async with asyncio.timeout(10):
        await reached.wait()
    await world.crash(first)
    world.server.faults.clear()
    agent.at_claim = ""
    await started(world)
    await world.until_state("mine", "Idle", 30)
    assert world.status("mine")["startup"]["kind"] == "warm"
    assert world.status("mine")["podName"] == "m1"
    assert most == {"mine": 1}
    assert {one["ECM_UID"] for one in agent.claims_taken} == {world.status("mine")["ticketId"]}
    (pod,) = world.pods("mine")
    assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] == "1Gi"


def stop_at(world: World, agent: MemberAgent, step: str, reached: asyncio.Event) -> None:
    """Sets `reached` and lets the operator wait at that step, so that it can be killed there."""

    def meets(call: Call) -> bool:
        is_claim = isinstance(call.body, list)
        is_status = call.subresource == "status"
        if (is_claim and "patch" in step) or (is_status and ("status" in step or "after it" in step)):
            asyncio.get_running_loop().call_soon(reached.set)
            return True
        return False

    before = "before" in step
    wait = {"latency": 60.0} if before else {"answer_latency": 60.0}
    if "agent" in step:
        claim = agent.claim

        async def held(key: str, body: dict[str, Any]) -> Any:
            found = None if before or agent.claims_taken else await claim(key, body)
            if not reached.is_set():
                reached.set()
                await asyncio.sleep(60)
            return found if found is not None else await claim(key, body)

        agent.claim = held  # type: ignore[method-assign]
        return
    world.server.faults.add(Fault(verb="patch", when=meets, **wait))


@pytest.mark.parametrize("seed", range(4))
async def test_many_engines_few_members_and_operators_that_are_killed(seed: int) -> None:
    world = World(seed)
    world.answer_claim = partial(claim_of, world)
    rng = random.Random(seed)
    # As many as there are members: one user may take so many.
    world.install_plugin(warmPool={"size": 30, "cap": 30})
    world.server.latency = lambda: rng.uniform(0, 0.02)
    most = watch_pods(world)
    operators = 0

    async def operator() -> Running:
        nonlocal operators
        operators += 1
        return await world.start(f"op{operators}", pool=AnyPool(world, rng))

    running = await operator()
    agents = add_members(world, *(f"m{n}" for n in range(30)))
    for agent in rng.sample(agents, 5):
        agent.at_claim = rng.choice(["refuse", "hang", "lose", "die"])
    names = [f"e{n}" for n in range(50)]
    for name in names:
        world.create(name, Script(start=0.1, ready=0.1))
        await asyncio.sleep(rng.choice([0, 0, 0.01, 0.1]))
        if rng.random() < 0.1:
            await world.crash(running)
            running = await operator()
    for name in names:
        await world.until_state(name, "Idle", 120)
    await asyncio.sleep(5)
    assert set(most) == set(names)
    # A pod that is marked as deleted counts until it is gone, and no second one is made before.
    assert set(most.values()) == {1}
    for agent in agents:
        assert len({one["ECM_UID"] for one in agent.claims_taken}) <= 1
    kinds = [world.status(name)["startup"]["kind"] for name in names]
    assert kinds.count("warm") >= 20
    for name in names:
        (pod,) = world.pods(name)
        assert pod["metadata"]["name"] == world.status(name)["podName"]
        row = world.row(name)
        assert row is not None
        assert (row.request_times, row.status) == (1, "Idle")
    await world.close()


async def test_engines_of_a_pool_that_fills_itself(world: World) -> None:
    world.agent_type = MemberAgent
    world.install_plugin(warmPool={"size": 3, "cap": 10, "namespaces": [NAMESPACE]})
    running = await world.start()
    await world.until(lambda: len(ready(world)) == 3, 30)
    most = watch_pods(world)
    names = [f"e{n}" for n in range(5)]
    for name in names:
        world.create(name)
    for name in names:
        await world.until_state(name, "Idle", 10)
    kinds = [world.status(name)["startup"]["kind"] for name in names]
    assert sorted(kinds) == ["cold", "cold", "warm", "warm", "warm"]
    assert set(most.values()) == {1}
    # Refilled, for the next ones, also with an operator that has just begun.
    await world.until(lambda: len(ready(world)) == 3, 60)
    await world.crash(running)
    await world.start("two")
    await asyncio.sleep(20)
    world.create("late", env=[{"name": "A", "value": "1"}])
    begun = asyncio.get_running_loop().time()
    await world.until_state("late", "Idle", 10)
    assert asyncio.get_running_loop().time() - begun < 0.2
    assert world.status("late")["startup"]["kind"] == "warm"
    world.create("elsewhere", stopGrace="5m")
    await world.until_state("elsewhere", "Idle", 10)
    assert "spec.stopGrace" in world.status("elsewhere")["startup"]["coldBecause"]


def ready(world: World) -> list[str]:
    return [
        name
        for name in members_left(world)
        if READY_ANNOTATION in world.cluster.get(PODS, name, namespace=NAMESPACE)["metadata"]["annotations"]
    ]


# Each installation fills a pool of its own. Of two that see an engine, one accepts it, warm or cold.
@pytest.mark.parametrize("seed", range(3))
async def test_of_two_installations_one_takes_a_pod_for_an_engine(world: World, seed: int) -> None:
    rng = random.Random(seed)
    world.agent_type = MemberAgent
    world.server.latency = lambda: rng.uniform(0, 0.02)
    world.install_plugin(warmPool={"size": 6, "cap": 40, "namespaces": [NAMESPACE]})
    for instance, changes in NAMES.items():
        await world.start(instance, **changes)
    await world.until(lambda: len(ready(world)) == 12, 60)
    names = [f"e{n}" for n in range(12)]
    for name in names:
        world.create(name, Script(start=0.1, ready=0.1))
        await asyncio.sleep(rng.choice([0, 0.005, 0.05]))
    for name in names:
        await world.until_state(name, "Idle", 120)
    await asyncio.sleep(60)
    for name in names:
        status = world.status(name)
        (pod,) = world.pods(name)
        assert pod["metadata"]["name"] == status["podName"]
        assert pod["metadata"]["labels"][INSTANCE] == label_hash(status["ecmInstance"])
        assert world.state(name) == "Idle"
    kinds = [world.status(name)["startup"]["kind"] for name in names]
    assert kinds.count("warm") >= 4

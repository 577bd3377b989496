"""Faults: whatever the API server or the operator's process does, no engine is lost and none has two pods."""

from __future__ import annotations

import asyncio
import random

import pytest

from linkis_ecm.controller.workloop.worker import Result
from linkis_ecm.engine.names import pod_name
from linkis_ecm.kube.resources import ENGINECONNS, PODS
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.world import NAMESPACE, Script, World

pytestmark = pytest.mark.looptime


@pytest.fixture
def world(bare_world: World) -> World:
    return bare_world


FAULTS = {
    "the pod's POST answers 500": Fault(verb="create", resource=PODS, status=500, times=2),
    "the pod's POST is throttled": Fault(verb="create", resource=PODS, status=429, retry_after=1, times=2),
    "the pod's POST is cut before": Fault(verb="create", resource=PODS, reset="before", times=2),
    "the pod's POST is cut after": Fault(verb="create", resource=PODS, reset="after", times=2),
    "the status answers 500": Fault(verb="patch", resource=ENGINECONNS, status=500, times=4),
    "the status is throttled": Fault(verb="patch", resource=ENGINECONNS, status=429, retry_after=2, times=2),
    "the status is cut after": Fault(verb="patch", resource=ENGINECONNS, reset="after", times=3),
    "the status conflicts": Fault(verb="patch", resource=ENGINECONNS, status=409, reason="Conflict", times=1),
    "every call is slow": Fault(latency=0.7, times=None),
    "lists fail at first": Fault(verb="list", status=500, times=5),
    "watches are refused at first": Fault(verb="watch", status=429, retry_after=1, times=4),
    "a quota refuses at first": Fault(
        verb="create", resource=PODS, status=403, reason="Forbidden", times=1
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
async def test_an_engine_gets_ready_and_stops_whatever_the_api_server_does(world: World, name: str) -> None:
    fault = FAULTS[name]
    played = world.server.faults.add(Fault(**{f: getattr(fault, f) for f in fault.__slots__ if f != "played"}))
    await world.start()
    world.create("e")
    await world.until_state("e", "Idle", 100)
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success", 100)
    assert played.played > 0
    assert len(world.pods_made) == 1
    row = world.row("e")
    assert row is not None
    assert row.final


@pytest.mark.parametrize("what", ["cut", "expire", "repeat", "reorder", "lose", "silence", "end"])
async def test_watches_may_break_in_any_way(world: World, what: str) -> None:
    running = await world.start()
    names = [f"e{n}" for n in range(6)]
    world.create(names[0])
    await world.until_state(names[0], "Idle")
    for resource in (PODS, ENGINECONNS):
        getattr(world.server.watches, what)(resource)
    for name in names[1:]:
        world.create(name)
    world.edit(names[0], desiredState="Stopped")
    if what == "lose":
        # Lost events come back with a list only: the periodic one is not awaited here.
        await asyncio.sleep(1)
        world.server.watches.expire(PODS)
        world.server.watches.expire(ENGINECONNS)
    await world.until_state(names[0], "Success", 200)
    for name in names[1:]:
        await world.until_state(name, "Idle", 200)
    assert len(set(world.pods_made)) == len(world.pods_made) == 6
    assert running.parts.watches.synced


async def test_an_engine_deleted_while_the_watch_lost_it_gets_its_last_row(world: World) -> None:
    running = await world.start()
    world.create("e")
    await world.until_state("e", "Idle")
    world.server.watches.lose(ENGINECONNS)
    world.delete("e")
    await asyncio.sleep(1)
    await running.parts.resync.run_once()
    row = world.row("e")
    assert row is not None
    assert (row.status.value, row.final) == ("ShuttingDown", True)


@pytest.mark.parametrize("seed", range(25))
async def test_an_operator_killed_at_any_moment_loses_nothing(world: World, seed: int) -> None:
    """Killed again and again, at random moments of starts, tasks and stops; the next one converges."""
    rng = random.Random(seed)
    world.server.latency = lambda: rng.uniform(0, 0.02)
    running = await world.start("0")
    names = [f"e{n}" for n in range(4)]
    for name in names:
        world.create(name, Script(start=rng.uniform(0, 0.3), ready=rng.uniform(0, 0.5)))
    stopped = rng.sample(names, 2)
    for life in range(1, 6):
        await asyncio.sleep(rng.uniform(0, 0.4))
        for agent in world.agents.values():
            if agent.state == "Idle" and rng.random() < 0.5:
                agent.become("Busy")
        if life == 4:
            for name in stopped:
                world.edit(name, desiredState="Stopped")
        await world.crash(running)
        running = await world.start(str(life))
    for name in stopped:
        await world.until_state(name, "Success", 120)
    for name in sorted(set(names) - set(stopped)):
        await world.until(lambda name=name: world.state(name) in ("Idle", "Busy"), 120)
        agent = world.agent(name)
        await world.until(lambda name=name, agent=agent: world.state(name) == agent.state, 60)
        row = world.row(name)
        assert row is not None
        assert row.status.value == agent.state
    assert len(set(world.pods_made)) == len(world.pods_made), "no engine had a second pod"
    assert len(world.pods_made) <= 4
    for name in stopped:
        row = world.row(name)
        assert row is not None
        assert (row.status.value, row.final) == ("ShuttingDown", True)


async def test_a_restart_over_200_settled_engines_writes_nothing(world: World) -> None:
    running = await world.start("one")
    for n in range(200):
        world.create(f"e{n}")
    for n in range(200):
        await world.until_state(f"e{n}", "Idle")
    before = world.writes()
    assert before == 3 * 200
    await world.crash(running)
    second = await world.start("two")
    await world.until(second.parts.reconciler.leading.is_set, 30)
    await asyncio.sleep(60)
    assert world.writes() == before
    assert {world.state(f"e{n}") for n in range(200)} == {"Idle"}


async def test_of_two_operators_one_writes_and_the_other_takes_over(world: World) -> None:
    first, second = await world.start("one"), await world.start("two")
    world.create("a")
    await world.until_state("a", "Idle")
    leaders = [r for r in (first, second) if r.parts.reconciler.leading.is_set()]
    assert len(leaders) == 1
    assert world.writes() == 3
    begun = asyncio.get_running_loop().time()
    await world.crash(leaders[0])
    world.create("b")
    await world.until_state("b", "Idle", 20)
    assert asyncio.get_running_loop().time() - begun < 12, "the Lease lasts 8 s, and is looked at every 1.5 s"
    assert len(world.pods_made) == 2


def take_name(world: World, name: str, uid: str, attempt: int = 0) -> str:
    """Somebody's pod, without an owner, under the name of an engine's pod."""
    pod = pod_name(name, uid, attempt)
    foreign = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": NAMESPACE},
        "spec": {"containers": [{"name": "engine", "image": "x"}]},
    }  # fmt: skip
    world.cluster.create(PODS, foreign, namespace=NAMESPACE)
    return pod


async def test_a_foreign_pod_of_the_name_is_left_alone_until_the_starts_time_is_over(world: World) -> None:
    pod = take_name(world, "e", world.create("e"))
    running = await world.start()
    await world.until(lambda: world.status("e").get("reason") == "NameConflict")
    assert world.state("e") == "Starting", "whoever may create pods ends no engine with one"
    assert pod in world.status("e")["message"]
    await world.crash(running)
    await world.start("two")
    await world.until_state("e", "Failed", 150)
    assert world.status("e")["reason"] == "NameConflict"
    assert "startTimeout" in world.status("e")["message"]
    assert pod in world.status("e")["message"]
    assert [one["metadata"]["name"] for one in world.cluster.all(PODS)] == [pod]


async def test_an_engine_starts_when_a_foreign_pod_of_its_name_is_gone(world: World) -> None:
    pod = take_name(world, "e", world.create("e"))
    await world.start()
    await world.until(lambda: world.status("e").get("reason") == "NameConflict")
    world.cluster.delete(PODS, pod, namespace=NAMESPACE, grace_seconds=0)
    await world.until_state("e", "Idle", 20)
    assert world.status("e")["podName"] == pod
    assert world.pods_made == [pod, pod], "the foreign one, and one of ours"


async def test_another_attempt_has_another_name_than_the_one_that_somebody_took(world: World) -> None:
    uid = world.create("e", restartPolicy={"type": "OnFailure", "maxAttempts": 2}, startTimeout="20s")
    taken = take_name(world, "e", uid)
    await world.start()
    await world.until_state("e", "Idle", 90)
    assert world.pods_made == [taken, pod_name("e", uid, 1)], "the foreign one, and one of ours"


async def test_a_foreign_pod_under_the_next_attempts_name_holds_it_up_alone(world: World) -> None:
    uid = world.create("e", restartPolicy={"type": "OnFailure", "maxAttempts": 2})
    await world.start()
    await world.until_state("e", "Idle")
    taken = take_name(world, "e", uid, 1)
    world.cluster.delete(PODS, world.status("e")["podName"], namespace=NAMESPACE, grace_seconds=0)
    await world.until(lambda: world.status("e").get("reason") == "NameConflict", 60)
    assert world.state("e") == "Starting"
    world.cluster.delete(PODS, taken, namespace=NAMESPACE, grace_seconds=0)
    await world.until_state("e", "Idle", 30)
    assert world.status("e")["attempt"] == 1


async def test_an_attempt_whose_old_pod_does_not_go_ends_with_its_starts_time(world: World) -> None:
    uid = world.create("e", restartPolicy={"type": "OnFailure", "maxAttempts": 2})
    await world.start()
    await world.until_state("e", "Idle")
    old = pod_name("e", uid, 0)
    world.cluster.change(PODS, (NAMESPACE, old), lambda pod: pod["metadata"].update(finalizers=["somebody/holds"]))
    world.agent("e").become("Failed", failure="KernelDied")
    await world.until_state("e", "Failed", 600)
    assert world.status("e")["reason"] == "StartTimeout"
    assert old in world.status("e")["message"]
    assert len(world.pods_made) == 1, "no second pod beside it"


async def test_an_engine_that_makes_a_pass_raise_harms_no_other(world: World) -> None:
    running = await world.start()
    decide = running.parts.reconciler.process

    async def poisoned(key: tuple[str, str]) -> Result:
        if key[1] == "poison":
            raise RuntimeError("boom")
        return await decide(key)

    running.parts.reconciler.process = poisoned  # type: ignore[method-assign]
    world.create("poison")
    world.create("fine")
    await world.until_state("fine", "Idle")
    await asyncio.sleep(300)
    assert world.state("poison") == ""
    errors = running.parts.reconciler.worker.failures((NAMESPACE, "poison"))
    assert 5 < errors < 30, "tried again, ever more slowly"


@pytest.mark.parametrize(
    "status",
    [
        {"engineState": "Unlock"},
        {"reason": "Nonsense"},
        {"startup": {}},
        {"conditions": []},
        {"stateSince": "yesterday"},
    ],
)
async def test_a_status_edited_by_hand_into_nonsense_is_mended_or_contained(
    world: World, status: dict[str, object]
) -> None:
    await world.start()
    world.create("e")
    await world.until_state("e", "Idle")
    world.cluster.change(ENGINECONNS, (NAMESPACE, "e"), lambda item: item["status"].update(status))
    world.create("other")
    await world.until_state("other", "Idle")
    assert len(world.pods("e")) == 1
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success", 120)


async def test_status_patches_that_take_30_s_do_not_lose_the_lease(world: World) -> None:
    """The operator's half of finding S32; tests/unit/controller/test_kube_pools.py has it over real connections."""
    running = await world.start()
    await world.until(lambda: running.parts.lease.held)
    assert running.parts.lease._client is not running.parts.client, "a renewal waits for no connection of others"
    world.server.faults.add(Fault(verb="patch", resource=ENGINECONNS, subresource="status", times=None, latency=30.0))
    for number in range(50):
        world.create(f"e{number}")
    for _ in range(120):
        await asyncio.sleep(1)
        assert running.parts.lease.held
    world.server.faults.clear()
    await world.until(lambda: all(world.state(f"e{number}") == "Idle" for number in range(50)), 300)

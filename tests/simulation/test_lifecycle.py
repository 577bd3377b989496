"""Lives by their policies: restarts after a failure, culls of idle engines, the longest life, once engines."""

from __future__ import annotations

import asyncio
import random

import pytest

from linkis_ecm.kube.resources import ENGINECONNS, EVENTS, PODS
from linkis_ecm.model.states import EngineState
from tools.testkit.fakes.cluster import loop_now
from tools.testkit.simulation.world import NAMESPACE, Script, World

pytestmark = pytest.mark.looptime


# --- restarts


async def test_a_failed_engine_is_restarted_by_its_policy_with_a_growing_pause(world: World) -> None:
    world.create("e", restartPolicy={"type": "OnFailure", "maxAttempts": 3})
    await world.until_state("e", "Idle")
    for attempt in (1, 2):
        begun = asyncio.get_running_loop().time()
        world.exit_pod(world.pods("e")[0], 3)
        await world.until(lambda attempt=attempt: world.status("e").get("attempt") == attempt, 5)
        assert world.status("e")["reason"] == "Restarting"
        assert world.status("e")["lastEnd"]["reason"] == "AgentExited"
        await world.until_state("e", "Idle", 60)
        assert 10 * attempt <= asyncio.get_running_loop().time() - begun <= 13 * attempt + 2
        assert len(world.pods("e")) == 1
    row = world.row("e")
    assert row is not None
    assert (row.status.value, row.request_times, row.used_times, row.release_times) == ("Idle", 3, 3, 2)
    world.exit_pod(world.pods("e")[0], 3)
    await world.until_state("e", "Failed", 5)
    assert world.condition("e", "DeadLettered")["status"] == "True"
    row = world.row("e")
    assert row is not None
    assert (row.status.value, row.request_times, row.used_times, row.release_times) == ("Failed", 3, 3, 3)
    assert len(set(world.pods_made)) == 3


async def test_only_infrastructure_failures_are_restarted_where_the_policy_says_so(world: World) -> None:
    policy = {"type": "OnInfrastructureFailure", "maxAttempts": 2}
    world.create("evicted", restartPolicy=policy)
    world.create("crashed", restartPolicy=policy)
    for name in ("evicted", "crashed"):
        await world.until_state(name, "Idle")
    gone = world.pods("evicted")[0]["metadata"]["name"]
    world.cluster.change(
        PODS, (NAMESPACE, gone), lambda item: item["status"].update(phase="Failed", reason="Evicted", message="x")
    )
    world.exit_pod(world.pods("crashed")[0], 3)
    await world.until_state("crashed", "Failed", 5)
    await world.until(lambda: world.status("evicted").get("attempt") == 1 and world.state("evicted") == "Idle", 60)
    assert world.condition("crashed", "DeadLettered") == {}


async def test_a_stop_between_two_attempts_is_final_and_no_pod_follows(world: World) -> None:
    world.create("e", restartPolicy={"type": "OnFailure"})
    await world.until_state("e", "Idle")
    world.exit_pod(world.pods("e")[0], 3)
    await world.until(lambda: world.status("e").get("reason") == "Restarting", 5)
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success", 5)
    await asyncio.sleep(60)
    assert len(world.pods_made) == 1


@pytest.mark.parametrize("seed", range(10))
async def test_an_operator_killed_around_a_restart_makes_no_pod_too_many(world: World, seed: int) -> None:
    rng = random.Random(seed)
    world.server.latency = lambda: rng.uniform(0, 0.02)
    world.create("e", restartPolicy={"type": "OnFailure", "maxAttempts": 3})
    await world.until_state("e", "Idle")
    world.exit_pod(world.pods("e")[0], 3)
    for life in range(3):
        await asyncio.sleep(rng.uniform(0, 4))
        await world.crash(world.operators[0])
        await world.start(f"{seed}-{life}")
    await world.until(lambda: world.status("e").get("attempt") == 1 and world.state("e") == "Idle", 120)
    assert len(world.pods_made) == 2
    assert len([p for p in world.pods("e") if p["status"]["phase"] == "Running"]) == 1


async def test_a_permanent_failure_is_not_tried_again(world: World) -> None:
    world.create("e", restartPolicy={"type": "OnFailure"}, resources={"memory": "64Gi"})
    await world.until_state("e", "Failed", 5)
    assert world.status("e")["reason"] == "InvalidSpec"
    assert world.status("e")["attempt"] == 0


# --- idle and life


async def test_an_idle_engine_is_warned_before_it_is_culled(world: World) -> None:
    world.create("e", idleTimeout="10m")
    await world.until_state("e", "Idle")
    assert world.status("e")["nextCullAt"]
    await asyncio.sleep(470)
    assert world.status("e")["reason"] == "KernelReady"
    await world.until(lambda: world.status("e")["reason"] == "CullSoon", 30)
    assert "idleTimeout is over at" in world.status("e")["message"]
    assert any(e["reason"] == "CullSoon" and e["type"] == "Warning" for e in world.cluster.all(EVENTS))
    await world.until_state("e", "Success", 130)
    assert world.status("e")["reason"] == "IdleTimeout"


async def test_a_task_after_the_warning_keeps_the_engine(world: World) -> None:
    world.create("e", idleTimeout="10m")
    await world.until_state("e", "Idle")
    await world.until(lambda: world.status("e")["reason"] == "CullSoon", 500)
    world.agent("e").become("Busy")
    await asyncio.sleep(200)
    world.agent("e").become("Idle")
    await world.until(lambda: world.status("e")["reason"] == "KernelReady", 5)
    await asyncio.sleep(590)
    assert world.state("e") == "Idle"
    await world.until_state("e", "Success", 20)


async def test_a_download_blocks_the_cull_and_the_time_counts_from_its_end(world: World) -> None:
    world.create("e", idleTimeout="30s")
    await world.until_state("e", "Idle")
    agent = world.agent("e")
    agent.extra = {"active": "1 download under way"}
    agent.report()
    await asyncio.sleep(300)
    assert world.state("e") == "Idle"
    agent.extra = {"lastActivity": loop_now().timestamp()}
    agent.report()
    begun = asyncio.get_running_loop().time()
    await world.until_state("e", "Success", 60)
    assert 29 < asyncio.get_running_loop().time() - begun < 35


async def test_a_busy_engine_reaches_the_end_of_its_life_and_its_task_has_the_grace(world: World) -> None:
    world.create("e", Script(stop_takes=20), maxLifetime="5m", stopGrace="60s")
    await world.until_state("e", "Idle")
    world.agent("e").become("Busy")
    await world.until_state("e", "ShuttingDown", 310)
    assert world.stop_graces == [60]
    await world.until_state("e", "Success", 30)
    assert world.status("e")["reason"] == "LifetimeOver"
    row = world.row("e")
    assert row is not None
    assert row.status is EngineState.SUCCESS


async def test_an_engine_that_drains_by_itself_and_hangs_is_ended_at_its_grace(world: World) -> None:
    world.create("e", Script(ignores_stop=True))
    await world.until_state("e", "Idle")
    world.agent("e").become("ShuttingDown")
    await world.until_state("e", "ShuttingDown", 5)
    await world.until_state("e", "Success", 90)
    assert world.status("e")["reason"] == "StopRequested"


# --- once


@pytest.mark.parametrize(("code", "state"), [(0, "Success"), (1, "Failed")])
async def test_a_once_engine_runs_its_job_and_ends_as_it_did(world: World, code: int, state: str) -> None:
    uid = world.create("job", Script(once=code), mode="once", code="print(1)", ttlAfterFinished="10m")
    await world.until_state("job", "Running")
    row = world.row("job")
    assert row is not None
    assert row.status is EngineState.RUNNING
    await world.until_state("job", state)
    assert world.status("job")["reason"] == ("Completed" if code == 0 else "JobFailed")
    assert "result.json" in world.archive.bundles[uid, 0]
    row = world.row("job")
    assert row is not None
    assert (row.status.value, row.final) == (state, True)
    await world.until(lambda: not world.cluster.all(ENGINECONNS), 620)
    assert (uid, 0) in world.archive.bundles, "the result outlives the resource"

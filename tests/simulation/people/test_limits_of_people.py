"""Limits of people in a whole operator: who waits, what it is told, who is next, and what a crash does not open."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import AsyncIterator

import pytest

from linkis_ecm.engine.admission.limits import parse_limits
from linkis_ecm.engine.pod_view import pod_view
from linkis_ecm.kube.resources import EVENTS, PODS
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.world import NAMESPACE, Script, World

pytestmark = pytest.mark.looptime


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Two engines a user, three for root; 3 cpu a namespace."""
    made = World()
    made.limits = parse_limits(
        '{"user": {"engines": 2}, "users": {"root": {"engines": 3}, "big": {"engines": 0, "memory": "2Gi"}},'
        ' "namespace": {"cpu": "3"}}'
    )
    made.install_plugin()
    await made.start()
    yield made
    await made.close()


def live_pods(world: World) -> int:
    return len(set(world.pods_made))


async def test_an_engine_over_the_limit_waits_with_figure_and_remedy_and_starts_when_another_ends(world: World) -> None:
    for name in ("a", "b"):
        world.create(name, user="alice")
        await world.until_state(name, "Idle")
    world.create("c", user="alice")
    world.create("other", user="Alice")
    await world.until(lambda: world.status("c").get("reason") == "LimitReached", 5)
    assert world.state("c") == "Starting"
    assert world.status("c")["message"] == (
        "A limit of engines, cpu or memory is reached. User alice has 2 of 2 engines: stop one of"
        f" {NAMESPACE}/a, {NAMESPACE}/b. Stop an engine, ask for less, or have the limit raised (ECM_LIMITS, limits of"
        " the chart)."
    )
    await world.until_state("other", "Idle")
    assert world.pods("c") == []
    assert any(e["reason"] == "LimitReached" and e["type"] == "Warning" for e in world.cluster.all(EVENTS))
    registry = world.operators[0].parts.metrics.registry
    assert registry.get_sample_value("ecm_engine_refusals_total", {"limit": "user_engines"}) == 1
    world.edit("a", desiredState="Stopped")
    await world.until_state("c", "Idle", 10)


async def test_a_deleted_engine_frees_its_place(world: World) -> None:
    for name in ("a", "b"):
        world.create(name, user="alice")
        await world.until_state(name, "Idle")
    world.create("c", user="alice")
    await world.until(lambda: world.status("c").get("reason") == "LimitReached", 5)
    world.delete("b")
    await world.until_state("c", "Idle", 10)


async def test_an_engine_that_gets_no_place_fails_with_the_same_reason_and_is_not_tried_again(world: World) -> None:
    for name in ("a", "b"):
        world.create(name, user="alice")
        await world.until_state(name, "Idle")
    world.create("c", user="alice", startTimeout="30s", restartPolicy={"type": "OnFailure"})
    begun = asyncio.get_running_loop().time()
    await world.until_state("c", "Failed", 60)
    assert 29 <= asyncio.get_running_loop().time() - begun <= 33
    assert world.status("c")["reason"] == "LimitReached"
    assert "2 of 2 engines" in world.status("c")["message"]
    assert world.status("c")["attempt"] == 0
    assert live_pods(world) == 2


async def test_what_can_never_fit_fails_at_once(world: World) -> None:
    world.create("e", user="big", resources={"memory": "4Gi"})
    await world.until_state("e", "Failed", 5)
    assert world.status("e")["reason"] == "LimitReached"
    assert "user big may have 2Gi at a time: ask for 2Gi at most" in world.status("e")["message"]


async def test_a_named_user_has_other_figures_and_the_namespace_has_its_own(world: World) -> None:
    for number in range(3):
        world.create(f"r{number}", user="root", resources={"cpu": "1"})
        await world.until_state(f"r{number}", "Idle")
    world.create("late", user="alice", resources={"cpu": "1"})
    await world.until(lambda: world.status("late").get("reason") == "LimitReached", 5)
    assert (
        "Namespace engines has 3 of 3 cpu, and this engine asks for 1: wait until others end."
        in (world.status("late")["message"])
    )
    # The pod is as big as it was made, whatever its spec says since.
    world.edit("r0", resources={"cpu": "100m"})
    world.edit("late", idleTimeout="1h")
    await asyncio.sleep(5)
    assert world.state("late") == "Starting"
    assert world.pods("late") == []


async def test_a_stop_of_a_waiting_engine_is_a_stop(world: World) -> None:
    for name in ("a", "b", "c"):
        world.create(name, user="alice")
        await asyncio.sleep(1)
    await world.until(lambda: world.status("c").get("reason") == "LimitReached", 5)
    world.edit("c", desiredState="Stopped")
    await world.until_state("c", "Success", 5)


async def test_a_restart_keeps_its_place(world: World) -> None:
    for name in ("a", "b"):
        world.create(name, user="alice", restartPolicy={"type": "OnFailure", "maxAttempts": 3})
        await world.until_state(name, "Idle")
    world.create("c", user="alice")
    await world.until(lambda: world.status("c").get("reason") == "LimitReached", 5)
    world.exit_pod(world.pods("a")[0], 3)
    await world.until(lambda: world.status("a").get("attempt") == 1 and world.state("a") == "Idle", 60)
    assert world.status("c")["reason"] == "LimitReached"


async def test_a_restart_with_a_bigger_spec_asks_for_the_rest(world: World) -> None:
    policy = {"type": "OnFailure", "maxAttempts": 3}
    for name in ("a", "b"):
        world.create(name, user="alice", restartPolicy=policy, resources={"cpu": "1"})
        await world.until_state(name, "Idle")
    world.edit("a", resources={"cpu": "2500m"})
    world.exit_pod(world.pods("a")[0], 3)
    await world.until(lambda: world.status("a").get("reason") == "LimitReached", 60)
    assert "has 1 of 3 cpu, and this engine asks for 2.5" in world.status("a")["message"]
    world.edit("b", desiredState="Stopped")
    await world.until(lambda: world.state("a") == "Idle", 60)


@pytest.mark.parametrize("seed", range(12))
async def test_a_burst_and_operators_that_die_let_no_two_through(world: World, seed: int) -> None:
    rng = random.Random(seed)
    world.server.latency = lambda: rng.uniform(0, 0.05)
    for number in range(6):
        world.create(f"e{number}", Script(schedule=0.05), user="alice")
    for life in range(3):
        await asyncio.sleep(rng.uniform(0, 1))
        await world.crash(world.operators[0])
        await world.start(f"{seed}-{life}")
    await world.until(lambda: sum(world.state(f"e{n}") == "Idle" for n in range(6)) == 2, 120)
    await asyncio.sleep(5)
    assert live_pods(world) == 2
    waiting = [n for n in range(6) if world.state(f"e{n}") != "Idle"]
    assert all(world.status(f"e{n}")["reason"] == "LimitReached" for n in waiting)
    # One ends, one begins.
    up = next(n for n in range(6) if world.state(f"e{n}") == "Idle")
    world.edit(f"e{up}", desiredState="Stopped")
    await world.until(lambda: sum(world.state(f"e{n}") == "Idle" for n in waiting) == 1, 60)
    assert live_pods(world) == 3


async def test_a_pod_that_was_resized_in_place_counts_as_it_is_now(world: World) -> None:
    """As updateResource does; also where the pod's event comes last, and where the spec says less."""
    for name in ("a", "b"):
        world.create(name, user="alice" if name == "a" else "bob", resources={"cpu": "1"})
        await world.until_state(name, "Idle")
    world.create("c", user="carol", resources={"cpu": "2"})
    await world.until(lambda: world.status("c").get("reason") == "LimitReached", 5)
    # The fake API server does not resize: the event as the API server sends it.
    pod = copy.deepcopy(world.pods("a")[0])
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2"
    pod["metadata"]["resourceVersion"] = str(int(pod["metadata"]["resourceVersion"]) + 1)
    assert world.operators[0].parts.cache.apply_pod(pod_view(pod))
    world.create("d", user="dave", resources={"cpu": "500m"})
    await world.until(lambda: world.status("d").get("reason") == "LimitReached", 5)
    assert "Namespace engines has 3 of 3 cpu, and this engine asks for 0.5" in world.status("d")["message"]
    assert world.pods("d") == []


async def test_the_status_has_the_pods_size_where_the_spec_was_edited_and_then_alone(world: World) -> None:
    """The gateway counts it: a spec may be edited below its pod."""
    world.create("a", user="alice", resources={"cpu": "2", "memory": "1Gi"})
    await world.until_state("a", "Idle")
    assert "resources" not in world.status("a")
    world.edit("a", resources={"cpu": "100m", "memory": "256Mi"})
    await world.until(lambda: world.status("a").get("resources") == {"cpu": "2", "memory": "1Gi"}, 5)
    writes = world.writes()
    await asyncio.sleep(120)
    assert world.writes() == writes
    world.edit("a", resources={"cpu": "2", "memory": "1Gi"})
    await world.until(lambda: not world.status("a").get("resources"), 5)


async def test_an_engine_whose_spec_grows_before_its_pod_gives_its_place_to_the_next(world: World) -> None:
    """Each has a place and no pod, because a quota is full, and grows: none may wait for a place that nobody uses."""
    quota = Fault(verb="create", resource=PODS, times=None, status=403, reason="Forbidden", message="exceeded quota: q")
    world.server.faults.add(quota)
    for name, user in (("a", "alice"), ("b", "bob")):
        world.create(name, user=user, resources={"cpu": "1"})
        await world.until(lambda name=name: world.status(name).get("reason") == "QuotaExceeded", 10)
    for name in ("a", "b"):
        world.edit(name, resources={"cpu": "2500m"})
    await asyncio.sleep(5)
    world.server.faults.clear()
    await world.until(lambda: "Idle" in (world.state("a"), world.state("b")), 120)
    await asyncio.sleep(60)
    assert sorted((world.state("a"), world.state("b"))) == ["Idle", "Starting"]

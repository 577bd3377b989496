"""A pod from a warm pool gets the size that its engine asks for, also where that was refused at the claim."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from linkis_ecm.engine.admission.limits import Amount, Limits
from linkis_ecm.kube.resources import PODS
from tests.simulation.claims.test_warm_claims import SMALL, started
from tools.testkit.fakes.cluster import loop_now, timestamp
from tools.testkit.fakes.faults import Fault
from tools.testkit.fakes.rules import copied
from tools.testkit.simulation.members import AnyPool, add_members
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime
ASKED = {"cpu": "2", "memory": "4Gi"}


def default_limit(cpu: str) -> Callable[[dict[str, Any]], None]:
    """What a LimitRange does to pods without a cpu limit."""

    def admit(pod: dict[str, Any]) -> None:
        for container in pod["spec"]["containers"]:
            container["resources"]["limits"].setdefault("cpu", cpu)

    return admit


def memory(world: World) -> str:
    (pod,) = world.pods("mine")
    found: str = pod["spec"]["containers"][0]["resources"]["limits"]["memory"]
    return found


@pytest.mark.parametrize("fault", [{"status": 409}, {"status": 403}, {"status": 500}, {"reset": "before"}])
async def test_one_refusal_is_made_up_for(world: World, fault: dict[str, Any]) -> None:
    await started(world, **SMALL)
    add_members(world, "m1")
    await asyncio.sleep(1)
    world.server.faults.add(Fault(verb="patch", resource=PODS, subresource="resize", **fault))
    world.create("mine", resources=ASKED)
    await world.until_state("mine", "Idle", 10)
    await world.until(lambda: memory(world) == "4Gi", 10)
    await world.until(lambda: not world.condition("mine", "Resized"), 5)
    assert "resources" not in world.status("mine")
    writes = world.writes()
    await asyncio.sleep(600)
    assert world.writes() == writes


async def test_a_long_refusal_is_said_over_restarts_and_keeps_its_place(world: World) -> None:
    world.limits = Limits(user=Amount(cpu_milli=2500))
    running = await started(world, **SMALL)
    add_members(world, "m1")
    await asyncio.sleep(1)
    no = Fault(verb="patch", resource=PODS, subresource="resize", status=403, times=None, message="exceeded quota: q")
    world.server.faults.add(no)
    world.create("mine", resources=ASKED)
    await world.until_state("mine", "Idle", 10)
    assert "exceeded quota: q" in world.condition("mine", "Resized")["message"]
    assert world.status("mine")["resources"] == {"cpu": "50m", "memory": "256Mi"}
    before = no.played
    await asyncio.sleep(600)
    # 2, 4, 8, 16, 32 and then 60 s apart, a quarter more or less.
    assert 8 <= no.played - before <= 18
    await world.crash(running)
    await world.start("another", pool=AnyPool(world))
    await asyncio.sleep(60)
    assert world.condition("mine", "Resized")["status"] == "False"
    # Its place is that of the size that it gets when there is room.
    world.create("other", resources={"cpu": "1"})
    await world.until(lambda: world.status("other").get("reason") == "LimitReached", 30)
    world.server.faults.clear()
    await world.until(lambda: memory(world) == "4Gi", 90)
    await world.until(lambda: not world.condition("mine", "Resized"), 5)


async def test_whoever_resizes_it_has_the_last_word(world: World) -> None:
    await started(world, **SMALL)
    add_members(world, "m1")
    await asyncio.sleep(1)
    world.server.faults.add(Fault(verb="patch", resource=PODS, subresource="resize", status=403, times=None))
    world.create("mine", resources=ASKED)
    await world.until_state("mine", "Idle", 10)
    world.server.faults.clear()
    own = {"limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi"}}
    body = {"spec": {"containers": [{"name": "engine", "resources": own}]}}
    world.cluster.patch(PODS, "m1", body, namespace=NAMESPACE, subresource="resize")
    await world.until(lambda: not world.condition("mine", "Resized"), 5)
    await asyncio.sleep(300)
    assert memory(world) == "1Gi"


async def refused(world: World, **limits: int) -> Fault:
    """An engine that has the size of the pool, and a resize that is refused."""
    world.limits = Limits(user=Amount(**limits))
    await started(world, **SMALL)
    add_members(world, "m1")
    await asyncio.sleep(1)
    fault = Fault(verb="patch", resource=PODS, subresource="resize", status=403, times=None, message="no room")
    world.server.faults.add(fault)
    world.create("mine", resources=ASKED)
    await world.until_state("mine", "Idle", 10)
    return fault


@pytest.mark.parametrize("newest", ["3Gi", "6Gi"])
async def test_the_retry_aims_at_the_newest_size_of_the_spec(world: World, newest: str) -> None:
    fault = await refused(world)
    world.edit("mine", resources={"memory": newest})
    tried = fault.played
    await world.until(lambda: fault.played > tried, 120)
    assert not world.condition("mine", "SpecPending")
    world.server.faults.clear()
    await world.until(lambda: memory(world) == newest, 90)
    await world.until(lambda: not world.condition("mine", "Resized"), 5)
    assert not world.condition("mine", "SpecPending")
    writes = world.writes()
    await asyncio.sleep(600)
    assert world.writes() == writes


@pytest.mark.parametrize("limit_range", [None, "4"])
async def test_a_spec_that_asks_for_what_the_pod_has_by_now_is_not_resized(
    world: World, limit_range: str | None
) -> None:
    if limit_range is not None:
        world.cluster.admit_pod = default_limit(limit_range)
    await refused(world)
    world.edit("mine", resources={"cpu": "50m", "memory": "256Mi"})
    world.server.faults.clear()
    await world.until(lambda: not world.condition("mine", "Resized"), 90)
    await asyncio.sleep(300)
    assert memory(world) == "256Mi"
    assert not world.condition("mine", "SpecPending")


async def test_a_larger_spec_is_asked_for_under_the_limits_and_takes_nobodys_place(world: World) -> None:
    await refused(world, cpu_milli=2500)
    world.edit("mine", resources={"cpu": "3", "memory": "4Gi"})
    world.server.faults.clear()
    await world.until(lambda: world.condition("mine", "Resized")["reason"] == "LimitReached", 120)
    assert "The engine asks for" in world.condition("mine", "Resized")["message"]
    await asyncio.sleep(120)
    assert memory(world) == "256Mi"
    # What it will never get is nobody's place: the other one has it.
    world.create("other", resources={"cpu": "2"})
    await world.until_state("other", "Idle", 30)
    world.delete("other")
    world.edit("mine", resources={"cpu": "2500m", "memory": "4Gi"})
    await world.until(lambda: memory(world) == "4Gi", 120)


async def test_a_node_that_has_no_room_yet_and_then_never_is_said_each_in_its_words(world: World) -> None:
    await started(world, **SMALL)
    add_members(world, "m1")
    await asyncio.sleep(1)
    world.create("mine", resources=ASKED)
    await world.until_state("mine", "Idle", 10)
    await world.until(lambda: memory(world) == "4Gi", 10)

    def kubelet(*conditions: dict[str, str]) -> None:
        def edit(item: dict[str, Any]) -> None:
            others = [one for one in item["status"]["conditions"] if not one["type"].startswith("PodResize")]
            item["status"]["conditions"] = [*others, *conditions]

        world.cluster.change(PODS, (NAMESPACE, "m1"), edit)

    pending = {"type": "PodResizePending", "status": "True"}
    kubelet(pending | {"reason": "Deferred", "message": "Node didn't have enough resource: memory"})
    await world.until(lambda: world.condition("mine", "Resized").get("reason") == "Deferred", 5)
    assert (
        "The kubelet gives it when other pods of the node have ended" in world.condition("mine", "Resized")["message"]
    )
    assert world.status("mine")["resources"] == {"cpu": "50m", "memory": "256Mi"}
    kubelet(pending | {"reason": "Infeasible", "message": "Node didn't have enough capacity: memory"})
    await world.until(lambda: world.condition("mine", "Resized").get("reason") == "Infeasible", 5)
    assert "its node can never give its pod the size" in world.condition("mine", "Resized")["message"]
    assert world.state("mine") == "Idle"
    writes = world.writes()
    await asyncio.sleep(600)
    assert world.writes() == writes
    # Less is asked for, by updateResource, and the kubelet gives it.
    kubelet({"type": "PodResizeInProgress", "status": "True"})
    await world.until(lambda: not world.condition("mine", "Resized"), 5)
    kubelet({"type": "PodResizeInProgress", "status": "True", "reason": "Error", "message": "cgroup: busy"})
    await world.until(lambda: world.condition("mine", "Resized").get("reason") == "Error", 5)
    assert "cgroup: busy" in world.condition("mine", "Resized")["message"]
    kubelet()
    await world.until(lambda: not world.condition("mine", "Resized"), 5)
    assert "resources" not in world.status("mine")


@pytest.mark.parametrize("asked", [{}, ASKED])
@pytest.mark.parametrize("limit", ["4", "8"])
async def test_the_cpu_limit_of_a_limit_range_is_no_reason_for_a_resize(
    world: World, limit: str, asked: dict[str, str]
) -> None:
    """The engine has no cpu limit of its own, and its own pod would get the same one. It was resized without end."""
    running = await started(world, **(SMALL if asked else {}))
    assert running is not None
    world.cluster.admit_pod = default_limit(limit)
    add_members(world, "m1")
    await asyncio.sleep(1)
    world.create("mine", resources=asked)
    await world.until_state("mine", "Idle", 10)
    assert world.status("mine")["startup"]["kind"] == "warm"
    await asyncio.sleep(5)
    writes = world.writes()
    await asyncio.sleep(60)
    assert world.writes() == writes
    assert world.condition("mine", "Resized") == {}
    (pod,) = world.pods("mine")
    assert pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] == limit
    assert not asked or memory(world) == "4Gi"


async def test_a_resize_that_the_cluster_overrules_is_told_and_tried_ever_more_seldom(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[Any] = []

    def overruled(old: dict[str, Any], patch: Any) -> dict[str, Any]:
        tries.append(patch)
        return copied(old)

    await started(world, **SMALL)
    add_members(world, "m1")
    await asyncio.sleep(1)
    monkeypatch.setattr(world.cluster, "_resize", overruled)
    world.create("mine", resources=ASKED)
    await world.until_state("mine", "Idle", 10)
    await world.until(lambda: "changed nothing" in world.condition("mine", "Resized").get("message", ""), 30)
    begun = len(tries)
    await asyncio.sleep(600)
    # 2, 4, 8, 16, 32 and then 60 s apart, a quarter more or less.
    assert 8 <= len(tries) - begun <= 18


@pytest.mark.parametrize("says_when", [True, False])
@pytest.mark.parametrize(
    ("has", "words"),
    [
        ({"cpu": "50m", "memory": "256Mi"}, "with cpu 50m in place of 2 and memory 256Mi in place of 4Gi: "),
        ({"cpu": "2", "memory": "256Mi"}, "with memory 256Mi in place of 4Gi: "),
    ],
)
async def test_a_resize_that_its_kubelet_does_not_end_is_told_after_a_minute(
    world: World, says_when: bool, has: dict[str, str], words: str
) -> None:
    running = await started(world, **SMALL)
    add_members(world, "m1")
    await asyncio.sleep(1)
    world.create("mine", resources=ASKED)
    await world.until_state("mine", "Idle", 10)
    await world.until(lambda: memory(world) == "4Gi", 10)

    def kubelet(amounts: dict[str, str], *conditions: dict[str, str]) -> None:
        def edit(item: dict[str, Any]) -> None:
            others = [one for one in item["status"]["conditions"] if not one["type"].startswith("PodResize")]
            item["status"]["conditions"] = [*others, *conditions]
            resources = {"requests": amounts, "limits": {"memory": amounts["memory"]}}
            item["status"]["containerStatuses"][0]["resources"] = resources

        world.cluster.change(PODS, (NAMESPACE, "m1"), edit)

    def too_small() -> float | None:
        return running.parts.metrics.registry.get_sample_value("ecm_engines_too_small")

    since = {"lastTransitionTime": timestamp(loop_now())} if says_when else {}
    kubelet(has, {"type": "PodResizeInProgress", "status": "True"} | since)
    await asyncio.sleep(55)
    assert world.condition("mine", "Resized") == {}
    await world.until(lambda: world.condition("mine", "Resized"), 10)
    condition = world.condition("mine", "Resized")
    assert (condition["status"], condition["reason"]) == ("False", "InProgress")
    assert words in condition["message"]
    assert "see the node and the kubelet's log" in condition["message"]
    await world.until(lambda: too_small() == 1, 30)
    writes = world.writes()
    await asyncio.sleep(600)
    assert world.writes() == writes
    # It has the amounts, also before its kubelet takes the condition back.
    kubelet(ASKED, {"type": "PodResizeInProgress", "status": "True"} | since)
    await world.until(lambda: not world.condition("mine", "Resized"), 5)
    await world.until(lambda: too_small() == 0, 30)

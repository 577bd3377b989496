"""An engine that nobody uses gives cpu back in place, and gets it back with its next code: virtual time, killed
operators, lost and refused writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from linkis_ecm.engine.admission.limits import Amount, Limits
from linkis_ecm.engine.matching import CLAIM_ANNOTATION, Claim
from linkis_ecm.kube.resources import ENGINECONNS, PLUGINS, PODS
from tools.testkit.fakes.cluster import loop_now
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime

PAUSE = {"after": "2m", "cpu": "50m"}
# The pause is spread over a tenth of `after`; the look at the pod and the writes take less than a second.
LATEST = 120 + 12 + 3


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


def resources(world: World, name: str = "e") -> dict[str, Any]:
    (pod,) = world.pods(name)
    found: dict[str, Any] = pod["spec"]["containers"][0]["resources"]
    return found


def cpu(world: World, name: str = "e") -> str:
    return str(resources(world, name)["requests"]["cpu"])


def resizes(world: World) -> int:
    return world.server.writes().get(("patch", "pods/resize"), 0)


def paused(world: World, name: str = "e") -> str:
    return str(world.condition(name, "SoftPaused").get("status", ""))


async def begin(world: World, **spec: Any) -> None:
    world.install_plugin(softPause=PAUSE)
    await world.start()
    world.create("e", **spec)
    await world.until_state("e", "Idle")


async def pause(world: World, **spec: Any) -> None:
    await begin(world, **spec)
    await world.until(lambda: cpu(world) == "50m", LATEST)


def change(world: World, **status: Any) -> None:
    """As a kubelet writes the status of the engine's pod; `engine` is of its container."""

    def edit(item: dict[str, Any]) -> None:
        engine, conditions = status.pop("engine", {}), status.pop("conditions", None)
        item["status"] |= status
        item["status"]["containerStatuses"][0] |= engine
        if conditions is not None:
            kept = [one for one in item["status"]["conditions"] if not one["type"].startswith("PodResize")]
            item["status"]["conditions"] = [*kept, *conditions]

    (pod,) = world.pods("e")
    world.cluster.change(PODS, (NAMESPACE, pod["metadata"]["name"]), edit)


def resize_by_hand(world: World, **more: Any) -> None:
    (pod,) = world.pods("e")
    body = {"spec": {"containers": [{"name": "engine", "resources": more}]}}
    world.cluster.patch(PODS, pod["metadata"]["name"], body, namespace=NAMESPACE, subresource="resize")


async def test_an_idle_engine_gives_cpu_back_and_gets_it_with_its_next_code(world: World) -> None:
    await begin(world)
    before, begun = resources(world), world.writes()
    await asyncio.sleep(118)
    assert cpu(world) == "500m"
    assert world.writes() == begun
    await world.until(lambda: cpu(world) == "50m", LATEST - 118)
    await asyncio.sleep(1)
    assert resources(world) == before | {"requests": before["requests"] | {"cpu": "50m"}}
    assert world.writes() - begun == 2, "one of the status, one of the pod"
    assert world.status("e")["softPause"] | {"since": ""} == {"since": "", "cpu": "50m", "fullCpu": "500m"}
    assert (world.state("e"), paused(world)) == ("Idle", "True")
    assert "requests cpu 50m in place of 500m" in world.condition("e", "SoftPaused")["message"]
    await asyncio.sleep(600)
    assert world.writes() - begun == 2
    world.agent("e").become("Busy")
    began = asyncio.get_running_loop().time()
    await world.until(lambda: cpu(world) == "500m", 1)
    assert asyncio.get_running_loop().time() - began < 0.1
    await world.until(lambda: "softPause" not in world.status("e"), 3)
    assert resources(world) == before
    assert (world.state("e"), paused(world)) == ("Busy", "")
    assert world.writes() - begun == 4, "the second status write is that of Busy"
    assert resizes(world) == 2


async def test_a_code_of_a_moment_wakes_it_until_it_was_idle_for_long_again(world: World) -> None:
    await pause(world)
    world.agent("e").become("Busy")
    await asyncio.sleep(0.05)
    world.agent("e").become("Idle", lastTaskEnded=loop_now().timestamp())
    await world.until(lambda: cpu(world) == "500m", 1)
    await asyncio.sleep(110)
    assert cpu(world) == "500m"
    await world.until(lambda: cpu(world) == "50m", LATEST - 110)
    assert resizes(world) == 3


@pytest.mark.parametrize("says", [True, False])
async def test_codes_each_few_seconds_are_no_write(world: World, says: bool) -> None:
    """Also where the agent does not say when the last one ended: the operator's clock counts."""
    await begin(world)
    for _ in range(60):
        world.agent("e").become("Busy")
        await asyncio.sleep(0.5)
        world.agent("e").become("Idle", lastTaskEnded=loop_now().timestamp() if says else 0)
        await asyncio.sleep(5)
    assert resizes(world) == 0


@pytest.mark.parametrize("use", [{"active": "1 download under way"}, {"background": "a thread prints"}])
async def test_a_download_and_a_thread_are_use(world: World, use: dict[str, str]) -> None:
    await begin(world)
    agent = world.agent("e")
    agent.extra = dict(use)
    agent.report()
    await asyncio.sleep(300)
    assert cpu(world) == "500m"
    agent.extra = {}
    agent.report()
    await world.until(lambda: cpu(world) == "50m", LATEST + 45)
    agent.extra = dict(use)
    agent.report()
    await world.until(lambda: cpu(world) == "500m", 45)


async def test_whoever_is_given_the_engine_finds_it_awake(world: World) -> None:
    await pause(world)
    text = Claim("call-1", loop_now() + timedelta(seconds=60)).text()
    claim = {"metadata": {"annotations": {CLAIM_ANNOTATION: text}}}
    world.cluster.patch(ENGINECONNS, "e", claim, namespace=NAMESPACE)
    await world.until(lambda: cpu(world) == "500m", 2)
    await world.until(lambda: cpu(world) == "50m", 120)


async def test_an_engine_that_has_no_more_than_a_paused_one_keeps_it(world: World) -> None:
    await begin(world, resources={"cpu": "50m"})
    await asyncio.sleep(600)
    assert (resizes(world), paused(world)) == (0, "")


async def test_a_guaranteed_engine_stays_guaranteed(world: World) -> None:
    world.install_plugin(softPause=PAUSE)
    await world.start()
    world.create("e", resources={"cpu": "1", "cpuLimit": "1"})
    await world.until_state("e", "Idle")
    await world.until(lambda: cpu(world) == "50m", LATEST)
    assert resources(world)["limits"]["cpu"] == "50m"
    await asyncio.sleep(60)
    assert resizes(world) == 1
    world.agent("e").become("Busy")
    await world.until(lambda: cpu(world) == "1", 1)
    assert resources(world)["limits"]["cpu"] == "1"


async def test_a_limit_above_the_request_stays(world: World) -> None:
    await pause(world, resources={"cpu": "1", "cpuLimit": "2"})
    assert resources(world)["limits"]["cpu"] == "2"


@pytest.mark.parametrize("status", [403, 422, 500, 0])
async def test_cpu_that_is_refused_is_said_tried_again_and_ends_nothing(world: World, status: int) -> None:
    await pause(world)
    fault = Fault(verb="patch", resource=PODS, subresource="resize", times=None, status=status)
    fault.reset = "" if status else "before"
    world.server.faults.add(fault)
    before = resizes(world)
    world.agent("e").become("Busy")
    await world.until(lambda: world.condition("e", "Resized"), 60)
    message = world.condition("e", "Resized")["message"]
    assert "runs with cpu 50m in place of 500m" in message
    assert "stop other engines" in message
    assert world.state("e") == "Busy"
    assert paused(world) == ""
    await asyncio.sleep(600)
    # 15 tries; what gets no answer the client itself sends up to 5 times.
    assert 10 <= resizes(world) - before <= 5 * 16
    world.server.faults.clear()
    await world.until(lambda: cpu(world) == "500m", 80)
    await world.until(lambda: not world.condition("e", "Resized"), 5)
    assert "softPause" not in world.status("e")


async def test_a_pause_that_a_limit_range_refuses_is_said_and_tried_rarely(world: World) -> None:
    world.server.faults.add(Fault(verb="patch", resource=PODS, subresource="resize", status=403, times=1000))
    await begin(world)
    await world.until(lambda: paused(world) == "False", LATEST + 5)
    assert "LimitRange" in world.condition("e", "SoftPaused")["message"]
    before = resizes(world)
    await asyncio.sleep(3600)
    assert resizes(world) - before <= 12
    assert (cpu(world), world.condition("e", "Resized")) == ("500m", {})


async def test_a_kubelet_that_makes_no_pod_smaller_is_said(world: World) -> None:
    await pause(world)
    reason = {"reason": "Infeasible", "message": "the CPU manager is static"}
    change(world, conditions=[{"type": "PodResizePending", "status": "True"} | reason])
    await world.until(lambda: paused(world) == "False", 5)
    assert "the CPU manager is static" in world.condition("e", "SoftPaused")["message"]
    writes = world.writes()
    await asyncio.sleep(600)
    assert (world.writes() - writes, world.condition("e", "Resized")) == (0, {})


async def test_a_node_without_room_is_said_until_its_kubelet_gives_the_cpu(world: World) -> None:
    await pause(world)
    world.agent("e").become("Busy")
    pending = {"type": "PodResizePending", "status": "True", "reason": "Deferred", "message": "Node had not enough"}
    change(world, conditions=[pending])
    await world.until(lambda: world.condition("e", "Resized"), 5)
    assert "Deferred: Node had not enough" in world.condition("e", "Resized")["message"]
    assert world.status("e")["softPause"]["fullCpu"] == "500m"
    writes = world.writes()
    await asyncio.sleep(300)
    assert world.writes() - writes <= 1
    change(world, conditions=[])
    await world.until(lambda: not world.condition("e", "Resized"), 5)
    assert "softPause" not in world.status("e")


async def test_an_idle_engine_gives_back_what_it_still_waits_for(world: World) -> None:
    await pause(world)
    world.agent("e").become("Busy")
    change(world, conditions=[{"type": "PodResizePending", "status": "True", "reason": "Deferred", "message": "full"}])
    await asyncio.sleep(5)
    world.agent("e").become("Idle", lastTaskEnded=loop_now().timestamp())
    await world.until(lambda: cpu(world) == "50m", LATEST + 30)
    change(world, conditions=[])
    await world.until(lambda: (world.condition("e", "Resized"), paused(world)) == ({}, "True"), 5)


async def test_a_resize_under_way_is_not_paused(world: World) -> None:
    await begin(world)
    has = resources(world)
    smaller = {"requests": has["requests"] | {"cpu": "100m"}, "limits": has["limits"]}
    change(world, engine={"resources": smaller})
    await asyncio.sleep(300)
    assert resizes(world) == 0
    change(world, engine={"resources": has})
    await world.until(lambda: cpu(world) == "50m", 40)


async def test_a_paused_engine_that_was_resized_gets_its_new_size_back(world: World) -> None:
    await pause(world)
    # As updateResource does: the pod, then the resource.
    resize_by_hand(world, requests={"cpu": "2", "memory": "2Gi"}, limits={"memory": "2Gi"})
    world.edit("e", resources={"cpu": "2", "memory": "2Gi"})
    await world.until(lambda: cpu(world) == "50m", 40)
    assert world.status("e")["softPause"]["fullCpu"] == "2"
    assert resources(world)["limits"]["memory"] == "2Gi"
    world.agent("e").become("Busy")
    await world.until(lambda: cpu(world) == "2", 2)
    await world.until(lambda: "softPause" not in world.status("e"), 5)
    assert world.condition("e", "SpecPending") == {}


async def test_a_spec_that_is_edited_while_paused_gives_no_more_cpu(world: World) -> None:
    await pause(world)
    world.edit("e", resources={"cpu": "4"})
    await world.until(lambda: world.condition("e", "SpecPending"), 5)
    world.agent("e").become("Busy")
    await world.until(lambda: cpu(world) == "500m", 2)
    assert "spec.resources" in world.condition("e", "SpecPending")["message"]


async def test_limits_of_people_count_what_it_gets_back(world: World) -> None:
    world.limits = Limits(user=Amount(cpu_milli=900))
    await pause(world)
    world.create("f")
    await world.until(lambda: world.status("f").get("reason") == "LimitReached", 5)
    assert "resources" not in world.status("e")
    world.agent("e").become("Busy")
    await world.until(lambda: cpu(world) == "500m", 2)


async def test_a_plugin_without_the_pause_or_that_is_gone_gives_the_cpu_back(world: World) -> None:
    await pause(world)
    world.cluster.patch(PLUGINS, "python-3.11", {"spec": {"softPause": None}})
    await world.until(lambda: cpu(world) == "500m", 5)
    world.cluster.patch(PLUGINS, "python-3.11", {"spec": {"softPause": PAUSE}})
    await world.until(lambda: cpu(world) == "50m", 40)
    world.cluster.delete(PLUGINS, "python-3.11")
    await world.until(lambda: cpu(world) == "500m", 5)


async def test_a_new_operator_wakes_nobody_and_pauses_again_nobody(world: World) -> None:
    await pause(world)
    await asyncio.sleep(1)
    before = world.writes()
    await world.crash(world.operators[0])
    await asyncio.sleep(60)
    await world.start("two")
    await asyncio.sleep(200)
    assert (cpu(world), paused(world)) == ("50m", "True")
    assert world.writes() - before <= 1, "its own acceptance at most"
    world.agent("e").become("Busy")
    await world.until(lambda: cpu(world) == "500m", 2)


async def test_whatever_an_operator_dies_of_the_engine_has_the_right_size_in_the_end(world: World) -> None:
    """It is killed after each of its writes in turn, with and without the answer."""
    await begin(world)
    for step in range(8):
        busy = step % 2 == 1
        agent = world.agent("e")
        agent.become("Busy" if busy else "Idle", **({} if busy else {"lastTaskEnded": loop_now().timestamp()}))
        if step % 4 < 2:
            world.server.faults.add(Fault(verb="patch", resource=PODS, subresource="resize", reset="after", times=1))
        writes = world.writes()
        await world.until(lambda writes=writes: world.writes() > writes, LATEST)
        await world.crash(world.operators[0])
        await asyncio.sleep(20)
        await world.start(f"op-{step}")
        # A new operator takes the Lease of a dead one, then looks at the engine from `after` on.
        wanted = "500m" if busy else "50m"
        await world.until(lambda wanted=wanted: cpu(world) == wanted, LATEST + 60)
        await asyncio.sleep(10)
        assert ("softPause" in world.status("e")) is not busy
        assert world.state("e") == ("Busy" if busy else "Idle")


async def test_a_pod_that_changed_meanwhile_is_looked_at_first(world: World) -> None:
    await pause(world)
    world.server.faults.add(Fault(verb="patch", resource=PODS, subresource="resize", status=409, times=3))
    world.agent("e").become("Busy")
    await world.until(lambda: cpu(world) == "500m", 10)
    assert world.condition("e", "Resized") == {}


async def test_a_hundred_idle_engines_are_paused_one_after_the_other(world: World) -> None:
    world.install_plugin(softPause=PAUSE)
    await world.start()
    for number in range(100):
        world.create(f"e{number}")
    await world.until(lambda: all(world.state(f"e{number}") == "Idle" for number in range(100)))
    await asyncio.sleep(110)
    seen, most = 0, 0
    for _ in range(60):
        await asyncio.sleep(0.5)
        now = resizes(world)
        most, seen = max(most, now - seen), now
    assert seen == 100
    assert most <= 15, "they are spread over 12 s"
    assert world.server.writes()[("patch", "pods/resize")] == 100


async def test_an_engine_that_ends_or_starts_anew_has_no_record(world: World) -> None:
    await pause(world, restartPolicy={"type": "OnFailure", "maxAttempts": 2})
    (pod,) = world.pods("e")
    world.exit_pod(pod, 1)
    await world.until(lambda: world.status("e").get("attempt") == 1 and world.state("e") == "Idle", 60)
    assert "softPause" not in world.status("e")
    assert cpu(world) == "500m"
    await world.until(lambda: cpu(world) == "50m", LATEST)
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success", 60)
    assert "softPause" not in world.status("e")
    assert paused(world) == ""


async def test_a_silent_agent_changes_nothing(world: World) -> None:
    world.install_plugin(softPause=PAUSE | {"after": "1m"})
    await world.start()
    world.create("e")
    await world.until_state("e", "Idle")
    await asyncio.sleep(32)
    world.slow["e"] = 3600.0
    world.agent("e").end()
    await asyncio.sleep(55)
    assert (resizes(world), world.state("e"), paused(world)) == (0, "Idle", "")


async def test_an_update_to_exactly_the_paused_size_stays(world: World) -> None:
    """updateResource changes nothing of the pod then: the spec alone says that it was asked for."""
    await pause(world, resources={"cpu": "1", "memory": "1Gi"})
    assert world.status("e")["softPause"]["specCpu"] == "1"
    resize_by_hand(world, requests={"cpu": "50m"})
    world.edit("e", resources={"cpu": "0.05", "memory": "1Gi"})
    await world.until(lambda: "softPause" not in world.status("e"), 5)
    count = resizes(world)
    world.agent("e").become("Busy")
    await asyncio.sleep(60)
    assert (cpu(world), resizes(world)) == ("50m", count)
    world.agent("e").become("Idle")
    await asyncio.sleep(LATEST + 60)
    assert (cpu(world), resizes(world), paused(world)) == ("50m", count, "")


async def test_a_spec_with_the_paused_size_from_before_the_pause_gets_its_cpu_back(world: World) -> None:
    await begin(world)
    world.edit("e", resources={"cpu": "50m"})
    await world.until(lambda: cpu(world) == "50m", LATEST)
    world.edit("e", idleTimeout="2h")
    world.agent("e").become("Busy")
    await world.until(lambda: cpu(world) == "500m", 2)


async def test_how_long_waking_takes_is_measured_until_the_kubelet_has_given_the_cpu(world: World) -> None:
    await pause(world)

    def figure(name: str) -> float:
        registry = world.operators[0].parts.metrics.registry
        return registry.get_sample_value(f"ecm_soft_pause_wake_seconds_{name}") or 0.0

    world.agent("e").become("Busy")
    change(world, conditions=[{"type": "PodResizePending", "status": "True", "reason": "Deferred", "message": "full"}])
    await asyncio.sleep(7)
    assert figure("count") == 0
    change(world, conditions=[])
    await world.until(lambda: figure("count") == 1, 2)
    assert 7 <= figure("sum") < 7.5
    await asyncio.sleep(300)
    assert figure("count") == 1
    # Nobody waits for a pause that ends before its pod was made small.
    world.agent("e").become("Idle", lastTaskEnded=loop_now().timestamp())
    await world.until(lambda: cpu(world) == "50m", LATEST)
    world.agent("e").become("Busy")
    await world.until(lambda: figure("count") == 2, 5)
    assert figure("sum") < 8


def limit_range(cpu: str) -> Callable[[dict[str, Any]], None]:
    """What a LimitRange that is younger than the pod does to a resize."""

    def admit(pod: dict[str, Any]) -> None:
        for container in pod["spec"]["containers"]:
            container["resources"]["limits"].setdefault("cpu", cpu)

    return admit


async def test_a_cpu_limit_that_comes_with_the_pause_takes_no_cpu_from_the_engine(world: World) -> None:
    await begin(world)
    world.cluster.admit_resize = limit_range("2")
    await world.until(lambda: cpu(world) == "50m", LATEST)
    await world.until(lambda: paused(world) == "True", 5)
    assert resources(world)["limits"]["cpu"] == "2"
    await asyncio.sleep(300)
    assert (resizes(world), paused(world)) == (1, "True")
    world.agent("e").become("Busy")
    await world.until(lambda: cpu(world) == "500m", 1)
    await world.until(lambda: "softPause" not in world.status("e"), 5)
    assert resizes(world) == 2


async def test_a_cpu_limit_below_what_it_gets_back_is_told_and_not_tried(world: World) -> None:
    await begin(world)
    world.cluster.admit_resize = limit_range("400m")
    await world.until(lambda: cpu(world) == "50m", LATEST)
    world.agent("e").become("Busy")
    await world.until(lambda: world.condition("e", "Resized"), 5)
    message = world.condition("e", "Resized")["message"]
    assert "its pod can never have that again, and nobody tries it (cpu 500m is over the cpu limit 400m" in message
    assert "Ask for less with updateResource" in message
    await asyncio.sleep(300)
    assert resizes(world) == 1
    # As updateResource does: the pod, then the resource.
    resize_by_hand(world, requests={"cpu": "300m"})
    world.edit("e", resources={"cpu": "300m"})
    await world.until(lambda: not world.condition("e", "Resized"), 60)
    assert cpu(world) == "300m"
    assert "softPause" not in world.status("e")

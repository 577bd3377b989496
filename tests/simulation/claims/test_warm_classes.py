"""A pod of a warm pool whose size a LimitRange has fixed: Kubernetes never changes a pod's quality of service."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from linkis_ecm.engine.admission.limits import Amount, Limits
from linkis_ecm.kube.resources import PLUGINS, PODS
from tests.simulation.claims.test_warm_claims import SMALL, started
from tests.simulation.claims.test_warm_sizes import ASKED, default_limit, memory
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.members import (
    PLUGIN,
    MemberAgent,
    add_members,
    claim_of,
    members_left,
)
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime


def startup(world: World) -> dict[str, str]:
    found: dict[str, str] = world.status("mine")["startup"]
    return {name: text for name, text in found.items() if name in ("kind", "coldReason")}


def resizes(world: World) -> int:
    return world.server.writes().get(("patch", "pods/resize"), 0)


async def run_beside_a_member(world: World, small: bool, limit: str, asked: dict[str, str]) -> None:
    """An engine starts where a LimitRange has given the one member a cpu limit."""
    await started(world, **(SMALL if small else {}))
    world.cluster.admit_pod = default_limit(limit)
    add_members(world, "m1")
    await asyncio.sleep(1)
    world.create("mine", resources=asked)
    await world.until_state("mine", "Idle", 10)


COLD = {"kind": "cold", "coldReason": "Misfit"}


@pytest.mark.parametrize(
    ("small", "limit", "asked", "words"),
    [
        # A member of 50m; the engine would become Guaranteed, or is over the limit.
        (True, "2", ASKED, "with cpu 2 and the cpu limit 2 its pod would be Guaranteed in place of Burstable"),
        (True, "2000m", {"cpu": "2"}, "would be Guaranteed"),
        (True, "500m", {}, "with cpu 500m and the cpu limit 500m"),
        (True, "2", {"cpu": "3"}, "cpu 3 is over the cpu limit 2 that its pod has"),
        (True, "4", {"cpu": "2", "cpuLimit": "2"}, "would be Guaranteed"),
        # A member that the LimitRange has made Guaranteed; the engine would be Burstable.
        (False, "500m", {"cpu": "250m"}, "with cpu 250m and the cpu limit 500m its pod would be Burstable in place of"),
        (False, "500m", {"cpu": "1"}, "cpu 1 is over the cpu limit 500m"),
        (False, "500m", {"cpuLimit": "1"}, "would be Burstable"),
    ],
)
async def test_an_engine_whose_size_the_member_can_never_have_starts_cold_and_says_why(
    world: World, small: bool, limit: str, asked: dict[str, str], words: str
) -> None:
    await run_beside_a_member(world, small, limit, asked)
    assert startup(world) == COLD
    said = world.status("mine")["startup"]["coldBecause"]
    assert said.startswith("A pod that runs already cannot be given what the engine asks for: spec.resources (")
    assert words in said
    assert members_left(world) == ["m1"]
    assert resizes(world) == 0
    assert world.condition("mine", "Resized") == {}


@pytest.mark.parametrize(
    ("small", "limit", "asked"),
    [
        (True, "4", ASKED),
        (True, "2", {"cpu": "1999m"}),
        (True, "2", ASKED | {"cpuLimit": "3"}),
        # All of a Guaranteed member's amounts, or its memory alone.
        (False, "500m", {"memory": "4Gi"}),
        (False, "500m", {"cpu": "1", "cpuLimit": "1"}),
        (False, "500m", {}),
    ],
)
async def test_an_engine_that_keeps_the_members_class_has_its_size_warm(
    world: World, small: bool, limit: str, asked: dict[str, str]
) -> None:
    await run_beside_a_member(world, small, limit, asked)
    assert startup(world) == {"kind": "warm"}
    assert world.condition("mine", "Resized") == {}
    assert memory(world) == asked.get("memory", "1Gi")


@pytest.mark.parametrize("part", ["containers", "initContainers"])
async def test_a_container_beside_the_engine_that_is_not_fixed_keeps_the_class(world: World, part: str) -> None:
    """As an admission webhook puts one in: the template does not know it."""

    def admit(pod: dict[str, Any]) -> None:
        default_limit("2")(pod)
        beside = {"name": "mesh", "image": "mesh:1", "resources": {"requests": {"cpu": "10m"}}}
        pod["spec"][part] = [*(pod["spec"].get(part) or []), beside]

    await started(world, **SMALL)
    world.cluster.admit_pod = admit
    add_members(world, "m1")
    await asyncio.sleep(1)
    world.create("mine", resources=ASKED)
    await world.until_state("mine", "Idle", 10)
    assert startup(world) == {"kind": "warm"}
    assert (memory(world), resizes(world)) == ("4Gi", 1)


@pytest.mark.parametrize("latency", [0, 0.5])
async def test_what_the_api_server_alone_knows_is_a_cold_start_too(world: World, latency: float) -> None:
    """The LimitRange is younger than the member: the resize brings its cpu limit. No code has run in it yet."""
    await started(world, **SMALL)
    add_members(world, "m1")
    await asyncio.sleep(1)
    world.cluster.admit_resize = world.cluster.admit_pod = default_limit("2")
    if latency:
        world.server.faults.add(Fault(verb="patch", resource=PODS, subresource="resize", latency=latency))
    world.create("mine", resources=ASKED)
    await world.until_state("mine", "Idle", 10)
    assert startup(world) == COLD
    assert "Pod QOS Class may not change" in world.status("mine")["startup"]["coldBecause"]
    assert members_left(world) == []
    assert memory(world) == "4Gi"
    assert world.condition("mine", "Resized") == {}
    assert resizes(world) <= 1
    await asyncio.sleep(120)
    assert world.state("mine") == "Idle"
    assert len(world.pods("mine")) == 1


def refused(world: World, message: str, status: int = 422) -> Fault:
    fault = Fault(
        verb="patch", resource=PODS, subresource="resize", status=status, times=None, message=message
    )  # fmt: skip
    world.server.faults.add(fault)
    return fault


NO_LESS = "spec.containers[0].resources.limits: Forbidden: memory limits cannot be decreased"


async def test_one_claim_finds_out_what_the_api_server_refuses_and_not_each(world: World) -> None:
    """As before Kubernetes 1.34, which takes no memory away. It would burn the pool."""
    await started(world)
    add_members(world, "m1", "m2", "m3")
    await asyncio.sleep(1)
    fault = refused(world, NO_LESS)
    for name in ("mine", "second", "third"):
        world.create(name, resources={"memory": "512Mi"})
        await world.until_state(name, "Idle", 10)
        assert world.status(name)["startup"]["coldReason"] == "Misfit"
        assert "memory limits cannot be decreased" in world.status(name)["startup"]["coldBecause"]
    assert fault.played == 1
    assert members_left(world) == ["m2", "m3"]
    # Any other size is asked for, and after a while the same again.
    world.server.faults.clear()
    world.create("larger", resources={"memory": "2Gi"})
    await world.until_state("larger", "Idle", 10)
    assert world.status("larger")["startup"]["kind"] == "warm"
    await asyncio.sleep(600)
    world.create("later", resources={"memory": "512Mi"})
    await world.until_state("later", "Idle", 10)
    assert world.status("later")["startup"]["kind"] == "warm"


@pytest.mark.parametrize(
    "message",
    [
        "maximum cpu usage per Container is 1, but limit is 2",
        "minimum memory usage per Pod is 2Gi, but request is 1Gi",
        "memory max limit to request ratio per Container is 2, but provided ratio is 4.000000",
    ],
)
async def test_what_a_limit_range_refuses_is_told_as_of_a_cold_pod(world: World, message: str) -> None:
    await started(world, **SMALL)
    add_members(world, "m1", "m2")
    await asyncio.sleep(1)
    said = f'pods "m1" is forbidden: {message}'
    fault = refused(world, said, 403)
    world.server.faults.add(Fault(verb="create", resource=PODS, status=403, times=None, message=said))
    world.create("mine", resources=ASKED)
    await world.until(lambda: world.status("mine").get("reason") == "LimitRangeExceeded", 10)
    assert "or have the LimitRange changed" in world.status("mine")["message"]
    assert (fault.played, members_left(world)) == (1, ["m2"])


@pytest.mark.parametrize(
    ("bound", "first", "beyond", "within"),
    [
        ("minimum cpu usage per Container is 200m, but request is {}", {"cpu": "100m"}, {"cpu": "0.15"}, {"cpu": "1"}),
        ("maximum cpu usage per Container is 1, but limit is {}", {"cpuLimit": "3"}, {"cpu": "1500m"}, {"cpu": "1"}),
        (
            "[minimum cpu usage per Container is 1m, but request is 0, minimum memory usage per Container is 512Mi, but"
            " request is {}]",
            {"memory": "300Mi"},
            {"memory": "511Mi"},
            {"memory": "512Mi"},
        ),
        ("maximum memory usage per Container is 2Gi.  No limit is specified", ASKED, {"memory": "3Gi"}, {}),
    ],
)
async def test_a_bound_of_a_limit_range_costs_one_member_and_not_one_for_each_size(
    world: World, bound: str, first: dict[str, str], beyond: dict[str, str], within: dict[str, str]
) -> None:
    await started(world, **SMALL)
    add_members(world, "m1", "m2", "m3")
    await asyncio.sleep(1)
    fault = refused(world, f'pods "m1" is forbidden: {bound.format("x")}', 403)
    world.create("mine", resources=first)
    await world.until_state("mine", "Idle", 10)
    assert (startup(world), members_left(world), fault.played) == (COLD, ["m2", "m3"], 1)
    world.server.faults.clear()
    world.create("other", resources=beyond)
    await world.until_state("other", "Idle", 10)
    assert world.status("other")["startup"]["coldReason"] == "Misfit"
    assert members_left(world) == ["m2", "m3"]
    # One within it, and one of just the members' size, take theirs.
    world.create("small", user="a", resources={"cpu": "50m", "memory": "256Mi"})
    await world.until_state("small", "Idle", 10)
    world.create("inside", user="b", resources=within)
    await world.until_state("inside", "Idle", 10)
    assert {world.status(name)["startup"]["kind"] for name in ("small", "inside")} == {"warm"}


async def test_a_spec_that_no_resize_gives_any_more_is_told_and_not_tried(world: World) -> None:
    await started(world, **SMALL)
    world.cluster.admit_pod = default_limit("4")
    add_members(world, "m1")
    await asyncio.sleep(1)
    fault = Fault(verb="patch", resource=PODS, subresource="resize", status=403, times=None, message="no room")
    world.server.faults.add(fault)
    world.create("mine", resources=ASKED)
    await world.until_state("mine", "Idle", 10)
    assert startup(world) == {"kind": "warm"}
    world.edit("mine", resources={"cpu": "4", "memory": "4Gi"})
    await world.until(lambda: "nobody tries that" in world.condition("mine", "Resized")["message"], 5)
    assert "would be Guaranteed in place of Burstable" in world.condition("mine", "Resized")["message"]
    tried = fault.played
    world.server.faults.clear()
    await asyncio.sleep(600)
    assert fault.played == tried
    world.edit("mine", resources=ASKED)
    await world.until(lambda: memory(world) == "4Gi", 10)
    await world.until(lambda: not world.condition("mine", "Resized"), 5)


async def test_an_engine_that_keeps_more_than_it_asks_for_is_told_so_and_counts_with_it(world: World) -> None:
    world.limits = Limits(user=Amount(cpu_milli=1000))
    running = await started(world)
    add_members(world, "m1")
    await asyncio.sleep(1)
    world.create("mine", resources={"cpu": "100m", "memory": "512Mi"})
    await world.until_state("mine", "Idle", 10)

    def kubelet(item: dict[str, Any]) -> None:
        why = "Resize is infeasible for Guaranteed Pods alongside CPU Manager static policy"
        pending = {"type": "PodResizePending", "status": "True", "reason": "Infeasible", "message": why}
        item["status"]["conditions"] = [*item["status"]["conditions"], pending]
        amounts = {"cpu": "900m", "memory": "1Gi"}
        item["status"]["containerStatuses"][0]["resources"] = {"requests": amounts, "limits": {"memory": "1Gi"}}

    world.cluster.change(PODS, (NAMESPACE, "m1"), kubelet)
    await world.until(lambda: world.condition("mine", "Resized"), 5)
    condition = world.condition("mine", "Resized")
    assert condition["reason"] == "LargerThanAsked"
    assert "runs with cpu 500m and memory 1Gi, and asks for cpu 100m and memory 512Mi" in condition["message"]
    assert "It lacks nothing" in condition["message"]
    assert "static policy" in condition["message"]
    # Nothing is too small, so no alert of it.
    assert running.parts.metrics.registry.get_sample_value("ecm_engines_too_small") == 0
    # What the node has not got back is nobody else's: 900m of 1.
    world.create("other", resources={"cpu": "200m"})
    await world.until(lambda: world.status("other").get("reason") == "LimitReached", 30)
    world.cluster.change(
        PODS, (NAMESPACE, "m1"), lambda item: item["status"].update(containerStatuses=[], conditions=[])
    )
    await world.until(lambda: not world.condition("mine", "Resized"), 5)


async def test_a_pool_whose_pods_fit_no_engine_of_the_default_says_so() -> None:
    made = World()
    made.agent_type, made.answer_claim = MemberAgent, partial(claim_of, made)
    made.cluster.admit_pod = default_limit("500m")
    try:
        made.install_plugin(warmPool={"size": 2, "cap": 4, "namespaces": [NAMESPACE]} | SMALL["warmPool"])
        await made.start()

        def condition() -> dict[str, Any]:
            found: list[dict[str, Any]] = (made.cluster.get(PLUGINS, PLUGIN).get("status") or {}).get(
                "conditions"
            ) or []
            return next((one for one in found if one["type"] == "WarmPoolReady"), {})

        await made.until(lambda: condition().get("reason") == "SizeFixed", 30)
        assert condition()["status"] == "False"
        assert "With cpu 500m and the cpu limit 500m" in condition()["message"]
        assert "Set defaultResources.cpuLimit" in condition()["message"]
        # The remedy that it names.
        default = {"cpu": "500m", "cpuLimit": "500m", "memory": "1Gi"}
        made.cluster.patch(PLUGINS, PLUGIN, {"spec": {"defaultResources": default}})
        await made.until(lambda: condition().get("reason") == "Filled", 120)
        made.create("mine")
        await made.until_state("mine", "Idle", 10)
        assert made.status("mine")["startup"]["kind"] == "warm"
        assert made.condition("mine", "Resized") == {}
    finally:
        await made.close()

"""An engine takes a pod of a warm pool: two writes, no second pod, whatever fails or dies in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from linkis_ecm.engine.admission.limits import parse_limits
from linkis_ecm.engine.names import CLAIMED_ANNOTATION
from linkis_ecm.kube.resources import ENGINECONNS, PLUGINS, PODS
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.members import AnyPool, add_members, members_left
from tools.testkit.simulation.world import NAMESPACE, Running, World

pytestmark = pytest.mark.looptime

WARM = {"warmPool": {"size": 2}}
SMALL = {"warmPool": {"size": 2, "resources": {"cpu": "50m", "memory": "256Mi"}}}


async def started(world: World, **plugin: Any) -> Running:
    """An operator whose pool has what `add_members` makes."""
    if not world.cluster.all(PLUGINS):
        world.install_plugin(**(plugin or WARM))
    running = await world.start(pool=AnyPool(world))
    await world.until(running.parts.reconciler.leading.is_set)
    await asyncio.sleep(1)
    return running


async def test_a_warm_start_is_two_writes(world: World) -> None:
    await started(world)
    (agent,) = add_members(world, "m1")
    await asyncio.sleep(1)
    writes, since = world.writes(), len(world.server.log)
    begun = asyncio.get_running_loop().time()
    uid = world.create("mine", env=[{"name": "A", "value": "costs $5"}], workingDir="/tmp/work")
    await world.until_state("mine", "Idle", 5)
    assert asyncio.get_running_loop().time() - begun < 0.2
    assert world.writes() - writes == 2
    assert world.server.writes(since=since)[("patch", "pods")] == 1
    status = world.status("mine")
    assert status["podName"] == "m1"
    assert status["address"] == "10.0.0.1:9105"
    assert status["agentKey"]["podUid"] == agent.pod["metadata"]["uid"]
    assert status["startup"]["kind"] == "warm"
    assert set(status["startup"]) == {"kind", "accepted", "claimed", "ready"}
    assert status["startup"]["accepted"] <= status["startup"]["claimed"] <= status["startup"]["ready"]
    given = agent.claims_taken[0]
    assert given["ECM_ENV_A"] == "costs $5"
    assert (given["ECM_NAME"], given["ECM_UID"], given["ECM_WORK_DIR"]) == ("mine", uid, "/tmp/work")
    # The pod is the engine's in all that anybody looks at.
    (pod,) = world.pods("mine")
    assert pod["metadata"]["ownerReferences"][0]["uid"] == uid
    assert pod["metadata"]["labels"]["linkis.apache.org/user"] == "hadoop"
    assert pod["metadata"]["annotations"][CLAIMED_ANNOTATION] == "0"
    assert members_left(world) == []
    assert world.pods_made == []
    # It lives on like any other: reports, tasks, a stop.
    await asyncio.sleep(60)
    assert world.state("mine") == "Idle"
    assert world.writes() - writes == 2
    agent.become("Busy")
    await world.until_state("mine", "Busy")
    agent.become("Idle")
    world.edit("mine", desiredState="Stopped")
    await world.until_state("mine", "Success")
    row = world.row("mine")
    assert row is not None
    assert row.request_times == row.used_times == 1


async def test_the_row_of_a_warm_start_is_that_of_a_cold_one(world: World) -> None:
    await started(world)
    add_members(world, "m1")
    await asyncio.sleep(1)
    world.create("warm")
    await world.until_state("warm", "Idle")
    world.create("cold")
    await world.until_state("cold", "Idle")
    await asyncio.sleep(2)
    rows = {name: world.row(name) for name in ("warm", "cold")}
    assert rows["warm"] is not None
    assert rows["cold"] is not None
    for field in ("label_value", "status", "ecm_instance", "request_resource", "request_times", "used_times", "reason"):
        assert getattr(rows["warm"], field) == getattr(rows["cold"], field)
    assert world.status("cold")["startup"]["coldBecause"] == (
        "The warm pool of python-3.11 had no pod ready in namespace engines."
    )
    assert world.status("warm").get("attempt") == 0


async def test_a_resize_is_the_third_write(world: World) -> None:
    await started(world, **SMALL)
    add_members(world, "m1")
    await asyncio.sleep(1)
    writes, since = world.writes(), len(world.server.log)
    world.create("mine", resources={"cpu": "2", "memory": "4Gi"})
    await world.until_state("mine", "Idle", 5)
    assert world.writes() - writes == 3
    assert world.server.writes(since=since)[("patch", "pods/resize")] == 1
    (pod,) = world.pods("mine")
    resources = pod["spec"]["containers"][0]["resources"]
    assert (resources["requests"]["cpu"], resources["limits"]["memory"]) == ("2", "4Gi")
    assert "ephemeral-storage" in resources["limits"]
    await asyncio.sleep(5)
    assert world.condition("mine", "SpecPending") == {}
    assert world.condition("mine", "Resized") == {}
    assert "resources" not in world.status("mine")


async def test_a_cluster_that_resizes_no_pods_gives_a_cold_start_of_full_size(world: World) -> None:
    await started(world, **SMALL)
    add_members(world, "m1", "m2")
    world.cluster.resizes = False
    await asyncio.sleep(1)
    world.create("mine")
    await world.until_state("mine", "Idle", 5)
    assert world.status("mine")["startup"]["kind"] == "cold"
    assert "Kubernetes 1.33" in world.status("mine")["startup"]["coldBecause"]
    (pod,) = world.pods("mine")
    assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] == "1Gi"
    # The next one is not tried, and one of the pool's own size has a pod of the pool.
    world.create("second")
    await world.until_state("second", "Idle", 5)
    assert world.status("second")["startup"]["coldReason"] == "Misfit"
    world.create("small", resources={"cpu": "50m", "memory": "256Mi"})
    await world.until_state("small", "Idle", 5)
    assert world.status("small")["startup"]["kind"] == "warm"


async def test_a_node_without_room_for_the_size_is_said_when_the_kubelet_says_it(world: World) -> None:
    await started(world, **SMALL)
    add_members(world, "m1")
    await asyncio.sleep(1)
    world.create("mine")
    await world.until_state("mine", "Idle", 5)

    def infeasible(item: dict[str, Any]) -> None:
        item["status"]["conditions"].append({
            "type": "PodResizePending", "status": "True", "reason": "Infeasible", "message": "Node didn't have enough"
        })  # fmt: skip

    world.cluster.change(PODS, (NAMESPACE, "m1"), infeasible)
    await world.until(lambda: world.condition("mine", "Resized"), 5)
    assert "Infeasible: Node didn't have enough" in world.condition("mine", "Resized")["message"]
    assert world.state("mine") == "Idle"

    def fits(item: dict[str, Any]) -> None:
        item["status"]["conditions"].pop()

    world.cluster.change(PODS, (NAMESPACE, "m1"), fits)
    await world.until(lambda: not world.condition("mine", "Resized"), 5)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"stopGrace": "5m"}, "spec.stopGrace"),
        ({"env": [{"name": "OMP_NUM_THREADS", "value": "4"}]}, "spec.env OMP_NUM_THREADS"),
        ({"volumes": [{"name": "d", "mountPath": "/data", "emptyDir": {}}], "stopGrace": "5m"},
         "spec.stopGrace, spec.volumes"),
    ],
)  # fmt: skip
async def test_what_does_not_fit_starts_cold_and_names_the_field(world: World, spec: Any, field: str) -> None:
    await started(world)
    add_members(world, "m1")
    await asyncio.sleep(1)
    world.create("mine", **spec)
    await world.until_state("mine", "Idle", 5)
    startup = world.status("mine")["startup"]
    assert startup["kind"] == "cold"
    assert startup["coldBecause"] == f"A pod that runs already cannot be given what the engine asks for: {field}."
    assert members_left(world) == ["m1"]


async def test_an_engine_whose_plugin_has_no_pool_says_nothing_of_one(world: World) -> None:
    await started(world, warmPool={"size": 0})
    world.create("mine")
    await world.until_state("mine", "Idle", 5)
    assert world.status("mine")["startup"]["kind"] == "cold"
    assert "coldBecause" not in world.status("mine")["startup"]


@pytest.mark.parametrize("at_claim", ["refuse", "hang", "lose", "die"])
async def test_a_member_that_fails_at_the_claim_costs_a_cold_start_and_no_attempt(
    world: World, at_claim: str
) -> None:  # fmt: skip
    await started(world)
    add_members(world, "m1", at_claim=at_claim)
    await asyncio.sleep(1)
    most = watch_pods(world)
    world.create("mine")
    await world.until_state("mine", "Idle", 10)
    status = world.status("mine")
    assert status["startup"]["kind"] == "cold"
    assert status["startup"]["coldBecause"].startswith("The ")
    assert status["attempt"] == 0
    assert "lastEnd" not in status
    assert most == {"mine": 1}
    row = world.row("mine")
    assert row is not None
    assert row.request_times == 1
    assert [pod["metadata"]["name"] for pod in world.pods("mine")] == [status["podName"]] != ["m1"]
    assert members_left(world) == []


async def test_the_times_of_a_start_are_those_of_the_pod_that_stays(world: World) -> None:
    """The claim hangs for 2 s, so the discarded pod had its node and container 2 s before the one that is made."""
    await started(world)
    add_members(world, "m1", at_claim="hang")
    await asyncio.sleep(1)
    world.create("mine")
    await world.until_state("mine", "Idle", 10)
    times = world.status("mine")["startup"]
    made = world.pods("mine")[0]["metadata"]["creationTimestamp"]
    assert "claimed" not in times
    # The pod's own time has whole seconds.
    assert times["accepted"] < made[:19] <= times["scheduled"][:19] <= times["containerStarted"][:19] <= times["ready"]


def watch_pods(world: World) -> dict[str, int]:
    """The most pods that each engine has at a time from now on, but those without a node or a process."""
    most: dict[str, int] = {}

    def count(_: Any) -> None:
        now: dict[str, int] = {}
        for pod in world.cluster.all(PODS):
            for owner in pod["metadata"].get("ownerReferences") or ():
                if owner["kind"] == "EngineConn":
                    now[owner["name"]] = now.get(owner["name"], 0) + 1
        for name, number in now.items():
            most[name] = max(most.get(name, 0), number)

    world.cluster.listen(PODS, count)
    return most


async def test_a_member_that_was_tampered_with_gets_no_claim(world: World) -> None:
    await started(world)
    (agent,) = add_members(world, "m1")

    def tamper(item: dict[str, Any]) -> None:
        item["spec"]["containers"][0]["image"] = "evil:1"

    # Between the offer and the claim of the pod.
    world.server.faults.add(Fault(verb="patch", resource=PODS, latency=0.2))
    await asyncio.sleep(1)
    world.create("mine")
    await asyncio.sleep(0.1)
    world.cluster.change(PODS, (NAMESPACE, "m1"), tamper)
    await world.until_state("mine", "Idle", 10)
    assert agent.claims_taken == []
    assert "not as it was made" in world.status("mine")["startup"]["coldBecause"]


async def test_an_image_by_a_mirrors_name_is_as_it_was_made(world: World) -> None:
    await started(world)
    world.cluster.admit_pod = lambda pod: pod["spec"]["containers"][0].update(image="mirror.example/engine:1")
    add_members(world, "m1")
    await asyncio.sleep(1)
    world.create("mine")
    await world.until_state("mine", "Idle", 10)
    assert world.status("mine")["startup"]["kind"] == "warm"


@pytest.mark.parametrize("delete", [False, True])
async def test_a_stop_during_the_claim_ends_the_engine(world: World, delete: bool) -> None:
    await started(world)
    add_members(world, "m1", at_claim="hang")
    await asyncio.sleep(1)
    world.create("mine")
    await world.until(lambda: world.pods("mine"), 5)
    if delete:
        world.delete("mine")
        await world.until(lambda: not world.cluster.all(ENGINECONNS), 60)
    else:
        world.edit("mine", desiredState="Stopped")
        await world.until_state("mine", "Success", 60)
        assert world.status("mine")["reason"] == "StoppedByUser"
    await world.until(lambda: not world.cluster.all(PODS), 60)
    await asyncio.sleep(2)
    row = world.row("mine")
    assert row is not None
    assert row.final
    assert world.pods_made == []


async def test_two_engines_and_one_member(world: World) -> None:
    await started(world)
    (agent,) = add_members(world, "m1")
    await asyncio.sleep(1)
    most = watch_pods(world)
    world.create("a")
    world.create("b")
    for name in "ab":
        await world.until_state(name, "Idle", 10)
    kinds = {name: world.status(name)["startup"]["kind"] for name in "ab"}
    assert sorted(kinds.values()) == ["cold", "warm"]
    assert len(agent.claims_taken) == 1
    assert most == {"a": 1, "b": 1}


async def test_after_two_refusals_it_starts_cold(world: World) -> None:
    await started(world)
    add_members(world, "m1")
    fault = world.server.faults.add(Fault(verb="patch", resource=PODS, status=422, times=None))
    await asyncio.sleep(1)
    world.create("mine")
    await world.until_state("mine", "Idle", 10)
    assert fault.played == 2
    assert world.status("mine")["startup"]["coldBecause"] == (
        "Another engine took the pod that was reserved for it in the warm pool."
    )


async def test_a_refusal_by_rights_is_not_tried_again(world: World) -> None:
    await started(world)
    add_members(world, "m1")
    fault = world.server.faults.add(Fault(verb="patch", resource=PODS, status=403, times=None, message="denied"))
    await asyncio.sleep(1)
    world.create("mine")
    await world.until_state("mine", "Idle", 10)
    assert fault.played == 1
    assert "denied" in world.status("mine")["startup"]["coldBecause"]


@pytest.mark.parametrize("reset", ["before", "after"])
@pytest.mark.parametrize("times", [1, 5])
async def test_a_lost_answer_to_the_claim_makes_no_second_pod(world: World, reset: Any, times: int) -> None:
    await started(world)
    add_members(world, "m1", "m2")
    world.server.faults.add(Fault(verb="patch", resource=PODS, reset=reset, times=times))
    await asyncio.sleep(1)
    most = watch_pods(world)
    world.create("mine")
    await world.until_state("mine", "Idle", 30)
    assert most == {"mine": 1}
    assert world.status("mine")["startup"]["kind"] == "warm"
    assert len(members_left(world)) == 1


async def test_limits_of_people_are_asked_before_a_claim(world: World) -> None:
    world.limits = parse_limits('{"user": {"engines": 1}}')
    await started(world)
    add_members(world, "m1", "m2")
    await asyncio.sleep(1)
    world.create("a")
    await world.until_state("a", "Idle", 5)
    world.create("b")
    await world.until(lambda: world.status("b").get("reason") == "LimitReached", 10)
    assert len(members_left(world)) == 1
    world.edit("a", desiredState="Stopped")
    await world.until_state("b", "Idle", 30)
    assert world.status("b")["startup"]["kind"] == "warm"


@pytest.mark.parametrize("overridable", [["priorityClassName"], None])
async def test_an_engine_of_another_priority_class_starts_cold_only_where_the_plugin_lets_it(
    world: World, overridable: list[str] | None
) -> None:
    plugin = WARM | {"podTemplate": {"spec": {"priorityClassName": "low"}}, "overridable": overridable}
    await started(world, **plugin)
    add_members(world, "m1")
    await asyncio.sleep(1)
    world.create("mine", podTemplate={"spec": {"priorityClassName": "high"}})
    await world.until(lambda: world.state("mine") in ("Idle", "Failed"), 20)
    if overridable:
        assert world.status("mine")["startup"]["coldReason"] == "Misfit"
    else:
        assert (world.state("mine"), world.status("mine")["reason"]) == ("Failed", "InvalidSpec")
        assert "overridable: [priorityClassName]" in world.status("mine")["message"]
    assert members_left(world) == ["m1"]

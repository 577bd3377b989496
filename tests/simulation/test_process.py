"""Whole lives of engines that run a process in place of an agent: nothing is asked of them, nothing waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from linkis_ecm.kube.resources import ENGINECONNS, PLUGINS
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.world import KEY, NODE, PLUGIN_SPEC, Script, World

pytestmark = pytest.mark.looptime


def install(world: World, **changes: Any) -> None:
    """A plugin of type web, whose engines run a process that listens on port 8080."""
    spec = {name: value for name, value in PLUGIN_SPEC.items() if name not in ("runTypes", "default")} | {
        "engineType": "web", "engineVersion": "3", "launch": {"kind": "process", "port": 8080},
    } | changes  # fmt: skip
    body = {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConnPlugin", "metadata": {"name": "web-3"}}
    world.cluster.create(PLUGINS, body | {"spec": spec})


async def test_a_process_is_ready_by_the_kubelet_and_its_life_with_a_stop_takes_four_writes(world: World) -> None:
    install(world)
    world.create("w", engineType="web", stopGrace="3s")
    await world.until_state("w", "Idle")
    status = world.status("w")
    assert status["reason"] == "ProcessReady"
    assert status["serviceInstance"].endswith(".linkis-engines.engines:8080")
    assert status["address"].endswith(":8080")
    assert status["launch"]["kind"] == "process"
    (pod,) = world.pods("w")
    assert KEY.decode() not in str(pod)
    assert "ECM_" not in str(pod)
    world.edit("w", desiredState="Stopped")
    await world.until_state("w", "Success")
    assert world.stops == [], "nobody can be asked to stop"
    # The deletion of the pod stands in place of a write on the way out.
    assert world.writes() == 5, world.server.writes()
    row = world.row("w")
    assert row is not None
    assert (row.status.value, row.final, row.reason) == ("ShuttingDown", True, "StoppedByUser")
    assert (row.request_times, row.used_times, row.release_times) == (1, 1, 1)


async def test_hours_without_a_report_are_no_silence_and_no_idleness(world: World) -> None:
    install(world, idleTimeout="1m")
    for number in range(6):
        world.create(f"w{number}", engineType="web")
    world.create("e")
    await world.until(lambda: all(world.state(f"w{number}") == "Idle" for number in range(6)))
    await world.until_state("e", "Idle")
    writes = world.writes()
    await asyncio.sleep(7200)
    assert world.writes() == writes
    # Six of seven engines report nothing, and still an agent that falls silent is called lost.
    world.cut_off.add("e")
    await world.until_state("e", "Failed", 200)
    assert world.status("e")["reason"] == "AgentLost"
    assert {world.state(f"w{number}") for number in range(6)} == {"Idle"}


async def test_a_process_that_does_not_answer_for_a_while_stays_and_says_so(world: World) -> None:
    install(world)
    world.create("w", engineType="web")
    await world.until_state("w", "Idle")
    since, (pod,) = world.status("w")["stateSince"], world.pods("w")
    assert world.condition("w", "Ready")["status"] == "True"
    world.set_ready(pod, False)
    await world.until(lambda: world.condition("w", "Ready")["status"] == "False")
    assert (world.state("w"), world.status("w")["reason"]) == ("Idle", "ProcessNotReady")
    world.set_ready(pod, True)
    await world.until(lambda: world.condition("w", "Ready")["status"] == "True")
    assert (world.status("w")["reason"], world.status("w")["stateSince"]) == ("ProcessReady", since)


@pytest.mark.parametrize(
    ("code", "why", "state", "reason"),
    [(0, "", "Success", "Completed"), (3, "", "Failed", "ProcessExited"), (137, "OOMKilled", "Failed", "OOMKilled")],
)
async def test_an_exit_tells_the_end(world: World, code: int, why: str, state: str, reason: str) -> None:
    install(world)
    uid = world.create("w", engineType="web")
    await world.until_state("w", "Idle")
    world.exit_pod(world.pods("w")[0], code, why)
    await world.until_state("w", state)
    assert world.status("w")["reason"] == reason
    bundle = world.archive.bundles[uid, 0]
    assert b"a process writes no log files" in bundle["bundle.json"]


async def test_a_process_that_never_answers_times_out_and_its_pod_goes(world: World) -> None:
    install(world, startTimeout="20s")
    world.create("w", Script(silent=True), engineType="web")
    await world.until_state("w", "Failed")
    assert world.status("w")["reason"] == "ProcessNeverAnswered"
    assert "port 8080 takes no connection" in world.status("w")["message"]
    await world.until(lambda: not world.pods("w"))


async def test_a_crashed_process_is_restarted_by_its_policy(world: World) -> None:
    install(world)
    world.create("w", engineType="web", restartPolicy={"type": "OnFailure", "maxAttempts": 2})
    await world.until_state("w", "Idle")
    world.exit_pod(world.pods("w")[0], 3)
    await world.until(lambda: world.status("w").get("attempt") == 1)
    await world.until_state("w", "Idle")
    assert world.status("w")["lastEnd"]["reason"] == "ProcessExited"
    assert world.status("w")["launch"]["kind"] == "process"
    world.exit_pod(world.pods("w")[0], 3)
    await world.until_state("w", "Failed")
    assert world.condition("w", "DeadLettered")["status"] == "True"


async def test_a_new_operator_and_an_edited_catalogue_leave_a_process_what_it_is(world: World) -> None:
    install(world)
    world.create("w", engineType="web")
    await world.until_state("w", "Idle")
    world.cluster.patch(PLUGINS, "web-3", {"spec": {"launch": {"kind": "agent", "port": None}, "runTypes": ["py"]}})
    (running,) = world.operators
    await world.crash(running)
    await world.start("two")
    await asyncio.sleep(600)
    assert (world.state("w"), world.status("w")["reason"]) == ("Idle", "ProcessReady")
    world.delete("w")
    await world.until(lambda: not world.pods("w"))


@pytest.mark.parametrize("first", ["process", "agent"])
async def test_a_plugin_that_changes_before_the_status_is_written_does_not_change_the_pod_that_exists(
    world: World, first: str
) -> None:
    """The pod is created, its status is not, and the operator that comes next sees another plugin."""
    install(world, **({} if first == "process" else {"launch": {"kind": "agent"}, "runTypes": ["python"]}))
    refused = Fault(verb="patch", resource=ENGINECONNS, subresource="status", status=500, times=None)
    world.server.faults.add(refused)
    world.create("w", engineType="web")
    await world.until(lambda: world.pods("w"))
    await world.until(lambda: refused.played > 0)
    await world.crash(world.operators[0])
    assert world.status("w") == {}
    changed: dict[str, Any] = {"launch": {"kind": "agent", "port": None}, "runTypes": ["python"]}
    if first == "agent":
        changed = {"launch": {"kind": "process", "port": 8080}, "runTypes": None}
    world.cluster.patch(PLUGINS, "web-3", {"spec": changed})
    world.server.faults.clear()
    await world.start("two")
    await world.until_state("w", "Idle", 120)
    status = world.status("w")
    assert status["reason"] == ("ProcessReady" if first == "process" else "KernelReady")
    assert status.get("launch", {"kind": "agent"})["kind"] == first
    await asyncio.sleep(300)
    assert world.state("w") == "Idle", "a process is not asked for reports, an agent is"
    world.edit("w", desiredState="Stopped")
    await world.until_state("w", "Success")
    assert world.stops == ([] if first == "process" else ["w"])


@pytest.mark.parametrize(("code", "state"), [(0, "Success"), (1, "Failed")])
async def test_a_process_that_ends_before_it_is_ready_says_where_it_ran_and_when_it_began(
    world: World, code: int, state: str
) -> None:
    # Without a port and not yet run for its initial delay: only such a one may succeed before it is ready.
    install(world, launch={"kind": "process", "ready": {"initialDelaySeconds": 60}})
    world.create("w", Script(silent=True), engineType="web")
    await world.until(lambda: world.processes)
    await asyncio.sleep(0.1)
    world.exit_pod(world.pods("w")[0], code)
    await world.until_state("w", state)
    status = world.status("w")
    assert status["nodeName"] == NODE
    assert "readyTime" not in status
    accepted, scheduled, started = (status["startup"][name] for name in ("accepted", "scheduled", "containerStarted"))
    assert accepted <= scheduled < started < status["finishedTime"]

"""Reports that a user's code may have forged, and status writes that the API server refuses: no engine hangs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from linkis_ecm.kube.resources import ENGINECONNS
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.world import Script, World

pytestmark = pytest.mark.looptime

# Each was accepted in a report once, and then refused by datetime or by the CRD's int64.
NUMBERS = (1e15, 1e20, 1e300, 2**64 - 1)


def forged(number: float) -> dict[str, Any]:
    return {
        "usage": {"memoryBytes": number, "memoryPeakBytes": number}, "lastTaskEnded": number, "lastActivity": number,
        "timings": {"kernelReady": number, "processStarted": number}, "metrics": {"x": number},
    }  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS)
async def test_an_engine_with_forged_numbers_is_culled_and_its_end_written(world: World, number: float) -> None:
    world.create("e", idleTimeout="2m")
    await world.until(lambda: world.pods("e") and world.pods("e")[0]["metadata"]["uid"] in world.agents)
    world.agent("e").extra = forged(number)
    await world.until_state("e", "Idle")
    await world.until_state("e", "Success", 300)
    assert world.status("e")["reason"] == "IdleTimeout"
    assert all(value < 2**63 for value in world.status("e").get("usage", {}).values())


@pytest.mark.parametrize("number", NUMBERS)
async def test_a_start_with_forged_times_still_has_its_timeout(world: World, number: float) -> None:
    world.create("e", Script(silent=True), startTimeout="1m")
    await world.until(lambda: world.pods("e") and world.pods("e")[0]["metadata"]["uid"] in world.agents)
    assert world.agent("e").report(**forged(number)) == 204
    await world.until_state("e", "Failed", 90)
    assert world.status("e")["reason"] == "StartTimeout"


def refused(field: str, status: int = 422) -> Fault:
    """The API server refuses each status that has this field."""
    return Fault(
        verb="patch", resource=ENGINECONNS, subresource="status", status=status, reason="Invalid", times=None,
        when=lambda call: field in call.body["status"],
    )  # fmt: skip


def pass_failed(world: World) -> bool:
    return world.condition("e", "Stalled").get("reason") == "PassFailed"


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_the_end_is_written_without_the_details_that_the_api_server_refuses(world: World, status: int) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    fault = refused("usage", status)
    world.server.faults.add(fault)
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success")
    assert world.status("e")["reason"] == "StoppedByUser"
    assert "usage" not in world.status("e")
    assert pass_failed(world)
    row = world.row("e")
    assert row is not None
    assert row.status.value == "ShuttingDown", "Linkis's word of a stop"
    await world.until(lambda: not world.pods("e") or world.pods("e")[0]["status"]["phase"] == "Succeeded")
    # It is poison: tried again ever more slowly, not at once and not as an outage.
    await asyncio.sleep(300)
    assert world.operators[0].parts.reconciler.worker.poison_keys() == 1
    played = fault.played
    await asyncio.sleep(300)
    assert 2 <= fault.played - played <= 12
    # Once the API server takes it, everything is written.
    world.server.faults.clear()
    await world.until(lambda: not pass_failed(world), 120)
    assert world.status("e")["usage"]["memoryPeakBytes"] == 5 << 20
    assert world.operators[0].parts.reconciler.worker.poison_keys() == 0


async def test_a_start_whose_details_are_refused_gets_ready_and_can_be_stopped(world: World) -> None:
    world.server.faults.add(refused("nodeName"))
    world.create("e")
    await world.until_state("e", "Idle")
    assert pass_failed(world)
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success")
    await world.until(lambda: (row := world.row("e")) is not None and row.final)


async def test_a_status_that_is_refused_altogether_is_poison(world: World) -> None:
    world.server.faults.add(refused("conditions"))
    world.create("e")
    await asyncio.sleep(60)
    assert world.operators[0].parts.reconciler.worker.poison_keys() == 1
    world.server.faults.clear()
    await world.until_state("e", "Idle", 120)
    await world.until(lambda: world.operators[0].parts.reconciler.worker.poison_keys() == 0, 120)
    assert not pass_failed(world)


@pytest.mark.parametrize("status", [500, 503, 403])
async def test_an_outage_of_the_api_server_is_not_poison(world: World, status: int) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    world.server.faults.add(
        Fault(verb="patch", resource=ENGINECONNS, subresource="status", status=status, times=None)
    )  # fmt: skip
    world.edit("e", desiredState="Stopped")
    await asyncio.sleep(120)
    world.server.faults.clear()
    await world.until_state("e", "Success", 120)
    assert not pass_failed(world)


@pytest.mark.parametrize("status", [400, 422])
async def test_a_pod_that_is_refused_as_malformed_fails_its_engine(world: World, status: int) -> None:
    world.server.faults.add(Fault(verb="create", status=status, when=lambda call: call.resource.plural == "pods"))
    world.create("e")
    await world.until_state("e", "Failed")
    assert world.status("e")["reason"] == "PodRefused"

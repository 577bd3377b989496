"""CRDs from before the operator drop fields of statuses: that ends no write in a loop, and somebody is told."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from linkis_ecm.kube.resources import ENGINECONNS, EVENTS, PLUGINS, PODS
from tests.simulation.warm.test_warm_pools import PLUGIN, POOL, change, condition, edit_pod, filled, ready, status
from tools.testkit.simulation.world import NAMESPACE, Script, World

pytestmark = pytest.mark.looptime

COMMAND = "kubectl apply --server-side --force-conflicts -f crds"
MINUTES = 60


@pytest.fixture
def pooled(bare_world: World) -> World:
    change(bare_world, warmPool=POOL)
    return bare_world


def written(world: World, resource: str, since: int = 0) -> int:
    return world.server.writes(since=since)["patch", f"{resource}/status"]


def mark(world: World) -> int:
    return len(world.server.log)


def told(world: World) -> list[dict[str, Any]]:
    return [one for one in world.cluster.all(EVENTS) if one["reason"] == "StatusPruned"]


def apply_crds(world: World) -> None:
    world.cluster.unknown.clear()


@pytest.mark.parametrize(
    ("unknown", "field"),
    [
        ("sizeFrom", "warmPool.namespaces[].sizeFrom"),
        ("summary", "warmPool.summary"),
        ("namespaces", "warmPool.namespaces"),
        ("warmPool", "warmPool"),
        ("conditions", "conditions"),
        ("observedGeneration", "conditions[].observedGeneration"),
    ],
)
async def test_a_pools_status_that_is_pruned_is_not_written_without_end(
    pooled: World, unknown: str, field: str, caplog: pytest.LogCaptureFixture
) -> None:
    pooled.cluster.unknown[PLUGINS] = {unknown}
    with caplog.at_level(logging.WARNING):
        await pooled.start()
        await filled(pooled)
        await asyncio.sleep(10)
        begun = mark(pooled)
        await asyncio.sleep(9 * MINUTES)
    # One for each ten minutes, to see whether it is kept by now.
    assert written(pooled, "engineconnplugins", begun) <= 1
    (event,) = told(pooled)
    assert event["regarding"]["kind"] == "EngineConnPlugin"
    assert event["regarding"]["name"] == PLUGIN
    assert field in event["note"].split(": ", 1)[1].split(". ")[0].split(", ")
    assert COMMAND in event["note"]
    assert [one.message for one in caplog.records].count(event["note"]) == 1


async def test_stuck_pods_that_an_older_crd_cannot_tell_are_written_once(pooled: World) -> None:
    pooled.cluster.unknown[PLUGINS] = {"stuck"}
    await pooled.start()
    await filled(pooled)
    await asyncio.sleep(10)
    assert told(pooled) == []
    kept = ready(pooled)[0]
    edit_pod(pooled, kept, lambda item: item["metadata"].update(finalizers=["audit.example/keeps"]))
    pooled.cluster.delete(PODS, kept["metadata"]["name"], namespace=NAMESPACE, grace_seconds=5)
    await pooled.until(lambda: "deleted and does not end" in condition(pooled)[2], 120)
    await asyncio.sleep(10)
    begun = mark(pooled)
    await asyncio.sleep(9 * MINUTES)
    assert written(pooled, "engineconnplugins", begun) <= 1
    assert "warmPool.namespaces[].stuck" in told(pooled)[0]["note"]


async def test_what_is_to_be_said_else_is_written_at_once(pooled: World) -> None:
    pooled.cluster.unknown[PLUGINS] = {"sizeFrom", "summary"}
    await pooled.start()
    await filled(pooled)
    await pooled.until(lambda: status(pooled)["warmPool"]["ready"] == 3)
    await asyncio.sleep(10)
    pooled.cluster.patch(PLUGINS, PLUGIN, {"spec": {"warmPool": POOL | {"size": 5}}})
    await pooled.until(lambda: status(pooled)["warmPool"]["wanted"] == 5, 5)
    await pooled.until(lambda: status(pooled)["warmPool"]["ready"] == 5, 30)


async def test_with_the_crds_applied_the_field_comes_within_minutes(pooled: World) -> None:
    pooled.cluster.unknown[PLUGINS] = {"sizeFrom"}
    await pooled.start()
    await filled(pooled)
    await asyncio.sleep(MINUTES)
    assert "sizeFrom" not in status(pooled)["warmPool"]["namespaces"][0]
    apply_crds(pooled)
    await pooled.until(lambda: "sizeFrom" in status(pooled)["warmPool"]["namespaces"][0], 11 * MINUTES)
    begun = mark(pooled)
    await asyncio.sleep(15 * MINUTES)
    assert written(pooled, "engineconnplugins", begun) == 0
    assert len(told(pooled)) == 1


async def test_an_hour_of_it_is_said_once(pooled: World) -> None:
    pooled.cluster.unknown[PLUGINS] = {"sizeFrom"}
    await pooled.start()
    await filled(pooled)
    begun = mark(pooled)
    await asyncio.sleep(60 * MINUTES)
    assert written(pooled, "engineconnplugins", begun) <= 8
    (event,) = told(pooled)
    assert "series" not in event


@pytest.mark.parametrize(
    ("unknown", "field"),
    [
        ("fromPlugin", "fromPlugin"),
        ("overridable", "fromPlugin.overridable"),
        ("startup", "startup"),
        ("kind", "startup.kind"),
        ("timesReady", "timesReady"),
        ("observedGeneration", "observedGeneration"),
        ("conditions", "conditions"),
        ("logDirSuffix", "logDirSuffix"),
    ],
)
async def test_an_engines_status_that_is_pruned_is_not_written_without_end(
    pooled: World, unknown: str, field: str
) -> None:
    pooled.cluster.unknown[ENGINECONNS] = {unknown}
    pooled.cluster.patch(PLUGINS, PLUGIN, {"spec": {"warmPool": None}})
    await pooled.start()
    for name in ("a", "b", "c"):
        pooled.create(name, Script())
    for name in ("a", "b", "c"):
        await pooled.until_state(name, "Idle")
    await asyncio.sleep(10)
    begun = mark(pooled)
    await asyncio.sleep(9 * MINUTES)
    assert written(pooled, "engineconns", begun) <= 3
    notes = [one["note"] for one in told(pooled)]
    assert any(field in note.split(": ", 1)[1].split(". ")[0].split(", ") for note in notes)
    assert all(COMMAND in note for note in notes)
    assert {one["regarding"]["kind"] for one in told(pooled)} == {"EngineConn"}
    pooled.edit("a", desiredState="Stopped")
    await pooled.until_state("a", "Success", 30)

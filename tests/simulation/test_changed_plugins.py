"""A plugin that is changed or deleted under live engines: what it gave them at their start stays theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from linkis_ecm.kube.resources import ENGINECONNS, PLUGINS
from linkis_ecm.model.engine_status import EngineConnStatus
from tools.testkit.simulation.world import NAMESPACE, PLUGIN_SPEC, Script, World

pytestmark = pytest.mark.looptime

GAVE: dict[str, Any] = {
    "idleTimeout": "40s", "stopGrace": "77s", "ttlAfterFinished": "100s", "startTimeout": "30s",
    "restartPolicy": {"type": "OnFailure", "maxAttempts": 2},
}  # fmt: skip
LATER: dict[str, Any] = {
    "idleTimeout": "4h", "stopGrace": "1s", "ttlAfterFinished": "24h", "startTimeout": "1h", "restartPolicy": None,
    "defaultResources": {"cpu": "3", "memory": "6Gi"}, "maxResources": None,
}  # fmt: skip


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    made.install_plugin(**GAVE)
    await made.start()
    yield made
    await made.close()


async def replace_plugin(world: World, how: str) -> None:
    """As an upgrade of the chart does it, which puts the version into the plugin's name."""
    if how == "changed":
        world.cluster.patch(PLUGINS, "python-3.11", {"spec": LATER})
    else:
        world.cluster.delete(PLUGINS, "python-3.11")
    if how == "replaced":
        body = {"metadata": {"name": "python-3.12"}, "spec": PLUGIN_SPEC | LATER | {"engineVersion": "3.12"}}
        world.cluster.create(PLUGINS, {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConnPlugin"} | body)
    if how == "changed, then another operator":
        await world.crash(world.operators[0])
        await world.start("two")


HOW = ["changed", "deleted", "replaced", "changed, then another operator"]


@pytest.mark.parametrize("how", HOW)
async def test_an_idle_engine_is_culled_and_removed_when_it_was_told(world: World, how: str) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    promised = world.status("e")["nextCullAt"]
    EngineConnStatus.model_validate(world.status("e"))
    await replace_plugin(world, how)
    world.agent("e").become("Busy")
    await asyncio.sleep(100)
    world.agent("e").become("Idle", lastTaskEnded=0.0)
    await world.until(lambda: world.state("e") == "Idle" and world.status("e")["nextCullAt"] != promised)
    await world.until_state("e", "Success", 45)
    assert world.status("e")["reason"] == "IdleTimeout"
    assert world.stop_graces == [77]
    row = world.row("e")
    assert row is not None
    assert row.released_resource == '{"instance":1,"memory":"1024.0 MB","cpu":1}'
    await world.until(lambda: row.uid not in {one.uid for one in world.operators[0].parts.cache.engines.values()}, 110)


@pytest.mark.parametrize("how", ["changed", "deleted", "replaced"])
async def test_a_start_under_way_keeps_its_start_timeout(world: World, how: str) -> None:
    world.create("e", Script(silent=True), restartPolicy={"type": "Never"})
    await world.until(lambda: bool(world.pods("e")))
    await replace_plugin(world, how)
    await world.until_state("e", "Failed", 35)
    assert world.status("e")["reason"] == "StartTimeout"


async def test_a_restart_policy_stays_and_the_new_pod_is_of_the_plugin_as_it_is_then(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    await replace_plugin(world, "changed")
    world.exit_pod(world.pods("e")[0], 3)
    await world.until(lambda: world.status("e").get("reason") == "Restarting")
    await world.until_state("e", "Idle", 60)
    (pod,) = world.pods("e")
    assert pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "3"
    assert world.status("e")["fromPlugin"]["idleTimeout"] == "4h"


async def test_an_engine_whose_plugin_is_gone_is_told_so_at_its_restart(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    await replace_plugin(world, "deleted")
    world.exit_pod(world.pods("e")[0], 3)
    await world.until(lambda: world.status("e").get("reason") == "PluginMissing")
    await world.until_state("e", "Failed", 600)
    assert world.status("e")["lastEnd"]["reason"] == "AgentExited"


async def test_a_status_that_was_edited_by_hand_stops_nothing(world: World) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    for value in ({"idleTimeout": "soon"}, {"defaultResources": {}}, {"stopGrace": ""}, {}):
        world.cluster.change(ENGINECONNS, (NAMESPACE, "e"), _edit(value))
        await asyncio.sleep(1)
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success")


def _edit(value: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda item: item["status"].update(fromPlugin=value)

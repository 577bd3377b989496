"""A change of a live engine's spec that its pod does not follow is said in a condition, and only while it is so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tools.testkit.simulation.world import World

pytestmark = pytest.mark.looptime
KIND = "SpecPending"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    made.install_plugin()
    await made.start()
    made.create("e", resources={"cpu": "500m", "memory": "1Gi"}, restartPolicy={"type": "OnFailure"})
    await made.until_state("e", "Idle")
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("change", "before"),
    [
        ({"resources": {"cpu": "1"}}, {"resources": {"cpu": "500m"}}),
        ({"resources": {"memory": "2Gi"}}, {"resources": {"memory": "1Gi"}}),
        ({"resources": {"extended": {"nvidia.com/gpu": 1}}}, {"resources": {"extended": None}}),
        ({"volumes": [{"name": "s", "emptyDir": {"sizeLimit": "1Mi"}, "mountPath": "/s"}]}, {"volumes": None}),
        ({"podTemplate": {"spec": {"nodeSelector": {"disk": "ssd"}}}}, {"podTemplate": None}),
    ],
    ids="-".join,
)
async def test_it_names_the_field_and_goes_when_the_change_is_undone(
    world: World, change: dict[str, Any], before: dict[str, Any]
) -> None:
    (field,) = change
    world.edit("e", **change)
    await world.until(lambda: world.condition("e", KIND), 10)
    found = world.condition("e", KIND)
    assert (found["status"], found["reason"]) == ("True", "NeedsNewPod")
    assert f"spec.{field} changed after the engine's pod was made" in found["message"]
    assert ("updateResource" in found["message"]) == (field == "resources")
    assert world.state("e") == "Idle"
    world.edit("e", **before)
    await world.until(lambda: not world.condition("e", KIND), 10)


async def test_what_a_live_engine_follows_is_not_pending(world: World) -> None:
    generation = world.status("e")["observedGeneration"]
    world.edit("e", idleTimeout="2h", maxLifetime="3h", stopGrace="5s", ttlAfterFinished="2h")
    await world.until(lambda: world.status("e")["observedGeneration"] != generation, 10)
    assert world.condition("e", KIND) == {}


async def test_a_next_pod_has_the_change(world: World) -> None:
    world.edit("e", resources={"memory": "2Gi"})
    await world.until(lambda: world.condition("e", KIND), 10)
    world.exit_pod(world.pods("e")[0], 3)
    await world.until(lambda: world.status("e").get("attempt") == 1 and world.state("e") == "Idle")
    assert world.condition("e", KIND) == {}

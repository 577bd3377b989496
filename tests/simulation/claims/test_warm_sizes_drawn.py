"""Whatever the sizes of pool, plugin and engine, LimitRange and sidecar are: each engine has its size, warm or cold.

Drawn by a seed. 2,500 draws were run once; some stay here.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

import pytest

from linkis_ecm.engine.resizing import same_amount
from tests.simulation.claims.test_warm_claims import started
from tests.simulation.claims.test_warm_sizes import default_limit
from tools.testkit.fakes.rules import StatusError
from tools.testkit.simulation.members import add_members, world_with_members
from tools.testkit.simulation.world import World

pytestmark = pytest.mark.looptime
DRAWS = 150
MOST = {"cpu": "8", "memory": "16Gi", "cpuLimit": "8"}


@dataclass(frozen=True)
class Draw:
    """`younger`: the LimitRange with this cpu limit came after the pool's pods."""

    limit: str
    younger: bool
    pool: dict[str, str]
    default: dict[str, str]
    percent: int
    asked: dict[str, str]
    sidecar: dict[str, dict[str, str]]


def draw(rng: random.Random) -> Draw:
    cpu_limit = rng.choice(["", "1", "2"])
    default = {"cpu": rng.choice(["500m", "1"]), "memory": "1Gi"} | ({"cpuLimit": cpu_limit} if cpu_limit else {})
    asked = {
        "cpu": rng.choice(["", "50m", "250m", "500m", "1", "2", "3"]),
        "cpuLimit": rng.choice(["", "", "500m", "1", "2", "3"]),
        "memory": rng.choice(["", "256Mi", "512Mi", "1Gi", "3Gi"]),
    }
    return Draw(
        limit=rng.choice(["", "50m", "500m", "1", "2", "4"]),
        younger=rng.random() < 0.3,
        pool=rng.choice([{}, {"cpu": "50m", "memory": "256Mi"}, {"cpu": "250m", "memory": "1Gi"}]),
        default=default,
        percent=rng.choice([100, 100, 99, 50]),
        asked={name: amount for name, amount in asked.items() if amount},
        sidecar=rng.choice([{}, {}, {"requests": {"cpu": "10m"}}, {"limits": {"cpu": "10m", "memory": "32Mi"}}]),
    )


def admit(world: World, drawn: Draw, *, limited: bool) -> None:
    """What a webhook makes of pods from now on, and the LimitRange, where it is there, of pods and resizes."""
    limit = default_limit(drawn.limit) if limited and drawn.limit else lambda pod: None

    def made(pod: dict[str, Any]) -> None:
        if drawn.sidecar:
            sizes = {"limits": {}} | {kind: dict(amounts) for kind, amounts in drawn.sidecar.items()}
            pod["spec"]["containers"].append({"name": "mesh", "image": "mesh:1", "resources": sizes})
        limit(pod)

    world.cluster.admit_pod, world.cluster.admit_resize = made, limit


async def engine_of(drawn: Draw, world: World) -> bool:
    """An engine beside two ready pods; False where the size is refused for itself."""
    pool = {"size": 2} | ({"resources": drawn.pool} if drawn.pool else {})
    await started(
        world, warmPool=pool, defaultResources=drawn.default, maxResources=MOST, memoryRequestPercent=drawn.percent
    )
    admit(world, drawn, limited=not drawn.younger)
    add_members(world, "m1", "m2")
    await asyncio.sleep(1)
    admit(world, drawn, limited=True)
    try:
        world.create("mine", resources=drawn.asked)
    except StatusError:
        return False
    await world.until(lambda: world.state("mine") in ("Idle", "Failed"), 20)
    return world.state("mine") == "Idle"


@pytest.mark.parametrize("seed", range(DRAWS))
async def test_each_engine_has_its_size_and_what_is_known_is_not_tried(seed: int) -> None:
    drawn = draw(random.Random(seed))
    async with world_with_members() as world:
        if not await engine_of(drawn, world):
            assert drawn.asked, "the sizes of the plugin itself are taken"
            return
        await asyncio.sleep(200)
        said = drawn, world.status("mine")["startup"], world.condition("mine", "Resized")
        (pod,) = world.pods("mine")
        has, wanted = pod["spec"]["containers"][0]["resources"], drawn.default | drawn.asked
        assert same_amount(has["requests"]["cpu"], wanted["cpu"]), said
        assert same_amount(has["limits"]["memory"], wanted["memory"]), said
        assert "cpuLimit" not in wanted or same_amount(has["limits"]["cpu"], wanted["cpuLimit"]), said
        assert world.condition("mine", "Resized") == {}, said
        # What the pool's pods show is foretold; of a younger LimitRange one resize finds out.
        assert sum(one.code == 422 for one in world.server.log) <= drawn.younger, said

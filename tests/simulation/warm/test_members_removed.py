"""Who deletes, evicts or changes his own namespace's members as they come costs himself alone, and few pods."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from linkis_ecm.engine.names import POOL_LABEL, READY_ANNOTATION, TEMPLATE_ANNOTATION
from linkis_ecm.kube.resources import PLUGINS, PODS
from tests.simulation.warm.test_warm_pools import PLUGIN, POOL, change
from tools.testkit.simulation.members import MemberAgent, claim_of
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime

OTHER = "default"
SIZE = 4
FORGED = json.dumps({"enrolment": "0" * 32, "keyId": "0" * 8})
Pod = dict[str, Any]


def members(world: World, namespace: str, *, ready: bool = True) -> list[Pod]:
    found = [pod for pod in world.cluster.all(PODS) if pod["metadata"]["namespace"] == namespace]
    found = [pod for pod in found if POOL_LABEL in pod["metadata"]["labels"]]
    found = [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]
    return [pod for pod in found if READY_ANNOTATION in pod["metadata"]["annotations"]] if ready else found


def told(world: World, namespace: str) -> tuple[str | None, str]:
    places = world.cluster.get(PLUGINS, PLUGIN)["status"]["warmPool"]["namespaces"]
    one = next(place for place in places if place["namespace"] == namespace)
    return one.get("reason"), one.get("message", "")


def edit(world: World, pod: Pod, how: Callable[[Pod], object]) -> None:
    world.cluster.change(PODS, (pod["metadata"]["namespace"], pod["metadata"]["name"]), how)


def delete(world: World, pod: Pod, grace: int = 0) -> None:
    world.cluster.delete(PODS, pod["metadata"]["name"], namespace=OTHER, grace_seconds=grace)


def evict(world: World, pod: Pod) -> None:
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    edit(world, pod, lambda item: item.setdefault("status", {}).setdefault("conditions", []).append(target))


WAYS: dict[str, Callable[[World, Pod], None]] = {
    "deleted at once": delete,
    "deleted with a grace": lambda world, pod: delete(world, pod, 30),
    "evicted": evict,
    "taken out": lambda world, pod: edit(world, pod, lambda item: item["metadata"]["labels"].pop(POOL_LABEL)),
    "another image": lambda world, pod: edit(
        world, pod, lambda item: item["spec"]["containers"][0].update(image="evil:1")
    ),
    "another template": lambda world, pod: edit(
        world, pod, lambda item: item["metadata"]["annotations"].update({TEMPLATE_ANNOTATION: "0" * 16})
    ),
    "a forged enrolment": lambda world, pod: edit(
        world, pod, lambda item: item["metadata"]["annotations"].update({READY_ANNOTATION: FORGED})
    ),
}  # fmt: skip


@pytest.fixture
async def pooled() -> AsyncIterator[World]:
    """A cluster whose pools' members engines can take."""
    made = World()
    made.agent_type = MemberAgent
    made.answer_claim = partial(claim_of, made)
    made.install_plugin()
    yield made
    await made.close()


async def both_filled(world: World) -> None:
    change(world, warmPool=POOL | {"size": SIZE, "cap": 60, "namespaces": [NAMESPACE, OTHER]})
    await world.start()
    await world.until(lambda: all(len(members(world, one)) == SIZE for one in (NAMESPACE, OTHER)))


async def burn(world: World, way: Callable[[World, Pod], None], *, ready: bool) -> None:
    # Bounded, so that a test fails soon where nothing bounds the operator.
    while len(world.pods_made) < 200:
        found = members(world, OTHER, ready=ready)
        if not ready or len(found) == SIZE:
            for pod in found:
                way(world, pod)
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("way", WAYS)
async def test_who_takes_members_away_takes_no_other_namespaces_refill(pooled: World, way: str) -> None:
    """The operator made 20 pods a second for him, and none for anybody else."""
    await both_filled(pooled)
    before = len(pooled.pods_made)
    task = asyncio.create_task(burn(pooled, WAYS[way], ready=False))
    try:
        await asyncio.sleep(5)
        for number in range(SIZE):
            pooled.create(f"v{number}", user=f"u{number}")
        for number in range(SIZE):
            await pooled.until_state(f"v{number}", "Idle", 60)
            assert pooled.status(f"v{number}")["startup"]["kind"] == "warm"
        await pooled.until(lambda: len(members(pooled, NAMESPACE)) == SIZE, 30)
        await asyncio.sleep(60)
        # What the others took, one at the end of each pause, and what was asked for before anything was known.
        assert len(pooled.pods_made) - before <= SIZE + 10
        assert told(pooled, OTHER)[0] == "MembersRemoved"
        assert told(pooled, NAMESPACE)[0] is None
    finally:
        task.cancel()


async def test_one_that_became_ready_does_not_end_the_pauses(pooled: World) -> None:
    """Who lets the pool fill and then deletes all of it would have it filled again each 2 s."""
    await both_filled(pooled)
    before = len(pooled.pods_made)
    task = asyncio.create_task(burn(pooled, delete, ready=True))
    try:
        await asyncio.sleep(180)
        assert len(pooled.pods_made) - before <= 8 * SIZE
        assert told(pooled, NAMESPACE)[0] is None
    finally:
        task.cancel()


async def test_several_that_are_evicted_at_once_are_made_again_soon(pooled: World) -> None:
    await both_filled(pooled)
    for pod in members(pooled, OTHER):
        delete(pooled, pod, 5)
    began = asyncio.get_running_loop().time()
    await pooled.until(lambda: told(pooled, OTHER)[0] == "MembersRemoved", 5)
    assert "was deleted." in told(pooled, OTHER)[1]
    await pooled.until(lambda: len(members(pooled, OTHER)) == SIZE, 20)
    assert asyncio.get_running_loop().time() - began < 10
    await pooled.until(lambda: told(pooled, OTHER)[0] is None, 10)


async def test_what_the_operator_deletes_and_what_engines_take_is_no_loss(pooled: World) -> None:
    await both_filled(pooled)
    seen = set()
    for number in range(SIZE):
        pooled.create(f"v{number}", user=f"u{number}")
    for number in range(SIZE):
        await pooled.until_state(f"v{number}", "Idle", 60)
    for size, image in ((SIZE - 1, "engine:2"), (SIZE + 1, "engine:3")):
        spec = POOL | {"size": size, "cap": 60, "namespaces": [NAMESPACE, OTHER]}
        change(pooled, warmPool=spec, image=image)
        for _ in range(60):
            await asyncio.sleep(0.5)
            seen |= {told(pooled, one)[0] for one in (NAMESPACE, OTHER)}
        assert [len(members(pooled, one)) for one in (NAMESPACE, OTHER)] == [size, size]
    assert "MembersRemoved" not in seen

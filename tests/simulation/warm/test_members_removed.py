"""Who deletes, evicts or changes his own namespace's members as they come costs himself alone, and few pods."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from linkis_ecm.engine.names import POOL_LABEL, READY_ANNOTATION, TEMPLATE_ANNOTATION
from linkis_ecm.engine.warm.setbacks import TIMES
from linkis_ecm.kube.resources import PLUGINS, PODS
from tests.simulation.warm.test_warm_pools import PLUGIN, POOL, change
from tools.testkit.fakes.rules import StatusError
from tools.testkit.simulation.members import MemberAgent, world_with_members
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime

OTHER = "default"
SIZE = 4
BURST = TIMES * SIZE
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
    async with world_with_members() as made:
        made.agent_type = MemberAgent
        made.install_plugin()
        yield made


async def both_filled(world: World) -> None:
    change(world, warmPool=POOL | {"size": SIZE, "cap": 60, "namespaces": [NAMESPACE, OTHER]})
    await world.start()
    await world.until(lambda: all(len(members(world, one)) == SIZE for one in (NAMESPACE, OTHER)))


async def one_filled(world: World, size: int) -> int:
    """How many pods were made for it."""
    change(world, warmPool=POOL | {"size": size, "cap": 60, "namespaces": [OTHER]})
    await world.start()
    await world.until(lambda: len(members(world, OTHER)) == size)
    return len(world.pods_made)


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
        # What engines took, the burst, some seven for the pace, and what was asked for before anything was known.
        assert len(pooled.pods_made) - before <= SIZE + BURST + 15
        assert told(pooled, OTHER)[0] == "MembersRemoved"
        assert told(pooled, NAMESPACE)[0] is None
    finally:
        task.cancel()


async def test_who_deletes_a_full_pool_again_and_again_gets_six_a_minute(pooled: World) -> None:
    """That new members become ready says nothing of who takes them next."""
    await both_filled(pooled)
    before = len(pooled.pods_made)
    task = asyncio.create_task(burn(pooled, delete, ready=True))
    try:
        await asyncio.sleep(600)
        assert BURST + 40 <= len(pooled.pods_made) - before <= BURST + 60 + 2 * SIZE
        assert told(pooled, NAMESPACE)[0] is None
    finally:
        task.cancel()


async def test_several_that_are_evicted_at_once_are_made_again_at_once(pooled: World) -> None:
    await both_filled(pooled)
    began = asyncio.get_running_loop().time()
    for round_ in range(TIMES):
        for pod in members(pooled, OTHER):
            delete(pooled, pod, 5)
        await pooled.until(lambda: len(members(pooled, OTHER)) == SIZE, 20)
        assert told(pooled, OTHER)[0] != "MembersRemoved", round_
    assert asyncio.get_running_loop().time() - began < 4 * TIMES
    for pod in members(pooled, OTHER):
        delete(pooled, pod, 5)
    await pooled.until(lambda: told(pooled, OTHER)[0] == "MembersRemoved", 5)
    assert "was deleted." in told(pooled, OTHER)[1]
    await pooled.until(lambda: len(members(pooled, OTHER)) == SIZE, 50)
    await pooled.until(lambda: told(pooled, OTHER)[0] is None, 10)


async def test_members_that_go_steadily_are_made_again_each_time(pooled: World) -> None:
    """As autoscalers that consolidate all day take them (kubernetes-sigs/karpenter#2388)."""
    await both_filled(pooled)
    least = []
    for _ in range(120):
        delete(pooled, members(pooled, OTHER)[0], 30)
        await asyncio.sleep(15)
        least.append(len(members(pooled, OTHER)))
    assert set(least) == {SIZE}


async def test_a_namespace_that_was_drained_has_its_share_of_the_cap_again(pooled: World) -> None:
    """The others took its places while it waited, and kept them."""
    spaces = [NAMESPACE, OTHER]
    change(pooled, warmPool=POOL | {"size": 6, "cap": 7, "namespaces": spaces})
    await pooled.start()
    await pooled.until(lambda: sum(len(members(pooled, one)) for one in spaces) == 7)
    for _ in range(20):
        for pod in members(pooled, OTHER):
            delete(pooled, pod)
        await asyncio.sleep(5)
    await asyncio.sleep(120)
    assert sorted(len(members(pooled, one)) for one in spaces) == [3, 4]


async def test_a_namespace_that_comes_later_gets_its_share_of_the_cap(pooled: World) -> None:
    change(pooled, warmPool=POOL | {"size": 6, "cap": 6, "namespaces": [NAMESPACE]})
    await pooled.start()
    await pooled.until(lambda: len(members(pooled, NAMESPACE)) == 6)
    change(pooled, warmPool=POOL | {"size": 6, "cap": 6, "namespaces": [NAMESPACE, OTHER]})
    await pooled.until(lambda: [len(members(pooled, one)) for one in (NAMESPACE, OTHER)] == [3, 3], 60)
    made = len(pooled.pods_made)
    await asyncio.sleep(300)
    assert len(pooled.pods_made) == made, "and nothing goes to and fro"


async def test_a_namespace_whose_quota_changes_takes_no_members_from_others(pooled: World) -> None:
    """Each try took a ready member away elsewhere, which was made again when the try had failed; and who changed his
    quota again and again had the others' members made and deleted 200 times a minute."""
    quota = 1

    def admit(pod: Pod) -> None:
        if pod["metadata"]["namespace"] == OTHER and len(members(pooled, OTHER, ready=False)) >= quota:
            raise StatusError(403, "Forbidden", "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1")

    pooled.cluster.admit_pod = admit
    change(pooled, warmPool=POOL | {"size": 6, "cap": 8, "namespaces": [NAMESPACE, OTHER]})
    await pooled.start()
    await asyncio.sleep(120)
    assert [len(members(pooled, one)) for one in (NAMESPACE, OTHER)] == [4, 1]
    made = len(pooled.pods_made)
    await asyncio.sleep(1800)
    assert len(pooled.pods_made) == made
    kept = {pod["metadata"]["uid"] for pod in members(pooled, NAMESPACE)}
    for turn in range(60):
        quota = 0 if turn % 2 else 2
        for pod in members(pooled, OTHER):
            delete(pooled, pod)
        await asyncio.sleep(5)
    assert {pod["metadata"]["uid"] for pod in members(pooled, NAMESPACE)} == kept


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


def series(world: World, name: str, **labels: str) -> float:
    registry = world.operators[-1].parts.metrics.registry
    return registry.get_sample_value(name, {"plugin": PLUGIN} | labels) or 0.0


@pytest.mark.parametrize("way", ["it is deleted", "it has ended", "it runs"])
async def test_a_pools_label_that_comes_and_goes_is_no_claim(pooled: World, way: str) -> None:
    """It made the pool larger by `scaling`, took the cap from others, and was a warm start for the hit rate."""
    spaces = [NAMESPACE, OTHER]
    change(pooled, warmPool=POOL | {"size": SIZE, "cap": 60, "namespaces": spaces, "scaling": {"max": 20}})
    await pooled.start()
    await pooled.until(lambda: all(len(members(pooled, one)) == SIZE for one in spaces))
    pod = members(pooled, OTHER)[0]
    label = pod["metadata"]["labels"][POOL_LABEL]
    edit(pooled, pod, lambda item: item["metadata"].update(finalizers=["example.com/kept"]))
    if way == "it is deleted":
        delete(pooled, pod, 5)
    elif way == "it has ended":
        pooled.exit_pod(pod, 137)
    await asyncio.sleep(10)
    for number in range(80):
        if number % 2:
            edit(pooled, pod, lambda item: item["metadata"]["labels"].update({POOL_LABEL: label}))
        else:
            edit(pooled, pod, lambda item: item["metadata"]["labels"].pop(POOL_LABEL, None))
        await asyncio.sleep(0.05)
    await asyncio.sleep(60)
    assert [len(members(pooled, one)) for one in spaces] == [SIZE, SIZE]
    assert series(pooled, "ecm_warm_pool_starts_total", origin="warm", reason="") == 0


async def test_who_ends_members_before_they_are_ready_gets_no_more(pooled: World) -> None:
    """One that was let live ended the setback of the others each time, so 100 pods a minute were made."""
    size = 20
    before = await one_filled(pooled, size)

    async def attack() -> None:
        while True:
            if len(members(pooled, OTHER)) == size:
                for pod in members(pooled, OTHER):
                    delete(pooled, pod)
            begun = [pod for pod in members(pooled, OTHER, ready=False) if pod["status"].get("phase") == "Running"]
            for pod in [pod for pod in begun if READY_ANNOTATION not in pod["metadata"]["annotations"]][1:]:
                pooled.exit_pod(pod, 137)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(attack())
    try:
        await asyncio.sleep(600)
        assert len(pooled.pods_made) - before <= TIMES * size + 60 + size
        assert told(pooled, OTHER)[0] == "MembersRemoved"
    finally:
        task.cancel()


async def test_agents_that_fall_silent_again_and_again_are_replaced_at_the_same_pace(pooled: World) -> None:
    size = 20
    before = await one_filled(pooled, size)
    for _ in range(240):
        for pod in members(pooled, OTHER)[1:]:
            if (agent := pooled.agents.get(pod["metadata"]["uid"])) is not None:
                agent.end()
        await asyncio.sleep(5)
    made = len(pooled.pods_made) - before
    # 20 minutes at the pace, after the burst.
    assert 100 < made <= TIMES * size + 120 + size


async def test_a_reserved_member_whose_label_is_taken_off_is_a_loss_and_forgotten(pooled: World) -> None:
    """Each was a pod more than its engine needed, without an end, and an entry in a set that was never emptied."""
    await both_filled(pooled)
    running = pooled.operators[-1].parts
    known = running.pools.reservations
    add = known._add

    def taken(reservation: Any) -> None:
        add(reservation)
        pod = pooled.cluster.get(PODS, reservation.pod, namespace=NAMESPACE)
        asyncio.get_running_loop().call_soon(WAYS["taken out"], pooled, pod)

    known._add = taken
    for number in range(40):
        pooled.create(f"v{number}", user=f"u{number}")
        await pooled.until_state(f"v{number}", "Idle", 60)
        pooled.delete(f"v{number}")
    assert known._refused == set()
    assert told(pooled, NAMESPACE)[0] == "MembersRemoved"

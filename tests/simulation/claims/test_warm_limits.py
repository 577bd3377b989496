"""Limits of people hold over claims of a warm pool: what is admitted is what a pod is resized to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from linkis_ecm.engine.admission.limits import parse_limits
from linkis_ecm.engine.names import POOL_LABEL, READY_ANNOTATION
from linkis_ecm.kube.resources import PODS
from linkis_ecm.model.formats import parse_quantity
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.members import MemberAgent, claim_of
from tools.testkit.simulation.world import NAMESPACE, Running, World

pytestmark = pytest.mark.looptime

NAMES = ("g0", "g1", "g2", "g3")
SMALL = {"cpu": "200m", "memory": "256Mi"}
# More than the limit, and as much as it.
BIGGER = ({"cpu": "3", "memory": "512Mi"}, {"cpu": "900m", "memory": "512Mi"})


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Each user may have 1 cpu; the pool's members have 50m."""
    made = World()
    made.agent_type, made.answer_claim = MemberAgent, partial(claim_of, made)
    made.limits = parse_limits('{"user": {"cpu": 1}}')
    yield made
    await made.close()


async def filled(world: World) -> Running:
    """An operator with four ready members."""
    small = {"cpu": "50m", "memory": "256Mi"}
    world.install_plugin(warmPool={"size": 4, "cap": 10, "namespaces": [NAMESPACE], "resources": small})
    running = await world.start()
    await world.until(lambda: len([one for one in world.cluster.all(PODS) if _is_ready(one)]) == 4)
    return running


def _is_ready(pod: dict[str, Any]) -> bool:
    return POOL_LABEL in pod["metadata"]["labels"] and READY_ANNOTATION in pod["metadata"]["annotations"]


def cpu_of(pod: dict[str, Any]) -> Decimal:
    return parse_quantity(pod["spec"]["containers"][0]["resources"]["requests"]["cpu"])


def watch_cpu(world: World) -> list[Decimal]:
    """The cpu of all engines' pods after each change of a pod."""
    seen: list[Decimal] = []

    def add(_: Any) -> None:
        seen.append(sum((cpu_of(pod) for name in NAMES for pod in world.pods(name)), Decimal(0)))

    world.cluster.listen(PODS, add)
    return seen


@pytest.mark.parametrize("size", BIGGER)
async def test_a_spec_that_is_edited_between_claim_and_resize_is_asked_for_again(
    world: World, size: dict[str, str]
) -> None:  # fmt: skip
    await filled(world)
    edited: set[str] = set()

    def edit(change: Any) -> None:
        was_member = change.old is not None and POOL_LABEL in change.old["metadata"]["labels"]
        if was_member and change.new is not None and POOL_LABEL not in change.new["metadata"]["labels"]:
            name = change.new["metadata"]["ownerReferences"][0]["name"]
            if name not in edited:
                edited.add(name)
                asyncio.get_running_loop().call_soon(lambda: world.edit(name, resources=size))

    world.cluster.listen(PODS, edit)
    seen = watch_cpu(world)
    for name in NAMES:
        world.create(name, resources=SMALL)
    await asyncio.sleep(40)
    assert edited == set(NAMES)
    assert max(seen) <= 1
    got = [world.state(name) for name in NAMES]
    # Of those that can never fit none runs; of those that fit alone, one.
    assert got.count("Idle") == (0 if size["cpu"] == "3" else 1)
    assert {world.status(name).get("reason") for name in NAMES if world.state(name) != "Idle"} == {"LimitReached"}


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.02, 0.05])
async def test_an_edit_at_any_moment_after_the_creation_gives_no_more_than_the_limit(
    world: World, delay: float
) -> None:  # fmt: skip
    await filled(world)
    seen = watch_cpu(world)
    for name in NAMES:
        world.create(name, resources=SMALL)
        await asyncio.sleep(delay)
        world.edit(name, resources=BIGGER[1])
    await asyncio.sleep(40)
    assert max(seen) <= 1


async def test_an_operator_that_dies_between_claim_and_resize_opens_no_limit(world: World) -> None:
    running = await filled(world)
    seen = watch_cpu(world)
    late = Fault(verb="patch", resource=PODS, when=lambda call: call.subresource is None, times=None, answer_latency=5)
    world.server.faults.add(late)
    for name in NAMES:
        world.create(name, resources=SMALL)
    await asyncio.sleep(0.5)
    await world.crash(running)
    world.server.faults.clear()
    assert [len(world.pods(name)) for name in NAMES] == [1] * 4
    for name in NAMES:
        world.edit(name, resources=BIGGER[0])
    await world.start("two")
    await asyncio.sleep(60)
    assert max(seen) <= 1
    assert [world.state(name) for name in NAMES] == ["Failed"] * 4


async def test_a_resize_under_way_counts_though_the_spec_is_smaller_by_now(world: World) -> None:
    """The agent has reported, so the engine is confirmed, and the API server has not executed the resize yet."""
    await filled(world)
    seen = watch_cpu(world)
    slow = Fault(verb="patch", resource=PODS, when=lambda call: call.subresource == "resize", latency=2.5)
    world.server.faults.add(slow)
    world.create("g0", resources={"cpu": "900m", "memory": "256Mi"})
    await asyncio.sleep(1)
    world.edit("g0", resources=SMALL)
    world.create("g1", resources={"cpu": "600m", "memory": "256Mi"})
    await asyncio.sleep(30)
    assert slow.played
    assert max(seen) <= 1
    assert world.state("g0") == "Idle"
    assert world.status("g1")["reason"] == "LimitReached"

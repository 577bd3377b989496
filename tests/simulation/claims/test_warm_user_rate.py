"""One user who takes a pod after the other leaves the pool to the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest

from linkis_ecm.engine.admission.limits import parse_limits
from linkis_ecm.engine.names import POOL_LABEL, READY_ANNOTATION
from linkis_ecm.kube.resources import ENGINECONNS, PODS
from tools.testkit.simulation.members import MemberAgent, claim_of
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A pool of four; one engine a user at a time."""
    made = World()
    made.agent_type, made.answer_claim = MemberAgent, partial(claim_of, made)
    made.limits = parse_limits('{"user": {"engines": 1}}')
    made.install_plugin(warmPool={"size": 4, "cap": 12, "namespaces": [NAMESPACE]})
    await made.start()
    await made.until(lambda: ready(made) == 4)
    yield made
    await made.close()


def ready(world: World) -> int:
    marks = (one["metadata"] for one in world.cluster.all(PODS))
    return sum(POOL_LABEL in one["labels"] and READY_ANNOTATION in one["annotations"] for one in marks)


@pytest.mark.parametrize("gap", [0.3, 1.0, 3.0])
async def test_engines_made_and_deleted_again_and_again_take_no_warm_start_from_another_user(
    world: World, gap: float
) -> None:  # fmt: skip
    made: list[str] = []
    starts: list[dict[str, str]] = []

    async def churn() -> None:
        while True:
            name = f"m{len(made)}"
            made.append(name)
            world.create(name, user="mallory")
            await asyncio.sleep(gap)
            starts.append(world.status(name).get("startup") or {})
            world.delete(name)

    task = asyncio.create_task(churn())
    kinds = []
    for number in range(24):
        await asyncio.sleep(5)
        name = f"z{number}"
        world.create(name, user="zoe")
        await world.until_state(name, "Idle", 30)
        kinds.append(world.status(name)["startup"]["kind"])
        world.delete(name)
    task.cancel()
    # Mallory takes four at once at the beginning, which the pool makes anew.
    assert kinds[1:] == ["warm"] * 23
    cold = [one for one in starts if one.get("coldReason") == "UserRate"]
    assert bool(cold) == (gap < 3)
    if cold:
        assert cold[0]["coldBecause"] == (
            "User mallory takes pods of the warm pool of python-3.11 faster than one user may: 4 at once, and then one"
            " each 3 s."
        )


async def test_what_no_member_can_be_given_is_told_before_the_users_rate(world: World) -> None:
    """Another time it would start cold all the same."""
    reasons: list[str | None] = []
    while "UserRate" not in reasons:
        assert len(reasons) < 20
        name = f"m{len(reasons)}"
        world.create(name, user="mallory")
        await world.until_state(name, "Idle", 30)
        reasons.append(world.status(name)["startup"].get("coldReason"))
        world.delete(name)
        await world.until(lambda: not world.cluster.all(ENGINECONNS), 30)
    world.create("odd", user="mallory", stopGrace="3m")
    await world.until_state("odd", "Idle", 30)
    assert world.status("odd")["startup"]["coldReason"] == "Misfit"
    assert "spec.stopGrace" in world.status("odd")["startup"]["coldBecause"]

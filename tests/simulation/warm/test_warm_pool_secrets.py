"""Members whose containers beside the engine have a Secret's value of before are replaced, with a read a minute."""

from __future__ import annotations

import asyncio
import base64
from functools import partial
from typing import Any

import pytest

from linkis_ecm.kube.resources import SECRETS
from tests.simulation.warm.test_warm_pools import change, filled, pooled, ready, uids
from tools.testkit.fakes.cluster import loop_now, timestamp
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.members import MemberAgent, claim_of
from tools.testkit.simulation.world import NAMESPACE, World

__all__ = ["pooled"]

pytestmark = pytest.mark.looptime

PROXY = {
    "name": "proxy", "image": "proxy:1", "resources": {"limits": {"cpu": "1", "memory": "64Mi"}},
    "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "proxy", "key": "token"}}}],
}  # fmt: skip


def write(world: World, value: str) -> None:
    """As a writer of the Secret; the fake API server keeps no managedFields of its own."""
    data = {"token": base64.b64encode(value.encode()).decode()}
    entry = {"manager": "m", "operation": "Update", "time": timestamp(loop_now()), "fieldsV1": {"f:data": {}}}
    if world.cluster.peek(SECRETS, (NAMESPACE, "proxy")) is None:
        world.cluster.create(SECRETS, {"metadata": {"name": "proxy"}, "data": data}, namespace=NAMESPACE)

    def edit(item: dict[str, Any]) -> None:
        item["data"] = data
        item["metadata"]["managedFields"] = [entry]

    world.cluster.change(SECRETS, (NAMESPACE, "proxy"), edit)


async def test_a_secret_that_is_rotated_replaces_the_members_that_have_its_old_value(pooled: World) -> None:
    pooled.agent_type, pooled.answer_claim = MemberAgent, partial(claim_of, pooled)
    write(pooled, "one")
    await asyncio.sleep(5)
    change(pooled, podTemplate={"spec": {"containers": [PROXY]}})
    await pooled.start()
    await filled(pooled)
    await asyncio.sleep(300)
    before = uids(pooled)
    reads = pooled.server.log
    since = len(reads)
    await asyncio.sleep(300)
    assert uids(pooled) == before
    assert 3 <= sum(one.call.resource == SECRETS for one in list(reads)[since:]) <= 6, "once a minute"
    write(pooled, "two")
    await pooled.until(lambda: not before & uids(pooled), 90)
    await filled(pooled)
    after = uids(pooled)
    await asyncio.sleep(300)
    assert uids(pooled) == after
    pooled.create("e")
    await pooled.until_state("e", "Idle", 10)
    assert pooled.status("e")["startup"]["kind"] == "warm"


async def test_a_successor_knows_what_was_rotated_while_nobody_led(pooled: World) -> None:
    write(pooled, "one")
    await asyncio.sleep(5)
    change(pooled, podTemplate={"spec": {"containers": [PROXY]}})
    running = await pooled.start("one")
    await filled(pooled)
    await pooled.crash(running)
    before = uids(pooled)
    await asyncio.sleep(5)
    write(pooled, "two")
    await pooled.start("two")
    await pooled.until(lambda: not before & uids(pooled), 90)
    await filled(pooled)


async def test_without_the_right_to_read_secrets_members_stay(pooled: World) -> None:
    write(pooled, "one")
    pooled.server.faults.add(Fault(verb="get", resource=SECRETS, status=403, reason="Forbidden", times=None))
    change(pooled, podTemplate={"spec": {"containers": [PROXY]}})
    await pooled.start()
    await filled(pooled)
    before = uids(pooled)
    await asyncio.sleep(10)
    write(pooled, "two")
    await asyncio.sleep(300)
    assert uids(pooled) == before
    assert len(ready(pooled)) == 3

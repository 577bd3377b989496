"""maxAge holds while a pool cannot be filled and while its starts fail, and its plugin says what keeps old pods."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from linkis_ecm.engine.times import parse_time
from linkis_ecm.kube.resources import PODS
from tests.simulation.warm.test_warm_pools import (
    PLUGIN,
    POOL,
    change,
    condition,
    filled,
    live,
    members,
    pooled,
    ready,
    uids,
)
from tools.testkit.fakes.cluster import loop_now
from tools.testkit.fakes.rules import StatusError
from tools.testkit.simulation.world import Script, World

__all__ = ["pooled"]

pytestmark = pytest.mark.looptime
AGED = POOL | {"maxAge": "10m"}


def oldest(world: World) -> timedelta:
    made = [parse_time(pod["metadata"]["creationTimestamp"]) for pod in ready(world)]
    return max((loop_now() - one for one in made if one is not None), default=timedelta())


async def test_a_full_quota_does_not_keep_old_members(pooled: World) -> None:
    create: Any = pooled.cluster.create

    def refuse(resource: Any, body: dict[str, Any], **more: Any) -> Any:
        if resource == PODS and len(members(pooled)) >= 3:
            raise StatusError(403, "Forbidden", "exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3")
        return create(resource, body, **more)

    pooled.cluster.create = refuse  # type: ignore[method-assign]
    change(pooled, warmPool=AGED | {"size": 6})
    await pooled.start()
    await pooled.until(lambda: len(ready(pooled)) == 3)
    old, fewest, age = uids(pooled), 3, timedelta()
    for _ in range(160):
        await asyncio.sleep(5)
        fewest, age = min(fewest, len(ready(pooled))), max(age, oldest(pooled))
    assert not old & uids(pooled)
    assert fewest >= 2
    assert age <= timedelta(minutes=11)
    assert condition(pooled)[1] == "QuotaExceeded"


async def test_while_starts_fail_old_members_last_for_one_max_age_more_and_the_plugin_says_so(pooled: World) -> None:
    change(pooled, warmPool=AGED)
    await pooled.start()
    await filled(pooled)
    pooled.scripts[PLUGIN] = Script(preload_fails="No module named pandas.")
    await pooled.until(lambda: condition(pooled)[1] == "PreloadFailed", 620)
    # One is gone: that its successor would fail was not known.
    assert len(ready(pooled)) == 2
    await asyncio.sleep(100)
    assert len(ready(pooled)) == 2
    await pooled.until(lambda: "pods are older than spec.warmPool.maxAge" in condition(pooled)[2], 100)
    await pooled.until(lambda: len(ready(pooled)) == 1, 220)
    assert oldest(pooled) < timedelta(minutes=14)
    await pooled.until(lambda: not ready(pooled), 400)
    # The image is mended in its registry: no change of the plugin.
    pooled.scripts[PLUGIN] = Script()
    await pooled.until(lambda: len(ready(pooled)) == len(live(pooled)) == 3, 400)
    await pooled.until(lambda: condition(pooled)[1] == "Filled")

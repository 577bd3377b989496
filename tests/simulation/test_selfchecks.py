"""The operator looks after itself: a pass that fails, the audit of rows and pods, the canary."""

from __future__ import annotations

import asyncio
import math
import random

import pytest

from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.selfchecks.canary import Canary, CanaryError
from linkis_ecm.controller.workloop.worker import Result
from linkis_ecm.kube.resources import ENGINECONNS, PODS
from linkis_ecm.model.states import EngineState
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime


async def test_a_poison_engine_is_named_on_itself_and_mends(world: World) -> None:
    running = world.operators[0]
    process = running.parts.reconciler.process
    poisoned = True

    async def poison(key: tuple[str, str]) -> Result:
        if poisoned and key[1] == "poison":
            raise RuntimeError("boom")
        return await process(key)

    running.parts.reconciler.process = poison  # type: ignore[method-assign]
    world.create("poison", startTimeout="1h")
    await world.until(lambda: world.condition("poison", "Stalled").get("reason") == "PassFailed", 60)
    assert "boom" in world.condition("poison", "Stalled")["message"]
    writes = world.writes()
    await asyncio.sleep(300)
    assert world.writes() == writes, "said once"
    poisoned = False
    await world.until_state("poison", "Idle", 120)
    assert world.condition("poison", "Stalled") == {}


async def test_the_audit_repairs_rows_and_orphans_on_second_sight(world: World) -> None:
    uid = world.create("e")
    await world.until_state("e", "Idle")
    audit = world.operators[0].parts.audit
    assert await audit.run_once() == {}
    del world.rows.rows[uid]
    orphan = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "orphan", "namespace": NAMESPACE, "labels": world.pods("e")[0]["metadata"]["labels"]},
        "spec": {"containers": [{"name": "engine", "image": "x"}]},
    }  # fmt: skip
    world.cluster.create(PODS, orphan, namespace=NAMESPACE)
    await asyncio.sleep(1)
    assert await audit.run_once() == {}, "what is in motion is left alone"
    assert await audit.run_once() == {"orphan_pod": 1, "row_missing": 1}
    assert world.rows.rows[uid].status is EngineState.IDLE
    await world.until(lambda: [p["metadata"]["name"] for p in world.cluster.all(PODS)] != ["orphan"], 40)
    assert await audit.run_once() == {}


async def test_the_audits_age_counts_while_the_replica_leads(world: World) -> None:
    parts = world.operators[0].parts

    def age() -> float | None:
        return parts.metrics.registry.get_sample_value("ecm_audit_age_seconds")

    assert math.isnan(age() or 0), "it does not lead yet"
    await world.until(parts.leading.is_set)
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(60)
    assert age() == pytest.approx(asyncio.get_running_loop().time() - began, abs=0.1), "an audit that never ends shows"
    await parts.audit.run_once()
    await asyncio.sleep(5)
    assert age() == pytest.approx(5, abs=0.1)
    parts.stop_leading()
    await parts.audit.run_once()
    assert math.isnan(age() or 0), "one that ends late says nothing of the replica that leads now"
    parts.start_leading()
    assert age() == 0


async def test_the_canarys_gauge_says_nothing_before_the_first_round(world: World) -> None:
    await world.until(world.operators[0].parts.reconciler.leading.is_set)
    metrics, leading = Metrics(), asyncio.Event()

    def ok() -> float:
        return metrics.registry.get_sample_value("ecm_canary_ok") or 0.0

    flying = asyncio.create_task(canary(world, metrics).run(leading))
    await asyncio.sleep(100)
    assert math.isnan(ok())
    leading.set()
    await asyncio.sleep(30)
    assert ok() == 1
    world.server.watches.lose(ENGINECONNS)
    await asyncio.sleep(60)
    assert ok() == 0
    leading.clear()
    await asyncio.sleep(100)
    assert math.isnan(ok()), "another replica leads"
    flying.cancel()


def canary(world: World, metrics: Metrics | None = None) -> Canary:
    async def watch_stalled() -> None:
        raise AssertionError("the watch is well")

    parts = world.operators[0].parts
    return Canary(
        client=world.server.client(), cache=parts.cache, rows=world.rows, namespaces=(NAMESPACE,), instance="ecm:9102",
        on_watch_stalled=watch_stalled, rng=random.Random(1), metrics=metrics or Metrics(),
    )  # fmt: skip


async def test_a_canary_flies_end_to_end_and_leaves_nothing(world: World) -> None:
    await world.until(world.operators[0].parts.reconciler.leading.is_set)
    bird = canary(world)
    assert await bird.run_once() < 5
    assert world.rows.rows == {}
    assert world.pods_made == []
    await world.until(lambda: not world.cluster.all(ENGINECONNS), 10)


async def test_a_canary_says_which_part_is_stuck(world: World) -> None:
    await world.until(world.operators[0].parts.reconciler.leading.is_set)
    bird = canary(world)
    world.server.watches.lose(ENGINECONNS)
    with pytest.raises(CanaryError) as stuck:
        await bird.run_once()
    assert stuck.value.phase == "watch"
    await world.until(lambda: not world.cluster.all(ENGINECONNS), 60)

"""A warm pool gives room to an engine by the figures that a ResourceQuota has now."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from linkis_ecm.kube.resources import ENGINECONNS, EVENTS, PODS
from linkis_ecm.model.formats import parse_quantity
from tests.simulation.warm.test_warm_pools import POOL, filled, live, ready
from tools.testkit.fakes.rules import StatusError
from tools.testkit.simulation.members import MemberAgent, claim_of
from tools.testkit.simulation.world import World

pytestmark = pytest.mark.looptime
# Starts cold: members have no such folder.
COLD = {"volumes": [{"name": "scratch", "mountPath": "/scratch", "emptyDir": {}}]}


def counted(pod: dict[str, Any]) -> dict[str, Decimal]:
    found = {"pods": Decimal(1)}
    for container in pod["spec"]["containers"]:
        for kind in ("requests", "limits"):
            for name, amount in (container.get("resources", {}).get(kind) or {}).items():
                key = f"{kind}.{name}"
                found[key] = found.get(key, Decimal(0)) + parse_quantity(str(amount))
    return found


class Quotas:
    """ResourceQuotas of the namespace as the API server has them: it names the first one that is exceeded."""

    def __init__(self, world: World, **hard: dict[str, str]) -> None:
        self.hard, self._world, self._create = hard, world, world.cluster.create
        world.cluster.create = self._checked  # type: ignore[method-assign]
        world.cluster.admit_resize = self._resized

    def used(self) -> dict[str, Decimal]:
        found: dict[str, Decimal] = {}
        for pod in self._world.cluster.all(PODS):
            if pod["status"]["phase"] not in ("Succeeded", "Failed"):
                for name, amount in counted(pod).items():
                    found[name] = found.get(name, Decimal(0)) + amount
        return found

    def _checked(self, resource: Any, body: dict[str, Any], **more: Any) -> Any:
        if resource == PODS:
            self._check(body, counted(body))
        return self._create(resource, body, **more)

    def _resized(self, body: dict[str, Any]) -> None:
        meta = body["metadata"]
        before = self._world.cluster.peek(PODS, (meta["namespace"], meta["name"]))
        assert before is not None
        had = counted(before)
        self._check(body, {name: amount - had.get(name, Decimal(0)) for name, amount in counted(body).items()})

    def _check(self, body: dict[str, Any], more: dict[str, Decimal]) -> None:
        used = self.used()
        for quota, hard in self.hard.items():
            over = sorted(
                name for name, most in hard.items()
                if more.get(name, Decimal(0)) > 0 and used.get(name, Decimal(0)) + more[name] > parse_quantity(most)
            )  # fmt: skip
            if over:
                asked, has = (",".join(f"{name}={amounts.get(name, 0):f}" for name in over) for amounts in (more, used))
                most = ",".join(f"{name}={hard[name]}" for name in over)
                words = f"exceeded quota: {quota}, requested: {asked}, used: {has}, limited: {most}"
                raise StatusError(403, "Forbidden", f'pods "{body["metadata"]["name"]}" is forbidden: {words}')


async def pooled(size: int, hard: dict[str, dict[str, str]], **plugin: Any) -> tuple[World, Quotas]:
    world = World()
    quotas = Quotas(world, **hard)
    plugin = {"startTimeout": "20m", "maxResources": {"cpu": "8", "memory": "16Gi"}} | plugin
    world.install_plugin(warmPool=POOL | {"size": size, "cap": 20}, **plugin)
    await world.start()
    await filled(world, size)
    return world, quotas


async def refused(world: World, name: str, **spec: Any) -> None:
    world.create(name, **COLD, **spec)
    await world.until(lambda: world.status(name).get("reason") == "QuotaExceeded")


async def test_a_pool_gives_way_by_the_figures_of_the_last_refusal() -> None:
    """All four members and what is left are too little at first. Then the quota is raised, and three are enough."""
    world, quotas = await pooled(4, {"q": {"requests.cpu": "4"}})
    world.create("other", resources={"cpu": "2"}, **COLD)
    await world.until_state("other", "Idle")
    await refused(world, "e", resources={"cpu": "4"})
    await asyncio.sleep(60)
    assert len(ready(world)) == 4
    quotas.hard["q"]["requests.cpu"] = "6500m"
    await world.until_state("e", "Idle", 60)
    assert len(live(world)) == 1
    await world.close()


async def test_the_status_follows_the_figures_and_is_not_written_with_each_of_them() -> None:
    world, quotas = await pooled(4, {"q": {"requests.cpu": "4"}})
    await refused(world, "e", resources={"cpu": "8"})
    writes: list[str] = []
    world.cluster.listen(
        ENGINECONNS, lambda change: writes.append(change.new.get("status", {}).get("message", ""))
    )  # fmt: skip
    for second in range(300):
        quotas.hard["q"]["requests.cpu"] = f"{4000 + second}m"
        await asyncio.sleep(1)
    assert 5 <= len(set(writes)) <= 11
    await asyncio.sleep(40)
    said = world.status("e")
    assert "limited: requests.cpu=4299m" in said["message"]
    assert said["conditions"][0]["message"] == said["message"]
    number = len(writes)
    await asyncio.sleep(120)
    assert len(writes) == number
    await world.close()


@pytest.mark.parametrize(
    ("name", "full", "lowered", "asked", "left"),
    [
        ("requests.memory", "6Gi", "4Gi", {"memory": "2Gi"}, 2),
        ("requests.cpu", "3", "2", {"cpu": "1"}, 2),
        ("limits.memory", "6Gi", "5Gi", {"memory": "1Gi"}, 4),
        ("pods", "6", "4", {}, 3),
    ],
)
async def test_after_a_quota_was_lowered_as_many_go_as_it_lacks(
    name: str, full: str, lowered: str, asked: dict[str, str], left: int
) -> None:
    world, quotas = await pooled(6, {"q": {name: full}})
    quotas.hard["q"][name] = lowered
    await refused(world, "e", resources=asked)
    await world.until_state("e", "Idle", 90)
    assert len(live(world)) == left
    await world.close()


async def test_members_count_by_the_memory_that_they_request() -> None:
    """A quarter of the memory is requested: eight members have 2Gi of the quota, and the engine needs 1Gi of it."""
    world, _ = await pooled(8, {"q": {"requests.memory": "2Gi"}}, memoryRequestPercent=25)
    await refused(world, "e", resources={"memory": "4Gi"})
    await world.until_state("e", "Idle", 90)
    assert len(live(world)) == 4
    await world.close()


async def test_of_two_quotas_both_get_what_they_lack() -> None:
    """The API server names the second one when the first one has room."""
    world, _ = await pooled(6, {"a": {"requests.cpu": "3"}, "b": {"requests.memory": "6Gi"}})
    await refused(world, "e", resources={"cpu": "500m", "memory": "4Gi"})
    await world.until_state("e", "Idle", 120)
    assert len(live(world)) == 2
    await world.close()


async def test_a_container_beside_the_engine_counts() -> None:
    """An admission webhook adds one of 250m, so that a member holds 750m of the quota: two leave what the engine needs
    with its own."""
    world = World()
    aside = {"name": "proxy", "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}}}
    world.cluster.admit_pod = lambda pod: pod["spec"]["containers"].append(aside)
    Quotas(world, q={"requests.cpu": "3"})
    world.install_plugin(warmPool=POOL | {"size": 4}, startTimeout="20m")
    await world.start()
    await filled(world, 4)
    await refused(world, "e", resources={"cpu": "1250m"})
    await world.until_state("e", "Idle", 60)
    assert len(live(world)) == 2
    await world.close()


async def test_an_engine_whose_room_another_one_took_gets_the_rest() -> None:
    """Four members leave the 2 cpu that the first engine asks for, and the second one is quicker by 500m."""
    world, _ = await pooled(6, {"q": {"requests.cpu": "3"}})
    await refused(world, "first", resources={"cpu": "2"})
    await asyncio.sleep(3)
    world.create("second", resources={"cpu": "500m"}, **COLD)
    await world.until_state("second", "Idle", 60)
    await world.until_state("first", "Idle", 60)
    assert len(live(world)) == 1
    await world.close()


async def test_others_that_take_all_that_an_engine_gets_do_not_empty_the_pool_for_ever() -> None:
    """Somebody's own pods, which the operator does not see, take each place of a quota on pods at once."""
    world, quotas = await pooled(8, {"q": {"pods": "8"}})

    def taken() -> dict[str, Decimal]:
        found = type(quotas).used(quotas)
        return found | {"pods": max(found["pods"], Decimal(8) - Decimal(len(live(world)) % 2) / 2)}

    quotas.used = taken  # type: ignore[method-assign]
    await refused(world, "e")
    fewest = 8
    for _ in range(200):
        await asyncio.sleep(1)
        fewest = min(fewest, len(live(world)))
    assert fewest == 5
    assert world.status("e")["reason"] == "QuotaExceeded"
    await world.close()


def request(world: World, name: str, kind: str = "cpu") -> str:
    (pod,) = world.pods(name)
    return str(pod["spec"]["containers"][0]["resources"]["requests"][kind])


async def test_a_pool_gives_back_what_it_took_from_a_paused_engine() -> None:
    """The pool has two members beside the engine, and fills up with what the pause gives. At its end two go."""
    world = World()
    Quotas(world, q={"requests.cpu": "2"})
    world.install_plugin(warmPool=POOL | {"size": 4}, softPause={"after": "2m", "cpu": "50m"})
    await world.start()
    await filled(world, 4)
    world.create("e", resources={"cpu": "1"}, **COLD)
    await world.until_state("e", "Idle", 60)
    assert len(live(world)) == 2
    await asyncio.sleep(900)
    assert (request(world, "e"), len(live(world))) == ("50m", 3)
    world.agent("e").become("Busy")
    await world.until(lambda: request(world, "e") == "1", 30)
    await asyncio.sleep(30)
    assert world.condition("e", "Resized") == {}
    assert len(live(world)) == 2
    await world.close()


async def warm(world: World, memory: str) -> None:
    world.agent_type, world.answer_claim = MemberAgent, partial(claim_of, world)
    small = {"cpu": "100m", "memory": "256Mi"}
    world.install_plugin(warmPool=POOL | {"size": 8, "resources": small})
    await world.start()
    await filled(world, 8)
    world.create("e", resources={"cpu": "100m", "memory": memory})
    await world.until_state("e", "Idle", 60)
    assert world.status("e")["startup"]["kind"] == "warm"


async def test_a_pool_gives_way_to_the_resize_of_a_warm_start() -> None:
    """Eight members of 256Mi fill the quota; the engine takes one and asks for 768Mi more: three go."""
    world = World()
    Quotas(world, q={"requests.memory": "2Gi"})
    await warm(world, "1Gi")
    await world.until(lambda: request(world, "e", "memory") == "1Gi", 60)
    await world.until(lambda: world.condition("e", "Resized") == {}, 30)
    await asyncio.sleep(120)
    assert len(live(world)) == 4
    await world.close()


async def test_a_pool_stays_where_it_cannot_help_a_resize_and_the_engine_is_told() -> None:
    world = World()
    Quotas(world, q={"requests.memory": "2Gi"})
    await warm(world, "4Gi")
    await asyncio.sleep(300)
    assert len(live(world)) == 7
    (said,) = (event["note"] for event in world.cluster.all(EVENTS) if event["reason"] == "WarmPoolStays")
    assert "the quota would then have 1792Mi of memory where it asks for 3840Mi" in said
    assert "with updateResource" in said
    await world.close()


@pytest.mark.parametrize(
    ("word", "says", "left"), [("Deferred", True, 6), ("Deferred", False, 6), ("Infeasible", True, 8)]
)
async def test_members_of_its_node_go_for_a_resize_that_the_kubelet_defers(word: str, says: bool, left: int) -> None:
    """The kubelet has no room for 512Mi more: two members of 256Mi leave it. One that can never be is no reason."""
    world = World()
    await warm(world, "768Mi")
    await filled(world, 8)
    (pod,) = world.pods("e")

    def defer(item: dict[str, Any]) -> None:
        why = {"type": "PodResizePending", "status": "True", "reason": word}
        item["status"]["conditions"].append(why | {"message": "Node didn't have enough resource: memory"})
        has = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "256Mi"}}
        if says:
            item["status"]["containerStatuses"][0]["resources"] = has

    world.cluster.change(PODS, ("engines", pod["metadata"]["name"]), defer)
    fewest = 8
    for _ in range(40):
        await asyncio.sleep(1)
        fewest = min(fewest, len(live(world)))
    assert world.condition("e", "Resized")["reason"] == word
    assert fewest == left
    await world.close()

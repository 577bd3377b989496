"""A watched namespace that is gone, forbidden or full does not stop the others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from linkis_ecm.controller.selfchecks.canary import Canary
from linkis_ecm.controller.settings import OperatorSettings
from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.feeds import Feeds
from linkis_ecm.kube.resources import ENGINECONNS, PODS
from tools.testkit.fakes.faults import Call, Fault
from tools.testkit.world import NAMESPACE, World

pytestmark = pytest.mark.looptime
WATCHED = (NAMESPACE, "default")


@pytest.fixture
def world(bare_world: World) -> World:
    return bare_world


def deny(world: World, status: int, namespace: str = "default") -> None:
    """The API server's answer for whatever is in that namespace, until the faults are cleared."""

    def there(call: Call) -> bool:
        # Not the operator's own Lease, which is there, too.
        return call.namespace == namespace and call.resource in (ENGINECONNS, PODS)

    reason = {403: "Forbidden", 404: "NotFound"}.get(status, "ServerError")
    world.server.faults.add(Fault(when=there, times=None, status=status, reason=reason, message="no such namespace"))


def metric(world: World, name: str) -> float | None:
    return world.operators[0].parts.metrics.registry.get_sample_value(name)


@pytest.mark.parametrize("status", [403, 404])
async def test_an_operator_starts_without_a_namespace_and_serves_it_when_it_is_back(
    world: World, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    deny(world, status)
    running = await world.start(watch_namespaces=WATCHED)
    world.create("e")
    await world.until_state("e", "Idle", 30)
    assert running.parts.ready() == ""
    assert "default" in running.parts.namespaces.note
    assert "no such namespace" in running.parts.namespaces.note
    assert metric(world, "ecm_namespaces_unserved") == 1
    assert sum("the namespace default is gone, or" in line for line in caplog.messages) == 1
    world.server.faults.clear()
    body: dict[str, Any] = {"metadata": {"name": "late", "namespace": "default"},
                            "spec": {"engineType": "python", "user": "hadoop"}}  # fmt: skip
    world.cluster.create(ENGINECONNS, body, namespace="default")
    await world.until(lambda: metric(world, "ecm_namespaces_unserved") == 0, 30)
    await world.until(lambda: any(one["metadata"]["namespace"] == "default" for one in world.cluster.all(PODS)), 30)
    assert running.parts.namespaces.note == ""


async def test_a_namespace_that_goes_while_the_operator_runs_ends_nothing_elsewhere(world: World) -> None:
    running = await world.start(watch_namespaces=WATCHED)
    world.create("e")
    await world.until_state("e", "Idle", 30)
    deny(world, 403)
    world.server.watches.expire(PODS)
    ended: list[set[str]] = []
    world.rows.resync = lambda live, now: ended.append(live) or []  # type: ignore[method-assign,func-returns-value]
    await asyncio.sleep(1300)
    assert running.parts.namespaces.unserved.keys() == {"default"}
    assert world.state("e") == "Idle"
    # The rows of engines there are not ended: they may live.
    assert ended == []
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success")
    world.server.faults.clear()
    await asyncio.sleep(1300)
    assert ended


async def test_an_api_server_that_fails_is_still_waited_for(world: World) -> None:
    deny(world, 500)
    running = await world.start(watch_namespaces=WATCHED)
    await asyncio.sleep(60)
    assert not running.parts.synced
    world.server.faults.clear()
    await world.until(lambda: running.parts.synced, 30)


@pytest.mark.parametrize("status", [403, 404])
async def test_a_gateway_opens_without_a_namespace(world: World, status: int) -> None:
    deny(world, status)
    engines, plugins = EngineCache(), PluginCache()
    feeds = Feeds(world.server.client(), engines=engines, plugins=plugins, namespaces=WATCHED)
    tasks = [asyncio.create_task(one.run()) for one in feeds.reflectors]
    await world.until(lambda: engines.synced and plugins.synced, 30)
    world.server.faults.clear()
    body: dict[str, Any] = {"metadata": {"name": "late"}, "spec": {"engineType": "python", "user": "hadoop"}}
    world.cluster.create(ENGINECONNS, body, namespace="default")
    await world.until(lambda: [one.name for one in engines] == ["late"], 30)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# --- the canary


def of_canary(call: Call) -> bool:
    return call.verb == "create" and call.resource is ENGINECONNS


def canary(world: World, *namespaces: str) -> Canary:
    parts = world.operators[0].parts
    made = parts.canary
    made._namespaces = namespaces
    return made


async def test_a_full_quota_of_one_tenant_does_not_close_the_gateway(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    running = await world.start()
    await world.until(running.parts.leading.is_set)
    words = "exceeded quota: few, requested: count/engineconns.linkis.apache.org=1"
    world.server.faults.add(Fault(when=of_canary, times=None, status=403, reason="Forbidden", message=words))
    task = asyncio.create_task(canary(world, NAMESPACE).run(running.parts.leading))
    await asyncio.sleep(600)
    assert running.parts.ready() == ""
    assert words in caplog.text
    assert metric(world, "ecm_canary_ok") == 0
    world.server.faults.clear()
    await world.until(lambda: metric(world, "ecm_canary_ok") == 1, 100)
    task.cancel()


async def test_the_canary_goes_where_it_is_let(world: World) -> None:
    running = await world.start()
    await world.until(running.parts.leading.is_set)
    world.server.faults.add(
        Fault(when=lambda call: of_canary(call) and call.namespace == "default", times=None, status=403)
    )
    assert await canary(world, "default", NAMESPACE).run_once() < 5


async def test_what_the_server_says_of_a_stuck_canary_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    running = await world.start()
    await world.until(running.parts.leading.is_set)
    world.server.faults.add(Fault(when=of_canary, times=None, status=500, message="etcd is not there"))
    task = asyncio.create_task(canary(world, NAMESPACE).run(running.parts.leading))
    await world.until(lambda: "create" in running.parts.ready(), 300)
    assert "etcd is not there" in caplog.text
    task.cancel()


def test_the_canary_is_in_the_operators_own_namespace_if_that_is_watched() -> None:
    from linkis_ecm.controller.operator import _canary_namespaces

    def of(*watched: str) -> tuple[str, ...]:
        return _canary_namespaces(
            OperatorSettings(
                database_url="", ecm_instance="e:1", report_url="http://op:9103", token_key=b"k" * 32,  # type: ignore[arg-type]
                namespace="own", identity="one", archive_url="memory://", watch_namespaces=watched,  # type: ignore[arg-type]
            )
        )  # fmt: skip

    assert of() == ("own",)
    assert of("a", "own", "b") == ("own", "a", "b")
    assert of("a", "b") == ("a", "b")

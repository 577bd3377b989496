"""A watched namespace that is gone, forbidden or full does not stop the others."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from linkis_ecm.controller.selfchecks.canary import Canary, CanaryRefusedError
from linkis_ecm.controller.settings import OperatorSettings
from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.feeds import Feeds
from linkis_ecm.kube.resources import ENGINECONNS, PODS
from tools.testkit.fakes.faults import Call, Fault
from tools.testkit.fakes.watches import Change
from tools.testkit.simulation.world import NAMESPACE, World

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
    world.rows.resync = lambda live, now, listed: ended.append(set(listed)) or []  # type: ignore
    await asyncio.sleep(1300)
    assert running.parts.namespaces.unserved.keys() == {"default"}
    assert world.state("e") == "Idle"
    # The rows of engines there are not ended: they may live.
    assert {NAMESPACE} in ended
    assert set().union(*ended) == {NAMESPACE}
    world.edit("e", desiredState="Stopped")
    await world.until_state("e", "Success")
    world.server.faults.clear()
    await asyncio.sleep(1300)
    assert ended[-1] == set(WATCHED)


async def test_a_pod_whose_engine_is_not_listed_is_not_deleted_while_the_engine_may_live(world: World) -> None:
    running = await world.start()
    world.create("e")
    await world.until_state("e", "Idle", 30)
    # The cache lacks an engine whose list is refused, while the list of pods is served.
    engine = world.cluster.get(ENGINECONNS, "e", namespace=NAMESPACE)
    running.parts.cache.drop_engine((NAMESPACE, "e"), engine["metadata"]["uid"])
    pods = [one["metadata"]["uid"] for one in world.pods("e")]
    for _ in range(3):
        assert "orphan_pod" not in await running.parts.audit.run_once()
    refused = Fault(verb="get", resource=ENGINECONNS, times=None, status=403, reason="Forbidden")
    world.server.faults.add(refused)
    assert "orphan_pod" not in await running.parts.audit.run_once()
    assert refused.played
    assert [one["metadata"]["uid"] for one in world.pods("e")] == pods
    world.server.faults.clear()
    # No object of Kubernetes says so: nobody serves that path now.
    world.server.faults.add(Fault(verb="get", resource=ENGINECONNS, times=None, status=404, reason="HTTP404"))
    assert "orphan_pod" not in await running.parts.audit.run_once()
    assert [one["metadata"]["uid"] for one in world.pods("e")] == pods


async def test_the_audit_asks_nothing_of_a_namespace_that_is_not_served(world: World) -> None:
    running = await world.start(watch_namespaces=WATCHED)
    world.create("e")
    await world.until_state("e", "Idle", 30)
    deny(world, 403, NAMESPACE)
    world.server.watches.expire(ENGINECONNS)
    await world.until(lambda: NAMESPACE in running.parts.namespaces.unserved, 30)
    engine = world.cluster.get(ENGINECONNS, "e", namespace=NAMESPACE)
    running.parts.cache.drop_engine((NAMESPACE, "e"), engine["metadata"]["uid"])
    since = len(world.server.log)
    for _ in range(3):
        await running.parts.audit.run_once()
    assert [one.call for one in list(world.server.log)[since:] if one.call.verb in ("get", "delete")] == []


async def test_a_namespace_is_served_again_when_its_watch_is_taken_and_not_at_its_next_event(world: World) -> None:
    await world.start(watch_namespaces=WATCHED)
    await world.until(lambda: len(world.cluster.watches.opened(ENGINECONNS)) == 2, 30)
    deny(world, 403)
    world.server.watches.end()
    await world.until(lambda: metric(world, "ecm_namespaces_unserved") == 1, 30)
    await asyncio.sleep(60)
    world.server.faults.clear()
    # A retry comes after 5 s at most, a bookmark after a minute.
    await world.until(lambda: metric(world, "ecm_namespaces_unserved") == 0, 6)


@pytest.mark.parametrize("what", ["pods", "watch"])
async def test_a_namespace_is_not_served_while_one_of_its_requests_is_refused(
    world: World, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    running = await world.start(watch_namespaces=WATCHED)
    await world.until(lambda: len(world.cluster.watches.opened(ENGINECONNS)) == 2, 30)

    def there(call: Call) -> bool:
        of_it = call.resource is PODS if what == "pods" else (call.verb, call.resource) == ("watch", ENGINECONNS)
        return call.namespace == "default" and of_it

    world.server.faults.add(Fault(when=there, times=None, status=403, reason="Forbidden", message="half of the rights"))
    world.server.watches.end()
    await world.until(lambda: "default" in running.parts.namespaces.unserved, 30)
    for _ in range(3):
        # The list of engines is served.
        await running.parts.resync.run_once()
        assert running.parts.namespaces.unserved.keys() == {"default"}
        await asyncio.sleep(60)
    assert sum("the namespace default is gone, or" in line for line in caplog.messages) == 1
    world.server.faults.clear()
    await world.until(lambda: not running.parts.namespaces.unserved, 6)


async def test_rows_of_a_namespace_that_is_not_watched_are_left_and_counted(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    running = await world.start(watch_namespaces=WATCHED)
    world.create("e")
    await world.until_state("e", "Idle", 30)
    row = next(iter(world.rows.rows.values()))
    world.rows.rows["elsewhere"] = replace(row, ticket_id="elsewhere", namespace="former")
    for _ in range(2):
        await running.parts.resync.end_absent_rows()
    assert metric(world, "ecm_rows_unwatched") == 1
    assert sum("the namespace former is not watched" in line for line in caplog.messages) == 1


async def test_an_api_server_that_fails_is_still_waited_for(world: World) -> None:
    deny(world, 500)
    running = await world.start(watch_namespaces=WATCHED)
    await asyncio.sleep(60)
    assert not running.parts.watches.synced
    world.server.faults.clear()
    await world.until(lambda: running.parts.watches.synced, 30)


@pytest.mark.parametrize("status", [403, 404])
async def test_a_gateway_opens_without_a_namespace(world: World, status: int) -> None:
    deny(world, status)
    engines, plugins = EngineCache(), PluginCache()
    feeds = Feeds(
        world.server.client(), engines=engines, plugins=plugins, namespaces=WATCHED, configmap=("default", "em")
    )
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


async def test_where_watches_are_refused_no_canary_is_made(world: World) -> None:
    running = await world.start(watch_namespaces=WATCHED)
    await world.until(running.parts.leading.is_set)

    def there(call: Call) -> bool:
        return (call.namespace, call.verb, call.resource) == ("default", "watch", ENGINECONNS)

    world.server.faults.add(Fault(when=there, times=None, status=403, reason="Forbidden"))
    world.server.watches.end(ENGINECONNS)
    await world.until(lambda: "default" in running.parts.namespaces.unserved, 30)
    made = running.parts.canary
    assert made._namespaces == ("default", NAMESPACE)
    assert await made.run_once() < 5
    deny(world, 403, NAMESPACE)
    world.server.watches.end(ENGINECONNS)
    await world.until(lambda: len(running.parts.namespaces.unserved) == 2, 30)
    with pytest.raises(CanaryRefusedError, match="no namespace is served"):
        await made.run_once()


@pytest.mark.parametrize("what", ["status", "watch"])
async def test_what_one_namespace_does_to_the_canary_does_not_close_the_operator(world: World, what: str) -> None:
    """Its roles give no status, or somebody there deletes each canary before it is seen."""
    running = await world.start(watch_namespaces=WATCHED)
    await world.until(running.parts.leading.is_set)
    if what == "status":
        refused = Fault(
            when=lambda call: call.namespace == "default" and call.subresource == "status",
            times=None, status=403, reason="Forbidden",
        )  # fmt: skip
        world.server.faults.add(refused)
    else:

        def drop(change: Change) -> None:
            metadata = change.new["metadata"]
            if change.old is None and metadata["namespace"] == "default":
                delete = partial(world.cluster.delete, ENGINECONNS, metadata["name"], namespace="default")
                asyncio.get_running_loop().call_soon(delete)

        world.cluster.listen(ENGINECONNS, drop)
    task = asyncio.create_task(running.parts.canary.run(running.parts.leading))
    await asyncio.sleep(600)
    assert not task.done()
    assert running.parts.ready() == ""
    assert metric(world, "ecm_canary_ok") == 1
    failures = running.parts.metrics.registry.get_sample_value(
        "ecm_canary_failures_total", {"phase": "decide" if what == "status" else "watch"}
    )
    assert failures == 1
    task.cancel()


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

"""A warm pool is filled, refilled, drained and explained, whatever the API server or the operator's process does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.view import EngineView
from linkis_ecm.kube.resources import ENGINECONNS, PLUGINS, PODS
from linkis_ecm.model.plugin import EngineConnPluginStatus
from tools.testkit.fakes.rules import StatusError
from tools.testkit.simulation.world import NAMESPACE, Running, Script, World

pytestmark = pytest.mark.looptime

PLUGIN = "python-3.11"
POOL = {"size": 3, "cap": 10, "namespaces": [NAMESPACE], "preload": ["pandas"]}


@pytest.fixture
async def pooled() -> AsyncIterator[World]:
    """A cluster whose plugin has a pool: the test starts its operators."""
    made = World()
    made.install_plugin(warmPool=POOL)
    yield made
    await made.close()


def members(world: World, namespace: str | None = None) -> list[dict[str, Any]]:
    found = [pod for pod in world.cluster.all(PODS) if "linkis.apache.org/warm-pool" in pod["metadata"]["labels"]]
    return [pod for pod in found if namespace in (None, pod["metadata"]["namespace"])]


def live(world: World, namespace: str | None = None) -> list[dict[str, Any]]:
    return [pod for pod in members(world, namespace) if "deletionTimestamp" not in pod["metadata"]]


def ready(world: World, namespace: str | None = None) -> list[dict[str, Any]]:
    found = live(world, namespace)
    return [pod for pod in found if "linkis.apache.org/warm-ready" in pod["metadata"]["annotations"]]


def uids(world: World) -> set[str]:
    return {pod["metadata"]["uid"] for pod in members(world)}


def status(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.cluster.get(PLUGINS, PLUGIN).get("status", {})
    EngineConnPluginStatus.model_validate(found)
    return found


def condition(world: World) -> tuple[str, str, str]:
    found = [one for one in status(world).get("conditions", []) if one["type"] == "WarmPoolReady"]
    return (found[0]["status"], found[0]["reason"], found[0]["message"]) if found else ("", "", "")


def change(world: World, **spec: Any) -> None:
    world.cluster.patch(PLUGINS, PLUGIN, {"spec": spec})


def edit_pod(world: World, pod: dict[str, Any], change: Any) -> None:
    world.cluster.change(PODS, (pod["metadata"]["namespace"], pod["metadata"]["name"]), change)


async def filled(world: World, number: int = 3) -> None:
    await world.until(lambda: len(ready(world)) == len(members(world)) == number)


def reservations(running: Running) -> Any:
    return running.parts.pools.reservations


def engine_of(running: Running, name: str) -> EngineView:
    return running.parts.cache.engines[NAMESPACE, name]


async def test_a_pool_is_filled_and_says_so(pooled: World) -> None:
    await pooled.start()
    await filled(pooled)
    await pooled.until(lambda: condition(pooled)[:2] == ("True", "Filled"))
    assert status(pooled)["warmPool"] == {
        "summary": "3/3", "ready": 3, "starting": 0, "wanted": 3,
        "namespaces": [{"namespace": NAMESPACE, "ready": 3, "starting": 0, "wanted": 3, "sizeFrom": "Value"}],
    }  # fmt: skip
    pod = ready(pooled)[0]
    assert [one["kind"] for one in pod["metadata"]["ownerReferences"]] == ["EngineConnPlugin"]
    said = json.loads(pod["metadata"]["annotations"]["linkis.apache.org/warm-ready"])
    assert said == {"enrolment": "0123456789abcdef" * 2, "keyId": said["keyId"], "takes": ["env", "workingDir"],
        "seal": said["seal"],
    }  # fmt: skip
    # No row, no engine, and a settled pool makes no write.
    assert pooled.rows.rows == {}
    before = pooled.server.writes()
    await asyncio.sleep(200)
    assert {label: n for (_, label), n in (pooled.server.writes() - before).items() if label != "leases"} == {}


async def test_a_pool_costs_two_writes_for_each_member_and_few_for_the_status(pooled: World) -> None:
    await pooled.start()
    await filled(pooled)
    await asyncio.sleep(10)
    writes = pooled.server.writes()
    assert writes["create", "pods"] == 3
    assert writes["patch", "pods"] == 3
    assert writes["patch", "engineconnplugins/status"] <= 3


async def test_what_is_lost_is_made_again(pooled: World) -> None:
    await pooled.start()
    await filled(pooled)
    gone = ready(pooled)[0]["metadata"]
    pooled.cluster.delete(PODS, gone["name"], namespace=NAMESPACE, grace_seconds=0)
    await filled(pooled)
    assert gone["name"] not in {pod["metadata"]["name"] for pod in members(pooled)}


async def test_a_changed_plugin_drains_its_pool_and_a_size_of_0_ends_it(pooled: World) -> None:
    await pooled.start()
    await filled(pooled)
    old = {pod["metadata"]["uid"] for pod in members(pooled)}
    change(pooled, image="engine:2")
    await pooled.until(lambda: len(ready(pooled)) == 3 and not old & uids(pooled))
    assert {pod["spec"]["containers"][0]["image"] for pod in members(pooled)} == {"engine:2"}
    change(pooled, warmPool=POOL | {"size": 0})
    await pooled.until(lambda: not members(pooled))
    await pooled.until(lambda: not status(pooled).get("warmPool") and condition(pooled) == ("", "", ""))


async def test_a_change_that_no_pod_has_leaves_the_members(pooled: World) -> None:
    await pooled.start()
    await filled(pooled)
    old = {pod["metadata"]["uid"] for pod in members(pooled)}
    change(pooled, ttlAfterFinished="1h", warmPool=POOL | {"size": 4})
    await filled(pooled, 4)
    assert old < {pod["metadata"]["uid"] for pod in members(pooled)}


async def test_a_deleted_plugin_has_no_members(pooled: World) -> None:
    running = await pooled.start()
    await filled(pooled)
    pooled.cluster.delete(PLUGINS, PLUGIN)
    await pooled.until(lambda: not members(pooled))
    await asyncio.sleep(120)
    assert running.parts.pools._memory == {}


async def test_two_namespaces_have_a_pool_each_under_one_cap(pooled: World) -> None:
    change(pooled, warmPool={"size": 3, "cap": 5, "namespaces": [NAMESPACE, "default"]})
    await pooled.start()
    await pooled.until(lambda: len(ready(pooled)) == 5)
    assert sorted(len(ready(pooled, name)) for name in (NAMESPACE, "default")) == [2, 3]
    await pooled.until(lambda: condition(pooled)[1] == "CapReached")
    assert "Raise spec.warmPool.cap" in condition(pooled)[2]
    change(pooled, warmPool={"size": 3, "cap": 6, "namespaces": [NAMESPACE, "default"]})
    await filled(pooled, 6)
    change(pooled, warmPool={"size": 3, "cap": 6, "namespaces": ["default"]})
    await pooled.until(lambda: not members(pooled, NAMESPACE) and len(ready(pooled, "default")) == 3)
    await pooled.until(lambda: status(pooled)["warmPool"]["summary"] == "3/3")


async def test_the_cap_counts_what_is_ending(pooled: World) -> None:
    change(pooled, warmPool=POOL | {"cap": 3})
    await pooled.start()
    await filled(pooled)
    most = 0

    def count(_: Any) -> None:
        nonlocal most
        most = max(most, len(members(pooled)))

    pooled.cluster.listen(PODS, count)
    change(pooled, image="engine:2")
    await pooled.until(lambda: {p["spec"]["containers"][0]["image"] for p in ready(pooled)} == {"engine:2"})
    await filled(pooled)
    assert most == 3


async def test_a_pool_without_a_namespace_says_what_to_write(pooled: World) -> None:
    change(pooled, warmPool={"size": 3, "namespaces": None})
    await pooled.start()
    await pooled.until(lambda: condition(pooled)[1] == "NoNamespace")
    assert "spec.warmPool.namespaces" in condition(pooled)[2]
    assert members(pooled) == []


async def test_without_namespaces_the_pool_is_where_the_installation_serves(pooled: World) -> None:
    change(pooled, warmPool={"size": 1, "namespaces": None})
    await pooled.start(watch_namespaces=(NAMESPACE, "default"))
    await filled(pooled, 2)
    assert {pod["metadata"]["namespace"] for pod in members(pooled)} == {NAMESPACE, "default"}


async def test_a_pool_larger_than_the_quota_says_so_and_is_filled_when_there_is_room(pooled: World) -> None:
    quota = 2

    def admit(pod: dict[str, Any]) -> None:
        if len(pooled.cluster.all(PODS)) >= quota:
            raise StatusError(403, "Forbidden", "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2")

    pooled.cluster.admit_pod = admit
    await pooled.start()
    await pooled.until(lambda: len(ready(pooled)) == 2 and condition(pooled)[:2] == ("False", "QuotaExceeded"))
    assert "used: pods=2" in condition(pooled)[2]
    assert "have the quota raised" in condition(pooled)[2]
    before = pooled.server.writes()["create", "pods"]
    await asyncio.sleep(600)
    # 2, 4, 8 … 256 s apart.
    assert pooled.server.writes()["create", "pods"] - before <= 9
    quota = 10
    await pooled.until(lambda: len(ready(pooled)) == 3, 400)
    await pooled.until(lambda: condition(pooled)[:2] == ("True", "Filled"))


async def test_a_pool_gives_way_to_an_engine_that_waits_for_quota(pooled: World) -> None:
    def admit(pod: dict[str, Any]) -> None:
        if sum(one.get("status", {}).get("phase") != "Succeeded" for one in pooled.cluster.all(PODS)) >= 3:
            raise StatusError(403, "Forbidden", "exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3")

    await pooled.start()
    await filled(pooled)
    pooled.cluster.admit_pod = admit
    # It cannot be given a member: only a pod of its own has its volume.
    pooled.create("e", volumes=[{"name": "d", "mountPath": "/data", "persistentVolumeClaim": {"claimName": "c"}}])
    await pooled.until(lambda: condition(pooled)[1] == "GivesWay")
    await pooled.until_state("e", "Idle", 30)
    assert len(live(pooled)) == 2
    await asyncio.sleep(30)
    assert len(live(pooled)) == 2
    pooled.edit("e", desiredState="Stopped")
    await pooled.until_state("e", "Success")
    await pooled.until(lambda: len(ready(pooled)) == 3, 100)


async def test_an_image_that_cannot_be_pulled_is_named(pooled: World) -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image engine:1"}
    stuck = {"phase": "Pending", "containerStatuses": [{"name": "engine", "state": {"waiting": waiting}}]}
    pooled.scripts[PLUGIN] = Script(stuck=stuck)
    await pooled.start()
    await pooled.until(lambda: condition(pooled)[:2] == ("False", "ImagePullBackOff"))
    assert "Back-off pulling image engine:1" in condition(pooled)[2]
    assert len(members(pooled)) == 3


async def test_a_preload_that_fails_is_named_and_tried_ever_more_slowly(pooled: World) -> None:
    pooled.scripts[PLUGIN] = Script(preload_fails="pandas: No module named 'pandas'")
    running = await pooled.start()
    await pooled.until(lambda: condition(pooled)[:2] == ("False", "PreloadFailed"))
    assert "No module named 'pandas'" in condition(pooled)[2]
    await asyncio.sleep(600)
    # Three at once, then one at a time, 2, 4, 8 … 256 s apart.
    assert len(pooled.pods_made) <= 3 + 9
    assert ready(pooled) == []
    deletes = running.parts.metrics.pools.deletes.labels(PLUGIN, "failed")._value.get()
    assert deletes + running.parts.metrics.pools.deletes.labels(PLUGIN, "ended")._value.get() >= 3
    # Somebody mends the image: the plugin's change is tried at once.
    pooled.scripts[PLUGIN] = Script()
    change(pooled, image="engine:2")
    await filled(pooled)


async def test_a_member_whose_agent_never_answers_is_replaced(pooled: World) -> None:
    pooled.scripts[PLUGIN] = Script(silent=True)
    await pooled.start()
    await pooled.until(lambda: condition(pooled)[1] == "StartTimeout", 200)
    pooled.scripts[PLUGIN] = Script()
    await filled(pooled)


async def test_members_that_wait_for_a_queue_are_kept(pooled: World) -> None:
    """agent-sandbox#1735: a pool deleted what Kueue held, and made it again, for ever."""

    def gate(pod: dict[str, Any]) -> None:
        pod["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]

    pooled.cluster.admit_pod = gate
    pooled.scripts[PLUGIN] = Script(stuck={"phase": "Pending"})
    await pooled.start()
    await pooled.until(lambda: condition(pooled)[:2] == ("False", "SchedulingGated"))
    await asyncio.sleep(2000)
    assert len(pooled.pods_made) == 3


async def test_a_member_that_was_tampered_with_is_never_given_out(pooled: World) -> None:
    running = await pooled.start()
    await filled(pooled)
    pod = ready(pooled)[0]
    edit_pod(pooled, pod, lambda item: item["spec"]["containers"][0].update(image="evil:1"))
    await pooled.until(lambda: pod["metadata"]["uid"] not in {p["metadata"]["uid"] for p in live(pooled)})
    await filled(pooled)
    assert running.parts.metrics.pools.deletes.labels(PLUGIN, "tampered")._value.get() == 1


async def test_an_image_that_a_webhook_rewrites_is_no_tampering(pooled: World) -> None:
    def mirror(pod: dict[str, Any]) -> None:
        pod["spec"]["containers"][0]["image"] = "mirror/engine:1"

    pooled.cluster.admit_pod = mirror
    await pooled.start()
    await filled(pooled)
    await asyncio.sleep(100)
    assert len(pooled.pods_made) == 3


async def test_old_members_are_replaced_while_the_pool_stays_full(pooled: World) -> None:
    change(pooled, warmPool=POOL | {"maxAge": "10m"})
    await pooled.start()
    await filled(pooled)
    old = {pod["metadata"]["uid"] for pod in members(pooled)}
    fewest = 3

    def count(_: Any) -> None:
        nonlocal fewest
        fewest = min(fewest, len(ready(pooled)))

    pooled.cluster.listen(PODS, count)
    await pooled.until(lambda: not old & {pod["metadata"]["uid"] for pod in members(pooled)}, 700)
    await filled(pooled)
    assert fewest == 2


async def test_a_second_agent_of_a_members_pod_is_refused(pooled: World) -> None:
    await pooled.start()
    await filled(pooled)
    agent = pooled.agents[ready(pooled)[0]["metadata"]["uid"]]
    first, agent.key, agent.nonce = agent.nonce, "", "f" * 32
    assert agent.report() == 403
    agent.nonce = first
    # Its answer got lost: the same agent gets the same key again.
    assert agent.report() == 204
    assert agent.key


async def test_a_strangers_reports_as_a_member_are_refused(pooled: World) -> None:
    running = await pooled.start()
    await filled(pooled)
    agent = pooled.agents[ready(pooled)[0]["metadata"]["uid"]]
    agent.sequence += 1_000_000
    assert agent.report() == 409
    agent.sequence = 50
    agent.key = "x" * 43
    assert agent.report() == 401
    agent.key = ""
    agent.pod["metadata"]["uid"] = "another"
    assert agent.report() == 404
    pooled.create("e", volumes=[{"name": "d", "mountPath": "/data", "emptyDir": {}}])
    await pooled.until_state("e", "Idle")
    # An engine's agent is no member, whatever it says.
    own = pooled.agent("e")
    own.key = ""
    assert own.report(uid="member", attempt=0) == 404
    assert running.parts.cache.pools() == [(NAMESPACE, PLUGIN)]


@pytest.mark.parametrize("what", [{"member": 3}, {"member": {"ready": "yes"}}, {"member": {"ready": True, "takes": 5}}])
async def test_what_a_member_says_in_an_odd_form_makes_it_not_ready_or_takes_nothing(
    pooled: World, what: dict[str, Any]
) -> None:
    pooled.scripts[PLUGIN] = Script(silent=True)
    running = await pooled.start()
    await pooled.until(lambda: len(pooled.agents) == 3)
    agent = next(iter(pooled.agents.values()))
    agent.state = "Idle"
    assert agent.report(**what) == 204
    await asyncio.sleep(1)
    members = [pod.member for pod in running.parts.cache.members(NAMESPACE, PLUGIN)]
    takes = [one.takes for one in members if one is not None and one.ready is not None]
    assert takes == ([frozenset()] if what["member"] == {"ready": True, "takes": 5} else [])


async def test_a_claimed_pod_is_left_alone_and_another_one_is_made(pooled: World) -> None:
    """Between the pool's look and its delete an engine may claim the member: then the pod is the engine's."""
    running = await pooled.start()
    await filled(pooled)
    pool = running.parts.pools
    view: PodView = running.parts.cache.members(NAMESPACE, PLUGIN)[0]
    pooled.cluster.create(
        ENGINECONNS, {"apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn",
                      "metadata": {"name": "e", "namespace": NAMESPACE},
                      "spec": {"engineType": "nothing", "user": "amy"}}, namespace=NAMESPACE)  # fmt: skip
    engine = pooled.cluster.get(ENGINECONNS, "e", namespace=NAMESPACE)["metadata"]

    def claim(item: dict[str, Any]) -> None:
        del item["metadata"]["labels"]["linkis.apache.org/warm-pool"]
        item["metadata"]["ownerReferences"] = [{"kind": "EngineConn", "name": "e", "uid": engine["uid"]}]

    pooled.cluster.change(PODS, (NAMESPACE, view.name), claim)
    assert await pool._writes.delete(view) is False
    found = pooled.cluster.get(PODS, view.name, namespace=NAMESPACE)
    assert "deletionTimestamp" not in found["metadata"]
    await filled(pooled)
    # Nobody was offered it: whoever writes such a label and owner is no start of an engine.
    assert running.parts.metrics.registry.get_sample_value("ecm_warm_pool_age_at_claim_seconds_count") == 0


async def test_a_refused_member_is_deleted(pooled: World) -> None:
    running = await pooled.start()
    await filled(pooled)
    view = running.parts.cache.members(NAMESPACE, PLUGIN)[0]
    reservations(running).refused(view)
    await pooled.until(lambda: view.uid not in {pod["metadata"]["uid"] for pod in live(pooled)})
    await filled(pooled)


async def test_a_standby_takes_over_with_the_members_that_are_there(pooled: World) -> None:
    first = await pooled.start("one")
    await filled(pooled)
    uids = {pod["metadata"]["uid"] for pod in members(pooled)}
    second = await pooled.start("two")
    await asyncio.sleep(1)
    await pooled.crash(first)
    await pooled.until(second.parts.leading.is_set, 60)
    await asyncio.sleep(30)
    assert {pod["metadata"]["uid"] for pod in ready(pooled)} == uids
    assert len(pooled.pods_made) == 3


async def test_two_installations_leave_each_others_members_and_status_alone(pooled: World) -> None:
    change(pooled, warmPool={"size": 2, "cap": 4, "namespaces": [NAMESPACE, "default"]})
    await pooled.start("one", watch_namespaces=(NAMESPACE,), ecm_instance="a:9102", lease_name="a")
    await pooled.start(
        "two", watch_namespaces=("default",), ecm_instance="b:9102", lease_name="b", report_url="http://10.0.0.8:9103"
    )
    await filled(pooled, 4)
    await pooled.until(lambda: status(pooled).get("warmPool", {}).get("summary") == "4/4")
    await asyncio.sleep(10)
    before = pooled.server.writes()["patch", "engineconnplugins/status"]
    await asyncio.sleep(300)
    assert pooled.server.writes()["patch", "engineconnplugins/status"] == before
    assert condition(pooled)[:2] == ("True", "Filled")


async def test_the_metrics_say_what_the_status_says(pooled: World) -> None:
    change(pooled, warmPool=POOL | {"cap": 2, "size": 2})
    running = await pooled.start()
    await filled(pooled, 2)
    value = running.parts.metrics.registry.get_sample_value
    await asyncio.sleep(3)
    assert value("ecm_warm_pool_members", {"plugin": PLUGIN, "state": "ready"}) == 2
    assert value("ecm_warm_pool_wanted", {"plugin": PLUGIN}) == 2
    assert value("ecm_warm_pool_creates_total", {"plugin": PLUGIN, "outcome": "made"}) == 2
    change(pooled, warmPool={"size": 2, "cap": 2, "namespaces": [NAMESPACE, "default"]})
    await pooled.until(lambda: value("ecm_warm_pool_problem", {"plugin": PLUGIN, "reason": "CapReached"}) == 1)
    change(pooled, warmPool=POOL | {"size": 0})
    await pooled.until(lambda: not members(pooled))
    change(pooled, warmPool=None)
    await pooled.until(lambda: value("ecm_warm_pool_wanted", {"plugin": PLUGIN}) is None)
    assert value("ecm_warm_pool_problem", {"plugin": PLUGIN, "reason": "CapReached"}) is None

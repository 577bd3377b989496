"""Two operators of one installation, each with namespaces of its own: who serves which, and how a namespace moves."""

from __future__ import annotations

import asyncio
import json
import random
from functools import partial
from typing import Any

import pytest

from linkis_ecm.controller.settings import OperatorSettings
from linkis_ecm.kube.resources import CONFIGMAPS, ENGINECONNS, NAMESPACES, PLUGINS, PODS, Resource
from tools.testkit.fakes.faults import Call, Fault
from tools.testkit.simulation.members import MemberAgent, claim_of
from tools.testkit.simulation.world import Running, Script, World

pytestmark = pytest.mark.looptime

CLAIMS = "ecm-shards"
REST, LEFT, RIGHT = "ecm-operator", "ecm-operator-left", "ecm-operator-right"
# The world's own namespace is one of them.
SPACES = ("engines", "lab")


@pytest.fixture
async def world(bare_world: World) -> World:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CLAIMS}}
    bare_world.cluster.create(CONFIGMAPS, body, namespace="default")
    for name in ("lab", "attic"):
        bare_world.cluster.create(NAMESPACES, {"metadata": {"name": name}})
    return bare_world


def shard(lease: str, serves: tuple[str, ...], **others: tuple[str, ...]) -> dict[str, Any]:
    """A shard's settings, as the chart makes them. `others`: what other shards serve, by the end of their Leases."""
    neighbours = {REST: ()} | {f"ecm-operator-{name}": spaces for name, spaces in others.items()}
    return {
        "lease_name": lease, "watch_namespaces": serves, "shards_configmap": CLAIMS,
        "neighbours": {name: spaces for name, spaces in neighbours.items() if name != lease},
        "report_urls": {one: f"http://reports-{one}:9103" for one in serves},
    }  # fmt: skip


ALONE = {"lease_name": REST, "watch_namespaces": SPACES, "shards_configmap": CLAIMS}
BEFORE_SHARDS = {"lease_name": REST, "watch_namespaces": SPACES}
ON_LEFT = shard(LEFT, ("engines",), right=("lab",))
ON_RIGHT = shard(RIGHT, ("lab",), left=("engines",))


def create(world: World, namespace: str, name: str, script: Script | None = None, **spec: Any) -> None:
    world.scripts[name] = script or Script()
    body = {
        "apiVersion": "linkis.apache.org/v1alpha1", "kind": "EngineConn",
        "metadata": {"name": name, "namespace": namespace}, "spec": {"engineType": "python", "user": "hadoop"} | spec,
    }  # fmt: skip
    world.cluster.create(ENGINECONNS, body, namespace=namespace)


def state(world: World, namespace: str, name: str) -> str:
    status = world.cluster.get(ENGINECONNS, name, namespace=namespace).get("status", {})
    return str(status.get("engineState", ""))


async def idle(world: World, namespace: str, name: str, seconds: float = 60) -> None:
    await world.until(lambda: state(world, namespace, name) == "Idle", seconds)


def claims(world: World) -> dict[str, list[str]]:
    data = world.cluster.get(CONFIGMAPS, CLAIMS, namespace="default").get("data") or {}
    return {name: json.loads(text)["namespaces"] for name, text in data.items()}


def metric(running: Running, name: str) -> float | None:
    return running.parts.metrics.registry.get_sample_value(name)


def serves(running: Running, *namespaces: str) -> bool:
    return all(running.parts.leading.is_set() and running.parts.claims.serves(one) for one in namespaces)


async def end(world: World, running: Running) -> None:
    """As at SIGTERM: its Lease is free at once."""
    await world.crash(running)
    await running.parts.lease.release()


async def test_each_of_two_shards_serves_its_own_namespaces(world: World) -> None:
    left, right = await world.start("l", **ON_LEFT), await world.start("r", **ON_RIGHT)
    create(world, "engines", "e")
    create(world, "lab", "f")
    await idle(world, "engines", "e")
    await idle(world, "lab", "f")
    assert list(left.parts.cache.engines) == [("engines", "e")]
    assert list(right.parts.cache.engines) == [("lab", "f")]
    assert {"engines", "lab"} <= {name for names in claims(world).values() for name in names}
    # Each knows whose the other rows are: it ends none of them, and does not speak of them.
    for running in (left, right):
        await running.parts.resync.end_absent_rows()
        assert metric(running, "ecm_rows_unwatched") == 0
        assert metric(running, "ecm_shards") == 2
        assert metric(running, "ecm_foreign_engines") == 0
        assert running.parts.ready() == running.parts.note == ""
    assert {row.status.value for row in world.rows.rows.values()} == {"Idle"}
    assert len(world.pods_made) == len(set(world.pods_made)) == 2


async def test_a_shard_that_is_killed_leaves_the_other_ones_namespaces_alone_and_comes_back(world: World) -> None:
    left, right = await world.start("l", **ON_LEFT), await world.start("r", **ON_RIGHT)
    for space, name in (("engines", "e"), ("lab", "f")):
        create(world, space, name)
        await idle(world, space, name)
    await world.crash(left)
    create(world, "engines", "waits")
    create(world, "lab", "goes")
    await idle(world, "lab", "goes", 10)
    await asyncio.sleep(60)
    # Nobody but its own successor serves a shard's namespaces.
    assert state(world, "engines", "waits") == ""
    assert [one[0] for one in right.parts.cache.engines] == ["lab", "lab"]
    since = len(world.server.log)
    again = await world.start("l2", **ON_LEFT)
    await idle(world, "engines", "waits", 30)
    written = [one.call for one in list(world.server.log)[since:] if one.call.verb in ("create", "patch", "delete")]
    # Nothing is written of the engine that was there.
    assert {call.name for call in written if call.resource is ENGINECONNS} == {"waits"}
    assert sum(call.resource is PODS for call in written) == 1
    assert serves(again, "engines")
    assert len(world.pods_made) == len(set(world.pods_made)) == 4


async def test_the_common_work_is_one_shards_and_another_one_takes_it_over(world: World) -> None:
    left, right = await world.start("l", **ON_LEFT), await world.start("r", **ON_RIGHT)
    await world.until(lambda: serves(left, "engines") and serves(right, "lab"))
    (first,) = (one for one in (left, right) if one.parts.claims.serves("(common)"))
    other = right if first is left else left
    # Also the other one is ready, and says nothing of it.
    assert other.parts.ready() == other.parts.note == ""
    await world.crash(first)
    await world.until(lambda: other.parts.claims.serves("(common)"), 30)
    assert serves(other, *other.parts.settings.watch_namespaces)


@pytest.mark.parametrize("before", [ALONE, BEFORE_SHARDS], ids=["with claims", "of a version before"])
async def test_one_operator_becomes_two_shards_and_nothing_is_lost(world: World, before: dict[str, Any]) -> None:
    old = await world.start("old", **before)
    for n, space in enumerate(SPACES):
        create(world, space, f"e{n}")
        await idle(world, space, f"e{n}")
    writes = world.writes()
    left, right = await world.start("l", **ON_LEFT), await world.start("r", **ON_RIGHT)
    await world.until(lambda: left.parts.leading.is_set() and right.parts.leading.is_set())
    await asyncio.sleep(60)
    # The old one leads: it alone serves, and a new engine gets one pod.
    assert left.parts.claims.waiting == {"engines": REST}
    assert "waits for other shards: lab (ecm-operator)" in right.parts.note
    assert metric(right, "ecm_namespaces_waiting") == 1
    assert world.writes() == writes
    create(world, "lab", "late", Script(ready=20))
    await world.until(lambda: world.pods("late"))
    await world.crash(old)
    await world.until(lambda: serves(left, "engines") and serves(right, "lab"), 30)
    await idle(world, "lab", "late", 120)
    assert len(world.pods_made) == len(set(world.pods_made)) == 3
    # Its pods know the address of all operators: who does not serve them says so, and they find who does.
    for name in ("e0", "e1"):
        assert world.agent(name).env["ECM_REPORT_URL"] == "http://10.0.0.9:9103"
        assert world.agent(name).report() == 204
    await asyncio.sleep(120)
    assert {row.status.value for row in world.rows.rows.values()} == {"Idle"}
    assert metric(left, "ecm_engines_not_reporting") == metric(right, "ecm_engines_not_reporting") == 0


async def test_a_report_to_the_wrong_shard_is_answered_as_by_a_replica_that_waits(world: World) -> None:
    left, right = await world.start("l", **ON_LEFT), await world.start("r", **ON_RIGHT)
    create(world, "lab", "f")
    await idle(world, "lab", "f")
    agent = world.agent("f")
    agent.sequence += 1
    reply = left.parts.reports.answer(agent.key, json.dumps(agent.body()).encode())
    assert (reply.status, reply.sentence) == (503, "another shard serves this namespace; connect again")
    # Who is no agent learns nothing of the shards.
    assert left.parts.reports.answer("x" * 64, json.dumps(agent.body()).encode()).status == 401
    assert right.parts.reports.answer(agent.key, json.dumps(agent.body()).encode()).status == 204


# Each seed is another order of ends, starts and creates; each begins and ends with all namespaces served.
@pytest.mark.parametrize("seed", range(12))
async def test_a_namespace_moves_while_engines_are_made(world: World, seed: int) -> None:
    rng = random.Random(seed)
    world.server.latency = lambda: rng.uniform(0, 0.05)
    spaces = ("engines", "lab", "attic")
    before = {
        "l": shard(LEFT, ("engines", "attic"), right=("lab",)),
        "r": shard(RIGHT, ("lab",), left=("engines", "attic")),
    }
    after = {
        "l": shard(LEFT, ("engines",), right=("lab", "attic")),
        "r": shard(RIGHT, ("lab", "attic"), left=("engines",)),
    }
    old = {name: await world.start(f"{name}-old", **settings) for name, settings in before.items()}
    names: list[tuple[str, str]] = []

    async def make(count: int) -> None:
        for _ in range(count):
            space, name = rng.choice(spaces), f"e{len(names)}"
            names.append((space, name))
            create(world, space, name, Script(start=rng.uniform(0, 1), ready=rng.uniform(0, 3)))
            await asyncio.sleep(rng.choice([0, rng.uniform(0, 0.3)]))

    await make(10)
    started: list[Running] = []
    ending = list(old.values())
    # The rollout of two Deployments: in any order, each new pod before or after its old one is gone.
    steps = [("start", "l"), ("start", "r"), ("end", "l"), ("end", "r")]
    rng.shuffle(steps)
    for what, name in steps:
        await make(5)
        if what == "start":
            started.append(await world.start(f"{name}-new", **after[name]))
        elif rng.random() < 0.5:
            await world.crash(old[name])
        else:
            await end(world, old[name])
        assert not any(
            sum(serves(one, space) for one in world.operators if space in one.parts.settings.watch_namespaces) > 1
            for space in spaces
        )
    assert ending
    for space, name in names:
        await idle(world, space, name, 120)
    assert len(world.pods_made) == len(set(world.pods_made)) == len(names)
    await asyncio.sleep(400)
    assert {row.status.value for row in world.rows.rows.values()} == {"Idle"}
    assert len(world.rows.rows) == len(names)
    assert {state(world, *one) for one in names} == {"Idle"}
    new = {one.parts.settings.lease_name: one for one in started}
    assert serves(new[RIGHT], "lab", "attic")
    assert serves(new[LEFT], "engines")
    assert claims(world)[LEFT] in (["engines"], ["(common)", "engines"])
    # Agents of the namespace that moved report to who serves it now.
    assert all(world.agent(name).answers[-1] == 204 for _, name in names)


async def test_while_the_old_shard_lives_on_the_new_one_serves_what_is_free(world: World) -> None:
    """The rollout of one shard hangs, such as of an image that cannot be pulled."""
    old = await world.start("old", **shard(LEFT, ("engines", "attic"), right=("lab",)))
    await world.until(lambda: serves(old, "engines", "attic"))
    new = await world.start("new", **shard(RIGHT, ("lab", "attic"), left=("engines",)))
    create(world, "lab", "f")
    await idle(world, "lab", "f", 10)
    create(world, "attic", "g")
    await idle(world, "attic", "g", 10)
    await asyncio.sleep(300)
    assert new.parts.claims.waiting == {"attic": LEFT}
    assert world.agent("g").env["ECM_REPORT_URL"] == "http://reports-attic:9103"
    row = next(row for row in world.rows.rows.values() if row.name == "g")
    assert row.status.value == "Idle"
    # Its old shard goes on, and so does it.
    assert serves(old, "attic")
    assert new.parts.ready() == ""


async def test_two_shards_become_one_operator(world: World) -> None:
    left, right = await world.start("l", **ON_LEFT), await world.start("r", **ON_RIGHT)
    await world.until(lambda: serves(left, "engines") and serves(right, "lab"))
    create(world, "lab", "f")
    await idle(world, "lab", "f")
    one = await world.start("one", **ALONE)
    await world.until(one.parts.leading.is_set)
    await asyncio.sleep(30)
    assert one.parts.claims.waiting == {"engines": LEFT, "lab": RIGHT}
    await world.crash(left)
    await end(world, right)
    await world.until(lambda: serves(one, "lab"), 3)
    await world.until(lambda: serves(one, "engines"), 30)
    create(world, "engines", "e")
    await idle(world, "engines", "e")
    assert state(world, "lab", "f") == "Idle"
    assert len(world.pods_made) == 2


async def test_an_operator_of_all_namespaces_waits_for_a_shard_of_one(world: World) -> None:
    right = await world.start("r", **ON_RIGHT)
    await world.until(lambda: serves(right, "lab"))
    wide = await world.start("wide", **ALONE | {"watch_namespaces": ()})
    create(world, "engines", "e")
    await idle(world, "engines", "e", 20)
    assert not wide.parts.claims.serves("lab")
    assert "lab" in wide.parts.claims.unserved
    await end(world, right)
    await world.until(lambda: wide.parts.claims.serves("lab"), 5)


async def test_each_shard_writes_the_status_of_its_own_namespaces_of_a_warm_pool(world: World) -> None:
    world.agent_type, world.answer_claim = MemberAgent, partial(claim_of, world)
    world.cluster.patch(PLUGINS, "python-3.11", {"spec": {"warmPool": {"size": 2, "cap": 4}}})
    await world.start("l", **ON_LEFT)
    await world.start("r", **ON_RIGHT)

    def pool() -> dict[str, Any]:
        status: dict[str, Any] = world.cluster.get(PLUGINS, "python-3.11").get("status") or {}
        return status.get("warmPool") or {}

    await world.until(lambda: pool().get("ready") == 4, 60)
    assert [(one["namespace"], one["ready"]) for one in pool()["namespaces"]] == [("engines", 2), ("lab", 2)]
    await asyncio.sleep(10)
    before = sum(count for (_, label), count in world.server.writes().items() if label.startswith("engineconnplugins"))
    await asyncio.sleep(300)
    after = sum(count for (_, label), count in world.server.writes().items() if label.startswith("engineconnplugins"))
    assert after == before
    made = [one["metadata"]["namespace"] for one in world.cluster.all(PODS)]
    assert sorted(made) == ["engines", "engines", "lab", "lab"]
    # An engine of each namespace takes one of its own.
    for space, name in (("engines", "e"), ("lab", "f")):
        create(world, space, name)
        await idle(world, space, name, 20)
    await world.until(lambda: pool().get("ready") == 4, 60)


async def test_a_pool_in_another_shards_namespace_is_no_problem_of_this_one(world: World) -> None:
    world.cluster.patch(PLUGINS, "python-3.11", {"spec": {"warmPool": {"size": 1, "cap": 1, "namespaces": ["lab"]}}})
    left = await world.start("l", **ON_LEFT)
    await world.until(lambda: serves(left, "engines"))
    await asyncio.sleep(30)
    assert "conditions" not in (world.cluster.get(PLUGINS, "python-3.11").get("status") or {})


async def test_a_pool_of_a_namespace_that_another_shard_still_serves_is_left_alone(world: World) -> None:
    pool = {"size": 2, "cap": 4, "namespaces": list(SPACES)}
    world.cluster.patch(PLUGINS, "python-3.11", {"spec": {"warmPool": pool}})
    old = await world.start("old", **ALONE)
    await world.until(lambda: len(world.cluster.all(PODS)) == 4, 60)
    uids = {one["metadata"]["uid"] for one in world.cluster.all(PODS)}
    left, right = await world.start("l", **ON_LEFT), await world.start("r", **ON_RIGHT)
    await world.until(lambda: left.parts.leading.is_set() and right.parts.leading.is_set())
    await asyncio.sleep(200)
    assert {one["metadata"]["uid"] for one in world.cluster.all(PODS)} == uids
    # Also where the old one has no time to say so: nobody calls them unserved.
    await world.crash(old)
    world.cluster.patch(PLUGINS, "python-3.11", {"status": {"warmPool": None}}, subresource="status")
    await asyncio.sleep(3)
    said = (world.cluster.get(PLUGINS, "python-3.11").get("status") or {}).get("warmPool") or {}
    assert not any("reason" in one for one in said.get("namespaces", ()))
    await world.until(lambda: serves(left, "engines") and serves(right, "lab"))


@pytest.mark.parametrize("status", [403, 404])
async def test_without_the_claims_a_shard_is_not_ready_and_an_operator_alone_serves(world: World, status: int) -> None:
    def claims_of(call: Call) -> bool:
        return call.resource is CONFIGMAPS

    reason = {403: "Forbidden", 404: "NotFound"}[status]
    world.server.faults.add(Fault(when=claims_of, times=None, status=status, reason=reason))
    left = await world.start("l", **ON_LEFT)
    await world.until(lambda: "ConfigMap ecm-shards" in left.parts.ready())
    create(world, "engines", "e")
    await asyncio.sleep(30)
    assert state(world, "engines", "e") == ""
    # It leads, so no other alert tells.
    assert metric(left, "ecm_leading") == 1
    assert metric(left, "ecm_namespaces_waiting") == 1
    await world.crash(left)
    await world.start("alone", **ALONE)
    await idle(world, "engines", "e", 20)


async def test_a_claim_that_is_lost_is_written_again(world: World) -> None:
    left = await world.start("l", **ON_LEFT)
    await world.until(lambda: serves(left, "engines"))
    world.cluster.patch(CONFIGMAPS, CLAIMS, {"data": None}, namespace="default")
    await world.until(lambda: "engines" in claims(world).get(LEFT, ()), 15)
    assert serves(left, "engines")


async def test_a_shard_whose_lease_is_lost_serves_nothing_until_it_has_it_again(world: World) -> None:
    left = await world.start("l", **ON_LEFT)
    await world.until(lambda: serves(left, "engines"))

    def lease(call: Call) -> bool:
        return call.resource.plural == "leases"

    world.server.faults.add(Fault(when=lease, times=None, status=500))
    await world.until(lambda: not left.parts.leading.is_set(), 20)
    assert not left.parts.claims.serves("engines")
    assert not left.parts.claims.serving.is_set()
    world.server.faults.clear()
    await world.until(lambda: serves(left, "engines"), 20)


def test_the_settings_of_these_tests_are_ones_that_an_operator_takes() -> None:
    assert set(ON_LEFT) | set(ALONE) <= OperatorSettings.model_fields.keys()
    assert isinstance(CONFIGMAPS, Resource)

"""A pool's pod is claimed while the admission policies are read, and is given nothing of an engine before they were.

Where watches show that what was read is still there, it is claimed without a reading, if the claim needs no Secret.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from linkis_ecm.kube.resources import PLUGINS, PODS, POLICIES, POLICY_BINDINGS, SECRETS, Resource
from tests.simulation.people.test_admission_gap import NAMES, install, uninstall
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.members import AnyPool, add_members, members_left
from tools.testkit.simulation.world import NAMESPACE, Running, World

pytestmark = pytest.mark.looptime


@pytest.fixture
async def world(world: World) -> World:
    world.install_plugin(warmPool={"size": 2})
    return world


async def leading(world: World, *, watched: bool = True) -> Running:
    """`watched`: whether the operator may list and watch the policies, as the chart's role lets it."""
    install(world)
    if not watched:
        for resource in (POLICIES, POLICY_BINDINGS):
            world.server.faults.add(Fault(verb="list", resource=resource, status=403, times=None))
    await asyncio.sleep(10)
    running = await world.start(pool=AnyPool(world), admission_policies=NAMES)
    await world.until(running.parts.reconciler.leading.is_set)
    await world.until(lambda: running.parts.policies.last is not None)
    await asyncio.sleep(1)
    return running


def readings(client: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the client reads from now on, as it is answered."""
    read: list[str] = []
    get = client.get

    async def reading(resource: Resource, *names: Any, **options: Any) -> Any:
        found = await get(resource, *names, **options)
        read.append(resource.plural)
        return found

    monkeypatch.setattr(client, "get", reading)
    return read


async def test_the_policies_are_read_beside_the_claim(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = (await leading(world, watched=False)).parts.client
    (agent,) = add_members(world, "m1")
    await asyncio.sleep(1)
    order: list[str] = []
    get, patch = client.get, client.patch_operations

    async def reading(resource: Resource, *names: Any, **options: Any) -> Any:
        found = await get(resource, *names, **options)
        order.extend(["read"] * (resource in (POLICIES, POLICY_BINDINGS)))
        return found

    async def claiming(*arguments: Any, **options: Any) -> Any:
        order.append("claim sent")
        await asyncio.sleep(0.05)
        assert agent.claims_taken == []
        return await patch(*arguments, **options)

    monkeypatch.setattr(client, "get", reading)
    monkeypatch.setattr(client, "patch_operations", claiming)
    writes = world.writes()
    world.create("mine")
    await world.until_state("mine", "Idle", 5)
    assert order == ["claim sent", *["read"] * 4], "each once"
    assert world.status("mine")["startup"]["kind"] == "warm"
    assert world.status("mine")["admission"]["policies"]
    assert world.writes() - writes == 2


async def test_a_claim_reads_no_policies_that_are_watched(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await leading(world)
    add_members(world, "m1")
    await asyncio.sleep(1)
    read = readings(running.parts.client, monkeypatch)
    writes = world.writes()
    world.create("mine", env=[{"name": "A", "value": "b"}])
    await world.until_state("mine", "Idle", 5)
    assert read == []
    assert world.status("mine")["startup"]["kind"] == "warm"
    assert world.status("mine")["admission"]["policies"] == running.parts.policies.last.identity
    assert world.writes() - writes == 2


@pytest.mark.parametrize("watched", [True, False])
async def test_an_engine_whose_policies_went_is_not_admitted_and_its_pod_is_told_nothing(
    world: World, watched: bool
) -> None:
    await leading(world, watched=watched)
    (agent,) = add_members(world, "m1")
    await asyncio.sleep(1)
    uninstall(world)
    world.create("mine", env=[{"name": "PASSWORD", "value": "x"}])
    await world.until_state("mine", "Failed")
    assert world.status("mine")["reason"] == "NotAdmitted"
    assert agent.claims_taken == []
    if watched:
        # The watch was quicker than the engine, which has taken nobody's member.
        assert members_left(world) == ["m1"]
        world.cluster.delete(PODS, "m1", namespace=NAMESPACE, grace_seconds=0)
    await world.until(lambda: world.cluster.all(PODS) == [])
    # It is known now, and the next engine takes nobody's member.
    add_members(world, "m2")
    world.create("other")
    await world.until_state("other", "Failed")
    assert members_left(world) == ["m2"]


@pytest.mark.parametrize("what", ["a policy is deleted", "a binding denies nothing any more", "a policy is made anew"])
async def test_a_policy_that_changes_while_a_pod_is_claimed_is_known_before_its_agent_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    client = (await leading(world)).parts.client
    (agent,) = add_members(world, "m1")
    await asyncio.sleep(1)
    patch = client.patch_operations

    async def claiming(*arguments: Any, **options: Any) -> Any:
        if what == "a binding denies nothing any more":
            world.cluster.patch(POLICY_BINDINGS, NAMES[1], {"spec": {"validationActions": ["Audit"]}})
        else:
            world.cluster.delete(POLICIES, NAMES[0])
        if what == "a policy is made anew":
            world.cluster.create(POLICIES, {"metadata": {"name": NAMES[0]}, "spec": {"failurePolicy": "Fail"}})
        await asyncio.sleep(0.01)
        return await patch(*arguments, **options)

    monkeypatch.setattr(client, "patch_operations", claiming)
    world.create("mine")
    await world.until_state("mine", "Failed")
    assert world.status("mine")["reason"] == "NotAdmitted"
    assert agent.claims_taken == []


@pytest.mark.parametrize("trouble", ["cut", "silent"])
async def test_a_watch_that_shows_nothing_any_more_stands_for_no_reading(
    world: World, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """A silent one ends after 70 s; until then what it does not show is found by the reading each 30 s."""
    running = await leading(world)
    add_members(world, "m1", "m2")
    assert running.parts.policies.are_watched()
    for resource in (POLICIES, POLICY_BINDINGS):
        world.server.faults.add(Fault(verb="watch", resource=resource, status=500, times=None))
        if trouble == "cut":
            world.server.watches.cut(resource)
        else:
            world.server.watches.silence(resource)
    await asyncio.sleep(1 if trouble == "cut" else 71)
    assert not running.parts.policies.are_watched()
    read = readings(running.parts.client, monkeypatch)
    world.create("mine")
    await world.until_state("mine", "Idle", 5)
    assert sorted(read) == sorted([POLICIES.plural, POLICY_BINDINGS.plural] * 2)
    world.server.faults.clear()
    # The first bookmark of a new watch comes after a minute.
    await asyncio.sleep(70)
    assert running.parts.policies.are_watched()
    read.clear()
    world.create("other")
    await world.until_state("other", "Idle", 5)
    assert read == []


async def test_a_deletion_that_no_watch_shows_is_found_by_the_next_reading(world: World) -> None:
    running = await leading(world)
    add_members(world, "m1")
    for resource in (POLICIES, POLICY_BINDINGS):
        world.server.watches.silence(resource)
    uninstall(world)
    await asyncio.sleep(31)
    assert running.parts.policies.last.missing
    assert not running.parts.policies.are_watched()
    world.create("mine")
    await world.until_state("mine", "Failed")
    assert members_left(world) == ["m1"]


async def test_no_secret_is_read_for_an_engine_before_the_policies_were(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = (await leading(world)).parts.client
    (agent,) = add_members(world, "m1")
    secret = {"metadata": {"name": "db", "namespace": NAMESPACE}, "data": {"password": "c2VzYW1l"}}
    world.cluster.create(SECRETS, secret, namespace=NAMESPACE)
    await asyncio.sleep(1)
    order: list[str] = []
    get = client.get

    async def reading(resource: Resource, *names: Any, **options: Any) -> Any:
        found = await get(resource, *names, **options)
        order.append(resource.plural)
        return found

    monkeypatch.setattr(client, "get", reading)
    env = [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]
    world.create("mine", env=env)
    await world.until_state("mine", "Idle", 5)
    assert agent.claims_taken[0]["ECM_ENV_PASSWORD"] == "sesame"
    assert sorted(order[:4]) == sorted([POLICIES.plural, POLICY_BINDINGS.plural] * 2)
    assert order[4:] == ["secrets"]
    # Without the policies nobody's Secret is looked at, and no member is taken.
    add_members(world, "m2")
    order.clear()
    uninstall(world)
    world.create("other", env=env)
    await world.until_state("other", "Failed")
    assert world.status("other")["reason"] == "NotAdmitted"
    assert "secrets" not in order
    assert members_left(world) == ["m2"]


@pytest.mark.parametrize("status", [403, 500])
async def test_policies_that_cannot_be_read_hold_the_claim_up(world: World, status: int) -> None:
    """Without the right to read them they count as missing; without an answer the next pass asks again."""
    await leading(world, watched=False)
    (agent,) = add_members(world, "m1")
    await asyncio.sleep(1)
    world.server.faults.add(Fault(verb="get", resource=POLICIES, status=status, times=40))
    world.create("mine")
    if status == 403:
        await world.until_state("mine", "Failed")
        assert world.status("mine")["reason"] == "NotAdmitted"
    else:
        await asyncio.sleep(5)
        assert world.state("mine") != "Idle"
        assert agent.claims_taken == []
        await world.until_state("mine", "Idle", 300)
        assert world.status("mine")["startup"]["kind"] == "warm"


async def test_a_claim_that_waits_for_its_secrets_counts_once_for_its_user(world: World) -> None:
    """In a pool of one a second count would be one too many."""
    world.cluster.patch(PLUGINS, "python-3.11", {"spec": {"warmPool": {"size": 1}}})
    await leading(world)
    add_members(world, "m1")
    secret = {"metadata": {"name": "db", "namespace": NAMESPACE}, "data": {"password": "c2VzYW1l"}}
    world.cluster.create(SECRETS, secret, namespace=NAMESPACE)
    await asyncio.sleep(1)
    world.create("mine", env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}])
    await world.until_state("mine", "Idle", 20)
    assert world.status("mine")["startup"]["kind"] == "warm"

"""Values of Secrets come with the claim of a pod from a warm pool; what a claim cannot carry is a cold start."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from linkis_ecm.controller.pool.claims import ClaimRefused
from linkis_ecm.kube.resources import ENGINECONNS, PODS, SECRETS
from tests.simulation.claims.test_warm_claims import WARM, started
from tools.testkit.fakes.faults import Fault
from tools.testkit.simulation.members import add_members, members_left
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime


SECRET_ENV = [
    {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
    {"name": "LOGIN", "valueFrom": {"secretKeyRef": {"name": "db", "key": "user"}}},
    {"name": "REGION", "valueFrom": {"secretKeyRef": {"name": "site", "key": "region"}}},
]


def install(world: World, name: str, **data: bytes) -> None:
    """A Secret."""
    coded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    world.cluster.create(SECRETS, {"metadata": {"name": name}, "data": coded}, namespace=NAMESPACE)


async def test_values_of_secrets_come_with_the_claim_each_object_read_once(world: World) -> None:
    await started(world)
    (agent,) = add_members(world, "m1")
    install(world, "db", password=b"s3cret$", user=b"amy")
    install(world, "site", region=b"eu")
    await asyncio.sleep(1)
    since = len(world.server.log)
    world.create("mine", env=SECRET_ENV)
    await world.until_state("mine", "Idle", 5)
    given = agent.claims_taken[0]
    assert given["ECM_ENV_PASSWORD"] == "s3cret$"
    assert (given["ECM_ENV_LOGIN"], given["ECM_ENV_REGION"]) == ("amy", "eu")
    assert [one.call.name for one in list(world.server.log)[since:] if one.call.resource == SECRETS] == ["db", "site"]
    stored = str(world.cluster.all(ENGINECONNS)) + str(world.cluster.all(PODS))
    assert "s3cret" not in stored


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({}, "Secret db, key password, which spec.env names, is not there."),
        (None, "Secret db, which spec.env names, is not there."),
        ({"password": b"\xff\xfe"}, "Secret db, key password, is no text in UTF-8"),
        ({"password": b"a\0b"}, "Secret db, key password, holds a NUL character"),
        ({"password": b"x" * 140_000}, "Its environment is larger than a claim carries."),
    ],
)
async def test_what_a_claim_cannot_carry_starts_cold_and_takes_no_member(
    world: World, data: dict[str, bytes] | None, why: str
) -> None:
    await started(world)
    add_members(world, "m1")
    if data is not None:
        install(world, "db", **data)
    await asyncio.sleep(1)
    world.create("mine", env=SECRET_ENV[:1])
    await world.until(lambda: world.status("mine").get("podName"), 5)
    assert world.status("mine")["startup"]["kind"] == "cold"
    assert world.status("mine")["startup"]["coldBecause"].startswith(why)
    assert members_left(world) == ["m1"]


async def test_large_secrets_of_many_engines_are_read_four_at_a_time_and_not_kept(world: World) -> None:
    running = await started(world)
    names = [f"big-{n}" for n in range(16)]
    for name in names:
        install(world, name, k=b"x" * 100_000, other=b"y" * 500_000)
    under_way, most = 0, 0
    claims = running.parts.warm._claims
    get = claims._client.get

    async def counted(resource: Any, name: str, **given: Any) -> Any:
        nonlocal under_way, most
        if resource is not SECRETS:
            return await get(resource, name, **given)
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return await get(resource, name, **given)

    claims._client.get = counted
    world.create("e")
    await world.until_state("e", "Idle", 30)
    engine = running.parts.cache.engines[NAMESPACE, "e"]
    entries = [{"name": f"ECM_ENV_V{n}", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}
               for n, name in enumerate(names)]  # fmt: skip
    since = len(world.server.log)
    found = await asyncio.gather(*(claims.environment(engine, entries) for _ in range(8)))
    assert most == 4
    assert {one.sentence for one in found if isinstance(one, ClaimRefused)} == {
        "Its environment is larger than a claim carries."
    }
    reads = [one for one in list(world.server.log)[since:] if one.call.resource == SECRETS]
    assert len(reads) < 8 * 16, "what is too much already is not read on"
    fits = await claims.environment(engine, entries[:5])
    assert not isinstance(fits, ClaimRefused)
    assert sum(map(len, fits.values())) == 500_000


@pytest.mark.parametrize(("data", "reason"), [(None, "Environment"), ({"password": b"s3cret"}, "PoolEmpty")])
async def test_an_empty_pool_is_not_the_reason_where_no_claim_could_carry_the_secret(
    world: World, data: dict[str, bytes] | None, reason: str
) -> None:
    await started(world)
    if data is not None:
        install(world, "db", **data)
    world.create("mine", env=SECRET_ENV[:1])
    await world.until(lambda: world.status("mine").get("podName"), 5)
    assert world.status("mine")["startup"]["coldReason"] == reason
    assert world.state("mine") != "Failed"


async def test_without_the_right_to_read_secrets_it_starts_cold_and_says_so(world: World) -> None:
    await started(world)
    add_members(world, "m1")
    world.server.faults.add(Fault(verb="get", resource=SECRETS, status=403, times=None, message="no right"))
    await asyncio.sleep(1)
    world.create("mine", env=SECRET_ENV[:1])
    await world.until_state("mine", "Idle", 5)
    assert world.status("mine")["startup"]["coldBecause"] == (
        "The operator cannot read the Secrets that spec.env names: no right."
    )
    assert members_left(world) == ["m1"]


PLUGIN_ENV = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "site", "key": "token"}}}]


async def test_a_secret_of_the_plugin_has_its_present_value_at_the_claim(world: World) -> None:
    """It was rotated while the member waited, which had the earlier value from its kubelet."""
    install(world, "site", token=b"before")
    world.install_plugin(**WARM, env=PLUGIN_ENV)
    await started(world)
    (agent,) = add_members(world, "m1")
    coded = base64.b64encode(b"rotated").decode()
    world.cluster.patch(SECRETS, "site", {"data": {"token": coded}}, namespace=NAMESPACE)
    await asyncio.sleep(1)
    world.create("mine")
    await world.until_state("mine", "Idle", 5)
    assert world.status("mine")["startup"]["kind"] == "warm"
    assert agent.claims_taken[0]["TOKEN"] == "rotated"


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (None, "Secret site, which env of the EngineConnPlugin names, is not there."),
        ("no right", "The operator cannot read the Secrets that env of the EngineConnPlugin names: no right."),
    ],
)
async def test_without_a_secret_of_the_plugin_it_starts_cold(world: World, fault: str | None, why: str) -> None:
    world.install_plugin(**WARM, env=PLUGIN_ENV)
    await started(world)
    add_members(world, "m1")
    if fault is not None:
        world.server.faults.add(Fault(verb="get", resource=SECRETS, status=403, times=None, message=fault))
    await asyncio.sleep(1)
    world.create("mine")
    await world.until(lambda: world.status("mine").get("podName"), 5)
    assert world.status("mine")["startup"]["coldReason"] == "Environment"
    assert world.status("mine")["startup"]["coldBecause"] == why
    assert members_left(world) == ["m1"]

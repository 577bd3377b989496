"""Engines whose spec came in while the admission policies were not there get no pod, whatever was changed and when."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from linkis_ecm.kube.resources import ENGINECONNS, EVENTS, POLICIES, POLICY_BINDINGS, Resource
from tools.testkit.simulation.world import NAMESPACE, Script, World

pytestmark = pytest.mark.looptime

NAMES = ("ecm-engineconns", "ecm-engineconns-env")
SECRET = [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "theirs", "key": "password"}}}]
VOLUME = [{"name": "v", "secret": {"secretName": "theirs"}, "mountPath": "/theirs"}]


@pytest.fixture
def world(bare_world: World) -> World:
    return bare_world


def objects() -> list[tuple[Resource, str]]:
    return [(resource, name) for name in NAMES for resource in (POLICIES, POLICY_BINDINGS)]


def install(world: World, *, but: tuple[Resource, str] | None = None, actions: tuple[str, ...] = ("Deny",)) -> None:
    for resource, name in objects():
        if (resource, name) != but:
            spec: dict[str, Any] = (
                {"failurePolicy": "Fail"}
                if resource is POLICIES
                else {"policyName": name, "validationActions": list(actions)}
            )
            world.cluster.create(resource, {"metadata": {"name": name}, "spec": spec})


def uninstall(world: World) -> None:
    for resource, name in objects():
        world.cluster.delete(resource, name)


async def lead(world: World, **changes: Any) -> Any:
    return await world.start(**{"admission_policies": NAMES} | changes)


async def refused(world: World, name: str) -> str:
    """The sentence of an engine that gets no pod."""
    await world.until_state(name, "Failed")
    assert world.status(name)["reason"] == "NotAdmitted"
    assert world.pods(name) == []
    await world.until(lambda: any(e["reason"] == "NotAdmitted" for e in world.cluster.all(EVENTS)))
    return str(world.status(name)["message"])


async def test_the_operator_is_ready_when_the_policies_count(world: World) -> None:
    """Else the first engine after `helm install --wait` would be refused."""
    install(world)
    running = await lead(world)
    assert running.parts.ready() == "the admission policies were not read yet"
    await running.parts.policies.read()
    assert "the admission policies are there since" in running.parts.ready()
    await world.until(lambda: running.parts.ready() == "", 10)
    world.create("first", env=SECRET)
    await world.until_state("first", "Idle")


async def test_an_engine_of_before_the_policies_is_not_started_and_one_of_after_is(world: World) -> None:
    for name, spec in {"env": {"env": SECRET}, "volume": {"volumes": VOLUME}, "plain": {}}.items():
        world.create(name, **spec)
    await asyncio.sleep(60)
    install(world)
    world.create("within-the-margin")
    await asyncio.sleep(10)
    world.create("after", env=SECRET)
    running = await lead(world)
    await world.until_state("after", "Idle")
    for name in ("env", "volume", "plain", "within-the-margin"):
        message = await refused(world, name)
        assert "nobody asked for its author's rights. It was made at 00:0" in message
        assert message.endswith("some seconds after the policy is there (admission of the chart).")
    assert len(world.pods_made) == 1
    assert running.parts.metrics.registry.get_sample_value("ecm_admission_policies_missing") == 0


@pytest.mark.parametrize("absent", objects(), ids=str)
async def test_while_one_of_them_is_gone_nothing_new_is_started_and_what_runs_goes_on(
    world: World, absent: tuple[Resource, str], caplog: pytest.LogCaptureFixture
) -> None:
    install(world)
    await asyncio.sleep(10)
    running = await lead(world)
    world.create("before")
    await world.until_state("before", "Idle")
    world.cluster.delete(*absent)
    world.create("in-the-gap", env=SECRET)
    assert f"{absent[0].kind} {absent[1]} is not there" in await refused(world, "in-the-gap")
    assert world.state("before") == "Idle"
    assert running.parts.metrics.registry.get_sample_value("ecm_admission_policies_missing") == 1
    assert "no new engine is started until it is as the chart made it" in caplog.text
    uninstall_rest = [one for one in objects() if one != absent]
    for resource, name in uninstall_rest:
        world.cluster.delete(resource, name)
    install(world)
    await asyncio.sleep(10)
    world.create("afterwards")
    await world.until_state("afterwards", "Idle")
    assert world.state("in-the-gap") == "Failed"
    assert world.state("before") == "Idle"


async def test_policies_that_deny_nothing_are_as_if_they_were_not_there(world: World) -> None:
    install(world, actions=("Audit",))
    await asyncio.sleep(10)
    await lead(world)
    world.create("e")
    assert "denies nothing (validationActions)" in await refused(world, "e")


@pytest.mark.parametrize("operator_runs", [True, False])
async def test_a_spec_that_was_changed_in_a_gap_gets_no_new_attempt(world: World, operator_runs: bool) -> None:
    install(world)
    await asyncio.sleep(10)
    running = await lead(world)
    for name in ("changed", "left"):
        world.create(name, Script(), restartPolicy={"type": "OnFailure"})
        await world.until_state(name, "Idle")
    if not operator_runs:
        await world.crash(running)
    uninstall(world)
    world.edit("changed", volumes=VOLUME)
    world.edit("left", idleTimeout="2h")
    await asyncio.sleep(60)
    install(world)
    await asyncio.sleep(60)
    # Somebody who may update an engine may write its managedFields, so they prove nothing.
    world.cluster.patch(
        ENGINECONNS, "changed", {"metadata": {"managedFields": []}}, namespace=NAMESPACE
    )  # fmt: skip
    if not operator_runs:
        await lead(world, identity="two")
        await asyncio.sleep(90)
    assert [world.state(name) for name in ("changed", "left")] == ["Idle", "Idle"]
    for name in ("changed", "left"):
        (pod,) = world.pods(name)
        world.exit_pod(pod, 3)
    await world.until_state("changed", "Failed")
    assert world.status("changed")["reason"] == "NotAdmitted"
    await world.until(lambda: world.status("left").get("attempt") == 1 and world.state("left") == "Idle")
    assert len(world.pods_made) == 3


async def test_a_change_that_the_policies_saw_is_taken_also_after_they_were_made_again(world: World) -> None:
    install(world)
    await asyncio.sleep(10)
    await lead(world)
    world.create("e", restartPolicy={"type": "OnFailure"})
    await world.until_state("e", "Idle")
    first = world.status("e")["admission"]
    uninstall(world)
    install(world)
    await world.until(lambda: world.status("e")["admission"]["policies"] != first["policies"])
    await asyncio.sleep(10)
    world.edit("e", volumes=[{"name": "s", "emptyDir": {"sizeLimit": "1Mi"}, "mountPath": "/s"}])
    await world.until(lambda: world.status("e")["admission"]["spec"] != first["spec"])
    (pod,) = world.pods("e")
    world.exit_pod(pod, 3)
    await world.until(lambda: world.status("e").get("attempt") == 1 and world.state("e") == "Idle")


async def test_a_restart_of_policies_and_operator_costs_live_engines_one_write_and_a_new_one_its_three(
    world: World,
) -> None:
    install(world)
    await asyncio.sleep(10)
    await lead(world)
    world.create("e")
    await world.until_state("e", "Idle")
    await asyncio.sleep(60)
    before = world.writes()
    uninstall(world)
    install(world)
    await asyncio.sleep(120)
    assert world.writes() == before + 1


async def test_one_reading_serves_a_burst_of_engines(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    install(world)
    await asyncio.sleep(10)
    client = (await lead(world)).parts.client
    world.server.latency = lambda: 0.02
    await asyncio.sleep(5)
    reads: list[str] = []
    get = client.get

    async def counted(resource: Resource, *names: Any, **options: Any) -> Any:
        reads.extend([resource.plural] * (resource is POLICIES))
        return await get(resource, *names, **options)

    monkeypatch.setattr(client, "get", counted)
    for number in range(40):
        world.create(f"e{number}")
    for number in range(40):
        await world.until_state(f"e{number}", "Idle")
    assert 0 < len(reads) < 40


async def test_an_engine_that_an_earlier_release_accepted_goes_on_and_is_marked_with_its_next_write(
    world: World,
) -> None:
    running = await world.start()
    world.create("e", restartPolicy={"type": "OnFailure"})
    await world.until_state("e", "Idle")
    assert "admission" not in world.status("e")
    await world.crash(running)
    await asyncio.sleep(10)
    install(world)
    await lead(world, identity="two")
    await asyncio.sleep(60)
    (pod,) = world.pods("e")
    world.exit_pod(pod, 3)
    await world.until(lambda: world.status("e").get("attempt") == 1 and world.state("e") == "Idle")
    assert world.status("e")["admission"]["spec"]


async def test_the_canary_and_a_stop_need_no_policy(world: World) -> None:
    await lead(world)
    world.create("e", desiredState="Stopped")
    await world.until_state("e", "Success")

"""Admission policies that somebody has changed in place, and those of another release during an upgrade."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from linkis_ecm.engine.admission.fields import ANNOTATION, fields
from linkis_ecm.kube.resources import POLICIES, POLICY_BINDINGS, Resource
from tests.simulation.people.test_admission_gap import NAMES, SECRET, VOLUME, objects, refused
from tools.testkit.fakes.cluster import loop_now, timestamp
from tools.testkit.simulation.world import World

pytestmark = pytest.mark.looptime

ALL = [{"expression": "true"}]


@pytest.fixture
def world(bare_world: World) -> World:
    return bare_world


def spec_of(resource: Resource, name: str, *, release: str = "one") -> dict[str, Any]:
    if resource is POLICIES:
        return {"failurePolicy": "Fail", "validations": [{"expression": f"'{release}' != object.spec.user"}]}
    return {"policyName": name, "validationActions": ["Deny"]}


def given(release: str = "one") -> tuple[str, ...]:
    """What the release's chart gives to its operator."""
    short = {POLICIES: "policy", POLICY_BINDINGS: "binding"}
    return tuple(
        f"{short[resource]}/{name}/{one}"
        for resource, name in objects()
        for one in fields(spec_of(resource, name, release=release))
    )


def helm(world: World, release: str = "one", *, annotated: bool = True) -> None:
    """Make all of them, or make them again over what is there, as a release's chart has them."""
    for resource, name in objects():
        spec = spec_of(resource, name, release=release)
        said = {ANNOTATION: ",".join(sorted(fields(spec)))} if annotated else {}
        metadata = {"name": name, "annotations": said}
        if any(one["metadata"]["name"] == name for one in world.cluster.all(resource)):
            write(world, resource, name, spec, annotations=said)
        else:
            world.cluster.create(resource, {"metadata": metadata, "spec": spec})


def write(world: World, resource: Resource, name: str, spec: dict[str, Any], **metadata: Any) -> None:
    """Over what is there. The API server notes when the spec was written, and by whom."""
    wrote = {"manager": "m", "operation": "Update", "time": timestamp(loop_now()), "fieldsV1": {"f:spec": {}}}
    noted = {"managedFields": [wrote]}
    world.cluster.patch(resource, name, {"metadata": noted | metadata, "spec": spec})


async def lead(world: World, release: str = "one", **changes: Any) -> Any:
    running = await world.start(**{"admission_policies": NAMES, "admission_fields": given(release)} | changes)
    await world.until(lambda: running.parts.policies.last is not None)
    return running


def missing(running: Any) -> float | None:
    return running.parts.metrics.registry.get_sample_value("ecm_admission_policies_missing")  # type: ignore[no-any-return]


CHANGES = [
    (POLICIES, NAMES[0], "validations", ALL),
    (POLICIES, NAMES[1], "matchConditions", [{"name": "never", "expression": "false"}]),
    (POLICY_BINDINGS, NAMES[0], "matchResources", {"objectSelector": {"matchLabels": {"nobody": "has-this"}}}),
    (POLICY_BINDINGS, NAMES[1], "paramRef", {"name": "p", "parameterNotFoundAction": "Allow"}),
]


@pytest.mark.parametrize(("resource", "name", "field", "value"), CHANGES)
async def test_a_policy_that_was_changed_in_place_is_as_if_it_were_not_there(
    world: World, resource: Resource, name: str, field: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    helm(world)
    await asyncio.sleep(10)
    running = await lead(world)
    world.create("before")
    await world.until_state("before", "Idle")
    write(world, resource, name, spec_of(resource, name) | {field: value})
    world.create("in-the-gap", env=SECRET)
    why = f"the {resource.kind} {name} was changed: spec.{field} (delete it: helm upgrade makes it again)"
    assert why in await refused(world, "in-the-gap")
    assert missing(running) == 1
    assert f"{why}: no new engine is started until it is as the chart made it" in caplog.text
    assert world.state("before") == "Idle"


@pytest.mark.parametrize("operator_runs", [True, False])
async def test_what_came_in_while_one_was_changed_is_not_taken_when_it_is_put_back(
    world: World, operator_runs: bool
) -> None:
    helm(world)
    await asyncio.sleep(10)
    running = await lead(world)
    world.create("changed", restartPolicy={"type": "OnFailure"})
    await world.until_state("changed", "Idle")
    if not operator_runs:
        await world.crash(running)
    write(world, POLICIES, NAMES[0], spec_of(POLICIES, NAMES[0]) | {"validations": ALL})
    world.create("made", env=SECRET)
    world.edit("changed", volumes=VOLUME)
    await asyncio.sleep(60)
    helm(world)
    await asyncio.sleep(60)
    if not operator_runs:
        running = await lead(world, identity="two")
        await world.until(running.parts.reconciler.leading.is_set)
        await asyncio.sleep(90)
    await refused(world, "made")
    (pod,) = world.pods("changed")
    world.exit_pod(pod, 3)
    await world.until_state("changed", "Failed")
    assert world.status("changed")["reason"] == "NotAdmitted"
    world.create("after", env=SECRET)
    await world.until_state("after", "Idle")
    assert missing(running) == 0


@pytest.mark.parametrize("annotated", [True, False])
async def test_an_upgrade_refuses_nobody_and_one_that_stands_still_is_told(
    world: World, annotated: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """`annotated`: whether the other release is younger than the annotation, or a rollback to one of before it."""
    helm(world)
    await asyncio.sleep(10)
    running = await lead(world)
    since = running.parts.policies.last.since
    if annotated:
        helm(world, "two")
    else:
        for resource, name in objects():
            write(world, resource, name, spec_of(resource, name, release="two"), annotations={ANNOTATION: None})
    for number in range(14):
        world.create(f"e{number}", env=SECRET)
        await world.until_state(f"e{number}", "Idle")
        assert running.parts.ready() == ""
        await asyncio.sleep(60)
    assert running.parts.policies.last.since == since
    assert caplog.text.count("is of another release than this operator (spec.validations)") == len(NAMES)
    await asyncio.sleep(120)
    world.create("late", env=SECRET)
    message = await refused(world, "late")
    assert "is of another release than this operator (spec.validations): finish the upgrade or roll it back" in message
    assert missing(running) == 1
    helm(world)
    await asyncio.sleep(40)
    assert running.parts.policies.last.since > since, "it was not in force for a while"
    world.create("rolled-back", env=SECRET)
    await world.until_state("rolled-back", "Idle")


async def test_a_new_operator_beside_the_policies_of_before_waits_for_none_of_them(world: World) -> None:
    helm(world)
    await asyncio.sleep(10)
    running = await lead(world, "two")
    assert running.parts.ready() == ""
    world.create("early", env=SECRET)
    await world.until_state("early", "Idle")
    helm(world, "two")
    world.create("late", env=SECRET)
    await world.until_state("late", "Idle")
    await asyncio.sleep(3600)
    world.create("much-later", env=SECRET)
    await world.until_state("much-later", "Idle")


async def test_a_release_that_changes_labels_alone_changes_nothing_for_engines(world: World) -> None:
    helm(world)
    await asyncio.sleep(10)
    running = await lead(world)
    world.create("e")
    await world.until_state("e", "Idle")
    first = running.parts.policies.last
    await world.crash(running)
    world.create("meanwhile")
    for resource, name in objects():
        write(world, resource, name, spec_of(resource, name), labels={"helm.sh/chart": "two"})
    running = await lead(world, identity="two")
    assert running.parts.policies.last == first
    await world.until_state("meanwhile", "Idle")


async def test_a_namespace_that_is_added_lets_no_engine_of_before_in(world: World) -> None:
    """The binding is another spec then, and the engines that are in the namespace were asked nothing."""
    helm(world)
    await asyncio.sleep(10)
    running = await lead(world)
    first = running.parts.policies.last
    write(world, POLICY_BINDINGS, NAMES[0], spec_of(POLICY_BINDINGS, NAMES[0]) | {"matchResources": {"a": {"b": "c"}}},
          annotations={ANNOTATION: None})  # fmt: skip
    await world.until(lambda: running.parts.policies.last != first)
    assert running.parts.policies.last.missing == ""
    assert running.parts.policies.last.since > first.since

"""Objects that were stored before their definition had a rule: an upgrade ends no engine and empties no catalogue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from linkis_ecm.kube.resources import ENGINECONNS, PLUGINS
from tools.testkit.simulation.world import NAMESPACE, World

pytestmark = pytest.mark.looptime
# Refused since, for an engine and for a plugin.
OLD = ({"stopGrace": "2h"}, {"startTimeout": "0s"}, {"stopGrace": "2h", "startTimeout": "0m"})


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    made.install_plugin()
    await made.start()
    yield made
    await made.close()


def stored_engine(world: World, name: str, **spec: Any) -> None:
    world.cluster.age(ENGINECONNS, (NAMESPACE, name), lambda item: item["spec"].update(spec))


def stored_plugin(world: World, **spec: Any) -> None:
    world.cluster.age(PLUGINS, ("", "python-3.11"), lambda item: item["spec"].update(spec))


@pytest.mark.parametrize("old", OLD)
async def test_a_live_engine_goes_on_and_ends_as_ever(world: World, old: dict[str, str]) -> None:
    world.create("e")
    await world.until_state("e", "Idle")
    stored_engine(world, "e", **old)
    world.agent("e").become("Busy")
    await world.until_state("e", "Busy", 10)
    world.agent("e").become("Idle")
    await world.until_state("e", "Idle", 30)
    world.delete("e")
    await world.until(lambda: not world.pods("e"), 60)


@pytest.mark.parametrize("old", OLD)
async def test_a_plugin_still_starts_engines(world: World, old: dict[str, str]) -> None:
    """A grace above the bound counts as the bound; no time for the start as if it were not given."""
    stored_plugin(world, **old)
    await asyncio.sleep(1)
    world.create("e")
    await world.until_state("e", "Idle")
    (pod,) = world.pods("e")
    assert pod["spec"]["terminationGracePeriodSeconds"] <= 3600 + 60
    env = {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}
    assert env["ECM_STOP_GRACE"] == ("3600" if "stopGrace" in old else "30")
    assert env["ECM_START_TIMEOUT"] == ("480" if "startTimeout" in old else "120")


async def test_where_nothing_is_let_by_the_engine_runs_and_its_spec_is_mended_or_it_is_deleted(world: World) -> None:
    """Kubernetes before 1.30, which the chart refuses: each write of the status is refused, and no other engine has
    anything of that. docs/upgrades.md says what to do."""
    for name in ("e", "f", "other"):
        world.create(name)
        await world.until_state(name, "Idle")
    for name in ("e", "f"):
        stored_engine(world, name, stopGrace="2h")
    world.cluster.ratchets = False
    for name in ("e", "f", "other"):
        world.agent(name).become("Busy")
    await world.until_state("other", "Busy", 10)
    await asyncio.sleep(300)
    assert (world.state("e"), world.state("f")) == ("Idle", "Idle")
    assert len(world.pods("e")) == len(world.pods("f")) == 1
    # Ever more seldom: no storm of writes for what is refused.
    begun = len(world.server.log)
    await asyncio.sleep(300)
    refused = [one.at for one in list(world.server.log)[begun:] if one.code == 422]
    assert 0 < len(refused) < 60
    world.edit("e", stopGrace="1h")
    await world.until_state("e", "Busy", 120)
    world.delete("f")
    await world.until(lambda: not world.pods("f"), 120)

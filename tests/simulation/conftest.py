"""The world of the simulation's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tools.testkit.clocks import NOOP_CYCLES
from tools.testkit.simulation.world import World


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.get_closest_marker("looptime"):
        item.add_marker(pytest.mark.looptime(noop_cycles=NOOP_CYCLES))


@pytest.fixture
async def bare_world() -> AsyncIterator[World]:
    """A cluster with a plugin: the test starts its operators."""
    made = World()
    made.install_plugin()
    yield made
    await made.close()


@pytest.fixture
async def world(bare_world: World) -> World:
    """A cluster with a plugin and an operator that runs."""
    await bare_world.start()
    return bare_world

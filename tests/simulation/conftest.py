"""The world of the simulation's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tools.testkit.world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A cluster with a plugin and an operator that runs."""
    made = World()
    made.install_plugin()
    await made.start()
    yield made
    await made.close()

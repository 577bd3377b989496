"""The world of the tests of warm claims."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tools.testkit.simulation.members import world_with_members
from tools.testkit.simulation.world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Members take claims; the test installs the plugin and starts its operators."""
    async with world_with_members() as made:
        yield made

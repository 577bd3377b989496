"""Two replicas of a gateway, for the tests of who gets an engine. A file whose `gw` is to be the first one says so."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from linkis_ecm.gateway.settings import Settings
from tests.gateway.engines.test_linkis import becomes_ready
from tools.testkit.gateway.harness import Harness
from tools.testkit.gateway.replicas import Clock, another_replica, first_replica


@pytest.fixture
def hands() -> Clock:
    """Both replicas' clock."""
    return Clock()


@pytest.fixture
async def first(settings: Settings, hands: Clock) -> AsyncIterator[Harness]:
    """Its engines become ready."""
    async with first_replica(settings, hands, becomes_ready) as made:
        yield made


@pytest.fixture
async def other(gw: Harness, settings: Settings) -> AsyncIterator[Harness]:
    """Over the cluster of `gw`."""
    async with another_replica(gw, settings) as made:
        yield made

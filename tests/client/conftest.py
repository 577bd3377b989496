"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from tests.client.support import Both, client_of
from tests.gateway.conftest import gw, make, settings

__all__ = ["gw", "make", "settings"]


@pytest.fixture(params=["blocking", "asynchronous"])
def kind(request: pytest.FixtureRequest) -> str:
    """Each of the clients."""
    return str(request.param)


@pytest.fixture
async def client_at(kind: str) -> AsyncIterator[Callable[..., Both]]:
    """Makes clients that are closed after the test."""
    made: list[Both] = []

    def make_one(url: str, **options: object) -> Both:
        made.append(client_of(kind, url, **options))
        return made[-1]

    yield make_one
    for client in made:
        await client.close()

"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.client.support import Both, client_of
from tests.gateway.conftest import agent, engine, gw, make, settings

__all__ = ["agent", "engine", "gw", "make", "settings"]


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


@pytest.fixture
def engine_id(engine: dict[str, Any]) -> str:
    """An engine with a real agent behind it, as calls name it."""
    return str(engine["metadata"]["uid"])

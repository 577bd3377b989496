"""The sender of answers in pieces, where its client has left before the head was sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import ClientConnectionResetError, web
from aiohttp.test_utils import make_mocked_request

from linkis_ecm.gateway.http.sender import Sender
from linkis_ecm.gateway.metrics import Metrics


class Left(web.StreamResponse):
    """An answer whose connection is closing."""

    async def prepare(self, request: Any) -> Any:
        raise ClientConnectionResetError("Cannot write to closing transport")


async def test_a_client_that_left_before_the_head_is_no_error() -> None:
    """Found by the fuzzer: it was an unexpected error, with a number and a traceback in the log."""
    metrics = Metrics()
    sender = Sender(make_mocked_request("GET", "/"), Left(), patience=30, metrics=metrics)
    await sender.begin()
    assert not await sender.write(b"x")
    await sender.stream(pieces_of(b"x"))
    assert await sender.relay(pieces_of(b"x"), 1) == 0
    assert isinstance(await sender.end(), Left)
    assert metrics.answers_cut.labels("client")._value.get() == 1


async def pieces_of(data: bytes) -> AsyncIterator[bytes]:
    yield data

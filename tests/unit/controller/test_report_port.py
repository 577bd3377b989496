"""The reports' port itself: what is refused before a report is looked at."""

from __future__ import annotations

import asyncio
import gzip
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import ClientSession

from linkis_ecm.controller.agents import reports
from linkis_ecm.controller.agents.reports import Reports
from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.serving import serve
from linkis_ecm.controller.state.cache import Cache
from tools.testkit.gateway.connections import ROOMY, Told

PATIENCE = 30.0


@pytest.fixture
def taken() -> Reports:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    nobody: Any = None  # no report gets so far
    return Reports(
        cache=Cache(epoch=now), reconciler=nobody, members=nobody, roster=nobody, master_keys=[b"k" * 32], pods=nobody,
        clock=lambda: now, metrics=Metrics(),
    )  # fmt: skip


async def test_a_stranger_is_answered_before_his_body(taken: Reports) -> None:
    async with serve(taken.app(), 0, limits=ROOMY, counts=Told(), host="127.0.0.1") as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/report HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")
        assert b" 401 " in await asyncio.wait_for(reader.readuntil(b"\r\n"), PATIENCE)
        writer.close()


@pytest.mark.parametrize(("sent", "code", "limit"), [(b"{", 408, "body_time"), (b"x" * 70_000, 413, "body")])
async def test_a_body_has_its_time_and_its_size(
    taken: Reports, monkeypatch: pytest.MonkeyPatch, sent: bytes, code: int, limit: str
) -> None:
    monkeypatch.setattr(reports, "BODY_SECONDS", 0.2 if code == 408 else PATIENCE)
    async with serve(taken.app(), 0, limits=ROOMY, counts=Told(), host="127.0.0.1") as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = b"POST /v1/report HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Length: 100000\r\n\r\n"
        writer.write(head + sent)
        assert b" %d " % code in await asyncio.wait_for(reader.readuntil(b"\r\n"), PATIENCE)
        writer.close()
    assert taken._limits.labels(limit)._value.get() == 1


@pytest.mark.parametrize("path", ["/v1/report", "/v1/anything"])
async def test_packed_bodies_are_refused(taken: Reports, path: str) -> None:
    """Finding S8: 204 KB became 200 MB in the archive. Files come in by the same port."""
    async with serve(taken.app(), 0, limits=ROOMY, counts=Told(), host="127.0.0.1") as port, ClientSession() as session:
        headers = {"Content-Encoding": "gzip", "Authorization": "Bearer x"}
        url = f"http://127.0.0.1:{port}{path}"
        async with session.post(url, data=gzip.compress(b"x" * (1 << 20)), headers=headers) as answer:
            assert answer.status == 415
    assert taken._limits.labels("encoding")._value.get() == 1

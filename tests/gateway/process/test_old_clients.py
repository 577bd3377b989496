"""HTTP/1.0 has no chunks: an answer whose length is not told ends with its connection, whatever the client asks for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.gateway.raw import Raw, connect, head_of
from tools.testkit.agents.process import AgentProcess
from tools.testkit.gateway.dolphin import dolphin
from tools.testkit.gateway.harness import Harness
from tools.testkit.gateway.real_agents import NAME, UID

TABLE = "import pandas as pd; pd.DataFrame({'n': range(6000)})"
LOG = b"a line of some words\n" * 1000


async def asked(
    raw: Raw, method: str, query: dict[str, str], *, headers: str = "", verb: str = "GET"
) -> dict[str, str]:
    """The headers of a 200 to a client of HTTP/1.0 that would keep the connection."""
    sent = head_of("GET", method, query, headers=f"Connection: keep-alive\r\n{headers}")
    await raw.send(sent.replace(b"HTTP/1.1", b"HTTP/1.0"))
    status, found = await raw.head()
    assert status == 200
    assert "transfer-encoding" not in found
    return found


@pytest.mark.parametrize(
    ("method", "more", "expected"),
    [
        ("getResultSet", {"format": "arrow"}, b"\xff\xff\xff\xff\0\0\0\0"),
        ("getResultSet", {"format": "dolphin"}, b"5999"),
        ("taskEvents", {}, b"\n\n"),
    ],
)
async def test_an_answer_without_a_length_ends_with_its_connection(
    gw: Harness, engine: dict[str, Any], agent: AgentProcess, method: str, more: dict[str, str], expected: bytes
) -> None:
    task = await asyncio.to_thread(agent.execute, TABLE)
    async with connect(gw) as raw:
        headers = await asked(raw, method, {"engineId": UID, "taskId": task["taskId"]} | more)
        assert "content-length" not in headers
        assert headers.get("connection", "close") == "close"
        assert (body := await raw.rest()).endswith(expected)
    if more.get("format") == "dolphin":
        assert len(dolphin(body)[2]) == 6000


@pytest.mark.parametrize("method", ["followEngineLog", "downloadEngineLog"])
async def test_a_log_without_a_length_ends_with_its_connection(gw: Harness, method: str) -> None:
    ended = {"engineState": "Success", "finishedTime": "2026-11-24T04:10:00Z"}
    engine = gw.engine(name=NAME, status=ended)
    await gw.archive.put(UID, 0, "stdout", LOG)
    follows = method == "followEngineLog"
    query = {"engineId": UID, "logType": "stdout", "fromByte": "0"} if follows else gw.download_query(engine, "stdout")
    async with connect(gw) as raw:
        headers = await asked(raw, method, query, headers="Accept-Encoding: gzip\r\n")
        assert "content-length" not in headers
        assert headers.get("connection", "close") == "close"
        body = await raw.rest()
    assert body == LOG if follows else body.startswith(b"\x1f\x8b")


async def test_a_watch_does_not_say_that_its_connection_is_kept(gw: Harness) -> None:
    async with connect(gw) as raw:
        headers = await asked(raw, "watchEngines", {})
        assert headers.get("connection", "close") == "close"


async def test_an_answer_with_a_length_leaves_the_connection_to_the_client(gw: Harness) -> None:
    ended = {"engineState": "Success", "finishedTime": "2026-11-24T04:10:00Z"}
    engine = gw.engine(name=NAME, status=ended)
    await gw.archive.put(UID, 0, "stdout", LOG)
    async with connect(gw) as raw:
        for _ in range(2):
            headers = await asked(raw, "downloadEngineLog", gw.download_query(engine, "stdout"))
            assert (headers["content-length"], headers["connection"]) == (str(len(LOG)), "keep-alive")
            assert await raw.reader.readexactly(len(LOG)) == LOG

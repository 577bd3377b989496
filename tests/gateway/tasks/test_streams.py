"""Streams: they end when the gateway stops, have places and memory of their own, and tell nothing of strangers."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from linkis_ecm.controller.serving import STOP_SECONDS
from linkis_ecm.gateway.auth.base import Caller, Reach
from linkis_ecm.gateway.http import streams as streams_module
from linkis_ecm.gateway.http.errors import Refused
from linkis_ecm.gateway.http.streams import STREAM_BYTES, Streams
from linkis_ecm.gateway.inventory.changes import LABELS_CHARS
from linkis_ecm.gateway.main import JOURNAL_SECONDS, SCRAPE_STOP_SECONDS
from linkis_ecm.gateway.methods import watch
from linkis_ecm.gateway.settings import Settings
from linkis_ecm.process.ports.web_runner import LAST_SECONDS
from tools.testkit.clocks import LoopClock
from tools.testkit.gateway.harness import BASE, PATIENCE, TOKEN, Harness

ROOT = Path(__file__).parents[3]
TASK = "0f0e3f6e-6f3f-4d3b-9a55-1c5a0c2f7a11"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "COLLECT_SECONDS", 0.02)


@asynccontextmanager
async def opened(
    gw: Harness, method: str = "watchEngines", user: str = "alice", **query: str
) -> AsyncIterator[aiohttp.ClientResponse]:
    headers = {"Token-Code": TOKEN, "Token-User": user}
    async with gw.session.get(f"{gw.url}{BASE}/{method}", headers=headers, params=query) as answer:
        yield answer


async def endless(request: web.Request) -> web.StreamResponse:
    """An agent whose answers begin and go on."""
    answer = web.StreamResponse(headers={"X-Log-Offset": "0", "X-Log-Size": "0"})
    await answer.prepare(request)
    if request.path.endswith("/events"):
        await answer.write(b'{"event": "status", "status": "Running", "id": "0.1"}\n')
    else:
        await answer.write(b"6\nbegun\n")
    await asyncio.Event().wait()
    return answer


@pytest.mark.parametrize(
    ("method", "begins", "last"),
    [
        ("watchEngines", b'"live":true', b"event: end\ndata: {}\n\n"),
        (
            "taskEvents",
            b"Running",
            b'event: end\ndata: {"event":"end","taskId":"%s","status":"Unknown","message":"'
            b'the gateway stops: call again."}\n\n',
        ),
    ],
)
async def test_each_stream_ends_in_good_order_when_the_gateway_stops(
    make: Any, method: str, begins: bytes, last: bytes
) -> None:
    gw = await make(shutdown_seconds=PATIENCE)
    _, engine = await gw.served(endless)
    query = {"engineId": engine["metadata"]["uid"], "taskId": TASK}
    async with opened(gw, method, **({} if method == "watchEngines" else query)) as answer:
        got = b""
        while begins not in got:
            got += await answer.content.readany()
        async with asyncio.timeout(PATIENCE / 2):
            gw.gateway.streams.stop()
            got += await answer.content.read()
        assert got.endswith(last.replace(b"%s", TASK.encode()))
        assert gw.gateway.metrics.answers_cut.labels("client")._value.get() == 0


async def test_a_log_that_is_followed_does_not_look_complete_when_the_gateway_stops(make: Any) -> None:
    """It has no last word, so a reader would take its end for the engine's."""
    gw = await make(shutdown_seconds=PATIENCE)
    _, engine = await gw.served(endless)
    async with opened(gw, "followEngineLog", engineId=engine["metadata"]["uid"], logType="stdout") as answer:
        assert await answer.content.readany() == b"begun\n"
        gw.gateway.streams.stop()
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(answer.content.read(), PATIENCE / 2)
    cut = gw.gateway.metrics.answers_cut
    assert [cut.labels(side)._value.get() for side in ("gateway", "client", "engine")] == [1, 0, 0]


async def test_a_call_under_way_has_the_time_of_a_stop_once(make: Any, clock: LoopClock) -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    gw = await make(shutdown_seconds=30.0)
    agent, engine = await gw.served(silent)
    asking = asyncio.create_task(gw.execute(engine, "1"))
    await asyncio.wait_for(agent.asked.wait(), PATIENCE)
    loop = asyncio.get_running_loop()
    began = loop.time()
    stopping = asyncio.create_task(gw.runner.cleanup())
    await clock.until_over(stopping, 3.0)
    await stopping
    assert 30.0 <= loop.time() - began < 60.0
    with pytest.raises(aiohttp.ClientError):
        await asking


def test_a_stop_fits_into_the_charts_grace() -> None:
    values = yaml.safe_load((ROOT / "helm/linkis-ecm/values.yaml").read_text())
    # aiohttp waits twice for the last part; a journal writes what it has, and then ends its thread.
    longest = sum((
        SCRAPE_STOP_SECONDS, 2 * LAST_SECONDS, Settings.model_fields["shutdown_seconds"].default, 2 * LAST_SECONDS,
        2 * JOURNAL_SECONDS,
    ))  # fmt: skip
    assert longest + 5 <= values["gateway"]["terminationGracePeriodSeconds"]
    # The operator's two ports, one after the other.
    assert values["operator"]["terminationGracePeriodSeconds"] >= 2 * (STOP_SECONDS + 2 * LAST_SECONDS) + 10


async def test_who_sees_nothing_has_comments_while_others_engines_change(
    gw: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "QUIET_SECONDS", 0.3)
    loop = asyncio.get_running_loop()
    changing = True

    async def change() -> None:
        number = 0
        while changing:
            number += 1
            gw.engine(name="bobs", spec={"user": "bob"}, status={"message": str(number)})
            await asyncio.sleep(0.01)

    task = asyncio.create_task(change())
    began = loop.time()
    async with opened(gw) as answer, asyncio.timeout(PATIENCE):
        await answer.content.readuntil(b"\n\n")
        for _ in range(4):
            assert await answer.content.readuntil(b"\n\n") == b":\n\n"
        took = loop.time() - began
    changing = False
    await task
    assert took > 4 * 0.3 - 0.01, "and none for each change"


async def test_a_stream_is_in_the_byte_budget_while_it_lasts(gw: Harness) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(3):
            answer = await stack.enter_async_context(opened(gw))
            await answer.content.readuntil(b"\n\n")
        assert gw.gateway.budget.held == 3 * STREAM_BYTES
        assert b"ecm_gateway_streams 3.0" in gw.gateway.metrics.registry.text()
    async with asyncio.timeout(PATIENCE):
        while gw.gateway.budget.held or gw.gateway.streams.open:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.01)


async def test_a_stream_that_finds_no_memory_is_refused_with_a_sentence(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "MEMORY_SECONDS", 0.05)
    gw = await make()
    async with gw.gateway.budget.hold(gw.gateway.budget.total):
        answer = await gw.get("watchEngines")
    assert answer.http == 503
    assert "no memory for this stream" in answer.message


async def test_a_reader_that_does_not_read_costs_what_a_stream_reserves(gw: Harness) -> None:
    labels = {f"label-{number}": "v" * 63 for number in range(60)}
    for number in range(2500):
        gw.engine(name=f"python-alice-{number}", metadata={"labels": labels})
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(slow, ("127.0.0.1", gw.port))
        head = f"GET {BASE}/watchEngines HTTP/1.1\r\nHost: x\r\nToken-Code: {TOKEN}\r\nToken-User: root\r\n\r\n"
        await loop.sock_sendall(slow, head.encode())
        server = gw.runner.server
        assert server is not None

        def waiting() -> int:
            return max((c.transport.get_write_buffer_size() for c in server.connections if c.transport), default=0)

        async with asyncio.timeout(PATIENCE):
            while waiting() < 64 << 10:  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.01)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert waiting() <= STREAM_BYTES
        assert gw.gateway.budget.held >= STREAM_BYTES


async def test_what_a_row_and_an_event_carry_is_bounded(gw: Harness) -> None:
    labels = {f"label-{number:02}": "v" * 63 for number in range(60)}
    for number in range(250):
        gw.engine(
            name=f"e-{number}", metadata={"labels": labels}, status={"message": "m" * 2000, "nodeName": "n" * 999}
        )
    rows = []
    async with opened(gw) as answer:
        while True:
            event = await answer.content.readuntil(b"\n\n")
            assert len(event) < watch.EVENT_BYTES + (8 << 10)
            data = json.loads(event.partition(b"data: ")[2])
            rows += data["rows"]
            if data["live"]:
                break
    assert len(rows) == 250
    assert sum(len(name) + len(value) for name, value in rows[0]["labels"].items()) <= LABELS_CHARS
    assert rows[0]["labels"]["label-00"] == "v" * 63
    assert (len(rows[0]["message"]), len(rows[0]["node"])) == (300, 300)


async def test_streams_leave_calls_their_places_and_have_bounds_of_their_own(make: Any) -> None:
    gw = await make(max_streams=8, user_streams=3, max_requests=1, user_at_once=1)
    async with AsyncExitStack() as stack:

        async def watching(user: str) -> aiohttp.ClientResponse:
            return await stack.enter_async_context(opened(gw, user=user))

        assert [(await watching("alice")).status for _ in range(3)] == [200] * 3
        one_more = await gw.get("watchEngines")
        assert one_more.http == 429
        assert "You have 3 streams open" in one_more.message
        # Four of one token, under whatever names.
        assert (await watching("bob")).status == 200
        refused = await gw.get("watchEngines", user="carol")
        assert refused.http == 429
        assert "The users of this token have 4 streams open" in refused.message
        assert (await gw.get("listEngines")).http == 200, "neither all calls' places nor the user's are taken"
        assert gw.gateway.metrics.limits.labels("streams")._value.get() == 2
        assert gw.gateway.metrics.calls == 0


def test_all_streams_and_those_of_an_address_are_bounded() -> None:
    made = Streams(total=4, of_user=9, held_bytes=1 << 30)
    with made.hold(user="a", token="1", address="x"), made.hold(user="b", token="2", address="x"):
        with pytest.raises(Refused, match="From x there are 2 streams open"):
            made.hold(user="c", token="3", address="x").__enter__()
        with (
            made.hold(user="c", token="3", address="y"),
            made.hold(user="d", token="4", address="y"),
            pytest.raises(Refused, match="has 4 streams open, and takes no more"),
        ):
            made.hold(user="e", token="5", address="z").__enter__()
    assert made.open == 0
    few = Streams(total=1000, of_user=9, held_bytes=3 * 5 * STREAM_BYTES)
    with ExitStack() as stack:
        for n in range(5):
            stack.enter_context(few.hold(user=str(n), token=str(n), address=str(n)))
        with pytest.raises(Refused, match="has 5 streams open"):
            few.hold(user="x", token="x", address="x").__enter__()


async def test_who_looks_at_others_is_in_the_audit_log_when_the_stream_begins(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Fixed:
        async def authenticate(self, request: Any) -> Caller:
            lead = Reach(frozenset({"linkis"}), frozenset({"linkis"}))
            user = request.headers["Token-User"]
            return Caller(user, reach=lead if user == "lead" else Reach(frozenset({"linkis"})))

    caplog.set_level(logging.INFO, logger="linkis_ecm.audit")
    gw = await make(authenticator=Fixed())
    for user in ("lead", "alice"):
        async with opened(gw, user=user) as answer:
            await answer.content.readuntil(b"\n\n")
            lines = [json.loads(one.getMessage()) for one in caplog.records if one.name == "linkis_ecm.audit"]
            assert [(one["user"], one["method"], one["others"]) for one in lines] == [("lead", "watchEngines", True)]

"""Long answers end with the login and the rights of their caller: one rule for streams, downloads and big results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from linkis_ecm.gateway.auth.base import Caller, Reach
from linkis_ecm.gateway.http import standing
from linkis_ecm.gateway.http.errors import Refused, forbidden, no_login, too_many, unavailable
from tests.gateway.raw import connect, head_of
from tests.gateway.tasks.test_followers import OldAgent, Reader, until_true
from tests.gateway.tasks.test_streams import endless
from tools.testkit.clocks import LoopClock
from tools.testkit.gateway.harness import BASE, PATIENCE, Harness

Make = Callable[..., Awaitable[Harness]]
STREAMS = {
    "watchEngines": b'"live":true', "taskEvents": b"Running", "followEngineLog": b"begun\n",
}  # fmt: skip
SOON = 0.05


class Logins:
    """An authenticator whose one login changes."""

    def __init__(self) -> None:
        self.now: Caller | Refused = Caller("alice")
        self.asked = 0

    async def authenticate(self, _: Any) -> Caller:
        self.asked += 1
        if isinstance(self.now, Refused):
            raise self.now
        return self.now

    async def times(self, more: int) -> None:
        """Until it was asked so many times more."""
        wanted = self.asked + more
        async with asyncio.timeout(PATIENCE):
            while self.asked < wanted:  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.005)


@pytest.fixture
def logins() -> Logins:
    return Logins()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RIGHTS_SECONDS", "LEAST_SECONDS", "UNSURE_SECONDS"):
        monkeypatch.setattr(standing, name, SOON)


@asynccontextmanager
async def opened(gw: Harness, method: str, engine: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
    """A stream that has begun."""
    uid = engine["metadata"]["uid"]
    query = {"taskEvents": {"engineId": uid, "taskId": "t"}, "followEngineLog": {"engineId": uid, "logType": "stdout"}}
    async with gw.session.get(f"{gw.url}{BASE}/{method}", params=query.get(method, {})) as answer:
        got = b""
        while STREAMS[method] not in got:
            data = await asyncio.wait_for(answer.content.readany(), PATIENCE)
            assert data, got
            got += data
        yield answer


async def ends(method: str, answer: aiohttp.ClientResponse, why: str) -> None:
    """It ends soon: with the reason, or broken off where it has no place for one."""
    async with asyncio.timeout(PATIENCE):
        if method == "followEngineLog":
            with pytest.raises(aiohttp.ClientError):
                await answer.content.read()
            return
        last = (await answer.content.read()).split(b"\n\n")[-2]
    assert last.startswith(b"event: end\n")
    if method == "taskEvents":
        assert b'"status":"Unknown"' in last
        assert why.encode() in last


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (no_login("The token has expired: get a new one"), "The token has expired"),
        (forbidden("RBAC says no: ask an admin"), "RBAC says no"),
        (Caller("bob"), "have changed: call again"),
        (Caller("alice", read_only=True), "have changed: call again"),
        (Caller("alice", reach=Reach(frozenset({"elsewhere"}))), "have changed: call again"),
        (Caller("alice", groups=frozenset({"others"})), "have changed: call again"),
    ],
)
@pytest.mark.parametrize("method", STREAMS)
async def test_a_stream_ends_with_its_login_and_the_logins_rights(
    make: Make, logins: Logins, soon: None, method: str, after: Caller | Refused, why: str
) -> None:
    gw = await make(authenticator=logins)
    _, engine = await gw.served(endless)
    async with opened(gw, method, engine) as answer:
        await logins.times(3)
        assert gw.gateway.streams.open == 1, "as long as nothing has changed it goes on"
        logins.now = after
        await ends(method, answer, why)


async def test_of_followers_that_share_a_reader_only_the_one_without_a_login_ends(
    make: Make, logins: Logins, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    withdrawn: set[str] = set()

    async def authenticate(request: Any) -> Caller:
        logins.asked += 1
        if request.headers["X-Tab"] in withdrawn:
            raise no_login("The token has expired: get a new one")
        return Caller("alice")

    monkeypatch.setattr(logins, "authenticate", authenticate)
    gw = await make(authenticator=logins)
    agent = OldAgent()
    _, engine = await gw.served(agent)
    readers = [Reader() for _ in range(3)]

    async def follow(number: int) -> None:
        query = {"engineId": engine["metadata"]["uid"], "taskId": "t"}
        headers = {"X-Tab": str(number)}
        async with gw.session.get(f"{gw.url}{BASE}/taskEvents", params=query, headers=headers) as answer:
            async for data in answer.content.iter_any():
                readers[number].feed(data)

    tasks = [asyncio.create_task(follow(number)) for number in range(3)]
    await until_true(lambda: all(reader.text for reader in readers))
    agent.tell(2)
    await until_true(lambda: gw.gateway.followers.shared() == 3)
    await logins.times(9)
    assert gw.gateway.followers.shared() == 3
    withdrawn.add("1")
    await asyncio.wait_for(tasks[1], PATIENCE)
    assert readers[1].end["message"] == "The token has expired: get a new one."
    agent.tell(9)
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
    whole = "".join(f"{n} " for n in range(1, 10))
    assert [reader.text for reader in readers] == [whole, "1 2 ", whole]
    assert [reader.end["status"] for reader in readers] == ["Succeed", "Unknown", "Succeed"]


@pytest.mark.parametrize("method", ["taskEvents", "followEngineLog"])
async def test_a_stream_ends_with_the_right_to_its_engine(make: Make, logins: Logins, soon: None, method: str) -> None:
    gw = await make(authenticator=logins)
    _, engine = await gw.served(endless)
    async with opened(gw, method, engine) as answer:
        await logins.times(2)
        gw.cluster.put(engine | {"spec": engine["spec"] | {"user": "bob"}})
        await ends(method, answer, "")


@pytest.mark.parametrize("method", STREAMS)
async def test_a_stream_ends_when_its_login_does_by_itself(
    make: Make, logins: Logins, monkeypatch: pytest.MonkeyPatch, clock: LoopClock, method: str
) -> None:
    monkeypatch.setattr(standing, "LEAST_SECONDS", SOON)
    # Less than the patience with which the agent is read.
    expires, over = time.time() + 30, False

    async def authenticate(_: Any) -> Caller:
        if over:
            raise no_login("The token has expired: get a new one")
        return Caller("alice", expires=expires)

    monkeypatch.setattr(logins, "authenticate", authenticate)
    gw = await make(authenticator=logins)
    _, engine = await gw.served(endless)
    async with opened(gw, method, engine) as answer:
        over = True
        clock.forward(31)
        await ends(method, answer, "The token has expired")


@pytest.mark.parametrize("unsure", [unavailable("The API server does not answer"), too_many("Too many logins")])
async def test_an_outage_ends_no_stream_at_once_and_keeps_none_for_ever(
    make: Make, logins: Logins, monkeypatch: pytest.MonkeyPatch, clock: LoopClock, unsure: Refused
) -> None:
    monkeypatch.setattr(standing, "RIGHTS_SECONDS", 10.0)
    monkeypatch.setattr(standing, "UNSURE_SECONDS", 0.02)
    gw = await make(authenticator=logins)
    _, engine = await gw.served(endless)
    async with opened(gw, "taskEvents", engine) as answer:
        logins.now = unsure
        clock.forward(10)
        await logins.times(3)
        logins.now = Caller("alice")
        await logins.times(1)
        clock.forward(10)
        await logins.times(1)
        assert gw.gateway.streams.open == 1
        logins.now = unsure
        clock.forward(10)
        await logins.times(1)
        clock.forward(10)
        await ends("taskEvents", answer, unsure.sentence)


async def test_a_bug_in_the_question_ends_the_stream(make: Make, logins: Logins, soon: None) -> None:
    gw = await make(authenticator=logins)
    _, engine = await gw.served(endless)
    async with opened(gw, "taskEvents", engine) as answer:

        async def broken(_: Any) -> Caller:
            raise ZeroDivisionError

        logins.authenticate = broken  # type: ignore[method-assign]
        await ends("taskEvents", answer, "cannot be asked again")


async def big(request: web.Request) -> web.StreamResponse:
    """An agent with a file, and a result, that are longer than any connection's memory."""
    size = 1 << 30
    answer = web.StreamResponse(headers={"X-Log-Size": str(size), "X-Log-File": "f1", "Content-Length": str(size)})
    await answer.prepare(request)
    while True:
        await answer.write(b"x" * (1 << 20))


@pytest.mark.parametrize("method", ["downloadEngineLog", "getTaskResult"])
async def test_what_is_sent_for_long_is_cut_with_its_login(make: Make, logins: Logins, soon: None, method: str) -> None:
    gw = await make(authenticator=logins)
    _, engine = await gw.served(big)
    status = engine["status"]
    file = {
        "emInstance": status["ecmInstance"], "instance": status["serviceInstance"],
        "logDirSuffix": status["logDirSuffix"], "logType": "stdout",
    }  # fmt: skip
    query = {"downloadEngineLog": file, "getTaskResult": {"engineId": engine["metadata"]["uid"], "taskId": "t"}}
    async with connect(gw, limit=1 << 12) as raw:
        await raw.send(head_of("GET", method, query[method]))
        assert (await raw.head())[0] == 200
        await logins.times(3)
        assert gw.gateway.metrics.answers_cut.labels("gateway")._value.get() == 0
        logins.now = no_login("The token has expired: get a new one")
        assert len(await raw.rest()) < 1 << 30
    assert gw.gateway.metrics.answers_cut.labels("gateway")._value.get() == 1


async def test_a_stream_whose_client_does_not_read_its_end_is_cut(
    make: Make, logins: Logins, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "LAST_SECONDS", 0.1)

    async def talking(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        number = 0
        while True:
            number += 1
            event = {"event": "status", "status": "Running", "text": "y" * 60_000, "id": f"0.{number}"}
            await answer.write(orjson.dumps(event) + b"\n")

    gw = await make(authenticator=logins)
    _, engine = await gw.served(talking)
    async with connect(gw, limit=1 << 12) as raw:
        await raw.send(head_of("GET", "taskEvents", {"engineId": engine["metadata"]["uid"], "taskId": "t"}))
        await raw.head()
        server = gw.runner.server
        assert server is not None
        async with asyncio.timeout(PATIENCE):
            while max(c.transport.get_write_buffer_size() for c in server.connections if c.transport) < 64 << 10:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        logins.now = no_login("The token has expired: get a new one")
        async with asyncio.timeout(PATIENCE):
            while gw.gateway.streams.open:  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.01)
    assert gw.gateway.metrics.answers_cut.labels("gateway")._value.get() == 1

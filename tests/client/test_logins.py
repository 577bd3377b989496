"""A follower goes on by itself when its login ends and its client has a new one, and says so where it has none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from linkis_ecm.client import NotLoggedIn
from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.http import standing
from linkis_ecm.gateway.http.errors import no_login
from tests.client.support import Both
from tests.gateway.tasks.test_followers import OldAgent
from tools.testkit.gateway.harness import PATIENCE


class Rotating:
    """Tokens of which one counts at a time."""

    def __init__(self) -> None:
        self.number = 1
        self.refused = 0

    def bearer(self) -> str:
        return f"token-{self.number}"

    async def authenticate(self, request: Any) -> Caller:
        if request.headers["Authorization"] != f"Bearer {self.bearer()}":
            self.refused += 1
            raise no_login("The token has expired: get a new one")
        return Caller("alice")

    async def renew(self) -> None:
        """A new token; returns when a stream of the old one was asked for it."""
        before = self.refused
        self.number += 1
        async with asyncio.timeout(PATIENCE):
            while self.refused == before:  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.005)


class GrowingLog:
    """An agent's log, a part more each time it may."""

    def __init__(self) -> None:
        self.text = b""
        self.more = asyncio.Event()

    def write(self, text: bytes) -> None:
        self.text += text
        self.more.set()
        self.more = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        at = int(request.query.get("offset", "0"))
        answer = web.StreamResponse(headers={"X-Log-Offset": str(at), "X-Log-Size": str(len(self.text))})
        await answer.prepare(request)
        while not self.text.endswith(b"end\n") or at < len(self.text):
            more = self.more
            if at < len(self.text):
                part, at = self.text[at:], len(self.text)
                await answer.write(b"%d\n%b" % (len(part), part))
            else:
                await more.wait()
        return answer


@pytest.fixture
def logins(monkeypatch: pytest.MonkeyPatch) -> Rotating:
    monkeypatch.setattr(standing, "RIGHTS_SECONDS", 0.05)
    return Rotating()


ClientAt = Callable[..., Both]


async def test_a_tasks_events_go_on_with_the_next_token_and_none_comes_twice(
    make: Any, client_at: ClientAt, logins: Rotating
) -> None:
    gw = await make(authenticator=logins)
    agent = OldAgent()
    _, engine = await gw.served(agent)
    client = client_at(gw.url, token=None, user=None, bearer=logins.bearer)
    texts, status = [], ""
    async for event in client.stream("task_events", engine["metadata"]["uid"], "t"):
        if event.event == "output":
            texts.append(event.data["output"]["text"])
            if len(texts) in (1, 2, 4):
                await logins.renew()
            agent.tell(len(texts) + 1)
        status = event.data.get("status", status)
    assert texts == [f"{n} " for n in range(1, 10)]
    assert status == "Succeed"
    assert logins.number == 4


async def test_a_followed_log_goes_on_with_the_next_token_and_no_line_comes_twice(
    make: Any, client_at: ClientAt, logins: Rotating
) -> None:
    gw = await make(authenticator=logins)
    log = GrowingLog()
    _, engine = await gw.served(log)
    log.write(b"line 0\n")
    client = client_at(gw.url, token=None, user=None, bearer=logins.bearer)
    lines = []
    async for line in client.stream("follow_engine_log", engine["metadata"]["uid"], from_byte=0):
        lines.append(line)
        if len(lines) in (1, 3):
            await logins.renew()
        if len(lines) < 6:
            log.write(b"line %d\n" % len(lines) if len(lines) < 5 else b"end\n")
    assert lines == [*(f"line {n}" for n in range(5)), "end"]
    assert logins.number == 3


@pytest.mark.parametrize("method", ["task_events", "follow_engine_log"])
async def test_a_follower_whose_login_was_withdrawn_is_told_so(
    make: Any, client_at: ClientAt, logins: Rotating, method: str
) -> None:
    gw = await make(authenticator=logins)
    agent, log = OldAgent(), GrowingLog()
    log.write(b"line 0\n")
    _, engine = await gw.served(agent if method == "task_events" else log)
    client = client_at(gw.url, token=None, user=None, bearer="token-1")
    arguments = ("t",) if method == "task_events" else ()

    async def follow() -> None:
        async for _ in client.stream(method, engine["metadata"]["uid"], *arguments):
            logins.number = 2

    with pytest.raises(NotLoggedIn, match="The token has expired"):
        await follow()

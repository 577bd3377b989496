"""The client of the agents' API against answers of all kinds: an engine's pod is controlled by its user."""

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from linkis_ecm.agent.formats.proof import proof
from linkis_ecm.agent_client import paths
from linkis_ecm.agent_client.client import AgentClient, AgentEndpoint, header_number, read_exact
from linkis_ecm.agent_client.errors import (
    AgentBadResponse,
    AgentConnectionBroken,
    AgentError,
    AgentNotFound,
    AgentRefused,
    AgentTimeout,
    AgentUnreachable,
)
from linkis_ecm.controller.agents.engine_agents import MAX_STATUS_BYTES, EngineAgents
from linkis_ecm.engine.decision import KeyRefused

TOKEN = "the-token"
QUICK = aiohttp.ClientTimeout(total=5, connect=1)
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A socket on loopback that answers each request as its script says, and keeps the requests' heads."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.heads: list[str] = []
        self.written = 0
        self.address = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                if head.startswith("GET /v1/identity?challenge="):
                    # Whoever has the key may still answer anything afterwards.
                    shown = json.dumps({"proof": proof(TOKEN, head.split("=", 1)[1].split()[0])}).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(shown) + shown)
                    await writer.drain()
                    continue
                self.heads.append(head)
                await self.script(reader, writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Server]:
    server = Server(script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()


@asynccontextmanager
async def client() -> AsyncIterator[AgentClient]:
    made = AgentClient(user_agent="test", connections=0)
    try:
        yield made
    finally:
        await made.close()


def answering(body: bytes, *, status: str = "200 OK", headers: str = "") -> Script:
    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)

    return script


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer without a length that does not end."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


async def ask(server: Server, **options: object) -> dict[str, object]:
    async with client() as made:
        agent = AgentEndpoint(server.address, TOKEN)
        return await made.ask(agent, paths.STATUS, timeout=QUICK, **({"limit": 1000} | options))  # type: ignore[arg-type]


async def test_a_question_is_asked_with_the_pods_token_and_nothing_is_unpacked() -> None:
    async with serving(answering(b'{"a": 1}')) as server:
        assert await ask(server) == {"a": 1}
    (head,) = server.heads
    assert head.startswith("GET /v1/status HTTP/1.1\r\n")
    assert f"Authorization: Bearer {TOKEN}\r\n" in head
    assert "Accept-Encoding: identity\r\n" in head
    assert TOKEN not in repr(AgentEndpoint(server.address, TOKEN))


async def test_a_body_goes_out_as_json() -> None:
    async with serving(answering(b"{}", status="202 Accepted")) as server:
        assert await ask(server, method="POST", body={"b": 2}) == {}
    assert "Content-Type: application/json\r\n" in server.heads[0]


@pytest.mark.parametrize(
    ("script", "error", "says"),
    [
        (answering(b"{"), AgentBadResponse, "what is not JSON"),
        (answering(b"[" * 900), AgentBadResponse, "what is not JSON"),
        (answering(b"[]"), AgentBadResponse, "what is no object"),
        (answering(b"x" * 1001), AgentBadResponse, "more than 1000 bytes"),
        (endless, AgentBadResponse, "more than 1000 bytes"),
        (
            answering(gzip.compress(b'{"a": 1}'), headers="Content-Encoding: gzip\r\n"),
            AgentBadResponse,
            "what is not JSON",
        ),
        (answering(b"", status="404 Not Found"), AgentNotFound, "HTTP 404"),
        (answering(b'{"error": "no\\n  kernel"}', status="409 Conflict"), AgentRefused, "HTTP 409: no kernel"),
        (answering(b'{"error": 7}', status="500 Oh"), AgentRefused, "HTTP 500"),
        (answering(b"", status="302 Found", headers="Location: /v1/stop\r\n"), AgentRefused, "HTTP 302"),
    ],
)
async def test_each_unusable_answer_has_its_own_error(script: Script, error: type[AgentError], says: str) -> None:
    async with serving(script) as server:
        with pytest.raises(error) as caught:
            await ask(server)
    assert str(caught.value) == says
    assert len(server.heads) == 1


async def lying(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer that announces one length and has no end."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


async def test_an_agent_that_lies_about_its_length_is_not_read_on() -> None:
    async with serving(lying) as server, client() as made:
        agent = AgentEndpoint(server.address, TOKEN)
        with pytest.raises((aiohttp.ClientError, AgentError)):
            await read_ten(made, agent)


async def read_ten(made: AgentClient, agent: AgentEndpoint) -> bytes:
    async with made.open(agent, paths.STATUS, timeout=QUICK) as answer:
        assert answer.content_length == 10
        return await read_exact(answer, 10)


async def test_a_connection_that_breaks() -> None:
    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        raise ConnectionResetError

    async with serving(script) as server:
        with pytest.raises(AgentConnectionBroken):
            await ask(server)


async def test_an_agent_that_says_nothing() -> None:
    async def script(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(script) as server, client() as made:
        with pytest.raises(AgentTimeout):
            await made.ask(
                AgentEndpoint(server.address, TOKEN),
                paths.STATUS,
                timeout=aiohttp.ClientTimeout(total=0.05),
                limit=1000,
            )


async def test_an_address_without_a_listener_is_unreachable() -> None:
    async with serving(endless) as server:
        address = server.address
    async with client() as made:
        with pytest.raises(AgentUnreachable):
            await made.ask(AgentEndpoint(address, TOKEN), paths.STATUS, timeout=QUICK, limit=1000)


async def test_cookies_of_an_agent_are_not_kept() -> None:
    async with serving(answering(b"{}", headers="Set-Cookie: a=b\r\n")) as server, client() as made:
        agent = AgentEndpoint(server.address, TOKEN)
        for _ in range(2):
            await made.ask(agent, paths.STATUS, timeout=QUICK, limit=1000)
    assert len(server.heads) == 2
    assert "Cookie" not in server.heads[1]


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("12", 12), ("-1", None), ("1" * 19, None), ("", None), ("٣", None)]
)
async def test_a_header_number_is_parsed(text: str, number: int | None) -> None:
    async with (
        serving(answering(b"", headers=f"X-Log-Size: {text}\r\n")) as server,
        client() as made,
        made.open(AgentEndpoint(server.address, TOKEN), paths.log("stdout"), timeout=QUICK) as answer,
    ):
        assert header_number(answer, paths.LOG_SIZE) == number


def test_paths() -> None:
    assert paths.events("t", "") == "/v1/tasks/t/events"
    assert paths.events("t", "1.2") == "/v1/tasks/t/events?from=1.2"
    assert paths.output("t", None) == "/v1/tasks/t/outputs/first"
    assert paths.output("t", 0) == "/v1/tasks/t/outputs/0"
    assert paths.log("stdout") == "/v1/logs/stdout"
    assert paths.log("stdout", offset=0, length=5) == "/v1/logs/stdout?offset=0&length=5"
    assert paths.log_follow("gc", offset=None, tail=9) == "/v1/logs/gc/follow?tail=9"
    assert paths.log_follow("gc", offset=0, tail=9) == "/v1/logs/gc/follow?offset=0"
    assert paths.result_file("ab", length=0) == "/v1/results/ab?length=0"
    assert paths.task("../stop?") == "/v1/tasks/..%2Fstop%3F"


# -- the operator's use of it ------------------------------------------------------------------------------------------


@asynccontextmanager
async def operators_agents() -> AsyncIterator[EngineAgents]:
    made = EngineAgents()
    try:
        yield made
    finally:
        await made.close()


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_a_refusal_is_an_answer(status: str) -> None:
    async with serving(answering(b"", status=status)) as server, operators_agents() as agents:
        assert await agents.status(server.address, TOKEN) == KeyRefused(f"It answers {status[:3]} to a question.")


async def test_another_keys_proof_is_an_answer_and_gets_no_key() -> None:
    async with serving(answering(b'{"seq": 1}')) as server, operators_agents() as agents:
        assert await agents.status(server.address, "other") == KeyRefused("It answers, and proves another key.")
    assert "other" not in str(server.heads)


async def test_nobody_there_is_no_answer() -> None:
    async with serving(endless) as server:
        address = server.address
    async with operators_agents() as agents:
        assert await agents.status(address, TOKEN) is None


async def test_the_operator_reads_a_status() -> None:
    async with serving(answering(b'{"seq": 1}')) as server, operators_agents() as agents:
        assert await agents.status(server.address, TOKEN) == {"seq": 1}


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (endless, f"does not answer: more than {MAX_STATUS_BYTES} bytes"),
        (answering(b" " * (MAX_STATUS_BYTES + 1)), f"does not answer: more than {MAX_STATUS_BYTES} bytes"),
        (answering(b"[]"), "does not answer: what is no object"),
        (answering(b"", status="404 Not Found"), "answered 404 to a question"),
    ],
)
async def test_the_operator_reads_no_status_without_bound(
    script: Script, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(script) as server, operators_agents() as agents:
        with caplog.at_level(logging.WARNING):
            assert await agents.status(server.address, TOKEN) is None
    assert caplog.messages == [f"agent {server.address} {line}"]


@pytest.mark.parametrize(
    ("script", "stopped"),
    [
        (answering(b"not JSON", status="202 Accepted"), True),
        (answering(b"{}"), False),
        (answering(b"{}", status="409 Conflict"), False),
    ],
)
async def test_the_operator_asks_for_a_stop(script: Script, stopped: bool) -> None:
    async with serving(script) as server, operators_agents() as agents:
        assert await agents.stop(server.address, TOKEN, grace=5, reason="Idle") is stopped
    assert server.heads[0].startswith("POST /v1/stop HTTP/1.1\r\n")

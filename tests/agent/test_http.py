"""The HTTP server's bounds, with the server alone, and the API's paths, with a real agent."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from linkis_ecm.agent.http import server as http_server
from linkis_ecm.agent.http.sent import send_piece
from linkis_ecm.agent.http.server import HttpError, Request, Response, Server, json_response
from tools.testkit.agents.process import PATIENCE, TOKEN, AgentProcess
from tools.testkit.big_files import write_zeros

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(request: Request) -> Response:
    if request.path == "/fail":
        raise RuntimeError("a secret detail")
    if request.path == "/refuse":
        raise HttpError(400, "refused")
    return json_response(200, {"path": request.path, "body": len(await request.read_body())})


class Watched(Server):
    """The server, and what it knows of its peers."""

    def __init__(self, handler: Callable[[Request], Awaitable[Response]]) -> None:
        self.errors: list[str] = []
        self.peers: list[asyncio.StreamReader] = []
        self.left = 0
        super().__init__(handler, on_error=self.errors.append)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.append(reader)
        try:
            await super()._accept(reader, writer)
        finally:
            self.left += 1


@asynccontextmanager
async def watched(handler: Callable[[Request], Awaitable[Response]] = echo) -> AsyncIterator[tuple[int, Watched]]:
    server = Watched(handler)
    port = await server.start("127.0.0.1", 0)
    try:
        yield port, server
    finally:
        await server.stop(1.0)


@asynccontextmanager
async def served(handler: Callable[[Request], Awaitable[Response]] = echo) -> AsyncIterator[tuple[int, list[str]]]:
    async with watched(handler) as (port, server):
        yield port, server.errors


@asynccontextmanager
async def peer(port: int) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def eventually(ready: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not ready():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.005)


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    async with asyncio.timeout(PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(head[0].split()[1]), headers, body


async def closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(PATIENCE):
        try:
            return await reader.read(1) == b""
        except ConnectionResetError:
            return True


async def test_requests_follow_each_other_on_one_connection() -> None:
    async with served() as (port, _), peer(port) as (reader, writer):
        for path in ("/one", "/two%20words"):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            status, _, body = await answer(reader)
            assert status == 200
            assert json.loads(body)["path"] == path.replace("%20", " ")


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with served() as (port, _), peer(port) as (reader, writer):
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(3)))
        paths = [json.loads((await answer(reader))[2])["path"] for _ in range(3)]
        assert paths == ["/0", "/1", "/2"]


@pytest.mark.parametrize("path", ["/one", "/refuse", "/fail"])
async def test_head_is_answered_without_a_body_and_the_connection_goes_on(path: str) -> None:
    """Found by the fuzzer: it ended the connection without an answer, with a traceback in the container's log."""
    async with served() as (port, _), peer(port) as (reader, writer):
        writer.write(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        async with asyncio.timeout(PATIENCE):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 ")
        writer.write(b"GET /two HTTP/1.1\r\nHost: x\r\n\r\n")
        assert json.loads((await answer(reader))[2])["path"] == "/two"


async def test_what_is_no_http_behind_a_head_is_answered_with_its_sentence() -> None:
    """Found by the fuzzer: the answer to what follows had no body either, and not the length that it named."""
    async with served() as (port, errors), peer(port) as (reader, writer):
        writer.write(b"HEAD /one HTTP/1.1\r\nHost: x\r\n\r\nno http at all\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            await reader.readuntil(b"\r\n\r\n")
        status, _, body = await answer(reader)
        assert status == 400
        assert "not a request of HTTP/1.1" in json.loads(body)["error"]
    assert not errors


async def test_silent_strangers_give_their_places_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding S10: 300 silent connections from another pod kept the gateway out of an engine."""

    async def known_path(request: Request) -> Response:
        if request.path == "/known":
            request.set_known()
        return await echo(request)

    async def ask(one: Peer, path: bytes) -> bool:
        one[1].write(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
        return (await answer(one[0]))[0] == 200

    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 8)
    async with served(known_path) as (port, _), AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(peer(port))
        assert await ask(gateway, b"/known")
        silent = [await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0)) for _ in range(30)]
        for reader, _ in silent[:23]:
            assert await closed(reader), "the oldest gave its place up"
        probe = await stack.enter_async_context(peer(port))
        assert await ask(probe, b"/healthz"), "by another address, which has shown nothing"
        assert await closed(silent[23][0])
        assert await ask(gateway, b"/one"), "whoever is known keeps the place"
        for _ in range(7):
            assert await ask(await stack.enter_async_context(peer(port)), b"/known")
        refused, _ = await stack.enter_async_context(peer(port))
        assert await closed(refused), "there is nobody's place to give away"
        for _, writer in silent:
            writer.transport.abort()


async def test_a_chunked_body_is_read() -> None:
    async with served() as (port, _), peer(port) as (reader, writer):
        writer.write(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
        )
        assert json.loads((await answer(reader))[2])["body"] == 6


async def test_a_peer_that_asks_before_sending_its_body_is_told_to_go_on() -> None:
    async with served() as (port, _), peer(port) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert (await answer(reader))[0] == 100
        writer.write(b"ab")
        assert json.loads((await answer(reader))[2])["body"] == 2


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_over_the_limit_is_refused_and_the_answer_arrives(
    framing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "MAX_BODY_BYTES", 100_000)
    async with served() as (port, _), peer(port) as (reader, writer):
        if framing == "length":
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000)
        else:
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write((b"%x\r\n" % 300_000) + b"x" * 300_000 + b"\r\n0\r\n\r\n")
        status, headers, body = await answer(reader)
        assert status == 413
        assert json.loads(body)["error"].startswith("the body is over 100000 bytes")
        assert headers["connection"] == "close"
        writer.write_eof()
        assert await closed(reader)


async def test_a_body_that_announces_too_much_is_refused_before_it_is_sent() -> None:
    async with served() as (port, _), peer(port) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert (await answer(reader))[0] == 413


@pytest.mark.looptime
@pytest.mark.parametrize(("pause", "lasts"), [(0.9, 9.0), (1.1, 1.0)])
async def test_a_body_that_is_still_sent_after_an_early_answer_is_read_to_its_end(pause: float, lasts: float) -> None:
    reader = asyncio.StreamReader()
    writer: Any = SimpleNamespace(write_eof=lambda: None)
    connection = http_server._Connection(echo, reader, writer, lambda _: None, lambda _: True, set_known=lambda: None)

    async def send() -> None:
        for _ in range(10):
            reader.feed_data(b"x" * 1000)
            await asyncio.sleep(pause * http_server.LINGER)
        reader.feed_eof()

    sending = asyncio.create_task(send())
    begun = asyncio.get_running_loop().time()
    await connection._close_after_read()
    assert asyncio.get_running_loop().time() - begun == pytest.approx(lasts * http_server.LINGER)
    sending.cancel()


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Half", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"],
    ids=["nothing", "half the headers", "half the body"],
)
async def test_a_peer_that_stops_in_the_middle_is_cut(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IDLE_TIMEOUT", "HEADER_TIMEOUT", "BODY_TIMEOUT"):
        monkeypatch.setattr(http_server, name, 0.2)
    async with served() as (port, _), peer(port) as (reader, writer):
        writer.write(sent)
        assert await closed(reader)


async def test_a_peer_that_leaves_in_the_middle_harms_nobody() -> None:
    async with watched() as (port, server):
        async with peer(port) as (_, writer):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
            await writer.drain()
        await eventually(lambda: server.left == 1)
        async with peer(port) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await answer(reader))[0] == 200
        assert server.errors == []


async def test_a_peer_that_leaves_before_the_answer_to_a_post_is_logged() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        asked.set()
        await go_on.wait()
        return json_response(200, {"path": request.path})

    async with watched(slow) as (port, server):
        for method, said in (("GET", []), ("POST", ["POST /v1/execute: the connection broke: "])):
            asked.clear(), go_on.clear()
            async with peer(port) as (_, writer):
                writer.write(f"{method} /v1/execute HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                async with asyncio.timeout(PATIENCE):
                    await asked.wait()
                # A reset, not an end.
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Known to the server before it answers: what is sent sooner is lost without a word.
            await eventually(lambda: server.peers[-1].exception() is not None)
            go_on.set()
            async with peer(port) as (reader, writer):
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await answer(reader))[0] == 200
            assert [error[: len(text)] for error, text in zip(server.errors, said, strict=True)] == said


async def test_an_error_of_the_system_inside_is_answered_and_logged_like_any_other() -> None:
    async def full(_: Request) -> Response:
        raise OSError(28, "No space left on device")

    async with served(full) as (port, errors), peer(port) as (reader, writer):
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        status, _, body = await answer(reader)
        assert status == 500
        assert b"space" not in body
        assert errors == ["GET /x: OSError: [Errno 28] No space left on device"]


async def test_a_reader_that_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(http_server, "WRITE_TIMEOUT", 0.2)
    log = tmp_path / "log"
    write_zeros(log, 64 << 20)

    async def send_log(_request: Request) -> Response:
        import os

        return Response(200, file=os.open(log, os.O_RDONLY), parts=[(0, 64 << 20)])

    async with watched(send_log) as (port, server), peer(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: server.left == 1)  # nothing is read meanwhile
        got = 0
        async with asyncio.timeout(PATIENCE):
            try:
                while data := await reader.read(1 << 20):
                    got += len(data)
            except ConnectionResetError:
                pass
        assert got < 64 << 20


async def test_a_file_for_a_peer_that_has_left_is_a_broken_connection(tmp_path: Path) -> None:
    """Found by the fuzzer: asyncio raises RuntimeError there, which was a traceback; and where logs are sent to the
    archive, those behind the one that broke were not sent."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    async with served() as (port, _), peer(port) as (_, writer):
        with path.open("rb") as file:
            assert await send_piece(writer.transport, file, 0, 10) == 10
            writer.close()
            with pytest.raises(ConnectionResetError):
                await send_piece(writer.transport, file, 10, 10)


@pytest.mark.parametrize(
    "sent", [b"NOT HTTP\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000]
)
async def test_malformed_http_is_answered_with_an_error(sent: bytes) -> None:
    async with served() as (port, _), peer(port) as (reader, writer):
        writer.write(sent)
        status, _, body = await answer(reader)
        assert status in (400, 431)
        assert "not a request of HTTP/1.1" in json.loads(body)["error"]


async def test_a_failing_handler_tells_the_log_and_not_the_peer() -> None:
    async with served() as (port, errors), peer(port) as (reader, writer):
        writer.write(b"GET /fail HTTP/1.1\r\nHost: x\r\n\r\n")
        status, _, body = await answer(reader)
        assert status == 500
        assert b"secret" not in body
        assert errors == ["GET /fail: RuntimeError: a secret detail"]


async def test_a_stop_waits_for_the_answers_that_are_owed() -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(_request: Request) -> Response:
        begun.set()
        await release.wait()
        return json_response(200, {})

    server = Server(slow, on_error=lambda _: None)
    port = await server.start("127.0.0.1", 0)
    async with peer(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(begun.wait(), PATIENCE)
        stopping = asyncio.create_task(server.stop(PATIENCE))
        await asyncio.sleep(0)
        release.set()
        assert (await answer(reader))[0] == 200
        await asyncio.wait_for(stopping, PATIENCE)


# -- the agent's own paths -------------------------------------------------------------------------------------------


def test_health_needs_no_token(agent: AgentProcess) -> None:
    assert agent.call("GET", "/healthz", token=None) == (200, b"ok")


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", TOKEN[:-1], "schlüssel"])
@pytest.mark.parametrize("path", ["/v1/status", "/v1/execute", "/v1/logs/stdout", "/v1/stop", "/nowhere"])
def test_nothing_else_is_told_without_the_token(agent: AgentProcess, path: str, token: str | None) -> None:
    status, body = agent.call("POST" if path in ("/v1/execute", "/v1/stop") else "GET", path, token=token)
    assert status == 401
    assert json.loads(body)["error"].startswith("the bearer token is not this engine's")
    assert agent.status()["state"] == "Idle"


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v2/status", "/v1/status/", "/v1/logs", "/v1/logs/stdout/lines/1", "/v1/../v1/status"]
)
def test_an_unknown_path_is_404(agent: AgentProcess, path: str) -> None:
    assert agent.call("GET", path)[0] == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/execute"), ("POST", "/v1/status"), ("DELETE", "/v1/logs/stdout"), ("PUT", "/healthz")],
)
def test_a_wrong_method_is_405(agent: AgentProcess, method: str, path: str) -> None:
    status, answer = agent.json(method, path)
    assert status == 405
    assert "only" in answer["error"]


def test_code_over_8_mib_is_refused(agent: AgentProcess) -> None:
    status, answer = agent.json("POST", "/v1/execute", {"code": "#" * (9 << 20)})
    assert status == 413
    assert answer["error"].startswith("the body is over 8388608 bytes")


def test_code_just_under_8_mib_runs(agent: AgentProcess) -> None:
    assert agent.execute("#" * (7 << 20) + "\n'big'")["status"] == "Succeed"


def test_the_status_is_the_report(agent: AgentProcess) -> None:
    before = agent.status()
    agent.execute("1")
    agent.execute("1/0")
    report = agent.status()
    assert (report["namespace"], report["name"], report["uid"], report["attempt"]) == ("lab", "first", "uid-1", 0)
    assert report["sequence"] > before["sequence"]
    assert report["tasksStarted"] == before["tasksStarted"] + 2
    assert report["tasksSucceeded"] == before["tasksSucceeded"] + 1
    assert report["tasksFailed"] == before["tasksFailed"] + 1
    assert report["lastTaskEnded"] > before["lastTaskEnded"]
    assert report["usage"]["cpuSeconds"] > 0
    assert set(report["metrics"]) == {
        "totalUnlockTimeMills", "totalIdleTimeMills", "totalBusyTimeMills", "totalLockTimeMills"
    }  # fmt: skip
    assert TOKEN not in json.dumps(report)

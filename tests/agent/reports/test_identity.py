"""An agent's identity: it enrols by its pod's token, once, and shows its key to whoever calls, before they send it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
import pytest

from linkis_ecm.agent.formats.proof import proof
from linkis_ecm.agent_client import paths
from linkis_ecm.agent_client.client import AgentClient, AgentEndpoint
from linkis_ecm.agent_client.errors import AgentUnreachable
from linkis_ecm.model.agent_key import Enrolment, agent_key
from tools.testkit.agents.process import AgentProcess, until

MASTER = b"m" * 32
POD_TOKEN = "header.claims.signature"
TIMEOUT = aiohttp.ClientTimeout(total=10, sock_connect=3)


class FakeOperator:
    """Takes reports as `answer` says, and remembers what came."""

    def __init__(self) -> None:
        self.reports: list[tuple[str, dict[str, Any]]] = []
        self.answer: Callable[[str, dict[str, Any]], tuple[int, bytes]] = self.enrol
        operator = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                given = self.headers["Authorization"].removeprefix("Bearer ")
                status, content = operator.answer(given, body)
                operator.reports.append((given, body))
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def key(self, body: dict[str, Any]) -> str:
        return agent_key(MASTER, Enrolment(body["podUid"], body["uid"], body["attempt"], body["enrolment"]))

    def enrol(self, given: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """As the operator does."""
        if given == POD_TOKEN:
            return 200, json.dumps({"key": self.key(body)}).encode()
        return (204, b"") if given == self.key(body) else (401, b"the key is not this engine's")


@pytest.fixture
def operator() -> Iterator[FakeOperator]:
    made = FakeOperator()
    yield made
    made.server.shutdown()
    made.server.server_close()


def start(tmp_path: Path, operator: FakeOperator, **environment: str) -> AgentProcess:
    token = tmp_path / "token"
    token.write_text(POD_TOKEN)
    return AgentProcess(
        tmp_path, wait=False, ECM_AGENT_KEY="", ECM_ENROLMENT="", ECM_REPORT_URL=operator.url, ECM_REPORT_PERIOD="0.2",
        ECM_IDENTITY_FILE=str(token), **environment,
    )  # fmt: skip


@pytest.fixture
def agent(tmp_path: Path, operator: FakeOperator) -> Iterator[AgentProcess]:
    made = start(tmp_path, operator)
    yield made
    made.close()


def test_the_first_report_enrols_and_the_key_is_used_from_then_on(agent: AgentProcess, operator: FakeOperator) -> None:
    until(lambda: any(body["state"] == "Idle" for _, body in operator.reports))
    until(lambda: len(operator.reports) > 3)
    given, first = operator.reports[0]
    assert given == POD_TOKEN
    assert {given for given, _ in operator.reports[1:]} == {operator.key(first)}, "the pod's token is used once"
    assert {body["enrolment"] for _, body in operator.reports} == {first["enrolment"]}
    agent.wait_until_listening()
    agent.token = operator.key(first)
    assert "42" in str(agent.outputs("6 * 7"))
    assert agent.call("GET", "/v1/status", token=POD_TOKEN)[0] == 401
    assert agent.call("GET", "/v1/status", token="")[0] == 401


def test_until_it_has_a_key_an_agent_answers_nobody(tmp_path: Path, operator: FakeOperator) -> None:
    operator.answer = lambda *_: (503, b"this replica is not leading")
    agent = start(tmp_path, operator)
    try:
        agent.wait_until_listening()
        for token in ("", "None", POD_TOKEN, agent_key(MASTER, Enrolment("pod", "uid-1", 0, "0" * 32))):
            assert agent.call("GET", "/v1/status", token=token)[0] == 401
        assert agent.call("GET", f"/v1/identity?challenge={'0' * 32}", token=None)[0] == 409
        operator.answer = operator.enrol
        until(lambda: any(body["state"] == "Idle" and given != POD_TOKEN for given, body in operator.reports))
    finally:
        agent.close()


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"key": 7}', b'{"key": "short"}', b'{"key": "x\\ny"}', b"\xff"]
)
def test_an_answer_without_a_key_enrols_nobody(tmp_path: Path, operator: FakeOperator, content: bytes) -> None:
    operator.answer = lambda *_: (200, content)
    agent = start(tmp_path, operator)
    try:
        until(lambda: len(operator.reports) > 2)
        assert {given for given, _ in operator.reports} == {POD_TOKEN}
    finally:
        agent.close()


def test_an_agent_that_came_second_ends_and_says_so(tmp_path: Path, operator: FakeOperator) -> None:
    operator.answer = lambda *_: (403, b"another agent of this pod has enrolled")
    agent = start(tmp_path, operator)
    try:
        assert agent.exit_code() == 1
    finally:
        agent.close()
    assert "another agent of this pod has enrolled" in agent.container_err.read_text()


def test_the_kernel_gets_the_users_variables_and_the_agent_does_not(tmp_path: Path, operator: FakeOperator) -> None:
    """The user's PYTHONSTARTUP, PYTHONWARNINGS and the like would run code in the agent, before its key is safe."""
    agent = start(
        tmp_path, operator, ECM_ENV_GREETING="hello", ECM_ENV_PYTHONWARNINGS="error::UserWarning",
        ECM_ENV_TMPDIR=str(tmp_path),
    )  # fmt: skip
    try:
        agent.wait_until_listening()
        until(lambda: any(body["state"] == "Idle" for _, body in operator.reports))
        agent.token = operator.key(operator.reports[0][1])
        code = "import os, sys; print(os.environ['GREETING'], os.environ['TEMP_DIRS'], sys.warnoptions)"
        (output,) = agent.execute(code)["outputs"]
        assert output["text"].split() == ["hello", str(tmp_path), "['error::UserWarning']"]
        (output,) = agent.execute("print([name for name in os.environ if name.startswith('ECM_')])")["outputs"]
        assert output["text"] == "[]\n"
        own = Path(f"/proc/{agent.process.pid}/environ")
        assert b"\0GREETING=" not in own.read_bytes()
        assert b"\0PYTHONWARNINGS=" not in own.read_bytes()
    finally:
        agent.close()


# The caller's side.


@contextmanager
def peer(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Something that listens at an engine's address, answers every request so, and keeps what it got."""
    got: list[bytes] = []
    loop = asyncio.new_event_loop()
    address: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            got.append(piece)
            writer.write(answer)
        writer.close()

    async def begin() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address.append("{}:{}".format(*server.sockets[0].getsockname()))

    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(begin(), loop).result(5)
    try:
        yield address[0], got
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


def http(status: int, body: bytes, *, length: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {length or len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    "answer",
    [
        http(200, b"{}"),
        http(200, json.dumps({"proof": "0" * 64}).encode()),
        http(200, json.dumps({"proof": 7}).encode()),
        http(200, json.dumps({"proof": proof("another key", "0" * 32)}).encode()),
        http(200, b"[]"),
        http(200, b"no json"),
        http(404, b""),
        http(302, b""),
        http(200, b"x" * 2000),
        http(200, b"{}", length="99999999999"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
)
async def test_who_cannot_prove_the_key_gets_neither_key_nor_code(answer: bytes) -> None:
    client = AgentClient(user_agent="test", connections=4)
    with peer(answer) as (address, got):
        for _ in range(2):
            with pytest.raises(AgentUnreachable):
                await client.send(
                    AgentEndpoint(address, "the-secret-key"), paths.EXECUTE, method="POST",
                    body={"code": "password = 'secret'"}, timeout=TIMEOUT,
                )  # fmt: skip
        sent = b"".join(got)
    await client.close()
    assert b"the-secret-key" not in sent
    assert b"password" not in sent


async def test_a_connection_is_asked_once(agent: AgentProcess, operator: FakeOperator) -> None:
    await asyncio.to_thread(until, lambda: any(body["state"] == "Idle" for _, body in operator.reports))
    await asyncio.to_thread(agent.wait_until_listening)
    endpoint = AgentEndpoint(f"127.0.0.1:{agent.port}", operator.key(operator.reports[0][1]))
    client, other = (AgentClient(user_agent="test", connections=4) for _ in range(2))
    try:
        for _ in range(3):
            found = await client.ask(endpoint, paths.STATUS, timeout=TIMEOUT, limit=65536)
            assert found["state"] == "Idle"
        with pytest.raises(AgentUnreachable, match="does not have this engine's key"):
            await other.ask(AgentEndpoint(endpoint.address, "k"), paths.STATUS, timeout=TIMEOUT, limit=65536)
    finally:
        await client.close()
        await other.close()

"""What strangers and users may send: each limit is pushed past."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web
from pydantic import BaseModel, ValidationError

from linkis_ecm.agent_client.address import agent_host
from linkis_ecm.api.paths import BASE, PREFIX
from linkis_ecm.gateway.http.errors import Refused
from linkis_ecm.gateway.http.validate import from_json
from linkis_ecm.gateway.routes import METHODS
from tests.gateway.raw import connect, head_of
from tools.testkit.agents.keys import agent_key_of
from tools.testkit.agents.process import until
from tools.testkit.gateway.harness import KEY, PATIENCE, Harness

Make = Callable[..., Awaitable[Harness]]
JSON = {"Content-Type": "application/json"}


def refusals(gw: Harness, limit: str) -> float:
    """How often the limit was counted."""
    found: float = gw.gateway.metrics.limits.labels(limit)._value.get()
    return found


async def post(gw: Harness, method: str, body: bytes, *, user: str = "alice", **headers: str) -> Any:
    path = f"{PREFIX}/{method}" if "/" in method else f"{BASE}/{method}"
    sent = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
    return await gw.call("POST", path, data=body, user=user, headers=sent)


def token_of(gw: Harness, engine: dict[str, Any]) -> str:
    """The token that the engine's pod has."""
    view = gw.engines.resolve(engine["metadata"]["uid"])
    assert view is not None
    return agent_key_of(KEY, view.uid, view.attempt)


# -- before the login ------------------------------------------------------------------------------------------------


async def test_silent_strangers_take_no_memory_from_users(gw: Harness) -> None:
    """Finding S2: 40 of them refused everybody's bodies, for good."""
    connections = []
    for _ in range(40):
        reader, writer = await asyncio.open_connection("127.0.0.1", gw.port)
        writer.write(
            f"POST {BASE}/reportResourceUsage HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer guessed\r\n"
            "Content-Type: application/json\r\nContent-Length: 8388608\r\n\r\n".encode()
        )
        connections.append((reader, writer))
    for reader, _ in connections:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n"), PATIENCE)
        assert head == b"HTTP/1.1 403 Forbidden\r\n"
    assert not gw.gateway.budget.held
    answer = await post(gw, "executeCode", b'{"code": "' + b"x" * (1 << 20) + b'"}')
    assert "engineId is missing" in answer.message
    for _, writer in connections:
        writer.close()


async def test_an_engine_sends_4_kib_of_usage_and_no_more(gw: Harness) -> None:
    engine = gw.engine()
    token = token_of(gw, engine)
    body = json.dumps({"engineId": engine["metadata"]["uid"], "memoryBytes": 1, "cpuSeconds": 1}).encode()
    login = {"Authorization": f"Bearer {token}"}
    assert (await post(gw, "reportResourceUsage", body, **login)).http == 200
    answer = await post(gw, "reportResourceUsage", body + b" " * 4096, **login)
    assert answer.http == 413
    assert "4 KiB" in answer.message
    assert refusals(gw, "body") == 1
    gw.cluster.drop(engine)
    assert (await post(gw, "reportResourceUsage", body, **login)).http == 403


async def test_a_budget_that_stands_still_makes_the_gateway_unready(make: Make) -> None:
    gw = await make(max_held_bytes=1 << 20, client_seconds=0.05)
    async with gw.gateway.budget.hold(1 << 20):
        answer = await post(gw, "executeCode", b'{"code": "' + b"x" * (1 << 20) + b'"}')
        assert answer.http == 503
        assert refusals(gw, "budget") == 1
        ready = await gw.call("GET", "/readyz")
        while ready.http == 200:  # it turns once twice `client_seconds` have passed
            ready = await gw.call("GET", "/readyz")
        assert (ready.http, b"waited for memory" in ready.raw) == (503, True)
        metrics = (await gw.call("GET", "/metrics")).raw.decode()
        assert "ecm_gateway_held_bytes 1.048576e+06" in metrics
        assert 'ecm_gateway_refusals_total{limit="budget"} 1.0' in metrics
    assert (await gw.call("GET", "/readyz")).http == 200


async def test_one_users_silent_bodies_leave_memory_to_others(gw: Harness) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(8):  # 8 × 24 MiB are the whole budget
            raw = await stack.enter_async_context(connect(gw))
            length = "Content-Type: application/json\r\nContent-Length: 8388608\r\n"
            await raw.send(head_of("POST", "executeCode", headers=length))
        await asyncio.to_thread(until, lambda: gw.gateway.budget.held == 4 * (24 << 20))
        answer = await post(gw, "executeCode", b'{"code": "' + b"x" * (8_000_000) + b'"}', user="carol")
        assert "engineId is missing" in answer.message
    await asyncio.to_thread(until, lambda: not gw.gateway.budget.held)
    assert not gw.gateway.body_shares._budgets


# -- bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "limit", "says"),
    [
        ("terminateEngine", 64 << 10, "64 KiB: terminateEngine takes no more"),
        ("sendEngineCommand", 64 << 10, "64 KiB"),
        ("linkisManager/rm/enginekill", 1 << 20, "1 MiB"),
        ("createEngineConnection", 8 << 20, "8 MiB: send less code at once"),
    ],
)
async def test_each_method_has_its_own_limit(gw: Harness, method: str, limit: int, says: str) -> None:
    answer = await post(gw, method, b"{}" + b" " * limit)
    assert answer.http == 413
    assert says in answer.message
    assert (await post(gw, method, b"{}" + b" " * (limit - 2))).http == 400


def test_only_code_is_long() -> None:
    assert {m.name for m in METHODS if m.max_body > 1 << 20} == {"createEngineConnection", "executeCode"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({str(n): 0 for n in range(500_000)}, "too many values"),
        ({str(n): 0 for n in range(5000)}, "Unknown parameter '0', '1', '2', '3', '4': this method takes engineType"),
        ({"engineType": "python", "labels": {f"{n} ": 1 for n in range(5000)}}, "labels has 5000 entries: give 16"),
        ({"engineType": "python", "env": {f"{n} ": 1 for n in range(5000)}}, "env has 5000 entries: give 64"),
        ({"engineType": "python", "resources": {f"{n}": 1 for n in range(5000)}}, "this field takes cpu, cpuLimit"),
        ({"engineType": "python", "env": {" " * 100_000: "x"}}, "Parameter env."),
        ({"engineType": "\x00" * 1_000_000}, "Parameter engineType is"),
    ],
)
async def test_a_body_of_many_values_is_refused_in_a_short_sentence(gw: Harness, body: Any, says: str) -> None:
    """Finding S3: 800,000 unknown names took 927 MiB and 3 s."""
    answer = await post(gw, "createEngineConnection", json.dumps(body).encode())
    assert answer.http == 400
    assert says in answer.message
    assert len(answer.message) < 1000
    assert not gw.gateway.budget.held


async def test_brackets_do_not_become_memory(gw: Harness) -> None:
    answer = await post(gw, "executeCode", b'{"code": [' + b"[]," * 2_000_000 + b"[]]}")
    assert answer.http == 400
    assert "too many values" in answer.message
    code = json.dumps({"engineId": "none", "runType": "python", "code": "[{}]," * 1_000_000})
    assert "none" in (await post(gw, "executeCode", code.encode())).message


HOSTILE: list[Any] = [
    {f"{n} " + "x" * 300: [n] for n in range(150)},
    [{str(n): "x" * 300} for n in range(150)],
    [[n] for n in range(10_000)],
    "x" * 50_000,
]


@pytest.mark.parametrize("method", [m for m in METHODS if m.request is not None], ids=lambda m: m.name)
def test_no_model_makes_an_error_for_each_entry(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in any field, pydantic sees at most what its fields take."""
    counts: list[int] = []
    sentences: list[str] = []
    validate = BaseModel.model_validate.__func__  # type: ignore[attr-defined]

    def counted(model: type[BaseModel], content: Any) -> BaseModel:
        try:
            found: BaseModel = validate(model, content)
        except ValidationError as error:
            counts.append(error.error_count())
            raise
        return found

    monkeypatch.setattr(method.request, "model_validate", classmethod(counted))
    fields = {field.alias or name for name, field in method.request.model_fields.items()}
    for value in HOSTILE:
        for content in (value, *({name: value} for name in fields), dict.fromkeys(fields, value)):
            try:
                from_json(method.request, json.dumps(content).encode())
            except Refused as refusal:
                sentences.append(refusal.sentence)
    assert max(map(len, sentences), default=0) < 1500
    # A list of 500 names, a mapping of 256 entries with five errors each.
    assert max(counts, default=0) <= 1500


@pytest.mark.parametrize("encoding", ["identity", "UTF-8"])
async def test_a_body_that_says_it_is_plain_is_taken(gw: Harness, encoding: str) -> None:
    """Linkis's own client says UTF-8 there."""
    answer = await post(gw, "executeCode", b"{}", Content_Encoding=encoding)
    assert "engineId is missing" in answer.message


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "x-unknown", "identity, gzip"])
async def test_packed_bodies_are_refused_and_not_unpacked(gw: Harness, encoding: str) -> None:
    """Finding S8: 90 bodies of 36 KB took 2240 MiB."""
    reached = asyncio.Event()

    async def agent(_: web.Request) -> web.Response:
        reached.set()
        return web.json_response({})

    _, engine = await gw.served(agent)
    body = {"engineId": engine["metadata"]["uid"], "runType": "python", "code": "x" * (7 << 20)}
    answer = await post(gw, "executeCode", gzip.compress(json.dumps(body).encode()), Content_Encoding=encoding)
    assert answer.http == 415
    assert "Content-Encoding" in answer.message
    assert refusals(gw, "encoding") == 1
    assert not reached.is_set()
    plain = await post(gw, "terminateEngine", b'{"engineId": "none"}', Content_Encoding="identity")
    assert plain.http != 415


# -- headers, addresses, malformed requests ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Token-User", "Token-Code"])
async def test_a_login_that_is_sent_twice_is_refused(gw: Harness, name: str) -> None:
    """Behind a proxy that appends its own header the first one would be the client's."""
    async with connect(gw) as raw:
        value = "root" if name == "Token-User" else "another"
        await raw.send(head_of("GET", "listEngines", headers=f"{name}: {value}\r\n"))
        http, headers = await raw.head()
        assert http == 401
        body = await raw.reader.readexactly(int(headers["content-length"]))
        assert f"{name} is sent 2 times: send it once".encode() in body


ADDRESSES = [
    "9105", "127.0.0.1:9105", "169.254.169.254:9105", "10.0.0.1:80", "evil.example:9105",
    "10.0.0.1:9105/latest/meta-data/?x=", "user@10.0.0.1:9105", "10.0.0.1:09105000", "[::1]:9105", "0.0.0.0:9105",
    "10.0.0.1:\u0669\u0661\u0660\u0665", "10.0.0.1:9105\r\nX: y",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
async def test_a_token_goes_to_an_agents_address_alone(make: Make, address: str) -> None:
    gw = await make(agent_port=9105)
    engine = gw.engine(status={"address": address})
    answer = await gw.execute(engine)
    assert answer.http == 502
    assert "has an address in its status that no agent has" in answer.message


def test_an_agents_address_is_an_ip_and_the_port() -> None:
    assert agent_host("10.1.2.3:9105", 9105) == "10.1.2.3:9105"
    assert agent_host("fd00::12:9105", 9105) == "[fd00::12]:9105"
    assert agent_host("[fd00::12]:9105", 9105) == "[fd00::12]:9105"
    assert agent_host("127.0.0.1:4000", 0) == "127.0.0.1:4000"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Secret\x00<script>: y\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"<script>alert(1)</script>\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"<script>" * 10_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused_without_repeating_it(gw: Harness, sent: bytes) -> None:
    async with connect(gw) as raw:
        await raw.send(sent)
        http, headers = await raw.head()
        assert http == 400
        assert headers["content-type"] == "application/json; charset=utf-8"
        assert headers["x-content-type-options"] == "nosniff"
        body = await raw.rest()
        assert json.loads(body)["status"] == 1
        assert b"script" not in body
        assert b"Secret" not in body


@pytest.mark.parametrize("method", ["whoAmI", "getOverview", "listEnginePlugins", "watchEngines"])
async def test_a_method_without_parameters_says_so(gw: Harness, method: str) -> None:
    answer = await gw.get(method, {"x": "1"})
    assert answer.http == 400
    assert answer.message == "Unknown parameter 'x': this method takes no parameters"

"""The Message around every answer: shape, HTTP status, `method`, and what errors look like."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from aiohttp import web

from linkis_ecm.api.models import CreateEngineRequest, ResultSetRequest
from linkis_ecm.api.paths import BASE
from linkis_ecm.gateway.http import envelope
from linkis_ecm.gateway.http.errors import Refused
from linkis_ecm.gateway.http.validate import validated
from linkis_ecm.gateway.routes import METHODS
from tools.testkit.gateway.harness import PATIENCE, TOKEN, Harness

Make = Callable[..., Awaitable[Harness]]


@pytest.mark.parametrize(("status", "http"), [(-1, 401), (0, 200), (1, 400), (2, 412), (3, 403), (4, 206)])
def test_the_http_status_follows_from_the_message_status_as_in_linkis(status: int, http: int) -> None:
    response = envelope.refused("/api/rest_j/v1/x", Refused("sentence", status=status))
    assert response.status == http
    assert orjson.loads(response.body) == {"method": "/api/x", "status": status, "message": "sentence", "data": {}}


def test_method_is_the_path_without_the_servlets_part() -> None:
    assert envelope.method_of("/api/rest_j/v1/engineconnManager/downloadEngineLog") == (
        "/api/engineconnManager/downloadEngineLog"
    )
    assert envelope.method_of("/healthz") is None


def test_the_frame_of_a_big_answer_is_the_message_of_a_small_one() -> None:
    before, after = envelope.around("/api/rest_j/v1/engineconnManager/executeCode")
    small = envelope.ok("/api/rest_j/v1/engineconnManager/executeCode", orjson.Fragment(b'{"a": 1}'))
    assert before + b'{"a": 1}' + after == small.body


async def test_success_has_the_four_fields_and_linkis_default_text(gw: Harness) -> None:
    answer = await gw.get("listEngines")
    assert answer.http == 200
    assert answer.body == {
        "method": "/api/engineconnManager/listEngines",
        "status": 0,
        "message": "OK",
        "data": {"engines": [], "total": 0, "pageNow": 1, "pageSize": 100},
    }


async def test_an_unknown_path_is_a_message_of_404(gw: Harness) -> None:
    for path in (f"{BASE}/nope", "/api/nope", "/nope", "/favicon.ico", f"{BASE}/downloadEngineLog/x"):
        answer = await gw.call("GET", path)
        assert answer.http == 404, path
        assert answer.body["status"] == 1
        assert "No such path" in answer.message
        assert "/docs" in answer.message
        assert "/console" in answer.message


async def test_each_of_the_eleven_methods_is_served(gw: Harness) -> None:
    gw.gateway.streams.stop()  # the stream of all engines ends at once
    eleven = {
        "createEngineConnection", "executeCode", "getEngineStatus", "terminateEngine", "listEngines",
        "getEngineMetrics", "getResourceUsage", "updateResource", "reportResourceUsage", "sendEngineCommand",
        "getEngineLogs",
    }  # fmt: skip
    assert eleven <= {method.name for method in METHODS}
    for method in METHODS:
        path = method.path.replace("{ticketid:[^/]+}", "t-1")
        answer = await gw.call(method.verb, path, json={} if method.verb in ("POST", "PUT") else None)
        assert answer.http not in (404, 405), method.name
        # 503: this gateway has no database.
        assert answer.http < 500 or "has no database" in answer.message, method.name


async def test_another_verb_names_the_right_one(gw: Harness) -> None:
    answer = await gw.call("GET", f"{BASE}/executeCode")
    assert answer.http == 405
    assert answer.headers["Allow"] == "POST"
    assert "POST" in answer.message
    answer = await gw.call("POST", f"{BASE}/downloadEngineLog", json={})
    assert answer.http == 405


async def test_an_unexpected_error_tells_a_number_and_logs_the_rest(
    gw: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def __iter__(self) -> Any:
            raise RuntimeError("secret-internal-detail")

    object.__setattr__(gw.gateway, "engines", Broken())
    with caplog.at_level(logging.ERROR):
        answer = await gw.get("listEngines")
    assert answer.http == 500
    assert answer.body["status"] == 1
    assert b"secret-internal-detail" not in answer.raw
    assert b"Traceback" not in answer.raw
    error_id = answer.body["data"]["errorId"]
    assert error_id in answer.message
    assert error_id in caplog.text
    assert "secret-internal-detail" in caplog.text


async def test_answers_are_neither_cached_nor_guessed_at_nor_tell_versions(gw: Harness) -> None:
    answer = await gw.get("listEngines")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Server"] == "linkis-ecm"
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("body", "content_type", "http", "says"),
    [
        (b"{", "application/json", 400, "not JSON"),
        (b"[1]", "application/json", 400, "not a JSON object"),
        (b"\xff\xfe", "application/json", 400, "not JSON"),
        (b"", "application/json", 400, "not JSON"),
        (b"{}", "application/x-www-form-urlencoded", 415, "Content-Type"),
        (b"{}", "text/plain", 415, "Content-Type"),
        (b'{"engineId": "a", "engineId2": "b"}', "application/json", 400, "Unknown parameter 'engineId2'"),
        (b"{}", "application/json", 400, "Parameter engineId is missing"),
        (b'{"engineId": ""}', "application/json", 400, "Parameter engineId cannot be empty"),
        (b'{"engineId": null}', "application/json", 400, "Parameter engineId cannot be empty"),
        (b'{"engineId": 7}', "application/json", 400, "Parameter engineId is 7"),
        (b'{"engineId": ' + b"[" * 2000 + b"]" * 2000 + b"}", "application/json", 400, ""),
    ],
)
async def test_a_body_that_cannot_be_used_is_refused_in_a_sentence(
    gw: Harness, body: bytes, content_type: str, http: int, says: str
) -> None:
    answer = await gw.call("POST", f"{BASE}/terminateEngine", data=body, headers={"Content-Type": content_type})
    assert answer.http == http
    assert says in answer.message
    assert gw.cluster.writes == []


async def test_a_parameter_given_twice_is_refused(gw: Harness) -> None:
    answer = await gw.get("getEngineStatus", [("engineId", "a"), ("engineId", "b")])
    assert answer.http == 400
    assert "Parameter 'engineId' is given more than once" in answer.message


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_413_and_nothing_happens(make: Make, chunked: bool) -> None:
    gw = await make(max_body_bytes=1 << 20)
    agent, engine = await gw.served(lambda _: asyncio.sleep(0, web.json_response({})))

    async def chunks() -> Any:
        yield b'{"engineId": "' + engine["metadata"]["uid"].encode() + b'", "runType": "python", "code": "'
        for _ in range(20):
            yield b"x" * (64 << 10)
        yield b'"}'

    data = chunks() if chunked else b"".join([chunk async for chunk in chunks()])
    answer = await gw.call("POST", f"{BASE}/executeCode", data=data, headers={"Content-Type": "application/json"})
    assert answer.http == 413
    assert answer.body["status"] == 1
    assert "1 MiB" in answer.message
    assert agent.requests == []


async def test_calls_over_the_bound_are_refused_and_counted_off_again(make: Make) -> None:
    gw = await make(max_requests=1)
    release = asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        await release.wait()
        return web.json_response({"status": "Succeed", "outputs": []})

    agent, engine = await gw.served(slow)
    first = asyncio.create_task(gw.execute(engine))
    await asyncio.wait_for(agent.asked.wait(), PATIENCE)
    refused = await gw.get("listEngines")
    assert refused.http == 503
    assert refused.headers["Retry-After"] == "1"
    assert (await gw.call("GET", "/healthz")).http == 200
    release.set()
    assert (await first).http == 200
    assert (await gw.get("listEngines")).http == 200


async def test_a_body_that_trickles_is_cut_off_in_time(make: Make) -> None:
    gw = await make(client_seconds=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", gw.port)
    try:
        writer.write(
            f"POST {BASE}/terminateEngine HTTP/1.1\r\nHost: x\r\nToken-Code: {TOKEN}\r\nToken-User: alice\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode()
        )
        async with asyncio.timeout(PATIENCE):
            head = await reader.readline()
        assert b"408" in head
    finally:
        writer.close()


async def test_readyz_says_what_is_not_read_yet(gw: Harness) -> None:
    assert (await gw.call("GET", "/readyz", token=None, user=None)).http == 200
    gw.engines.synced = False
    answer = await gw.call("GET", "/readyz", token=None, user=None)
    assert answer.http == 503
    assert b"engines" in answer.raw


async def test_metrics_count_calls_by_method_and_never_by_what_a_caller_wrote(gw: Harness) -> None:
    gw.engine()
    await gw.get("listEngines")
    await gw.get("no-such-method-7f3a")
    text = (await gw.call("GET", "/metrics", token=None, user=None)).raw.decode()
    assert 'ecm_gateway_requests_total{code="200",method="listEngines"} 1.0' in text
    assert 'ecm_gateway_requests_total{code="404",method="other"} 1.0' in text
    assert 'ecm_engines{engine_type="python",state="Idle",tenant=""} 1.0' in text
    assert "no-such-method-7f3a" not in text


@pytest.mark.parametrize(
    ("model", "content", "remedy"),
    [
        (ResultSetRequest, {"engineId": "e", "format": "csv"}, "format is 'csv': give 'json', 'arrow' or 'dolphin'"),
        (ResultSetRequest, {"engineId": "e", "format": 7}, "format is 7: give 'json', 'arrow' or 'dolphin'"),
        (
            CreateEngineRequest,
            {"engineType": "python", "mode": "batch"},
            "mode is 'batch': give 'computation' or 'once'",
        ),
    ],
)
def test_a_word_that_is_none_of_the_few_is_refused_with_these(model: Any, content: Any, remedy: str) -> None:
    with pytest.raises(Refused, match=re.escape(remedy)):
        validated(model, content)

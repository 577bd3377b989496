"""Every parameter of every call about logs: missing, blank, too long, of another type, twice, another user's, a path, a
header; and requests that come by halves. Nothing of it reaches an engine."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.process.ports.listener import HEAD_SECONDS
from tests.gateway.logs.test_logs import LOG, ONLY, Make, log
from tests.gateway.raw import connect, head_of
from tools.testkit.clocks import LoopClock
from tools.testkit.gateway.harness import BASE, EM, TOKEN, Answer, Harness, ScriptedAgent

OPEN = "/api/rest_j/v1/linkisManager/openEngineLog"
METHODS = ("downloadEngineLog", "getEngineLogs", "followEngineLog", "openEngineLog")
PATHS = (
    "..", "../..", "/", "/etc/passwd", "../stdout", "stdout/../../x", "./stdout", "stdout/", "/stdout", "\\..\\stdout",
    "C:\\x", "stdout\0", "\0", "stdout\n", "%2e%2e%2fstdout", "%00", "..%c0%af", "\u2025/x", "stdout;ls", "$(id)",
    "a" * 300, "a/" * 3000, "stdout\r\nX-Evil: 1", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
)  # fmt: skip


@pytest.fixture
async def known(gw: Harness) -> tuple[ScriptedAgent, dict[str, Any]]:
    return await gw.served(log)


def good(gw: Harness, engine: dict[str, Any], method: str) -> dict[str, Any]:
    """What opens the engine's log."""
    ticket, instance = engine["metadata"]["uid"], engine["status"]["serviceInstance"]
    if method == "downloadEngineLog":
        return dict(gw.download_query(engine))
    if method == "openEngineLog":
        parameters = {"logType": "stdout", "ticketId": ticket, "logDirSuffix": engine["status"]["logDirSuffix"]}
        return {"emInstance": EM, "instance": instance, "parameters": parameters}
    return {"engineId": ticket, "logType": "stdout"}


async def ask(gw: Harness, method: str, asked: Any, **more: Any) -> Answer:
    if method == "openEngineLog":
        return await gw.call("POST", OPEN, json=asked, **more)
    return await gw.get(method, asked, **more)


def refusal(answer: Answer) -> str:
    """The sentence; Linkis's operators say it inside a success."""
    data = answer.body["data"]
    if answer.http == 200:
        assert data["isError"] is True, data
        return data["errorMsg"]
    assert answer.http in (400, 403), answer.raw
    return answer.message


# -- each parameter --------------------------------------------------------------------------------------------------

PAGED = ("getEngineLogs", "followEngineLog")
MANY = "Cannot fetch more than 5000 lines of logs.(无法获取超过5000行的日志.)"
BAD: list[tuple[str, str, Any, str]] = [
    # Linkis's own texts first; what it has none for names the parameter and the remedy.
    *(("downloadEngineLog", name, value, f"Parameter {name} cannot be empty (参数 {name} 不能为空)")
      for name in ("emInstance", "instance", "logDirSuffix", "logType") for value in (None, "", " \t ")),
    ("downloadEngineLog", "logType", "udfLog", ONLY),
    ("downloadEngineLog", "logType", "Stdout", ONLY),
    ("downloadEngineLog", "logType", "x" * 5000, ONLY),
    ("downloadEngineLog", "instance", "x" * 5000, "have no permission to download Log in ECM "),
    ("downloadEngineLog", "instance", "nobody:1", "have no permission to download Log in ECM "),
    ("downloadEngineLog", "logDirSuffix", "x" * 5000, "does not exists.(日志目录 "),
    *((method, "engineId", None, "Parameter engineId is missing") for method in PAGED),
    *((method, "engineId", "", "Parameter engineId cannot be empty") for method in PAGED),
    *((method, "engineId", "x" * 257, "use 256 characters at most") for method in PAGED),
    *((method, "engineId", "nobody", "is no engine that is known here") for method in PAGED),
    *((method, "logType", value, ONLY) for method in PAGED
      for value in ("", "  ", "Stdout", "x" * 5000)),
    *((method, "other", "1", "Unknown parameter 'other'") for method in PAGED),
    *(("getEngineLogs", name, value, f"Parameter {name}") for name in ("fromLine", "lines", "lastRows")
      for value in ("", " ", "-1", "1.5", "1e3", "x", "0x10", "١٢x", "null")),
    *(("getEngineLogs", name, "9" * 400, MANY) for name in ("lines", "lastRows")),
    ("getEngineLogs", "fromLine", "9" * 400, "Parameter fromLine"),
    ("getEngineLogs", "fromLine", str((1 << 53) + 1), "give 9007199254740992 or less"),
    ("getEngineLogs", "lines", "0", "Parameter lines is '0': give 1 or more"),
    ("getEngineLogs", "lines", "5001", MANY),
    ("getEngineLogs", "lastRows", "5001", MANY),
    *(("getEngineLogs", "enableTail", value, "Parameter enableTail") for value in ("", "maybe", "2")),
    *(("getEngineLogs", name, "w" * 1001, "use 1000 characters at most")
      for name in ("onlyKeywords", "ignoreKeywords")),
    *(("followEngineLog", name, value, f"Parameter {name}") for name in ("fromByte", "tailBytes")
      for value in ("", "-1", "1.5", "x", "9" * 400)),
    ("followEngineLog", "fromByte", str((1 << 53) + 1), "give 9007199254740992 or less"),
    ("followEngineLog", "tailBytes", str((1 << 30) + 1), "give 1073741824 or less"),
    ("openEngineLog", "instance", 7, "Parameter instance is 7: give text"),
    ("openEngineLog", "instance", "x" * 257, "use 256 characters at most"),
    ("openEngineLog", "emInstance", ["x"], "Parameter emInstance is a list: give text"),
    ("openEngineLog", "emInstance", "x" * 257, "use 256 characters at most"),
    ("openEngineLog", "parameters", None, "Parameter parameters is missing"),
    *(("openEngineLog", "parameters", value, "Parameter parameters is ") for value in ("x", 7, [])),
    ("openEngineLog", "parameters", {str(n): 1 for n in range(65)}, "give 64 entries at most"),
    *(("openEngineLog", "parameters.logType", value, "param error(参数错误)")
      for value in (None, "", "Stdout", "../stdout", 7, ["stdout"], {}, "x" * 5000)),
    *(("openEngineLog", f"parameters.{name}", value, f"{name} is ") for name in ("fromLine", "pageSize", "lastRows")
      for value in (-1, 1.5, "x", "", [], {}, True, "9" * 400, 1 << 60)),
    ("openEngineLog", "parameters.pageSize", 5001, MANY),
    ("openEngineLog", "parameters.lastRows", 5001, MANY),
    *(("openEngineLog", f"parameters.{name}", value, f"{name} is ") for name in ("onlyKeywords", "ignoreKeywords")
      for value in (7, ["a"], {}, True, "w" * 1001)),
    *(("openEngineLog", "parameters.enableTail", value, "enableTail is ") for value in (7, "maybe", [], {})),
    *(("openEngineLog", "parameters.logDirSuffix", value, "You have no permission to get log with path:")
      for value in ("other", 7, ["x"], {"a": 1}, "x" * 5000)),
]  # fmt: skip


@pytest.mark.parametrize(("method", "name", "value", "says"), BAD)
async def test_a_parameter_that_cannot_be_used_is_named_with_its_remedy(
    gw: Harness, known: tuple[ScriptedAgent, dict[str, Any]], method: str, name: str, value: Any, says: str
) -> None:
    agent, engine = known
    asked = good(gw, engine, method)
    inside, _, last = name.rpartition(".")
    where = asked[inside] if inside else asked
    if value is None:
        where.pop(last, None)
    else:
        where[last] = value
    answer = await ask(gw, method, asked)
    told = refusal(answer)
    assert says in told
    assert len(told) < 2000, "what was sent is not repeated for ever"
    assert agent.requests == []


@pytest.mark.parametrize(
    ("method", "name"),
    [("downloadEngineLog", name) for name in ("emInstance", "instance", "logDirSuffix", "logType")]
    + [("getEngineLogs", name) for name in ("engineId", "logType")]
    + [("followEngineLog", name) for name in ("engineId", "logType")],
)
async def test_a_parameter_that_comes_twice_is_refused(
    gw: Harness, known: tuple[ScriptedAgent, dict[str, Any]], method: str, name: str
) -> None:
    agent, engine = known
    asked = good(gw, engine, method)
    for second in (asked[name], "other"):
        answer = await gw.get(method, [*asked.items(), (name, second)])
        assert answer.http == 400
        assert f"Parameter {name!r} is given more than once" in answer.message.replace(f" {name} ", f" {name!r} ")
    assert agent.requests == []


@pytest.mark.parametrize("method", METHODS)
async def test_another_users_log_is_refused_except_for_admins(
    gw: Harness, known: tuple[ScriptedAgent, dict[str, Any]], method: str
) -> None:
    agent, engine = known
    for asked in (
        good(gw, engine, method),
        good(gw, engine, method) | {"logDirSuffix": "guess"} if "download" in method else None,
    ):
        if asked is not None:
            told = refusal(await ask(gw, method, asked, user="bob"))
            assert "permission" in told or "belongs to another user" in told
    for token, user in ((None, None), ("wrong", "alice")):
        assert (await ask(gw, method, good(gw, engine, method), token=token, user=user)).http == 401
    assert agent.requests == []


@pytest.mark.parametrize("path", PATHS)
async def test_no_parameter_is_a_path_or_a_header(make: Make, path: str) -> None:
    looked_up: list[str] = []

    def find(engine_id: str) -> KnownEngine | None:
        looked_up.append(engine_id.encode().decode())
        return None

    gw = await make(find=find)
    agent, engine = await gw.served(log)
    for method in METHODS:
        asked = good(gw, engine, method)
        for name in asked:
            if name == "emInstance":
                continue  # where the request came to; any is
            if name != "parameters":
                changed = asked | {name: path}
                if method == "openEngineLog":
                    changed["parameters"] = {**asked["parameters"]}
                    del changed["parameters"]["ticketId"]  # which comes first
                answer = await ask(gw, method, changed)
                told = refusal(answer)
                assert told.isprintable()
                assert "X-Evil" not in answer.headers
                continue
            for inner in asked["parameters"]:
                changed = asked | {"parameters": {**asked["parameters"], inner: path}}
                if inner == "ticketId":
                    changed["instance"] = path
                refusal(await ask(gw, method, changed))
    assert agent.requests == []


@pytest.mark.parametrize("em", ["x\r\nX-Evil: 1", "\0", "..", "x" * 5000, "<script>"])
async def test_an_ecm_is_only_repeated_and_harmlessly(gw: Harness, em: str) -> None:
    _, engine = await gw.served(log)
    answer = await gw.get("downloadEngineLog", gw.download_query(engine) | {"emInstance": em})
    assert (answer.http, answer.raw) == (200, LOG)
    assert "X-Evil" not in answer.headers
    refused = await gw.get("downloadEngineLog", gw.download_query(engine) | {"emInstance": em}, user="bob")
    assert refused.http == 400
    assert refused.message.isprintable()
    assert len(refused.message) < 1000


@pytest.mark.parametrize(
    "escape", ["%0d%0aX-Evil:%201", "%0aX-Evil:%201", "%0d", "%00", "%ff%fe", "%", "%zz", "%e2%80%a8"]
)
@pytest.mark.parametrize("name", ["emInstance", "instance", "logDirSuffix", "logType"])
async def test_escapes_as_they_are_on_the_wire_make_no_header(gw: Harness, name: str, escape: str) -> None:
    _, engine = await gw.served(log)
    query = {key: quote(value) for key, value in gw.download_query(engine).items()}
    query[name] += escape
    async with connect(gw) as raw:
        asked = "&".join(f"{key}={value}" for key, value in query.items())
        await raw.send(head_of("GET", "downloadEngineLog", asked, headers="Connection: close\r\n"))
        status, headers = await raw.head()
        assert status == (200 if name == "emInstance" else 400)
        assert "x-evil" not in headers
        assert b"HTTP/1.1" not in await raw.rest(), "one request has one answer"


async def test_a_file_is_named_with_characters_that_a_header_may_hold(gw: Harness) -> None:
    _, engine = await gw.served(log)
    for instance in ("linkis/python-alice-abc123", engine["metadata"]["uid"]):
        answer = await gw.get("downloadEngineLog", gw.download_query(engine) | {"instance": instance})
        assert answer.http == 200
        name = answer.headers["Content-Disposition"].removeprefix("attachment;filename=")
        assert name == f"{instance.replace('/', '_')}_stdout.txt"


# -- requests that come by halves ------------------------------------------------------------------------------------


async def alive(gw: Harness, engine: dict[str, Any]) -> None:
    assert (await gw.get("downloadEngineLog", gw.download_query(engine))).raw == LOG


async def test_an_incomplete_body_is_refused_after_its_timeout(make: Make) -> None:
    gw = await make(client_seconds=0.3)
    agent, engine = await gw.served(log)
    body = json.dumps(good(gw, engine, "openEngineLog")).encode()
    sent = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    async with connect(gw) as raw:
        await raw.send(head_of("POST", OPEN, headers=sent) + body[: len(body) // 2])
        status, headers = await raw.head()
        assert status == 408
        told = await raw.reader.readexactly(int(headers["content-length"]))
        assert b"The body did not come in time: send it faster" in told
    # One that leaves in the middle of it.
    async with connect(gw) as raw:
        await raw.send(head_of("POST", OPEN, headers=sent) + body[: len(body) // 2])
        raw.vanish()
    # A body where none is wanted: the answer is there before it.
    async with connect(gw) as raw:
        query = gw.download_query(engine)
        await raw.send(head_of("GET", "downloadEngineLog", query, headers="Content-Length: 1000\r\n") + b"half")
        assert (await raw.head())[0] == 200
    assert [path for _, path, _, _ in agent.requests] == ["/v1/logs/stdout"]
    await alive(gw, engine)


@pytest.mark.parametrize("head", [b"", b"GET /", b"GET /api HTTP/1.1\r\nHost: x\r\nToken-Code: "])
async def test_a_head_in_dribbles_is_cut_after_its_time(gw: Harness, clock: LoopClock, head: bytes) -> None:
    _, engine = await gw.served(log)
    begun = asyncio.get_running_loop().time()
    async with connect(gw) as raw:
        await raw.send(head)
        ended = asyncio.create_task(raw.rest(3 * HEAD_SECONDS))
        # Ten pieces in all of that time.
        while not ended.done():
            clock.forward(HEAD_SECONDS / 10)
            with suppress(ConnectionError):
                await raw.send(b"A" if head else b"")
            await asyncio.wait((ended,), timeout=0.01)
        assert await ended == b""
    took = asyncio.get_running_loop().time() - begun
    assert HEAD_SECONDS <= took < 2 * HEAD_SECONDS
    await alive(gw, engine)


async def test_a_head_in_dribbles_that_comes_in_time_is_served(gw: Harness) -> None:
    _, engine = await gw.served(log)
    head = head_of("GET", "downloadEngineLog", gw.download_query(engine), headers="Connection: close\r\n")
    async with connect(gw) as raw:
        for start in range(0, len(head), 37):
            await raw.send(head[start : start + 37])
            await asyncio.sleep(0.001)
        assert (await raw.head())[0] == 200
        assert await raw.rest() == LOG


@pytest.mark.parametrize(
    "head",
    [
        b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 40_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nxxxxx",
    ],
)  # fmt: skip
async def test_malformed_http_is_refused_and_the_connection_closed(gw: Harness, head: bytes) -> None:
    _, engine = await gw.served(log)
    async with connect(gw) as raw:
        await raw.send(head)
        status, _ = await raw.head()
        assert 400 <= status < 500
        body = await raw.rest()
        assert len(body) < 2000
        assert TOKEN.encode() not in body
    await alive(gw, engine)


async def test_a_line_as_long_as_all_parameters_together_is_read(gw: Harness) -> None:
    _, engine = await gw.served(log)
    query = gw.download_query(engine) | {"emInstance": "é" * 2500}
    assert len(urlencode(query)) > 15_000
    answer = await gw.call("GET", f"{BASE}/downloadEngineLog", params=query)
    assert answer.raw == LOG

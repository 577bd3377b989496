"""getEngineLogs and downloadEngineLog: Linkis's parameters and texts, nobody else's log, and memory that stays flat.

The agent is scripted where it misbehaves; test_agent.py has the real one.
"""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from linkis_ecm.gateway.agents.link import no_agent
from linkis_ecm.gateway.logs import source
from linkis_ecm.gateway.logs.live import DOWNLOADS_PER_ENGINE
from tools.testkit.clocks import LoopClock
from tools.testkit.gateway.harness import BASE, EM, PATIENCE, Harness

Make = Callable[..., Awaitable[Harness]]
LOG = "".join(f"line {n}\n" for n in range(1, 101)).encode()
ONLY = "logType only supports stdout, stderr, gc, yarnApp(logType仅支持stdout,stderr,gc,yarnApp)"


async def log(_: web.Request) -> web.StreamResponse:
    return web.Response(body=LOG, content_type="text/plain", headers={"X-Log-Size": str(len(LOG)), "X-Log-File": "7"})


async def missing(_: web.Request) -> web.StreamResponse:
    return web.json_response(
        {"error": "this engine has no log gc now: none was written, or its code has renamed or removed it"}, status=404
    )


def endless(size: int, piece: bytes = b"x" * (256 << 10)) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A log of `size` bytes that is never whole in memory."""

    async def send(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(size), "X-Log-Size": str(size)})
        await response.prepare(request)
        for start in range(0, size, len(piece)):
            await response.write(piece[: size - start])
        return response

    return send


# -- downloadEngineLog -------------------------------------------------------------------------------------------------


async def test_the_log_comes_as_a_file_named_after_the_instance(gw: Harness) -> None:
    agent, engine = await gw.served(log)
    answer = await gw.get("downloadEngineLog", gw.download_query(engine))
    assert answer.http == 200
    assert answer.raw == LOG
    assert answer.headers["Content-Length"] == str(len(LOG))
    name = engine["status"]["serviceInstance"].replace(":", "_")
    assert answer.headers["Content-Disposition"] == f"attachment;filename={name}_stdout.txt"
    ((verb, path, _, _),) = agent.requests
    assert (verb, path) == ("GET", "/v1/logs/stdout")


@pytest.mark.parametrize("name", ["emInstance", "instance", "logDirSuffix", "logType"])
@pytest.mark.parametrize("value", [None, "", "  "])
async def test_a_missing_or_blank_parameter_is_named_in_linkis_words(gw: Harness, name: str, value: str | None) -> None:
    agent, engine = await gw.served(log)
    query = gw.download_query(engine)
    del query[name]
    if value is not None:
        query[name] = value
    answer = await gw.get("downloadEngineLog", query)
    assert answer.http == 400
    assert answer.message == f"Parameter {name} cannot be empty (参数 {name} 不能为空)"
    assert agent.requests == []


@pytest.mark.parametrize("log_type", ["stdin", "STDOUT", "../stdout", "udf", "stdout\x00"])
async def test_a_log_type_outside_the_four_is_refused_in_linkis_words(gw: Harness, log_type: str) -> None:
    agent, engine = await gw.served(log)
    for answer in (
        await gw.get("downloadEngineLog", gw.download_query(engine, log_type)),
        await gw.get("getEngineLogs", {"engineId": engine["metadata"]["uid"], "logType": log_type}),
    ):
        assert (answer.http, answer.message) == (400, ONLY)
    assert agent.requests == []


@pytest.mark.parametrize(
    "suffix",
    ["..", "../../etc", "/etc/passwd", "/", ".", "alice/../bob", "%2e%2e", "alice\\..", "a" * 5000, "stdout\r\nX: y"],
)
async def test_a_log_folder_is_looked_up_and_never_used_as_a_path(gw: Harness, suffix: str) -> None:
    agent, engine = await gw.served(log)
    answer = await gw.get("downloadEngineLog", gw.download_query(engine) | {"logDirSuffix": suffix})
    assert answer.http == 400
    assert "does not exists.(日志目录 " in answer.message
    assert "take both from getEngineStatus" in answer.message
    assert "\n" not in answer.message
    assert agent.requests == []


async def test_another_engines_folder_does_not_open_this_ones_log(gw: Harness) -> None:
    agent, engine = await gw.served(log)
    other = gw.engine(name="python-alice-other")
    query = gw.download_query(engine) | {"logDirSuffix": other["status"]["logDirSuffix"]}
    answer = await gw.get("downloadEngineLog", query)
    assert answer.http == 400
    assert agent.requests == []


async def test_another_users_log_is_refused_in_linkis_words_whatever_folder_is_named(gw: Harness) -> None:
    agent, engine = await gw.served(log)
    for query in (gw.download_query(engine), gw.download_query(engine) | {"logDirSuffix": "guess"}):
        answer = await gw.get("downloadEngineLog", query, user="bob")
        assert answer.http == 400
        assert answer.message.startswith(f"You bob have no permission to download Log in ECM {EM}")
    assert agent.requests == []


async def test_an_admin_downloads_anybodys_log(gw: Harness) -> None:
    _, engine = await gw.served(log)
    assert (await gw.get("downloadEngineLog", gw.download_query(engine), user="root")).raw == LOG


async def test_an_unknown_instance_is_said_as_a_missing_folder(gw: Harness) -> None:
    engine = gw.engine()
    query = gw.download_query(engine) | {"instance": "nobody:1"}
    answer = await gw.get("downloadEngineLog", query, user="root")
    assert answer.http == 400
    assert "does not exists" in answer.message
    # Others are not told what there is.
    refused = await gw.get("downloadEngineLog", query)
    assert refused.message.startswith(f"You alice have no permission to download Log in ECM {EM}")


async def test_a_log_that_was_never_written_is_said_so(gw: Harness) -> None:
    _, engine = await gw.served(missing)
    answer = await gw.get("downloadEngineLog", gw.download_query(engine, "gc"))
    assert answer.http == 400
    assert "gc" in answer.message


async def test_a_limit_where_one_is_set_is_kept_and_names_the_way_round(make: Make) -> None:
    gw = await make(max_download_bytes=1 << 20)
    _, engine = await gw.served(endless((1 << 20) + 1))
    answer = await gw.get("downloadEngineLog", gw.download_query(engine))
    assert answer.http == 400
    assert answer.message.startswith("Download file has exceeded 1MB(下载文件已超过1M)")
    assert "getEngineLogs" in answer.message
    all_of_it = await gw.get("downloadEngineLog", gw.download_query(engine), headers={"Range": "bytes=0-"})
    assert (all_of_it.http, all_of_it.message) == (400, answer.message)


async def test_200_mib_pass_through_with_memory_flat_though_the_client_is_slow(gw: Harness) -> None:
    size = 200 << 20
    _, engine = await gw.served(endless(size))
    headers = {"Token-Code": "LINKIS-TEST-0123456789", "Token-User": "alice"}
    got = 0
    tracemalloc.start()
    try:
        async with gw.session.get(
            f"{gw.url}{BASE}/downloadEngineLog", params=gw.download_query(engine), headers=headers
        ) as answer:
            assert answer.status == 200
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            # Long enough for everything to fill up that would.
            await asyncio.sleep(0.3)
            async for piece in answer.content.iter_any():
                got += len(piece)
            _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert got == size
    # Agent, gateway and client of this test share the process: the buffers of all three.
    assert peak - before < 16 << 20


async def test_a_log_that_breaks_off_never_looks_whole(gw: Harness) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(1 << 20), "X-Log-Size": str(1 << 20)})
        await response.prepare(request)
        await response.write(b"x" * (1 << 19))
        assert request.transport is not None
        request.transport.close()
        return response

    _, engine = await gw.served(half)
    with pytest.raises(aiohttp.ClientError):
        await gw.get("downloadEngineLog", gw.download_query(engine))
    text = (await gw.call("GET", "/metrics", token=None, user=None)).raw.decode()
    assert 'ecm_gateway_responses_aborted_total{side="engine"} 1.0' in text


@pytest.mark.parametrize("pause_at", [0, 1, 300_000])
async def test_a_long_log_is_whole_wherever_its_agent_pauses(gw: Harness, pause_at: int) -> None:
    data = os.urandom(1 << 20) * 6

    async def send(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(data)), "X-Log-Size": str(len(data))})
        await response.prepare(request)
        for part in (data[:pause_at], data[pause_at:]):
            await response.write(part)
            await asyncio.sleep(0.1)
        return response

    _, engine = await gw.served(send)
    for _ in range(2):
        answer = await gw.get("downloadEngineLog", gw.download_query(engine))
        assert (answer.http, answer.raw == data) == (200, True)


async def test_an_agent_that_stalls_in_the_middle_of_a_long_log_is_cut(make: Make, clock: LoopClock) -> None:
    gw = await make(client_seconds=1e6)
    stalled = asyncio.Event()

    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(8 << 20), "X-Log-Size": str(8 << 20)})
        await response.prepare(request)
        await response.write(b"x" * (5 << 20))
        stalled.set()
        await asyncio.Event().wait()
        raise AssertionError

    agent, engine = await gw.served(half)
    call = asyncio.create_task(gw.get("downloadEngineLog", gw.download_query(engine)))
    await asyncio.wait_for(stalled.wait(), PATIENCE)
    await clock.until_over(call, gw.settings.agent_seconds)
    with pytest.raises(aiohttp.ClientError):
        await call
    await asyncio.wait_for(agent.left.wait(), PATIENCE)
    text = (await gw.call("GET", "/metrics", token=None, user=None)).raw.decode()
    assert 'ecm_gateway_responses_aborted_total{side="engine"} 1.0' in text


async def test_an_agent_that_stalls_is_cut_and_one_that_stalls_before_its_head_is_504(make: Make) -> None:
    gw = await make(agent_seconds=0.2)

    async def stall(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3600)
        raise AssertionError

    _, engine = await gw.served(stall)
    answer = await gw.get("downloadEngineLog", gw.download_query(engine))
    assert answer.http == 504
    assert "did not answer in time" in answer.message


async def test_a_client_that_vanishes_frees_its_place_and_stops_the_agent(gw: Harness) -> None:
    agent, engine = await gw.served(endless(1 << 40))
    headers = {"Token-Code": "LINKIS-TEST-0123456789", "Token-User": "alice"}
    for _ in range(DOWNLOADS_PER_ENGINE + 1):
        agent.left.clear()
        answer = await gw.session.get(
            f"{gw.url}{BASE}/downloadEngineLog", params=gw.download_query(engine), headers=headers
        )
        assert answer.status == 200
        await answer.content.readany()
        answer.close()
        async with asyncio.timeout(PATIENCE):
            await agent.left.wait()


async def test_a_client_that_takes_nothing_is_cut(make: Make) -> None:
    gw = await make(client_seconds=0.3)
    agent, engine = await gw.served(endless(1 << 30))
    reader, writer = await asyncio.open_connection("127.0.0.1", gw.port, limit=1 << 16)
    query = "&".join(f"{name}={value}" for name, value in gw.download_query(engine).items())
    head = f"GET {BASE}/downloadEngineLog?{query} HTTP/1.1\r\nHost: x\r\nToken-Code: LINKIS-TEST-0123456789\r\n"
    writer.write(f"{head}Token-User: alice\r\n\r\n".encode())
    try:
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        async with asyncio.timeout(PATIENCE):
            await agent.left.wait()
    finally:
        writer.close()


# -- getEngineLogs -----------------------------------------------------------------------------------------------------


def page(content: Any, *, status: int = 200) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def send(_: web.Request) -> web.StreamResponse:
        return web.json_response(content, status=status)

    return send


async def test_a_page_of_lines_has_linkis_fields_and_its_path_leads_back_to_the_download(gw: Harness) -> None:
    agent, engine = await gw.served(page({"logs": ["a", "b"], "endLine": 12, "rows": 2, "logPath": "/secret"}))
    ticket = engine["metadata"]["uid"]
    answer = await gw.get("getEngineLogs", {"engineId": ticket, "fromLine": "11", "lines": "2"})
    suffix = engine["status"]["logDirSuffix"]
    assert answer.data == {"logPath": f"{suffix}/stdout", "logs": ["a", "b"], "endLine": 12, "rows": 2}
    assert agent.requests[0][1] == "/v1/logs/stdout/lines?fromLine=11&lines=2"
    folder = answer.data["logPath"].rpartition("/")[0]
    agent.handler = log
    assert (await gw.get("downloadEngineLog", gw.download_query(engine) | {"logDirSuffix": folder})).raw == LOG


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"lines": "5001"}, "Cannot fetch more than 5000 lines of logs."),
        ({"lines": "0"}, "Parameter lines is '0': give 1 or more"),
        ({"lines": "many"}, "Parameter lines is 'many': give a whole number"),
        ({"fromLine": "-1"}, "Parameter fromLine is '-1': give 0 or more"),
        ({"fromLine": ""}, "Parameter fromLine cannot be empty"),
        ({"tail": "1"}, "Unknown parameter 'tail'"),
    ],
)
async def test_a_page_that_cannot_be_given_is_refused(gw: Harness, query: dict[str, str], says: str) -> None:
    agent, engine = await gw.served(log)
    answer = await gw.get("getEngineLogs", {"engineId": engine["metadata"]["uid"]} | query)
    assert answer.http == 400
    assert says in answer.message
    assert agent.requests == []


async def test_log_lines_of_another_users_engine_are_refused(gw: Harness) -> None:
    agent, engine = await gw.served(log)
    answer = await gw.get("getEngineLogs", {"engineId": engine["metadata"]["uid"]}, user="bob")
    assert answer.http == 403
    assert agent.requests == []


@pytest.mark.parametrize("content", [[], {"logs": "a"}, {"logs": [1], "endLine": 1}, {"logs": [], "endLine": "1"}])
async def test_a_malformed_log_page_of_an_agent_is_refused(gw: Harness, content: Any) -> None:
    _, engine = await gw.served(page(content))
    answer = await gw.get("getEngineLogs", {"engineId": engine["metadata"]["uid"]})
    assert answer.http == 502
    assert "without lines" in answer.message


@pytest.mark.parametrize(
    ("has_agent", "log_type", "words"),
    [
        (True, "gc", "has no such log: ask for logType stdout or stderr"),
        (False, "gc", "has no such log: ask for logType stdout or stderr"),
        (True, "stdout", "nothing was written to it, or code of the engine has renamed or removed it"),
        (False, "stdout", "what its container printed is kept as stdout, and there is none"),
        (False, "stderr", "what its container printed is kept as stdout, and there is none"),
    ],
)
def test_a_log_that_is_missing_is_not_asked_for_again(has_agent: bool, log_type: str, words: str) -> None:
    engine: Any = SimpleNamespace(log_dir_suffix="a/b", has_agent=has_agent)
    assert words in str(source.missing(engine, log_type))


@pytest.mark.parametrize(
    ("instance", "words"),
    [("h:8080", "use it at h:8080, and read its log with"), ("h:0", "it listens nowhere: read its log with")],
)
def test_a_process_without_a_port_is_not_to_be_used_at_one(instance: str, words: str) -> None:
    engine: Any = SimpleNamespace(
        title="engine w", launch="process", service_instance=instance, pod_name="p", namespace="ns"
    )
    assert words in str(no_agent(engine))

"""Attacks on the gateway by a user with a login, who is not an admin. Must not measure."""

from __future__ import annotations

import asyncio
import gzip
import json
from functools import partial
from typing import Any
from urllib.parse import urlencode

from bench.floods.attack import JSON, LOGIN, Context, Flood, call, deaf, engine_id, hold, repeat, together
from linkis_ecm.api.paths import BASE
from tools.loopback.sockets import connection, request, send

MIB = 1 << 20
# A sparse file of 1 TiB among the engine's logs.
SPARSE = "import os\nwith open(os.environ.get('ECM_LOG_DIR', 'logs') + '/gc', 'wb') as f: f.truncate(1 << 40)\n"
# Three outputs, as long as the agent keeps them.
LONG_OUTPUT = "from IPython.display import HTML, display\nfor _ in range(3): display(HTML('x' * (15 << 20)))\n"


async def half_bodies(context: Context) -> None:
    head = request("POST", f"{BASE}/executeCode", headers=LOGIN | JSON, length=8 * MIB)
    await hold(context, context.at_gateway, 95, head + b'{"code":"' + b"x" * 65536)


async def large_code(context: Context) -> None:
    body = {"engineId": "engines/none", "runType": "python", "code": "x" * (8 * MIB - 200)}
    data = call("executeCode", body)
    await repeat(context, context.at_gateway, 48, lambda _: data)


async def large_code_that_runs(context: Context) -> None:
    body = {"engineId": engine_id(context.own), "runType": "python", "code": "#" + "x" * (8 * MIB - 200), "wait": False}
    data = call("executeCode", body)
    await repeat(context, context.at_gateway, 16, lambda _: data)


async def packed(context: Context) -> None:
    body = {"engineId": engine_id(context.own), "runType": "python", "code": "x" * (8 * MIB - 200)}
    packed_body = gzip.compress(json.dumps(body).encode())
    headers = LOGIN | JSON | {"Content-Encoding": "gzip"}
    data = request("POST", f"{BASE}/executeCode", headers=headers, body=packed_body)
    await repeat(context, context.at_gateway, 90, lambda _: data)


async def many_keys(context: Context) -> None:
    bodies: tuple[dict[str, Any], ...] = (
        {"engineType": "python", "labels": {f"{n} ": 1 for n in range(500_000)}},
        {"engineType": "python"} | {str(n): 0 for n in range(500_000)},
        {"engineType": "python", "env": {f"{n}": [n] for n in range(300_000)}},
        {"engineId": [[]] * 2_000_000},
    )
    context.prepares()
    calls = [call("createEngineConnection", json.dumps(body, separators=(",", ":")).encode()) for body in bodies]
    context.begins()
    await repeat(context, context.at_gateway, 12, lambda n: calls[n % len(calls)])


async def many_faults(context: Context) -> None:
    """Thousands of wrong fields in all methods that take a body or a query."""
    fields = {f"field{n}": [n] for n in range(4000)}
    names = ["x" * 300] * 150
    calls = [
        call("createEngineConnection", {"engineType": "python", "resources": fields}),
        call("sendEngineCommand", {"engineId": "a", "command": "x", "parameters": fields}),
        call("terminateEngine", {"engineId": fields}),
        call("linkisManager/rm/enginekill", [{"engineInstance": name, str(n): n} for n, name in enumerate(names)]),
        call("linkisManager/ecinfo/ecList", {"creators": names * 20, "engineTypes": names * 20}),
        call("listEngines", query="?" + "&".join(f"f{n}=1" for n in range(3000))),
        call("getEngineLogs", query="?" + "&".join("engineId=a" for _ in range(2500))),
        call("executeCode", b"[" * 5000 + b"]" * 5000),
        call("executeCode", b'{"code":' + b"9" * 60_000 + b"}"),
    ]
    await repeat(context, context.at_gateway, 32, lambda n: calls[n % len(calls)])


async def ten_thousand(context: Context) -> None:
    """As fast as it goes, on 100 connections that are kept."""
    paths = ("listEngines", "previewCull", "getEngineStatus?engineId=" + engine_id(context.own))
    data = b"".join(request("GET", f"{BASE}/{path}", headers=LOGIN) for path in paths)

    async def worker() -> None:
        while True:
            try:
                async with connection(context.at_gateway) as (reader, writer):
                    while True:
                        writer.write(data)
                        for _ in paths:
                            head = await reader.readuntil(b"\r\n\r\n")
                            context.count(head[9:12].decode())
                            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                            await reader.readexactly(length)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
                context.count("cut")
                await asyncio.sleep(0.05)

    await together(100, worker)


async def run_code(context: Context, code: str) -> str:
    """The id of a task on the attacker's engine that has ended."""
    body = {"engineId": engine_id(context.own), "runType": "python", "code": code}
    context.prepares()
    answer = await send(context.at_gateway, call("executeCode", body), seconds=60)
    # The outputs may be longer than what is read here.
    _, _, rest = answer.body.partition(b'"taskId":"')
    context.count(f"code ran: {answer.status}")
    context.begins()
    return rest.partition(b'"')[0].decode()


async def followers(context: Context) -> None:
    """48 who follow the same long events, and read nothing (S6)."""
    task = await run_code(context, LONG_OUTPUT)
    query = "?" + urlencode({"engineId": engine_id(context.own), "taskId": task})
    await deaf(context, context.at_gateway, call("taskEvents", query=query), 48)


async def slow_results(context: Context) -> None:
    """95 who ask for a long result and read nothing."""
    task = await run_code(context, LONG_OUTPUT)
    query = urlencode({"engineId": engine_id(context.own), "taskId": task})
    head = request("GET", f"{BASE}/getTaskResult?{query}", headers=LOGIN)
    await deaf(context, context.at_gateway, head, 95)


async def sparse_logs(context: Context) -> None:
    """A log of 1 TiB, of which nothing was written (S12): pages, downloads, followers."""
    await run_code(context, SPARSE)
    own = context.own
    what = {"logType": "gc", "engineId": engine_id(own)}
    download = {
        "emInstance": "ecm-gateway.linkis:9102", "instance": own.instance, "logDirSuffix": own.log_dir, "logType": "gc",
    }  # fmt: skip
    gzip_login = LOGIN | {"Accept-Encoding": "gzip"}
    heads = [
        call("getEngineLogs", query="?" + urlencode(what | {"fromLine": 1, "pageSize": 1000})),
        call("getEngineLogs", query="?" + urlencode(what | {"lastRows": 1000})),
        request("GET", f"{BASE}/downloadEngineLog?{urlencode(download)}", headers=LOGIN),
        request("GET", f"{BASE}/downloadEngineLog?{urlencode(download)}", headers=gzip_login),
        call("followEngineLog", query="?" + urlencode(what)),
    ]
    async with asyncio.TaskGroup() as group:
        for head in heads:
            group.create_task(repeat(context, context.at_gateway, 3, partial(_same, head), seconds=10))


def _same(data: bytes, _: int) -> bytes:
    return data


async def deaf_downloads(context: Context) -> None:
    """95 downloads that are not read, of a log of 64 MiB."""
    await run_code(context, "print(('x' * 1023 + '\\n') * 65536)")
    own = context.own
    query = {
        "emInstance": "ecm-gateway.linkis:9102", "instance": own.instance, "logDirSuffix": own.log_dir,
        "logType": "stdout",
    }  # fmt: skip
    head = request("GET", f"{BASE}/downloadEngineLog?{urlencode(query)}", headers=LOGIN)
    await deaf(context, context.at_gateway, head, 95)


FLOODS = (
    Flood("user-half-bodies", "95 bodies of 8 MiB that do not come", "gateway", half_bodies),
    Flood("large-code", "48 bodies of 8 MiB at a time, for no engine", "gateway", large_code),
    Flood("large-code-runs", "16 bodies of 8 MiB at a time, that run", "gateway", large_code_that_runs),
    Flood("user-packed", "90 packed bodies of 8 MiB at a time (S8)", "gateway", packed),
    Flood("user-many-keys", "bodies of 300,000 to 2,000,000 values (S3)", "gateway", many_keys),
    Flood("many-faults", "thousands of wrong fields in nine methods", "gateway", many_faults),
    Flood("ten-thousand", "100 connections that call as fast as they can", "gateway", ten_thousand),
    Flood("followers", "48 followers of events of 15 MiB (S6)", "gateway", followers),
    Flood("slow-results", "95 results of 45 MiB that are not read", "gateway", slow_results),
    Flood("sparse-logs", "a log of 1 TiB: pages, downloads, followers (S12)", "gateway", sparse_logs),
    Flood("deaf-downloads", "95 downloads that are not read", "gateway", deaf_downloads),
)

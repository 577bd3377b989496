"""`python -m bench.logs`: logs through a real gateway and a real agent on loopback, outside any cluster.

Download against aiohttp's own file response from the same file, in turns; the memory of agent and gateway over 10 GiB;
a page at line 5,000,000 of 2 GB once the index is warm. Files are made in a temporary folder whose room is looked at
first, and go with it. Prints numbers and ratios of one run; exits 1 where a goal was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from bench import arguments
from bench.clean import end_on_signals, scratch
from bench.figures.table import Table
from bench.processes.loopback import HEADERS, agents, engine_id, gateway, name_of
from bench.trace.processes import usage
from linkis_ecm.api.paths import BASE
from tools.testkit.agents.process import AgentProcess
from tools.testkit.gateway.harness import engine_item
from tools.testkit.servers.serving import Server, serving, until_let_go

GIB = 1 << 30
MIB = 1 << 20
ENGINE = engine_item(name=name_of(0))
PATIENCE = 60.0
# Names of Linkis's logs; nothing is written to any of them here.
LINES, DOWNLOAD, LONG = "yarnApp", "gc", "stderr"
LINE = 400
COUNT = 2 * 10**9 // LINE + 500_000
WANTED = 5_000_000
PAGES = 60


async def serve_floor(path: str) -> None:
    """What aiohttp does with a file by itself."""

    async def file(_: web.Request) -> web.FileResponse:
        return web.FileResponse(path)

    app = web.Application()
    app.router.add_get("/", file)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await until_let_go(runner.addresses[0][1])
    await runner.cleanup()


# -- the client ------------------------------------------------------------------------------------------------------


def download(
    port: int, target: str, watched: tuple[int, ...] = (), *, headers: Mapping[str, str] = HEADERS
) -> tuple[int, float, list[int]]:
    """Bytes of the body, seconds, and by how much each process of `watched` grew; the same client for all sides."""
    head_lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    buffer = memoryview(bytearray(MIB))
    before = [resident(pid) for pid in watched]
    peaks = list(before)
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: bench\r\n{head_lines}Connection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        told, _, rest = head.partition(b"\r\n\r\n")
        if not told.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"no log: {head[:500]!r}")
        expected = int(re.search(rb"(?i)content-length: (\d+)", told)[1])  # type: ignore[index]
        got, looked = len(rest), 0
        while got < expected and (count := client.recv_into(buffer)):
            got += count
            if watched and got - looked > 64 * MIB:
                looked = got
                peaks = [max(peak, resident(pid)) for peak, pid in zip(peaks, watched, strict=True)]
    took = time.perf_counter() - began
    if got != expected:
        raise SystemExit(f"the log broke off at {got} of {expected} bytes")
    return got, took, [peak - first for peak, first in zip(peaks, before, strict=True)]


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def of(log_type: str) -> str:
    """Where a log is downloaded."""
    status = ENGINE["status"]
    query = {
        "emInstance": status["ecmInstance"], "instance": status["serviceInstance"],
        "logDirSuffix": status["logDirSuffix"], "logType": log_type,
    }  # fmt: skip
    return f"{BASE}/downloadEngineLog?{urlencode(query)}"


def page(connection: http.client.HTTPConnection, from_line: int) -> tuple[dict[str, Any], float]:
    """100 lines from there, and the seconds."""
    query = urlencode({"engineId": engine_id(0), "logType": LINES, "fromLine": from_line, "lines": 100})
    began = time.perf_counter()
    connection.request("GET", f"{BASE}/getEngineLogs?{query}", headers=HEADERS)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    took = time.perf_counter() - began
    if answer.status != 200 or body["data"]["logs"][0][:9] != f"{from_line:09d}":
        raise SystemExit(f"not that line: {str(body)[:300]}")
    return body["data"], took


# -- the files -------------------------------------------------------------------------------------------------------


def make_download(folder: Path, size: int) -> None:
    """A file for the ratio."""
    with (folder / DOWNLOAD).open("wb") as file:
        for _ in range(size // MIB):
            file.write((b"x" * 127 + b"\n") * 8192)


def make_files(folder: Path, long: int) -> None:
    """2 GB of numbered lines, and a sparse file of 10 GiB, whose holes are read as pages too."""
    room = shutil.disk_usage(folder).free
    if room < COUNT * LINE + 4 * GIB:
        raise SystemExit(f"{folder} has {room // GIB} GiB left: give --folder one with {COUNT * LINE // GIB + 6} GiB")
    tail = b" " + b"." * (LINE - 11) + b"\n"
    with (folder / LINES).open("wb") as file:
        for start in range(1, COUNT + 1, 50_000):
            file.write(b"".join(b"%09d" % number + tail for number in range(start, start + 50_000)))
    with (folder / LONG).open("wb") as file:
        for _ in range(long // MIB):
            file.write(bytes(MIB))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.logs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=arguments.folder, help="where the files are made (default: the system's)")
    parser.add_argument(
        "--pairs", type=arguments.count, default=31, help="downloads of each kind in a run, in turns (default 31)"
    )
    parser.add_argument("--runs", type=arguments.count, default=3, help="runs, of which the median counts (default 3)")
    parser.add_argument("--download", action="store_true", help="the ratio of downloads alone: 512 MiB of disk")
    parser.add_argument("--floor", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.floor:
        asyncio.run(serve_floor(options.floor))
        return 0
    end_on_signals()
    table = Table(52, 14, 10)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch(options.folder))
        (agent,) = stack.enter_context(agents(1, folder))
        make_download(agent.log_dir, GIB // 2)
        if not options.download:
            make_files(agent.log_dir, 10 * GIB)
        served = stack.enter_context(gateway([f"127.0.0.1:{agent.port}"], folder))
        floor = stack.enter_context(serving("bench.logs", "--floor", str(agent.log_dir / DOWNLOAD)))
        _downloads(table, served, agent, floor, options)
        if not options.download:
            _memory_and_pages(table, served.port, (served.pid, agent.process.pid))
    return table.finish()


def _downloads(table: Table, served: Server, agent: AgentProcess, floor: Server, options: argparse.Namespace) -> None:
    """All processes, this one too, may use the same cores: those that the benchmark was started on."""
    kinds: dict[str, tuple[int, str, dict[str, str]]] = {
        "floor": (floor.port, "/", {}),
        "agent": (agent.port, f"/v1/logs/{DOWNLOAD}", {"Authorization": f"Bearer {agent.token}"}),
        "ours": (served.port, of(DOWNLOAD), HEADERS),
    }
    pids = {"floor": (floor.pid,), "agent": (agent.process.pid,), "ours": (served.pid, agent.process.pid)}
    for port, target, headers in kinds.values():
        download(port, target, headers=headers)  # files into the page cache
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    used: dict[str, list[float]] = {kind: [] for kind in kinds}
    medians = []
    for _ in range(options.runs):
        pairs = []
        for number in range(options.pairs):
            # Whoever comes second finds the machine as the first has left it: each is second in turn.
            for kind in sorted(kinds, reverse=bool(number % 2)):
                port, target, headers = kinds[kind]
                before = [usage(pid) for pid in pids[kind]]
                size, took, _ = download(port, target, headers=headers)
                ran = sum((usage(pid) - first).ran for pid, first in zip(pids[kind], before, strict=True))
                rates[kind].append(size / took / MIB)
                used[kind].append(ran * GIB / size)
            pairs.append(rates["ours"][-1] / rates["floor"][-1])
        medians.append(statistics.median(pairs))
    names = {"floor": "aiohttp's file response", "agent": "the agent alone", "ours": "downloadEngineLog"}
    for kind, name in names.items():
        table.tell(f"{name}, 512 MiB, p50", f"{statistics.median(rates[kind]):.0f} MiB/s")
        table.tell("  processor time for 1 GiB, p50", f"{statistics.median(used[kind]) * 1000:.0f} ms")
    second = statistics.median(m / a for m, a in zip(rates["ours"], rates["agent"], strict=True))
    table.tell("the gateway's process: downloadEngineLog to the agent alone", f"{second:.2f}")
    table.judge(
        "log-download",
        f"downloadEngineLog to aiohttp's file, p50 of {options.pairs} pairs, median of {options.runs}",
        statistics.median(medians),
        at_least=1.0,
        floor=statistics.median(rates["floor"]),
        floor_unit="MiB/s",
        samples=medians,
    )
    spread = max(rates["floor"]) / min(rates["floor"])
    table.tell("the floor's fastest to its slowest", f"{spread:.2f}", "noisy" if spread > 1.5 else "")


def _memory_and_pages(table: Table, port: int, pids: tuple[int, int]) -> None:
    _, took, grown = download(port, of(LONG), pids)
    table.tell("log of 10 GiB, downloaded in", f"{took:.1f} s")
    table.judge("log-gateway-memory", "  10 GiB of log: the gateway grew by", grown[0] / MIB, "MiB", at_most=32)
    table.judge("log-agent-memory", "  10 GiB of log: the agent grew by", grown[1] / MIB, "MiB", at_most=32)

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    _, cold = page(connection, WANTED)
    table.tell(f"lines from {WANTED:,} of 2 GB, first time", f"{cold * 1000:.0f} ms")
    near, far = [], []
    for _ in range(PAGES):
        near.append(page(connection, 1)[1] * 1000)
        far.append(page(connection, WANTED)[1] * 1000)
    table.tell("  from line 1, p50", f"{statistics.median(near):.2f} ms")
    table.judge("log-page", "  log lines, index warm, p50", statistics.median(far), "ms", at_most=20, samples=far)
    table.tell("  index warm, p95", f"{statistics.quantiles(far, n=20)[-1]:.2f} ms")
    connection.close()


if __name__ == "__main__":
    sys.exit(main())

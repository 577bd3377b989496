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
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from bench.loopback import HEADERS, agents, engine_id, gateway, name_of
from bench.table import Table
from linkis_ecm.api.paths import BASE
from tools.testkit.gateways import engine_item
from tools.testkit.serving import serving, until_let_go

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


def download(port: int, target: str, watched: tuple[int, ...] = ()) -> tuple[int, float, list[int]]:
    """Bytes of the body, seconds, and by how much each process of `watched` grew; the same client for both sides."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    buffer = memoryview(bytearray(MIB))
    before = [resident(pid) for pid in watched]
    peaks = list(before)
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: bench\r\n{headers}Connection: close\r\n\r\n".encode())
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


def make_files(folder: Path, size: int, long: int) -> None:
    """2 GB of numbered lines; a file for the ratio, and a sparse one of 10 GiB, whose holes are read as pages too."""
    room = shutil.disk_usage(folder).free
    if room < COUNT * LINE + size + 4 * GIB:
        raise SystemExit(f"{folder} has {room // GIB} GiB left: give --folder one with {COUNT * LINE // GIB + 6} GiB")
    tail = b" " + b"." * (LINE - 11) + b"\n"
    with (folder / LINES).open("wb") as file:
        for start in range(1, COUNT + 1, 50_000):
            file.write(b"".join(b"%09d" % number + tail for number in range(start, start + 50_000)))
    with (folder / DOWNLOAD).open("wb") as file:
        for _ in range(size // MIB):
            file.write((b"x" * 127 + b"\n") * 8192)
    with (folder / LONG).open("wb") as file:
        for _ in range(long // MIB):
            file.write(bytes(MIB))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", help="where the files are made (default: the system's)")
    parser.add_argument("--runs", type=int, default=21, help="downloads of each kind, in turns (default 21)")
    parser.add_argument("--floor", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.floor:
        asyncio.run(serve_floor(options.floor))
        return 0
    table = Table(52, 14, 10)
    tell = table.tell

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ecm-bench-", dir=options.folder)))
        (agent,) = stack.enter_context(agents(1, folder))
        make_files(agent.log_dir, GIB // 2, 10 * GIB)
        ours_at = stack.enter_context(gateway([f"127.0.0.1:{agent.port}"], folder))
        port, pids = ours_at.port, (ours_at.pid, agent.process.pid)
        floor_port = stack.enter_context(serving("bench.logs", "--floor", str(agent.log_dir / DOWNLOAD))).port

        ours: list[float] = []
        floor: list[float] = []
        download(floor_port, "/"), download(port, of(DOWNLOAD))  # files into the page cache
        kinds = [(floor, floor_port, "/"), (ours, port, of(DOWNLOAD))]
        for number in range(options.runs):
            # Whoever comes second finds the machine as the first has left it: each is second in turn.
            for rates, where, target in kinds if number % 2 else reversed(kinds):
                size, took, _ = download(where, target)
                rates.append(size / took / MIB)
        tell("aiohttp's file response, 512 MiB, p50", f"{statistics.median(floor):.0f} MiB/s")
        tell("downloadEngineLog, 512 MiB, p50", f"{statistics.median(ours):.0f} MiB/s")
        ratio = statistics.median(mine / bare for mine, bare in zip(ours, floor, strict=True))
        tell("ratio, p50 of the pairs", f"{ratio:.2f}", "≥ 0.7", met=ratio >= 0.7)
        spread = max(floor) / min(floor)
        tell("the floor's fastest to its slowest", f"{spread:.2f}", "noisy" if spread > 1.5 else "")

        size, took, grown = download(port, of(LONG), pids)
        tell("log of 10 GiB, downloaded in", f"{took:.1f} s")
        tell("  the gateway grew by", f"{grown[0] / MIB:.1f} MiB", "< 32", met=grown[0] < 32 * MIB)
        tell("  the agent grew by", f"{grown[1] / MIB:.1f} MiB", "< 32", met=grown[1] < 32 * MIB)

        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        _, cold = page(connection, WANTED)
        tell(f"lines from {WANTED:,} of 2 GB, first time", f"{cold * 1000:.0f} ms")
        near, far = [], []
        for _ in range(PAGES):
            near.append(page(connection, 1)[1] * 1000)
            far.append(page(connection, WANTED)[1] * 1000)
        tell("  from line 1, p50", f"{statistics.median(near):.2f} ms")
        tell("  index warm, p50", f"{statistics.median(far):.2f} ms", "< 20", met=statistics.median(far) < 20)
        tell("  index warm, p95", f"{statistics.quantiles(far, n=20)[-1]:.2f} ms")
        connection.close()
    return table.exit_code


if __name__ == "__main__":
    sys.exit(main())

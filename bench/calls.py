"""`python -m bench.calls`: calls through the gateway beside jupyter_client straight to kernels, on loopback.

One at a time, then 50 at once over 10 engines; and how many getEngineStatus one core of the gateway serves. Floors and
ours take turns within the run, so that the machine's mood falls on both alike. Exit code 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import queue
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.connect import write_connection_file

from bench.clean import end_on_signals, scratch
from bench.figures.table import Table
from bench.processes.loopback import HEADERS, agents, engine_id, gateway
from linkis_ecm.api.paths import BASE
from tools.cluster import packages
from tools.testkit.servers.orphans import start
from tools.testkit.servers.serving import Server

ENGINES, AT_ONCE = 10, 50
ROUNDS, CALLS = 6, 100  # one at a time
CONCURRENT_ROUNDS, CALLS_EACH = 4, 20  # of each of the 50
SECONDS = 6  # of getEngineStatus, a round
REQUEST = {"code": "1+1", "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
Call = Callable[[int], Awaitable[None]]


class Kernels:
    """Bare ipykernels, and jupyter_client's own asynchronous clients on them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.clients: list[AsyncKernelClient] = []

    async def start(self, count: int, command: Sequence[str] = ("-m", "ipykernel_launcher")) -> None:
        """So many, each with its client, by `python command… -f CONNECTION`."""
        for number in range(count):
            path, _ = write_connection_file(
                str(self._folder / f"kernel-{number}.json"), transport="ipc", ip=str(self._folder / f"kernel-{number}")
            )
            self._processes.append(
                start(
                    [sys.executable, *command, "-f", path],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            client = AsyncKernelClient()
            client.load_connection_file(path)
            client.start_channels()
            self.clients.append(client)
        for client in self.clients:
            await until_heard(client)

    def pids(self) -> list[int]:
        """Of the kernels' processes."""
        return [process.pid for process in self._processes]

    def stop(self) -> None:
        for client in self.clients:
            client.stop_channels()
        for process in self._processes:
            process.kill()
            process.wait()


async def until_heard(client: AsyncKernelClient) -> None:
    """Asks for the kernel's info until its status comes by iopub too: then no result can be missed."""
    async with asyncio.timeout(60):
        while True:
            client.kernel_info()
            await client.get_shell_msg(timeout=60)
            try:
                await client.get_iopub_msg(timeout=0.05)
                return
            except queue.Empty:
                continue


class Direct:
    """Executions over one client, as many at a time as are wanted: replies and results are told apart by their parent.

    It is what a program on jupyter_client does: an execution has ended when its result, its reply and the kernel's
    idle are there.
    """

    def __init__(self, client: AsyncKernelClient) -> None:
        self._client = client
        self._waiting: dict[str, tuple[set[str], asyncio.Future[None]]] = {}
        self._readers = [
            asyncio.create_task(self._read(channel)) for channel in (client.shell_channel, client.iopub_channel)
        ]

    async def execute(self) -> None:
        # client.execute() sends past zmq's asyncio socket, whose waiting reader can miss an answer then.
        session, channel = self._client.session, self._client.shell_channel
        request = session.msg("execute_request", REQUEST)
        done = asyncio.get_running_loop().create_future()
        self._waiting[request["header"]["msg_id"]] = ({"execute_result", "execute_reply", "idle"}, done)
        async with asyncio.timeout(30):
            await channel.socket.send_multipart(session.serialize(request))
            await done

    async def _read(self, channel: object) -> None:
        while True:
            message = await channel.get_msg()  # type: ignore[attr-defined]
            await asyncio.sleep(0)  # a message that is there already gives nobody else a turn
            waiting = self._waiting.get(message["parent_header"].get("msg_id"))
            if waiting is None:
                continue
            missing, done = waiting
            kind = message["msg_type"]
            missing.discard("idle" if kind == "status" and message["content"]["execution_state"] == "idle" else kind)
            if not missing and not done.done():
                del self._waiting[message["parent_header"]["msg_id"]]
                done.set_result(None)

    def stop(self) -> None:
        for reader in self._readers:
            reader.cancel()


async def timed(call: Call, *, at_once: int, each: int) -> list[float]:
    """Seconds of each of `at_once` × `each` calls; the caller's number is what `call` gets."""

    async def caller(number: int) -> list[float]:
        took = []
        for _ in range(each):
            begun = time.perf_counter()
            await call(number)
            took.append(time.perf_counter() - begun)
        return took

    found = await asyncio.gather(*(caller(number) for number in range(at_once)))
    return [seconds for some in found for seconds in some]


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[-1]


def judge(
    table: Table, name: str, what: str, found: dict[str, list[float]], how: str, size: int,
    middle: Callable[[list[float]], float], at_most: float,
) -> None:  # fmt: skip
    """The ratio of ours to straight by `middle` of all calls; `how` is the sides' suffix in `found`.

    Its spread is that of the rounds, of `size` calls of a side: calls of one round are no independent samples.
    """
    direct, ours = found[f"direct{how}"], found[f"ours{how}"]
    rounds = [
        middle(ours[begin : begin + size]) / middle(direct[begin : begin + size])
        for begin in range(0, len(direct), size)
    ]
    floor = middle(direct)
    table.judge(name, what, middle(ours) / floor, at_most=at_most, floor=floor * 1000, floor_unit="ms", samples=rounds)


async def compare(port: int, folder: Path) -> dict[str, list[float]]:
    """What each side took, in turns."""
    kernels = Kernels(folder)
    found: dict[str, list[float]] = {"direct": [], "ours": [], "direct at once": [], "ours at once": []}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector, headers=HEADERS) as session:
        try:
            await kernels.start(ENGINES)
            direct = [Direct(client) for client in kernels.clients]

            async def straight(number: int) -> None:
                await direct[number % ENGINES].execute()

            async def through(number: int) -> None:
                body = {"engineId": engine_id(number % ENGINES), "code": "1+1", "runType": "python"}
                async with session.post(f"{BASE}/executeCode", json=body) as answer:
                    told = await answer.json()
                if told["status"] != 0 or told["data"]["outputs"][0]["text"] != "2":
                    raise SystemExit(f"executeCode failed: {told}")

            sides: tuple[tuple[str, Call], ...] = (("direct", straight), ("ours", through))
            for _, call in sides:
                await timed(call, at_once=AT_ONCE, each=2)  # warm
            for _ in range(ROUNDS):
                for name, call in sides:
                    found[name] += await timed(call, at_once=1, each=CALLS)
            for _ in range(CONCURRENT_ROUNDS):
                for name, call in sides:
                    found[f"{name} at once"] += await timed(call, at_once=AT_ONCE, each=CALLS_EACH)
            for client in direct:
                client.stop()
        finally:
            kernels.stop()
    return found


def status_rate(gateway: Server) -> tuple[float, float]:
    """getEngineStatus a second as wrk sees it, and a second of the gateway's own processor time."""
    packages.install(["wrk"])
    headers = [part for name, value in HEADERS.items() for part in ("-H", f"{name}: {value}")]
    url = f"http://127.0.0.1:{gateway.port}{BASE}/getEngineStatus?engineId={engine_id(0)}"
    before = gateway.cpu_seconds()
    told = subprocess.run(
        ["wrk", "-t1", "-c16", f"-d{SECONDS}s", *headers, url], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    used = gateway.cpu_seconds() - before
    if "Non-2xx" in told or "Socket errors" in told:
        raise SystemExit(f"getEngineStatus failed under load: {told}")
    done = re.search(r"(\d+) requests in", told)
    assert done is not None, told
    return int(done[1]) / SECONDS, int(done[1]) / used


def main(arguments: list[str] | None = None) -> int:
    about = (__doc__ or "").splitlines()[0]
    argparse.ArgumentParser(prog="python -m bench.calls", description=about).parse_args(arguments)
    table = Table(52, 14, 8)
    tell = table.tell

    end_on_signals()
    with (
        scratch() as folder,
        agents(ENGINES, folder) as started,
        gateway([f"127.0.0.1:{a.port}" for a in started], folder) as served,
    ):
        found = asyncio.run(compare(served.port, folder))
        rates = [status_rate(served) for _ in range(3)]
    median = {side: statistics.median(values) for side, values in found.items()}
    tell("jupyter_client straight, 1+1, p50", f"{median['direct'] * 1000:.2f} ms")
    tell("executeCode through the gateway, 1+1, p50", f"{median['ours'] * 1000:.2f} ms")
    judge(table, "call-p50", "1+1 to jupyter_client straight, p50", found, "", CALLS, statistics.median, 1.2)
    judge(table, "call-p99", "1+1 to jupyter_client straight, p99", found, "", CALLS, p99, 1.2)
    straight, through = p99(found["direct at once"]), p99(found["ours at once"])
    tell(
        f"straight, {AT_ONCE} at once over {ENGINES}, p50 / p99",
        f"{median['direct at once'] * 1000:.0f} / {straight * 1000:.0f} ms",
    )
    tell("executeCode, the same, p50 / p99", f"{median['ours at once'] * 1000:.0f} / {through * 1000:.0f} ms")
    each, what = AT_ONCE * CALLS_EACH, f"{AT_ONCE} at once to straight"
    judge(table, "crowd-p50", f"{what}, p50", found, " at once", each, statistics.median, 1.5)
    judge(table, "crowd-p99", f"{what}, p99", found, " at once", each, p99, 1.0)
    wall, core = (statistics.median(values) for values in zip(*rates, strict=True))
    tell("getEngineStatus, requests a second", f"{wall:.0f}")
    table.judge(
        "status-rate",
        "getEngineStatus, requests a second of one core",
        core,
        "/s",
        at_least=800,
        samples=[one for _, one in rates],
    )
    print(json.dumps({"medians": median, "p99": {"direct": straight, "ours": through}}), flush=True)
    return table.finish()


if __name__ == "__main__":
    sys.exit(main())

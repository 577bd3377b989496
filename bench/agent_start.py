"""How long an engine's process takes to its first result, against a bare ipykernel, outside any pod.

Run it as `python bench/agent_start.py [--runs N]`. Both sides start from the same interpreter, in turns, so that the
machine's mood falls on both alike; what is printed last is their ratio. The agent's start is cut into its phases as it
reports them itself.
"""

from __future__ import annotations

import argparse
import compileall
import http.client
import json
import os
import queue
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

import linkis_ecm.agent
from bench import arguments
from tools.testkit.servers.orphans import start

TOKEN = "bench"
TIMEOUT = 30.0


def bare_kernel(round_trips: int) -> tuple[float, list[float]]:
    """Seconds from starting `ipykernel_launcher` to the result of 1+1, and of later ones over the same client."""
    with tempfile.TemporaryDirectory() as folder:
        path, _ = write_connection_file(f"{folder}/kernel.json", transport="ipc", ip=f"{folder}/kernel")
        started = time.perf_counter()
        process = start(
            [sys.executable, "-m", "ipykernel_launcher", "-f", path],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        client = BlockingKernelClient()
        try:
            client.load_connection_file(path)
            client.start_channels()
            subscribed(client)
            kernel_result(client)
            first = time.perf_counter() - started
            return first, timed(lambda: kernel_result(client), round_trips)
        finally:
            client.stop_channels()
            process.kill()
            process.wait()


def subscribed(client: BlockingKernelClient) -> None:
    """Wait until the kernel's outputs reach us: what it publishes before that is lost, and the first result with it.

    The agent's start waits for the same (`JupyterKernel.ready`), so it counts on both sides.
    """
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        client.kernel_info()
        with suppress(queue.Empty):
            client.get_iopub_msg(timeout=0.1)
            return
    raise SystemExit("the bare kernel's outputs do not come")


def kernel_result(client: BlockingKernelClient) -> None:
    """Run 1+1 and wait for its result, its reply and the kernel's idle: what an execution is to jupyter_client."""
    outputs: list[Any] = []
    reply = client.execute_interactive("1+1", timeout=TIMEOUT, output_hook=outputs.append)
    if reply["content"]["status"] != "ok":
        raise SystemExit(f"the bare kernel failed: {reply['content']}")


def agent(round_trips: int) -> tuple[float, list[float], dict[str, float]]:
    """Seconds from starting the agent to the result of 1+1 over HTTP, of later ones, and its phases."""
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ, ECM_AGENT_KEY=TOKEN, ECM_LOG_DIR=folder, ECM_AGENT_PORT="0",
                           ECM_AGENT_HOST="127.0.0.1", ECM_REPORT_URL="", HOME=f"{folder}/home")  # fmt: skip
        started, wall = time.perf_counter(), time.time()
        process = start([sys.executable, "-m", "linkis_ecm.agent"], env=environment, stdout=subprocess.DEVNULL)
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port_of(Path(folder, "stdout")), timeout=TIMEOUT)
            while (answer := execute(connection))[0] == 409:
                time.sleep(0.002)
            first = time.perf_counter() - started
            if answer[1].get("outputs") != [{"type": "text", "stream": "result", "text": "2"}]:
                raise SystemExit(f"the agent failed: {answer}")
            trips = timed(lambda: execute(connection), round_trips)
            connection.request("GET", "/v1/status", headers=headers())
            timings = json.loads(connection.getresponse().read())["timings"]
            return first, trips, {name: at - wall for name, at in timings.items()}
        finally:
            process.terminate()
            process.wait(TIMEOUT)


def headers() -> dict[str, str]:
    """What each request carries."""
    return {"Authorization": f"Bearer {TOKEN}"}


def execute(connection: http.client.HTTPConnection) -> tuple[int, dict[str, Any]]:
    """Run 1+1 over HTTP."""
    connection.request("POST", "/v1/execute", json.dumps({"code": "1+1"}), headers())
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def port_of(log: Path) -> int:
    """The port that the agent says it listens on."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        if log.exists() and (found := re.search(r"listens on port (\d+)", log.read_text())):
            return int(found[1])
        time.sleep(0.002)
    raise SystemExit("the agent did not come up")


def timed(call: Callable[[], object], count: int) -> list[float]:
    """Seconds of each of `count` calls."""
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.agent_start", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--runs", type=arguments.count, default=7, help="starts of each kind (default 7)")
    parser.add_argument("--round-trips", type=arguments.count, default=100, help="warm 1+1 per start (default 100)")
    options = parser.parse_args()
    bare_first: list[float] = []
    agent_first: list[float] = []
    bare_trips: list[float] = []
    agent_trips: list[float] = []
    phases: dict[str, list[float]] = {}
    # As the image does: without bytecode, the measure is of Python's compiler (20 ms), where nothing may be written.
    compiled = compileall.compile_dir(str(Path(linkis_ecm.agent.__file__).parent), quiet=1)
    if not compiled:
        raise SystemExit("the agent's modules do not compile")
    bare_kernel(1), agent(1)  # files into the page cache
    for _ in range(options.runs):
        try:
            first, trips = bare_kernel(options.round_trips)
        except queue.Empty:
            raise SystemExit(f"the bare kernel did not answer within {TIMEOUT:g} s") from None
        bare_first.append(first)
        bare_trips += trips
        first, trips, at = agent(options.round_trips)
        agent_first.append(first)
        agent_trips += trips
        for name, seconds in at.items():
            phases.setdefault(name, []).append(seconds)

    middle = statistics.median
    print(f"{options.runs} starts of each kind, p50 (all starts count from the spawn of the process)")
    print(f"  bare ipykernel, first result           {middle(bare_first):7.3f} s")
    for name, values in sorted(phases.items(), key=lambda item: middle(item[1])):
        print(f"  agent, {name:<31} {middle(values):7.3f} s")
    print(f"  agent, first result over HTTP          {middle(agent_first):7.3f} s")
    print(f"  ratio                                  {middle(agent_first) / middle(bare_first):7.2f}")
    print(f"  bare jupyter_client, warm 1+1          {middle(bare_trips) * 1000:7.2f} ms")
    print(f"  agent over HTTP, warm 1+1              {middle(agent_trips) * 1000:7.2f} ms")
    print(f"  ratio                                  {middle(agent_trips) / middle(bare_trips):7.2f}")


if __name__ == "__main__":
    main()

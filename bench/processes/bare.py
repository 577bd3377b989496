"""A bare ipykernel inside a pod, printed as JSON: the floor that an engine's start and calls are measured against.

Runs in the engine's image, so it may use nothing but the standard library and jupyter_client. One argument: how often.
"""

from __future__ import annotations

import json
import queue
import sys
import time

from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager


def until_heard(client: BlockingKernelClient) -> None:
    """Asks for the kernel's info until its status comes by iopub too: then no result can be missed.

    jupyter_client's own wait_for_ready does the same and then waits 0.2 s for silence, which would flatter us.
    """
    for _ in range(1000):
        client.kernel_info()
        client.get_shell_msg(timeout=30)
        try:
            client.get_iopub_msg(timeout=0.01)
            return
        except queue.Empty:
            continue
    raise TimeoutError("no status came by iopub")


def main() -> None:
    starts: list[float] = []
    calls: list[float] = []
    for _ in range(int(sys.argv[1])):
        manager = KernelManager()
        begun = time.perf_counter()
        manager.start_kernel()
        client = manager.client()
        client.start_channels()
        until_heard(client)
        client.execute_interactive("1+1", output_hook=lambda _: None, timeout=30)
        starts.append(time.perf_counter() - begun)
        for _ in range(40):
            begun = time.perf_counter()
            client.execute_interactive("1+1", output_hook=lambda _: None, timeout=30)
            calls.append(time.perf_counter() - begun)
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    print(json.dumps({"starts": starts, "calls": calls}))


main()

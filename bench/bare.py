"""A bare ipykernel inside a pod, printed as JSON: the floor that an engine's start and calls are measured against.

Runs in the engine's image, so it may use nothing but the standard library and jupyter_client. One argument: how often.
"""

from __future__ import annotations

import json
import sys
import time

from jupyter_client.manager import KernelManager


def main() -> None:
    starts: list[float] = []
    calls: list[float] = []
    for _ in range(int(sys.argv[1])):
        manager = KernelManager()
        begun = time.perf_counter()
        manager.start_kernel()
        client = manager.client()
        client.start_channels()
        # As jupyter_client's own documentation has it; without it the first reply may be lost.
        client.wait_for_ready(timeout=30)
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

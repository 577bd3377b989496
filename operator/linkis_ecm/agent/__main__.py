"""The engine container's entry point: spawn the kernel first, import everything else while it boots.

The kernel's boot (some 0.35 s of imports) is the longest part of an engine's start, so nothing heavier than `os` may
be imported above `spawn()`. Everything after it runs on the other core while the kernel imports.
"""

from __future__ import annotations

import os
import signal
import sys

from linkis_ecm.agent.executors.registry import ExecutorError, spawn
from linkis_ecm.agent.executors.spawn import process_started
from linkis_ecm.agent.executors.workplace import enter
from linkis_ecm.agent.host.guard import guard_process


def main() -> int:
    """Run the engine until it is stopped (0; by a signal 128 + its number) or its kernel died (as the kernel did).

    2: it cannot start.
    """
    started = process_started()
    # PID 1 ignores a SIGTERM that it has no handler for: remember one that comes before the loop runs.
    early: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: early.append(number))
    guard_process()
    try:
        enter(os.environ)
        kernel = spawn(os.environ)
    except ExecutorError as error:
        sys.stderr.write(f"the agent cannot start: {error}\n")
        return 2
    # Only now, with the kernel booting on its own: asyncio, zmq, h11, jupyter_client's session.
    from linkis_ecm.agent.app import run  # noqa: PLC0415

    return run(kernel=kernel, process_started=started, early_signals=early)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Threads that still hold the container's streams must not keep a finished engine alive.
    os._exit(code)

"""A server in a process of its own, on loopback: started until it has said its port, looked at from outside, let go.

Must not know what it serves.
"""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 30.0


@dataclass(frozen=True)
class Server:
    """The process and where it listens."""

    pid: int
    port: int

    def cpu_seconds(self) -> float:
        """What the process has used of a core so far, in user and in system mode."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def serving(module: str, *arguments: str) -> AbstractContextManager[Server]:
    """`python -m module arguments…`, which serves until it is let go (`until_let_go`)."""
    return serving_by(("-m", module), *arguments)


@contextmanager
def serving_by(command: Sequence[str], *arguments: str) -> Iterator[Server]:
    """`python command… arguments…`, which serves until it is let go (`until_let_go`)."""
    process = subprocess.Popen(
        [sys.executable, *command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        if not select.select([process.stdout], [], [], PATIENCE)[0]:
            raise TimeoutError(f"{command} did not say its port within {PATIENCE:g} s")
        if not (port := process.stdout.readline()):
            raise RuntimeError(f"{command} ended before it had said its port")
        yield Server(process.pid, int(port))
    finally:
        process.stdin.close()
        process.wait(PATIENCE)


async def until_let_go(port: int) -> None:
    """In that process: says the port, and waits for the end of stdin, which comes where the benchmark dies, too."""
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

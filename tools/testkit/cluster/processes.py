"""Finds and signals the processes of a pod, as kill on the node does. Only on the node built from source.

By pod uid: the cgroup of a container's process names it. Must kill nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def of_pod(uid: str, command: bytes) -> list[int]:
    """Process ids whose cgroup names the pod and whose command line holds `command`."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            mine = f"pod{uid}" in (folder / "cgroup").read_text()
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if mine and command in line.replace(b"\0", b" "):
            found.append(int(folder.name))
    return found


def send(uid: str, command: bytes, number: signal.Signals) -> int:
    """That signal to those; how many took it. One that ended since it was seen takes none."""
    taken = 0
    for pid in of_pod(uid, command):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            taken += 1
    return taken


def kill(uid: str, command: bytes) -> int:
    """SIGKILL to those; how many there were."""
    return send(uid, command, signal.SIGKILL)

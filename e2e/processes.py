"""Finds and kills a process of a pod, as kill -9 on the node does. Only on the node built from source.

By pod uid: the cgroup of a container's process names it. Must kill nothing else.
"""

from __future__ import annotations

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


def kill(uid: str, command: bytes) -> int:
    """SIGKILL to those; how many there were."""
    pids = of_pod(uid, command)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return len(pids)

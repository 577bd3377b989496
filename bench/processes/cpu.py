"""Processor time of the node's and the installation's processes: it says what a claim costs on a busy machine, too.

Must not start, stop or change a process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
# What a command's line has, by the name that is shown. The node's own processes share our network; those of pods have
# one of their own, and are told from others on the machine by their control group.
NODE = ("kube-apiserver", "etcd", "kubelet", "containerd", "kube-scheduler", "kube-controller-manager")
PODS = {"operator": "linkis_ecm operator", "gateway": "linkis_ecm gateway"}


def processes(proc: Path = PROC) -> dict[str, list[int]]:
    """The processes of each name, found anew."""
    ours = os.readlink(proc / "self/ns/net")
    found: dict[str, list[int]] = {}
    for pid, line, network, group in _all(proc):
        words = line.split()
        program = words[0].rpartition("/")[2] if words else ""
        # One binary is all of Kubernetes here: `kube kube-apiserver …`.
        program = words[1] if program == "kube" and len(words) > 1 else program
        if network == ours and program in NODE:
            found.setdefault(program, []).append(pid)
        for name, text in PODS.items():
            if text in line and "kubepods" in group:
                found.setdefault(name, []).append(pid)
    return found


def _all(proc: Path) -> Iterator[tuple[int, str, str, str]]:
    for entry in proc.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield int(entry.name), line, os.readlink(entry / "ns/net"), (entry / "cgroup").read_text()


def spent(of: dict[str, list[int]], proc: Path = PROC) -> dict[str, float]:
    """Seconds that each name's processes have run so far, all threads that live together (proc(5), schedstat)."""
    return {name: sum(_seconds(proc / str(pid)) for pid in pids) for name, pids in of.items()}


def _seconds(process: Path) -> float:
    total = 0
    with suppress(OSError):
        for thread in (process / "task").iterdir():
            with suppress(OSError):
                total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def meter(proc: Path = PROC) -> Callable[[], dict[str, float]]:
    """Gives at each call the seconds that each name's processes have run since the call before."""
    of = processes(proc)
    last = spent(of, proc)

    def since() -> dict[str, float]:
        nonlocal last
        before, last = last, spent(of, proc)
        return {name: last[name] - before[name] for name in last}

    return since

"""Memory, CPU and processes of the engine's container from its cgroup, version 1 or 2.

Three or four small files per report. Must not walk processes but where there is no cgroup to read.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable

_ROOT = "/sys/fs/cgroup"


class Usage:
    """Finds its files once; a reading that fails is 0, never an error, but for `processes`."""

    def __init__(self, root: str = _ROOT, membership: str = "/proc/self/cgroup") -> None:
        paths = _memberships(membership)
        unified = paths.get("", "/")
        memory, cpu = paths.get("memory", "/"), paths.get("cpuacct", "/")
        # Inside a container the own group is mounted as the root; outside, it is found by its path.
        self._v2 = _first_dir((f"{root}{unified}", root), "memory.current")
        self._memory = _first_dir((f"{root}/memory{memory}", f"{root}/memory"), "memory.usage_in_bytes")
        self._cpu = _first_dir((f"{root}/cpuacct{cpu}", f"{root}/cpuacct"), "cpuacct.usage")
        self._pids = _first_dir(
            (self._v2 or root, f"{root}/pids{paths.get('pids', '/')}", f"{root}/pids"), "pids.current"
        )
        # Open from the start: user code may take the agent's right to open files (prlimit on the same user id).
        self._pids_fd = os.open(f"{self._pids}/pids.current", os.O_RDONLY | os.O_CLOEXEC) if self._pids else -1
        self._peak_seen = 0
        self._oom_kills_at_start = self._oom_kills()

    def read(self) -> dict[str, float]:
        """`memoryBytes` is the working set, as the kubelet counts it: usage without the file cache that can go."""
        if self._v2:
            used = _number(f"{self._v2}/memory.current") - _field(f"{self._v2}/memory.stat", "inactive_file")
            peak = _number(f"{self._v2}/memory.peak")
            cpu = _field(f"{self._v2}/cpu.stat", "usage_usec") / 1e6
        else:
            used = _number(f"{self._memory}/memory.usage_in_bytes")
            used -= _field(f"{self._memory}/memory.stat", "total_inactive_file")
            peak = _number(f"{self._memory}/memory.max_usage_in_bytes")
            cpu = _number(f"{self._cpu}/cpuacct.usage") / 1e9
        used = max(0, used)
        if not cpu:
            mine, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = mine.ru_utime + mine.ru_stime + children.ru_utime + children.ru_stime
        self._peak_seen = max(self._peak_seen, used, peak)
        return {"memoryBytes": used, "memoryPeakBytes": self._peak_seen, "cpuSeconds": round(cpu, 3)}

    def oom_killed(self) -> bool:
        """Whether the kernel killed a process of this container for lack of memory since the start."""
        return self._oom_kills() > self._oom_kills_at_start

    def processes(self) -> int:
        """How many processes and threads the container has; 0 where no cgroup says it. Raises OSError or ValueError
        where one did at the start and now does not: a bound must not take that for few."""
        return int(os.pread(self._pids_fd, 64, 0)) if self._pids_fd >= 0 else 0

    def memory_limit(self) -> int:
        """The container's memory limit in bytes, 0 where there is none."""
        if self._v2:
            return _number(f"{self._v2}/memory.max")
        limit = _number(f"{self._memory}/memory.limit_in_bytes")
        return limit if limit < 1 << 60 else 0  # version 1 writes "none" as a number near 2**63

    def _oom_kills(self) -> int:
        if self._v2:
            return _field(f"{self._v2}/memory.events", "oom_kill")
        return _field(f"{self._memory}/memory.oom_control", "oom_kill")


def _memberships(path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                _, controllers, group = line.rstrip("\n").split(":", 2)
                found.update(dict.fromkeys(controllers.split(","), group.rstrip("/")))
    except (OSError, ValueError):
        pass
    return found


def _first_dir(candidates: Iterable[str], file: str) -> str:
    return next((path for path in candidates if os.path.exists(f"{path}/{file}")), "")


def _number(path: str) -> int:
    try:
        with open(path, "rb") as file:
            return int(file.read(64))
    except (OSError, ValueError):
        return 0  # not there, or "max"


def _field(path: str, name: str) -> int:
    try:
        with open(path, encoding="ascii") as lines:
            for line in lines:
                key, _, value = line.partition(" ")
                if key == name:
                    return int(value)
    except (OSError, ValueError):
        pass
    return 0

"""Usage from the files of both versions of cgroups, laid out as a container and as a host see them."""

from __future__ import annotations

from pathlib import Path

import pytest

from linkis_ecm.agent.host.usage import Usage


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def version_2(root: Path, prefix: str = "") -> None:
    write(root, {
        f"{prefix}memory.current": "5000\n", f"{prefix}memory.peak": "9000\n", f"{prefix}memory.max": "10000\n",
        f"{prefix}memory.stat": "anon 10\ninactive_file 2000\nactive_file 1\n",
        f"{prefix}memory.events": "low 0\noom 0\noom_kill 0\n",
        f"{prefix}cpu.stat": "usage_usec 1500000\nuser_usec 1\n", f"{prefix}pids.current": "7\n",
    })  # fmt: skip


def version_1(root: Path, group: str = "") -> None:
    write(root, {
        f"memory{group}/memory.usage_in_bytes": "5000\n", f"memory{group}/memory.max_usage_in_bytes": "9000\n",
        f"memory{group}/memory.limit_in_bytes": "10000\n",
        f"memory{group}/memory.stat": "cache 1\ntotal_inactive_file 2000\n",
        f"memory{group}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
        f"cpuacct{group}/cpuacct.usage": "1500000000\n", f"pids{group}/pids.current": "7\n",
    })  # fmt: skip


@pytest.mark.parametrize(
    ("layout", "membership"),
    [
        ("v2 in a container", "0::/\n"),
        ("v2 on a host", "0::/kubepods/pod1\n"),
        ("v1 in a container", "6:pids:/kubepods/pod1\n5:memory:/kubepods/pod1\n4:cpu,cpuacct:/kubepods/pod1\n"),
        ("v1 on a host", "6:pids:/kubepods/pod1\n5:memory:/kubepods/pod1\n4:cpu,cpuacct:/kubepods/pod1\n0::/\n"),
    ],
)
def test_memory_peak_cpu_and_limit_are_found(tmp_path: Path, layout: str, membership: str) -> None:
    root = tmp_path / "cgroup"
    if layout == "v2 in a container":
        version_2(root)
    elif layout == "v2 on a host":
        version_2(root, "kubepods/pod1/")
    elif layout == "v1 in a container":
        version_1(root)
    else:
        version_1(root, "/kubepods/pod1")
    (tmp_path / "self").write_text(membership)
    usage = Usage(str(root), str(tmp_path / "self"))
    assert usage.read() == {"memoryBytes": 3000, "memoryPeakBytes": 9000, "cpuSeconds": 1.5}
    assert usage.memory_limit() == 10000
    assert usage.processes() == 7
    assert not usage.oom_killed()


@pytest.mark.parametrize("version", [1, 2])
def test_a_kill_for_lack_of_memory_is_seen(tmp_path: Path, version: int) -> None:
    (version_1 if version == 1 else version_2)(tmp_path)
    usage = Usage(str(tmp_path), str(tmp_path / "none"))
    name = "memory/memory.oom_control" if version == 1 else "memory.events"
    (tmp_path / name).write_text("oom_kill 1\n")
    assert usage.oom_killed()


def test_no_limit_is_0(tmp_path: Path) -> None:
    version_2(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert Usage(str(tmp_path), "/nowhere").memory_limit() == 0


def test_without_cgroups_nothing_fails_and_cpu_is_the_processes(tmp_path: Path) -> None:
    read = Usage(str(tmp_path), str(tmp_path / "none")).read()
    assert read["memoryBytes"] == 0
    assert read["cpuSeconds"] > 0


def test_the_peak_is_the_highest_seen_where_the_system_keeps_none(tmp_path: Path) -> None:
    version_2(tmp_path)
    (tmp_path / "memory.peak").unlink()
    usage = Usage(str(tmp_path), "/nowhere")
    assert usage.read()["memoryPeakBytes"] == 3000
    (tmp_path / "memory.current").write_text("2500")
    assert usage.read()["memoryPeakBytes"] == 3000

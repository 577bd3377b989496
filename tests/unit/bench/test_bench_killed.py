"""A benchmark that is killed with whole processes of the product under it: none of them stays, nor their folders."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import clean
from bench.clean import remove_kernel_folders
from tools.cluster.processes import start_time
from tools.testkit.agents.process import children, until

ROOT = Path(__file__).parents[3]
# What bench.hot, bench.calls and bench.trace start.
PROGRAMS = {
    "agents": "with agents(1, folder) as made, gateway([f'127.0.0.1:{made[0].port}'], folder):\n    wait()",
    "kernels": "asyncio.run(Kernels(folder).start(1)); wait()",
    "installation": "with installation(folder):\n    wait()",
}
BEFORE = """
import asyncio, sys, time
from pathlib import Path
from bench.calls import Kernels
from bench.processes.loopback import agents, gateway
from tools.loopback.installation import installation
folder = Path(sys.argv[1])
def wait():
    print("all run", flush=True)
    time.sleep(600)
"""


def under(pid: int) -> list[int]:
    """Its children, and theirs."""
    return [one for child in children(pid) for one in (child, *under(child))]


@pytest.mark.parametrize(("what", "least"), [("agents", 3), ("kernels", 1), ("installation", 3)])
def test_no_process_of_a_killed_benchmark_stays(tmp_path: Path, what: str, least: int) -> None:
    command = [sys.executable, "-c", BEFORE + PROGRAMS[what], str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "all run\n"
        # By their start, too: another process may get the number of one that ended.
        started = {(pid, start_time(pid)) for pid in under(process.pid)}
        assert len(started) >= least
    finally:
        process.kill()
        process.communicate(timeout=60)
    until(lambda: not [pid for pid, begun in started if start_time(pid) == begun])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a kernel, made long ago."""
    made = tmp_path / "ecm-0123456789abcdef"
    made.mkdir()
    (made / "connection.json").write_text("{}")
    _age(made)
    return made


def _age(folder: Path) -> None:
    long_ago = time.time() - 2 * clean.YOUNG_SECONDS
    os.utime(folder, (long_ago, long_ago))


def test_the_folder_of_a_kernel_that_is_gone_goes(folder: Path, tmp_path: Path) -> None:
    for other in ("ecm-0123456789abcdeg", "ecm-0123", "ecm-fedcba9876543210"):
        (tmp_path / other).mkdir()
        _age(tmp_path / other)
    (tmp_path / "ecm-0123" / "connection.json").write_text("{}")
    remove_kernel_folders(str(tmp_path))
    # The last one has no kernel's file: somebody else made it.
    assert {one.name for one in tmp_path.iterdir()} == {"ecm-0123456789abcdeg", "ecm-0123", "ecm-fedcba9876543210"}


def test_the_folder_of_a_kernel_that_runs_or_is_being_started_stays(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print(flush=True); input()", f"{folder}/connection.json"]
    kernel = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert kernel.stdout is not None
    # A process has its command line in /proc a moment after its start.
    assert kernel.stdout.readline() == b"\n"
    young = tmp_path / "ecm-fedcba9876543210"
    young.mkdir()
    (young / "connection.json").write_text("{}")
    # It stays young, however long this test takes.
    os.utime(young, (time.time() + 3600,) * 2)
    try:
        remove_kernel_folders(str(tmp_path))
        assert folder.exists()
        assert young.exists()
    finally:
        kernel.communicate(b"\n", timeout=60)
    remove_kernel_folders(str(tmp_path))
    assert not folder.exists()
    assert young.exists()

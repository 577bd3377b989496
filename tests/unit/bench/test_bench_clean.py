"""What a benchmark leaves when it is told to end, or killed: no process, and no folder once the next one ran."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.clean import remove_folders, scratch
from tools.cluster.processes import start_time
from tools.testkit.agents.process import until

ROOT = Path(__file__).parents[3]
# A benchmark with a folder and a process in it, which says who they are and waits.
PROGRAM = """
import sys, time
from bench.clean import end_on_signals, scratch
from tools.testkit.servers.orphans import start
end_on_signals()
with scratch(sys.argv[1]) as folder:
    (folder / "data").write_text("x")
    child = start([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        print(folder, child.pid, flush=True)
        # Not one long sleep: a signal that comes between Python's last look for signals and the system call would
        # wait for its end.
        while True:
            time.sleep(0.05)
    finally:
        print("cleaned", flush=True)
"""
# A signal comes when the process runs and nobody has its name yet.
INTERRUPTED = """
import os, signal, sys
from bench import clean
clean.end_on_signals()
begin, pids = clean.start, []
def interrupted(command, **how):
    process = begin(command, **how)
    pids.append(process.pid)
    os.kill(os.getpid(), int(sys.argv[1]))
    return process
clean.start = interrupted
try:
    with clean.running([sys.executable, "-c", "import time; time.sleep(600)"], grace=60):
        print("not interrupted")
except KeyboardInterrupt:
    try:
        os.kill(pids[0], 0)
        print("left")
    except ProcessLookupError:
        print("gone")
"""


# Begins one: its process, its folder, and the pid of the process that it started.
Begin = Callable[[], tuple["subprocess.Popen[str]", Path, int]]


@pytest.fixture
def program(tmp_path: Path) -> Begin:
    def begin() -> tuple[subprocess.Popen[str], Path, int]:
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"}
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        folder, child = process.stdout.readline().split()
        return process, Path(folder), int(child)

    return begin


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_benchmark_that_is_told_to_end_cleans_up(program: Begin, number: signal.Signals) -> None:
    process, folder, child = program()
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert (out, error) == ("cleaned\n", "interrupted\n")
    # Of a shell: 130.
    assert process.returncode == -signal.SIGINT
    assert not folder.exists()
    until(lambda: start_time(child) is None)


def test_a_killed_benchmark_leaves_no_process_and_the_next_one_removes_its_folder(
    program: Begin, tmp_path: Path
) -> None:
    process, folder, child = program()
    process.kill()
    process.communicate(timeout=60)
    until(lambda: start_time(child) is None)
    assert (folder / "data").exists()
    with scratch(str(tmp_path)) as mine:
        assert not folder.exists()
        assert mine.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_being_started_when_the_signal_comes_is_ended_too(number: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"}
    command = [sys.executable, "-c", INTERRUPTED, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("gone\n", "")


def test_the_folder_of_a_benchmark_that_runs_stays(program: Begin, tmp_path: Path) -> None:
    process, folder, _ = program()
    strange = tmp_path / "ecm-bench-of-somebody-else"
    strange.mkdir()
    try:
        remove_folders(str(tmp_path))
        assert (folder / "data").exists()
        assert strange.exists()
    finally:
        process.kill()
        process.communicate(timeout=60)

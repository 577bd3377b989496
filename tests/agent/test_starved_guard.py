"""A guard that its guarded code starves: another process of the same user id changes the agent's limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

AGENT = """
import os, sys
from linkis_ecm.agent.host.process_bound import ProcessBound
from linkis_ecm.agent.host.usage import Usage
killed = []
usage = Usage(sys.argv[1], "/nowhere")
bound = ProcessBound(100, usage.processes, kill=lambda *call: killed.append(call), pid=lambda: 1)
assert not bound.check()
print(os.getpid(), flush=True)
sys.stdin.readline()
over = bound.check()
os.write(1, f"{over} {bound.tampered} {len(killed)} {usage.processes()} {bound.exceeded}".encode())
"""
ATTACKS = {
    "RLIMIT_NOFILE": "resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0))",
    "RLIMIT_FSIZE": "resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))",
    "nice": "os.setpriority(os.PRIO_PROCESS, pid, 19)",
    "scheduler": "os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_code_of_the_same_user_that_starves_the_agent_is_seen(tmp_path: Path, name: str) -> None:
    (tmp_path / "memory.current").write_text("1")
    (tmp_path / "pids.current").write_text("7")
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        pid = int(agent.stdout.readline())
        subprocess.run(
            [sys.executable, "-c", f"import os, resource; pid = {pid}; {ATTACKS[name]}"], check=True, timeout=30
        )
        agent.stdin.write("\n")
        agent.stdin.flush()
        words = agent.stdout.read()
    assert words.startswith("True True 1 7 ")
    assert f"changed {name} of its agent" in words


def test_the_count_is_read_without_a_right_to_open_files(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("1")
    (tmp_path / "pids.current").write_text("7")
    code = AGENT.replace("over =", "open(sys.argv[1] + '/pids.current', 'w').write('101')\nimport resource\n"
                         "resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))\nover =")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], input="\n", capture_output=True, text=True, timeout=30, check=True
    )
    assert "True False 1 101 the engine had 101 processes and threads" in done.stdout

"""A kernel ends with its agent, also with one that was killed outside of a pod."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from linkis_ecm.agent.host import parent_death
from tests.agent.kernel.test_kernelspec import kernel_of, kernelspec, settings
from tools.testkit.agents.process import PATIENCE, AgentProcess, children, command_line, until

# ipykernel's own watch on its parent is a thread, as is its printing: no thread runs while the code holds the
# interpreter's lock.
HOLD_THE_LOCK = "import ctypes, os; os.write(1, b'begun'); ctypes.PyDLL(None).sleep(600)"
HOLD_THE_LOOP = "console.log('begun'); while (true) {}"


def ended(descriptor: int) -> bool:
    """Whether the process of this pidfd ends within our patience."""
    return bool(select.select([descriptor], [], [], PATIENCE)[0])


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(("executor", "code"), [("ipython", HOLD_THE_LOCK), ("deno", HOLD_THE_LOOP)])
def test_a_kernel_does_not_outlive_an_agent_that_was_killed(
    start: Callable[..., AgentProcess], tmp_path: Path, executor: str, code: str, restarted: bool
) -> None:
    agent = start(**(settings(kernelspec(tmp_path / "path")) if executor == "deno" else {}))
    if restarted:
        assert agent.json("POST", "/v1/restart") == (200, {})
    pid = kernel_of(agent) if executor == "deno" else agent.kernel_pid()
    running = agent.start_execute(code)
    until(lambda: "begun" in agent.log("stdout"))
    kernel = os.pidfd_open(pid)
    try:
        assert not select.select([kernel], [], [], 0)[0]
        agent.process.kill()
        assert ended(kernel)
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(kernel, signal.SIGKILL)
        os.close(kernel)
    with pytest.raises(ConnectionError):
        running.answer()


def wrapped(parent: int, *command: str, **options: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-S", parent_death.__file__, str(parent), command[0], *command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)  # type: ignore[call-overload, no-any-return]


def test_one_whose_agent_is_gone_already_does_not_begin() -> None:
    done = wrapped(os.getppid(), "/bin/echo", "begun")
    assert (done.returncode, done.stdout) == (1, "")


def test_the_program_gets_the_environment_and_signals_that_it_was_given() -> None:
    given = {"PATH": "/usr/bin:/bin", "LC_ALL": "", "ODD": "a=b\nc", "PYTHONPATH": "/x"}
    done = wrapped(os.getpid(), "/usr/bin/env", "-0", env=given)
    assert dict(line.split("=", 1) for line in done.stdout.split("\0") if line) == given
    ignored = wrapped(os.getpid(), "/bin/grep", "SigIgn", "/proc/self/status").stdout
    assert not int(ignored.split()[1], 16) & 1 << (13 - 1), "SIGPIPE"


def test_a_program_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_text("no program")
    (tmp_path / "kernel").chmod(0o755)
    done = wrapped(os.getpid(), str(tmp_path / "kernel"))
    assert (done.returncode, done.stderr) == (1, f"{tmp_path}/kernel cannot be started: Exec format error\n")


def test_the_program_keeps_the_pid(start: Callable[..., AgentProcess], tmp_path: Path) -> None:
    agent = start(**settings(kernelspec(tmp_path / "path")))
    (pid,) = children(agent.process.pid)
    assert "parent_death" not in command_line(pid)
    (part,) = agent.outputs("Deno.pid")
    assert part["text"] == str(pid)

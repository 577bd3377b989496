"""How an engine begins and ends: start, stop, signals, a kernel that dies, an environment that cannot be used."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from linkis_ecm.agent.executors.spawn import process_started
from tools.testkit.agents.process import PATIENCE, AgentProcess, children, process_state, until

Start = Callable[..., AgentProcess]


def until_there(path: Path) -> str:
    """Code that ends once the file is there."""
    return f"import os, time\nwhile not os.path.exists({str(path)!r}): time.sleep(0.01)\n"


def test_code_is_refused_while_starting_and_taken_once_idle(start: Start, tmp_path: Path) -> None:
    # The kernel's interpreter, and no other, waits before it boots.
    go = tmp_path / "go"
    held = "".join(f"    {line}\n" for line in until_there(go).splitlines())
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nif 'agent.kernel.main' in str(sys.orig_argv):\n{held}")
    path = ":".join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    agent = start(wait=False, PYTHONPATH=path)
    agent.wait_until_listening()
    assert agent.status()["state"] == "Starting"
    status, answer = agent.json("POST", "/v1/execute", {"code": "1"})
    assert (status, answer["error"]) == (409, "the engine is Starting: send the code again when its state is Idle")
    go.touch()
    agent.wait_for_state("Idle")
    assert agent.execute("1")["status"] == "Succeed"


def test_the_phases_of_the_start_are_told_in_order(start: Start) -> None:
    before = time.time()
    timings = start().status()["timings"]
    phases = [timings[name] for name in ("processStarted", "kernelStarted", "listening", "kernelReady")]
    assert phases == sorted(phases)
    assert before - 0.05 <= phases[0]  # the kernel counts process starts in ticks of 10 ms
    assert phases[-1] <= time.time()


def test_a_process_put_off_between_two_clocks_tells_its_start_none_the_less() -> None:
    real = process_started()
    tries = iter(range(99))

    def late() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) + (60 if next(tries) in (0, 2) else 0)

    # Its start was told by so much too early where that came between them.
    assert process_started(boot=late) == pytest.approx(real, abs=0.02)


def test_a_stop_lets_the_running_task_end_and_takes_no_other(start: Start, tmp_path: Path) -> None:
    agent = start()
    running = agent.start_execute(until_there(tmp_path / "go") + "'done'")
    agent.wait_for_state("Busy")
    waiting = agent.start_execute("'never'", taskId="second")
    until(lambda: "task second waits" in agent.log("stdout"))
    assert agent.call("POST", "/v1/stop", {"graceSeconds": 100, "reason": "a test"})[0] == 202
    assert agent.call("POST", "/v1/stop", {"graceSeconds": 100})[0] == 202
    status, answer = agent.json("POST", "/v1/execute", {"code": "1"})
    assert status == 409
    assert answer["error"].startswith("the engine is ShuttingDown")
    assert agent.status()["state"] == "ShuttingDown"
    (tmp_path / "go").touch()
    assert running.answer()[1]["status"] == "Succeed"
    assert waiting.answer()[1]["status"] == "Cancelled"
    assert agent.exit_code() == 0


def test_a_stop_interrupts_the_task_when_the_grace_is_over(start: Start) -> None:
    agent = start()
    running = agent.start_execute("import time\ntime.sleep(600)")
    agent.wait_for_state("Busy")
    agent.call("POST", "/v1/stop", {"graceSeconds": 0.2})
    assert running.answer()[1]["status"] == "Cancelled"
    assert agent.exit_code() == 0


def test_a_later_stop_with_less_grace_wins(start: Start) -> None:
    agent = start()
    running = agent.start_execute("import time\ntime.sleep(600)")
    agent.wait_for_state("Busy")
    agent.call("POST", "/v1/stop", {"graceSeconds": 600})
    agent.call("POST", "/v1/stop", {"graceSeconds": 0})
    assert running.answer()[1]["status"] == "Cancelled"
    assert agent.exit_code() == 0


def test_code_that_ignores_interrupts_is_killed_at_the_end(start: Start) -> None:
    agent = start()
    code = (
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(600)"
    )
    running = agent.start_execute(code)
    until(lambda: "deaf" in agent.log("stdout"))
    agent.call("POST", "/v1/stop", {"graceSeconds": 0})
    assert running.answer()[1]["status"] == "Cancelled"
    assert agent.exit_code() == 0


def test_a_timeout_is_answered_even_if_the_code_ignores_its_interrupt(start: Start, tmp_path: Path) -> None:
    agent = start()
    # From its first line on, and however often: the kernel has nothing to raise.
    agent.execute("get_ipython().kernel.interrupts.raise_in = lambda *_: None")
    result = agent.execute(until_there(tmp_path / "go"), timeoutSeconds=0.2)
    assert result["status"] == "Timeout"
    assert agent.status()["state"] == "Busy"
    (tmp_path / "go").touch()
    assert agent.execute("'next'")["status"] == "Succeed"


def test_sigterm_drains_and_exits_with_143(start: Start, tmp_path: Path) -> None:
    agent = start(ECM_STOP_GRACE="100")
    running = agent.start_execute(until_there(tmp_path / "go") + "'drained'")
    agent.wait_for_state("Busy")
    agent.process.send_signal(signal.SIGTERM)
    agent.wait_for_state("ShuttingDown")
    (tmp_path / "go").touch()
    result = running.answer()[1]
    assert (result["status"], result["outputs"][0]["text"]) == ("Succeed", "'drained'")
    assert agent.exit_code() == 143


def test_sigterm_before_anything_runs_is_not_lost(start: Start) -> None:
    agent = start(wait=False)
    agent.kernel_pid()
    agent.process.send_signal(signal.SIGTERM)
    assert agent.exit_code() == 143


def test_sigterm_after_a_stop_that_was_asked_for_leaves_its_exit_code(start: Start, tmp_path: Path) -> None:
    agent = start()
    running = agent.start_execute(until_there(tmp_path / "go"))
    agent.wait_for_state("Busy")
    agent.call("POST", "/v1/stop", {"graceSeconds": 60})
    agent.process.send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    assert running.answer()[1]["status"] == "Succeed"
    assert agent.exit_code() == 0


def test_the_kernels_exit_handlers_run_at_a_stop(start: Start) -> None:
    agent = start()
    agent.execute("import atexit\natexit.register(lambda: open('left-behind', 'w').write('bye'))")
    agent.call("POST", "/v1/stop", {"graceSeconds": 60})
    assert agent.exit_code() == 0
    assert (agent.home / "left-behind").read_text() == "bye"


def test_the_users_exit_ends_the_engine_cleanly(start: Start) -> None:
    agent = start()
    assert agent.execute("exit()")["status"] == "Succeed"
    assert agent.exit_code() == 0
    assert "the code called exit()" in agent.log("stdout")


@pytest.mark.parametrize(
    ("code", "exit_code", "how"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137, "the kernel was killed by SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", 139, "the kernel was killed by SIGSEGV"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGBUS)", 135,
            "the kernel was killed by SIGBUS: most often the shared memory is full (/dev/shm has ",
        ),
        ("import os; os._exit(3)", 3, "the kernel exited with code 3"),
        ("import os; os._exit(0)", 1, "the kernel exited with code 0"),
    ],
)  # fmt: skip
def test_a_kernel_that_dies_fails_its_task_and_the_engine(start: Start, code: str, exit_code: int, how: str) -> None:
    agent = start()
    last_words = "import os; os.write(2, b'last words\\n')\n"
    result = agent.execute(last_words + code)
    assert result["status"] == "Failed"
    error = result["outputs"][-1]
    assert (error["type"], error["name"]) == ("error", "KernelDied")
    assert error["value"].startswith(how)
    assert "last words" in error["traceback"]
    assert agent.exit_code() == exit_code
    assert f"KernelDied: {how}" in agent.log("stdout")


def test_a_kernel_killed_while_idle_ends_the_engine(start: Start) -> None:
    agent = start()
    os.kill(agent.kernel_pid(), signal.SIGKILL)
    assert agent.exit_code() == 137


def test_a_kernel_that_dies_before_it_answers_ends_the_engine(start: Start) -> None:
    agent = start(wait=False)
    os.kill(agent.kernel_pid(), signal.SIGKILL)
    assert agent.exit_code() == 137
    assert "KernelDied" in agent.log("stdout")


def test_orphans_of_the_kernel_are_reaped(start: Start) -> None:
    agent = start()
    result = agent.execute(
        "import subprocess\n"
        "out = subprocess.run(['sh', '-c', 'sleep 0.2 >/dev/null 2>&1 & echo $!'], capture_output=True, text=True)\n"
        "print(out.stdout)"
    )
    orphan = int(result["outputs"][0]["text"])
    until(lambda: process_state(orphan) == "")
    assert [child for child in children(agent.process.pid) if process_state(child) == "Z"] == []


def test_nothing_of_the_engine_is_left_after_its_end(start: Start) -> None:
    agent = start()
    (folder,) = agent.execute("import os; os.path.dirname(os.environ['IPYTHONDIR'])")["outputs"]
    path = Path(folder["text"].strip("'"))
    assert path.stat().st_mode & 0o777 == 0o700
    child = int(agent.execute("import subprocess; subprocess.Popen(['sleep', '600']).pid")["outputs"][0]["text"])
    agent.call("POST", "/v1/stop", {"graceSeconds": 0})
    assert agent.exit_code() == 0
    assert not path.exists()
    until(lambda: process_state(child) in ("", "Z"))


def test_a_kernel_does_not_outlive_its_agent(start: Start) -> None:
    agent = start()
    kernel = agent.kernel_pid()
    agent.process.kill()
    agent.process.wait(PATIENCE)
    until(lambda: process_state(kernel) in ("", "Z"))


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (
            {"ECM_AGENT_KEY": ""},
            "ECM_REPORT_URL is empty: set it to the operator's reports service, which gives the key",
        ),
        ({"ECM_AGENT_PORT": "http"}, "ECM_AGENT_PORT is 'http': write a whole number from 0 to 65535"),
        ({"ECM_REPORT_URL": "ftp://x"}, "ECM_REPORT_URL is 'ftp://x': write it like http://host:9103"),
        ({"ECM_REPORT_PERIOD": "often"}, "ECM_REPORT_PERIOD is 'often': write a number of seconds"),
        ({"ECM_START_TIMEOUT": "soon"}, "ECM_START_TIMEOUT is 'soon': write a number of seconds"),
        ({"ECM_LOG_DIR": "/nowhere"}, "ECM_LOG_DIR cannot be written: "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_environment_that_cannot_be_used_is_refused_in_a_sentence(
    start: Start, environment: dict[str, str], sentence: str
) -> None:
    agent = start(wait=False, **environment)
    assert agent.exit_code() == 2
    assert agent.container_err.read_text().startswith(f"the agent cannot start: {sentence}")


def test_a_port_that_is_taken_is_told(start: Start) -> None:
    first = start()
    second = start(wait=False, ECM_AGENT_PORT=str(first.port))
    assert second.exit_code() == 2
    assert f"ECM_AGENT_PORT {first.port} cannot be listened on" in second.container_err.read_text()

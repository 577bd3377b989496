"""An interrupt ends what runs, whatever it is, and what was interrupted has not succeeded.

All members and what each takes: `python -m tools.interrupt_table`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from linkis_ecm.agent.executors.processes import descendants, interrupt_outside
from linkis_ecm.agent.kernel import interrupts as interrupts_module
from linkis_ecm.agent.kernel.interrupts import Interrupts
from tools.interrupt_table import interrupted, went_on
from tools.testkit.agents.interrupt_cases import BEGUN, KINDS, LATER, cases
from tools.testkit.agents.process import AgentProcess, until

# Every third of each kind: the same general cause.
_TRIED = [case for kind in KINDS for case in [case for case in cases() if case[0] == kind][::3]]


@pytest.mark.parametrize("code", [pytest.param(code, id=f"{kind} {name}") for kind, name, code in _TRIED])
def test_an_interrupt_ends_the_code_and_none_of_its_further_lines_runs(agent: AgentProcess, code: str) -> None:
    _, result = interrupted(agent, code)
    assert result["status"] == "Cancelled"
    assert not went_on(result), result
    assert agent.outputs("'next'")[0]["text"] == "'next'"


_RELATION = next(code for kind, name, code in cases() if (kind, name) == ("duckdb", "shown"))
_REPR = (
    "import duckdb, time\nclass Shown:\n    def _repr_html_(self):\n        %s\n        return 'x'\n"
    f"print({BEGUN!r}, flush=True)\ndisplay(Shown())\nprint({LATER!r})"
)


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(_RELATION, id="relation"),
        pytest.param(_REPR % "time.sleep(600)", id="a form that waits"),
        pytest.param(
            _REPR % "duckdb.sql('select sum(a.range) from range(1000000) a, range(1000000) b').fetchall()",
            id="a form that asks a database",
        ),
    ],
)
def test_an_interrupted_display_runs_no_further_line_however_often(agent: AgentProcess, code: str) -> None:
    # Of a relation the first ones were right, and then the query's own error came in the interrupt's place.
    for _ in range(8):
        _, result = interrupted(agent, code)
        assert (result["status"], went_on(result)) == ("Cancelled", False), result


def test_code_that_catches_its_interrupt_and_goes_on_is_cancelled(agent: AgentProcess) -> None:
    code = f"import time\ntry:\n    print({BEGUN!r}, flush=True)\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    5"
    _, result = interrupted(agent, code)
    assert result["status"] == "Cancelled"
    assert "went on to its end" in result["outputs"][-1]["value"]


def test_a_clean_up_of_a_second_is_not_interrupted_again(agent: AgentProcess) -> None:
    code = (
        f"import time\ntry:\n    print({BEGUN!r}, flush=True)\n    time.sleep(600)\n"
        "finally:\n    for n in range(12):\n        time.sleep(0.1)\n    print('saved')"
    )
    # Interrupts come at 0.5 and 1 s, and more of them where the machine delays it.
    patience = "from linkis_ecm.agent.kernel import interrupts\ninterrupts.CLEAN_UP_SECONDS = {}"
    agent.execute(patience.format(600))
    try:
        _, result = interrupted(agent, code)
    finally:
        agent.execute(patience.format(interrupts_module.CLEAN_UP_SECONDS))
    assert result["status"] == "Cancelled"
    assert result["outputs"][0]["text"] == f"{BEGUN}\nsaved\n"


@pytest.mark.parametrize(
    "code", ["import time\n%stime.sleep(600)", "import asyncio\n%sawait asyncio.sleep(600)", "%s!sleep 600"]
)
def test_a_timeout_ends_it_as_well(agent: AgentProcess, code: str) -> None:
    result = agent.execute(code.replace("%s", "") + "\nprint('later')", timeoutSeconds=0.5)
    assert (result["status"], went_on(result)) == ("Timeout", False)


@pytest.mark.parametrize("options", ["", "--no-raise-error"])
@pytest.mark.parametrize("magic", ["%%bash", "%%script bash"])
def test_an_interrupted_script_that_traps_its_signals_is_ended(agent: AgentProcess, magic: str, options: str) -> None:
    code = (
        f"{magic} {options}\ntrap 'echo trapped' INT TERM\necho $$ > pid\necho {BEGUN}\n"
        "for i in $(seq 600); do sleep 1; done\ntouch went_on"
    )
    _, result = interrupted(agent, code)
    pid = int((agent.home / "pid").read_text())
    # What the script has said at its end may come behind it.
    (error,) = [part for part in result["outputs"] if part["type"] == "error"]
    assert (result["status"], error["name"]) == ("Cancelled", "KeyboardInterrupt"), result
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert agent.execute("import os; os.path.exists('went_on')")["outputs"][0]["text"] == "False"


def test_a_script_in_the_background_outlives_an_interrupt_of_another(agent: AgentProcess) -> None:
    agent.execute("%%bash --bg --proc other\ntrap '' INT\ntouch trapped\nexec sleep 600")
    until((agent.home / "trapped").exists)
    interrupted(agent, f"%%bash\ntrap 'echo trapped' INT\necho {BEGUN}\nwhile :; do sleep 0.1; done")
    assert agent.execute("import os; os.path.exists(f'/proc/{other.pid}')")["outputs"][-1]["text"] == "True"
    agent.execute("%killbgscripts")


def test_the_traceback_of_an_interrupt_names_the_line_and_nothing_of_the_kernel(agent: AgentProcess) -> None:
    _, result = interrupted(agent, f"import time\ndef f():\n    print({BEGUN!r}, flush=True); time.sleep(600)\nf()")
    error = result["outputs"][-1]
    told = "\n".join(error["traceback"])
    assert error["name"] == "KeyboardInterrupt"
    assert "time.sleep(600)" in told
    assert "linkis_ecm" not in told
    assert "IPython/core" not in told


def test_a_children_of_its_own_session_is_interrupted_by_the_second_stage() -> None:
    # Whoever runs the tests in the background of a script has them ignore SIGINT, and so would the child.
    command = ["env", "--default-signal=INT", "sh", "-c", "setsid sleep 600; true"]
    parent = subprocess.Popen(command, start_new_session=True)
    try:
        (child,) = until(lambda: descendants(parent.pid))
        until(lambda: os.getpgid(child) != parent.pid)
        interrupt_outside(parent.pid)
        assert parent.wait(60) == 0
    finally:
        parent.kill()
    assert descendants(parent.pid) == []


def test_what_is_in_the_kernels_group_is_left_to_the_first_stage() -> None:
    parent = subprocess.Popen(["sh", "-c", "sleep 600; true"], start_new_session=True)
    try:
        (child,) = until(lambda: descendants(parent.pid))
        interrupt_outside(parent.pid)
        os.kill(child, signal.SIGCONT)  # it is there
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()


def test_os_system_is_what_it_was_but_for_the_interrupt(agent: AgentProcess) -> None:
    assert (
        agent.outputs("import os; [os.system('exit 3') >> 8, os.system(b'true'), os.system('kill -9 $$')]")[0]["text"]
        == "[3, 0, 9]"
    )
    assert agent.outputs("os.system('-n 2> /dev/null') >> 8")[0]["text"] == "127"


def test_an_interrupt_for_code_that_has_ended_meanwhile_does_nothing_to_the_next(agent: AgentProcess) -> None:
    for _ in range(10):
        pending = agent.start_execute("import time\nfor n in range(20): time.sleep(0.001)")
        time.sleep(0.02)
        agent.call("POST", "/v1/interrupt")
        pending.answer()
        assert agent.outputs("'next'")[0]["text"] == "'next'"


@pytest.mark.parametrize("ended", [False, True])
def test_a_query_of_another_task_is_not_interrupted(monkeypatch: pytest.MonkeyPatch, ended: bool) -> None:
    interrupts, called = Interrupts(), list[str]()

    class Connection:
        def interrupt(self) -> None:
            called.append(interrupts._request)

    def find() -> list[Connection]:
        """Takes so long that the task ends and the next one begins."""
        if ended:
            first.__exit__(None, None, None)
            interrupts.running("second").__enter__()
        return [Connection()]

    monkeypatch.setattr(interrupts_module, "_connections", find)
    first = interrupts.running("first")
    first.__enter__()
    interrupts.help_along(1, "first")
    assert (called, interrupts.interrupted) == (([], False) if ended else (["first"], True))


async def test_nothing_below_a_process_that_has_ended() -> None:
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    assert descendants(process.pid) == []

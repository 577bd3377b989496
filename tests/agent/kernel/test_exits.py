"""How code ends by itself: exit(), sys.exit() and os._exit() are what they are in `python script.py`."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import orjson
import pytest

from linkis_ecm.agent.executors.messages import asks_to_end, exit_code
from tests.agent.operator import TICKET, TOKEN, UID, Operator
from tools.testkit.agents.process import AgentProcess, patched, until

Start = Callable[..., AgentProcess]
# Each ends a script; what comes after it in the same code must not run.
ENDS = [
    "exit()", "exit(0)", "quit(None)", "exit(1)", "quit(3)", "exit('no data')", "import sys; sys.exit()",
    "import sys; sys.exit(0)", "import sys; sys.exit(None)", "import sys; sys.exit(False)", "import sys; sys.exit(1)",
    "import sys; sys.exit(True)", "import sys; sys.exit(2)", "import sys; sys.exit(-1)", "import sys; sys.exit(256)",
    "import sys; sys.exit(2**70)", "import sys; sys.exit('no data')", "import sys; sys.exit('0')",
    "import sys; sys.exit('')", "import sys; sys.exit(0.0)", "import sys; sys.exit([])", "raise SystemExit",
    "raise SystemExit(5)", "raise SystemExit(1, 2)", "import sys\nif True:\n    sys.exit(4)", "import os; os._exit(0)",
    "import os; os._exit(3)",
]  # fmt: skip


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    made = Operator(tmp_path, file_max=4 << 20)
    await made.start()
    yield made
    await made.runner.cleanup()


async def job(start: Start, operator: Operator, code: str, **settings: str) -> AgentProcess:
    operator.engine(mode="once", code=code)
    return await asyncio.to_thread(
        start, wait=False, ECM_MODE="once", ECM_REPORT_URL=operator.url, ECM_UID=UID, ECM_TICKET_ID=TICKET,
        ECM_AGENT_KEY=TOKEN, ECM_POD_UID=f"pod-{UID}", **settings,
    )  # fmt: skip


@pytest.mark.parametrize("code", ENDS)
async def test_a_job_ends_as_the_script_ends(start: Start, operator: Operator, code: str) -> None:
    code = f"print('before', flush=True)\n{code}\nprint('after', flush=True)"
    script = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True)
    agent = await job(start, operator, code)
    assert await asyncio.to_thread(agent.exit_code) == script.returncode
    last = operator.reports[-1]
    assert last["state"] == ("Failed" if script.returncode else "Success"), last
    if script.returncode and "os._exit" not in code:
        assert last["reason"] == "JobFailed"
        assert f"(exit code {script.returncode})" in last["message"]
        assert script.stderr.strip() in last["message"]
    if "os._exit" not in code:
        result = orjson.loads(await operator.archive.get(UID, 0, "result.json") or b"{}")
        assert result["status"] == ("Failed" if script.returncode else "Succeed")
        printed = "".join(part["text"] for part in result["outputs"] if part.get("stream") == "stdout")
        assert printed == script.stdout
        assert ("SystemExit" in str(result["outputs"])) == bool(script.returncode)
        assert "To exit" not in str(result["outputs"])
    assert "after\n" not in agent.log("stdout")


# What Python does behind a script's last line, also where that fails. Each writes `kept`, or the words into stdout.
BEHIND = {
    "an open file": "f = open('kept', 'w'); f.write('words')",
    "an exit handler": "import atexit; atexit.register(lambda: open('kept', 'w').write('words'))",
    "a thread": (
        "import threading, time\ndef work():\n    time.sleep(0.5)\n    open('kept', 'w').write('words')\n"
        "threading.Thread(target=work).start()"
    ),
    "a pool": (
        "import concurrent.futures as c, time\ndef work():\n    time.sleep(0.5)\n    open('kept', 'w').write('words')\n"
        "c.ThreadPoolExecutor().submit(work)"
    ),
    "a buffer of logging": (
        "import logging.handlers as h\nlog = h.logging.getLogger(); log.addHandler(h.MemoryHandler(99,"
        " target=h.logging.FileHandler('kept')))\nlog.warning('words')"
    ),
    "a finalizer": (
        "import weakref\nclass C: pass\nc = C(); weakref.finalize(c, lambda: open('kept', 'w').write('words'))"
    ),
    "a destructor": "class C:\n    def __del__(self): print('said at the end')\nc = C()",
    "a print": "import atexit; atexit.register(print, 'said at the end')",
    "an exit code": "import atexit, os; atexit.register(os._exit, 5)",
}


@pytest.mark.parametrize("last", ["", "raise ValueError('no data')", "exit(3)", "import sys; sys.exit(0)"])
@pytest.mark.parametrize("behind", BEHIND)
async def test_what_a_script_does_behind_its_last_line_a_job_does(
    start: Start, operator: Operator, tmp_path: Path, behind: str, last: str
) -> None:
    code = f"{BEHIND[behind]}\n{last}"
    (tmp_path / "script").mkdir()
    script = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path / "script"
    )
    agent = await job(start, operator, code)
    assert await asyncio.to_thread(agent.exit_code) == script.returncode
    of_script, of_job = tmp_path / "script/kept", agent.home / "kept"
    assert of_script.exists() == of_job.exists()
    if of_script.exists():
        assert of_job.read_text() == of_script.read_text()
    assert script.stdout in agent.log("stdout")


async def test_a_stop_ends_what_a_job_does_behind_its_last_line_and_the_job_has_not_succeeded(
    start: Start, operator: Operator
) -> None:
    code = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()"
    agent = await job(start, operator, code, ECM_STOP_GRACE="1")
    await asyncio.to_thread(until, lambda: "threads and exit handlers go on" in agent.log("stdout"))
    assert operator.reports[-1]["state"] == "Running"
    agent.process.terminate()
    assert await asyncio.to_thread(agent.exit_code) == 143
    assert operator.reports[-1]["state"] != "Success"


async def test_a_thread_that_dies_behind_a_jobs_last_line_fails_the_job(start: Start, operator: Operator) -> None:
    code = (
        "import ctypes, threading, time\ndef work():\n    time.sleep(0.5)\n    ctypes.string_at(0)\n"
        "threading.Thread(target=work).start()"
    )
    agent = await job(start, operator, code)
    assert await asyncio.to_thread(agent.exit_code) == 128 + signal.SIGSEGV
    assert (operator.reports[-1]["state"], operator.reports[-1]["reason"]) == ("Failed", "KernelDied")


class Patient(AgentProcess):
    """An agent that gives a kernel a minute to exit, not two seconds: when it gives up is for test_engine.py."""

    arguments = patched("linkis_ecm.agent.engine", "KERNEL_EXIT_TIMEOUT = 60.0")


@pytest.mark.parametrize("how", ["exit()", "terminate", "restart"])
def test_the_open_files_and_exit_handlers_of_a_session_have_their_turn(start: Start, how: str) -> None:
    agent = start(Patient, ECM_STOP_GRACE="30")
    agent.execute("f = open('kept', 'w'); f.write('words')\nimport atexit; atexit.register(print, 'said at the end')")
    if how == "terminate":
        agent.process.terminate()
    elif how == "restart":
        assert agent.json("POST", "/v1/restart") == (200, {})
    else:
        agent.execute(how)
    if how != "restart":
        agent.exit_code()
    assert (agent.home / "kept").read_text() == "words"
    assert "said at the end\n" in agent.log("stdout")


async def test_exit_in_a_module_of_the_jobs_own_ends_the_job(start: Start, operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text("def run():\n    exit(6)\n")
    agent = await job(start, operator, f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport work; work.run()")
    assert await asyncio.to_thread(agent.exit_code) == 6


def test_sys_exit_ends_the_task_of_a_session_and_not_the_session(agent: AgentProcess) -> None:
    for code in ("import sys; sys.exit(0)", "import sys; sys.exit()", "raise SystemExit"):
        ended = agent.execute(f"print('before')\n{code}\nprint('after')")
        assert (ended["status"], [part["text"] for part in ended["outputs"]]) == ("Succeed", ["before\n"]), code
    for code, value in (("sys.exit(3)", "3"), ("sys.exit('no data')", "no data"), ("sys.exit('0')", "0")):
        ended = agent.execute(f"import sys; {code}\nprint('after')")
        error = ended["outputs"][-1]
        assert (ended["status"], error["name"], error["value"]) == ("Failed", "SystemExit", value)
        assert not {"after\n", "To exit"} & {part.get("text") for part in ended["outputs"]}
    assert agent.execute("1 + 1")["outputs"][0]["text"] == "2"


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [("exit()", "Succeed", 0), ("quit", "Succeed", 0), ("exit(3)", "Failed", 3), ("exit('no data')", "Failed", 1),
     ("%reset -f\nexit(4)", "Failed", 4)],
)  # fmt: skip
def test_exit_ends_a_session_with_its_code(start: Start, code: str, status: str, exit_code: int) -> None:
    agent = start()
    assert agent.execute(code)["status"] == status
    assert agent.exit_code() == exit_code
    assert "the code called exit(" in agent.log("stdout")


@pytest.mark.parametrize(
    ("payload", "code", "ends"),
    [
        ([], None, False),
        ([{"source": "page", "data": {}}], None, False),
        ([{"source": "ask_exit"}], 0, True),
        # Another IPython's exit(x).
        ([{"source": "ask_exit", "keepkernel": False}], 0, True),
        ([{"source": "ask_exit", "keepkernel": 1}], 1, True),
        ([{"source": "ask_exit", "keepkernel": "no data"}], 1, True),
        ([{"source": "exit", "exitCode": 7}], 7, False),
        ([{"source": "exit", "exitCode": {}}], 1, False),
    ],
)
def test_a_reply_says_how_the_code_ended(payload: list[dict[str, object]], code: int | None, ends: bool) -> None:
    assert (exit_code({"payload": payload}), asks_to_end({"payload": payload})) == (code, ends)

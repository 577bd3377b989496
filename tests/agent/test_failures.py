"""A failure is found where people look: in the outputs, the status, the journal and the engine's stderr."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.agent.executors.messages import read_reply
from linkis_ecm.agent.failures import FailureSink, in_one_line
from linkis_ecm.agent.logs.files import LogFiles
from linkis_ecm.agent.tasks import FAILED, Task, TaskBook
from tools.testkit.agents.process import AgentProcess

GROUP = "async def a(): raise ValueError('the real reason')\n"
# Code, the error's name, a part of its value, and a part of what stderr has.
FAILURES = {
    "raised": ("def load(p): return open(p)\nload('/data/none.csv')", "FileNotFoundError", "none.csv", "def load(p)"),
    "syntax": ("def f(:", "SyntaxError", "invalid syntax", "def f(:"),
    "magic": ("%nosuchmagic", "UsageError", "`%nosuchmagic` not found", "`%nosuchmagic` not found"),
    "task group": (
        f"import asyncio\n{GROUP}async with asyncio.TaskGroup() as tg: tg.create_task(a())",
        "ExceptionGroup", "unhandled errors", "ValueError: the real reason",
    ),
    "group": ("raise ExceptionGroup('many', [ValueError('within')])", "ExceptionGroup", "many", "ValueError: within"),
    "group as context": (
        "try:\n    raise ExceptionGroup('many', [ValueError('w')])\nexcept BaseException: 1 / 0",
        "ZeroDivisionError", "division by zero", "ZeroDivisionError: division by zero",
    ),
    "system": ("%%bash\nexit 3", "CalledProcessError", "exit status 3", "CalledProcessError"),
    "coloured": ("raise ValueError('\\x1b[31mred\\x1b[0m')", "ValueError", "red", "ValueError: red"),
    "no text": (
        "class E(Exception):\n    def __str__(self): raise RuntimeError('no')\nraise E",
        "E", "<exception str() failed>", "E: <exception str() failed>",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_is_told_everywhere(agent: AgentProcess, kind: str) -> None:
    code, name, value, logged = FAILURES[kind]
    before = len(agent.log("stderr"))
    result = agent.execute(code)
    assert result["status"] == "Failed"
    error = next(output for output in reversed(result["outputs"]) if output["type"] == "error")
    assert (error["name"], value in error["value"]) == (name, True)
    assert (result["reason"], result["message"]) == (name, error["value"])
    _, told = agent.json("GET", f"/v1/tasks/{result['taskId']}")
    assert (told["reason"], told["message"]) == (name, error["value"])
    stderr = agent.log("stderr")[before:]
    assert logged in stderr
    assert "\x1b" not in stderr
    assert f"task {result['taskId']} ended, Failed after " in agent.log("stdout")
    line = next(line for line in agent.log("stdout").splitlines() if f"{result['taskId']} ended" in line)
    assert f": {name}" in line
    journal = [json.loads(line) for line in (agent.log_dir / "journal.jsonl").read_text().splitlines()]
    (ended,) = [line for line in journal if line["taskId"] == result["taskId"] and line["event"] == "ended"]
    assert ended["error"].startswith(f"{name}: ")
    # It is in the log once.
    assert stderr.count(logged) <= 2


@pytest.mark.parametrize("kind", ["group", "magic"])
def test_a_first_task_that_fails_is_answered_at_once(start: Callable[..., AgentProcess], kind: str) -> None:
    agent = start()
    result = agent.execute(FAILURES[kind][0])
    assert result["executionCount"] == 1
    assert result["outputs"][-1]["name"] == FAILURES[kind][1]
    assert "did not say that it is idle" not in agent.log("stderr")
    assert "Exception in message handler" not in agent.log("stderr")


def test_a_failure_tells_nothing_of_an_earlier_ones_traceback(agent: AgentProcess) -> None:
    agent.execute("raise ValueError('an earlier task')")
    error = agent.execute("%nosuchmagic")["outputs"][-1]
    assert (error["name"], error["traceback"]) == ("UsageError", [])


def test_a_success_says_nothing_of_an_error(agent: AgentProcess) -> None:
    result = agent.execute("try: 1 / 0\nexcept ZeroDivisionError: get_ipython().showtraceback()")
    assert (result["status"], result["reason"], result["message"]) == ("Succeed", "", "")
    assert "ZeroDivisionError: division by zero" in agent.log("stderr")


def test_a_traceback_begins_at_a_line_of_its_own(agent: AgentProcess) -> None:
    agent.execute("import sys\nsys.stderr.write('no end'); sys.stderr.flush()\n{}['k']")
    assert "no end\n----" in agent.log("stderr")


@pytest.mark.parametrize(
    ("code", "last"),
    [("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", []),
     ("import os, signal; os.write(2, b'own words\\n'); os.kill(os.getpid(), signal.SIGKILL)",
      ["own words"])],
)  # fmt: skip
def test_a_dead_kernel_is_told_by_its_own_tasks_last_words(
    start: Callable[..., AgentProcess], code: str, last: list[str]
) -> None:
    agent = start()
    agent.execute("import warnings; warnings.warn('an old warning of another task')\n1 / 0")
    error = agent.execute(code)["outputs"][-1]
    assert (error["name"], error["traceback"]) == ("KernelDied", last)
    failed = next(line for line in agent.log("stdout").splitlines() if "the engine failed" in line)
    assert "an old warning" not in failed


def test_a_crash_says_where_it_was(start: Callable[..., AgentProcess]) -> None:
    agent = start()
    error = agent.execute("def crash():\n    import ctypes\n    ctypes.string_at(0)\ncrash()")["outputs"][-1]
    assert error["name"] == "KernelDied"
    assert error["traceback"][0] == "Fatal Python error: Segmentation fault"
    assert any("line 3 in crash" in line for line in error["traceback"])


@pytest.mark.parametrize(
    ("content", "name", "value"),
    [
        ({"status": "error", "ename": "E", "evalue": "v", "traceback": ["t"]}, "E", "v"),
        ({"status": "error", "ename": 5, "evalue": None, "traceback": "no list"}, "5", "None"),
        ({"status": "error"}, "Failed", "the kernel gave no reason"),
        ({"status": "aborted"}, "Failed", "the kernel gave no reason"),
        ({"status": "error", "ename": "NoneType", "evalue": "None"}, "Failed", "the kernel gave no reason"),
        ({"status": ["odd"]}, "Failed", "the kernel gave no reason"),
    ],
)
async def test_a_reply_that_says_error_is_an_error(
    content: dict[str, Any], name: str, value: str, tmp_path: Path
) -> None:
    logs = LogFiles(str(tmp_path), file_bytes=1 << 20, total_bytes=1 << 20)
    book = TaskBook(str(tmp_path), lambda: 0.0)
    task = Task(id="t", code="", timeout=None, accepted=0.0, done=asyncio.get_running_loop().create_future())
    FailureSink(task, book, logs).end(read_reply(content))
    task.finish(FAILED, 0.0)
    assert (task.reason, task.message[: len(value)]) == (name, value)
    assert in_one_line(task).startswith(f": {name}: {value}")
    assert f"{name}: {value}" in (tmp_path / "stderr").read_text()
    logs.close(1.0)


def test_an_error_without_a_text_is_told_once(agent: AgentProcess) -> None:
    code = "class Mute(Exception):\n    def __str__(self): raise RuntimeError('no text')\nraise Mute()"
    result = agent.execute(code)
    assert (result["status"], [output["type"] for output in result["outputs"]]) == ("Failed", ["error"])
    assert "raise RuntimeError('no text')" in "\n".join(result["outputs"][0]["traceback"])


def test_a_traceback_is_made_once(agent: AgentProcess) -> None:
    agent.outputs(
        "made, make = [], get_ipython().InteractiveTB.structured_traceback\n"
        "get_ipython().InteractiveTB.structured_traceback = lambda *a, **o: made.append(1) or make(*a, **o)"
    )
    assert agent.execute("1 / 0")["outputs"][0]["name"] == "ZeroDivisionError"
    assert agent.outputs("get_ipython().InteractiveTB.structured_traceback = make\nlen(made)")[0]["text"] == "1"

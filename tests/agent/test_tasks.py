"""Tasks that are not waited for: how far they are, what they print as they print it, cancel, the same id twice."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.agent import tasks
from tools.testkit.agents.process import AgentProcess, until


def submit(agent: AgentProcess, task_id: str, code: str) -> dict[str, Any]:
    status, told = agent.json("POST", "/v1/execute", {"taskId": task_id, "code": code, "wait": False})
    assert status == 202, told
    return told


def over(agent: AgentProcess, task_id: str) -> dict[str, Any]:
    """The task once it has ended."""

    def ended() -> dict[str, Any] | None:
        status, told = agent.json("GET", f"/v1/tasks/{task_id}")
        assert status == 200, told
        return None if told["status"] in ("Scheduled", "Running") else told

    return until(ended)


def events(agent: AgentProcess, task_id: str, cursor: str = "") -> list[dict[str, Any]]:
    """All that is told of a task until its end."""
    query = f"?from={cursor}" if cursor else ""
    return [json.loads(line) for line in agent.stream(f"/v1/tasks/{task_id}/events{query}") if line.strip()]


def told_text(found: list[dict[str, Any]]) -> str:
    return "".join(event["output"]["text"] for event in found if event["event"] == "output")


def test_a_task_that_is_not_waited_for_is_asked_for_later(agent: AgentProcess) -> None:
    told = submit(agent, "later", "print('a'); 6*7")
    assert told["status"] in ("Scheduled", "Running")
    ended = over(agent, "later")
    assert (ended["status"], ended["progress"]) == ("Succeed", 1.0)
    status, result = agent.json("GET", "/v1/tasks/later/result")
    assert status == 200
    assert [part["text"] for part in result["outputs"]] == ["a\n", "42"]


def test_the_same_id_joins_the_task_and_runs_nothing_twice(agent: AgentProcess) -> None:
    code = "import time; _joined = globals().get('_joined', 0) + 1; time.sleep(0.3); _joined"
    answers: list[dict[str, Any]] = []

    def call() -> None:
        answers.append(agent.execute(code, taskId="joined"))

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers.append(agent.execute(code, taskId="joined"))
    assert [answer["outputs"][0]["text"] for answer in answers] == ["1"] * 4


def test_an_id_that_was_given_to_other_code_is_refused(agent: AgentProcess) -> None:
    agent.execute("1", taskId="taken")
    status, body = agent.json("POST", "/v1/execute", {"taskId": "taken", "code": "2"})
    assert status == 409
    assert "taskId 'taken' was given to other code" in body["error"]


def test_printed_text_is_an_event_while_the_task_runs(agent: AgentProcess, tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = (
        "import os, time\nprint('first', flush=True)\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\nprint('second')"
    )
    submit(agent, "stream", code)
    seen: list[str] = []
    for line in agent.stream("/v1/tasks/stream/events"):
        if not line.strip():
            continue
        event = json.loads(line)
        if event["event"] == "output":
            seen.append(event["output"]["text"])
            if "first" in event["output"]["text"]:
                go.touch()  # it goes on only because we were told
    assert "".join(seen) == "first\nsecond\n"


def test_a_follower_that_comes_back_is_told_what_it_has_not_seen(agent: AgentProcess) -> None:
    agent.execute("print('a' * 10); display({'text/plain': 'x'}, raw=True); print('b')", taskId="again")
    whole = events(agent, "again")
    assert whole[-1]["event"] == "end"
    assert told_text(whole) == "a" * 10 + "\nxb\n"
    assert [event["event"] for event in events(agent, "again", whole[-1]["id"])] == ["end"]
    # After the first item and four characters of nothing more: everything behind the first text.
    assert told_text(events(agent, "again", "0.1.0.0")) == "xb\n"
    assert told_text(events(agent, "again", "0.0.4.0")) == "a" * 6 + "\nxb\n"


def test_a_malformed_event_cursor_is_refused(agent: AgentProcess) -> None:
    agent.execute("1", taskId="cursor")
    status, body = agent.json("GET", "/v1/tasks/cursor/events?from=1.2")
    assert status == 400
    assert "no cursor" in body["error"]


def test_cleared_output_is_a_reset_event(agent: AgentProcess) -> None:
    code = "from IPython.display import clear_output\nprint('old'); clear_output(); print('new')"
    agent.execute(code, taskId="cleared")
    found = events(agent, "cleared", "0.1.0.0")
    assert [event["event"] for event in found][:2] == ["reset", "output"]
    assert told_text(found) == "new\n"


def test_a_display_that_changes_is_told_in_its_place(agent: AgentProcess) -> None:
    code = "h = display('one', display_id=True)\nprint('x')\nh.update('two')"
    agent.execute(code, taskId="updated")
    replaced = [event for event in events(agent, "updated", "0.2.0.0") if event.get("replaces")]
    assert [(event["index"], event["output"]["text"]) for event in replaced] == [(0, "'two'")]


def test_progress_is_what_the_code_tells(agent: AgentProcess, tmp_path: Path) -> None:
    go = tmp_path / "go"
    mime = "application/vnd.linkis.progress+json"
    code = (
        f"import os, time\ndisplay({{{mime!r}: {{'progress': 0.5, 'message': 'half'}}}}, raw=True)\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)"
    )
    submit(agent, "progress", code)

    def half() -> dict[str, Any] | None:
        _, told = agent.json("GET", "/v1/tasks/progress")
        return told if told["progress"] == 0.5 else None

    try:
        told = until(half)
    finally:
        go.touch()
    assert (told["status"], told["progressMessage"]) == ("Running", "half")
    assert over(agent, "progress")["progress"] == 1.0


def test_a_waiting_task_is_cancelled_at_once_and_a_running_one_interrupted(agent: AgentProcess) -> None:
    submit(agent, "runs", "import time; time.sleep(600)")
    submit(agent, "waits", "print('never')")
    status, told = agent.json("POST", "/v1/tasks/waits/cancel")
    assert (status, told["status"]) == (202, "Cancelled")
    assert agent.json("POST", "/v1/tasks/runs/cancel")[0] == 202
    assert over(agent, "runs")["status"] == "Cancelled"
    assert agent.json("POST", "/v1/tasks/runs/cancel")[1]["status"] == "Cancelled", "again: nothing happens"
    assert agent.outputs("1+1")[0]["text"] == "2"


def test_a_task_that_nobody_sent_is_not_there(agent: AgentProcess) -> None:
    assert agent.json("GET", "/v1/tasks/none")[0] == 404


def test_a_restarted_kernel_forgets_and_goes_on(start: Callable[..., AgentProcess]) -> None:
    agent = start()
    agent.execute("x = 1")
    before = agent.outputs("import os; os.getpid()")[0]["text"]
    submit(agent, "busy", "import time; time.sleep(600)")
    submit(agent, "queued", "1")
    status, _ = agent.json("POST", "/v1/restart")
    assert status == 200
    busy, queued = over(agent, "busy"), over(agent, "queued")
    assert (busy["status"], busy["reason"], busy["message"]) == (
        "Cancelled", "Cancelled", "the kernel was restarted on request",
    )  # fmt: skip
    assert queued["status"] == "Cancelled"
    assert agent.status()["state"] == "Idle"
    assert agent.outputs("'x' in globals()")[0]["text"] == "False"
    assert agent.outputs("import os; os.getpid()")[0]["text"] != before
    assert agent.json("POST", "/v1/restart")[0] == 200, "idle, too"
    assert agent.outputs("1+1")[0]["text"] == "2"


def test_a_task_that_goes_on_after_its_interrupt_says_so_until_it_is_ended(
    start: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    agent, begun = start(), tmp_path / "begun"
    # C code that looks at no signal, from before it makes the folder: an interrupt before that would end it.
    submit(agent, "deaf", f"import itertools, os; any(itertools.chain(map(os.mkdir, [{str(begun)!r}]), iter(int, 1)))")
    until(begun.exists)
    assert agent.json("POST", "/v1/tasks/deaf/cancel")[0] == 202
    status = until(lambda: (one := agent.json("GET", "/v1/tasks/deaf")[1])["message"] and one)
    assert status["status"] == "Running"
    assert "goes on after 3 s: restartKernel ends it, with the kernel's memory" in status["message"]
    assert agent.json("POST", "/v1/restart")[0] == 200
    assert over(agent, "deaf")["message"] == "the kernel was restarted on request"


def test_each_task_is_in_the_journal_with_its_end(start: Callable[..., AgentProcess]) -> None:
    agent = start()
    agent.execute("1/0", taskId="broken")
    lines = [json.loads(line) for line in (agent.log_dir / "journal.jsonl").read_text().splitlines()]
    assert [(line["taskId"], line["event"]) for line in lines] == [
        ("broken", "accepted"), ("broken", "started"), ("broken", "ended"),
    ]  # fmt: skip
    assert (lines[-1]["status"], lines[-1]["error"]) == ("Failed", "ZeroDivisionError: division by zero")
    assert "1/0" not in json.dumps(lines), "the code itself is not told"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("1/0", "1/0"),
        ("\n \n   a = 1  \nb", "a = 1"),
        ("", ""),
        (" \n" * 100_000, ""),
        ("é" * 1000, "é" * 120),
        ("a\ud800b", "a?b"),
    ],
)
async def test_a_task_has_the_first_line_of_its_code(code: str, expected: str) -> None:
    done = asyncio.get_running_loop().create_future()
    task = tasks.Task(id="t", code=code, timeout=None, accepted=0.0, done=done)
    assert task.as_json()["firstLine"] == expected


async def test_outputs_that_grow_after_the_answer_do_not_shift_what_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "MAX_KEPT_BYTES", 1000)
    book = tasks.TaskBook(str(tmp_path), lambda: 0.0)

    def answered(task_id: str) -> tasks.Task:
        done = asyncio.get_running_loop().create_future()
        task = tasks.Task(id=task_id, code="", timeout=None, accepted=0.0, done=done)
        assert task.outputs is not None
        task.outputs.stream("stdout", "x" * 400)
        book.add(task)
        task.finish(tasks.TIMEOUT, 0.0)
        book.task_ended(task)
        return task

    for number in range(20):
        late = answered(str(number)).outputs
        assert late is not None
        late.stream("stdout", "y" * 4000)  # code that ignores its interrupt
    kept = [task_id for task_id in map(str, range(20)) if (task := book.find(task_id)) and task.outputs is not None]
    assert kept == ["18", "19"]


async def test_as_many_ended_tasks_are_remembered_as_are_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "MAX_ENDED", 3)
    book = tasks.TaskBook(str(tmp_path), lambda: 0.0)
    loop = asyncio.get_running_loop()
    made = [
        tasks.Task(id=str(number), code="", timeout=None, accepted=0.0, done=loop.create_future())
        for number in range(8)
    ]
    for task in made:
        book.add(task)
    for number in (
        1,
        0,
        3,
        4,
        5,
        6,
    ):  # the third one runs on, and a waiting one is cancelled before the first has ended
        made[number].finish(tasks.SUCCEED, 0.0)
        book.task_ended(made[number])
    assert [task["taskId"] for task in book.list_status()] == ["7", "6", "5", "4", "2"]

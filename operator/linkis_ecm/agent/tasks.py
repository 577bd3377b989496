"""The engine's tasks: their code, progress and result, and how many ended ones are kept.

A task is known by its id: a request that is sent again with the same id gets the first one's task. Each step of a task
is a line of the journal file in the log folder, which is uploaded to the archive with the logs. Must not run anything.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from linkis_ecm.agent.logs.bounded_file import BoundedFile
from linkis_ecm.agent.outputs import Outputs

SCHEDULED, RUNNING = "Scheduled", "Running"
SUCCEED, FAILED, CANCELLED, TIMEOUT = "Succeed", "Failed", "Cancelled", "Timeout"
# Ended tasks that can still be asked about, and how many bytes of their results are kept: a quarter of the smallest
# engine's memory.
MAX_ENDED = 1000
MAX_KEPT_BYTES = 64 << 20
# Characters of an error's name and value in a task's status, and in its line of the journal.
MAX_REASON, MAX_MESSAGE = 100, 500
# Characters of the first line of a task's code, which tells it from others in a list.
MAX_LINE = 120
# Linkis's floor for a task that runs and says nothing of itself.
RUNNING_PROGRESS = 0.1
# 128 + SIGINT.
INTERRUPTED_CODE = 130
JOURNAL = "journal.jsonl"
# Some 100,000 tasks.
JOURNAL_BYTES = 64 << 20


class OtherTaskError(Exception):
    """The id was given to another request before."""


class NotReadyError(Exception):
    """The engine takes no code in its state; the text says why."""


class QueueFullError(Exception):
    """As many tasks wait as may."""


def _first_line(code: str) -> str:
    """The first line of the code that is not blank, without the blanks around it; MAX_LINE characters at most."""
    lines = (line.strip() for line in code[: 64 * MAX_LINE].splitlines())
    return next(filter(None, lines), "")[:MAX_LINE].encode(errors="replace").decode()


@dataclass(slots=True)
class Task:
    """One request to run code."""

    id: str
    code: str
    timeout: float | None
    accepted: float
    done: asyncio.Future[None]
    outputs: Outputs | None = field(default_factory=Outputs)
    status: str = SCHEDULED
    started: float = 0.0
    ended: float = 0.0
    interrupted: bool = False
    timed_out: bool = False
    execution_count: int | None = None
    # Of code that ended by exit() or sys.exit().
    exit_code: int | None = None
    # The name and the value of the error that it ended with.
    reason: str = ""
    message: str = ""
    # Bytes of its outputs as they were counted when it was answered: code that goes on after that adds to them.
    kept: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    first_line: str = field(init=False)

    def __post_init__(self) -> None:
        self.first_line = _first_line(self.code)

    @property
    def is_ended(self) -> bool:
        """Whether the task has ended and its caller has an answer."""
        return self.done.done()

    @property
    def failure_code(self) -> int | None:
        """The exit code of the script that it was, where that is known: a shell has 130 of an uncaught interrupt."""
        uncaught = self.status == FAILED and self.reason == "KeyboardInterrupt"
        return INTERRUPTED_CODE if uncaught else self.exit_code

    def notify_changed(self) -> None:
        """Wake the followers of the task."""
        self.changed.set()
        self.changed = asyncio.Event()

    def begin(self, now: float) -> None:
        self.status, self.started = RUNNING, now
        self.notify_changed()

    def finish(self, status: str, now: float) -> bool:
        """End the task and answer its caller. False if it has ended before."""
        if self.done.done():
            return False
        self.status, self.ended = status, now
        if self.outputs is not None:
            self.outputs.flush()
        error = self.outputs.last_error() if self.outputs is not None and status != SUCCEED else None
        if error is not None:
            self.reason, self.message = error["name"][:MAX_REASON], error["value"][:MAX_MESSAGE]
        self.done.set_result(None)
        self.notify_changed()
        return True

    def status_of_reply(self, reply: dict[str, Any]) -> str:
        """How it has ended, by the kernel's answer. What was interrupted has not succeeded, also where its code caught
        the interrupt and went on: then its outputs say so."""
        ok = reply.get("status") == "ok"
        if not (self.timed_out or self.interrupted):
            return SUCCEED if ok else FAILED
        status = TIMEOUT if self.timed_out else CANCELLED
        if ok and not self.is_ended:
            add_error(self, status, "the code was interrupted, and went on to its end")
        return status

    def result(self) -> dict[str, Any]:
        """The task with its outputs."""
        return self.as_json() | {"outputs": self.outputs.result() if self.outputs is not None else []}

    def as_json(self) -> dict[str, Any]:
        """The task without its outputs, in the form of interfaces.md."""
        progress, words = self.outputs.progress if self.outputs is not None else (None, "")
        if self.is_ended:
            progress = 1.0
        elif self.status == RUNNING:
            progress = max(RUNNING_PROGRESS, progress or 0.0)
        return {
            "taskId": self.id,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "executionCount": self.execution_count,
            "acceptedAt": self.accepted,
            "startedAt": self.started,
            "endedAt": self.ended,
            "progress": progress or 0.0,
            "progressMessage": words,
            "firstLine": self.first_line,
        }


class TaskBook:
    """The engine's tasks by id, and their journal."""

    def __init__(
        self, directory: str, clock: Callable[[], float], on_task_ended: Callable[[Task], None] = lambda _: None
    ) -> None:
        self._clock = clock
        self._tasks: OrderedDict[str, Task] = OrderedDict()
        self._kept_bytes = 0
        self._ended = 0  # of the tasks
        self._journal: BoundedFile | None = None
        # Called with each task that has ended.
        self._on_task_ended = on_task_ended
        # A full disk loses lines of the journal, never the engine.
        with suppress(OSError):
            self._journal = BoundedFile(f"{directory}/{JOURNAL}", keep=JOURNAL_BYTES)

    def find(self, task_id: str) -> Task | None:
        """The task of that id, while it is remembered."""
        return self._tasks.get(task_id)

    def find_same(self, task_id: str, code: str) -> Task | None:
        """The task that was sent with this id before, if any. Raises OtherTaskError if it had other code."""
        task = self._tasks.get(task_id)
        if task is not None and task.code != code:
            raise OtherTaskError(
                f"taskId {task_id!r} was given to other code before: give each request an id of its own"
            )
        return task

    def add(self, task: Task) -> None:
        self._tasks[task.id] = task
        self.write_journal(task, "accepted", code=len(task.code), sha256=hashlib.sha256(task.code.encode()).hexdigest())

    def task_with_display(self, content: dict[str, Any]) -> Task | None:
        """The latest task that has shown the display which this message changes."""
        for task in reversed(self._tasks.values()):
            if task.outputs is not None and task.outputs.has_display(content):
                return task
        return None

    def list_status(self) -> list[dict[str, Any]]:
        """The status of all remembered tasks, the newest first."""
        return [task.as_json() for task in reversed(self._tasks.values())]

    def task_ended(self, task: Task) -> None:
        """The task has ended: write it to the journal, and drop old tasks beyond the bounds."""
        error = f"{task.reason}: {task.message}" if task.reason else ""
        self.write_journal(task, "ended", status=task.status, error=error[:MAX_MESSAGE])
        self._on_task_ended(task)
        task.kept = task.outputs.size if task.outputs is not None else 0
        self._kept_bytes += task.kept
        self._ended += 1
        if self._kept_bytes > MAX_KEPT_BYTES:
            for other in self._tasks.values():
                if self._kept_bytes <= MAX_KEPT_BYTES:
                    break
                if other is not task and other.is_ended and other.outputs is not None:
                    self._drop_outputs(other)
        # The oldest is found at once: those that have not ended are few, and the newest.
        while self._ended > MAX_ENDED:
            oldest = next(other for other in self._tasks.values() if other.is_ended)
            self._drop_outputs(oldest)
            del self._tasks[oldest.id]
            self._ended -= 1

    def write_journal(self, task: Task, event: str, **more: Any) -> None:
        """A line of the journal."""
        if self._journal is None:
            return
        line = {"taskId": task.id, "event": event, "at": round(self._clock(), 3), **more}
        with suppress(OSError):
            self._journal.append(json.dumps(line, ensure_ascii=True).encode() + b"\n")

    def _drop_outputs(self, task: Task) -> None:
        if task.outputs is not None:
            self._kept_bytes -= task.kept
            task.outputs = None


class TaskSink:
    """A task's outputs, and the wake-up of those who follow it."""

    def __init__(self, task: Task, book: TaskBook) -> None:
        self._task = task
        self._book = book
        self._outputs = task.outputs or Outputs()

    def stream(self, name: str, text: str) -> None:
        self._outputs.stream(name, text)
        self._task.notify_changed()

    def message(self, kind: str, content: dict[str, Any]) -> None:
        shown_by = self._task
        if kind == "update_display_data" and not self._outputs.has_display(content):
            # An earlier task's display, as a notebook has it; a new one where that task's outputs are not kept.
            found = self._book.task_with_display(content)
            kind, shown_by = (kind, found) if found is not None else ("display_data", shown_by)
        outputs = self._outputs if shown_by is self._task else shown_by.outputs
        if outputs is not None:
            outputs.message(kind, content)
        shown_by.notify_changed()

    def end(self, reply: dict[str, Any]) -> None:
        """The reply has come: what it shows is an output, too. A notebook opens a pager for it, or fills a cell."""
        for part in reply.get("payload", []):
            if part.get("source") == "page" and isinstance(part.get("data"), dict):
                self.message("execute_result", {"data": part["data"]})
            elif part.get("source") == "set_next_input" and isinstance(part.get("text"), str):
                note = "[a notebook would have this code in its next cell]\n"
                self.message("execute_result", {"data": {"text/plain": note + part["text"]}})


def add_error(task: Task, name: str, value: str, traceback: list[str] | None = None) -> None:
    """One of the task's outputs, as long as they are kept."""
    if task.outputs is not None:
        task.outputs.error(name, value, traceback or [])

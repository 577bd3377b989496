"""What is known of a task's failure, told where people look: its outputs, its status and the engine's stderr.

Must not decide whether a task has failed.
"""

from __future__ import annotations

from typing import Any

from linkis_ecm.agent.formats.escapes import plain
from linkis_ecm.agent.logs.files import LogFiles
from linkis_ecm.agent.tasks import Task, TaskBook, TaskSink

# Of a failure's value in a line of the log.
_LINE_CHARS = 300
# Of a failure in the engine's message.
_JOB_CHARS = 2000
# Characters of a traceback in the log.
_TRACEBACK_CHARS = 256 << 10


class FailureSink(TaskSink):
    """A task's outputs. Each error among them is written to the engine's stderr, too: the outputs end with the engine,
    the log does not."""

    def __init__(self, task: Task, book: TaskBook, logs: LogFiles) -> None:
        super().__init__(task, book)
        self._task = task
        self._logs = logs

    def message(self, kind: str, content: dict[str, Any]) -> None:
        super().message(kind, content)
        if kind == "error":
            self._logs.add_to_stderr(_text_of(content))

    def end(self, reply: dict[str, Any]) -> None:
        """The kernel has replied. A reply that says error without such an output makes one.

        IPython has none for a group of exceptions and for a magic that is used wrongly: it prints them.
        """
        super().end(reply)
        if reply.get("status") == "ok" or self._task.exit_code == 0 or self._task.outputs is None:
            return
        name, value = str(reply.get("ename") or ""), str(reply.get("evalue") or "")
        if not name or (name, value) == ("NoneType", "None"):
            # The kernel does not say why. An output may have, or the task's own end does.
            name, value = "Failed", "the kernel gave no reason: see the task's outputs and the engine's stderr"
            if self._task.interrupted or self._task.timed_out or self._task.outputs.last_error() is not None:
                return
        elif (last := self._task.outputs.last_error()) is not None and last["name"] == name:
            return
        content = {"ename": name, "evalue": value, "traceback": reply.get("traceback") or []}
        super().message("error", content)
        if plain(value) not in self._logs.stderr_tail():
            self._logs.add_to_stderr(_text_of(content))


def in_one_line(task: Task) -> str:
    """Why the task has failed, for a line of the log; "" where there is nothing to say."""
    if not task.reason:
        return ""
    words = " ".join(task.message.split())[:_LINE_CHARS]
    return f": {task.reason}: {words}" if words else f": {task.reason}"


def of_a_job(result: dict[str, Any], code: int | None) -> str:
    """Why the job with this result has failed; `code` is what its code said its exit code is."""
    error: dict[str, Any] = next((part for part in reversed(result["outputs"]) if part.get("type") == "error"), {})
    name, value = error.get("name", result["status"]), error.get("value", "")
    return (f"{name}: {value}" if value else str(name))[:_JOB_CHARS] + (f" (exit code {code})" if code else "")


def failed(result: dict[str, Any], reason: str, message: str) -> dict[str, Any]:
    """The result of a job whose engine has failed for this reason: its outputs stay, and it has not succeeded."""
    if result["status"] != "Succeed":
        return result
    return result | {"status": "Failed", "reason": reason, "message": message}


def _text_of(content: dict[str, Any]) -> str:
    """A traceback as a console shows it; its last line names the error."""
    name, value = str(content.get("ename", "")), plain(str(content.get("evalue", "")))
    lines = content.get("traceback")
    text = plain("\n".join(map(str, lines)) if isinstance(lines, list) else "")[-_TRACEBACK_CHARS:].rstrip("\n")
    if text.rpartition("\n")[2].startswith(name):
        return text
    return f"{text}\n{name}: {value}".lstrip("\n") if value else f"{text}\n{name}".lstrip("\n")

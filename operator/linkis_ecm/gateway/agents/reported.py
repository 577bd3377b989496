"""Reads what agents answer: a status report, a task, a list of tasks. Each value has its type and a bound afterwards.

An agent runs in its user's pod, so it can answer anything. What is not as docs/design/interfaces.md says becomes the
value for nothing (0, "", None) or is left out; none of these functions raises. All of the gateway's other code reads an
agent's answer through them. Pure. Must not decide what an answer means.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

# The statuses that an agent may report. Only the gateway decides that a task is Lost.
REPORTED_STATUSES = frozenset({"Accepted", "Scheduled", "Running", "Succeed", "Failed", "Cancelled", "Timeout"})
# Unix seconds: the year 5138. Later times fit neither the journal's column nor, with a timeout added, a datetime.
MAX_TIMESTAMP = 1e11
# The largest whole number that every reader of JSON keeps exactly.
MAX_NUMBER = 1 << 53
# A job's result has 6 levels.
MAX_LEVELS = 64
# Characters: of names and ids; of words for people, as in the operator's reader of reports (engine/agent_report.py).
_NAME_CHARS, _WORDS_CHARS = 128, 8000
# Entries of an object of figures, and tasks of one list: an agent remembers fewer.
_ENTRIES, _TASKS = 64, 1000
_REPORT_TIMES = ("since", "lastTaskEnded", "lastActivity", "lastBackground")
_TASK_TIMES = ("acceptedAt", "startedAt", "endedAt")


def status_report(body: Mapping[str, Any]) -> dict[str, Any]:
    """The report of `/v1/status`: its times, figures and words; of other fields the plain ones."""
    plain = {str(name)[:_NAME_CHARS]: _plain(value) for name, value in list(body.items())[:_ENTRIES]}
    report: dict[str, Any] = {name: value for name, value in plain.items() if value is not None}
    report |= {name: moment(body.get(name)) for name in _REPORT_TIMES if name in body}
    report |= {"timings": {name: moment(value) for name, value in figures(body.get("timings")).items()}}
    report |= {"usage": figures(body.get("usage")), "metrics": figures(body.get("metrics"))}
    running = body.get("task")
    report["task"] = None
    if isinstance(running, Mapping):
        report["task"] = {
            "id": text(running.get("id"), _NAME_CHARS),
            "started": moment(running.get("started")),
            "code": text(running.get("code"), _WORDS_CHARS),
        }
    return report


def task(body: Mapping[str, Any]) -> dict[str, Any]:
    """A task of `/v1/tasks/<id>`. `status` is missing where the agent names none that it may report."""
    count = body.get("executionCount")
    found: dict[str, Any] = {
        "taskId": text(body.get("taskId"), _NAME_CHARS),
        "executionCount": whole(count) if number(count) is not None else None,
        **{name: moment(body.get(name)) for name in _TASK_TIMES},
        "progress": min(1.0, float(number(body.get("progress")) or 0.0)),
        "progressMessage": text(body.get("progressMessage"), _WORDS_CHARS),
    }
    words = {"reason": _WORDS_CHARS, "message": _WORDS_CHARS, "firstLine": _NAME_CHARS}
    found |= {name: text(body[name], most) for name, most in words.items() if name in body}
    status = body.get("status")
    if isinstance(status, str) and status in REPORTED_STATUSES:
        found["status"] = status
    return found


def tasks(value: Any) -> list[dict[str, Any]]:
    """The list of `/v1/tasks`; entries without an id are left out."""
    if not isinstance(value, list):
        return []
    found = [task(entry) for entry in value[:_TASKS] if isinstance(entry, Mapping)]
    return [entry for entry in found if entry["taskId"]]


def is_shallow(value: Any) -> bool:
    """Whether JSON has at most MAX_LEVELS of objects and lists in each other. What can be read may be too deep to be
    written: orjson reads 1024 levels and writes 254, pydantic fewer."""
    level = [value]
    for _ in range(MAX_LEVELS + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return True
    return False


def number(value: Any) -> int | float | None:
    """A number from 0 to MAX_NUMBER; None for anything else."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return value if usable and 0 <= value <= MAX_NUMBER else None


def whole(value: Any) -> int:
    """A whole number from 0 to MAX_NUMBER; 0 for anything else."""
    return int(number(value) or 0)


def moment(value: Any) -> float:
    """A time in Unix seconds; 0 for anything else: it has not happened."""
    found = number(value)
    return float(found) if found is not None and found < MAX_TIMESTAMP else 0.0


def text(value: Any, limit: int) -> str:
    """A text of at most `limit` characters; "" for anything else."""
    return value[:limit] if isinstance(value, str) else ""


def figures(value: Any) -> dict[str, int | float]:
    """The numbers of an object."""
    if not isinstance(value, Mapping):
        return {}
    found = {str(name)[:_NAME_CHARS]: number(entry) for name, entry in list(value.items())[:_ENTRIES]}
    return {name: entry for name, entry in found.items() if entry is not None}


def _plain(value: Any) -> str | int | float | bool | None:
    """A text, number or boolean; None for anything else."""
    if isinstance(value, str):
        return text(value, _WORDS_CHARS)
    return value if isinstance(value, bool) else number(value)

"""The paths of the agent's API (docs/design/interfaces.md, "Gateway → agent") and the headers of its answers. Pure.

The agent's own routes are in `agent.http.routes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

STATUS = "/v1/status"
IDENTITY = "/v1/identity"
STOP = "/v1/stop"
CLAIM = "/v1/claim"
EXECUTE = "/v1/execute"
# Of an engine that several users have, one after another: the agent makes a new kernel at each change of user.
EXECUTE_SHARED = "/v1/execute/shared"
INTERRUPT = "/v1/interrupt"
RESTART = "/v1/restart"
TASKS = "/v1/tasks"

# Bytes of the whole file. Decimal.
LOG_SIZE = "X-Log-Size"
# Which file it is: the same text for as long as bytes that were read stay as they were.
LOG_FILE = "X-Log-File"
# The first byte of a followed log. Decimal.
LOG_OFFSET = "X-Log-Offset"


def identity(challenge: str) -> str:
    """The agent's proof that it has its key, for a challenge of 32 hexadecimal digits."""
    return f"{IDENTITY}?challenge={challenge}"


def task(task_id: str) -> str:
    return f"{TASKS}/{_part(task_id)}"


def cancel(task_id: str) -> str:
    return f"{task(task_id)}/cancel"


def result(task_id: str) -> str:
    """A task's result with its outputs."""
    return f"{task(task_id)}/result"


def events(task_id: str, cursor: str, until: str = "") -> str:
    """The events of a task behind the one whose id is `cursor`, all of them if it is empty; up to the one whose id is
    `until`, if the task still runs."""
    return f"{task(task_id)}/events" + _query({"from": cursor or None, "until": until or None})


def output(task_id: str, index: int | None) -> str:
    """One output of a task, counted from 0; None: the first table, or else the first output."""
    return f"{task(task_id)}/outputs/{'first' if index is None else index}"


def log(name: str, *, offset: int | None = None, length: int | None = None) -> str:
    """A log's bytes."""
    return f"/v1/logs/{_part(name)}" + _query({"offset": offset, "length": length})


def log_lines(name: str, parameters: Mapping[str, int | str | None]) -> str:
    """A page of a log's lines."""
    return f"/v1/logs/{_part(name)}/lines" + _query(parameters)


def log_follow(name: str, *, offset: int | None, tail: int) -> str:
    """A log from `offset` on, or its last `tail` bytes, and what is written later."""
    return f"/v1/logs/{_part(name)}/follow" + _query({"tail": tail} if offset is None else {"offset": offset})


def result_file(result_id: str, *, offset: int | None = None, length: int) -> str:
    """Bytes of a result that is kept as a file."""
    return f"/v1/results/{_part(result_id)}" + _query({"offset": offset, "length": length})


def _part(text: str) -> str:
    return quote(text, safe="")


def _query(parameters: Mapping[str, int | str | None]) -> str:
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""

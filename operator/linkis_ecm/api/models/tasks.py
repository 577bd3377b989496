"""Requests and answers about code: run, followed, its results read, its tasks listed. Must not have behaviour."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from linkis_ecm.api.models.base import MAX_PAGE_SIZE, EngineId, IdempotencyKey, Lock, Request, Response, RunType, TaskId
from linkis_ecm.model import formats


class ExecuteRequest(Request):
    """executeCode. `timeoutSeconds` bounds the run; the task is interrupted then and ends as Timeout."""

    engine_id: EngineId
    code: str
    run_type: RunType
    timeout_seconds: int | None = Field(None, ge=1, le=86400)
    wait: bool = Field(True, description="Answer with the result when it has ended, not with the task at once.")
    idempotency_key: IdempotencyKey | None = Field(
        None, description="The same key on the same engine is the same task: sent again, nothing runs twice."
    )
    lock: Lock | None = Field(
        None, description="The lock of askEngineConn's answer: the code is refused where it is not valid any more."
    )
    force: bool = Field(
        False,
        description="In an engine that is lent: its owner's or an admin's code ends the kernel and the tasks of who"
        " has it now. Others may not send it.",
    )


class ExecuteAnswer(Response):
    """The task's result as the engine's agent gave it (docs/design/interfaces.md); passed through, not rebuilt."""

    task_id: str
    status: Literal["Succeed", "Failed", "Cancelled", "Timeout"]
    reason: str = Field("", description="The name of the error that it ended with, and in `message` its value.")
    message: str = ""
    execution_count: int | None
    accepted_at: float
    started_at: float
    ended_at: float
    progress: float
    progress_message: str
    outputs: list[dict[str, Any]]


class TaskRequest(Request):
    """One task of an engine, by its id or by the key that it was sent with."""

    engine_id: EngineId
    task_id: TaskId | None = None
    idempotency_key: IdempotencyKey | None = None


class TaskEventsRequest(TaskRequest):
    """taskEvents; `lastEventId`, or the header Last-Event-ID, is where an earlier stream ended."""

    last_event_id: Annotated[str, StringConstraints(pattern=formats.EVENT_ID_PATTERN)] | None = None


class ResultSetRequest(TaskRequest):
    """getResultSet: one output of an ended task. `json` is a page of rows, `arrow` an Arrow IPC stream, `dolphin`
    Linkis's result set; the last two are all that is kept unless `fromRow` or `rows` is given."""

    output: int | None = Field(
        None, ge=0, le=1_000_000, description="Its place in the task's outputs; else the first table, else the first."
    )
    format: Literal["json", "arrow", "dolphin"] = "json"
    from_row: int | None = Field(None, ge=1, le=1 << 53, description="Counted from 1.")
    rows: int | None = Field(None, ge=1, le=1 << 53, description="json: 1000 where absent, at most 5000.")
    from_column: int | None = Field(None, ge=1, le=1 << 31, description="json: counted from 1.")
    columns: int | None = Field(None, ge=1, le=1 << 31, description="json: so many columns; all where absent.")


class ResultSetAnswer(Response):
    """A page: `rows` of the `columns` from `fromColumn` to `endColumn` out of `totalColumns`. `endRow` + 1 is where the
    next begins; a page ends early at 500,000 cells or 8 MiB of text. The table has `totalRows`
    rows (null where nobody has counted), of which the first `resultRows` are kept; `truncated`: rows, columns or parts
    of cells are not. An output that is no table is in `content`."""

    task_id: str
    output: int
    outputs: int
    type: Literal["text", "table", "picture", "html", "error"]
    columns: list[dict[str, str]]
    rows: list[list[Any]]
    from_row: int
    end_row: int
    total_rows: int | None
    result_rows: int | None = None
    from_column: int
    end_column: int
    total_columns: int
    truncated: bool
    content: dict[str, Any] | None


class ListTasksRequest(Request):
    """listTasks: the newest first."""

    engine_id: EngineId
    page_size: int = Field(100, ge=1, le=MAX_PAGE_SIZE)


class TaskInfo(Response):
    """A request to run code, and what became of it. Times are Unix seconds, 0 where it has not happened."""

    task_id: str
    engine_id: str
    status: Literal["Accepted", "Scheduled", "Running", "Succeed", "Failed", "Cancelled", "Timeout", "Lost"]
    final: bool
    reason: str = ""
    message: str = ""
    progress: float = 0.0
    progress_message: str = ""
    execution_count: int | None = None
    accepted_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    run_type: str = ""
    caller: str = ""
    attempt: int = 0
    first_line: str = Field(
        "", description="Of its code, as long as its agent knows it, and 120 characters of it at most."
    )


class TasksAnswer(Response):
    """listTasks."""

    tasks: list[TaskInfo]

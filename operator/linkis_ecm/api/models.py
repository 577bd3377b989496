"""Requests and answers of the methods as pydantic models: the source of validation and of the OpenAPI document.

Requests refuse unknown fields. The rules of an engine's fields are those of `model.engineconn`, so a request that
passes here passes the API server too. Docstrings and descriptions are published in the OpenAPI document. Must not have
behaviour.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator
from pydantic.alias_generators import to_camel

from linkis_ecm.agent.formats.names import LOG_NAMES
from linkis_ecm.model import formats
from linkis_ecm.model.amounts import CpuAmount, MemoryAmount
from linkis_ecm.model.engineconn import (
    CreatorName,
    Duration,
    EngineTypeName,
    EngineVersion,
    EnvName,
    ObjectName,
    TicketId,
    UserName,
)
from linkis_ecm.model.extended import Extended

# Linkis's own limit: "Cannot fetch more than 5000 lines of logs"; and entries of a page.
MAX_LINES, MAX_PAGE_SIZE = 5000, 500
# Rows of a table in one page of JSON: the default and the most.
RESULT_ROWS, RESULT_ROWS_MAX = 1000, 5000
# Seconds that createEngineConnection waits: the default, which is Linkis's and what its clients wait for, and the most.
CREATE_SECONDS, CREATE_SECONDS_MAX = 40, 600

# An engine by ticket id, service instance (host:port) or namespace/name.
EngineId = Annotated[str, StringConstraints(min_length=1, max_length=256)]
RunType = Annotated[str, StringConstraints(pattern=formats.WRITTEN_RUN_TYPE_PATTERN, max_length=30, to_lower=True)]
# Kubernetes's own form of a label, without a prefix: prefixes are reserved for Kubernetes and linkis-ecm.
LABEL_NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$"
LabelName = Annotated[str, StringConstraints(pattern=LABEL_NAME_PATTERN)]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN)]
# The gateway generates task ids (UUIDs), or derives them from a key; `job` is the task of a `once` engine.
TaskId = Annotated[str, StringConstraints(pattern=formats.TASK_ID_PATTERN)]
IdempotencyKey = Annotated[str, StringConstraints(min_length=1, max_length=128)]
MAX_KEYWORDS = 1000
Keywords = Annotated[str, StringConstraints(max_length=MAX_KEYWORDS)]
EnvValue = Annotated[str, StringConstraints(max_length=4096)]


def _is_text(value: Any) -> bool:
    """Whether each text in the value, at any depth, can be written as UTF-8."""
    if isinstance(value, str):
        try:
            return value.isascii() or bool(value.encode())
        except UnicodeEncodeError:
            return False
    if isinstance(value, dict):
        return all(_is_text(name) and _is_text(entry) for name, entry in value.items())
    return all(map(_is_text, value)) if isinstance(value, list | tuple | set | frozenset) else True


class Request(BaseModel):
    """camelCase on the wire; unknown fields are refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    @field_validator("*", mode="after")
    @classmethod
    def _no_lone_surrogates(cls, value: Any) -> Any:
        # JSON over HTTP cannot bring one; another transport, or the client's caller, can. Neither the agent nor the
        # database takes it, and the refusal must come before anything was written.
        if not _is_text(value):
            raise ValueError("write text that has no lone surrogates (half of a pair of UTF-16)")
        return value


class Response(BaseModel):
    """camelCase on the wire."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


# -- createEngineConnection ----------------------------------------------------------------------------------------


class ResourceRequest(Request):
    """What the engine gets; the catalogue's default where absent."""

    cpu: CpuAmount | None = None
    cpu_limit: CpuAmount | None = None
    memory: MemoryAmount | None = None
    extended: Extended | None = Field(None, description="GPUs and the like, as the catalogue offers them.")


class CreateEngineRequest(Request):
    """createEngineConnection: an engine, made at once or, with a ticketId seen before, the one made then."""

    engine_type: EngineTypeName
    engine_version: EngineVersion | None = None
    user: UserName | None = Field(None, description="The caller where absent; only admins may name another.")
    creator: CreatorName = "IDE"
    mode: Literal["computation", "once"] = Field("computation", description="A session, or one job that ends.")
    code: str | None = Field(None, max_length=524288, description="The job of a `once` engine.")
    run_type: RunType | None = Field(None, description="The language of `code`.")
    resources: ResourceRequest | None = None
    env: dict[EnvName, EnvValue] | None = Field(None, max_length=64)
    idle_timeout: Duration | None = None
    start_timeout: Duration | None = None
    max_lifetime: Duration | None = None
    ttl_after_finished: Duration | None = None
    name: ObjectName | None = None
    namespace: ObjectName | None = None
    labels: dict[LabelName, LabelValue] | None = Field(None, max_length=16, description="Labels of the EngineConn.")
    wait: bool = Field(
        True, description="Answer when the engine is ready (a `once` engine: its job runs) or has failed, not at once."
    )
    timeout_seconds: int = Field(CREATE_SECONDS, ge=1, le=CREATE_SECONDS_MAX, description="How long to wait.")
    ticket_id: TicketId | None = Field(None, description="Yours, to repeat the call without making a second engine.")


class EngineInfo(Response):
    """An engine as the gateway tells of it; createEngineConnection's and getEngineStatus's answer."""

    engine_id: str
    ticket_id: str
    namespace: str | None
    name: str | None
    engine_type: str
    engine_version: str
    user: str
    creator: str
    label_value: str
    status: str = Field(description="The engine's state in Linkis's words.")
    status_since: str | None = None
    available: bool = Field(description="It takes its owner's code, also while it is claimed.")
    claimed: bool = Field(False, description="askEngineConn has given it to a caller, and gives it to nobody else.")
    claimed_by: str | None = Field(None, description="The claim's id: `lock` of askEngineConn's answer.")
    claimed_until: str | None = Field(
        None, description="When the claim ends by itself; a process's ends by the command unlock alone."
    )
    reason: str = ""
    message: str = ""
    remedy: str = ""
    can_retry: bool = False
    stop_requested: bool = False
    service_instance: str
    ecm_instance: str
    log_dir_suffix: str
    pod_name: str | None = None
    node_name: str | None = None
    attempt: int = 0
    create_time: str | None = None
    ready_time: str | None = None
    finished_time: str | None = None
    next_cull_at: str | None = None
    cull_blocked_by: str | None = None
    startup: dict[str, str] = Field(default_factory=dict, description="When each phase of the start was reached.")
    startup_millis: dict[str, int] = Field(default_factory=dict, description="The same, counted from `accepted`.")


# -- executeCode -----------------------------------------------------------------------------------------------------


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
    Linkis's result set; the last two are whole unless `fromRow` or `rows` is given."""

    output: int | None = Field(
        None, ge=0, le=1_000_000, description="Its place in the task's outputs; else the first table, else the first."
    )
    format: Literal["json", "arrow", "dolphin"] = "json"
    from_row: int | None = Field(None, ge=1, le=1 << 53, description="Counted from 1.")
    rows: int | None = Field(None, ge=1, le=1 << 53, description="json: 1000 where absent, at most 5000.")


class ResultSetAnswer(Response):
    """A page. `endRow` + 1 is where the next begins; a page of wide rows may end early. `truncated`: the table has more
    than the `totalRows` that are kept. An output that is no table is in `content`."""

    task_id: str
    output: int
    outputs: int
    type: Literal["text", "table", "picture", "html", "error"]
    columns: list[dict[str, str]]
    rows: list[list[Any]]
    from_row: int
    end_row: int
    total_rows: int | None
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


class TasksAnswer(Response):
    """listTasks."""

    tasks: list[TaskInfo]


# -- getEngineStatus, terminateEngine, listEngines ---------------------------------------------------------------------


class EngineRequest(Request):
    """One engine, by one of its ids."""

    engine_id: EngineId


class TerminateAnswer(Response):
    """The engine as it was when the stop was asked for; null where nobody knows it."""

    engine: EngineInfo | None


class ListEnginesRequest(Request):
    """listEngines: newest first. Admins see everybody's, others their own."""

    status: str | None = None
    engine_type: EngineTypeName | None = None
    user: UserName | None = None
    page_now: int = Field(1, ge=1, le=1_000_000)
    page_size: int = Field(100, ge=1, le=MAX_PAGE_SIZE)


class EnginesAnswer(Response):
    """One page; `total` counts all that match."""

    engines: list[EngineInfo]
    total: int
    page_now: int
    page_size: int


# -- getEngineLogs ---------------------------------------------------------------------------------------------------


class EngineLogsRequest(Request):
    """getEngineLogs: `lines` lines from the 1-based `fromLine`, or the last `lastRows`, of the log that passes the
    keywords. With `enableTail`, `fromLine` counts from the end: page 1 is the newest."""

    engine_id: EngineId
    log_type: str = Field("stdout", description=f"{', '.join(LOG_NAMES[:-1])} or {LOG_NAMES[-1]}.")
    from_line: int = Field(1, ge=0, le=1 << 53)
    lines: int = Field(1000, ge=1, description="At most 5000.")
    last_rows: int = Field(0, ge=0, description="At most 5000; 0: by fromLine and lines.")
    enable_tail: bool = False
    only_keywords: Keywords = Field("", description="Words with commas between them: lines with one of them.")
    ignore_keywords: Keywords = Field("", description="Words with commas between them: lines with none of them.")


class FollowLogRequest(Request):
    """followEngineLog: from `fromByte`, or the last `tailBytes`, on."""

    engine_id: EngineId
    log_type: str = "stdout"
    from_byte: int | None = Field(None, ge=0, le=1 << 53)
    tail_bytes: int = Field(4096, ge=0, le=1 << 30)


class EngineLogsAnswer(Response):
    """As Linkis's log operator: `endLine` + 1 is where the next page begins; logPath's folder is the logDirSuffix."""

    log_path: str
    logs: list[str]
    end_line: int
    rows: int


# -- explainEngine, previewCull, getPostMortem: ours, beyond the eleven ------------------------------------------------


class Deadline(Response):
    """Something that will happen unless something else does."""

    name: str
    at: str
    in_seconds: float
    what: str


class ExplainAnswer(Response):
    """Why the engine is as it is, and what it waits for."""

    engine: EngineInfo
    summary: str
    deadlines: list[Deadline] = Field(default_factory=list)
    cull_blocked_by: str | None = None
    restart_policy: str | None = None
    attempts_allowed: int | None = None
    last_end: dict[str, Any] | None = None
    conditions: list[dict[str, Any]] = Field(default_factory=list)
    agent_answered: bool = Field(False, description="The agent itself answered to this question.")
    execution: dict[str, Any] | None = None
    usage: dict[str, int | float] = Field(default_factory=dict)


class PreviewCullRequest(Request):
    """previewCull: the caller's engines, an admin's all."""

    within_seconds: int = Field(3600, ge=0, le=30 * 86400)


class CullCandidate(Response):
    """One engine of a preview."""

    engine_id: str
    namespace: str
    name: str
    user: str
    status: str
    culled: bool
    at: str | None
    blocked_by: str | None


class PreviewCullAnswer(Response):
    """`culled` end within the time asked for if nothing happens; `kept` do not, and say why."""

    culled: list[CullCandidate]
    kept: list[CullCandidate]
    looked_at: int
    total: int


class PostMortemAnswer(Response):
    """What is left of an engine; its log files are read by getEngineLogs and downloadEngineLog as ever."""

    engine: EngineInfo
    attempts: list[int]
    attempt: int
    files: dict[str, int]
    missing: list[str]
    bundle: dict[str, Any]
    result: Any = None


# -- getEngineMetrics, getResourceUsage, updateResource, reportResourceUsage, sendEngineCommand ------------------------


class EngineMetricsAnswer(Response):
    """getEngineMetrics: Linkis's metrics of an engine, as in the record's `metrics`, and its tasks."""

    engine_id: str
    ticket_id: str
    status: str
    live: bool = Field(description="The engine's agent itself answered; else it is what the database kept.")
    total_unlock_time_mills: int = 0
    total_idle_time_mills: int = 0
    total_busy_time_mills: int = 0
    total_lock_time_mills: int = 0
    tasks_started: int = 0
    tasks_succeeded: int = 0
    tasks_failed: int = 0
    last_task_ended: float = 0.0
    startup_millis: dict[str, int] = Field(default_factory=dict)
    kept: dict[str, Any] = Field(default_factory=dict, description="The record's `metrics` of an ended engine.")


class Resources(Response):
    """Kubernetes quantities; null where there is none."""

    cpu: str | None = None
    cpu_limit: str | None = None
    memory: str | None = None
    extended: dict[str, int] | None = None


class Usage(Response):
    """What an engine uses. `source`: agent (measured now), operator (its last report), reported (by the engine)."""

    memory_bytes: int = 0
    memory_peak_bytes: int = 0
    cpu_seconds: float = 0.0
    source: str = ""
    at: float = 0.0


class ResourceUsageAnswer(Response):
    """getResourceUsage: what was asked for, and what is used."""

    engine_id: str
    requested: Resources
    used: Usage | None = None


class UpdateResourceRequest(Request):
    """updateResource: the new figures; absent ones stay."""

    engine_id: EngineId
    resources: ResourceRequest


class UpdateResourceAnswer(Response):
    """updateResource: the engine's resources as they are in its pod now."""

    engine_id: str
    before: Resources
    after: Resources


class ReportResourceUsageRequest(Request):
    """reportResourceUsage: what an engine says of itself, with its own token."""

    engine_id: EngineId
    memory_bytes: int = Field(ge=0, le=1 << 60)
    cpu_seconds: float = Field(ge=0, le=1e12)


class EngineCommandRequest(Request):
    """sendEngineCommand. `interrupt` ends the running task as Cancelled; `restartKernel` gives the engine a new kernel
    with nothing of its memory; `status` is the agent's own word; `unlock` gives an engine of askEngineConn back, by
    the parameter `lock` of its answer, or without it whoever holds it. Linkis's operators: engineConnProgress,
    engineConnMetrics, engineConnDiagnosis, engineConnLog. A parameter that a command does not read is refused."""

    engine_id: EngineId
    command: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    parameters: dict[str, Any] = Field(default_factory=dict, max_length=32)


class EngineCommandAnswer(Response):
    """sendEngineCommand, as Linkis's operators answer."""

    result: dict[str, Any]
    error_msg: str = ""
    is_error: bool = False


class NoAnswer(Response):
    """Nothing but the Message itself."""

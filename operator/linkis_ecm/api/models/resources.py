"""Requests and answers about an engine's resources, figures and commands. Must not have behaviour."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from linkis_ecm.api.models.base import EngineId, Request, Response
from linkis_ecm.api.models.engines import ResourceRequest


class EngineMetricsAnswer(Response):
    """getEngineMetrics: Linkis's metrics of an engine, as in the record's `metrics`, and its tasks. null where nobody
    knows a figure: of an ended engine its tasks' numbers, and what its record lacks."""

    engine_id: str
    ticket_id: str
    status: str
    live: bool = Field(description="The engine's agent itself answered; else it is what the database kept.")
    total_unlock_time_mills: int | None = 0
    total_idle_time_mills: int | None = 0
    total_busy_time_mills: int | None = 0
    total_lock_time_mills: int | None = 0
    tasks_started: int | None = 0
    tasks_succeeded: int | None = 0
    tasks_failed: int | None = 0
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
    """What an engine uses; null where nobody knows a figure. `source`: agent (measured now), operator (its last
    report), reported (by the engine)."""

    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    cpu_seconds: float | None = None
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
    with nothing of its memory; `status` is the agent's own word; `lock` keeps the engine from askers until no task has
    run for `timeout` milliseconds (lockType Timed, 3 minutes) or until it is given back (lockType Always), and answers
    with lockStatus, lock and msg; `unlock` gives an engine back, by the parameter `lock` of that answer or of
    askEngineConn's, or without it whoever holds it. Linkis's operators: engineConnProgress, engineConnMetrics,
    engineConnDiagnosis, engineConnLog. A parameter that a command does not read is refused."""

    engine_id: EngineId
    command: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    parameters: dict[str, Any] = Field(default_factory=dict, max_length=32)


class EngineCommandAnswer(Response):
    """sendEngineCommand, as Linkis's operators answer."""

    result: dict[str, Any]
    error_msg: str = ""
    is_error: bool = False

"""Every method of the REST in one table: where it is, what it takes, what it answers, and the function that does it.

Routes, validation, metrics and, later, OpenAPI come from this table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from linkis_ecm.gateway import models
from linkis_ecm.gateway.commands import send_engine_command
from linkis_ecm.gateway.context import Answer, Call
from linkis_ecm.gateway.create import create_engine_connection
from linkis_ecm.gateway.enginelogs import download_engine_log, follow_engine_log, get_engine_logs
from linkis_ecm.gateway.engines import get_engine_status, list_engines, terminate_engine
from linkis_ecm.gateway.envelope import PREFIX
from linkis_ecm.gateway.explain import explain_engine, get_post_mortem, preview_cull
from linkis_ecm.gateway.tasks import cancel_task, execute_code, get_task, get_task_result, list_tasks, task_events
from linkis_ecm.gateway.usage import get_engine_metrics, get_resource_usage, report_resource_usage, update_resource

BASE = f"{PREFIX}/engineconnManager"

Handler = Callable[[Call, Any], Awaitable[Answer | web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method. `handler` takes the call and what it asks for: the request model, or None where there is none."""

    name: str
    verb: str
    request: type[BaseModel] | None
    response: type[BaseModel] | None
    handler: Handler
    # None: the method bounds its own time, by what the caller asks for.
    seconds: float | None = 30.0
    # Called by an engine with its own token, which the handler checks; everything else is a user's.
    by_engine: bool = False

    @property
    def path(self) -> str:
        return f"{BASE}/{self.name}"


METHODS: tuple[Method, ...] = (
    Method(
        name="createEngineConnection",
        verb="POST",
        request=models.CreateEngineRequest,
        response=models.EngineInfo,
        handler=create_engine_connection,
        # Over the longest wait that can be asked for.
        seconds=models.CREATE_SECONDS_MAX + 30.0,
    ),
    Method(
        name="executeCode",
        verb="POST",
        request=models.ExecuteRequest,
        response=models.ExecuteAnswer,
        handler=execute_code,
        seconds=None,
    ),
    Method(
        name="getEngineStatus",
        verb="GET",
        request=models.EngineRequest,
        response=models.EngineInfo,
        handler=get_engine_status,
    ),
    Method(
        name="terminateEngine",
        verb="POST",
        request=models.EngineRequest,
        response=models.TerminateAnswer,
        handler=terminate_engine,
    ),
    Method(
        name="listEngines",
        verb="GET",
        request=models.ListEnginesRequest,
        response=models.EnginesAnswer,
        handler=list_engines,
    ),
    Method(
        name="getEngineLogs",
        verb="GET",
        request=models.EngineLogsRequest,
        response=models.EngineLogsAnswer,
        handler=get_engine_logs,
        seconds=60.0,
    ),
    Method(
        name="downloadEngineLog",
        verb="GET",
        request=None,
        response=None,
        handler=download_engine_log,
        seconds=None,
    ),
    Method(
        name="explainEngine",
        verb="GET",
        request=models.EngineRequest,
        response=models.ExplainAnswer,
        handler=explain_engine,
    ),
    Method(
        name="previewCull",
        verb="GET",
        request=models.PreviewCullRequest,
        response=models.PreviewCullAnswer,
        handler=preview_cull,
        seconds=60.0,
    ),
    Method(
        name="getPostMortem",
        verb="GET",
        request=models.EngineRequest,
        response=models.PostMortemAnswer,
        handler=get_post_mortem,
    ),
    Method(
        name="followEngineLog",
        verb="GET",
        request=models.FollowLogRequest,
        response=None,
        handler=follow_engine_log,
        seconds=None,
    ),
    Method(name="getTask", verb="GET", request=models.TaskRequest, response=models.TaskInfo, handler=get_task),
    Method(
        name="getTaskResult",
        verb="GET",
        request=models.TaskRequest,
        response=models.ExecuteAnswer,
        handler=get_task_result,
        seconds=None,
    ),
    Method(
        name="listTasks", verb="GET", request=models.ListTasksRequest, response=models.TasksAnswer, handler=list_tasks
    ),
    Method(name="cancelTask", verb="POST", request=models.TaskRequest, response=models.TaskInfo, handler=cancel_task),
    Method(
        name="taskEvents",
        verb="GET",
        request=models.TaskEventsRequest,
        response=None,
        handler=task_events,
        seconds=None,
    ),
    Method(
        name="getEngineMetrics",
        verb="GET",
        request=models.EngineRequest,
        response=models.EngineMetricsAnswer,
        handler=get_engine_metrics,
    ),
    Method(
        name="getResourceUsage",
        verb="GET",
        request=models.EngineRequest,
        response=models.ResourceUsageAnswer,
        handler=get_resource_usage,
    ),
    Method(
        name="updateResource",
        verb="POST",
        request=models.UpdateResourceRequest,
        response=models.UpdateResourceAnswer,
        handler=update_resource,
        seconds=60.0,
    ),
    Method(
        name="reportResourceUsage",
        verb="POST",
        request=models.ReportResourceUsageRequest,
        response=models.NoAnswer,
        handler=report_resource_usage,
        by_engine=True,
    ),
    Method(
        name="sendEngineCommand",
        verb="POST",
        request=models.EngineCommandRequest,
        response=models.EngineCommandAnswer,
        handler=send_engine_command,
        seconds=150.0,
    ),
)

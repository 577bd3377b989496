"""Every method of the REST in one table: where it is, what it takes, what it answers, and the function that does it.

Routes, validation, metrics and OpenAPI come from this table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from linkis_ecm.api import models
from linkis_ecm.api.paths import BASE, PREFIX
from linkis_ecm.gateway.answers import Result
from linkis_ecm.gateway.context import Call
from linkis_ecm.gateway.linkis import ems, engines, operations, records
from linkis_ecm.gateway.linkis import requests as asked
from linkis_ecm.gateway.methods.commands import send_engine_command
from linkis_ecm.gateway.methods.create import create_engine_connection
from linkis_ecm.gateway.methods.engines import get_engine_status, list_engines, terminate_engine
from linkis_ecm.gateway.methods.explain import explain_engine, get_post_mortem, preview_cull
from linkis_ecm.gateway.methods.logs import LogFile, download_engine_log, follow_engine_log, get_engine_logs, log_file
from linkis_ecm.gateway.methods.resources import (
    EngineReport,
    get_engine_metrics,
    get_resource_usage,
    report_resource_usage,
    update_resource,
)
from linkis_ecm.gateway.methods.results import get_result_set
from linkis_ecm.gateway.methods.tasks import (
    cancel_task,
    execute_code,
    get_task,
    get_task_result,
    list_tasks,
    task_events,
)

Handler = Callable[[Call, Any], Awaitable[Result]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a request gives besides its model, as plain mappings; `query` has each value of each parameter."""

    path: Mapping[str, str]
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]


def _log_file(_: None, given: Given) -> LogFile:
    return log_file(given.query)


def _events(request: models.TaskEventsRequest, given: Given) -> models.TaskEventsRequest:
    """Browsers repeat the id of the last event in a header (the HTML standard, server-sent events)."""
    return request.model_copy(update={"last_event_id": request.last_event_id or given.headers.get("Last-Event-ID")})


def _report(request: models.ReportResourceUsageRequest, given: Given) -> EngineReport:
    scheme, _, token = given.headers.get("Authorization", "").partition(" ")
    return EngineReport(token if scheme == "Bearer" else "", request)


def _ticket(_: asked.Nothing, given: Given) -> str:
    return given.path["ticketid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method. `handler` takes the call and what it asks for: what `arguments` makes of the request, or else the
    request model, None where there is none."""

    name: str
    verb: str
    request: type[BaseModel] | None
    response: type[BaseModel] | None
    handler: Handler
    # None: the method bounds its own time, by what the caller asks for.
    seconds: float | None = 30.0
    # Called by an engine with its own token, which the handler checks; everything else is a user's.
    by_engine: bool = False
    # Served for HEAD too: a file, whose size and tag some clients ask for first.
    head: bool = False
    # For what a model of the query or the body does not hold. Raises Refused.
    arguments: Callable[[Any, Given], Any] | None = None
    # Linkis's own paths; ours are the method's name.
    at: str = ""

    @property
    def path(self) -> str:
        return f"{PREFIX}/{self.at}" if self.at else f"{BASE}/{self.name}"


OURS: tuple[Method, ...] = (
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
        arguments=_log_file,
        seconds=None,
        head=True,
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
        name="getResultSet",
        verb="GET",
        request=models.ResultSetRequest,
        response=models.ResultSetAnswer,
        handler=get_result_set,
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
        arguments=_events,
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
        arguments=_report,
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

# Linkis's own: its console and SDK. Their answers are its shapes, not models (gateway.linkis.shapes).
_Asked = type[BaseModel]
_LINKIS: tuple[tuple[str, str, _Asked, Handler, float], ...] = (
    ("POST", "askEngineConn", asked.AskEngine, engines.ask_engine_conn, 630.0),
    ("POST", "createEngineConn", asked.AskEngine, engines.create_engine_conn, 630.0),
    ("POST", "getEngineConn", asked.Instance, engines.get_engine_conn, 30.0),
    ("POST", "killEngineConn", asked.Instance, engines.kill_engine_conn, 30.0),
    ("POST", "rm/enginekill", asked.Kills, engines.engine_kill, 120.0),
    ("POST", "rm/enginekillAsyn", asked.KillInstances, engines.engine_kill_async, 120.0),
    ("GET", "listUserEngines", asked.Nothing, engines.list_user_engines, 30.0),
    ("POST", "listEMEngines", asked.ListEmEngines, engines.list_em_engines, 30.0),
    ("GET", "listAllEMs", asked.ListEms, ems.list_all_ems, 30.0),
    ("PUT", "modifyEMInfo", asked.ModifyEm, ems.modify_em_info, 30.0),
    ("GET", "listAllNodeHealthyStatus", asked.Names, ems.list_node_healthy_status, 30.0),
    ("GET", "listAllECMHealthyStatus", asked.Names, ems.list_ecm_healthy_status, 30.0),
    ("POST", "openEngineLog", asked.OpenLog, operations.open_engine_log, 60.0),
    ("POST", "executeEngineConnOperation", asked.Operation, operations.execute_engine_conn_operation, 150.0),
    ("POST", "executeECMOperation", asked.Operation, operations.execute_ecm_operation, 60.0),
    ("POST", "executeECMOperationByEC", asked.Operation, operations.execute_ecm_operation_by_ec, 60.0),
    ("GET", "ecinfo/get", asked.Ticket, records.get_record, 30.0),
    ("DELETE", "ecinfo/delete/{ticketid:[^/]+}", asked.Nothing, records.delete_record, 30.0),
    ("GET", "ecinfo/ecrHistoryList", asked.Records, records.list_records, 30.0),
    ("POST", "ecinfo/ecList", asked.EcList, records.ec_list, 30.0),
    ("GET", "rm/engineType", asked.Nothing, records.engine_types, 30.0),
    ("POST", "rm/userresources", asked.Nothing, records.user_resources, 30.0),
)
METHODS: tuple[Method, ...] = (
    *OURS,
    *(
        Method(
            # As metrics and logs call it.
            name=at.partition("/{")[0],
            verb=verb,
            request=request,
            response=None,
            handler=handler,
            arguments=_ticket if handler is records.delete_record else None,
            at=f"linkisManager/{at}",
            seconds=seconds,
        )
        for verb, at, request, handler, seconds in _LINKIS
    ),
)

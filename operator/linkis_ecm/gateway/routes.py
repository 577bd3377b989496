"""The table of all REST methods: path, request model, response model, and the function that handles the call.

Routes, validation, metrics and OpenAPI are made from this table. Must not handle calls itself.
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
from linkis_ecm.gateway.linkis import requests as linkis_requests
from linkis_ecm.gateway.methods.commands import send_engine_command
from linkis_ecm.gateway.methods.console import (
    get_overview,
    list_engine_plugins,
    list_transitions,
    who_am_i,
)
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
from linkis_ecm.gateway.methods.task_events import task_events
from linkis_ecm.gateway.methods.tasks import cancel_task, execute_code, get_task, get_task_result, list_tasks
from linkis_ecm.gateway.methods.watch import watch_engines
from linkis_ecm.gateway.settings import KIB, MIB

Handler = Callable[[Call, Any], Awaitable[Result]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestParts:
    """The parts of an HTTP request besides its model, as plain mappings. `query` has all values of each parameter."""

    path: Mapping[str, str]
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]


def _log_file(_: None, parts: RequestParts) -> LogFile:
    return log_file(parts.query)


def _events(request: models.TaskEventsRequest, parts: RequestParts) -> models.TaskEventsRequest:
    """Browsers repeat the id of the last event in a header (the HTML standard, server-sent events)."""
    return request.model_copy(update={"last_event_id": request.last_event_id or parts.headers.get("Last-Event-ID")})


def _report(request: models.ReportResourceUsageRequest, parts: RequestParts) -> EngineReport:
    scheme, _, token = parts.headers.get("Authorization", "").partition(" ")
    return EngineReport(token if scheme == "Bearer" else "", request)


def _ticket(_: linkis_requests.Nothing, parts: RequestParts) -> str:
    return parts.path["ticketid"]


# Linkis's methods that only read, whatever their verb.
_READING = frozenset(
    f"linkisManager/{at}"
    for at in ("getEngineConn", "listEMEngines", "openEngineLog", "ecinfo/ecList", "rm/userresources")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method. `handler` takes the call and its arguments: the result of `arguments` if that is given, else the
    request model, or None without a model."""

    name: str
    verb: str
    request: type[BaseModel] | None
    response: type[BaseModel] | None
    handler: Handler
    # The time limit. None: the method limits its own time, by the caller's timeout.
    seconds: float | None = 30.0
    # True: called by an engine with its own token, which the handler checks. False: called by a user.
    by_engine: bool = False
    # The longest body, in bytes. No model without code or long lists needs more.
    max_body: int = 64 * KIB
    # Its answer has no end of its own: it is counted apart from calls, and ends when the gateway stops.
    is_stream: bool = False
    # Also served for HEAD: a file, because some clients read its size and tag first.
    head: bool = False
    # Makes the handler's arguments from the model and the other parts of the request. Raises Refused.
    arguments: Callable[[Any, RequestParts], Any] | None = None
    # The path of a Linkis method. Our own methods have their name as the path.
    at: str = ""

    @property
    def changes(self) -> bool:
        """Whether it may change something, or run code: a caller who may only look is refused."""
        return self.verb != "GET" and self.at not in _READING

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
        # More than the longest wait that a caller may request.
        seconds=models.CREATE_SECONDS_MAX + 30.0,
        # The code of a `once` engine.
        max_body=8 * MIB,
    ),
    Method(
        name="executeCode",
        verb="POST",
        request=models.ExecuteRequest,
        response=models.ExecuteAnswer,
        handler=execute_code,
        seconds=None,
        # The agent's own limit.
        max_body=8 * MIB,
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
        is_stream=True,
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
        is_stream=True,
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
        # Three fields.
        max_body=4 * KIB,
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
# What our console needs besides. The Python client has no method for the stream.
CONSOLE: tuple[Method, ...] = (
    Method(name="whoAmI", verb="GET", request=models.NoRequest, response=models.WhoAmIAnswer, handler=who_am_i),
    Method(
        name="watchEngines",
        verb="GET",
        request=models.NoRequest,
        response=None,
        handler=watch_engines,
        seconds=None,
        is_stream=True,
    ),
    Method(
        name="getOverview",
        verb="GET",
        request=models.NoRequest,
        response=models.OverviewAnswer,
        handler=get_overview,
    ),
    Method(
        name="listEnginePlugins",
        verb="GET",
        request=models.NoRequest,
        response=models.PluginsAnswer,
        handler=list_engine_plugins,
    ),
    Method(
        name="listTransitions",
        verb="GET",
        request=models.EngineRequest,
        response=models.TransitionsAnswer,
        handler=list_transitions,
    ),
)

# They take the properties of an engine, or lists of 500 names: these are 128 KiB, and four of them in ecList.
_LONG = frozenset({"askEngineConn", "createEngineConn", "rm/enginekill", "rm/enginekillAsyn", "ecinfo/ecList"})
# Linkis's own methods, for its console and SDK. Their answers are Linkis's shapes, not models (gateway.linkis.shapes).
_RequestModel = type[BaseModel]
_LINKIS: tuple[tuple[str, str, _RequestModel, Handler, float], ...] = (
    ("POST", "askEngineConn", linkis_requests.AskEngine, engines.ask_engine_conn, 630.0),
    ("POST", "createEngineConn", linkis_requests.AskEngine, engines.create_engine_conn, 630.0),
    ("POST", "getEngineConn", linkis_requests.Instance, engines.get_engine_conn, 30.0),
    ("POST", "killEngineConn", linkis_requests.Instance, engines.kill_engine_conn, 30.0),
    ("POST", "rm/enginekill", linkis_requests.Kills, engines.engine_kill, 120.0),
    ("POST", "rm/enginekillAsyn", linkis_requests.KillInstances, engines.engine_kill_async, 120.0),
    ("GET", "listUserEngines", linkis_requests.Nothing, engines.list_user_engines, 30.0),
    ("POST", "listEMEngines", linkis_requests.ListEmEngines, engines.list_em_engines, 30.0),
    ("GET", "listAllEMs", linkis_requests.ListEms, ems.list_all_ems, 30.0),
    ("PUT", "modifyEMInfo", linkis_requests.ModifyEm, ems.modify_em_info, 30.0),
    ("GET", "listAllNodeHealthyStatus", linkis_requests.Names, ems.list_node_healthy_status, 30.0),
    ("GET", "listAllECMHealthyStatus", linkis_requests.Names, ems.list_ecm_healthy_status, 30.0),
    ("POST", "openEngineLog", linkis_requests.OpenLog, operations.open_engine_log, 60.0),
    ("POST", "executeEngineConnOperation", linkis_requests.Operation, operations.execute_engine_conn_operation, 150.0),
    ("POST", "executeECMOperation", linkis_requests.Operation, operations.execute_ecm_operation, 60.0),
    ("POST", "executeECMOperationByEC", linkis_requests.Operation, operations.execute_ecm_operation_by_ec, 60.0),
    ("GET", "ecinfo/get", linkis_requests.Ticket, records.get_record, 30.0),
    ("DELETE", "ecinfo/delete/{ticketid:[^/]+}", linkis_requests.Nothing, records.delete_record, 30.0),
    ("GET", "ecinfo/ecrHistoryList", linkis_requests.Records, records.list_records, 30.0),
    ("POST", "ecinfo/ecList", linkis_requests.EcList, records.ec_list, 30.0),
    ("GET", "rm/engineType", linkis_requests.Nothing, records.engine_types, 30.0),
    ("POST", "rm/userresources", linkis_requests.Nothing, records.user_resources, 30.0),
)
METHODS: tuple[Method, ...] = (
    *OURS,
    *CONSOLE,
    *(
        Method(
            # The name in metrics and logs.
            name=at.partition("/{")[0],
            verb=verb,
            request=request,
            response=None,
            handler=handler,
            arguments=_ticket if handler is records.delete_record else None,
            at=f"linkisManager/{at}",
            max_body=(1 * MIB if at in _LONG else 64 * KIB),
            seconds=seconds,
        )
        for verb, at, request, handler, seconds in _LINKIS
    ),
)

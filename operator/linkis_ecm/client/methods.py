"""The gateway's methods as request plans: names, parameters and defaults of both clients, in one place.

A method is called by its name in Python's form (createEngineConnection is create_engine_connection), its parameters too
(engineId is engine_id). The gateway has defaults for omitted parameters. An engine is named by its engineId (the
ticket), its service instance (host:port) or namespace/name. Must not send or wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from linkis_ecm.api import models
from linkis_ecm.client.request_plan import RequestPlan, set_arguments

# Seconds above a method's own limit in the gateway: for the way there and back, and for waiting for a connection.
ANSWER_MARGIN = 30.0
# The longest run that a gateway allows.
RUN_SECONDS = 86400
Resources = models.ResourceRequest | Mapping[str, str]


def create_engine_connection(
    engine_type: str,
    *,
    engine_version: str | None = None,
    user: str | None = None,
    creator: str | None = None,
    tenant: str | None = None,
    mode: str | None = None,
    code: str | None = None,
    run_type: str | None = None,
    resources: Resources | None = None,
    env: Mapping[str, str] | None = None,
    idle_timeout: str | None = None,
    start_timeout: str | None = None,
    max_lifetime: str | None = None,
    ttl_after_finished: str | None = None,
    name: str | None = None,
    namespace: str | None = None,
    labels: Mapping[str, str] | None = None,
    wait: bool = True,
    timeout_seconds: int | None = None,
    ticket_id: str | None = None,
) -> RequestPlan[models.EngineInfo]:
    """createEngineConnection: an engine, once it is ready (in 40 s, or `timeout_seconds`) or at once (`wait=False`).

    Raises EngineFailed with the reason where it does not become ready. The call has a ticket, yours or one of the
    client's, so that repeating it makes no second engine. `resources` are like {"cpu": "500m", "memory": "1Gi"}. A job
    instead of a session: mode="once" and its `code`.
    """
    fields = set_arguments(
        engine_type=engine_type,
        engine_version=engine_version,
        user=user,
        creator=creator,
        tenant=tenant,
        mode=mode,
        code=code,
        run_type=run_type,
        resources=resources,
        env=env,
        idle_timeout=idle_timeout,
        start_timeout=start_timeout,
        max_lifetime=max_lifetime,
        ttl_after_finished=ttl_after_finished,
        name=name,
        namespace=namespace,
        labels=labels,
        wait=None if wait else False,
        timeout_seconds=timeout_seconds,
        ticket_id=ticket_id,
    )
    held = (timeout_seconds or models.CREATE_SECONDS) if wait else 0
    return RequestPlan(
        method="createEngineConnection",
        verb="POST",
        answer=models.EngineInfo,
        fields=fields,
        seconds=held + 30.0 + ANSWER_MARGIN,
        generated_id_field="" if ticket_id else "ticketId",
    )


def ask_engine_conn(
    engine_type: str,
    *,
    engine_version: str | None = None,
    user: str | None = None,
    creator: str | None = None,
    labels: Mapping[str, Any] | None = None,
    properties: Mapping[str, str | int | float | bool] | None = None,
    timeout_seconds: int | None = None,
    explain: bool | None = None,
) -> RequestPlan[models.AskEngineAnswer]:
    """askEngineConn: a free engine of this type, user and creator, or a new one once it is ready (in 40 s, or
    `timeout_seconds`, of which 1 to 600 count).

    `user` is for admins, and needs `creator`: whoever else asks gets an engine of his own, as with Linkis.

    It is yours for some minutes, and while your tasks run: give `engine.lock` to execute_code, and give it back with
    send_engine_command(engine.ticket_id, "unlock", parameters={"lock": lock}). `labels` and `properties` are Linkis's,
    such as {"linkis.engineconn.memory": "2g"}. With `explain` the answer has why each engine of yours was given out or
    not; a refusal has it in `data`. The call is not repeated: each may give out another engine.
    """
    asked: dict[str, Any] = {"engineType": f"{engine_type}-{engine_version}" if engine_version else engine_type}
    if user:
        asked["userCreator"] = f"{user}-{creator or ''}"
    elif creator:
        asked["userCreator"] = {"creator": creator}
    fields = set_arguments(
        labels={**(labels or {}), **asked},
        properties=properties,
        time_out=timeout_seconds * 1000 if timeout_seconds else None,
        explain=explain,
    )
    return RequestPlan(
        method="askEngineConn",
        verb="POST",
        answer=models.AskEngineAnswer,
        fields=fields,
        repeatable=False,
        seconds=(timeout_seconds or models.CREATE_SECONDS) + 30.0 + ANSWER_MARGIN,
        is_linkis=True,
    )


def execute_code(
    engine_id: str,
    code: str,
    run_type: str = "python",
    *,
    timeout_seconds: int | None = None,
    idempotency_key: str | None = None,
    lock: str | None = None,
    force: bool | None = None,
) -> RequestPlan[models.ExecuteAnswer]:
    """executeCode: run code in the engine and wait for its result, which may be that it Failed.

    `timeout_seconds` bounds the run; it ends as Timeout then. The call has a key, yours or one of the client's, so that
    after a broken connection it joins the task again: nothing runs twice. With the `lock` of an engine that was given
    out (askEngineConn) it is refused where that lock holds no more. With `force` the code of an owner or admin ends the
    session of who has borrowed the engine. submit_code does not wait.
    """
    return RequestPlan(
        method="executeCode",
        verb="POST",
        answer=models.ExecuteAnswer,
        fields=set_arguments(
            engine_id=engine_id,
            code=code,
            run_type=run_type,
            timeout_seconds=timeout_seconds,
            idempotency_key=idempotency_key,
            lock=lock,
            force=force,
        ),
        # Earlier tasks may take their time: the gateway answers 504 then, and the same key joins the task again.
        seconds=(timeout_seconds or RUN_SECONDS) + 2 * ANSWER_MARGIN,
        generated_id_field="" if idempotency_key else "idempotencyKey",
    )


def submit_code(
    engine_id: str,
    code: str,
    run_type: str = "python",
    *,
    timeout_seconds: int | None = None,
    idempotency_key: str | None = None,
    lock: str | None = None,
    force: bool | None = None,
) -> RequestPlan[models.TaskInfo]:
    """executeCode with `wait: false`: the task at once, for task_events, get_task, get_task_result and cancel_task."""
    fields = set_arguments(
        engine_id=engine_id,
        code=code,
        run_type=run_type,
        timeout_seconds=timeout_seconds,
        wait=False,
        idempotency_key=idempotency_key,
        lock=lock,
        force=force,
    )
    return RequestPlan(
        method="executeCode",
        verb="POST",
        answer=models.TaskInfo,
        fields=fields,
        seconds=2 * ANSWER_MARGIN,
        generated_id_field="" if idempotency_key else "idempotencyKey",
    )


def get_engine_status(engine_id: str) -> RequestPlan[models.EngineInfo]:
    """getEngineStatus: the engine as it is, or as it ended."""
    return RequestPlan(
        method="getEngineStatus", verb="GET", answer=models.EngineInfo, fields=set_arguments(engine_id=engine_id)
    )


def terminate_engine(engine_id: str) -> RequestPlan[models.TerminateAnswer]:
    """terminateEngine: ask for the engine's end; a success also where it has ended or was never there."""
    return RequestPlan(
        method="terminateEngine", verb="POST", answer=models.TerminateAnswer, fields=set_arguments(engine_id=engine_id)
    )


def list_engines(
    *,
    status: str | None = None,
    engine_type: str | None = None,
    user: str | None = None,
    page_now: int | None = None,
    page_size: int | None = None,
) -> RequestPlan[models.EnginesAnswer]:
    """listEngines: a page of your engines (an admin's: everybody's), the newest first."""
    fields = set_arguments(status=status, engine_type=engine_type, user=user, page_now=page_now, page_size=page_size)
    return RequestPlan(method="listEngines", verb="GET", answer=models.EnginesAnswer, fields=fields)


def get_engine_metrics(engine_id: str) -> RequestPlan[models.EngineMetricsAnswer]:
    """getEngineMetrics: the engine's times and its tasks, counted."""
    return RequestPlan(
        method="getEngineMetrics",
        verb="GET",
        answer=models.EngineMetricsAnswer,
        fields=set_arguments(engine_id=engine_id),
    )


def get_resource_usage(engine_id: str) -> RequestPlan[models.ResourceUsageAnswer]:
    """getResourceUsage: what was asked for, and what is used."""
    return RequestPlan(
        method="getResourceUsage",
        verb="GET",
        answer=models.ResourceUsageAnswer,
        fields=set_arguments(engine_id=engine_id),
    )


def update_resource(engine_id: str, resources: Resources) -> RequestPlan[models.UpdateResourceAnswer]:
    """updateResource: more or less cpu, cpuLimit or memory for the running engine; nothing restarts."""
    return RequestPlan(
        method="updateResource",
        verb="POST",
        answer=models.UpdateResourceAnswer,
        fields=set_arguments(engine_id=engine_id, resources=resources),
        # It is idempotent: it sets figures.
        seconds=60.0 + ANSWER_MARGIN,
    )


def report_resource_usage(engine_id: str, memory_bytes: int, cpu_seconds: float) -> RequestPlan[models.NoAnswer]:
    """reportResourceUsage: what an engine says of itself; `bearer` of the client is the engine's own token."""
    return RequestPlan(
        method="reportResourceUsage",
        verb="POST",
        answer=models.NoAnswer,
        fields=set_arguments(engine_id=engine_id, memory_bytes=memory_bytes, cpu_seconds=cpu_seconds),
    )


# Commands that change nothing. The others are not repeated: they could end a task that has started since.
_READ_ONLY = ("status", "engineConnProgress", "engineConnMetrics", "engineConnDiagnosis", "engineConnLog")


def send_engine_command(
    engine_id: str, command: str, *, parameters: Mapping[str, Any] | None = None
) -> RequestPlan[models.EngineCommandAnswer]:
    """sendEngineCommand: interrupt, restartKernel, status, lock, unlock, or one of Linkis's operators
    (engineConnProgress, engineConnMetrics, engineConnDiagnosis, engineConnLog). Where the engine refuses it, `is_error`
    says so."""
    return RequestPlan(
        method="sendEngineCommand",
        verb="POST",
        answer=models.EngineCommandAnswer,
        fields=set_arguments(engine_id=engine_id, command=command, parameters=parameters),
        repeatable=command in _READ_ONLY,
        seconds=150.0 + ANSWER_MARGIN,
    )


def get_engine_logs(
    engine_id: str,
    log_type: str | None = None,
    *,
    from_line: int | None = None,
    lines: int | None = None,
    last_rows: int | None = None,
    enable_tail: bool | None = None,
    only_keywords: str | None = None,
    ignore_keywords: str | None = None,
) -> RequestPlan[models.EngineLogsAnswer]:
    """getEngineLogs: `lines` lines from `from_line` (1 is the first) of stdout or another log, or its `last_rows`. The
    next page begins at `end_line + 1`; an ended engine's logs are read the same way."""
    return RequestPlan(
        method="getEngineLogs",
        verb="GET",
        answer=models.EngineLogsAnswer,
        fields=set_arguments(
            engine_id=engine_id,
            log_type=log_type,
            from_line=from_line,
            lines=lines,
            last_rows=last_rows,
            enable_tail=enable_tail,
            only_keywords=only_keywords,
            ignore_keywords=ignore_keywords,
        ),
        seconds=60.0 + ANSWER_MARGIN,
    )


def get_task(
    engine_id: str, task_id: str | None = None, *, idempotency_key: str | None = None
) -> RequestPlan[models.TaskInfo]:
    """getTask: how far the task of this id or key is, or how it ended; also when its engine is gone."""
    fields = set_arguments(engine_id=engine_id, task_id=task_id, idempotency_key=idempotency_key)
    return RequestPlan(method="getTask", verb="GET", answer=models.TaskInfo, fields=fields)


def get_task_result(
    engine_id: str, task_id: str | None = None, *, idempotency_key: str | None = None
) -> RequestPlan[models.ExecuteAnswer]:
    """getTaskResult: the outputs of an ended task. Raises ResultGone where they are not kept any more."""
    return RequestPlan(
        method="getTaskResult",
        verb="GET",
        answer=models.ExecuteAnswer,
        fields=set_arguments(engine_id=engine_id, task_id=task_id, idempotency_key=idempotency_key),
        # Some MiB over a slow line.
        seconds=300.0,
    )


def get_result_set(
    engine_id: str,
    task_id: str | None = None,
    *,
    idempotency_key: str | None = None,
    output: int | None = None,
    from_row: int | None = None,
    rows: int | None = None,
    from_column: int | None = None,
    columns: int | None = None,
) -> RequestPlan[models.ResultSetAnswer]:
    """getResultSet: a page of one output of an ended task, the first table unless `output` names another; `from_row`
    and `from_column` count from 1. A table that was too long to be shown is whole here, page by page;
    download_result_set has it as a file."""
    return RequestPlan(
        method="getResultSet",
        verb="GET",
        answer=models.ResultSetAnswer,
        fields=set_arguments(
            engine_id=engine_id,
            task_id=task_id,
            idempotency_key=idempotency_key,
            output=output,
            from_row=from_row,
            rows=rows,
            from_column=from_column,
            columns=columns,
        ),
        seconds=120.0,
    )


def list_tasks(engine_id: str, *, page_size: int | None = None) -> RequestPlan[models.TasksAnswer]:
    """listTasks: the engine's tasks, the newest first."""
    fields = set_arguments(engine_id=engine_id, page_size=page_size)
    return RequestPlan(method="listTasks", verb="GET", answer=models.TasksAnswer, fields=fields)


def cancel_task(
    engine_id: str, task_id: str | None = None, *, idempotency_key: str | None = None
) -> RequestPlan[models.TaskInfo]:
    """cancelTask: end the task; one that has ended stays as it is."""
    fields = set_arguments(engine_id=engine_id, task_id=task_id, idempotency_key=idempotency_key)
    return RequestPlan(method="cancelTask", verb="POST", answer=models.TaskInfo, fields=fields)


def explain_engine(engine_id: str) -> RequestPlan[models.ExplainAnswer]:
    """explainEngine: what the engine waits for, and what ends it when."""
    return RequestPlan(
        method="explainEngine", verb="GET", answer=models.ExplainAnswer, fields=set_arguments(engine_id=engine_id)
    )


def preview_cull(*, within_seconds: int | None = None) -> RequestPlan[models.PreviewCullAnswer]:
    """previewCull: which engines will be ended for idleness within that time, and which will not and why."""
    return RequestPlan(
        method="previewCull",
        verb="GET",
        answer=models.PreviewCullAnswer,
        fields=set_arguments(within_seconds=within_seconds),
        seconds=60.0 + ANSWER_MARGIN,
    )


def get_post_mortem(engine_id: str) -> RequestPlan[models.PostMortemAnswer]:
    """getPostMortem: why the engine ended, and what is kept of it."""
    return RequestPlan(
        method="getPostMortem", verb="GET", answer=models.PostMortemAnswer, fields=set_arguments(engine_id=engine_id)
    )


def who_am_i() -> RequestPlan[models.WhoAmIAnswer]:
    """whoAmI: the caller as the gateway knows him: user, groups, and where he may use engines."""
    return RequestPlan(method="whoAmI", verb="GET", answer=models.WhoAmIAnswer)


def list_engine_plugins() -> RequestPlan[models.PluginsAnswer]:
    """listEnginePlugins: the catalogue: types and versions, default sizes, and which entries lend to the caller."""
    return RequestPlan(method="listEnginePlugins", verb="GET", answer=models.PluginsAnswer)


def get_overview() -> RequestPlan[models.OverviewAnswer]:
    """getOverview: the last hour of your engines (an admin's: everybody's) in curves."""
    return RequestPlan(method="getOverview", verb="GET", answer=models.OverviewAnswer)


def list_transitions(engine_id: str) -> RequestPlan[models.TransitionsAnswer]:
    """listTransitions: the states that the engine went through, and when."""
    return RequestPlan(
        method="listTransitions", verb="GET", answer=models.TransitionsAnswer, fields=set_arguments(engine_id=engine_id)
    )

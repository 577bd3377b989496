"""executeCode and the other calls about tasks: status, result and cancellation. Their events: `methods.task_events`.

Code runs once, even if the call breaks off. The execution journal records each request without delaying it. A task's id
is made from the caller's idempotency key, if there is one, so the engine's agent recognises a repeated request. Must
not know HTTP.
"""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack, suppress
from typing import Any

import orjson

from linkis_ecm.agent.formats.names import run_type_of
from linkis_ecm.agent_client.errors import AgentNotFound
from linkis_ecm.api.models import (
    ExecuteRequest,
    ListTasksRequest,
    TaskInfo,
    TaskRequest,
    TasksAnswer,
)
from linkis_ecm.engine.matching import held_claim
from linkis_ecm.gateway.agents.client import KernelOf, TaskResult
from linkis_ecm.gateway.agents.link import can_ask_agent, no_agent
from linkis_ecm.gateway.answers import Answer, LargeJson
from linkis_ecm.gateway.context import Call, Gateway
from linkis_ecm.gateway.http.errors import Refused, bad_request, shown
from linkis_ecm.gateway.inventory import lending
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.gateway.journal import Observation, belongs, with_report
from linkis_ecm.model import reasons
from linkis_ecm.model.record import ENDED, ExecutionRecord

# The UUID namespace of task ids that are made from idempotency keys. Random, and never changed.
_KEY_NAMESPACE = uuid.UUID("6f0a5c1e-52f1-4b7e-9d57-0f6f5b0f4c3a")


async def execute_code(call: Call, request: ExecuteRequest) -> Answer:
    """Run code in the engine and give its result, or the task where it is not waited for."""
    gateway = call.gateway
    if not request.code.strip():
        raise bad_request("Parameter code cannot be empty: send at least one statement")
    engine, is_borrowed = await _engine_to_run(call, request)
    task_id, *other_ids = _task_ids(call, engine, request.idempotency_key)
    if request.idempotency_key is not None:
        ended = await _ended_earlier(call, engine, [task_id, *other_ids])
        if ended is not None:
            return Answer(ended, message=f"the task of this idempotencyKey has ended: {ended.status}")
    if not engine.takes_code:
        raise code_refusal(engine)
    _require_run_type(gateway, engine, request.run_type)
    if request.lock is not None:
        repeated = task_id if request.idempotency_key is not None else None
        await _require_lock(call, engine, request.lock, repeated, user=call.caller.user if is_borrowed else "")
    elif engine.lent_level and not request.force:
        await _require_not_lent_now(call, engine, task_id if request.idempotency_key is not None else None)
    kernel = _kernel_of(call, engine, force=request.force)
    seconds = request.timeout_seconds or gateway.settings.execute_seconds
    record = gateway.executions.accepted(
        engine, task_id=task_id, caller=call.caller.user, run_type=request.run_type, code=request.code
    )
    try:
        if not request.wait:
            reported = await gateway.agents.submit(
                engine,
                task_id=task_id,
                code=request.code,
                run_type=request.run_type,
                seconds=seconds,
                kernel=kernel,
            )
            return Answer(_task_info(with_report(record, reported), reported), message="the task is submitted")
        async with AsyncExitStack() as stack:
            running = gateway.agents.execute(
                engine,
                task_id=task_id,
                code=request.code,
                run_type=request.run_type,
                seconds=seconds,
                kernel=kernel,
            )
            result = await stack.enter_async_context(running)
            if result.parsed is not None:
                gateway.executions.ended(record, result.parsed)
            return _result_answer(call, engine, task_id, result, stack)
    except Refused as refusal:
        await _record_refusal(gateway, engine, record, refusal, has_key=request.idempotency_key is not None)
        raise


async def _engine_to_run(call: Call, request: ExecuteRequest) -> tuple[KnownEngine, bool]:
    """The engine as it is now, and whether the caller has borrowed it. Raises Refused."""
    # The watch may be behind: code of who held the lock before would end the kernel of who holds it now.
    engine, is_borrowed = await call.engine_to_run(request.engine_id, fresh=True)
    if is_borrowed and request.lock is None:
        raise bad_request(f"{engine.title} is lent to you: send the lock of askEngineConn's answer with the code")
    if is_borrowed and request.force:
        raise bad_request(f"force is for the owner of {engine.title} and admins: leave it out")
    if engine.lent_level and not is_borrowed and engine.in_cluster:
        engine = await call.gateway.claims.read(engine) or engine
    elif not is_borrowed and engine.in_cluster and not (engine.takes_code or engine.is_ending or engine.is_final):
        engine = await call.gateway.lookup.current(engine)
    return engine, is_borrowed


async def _require_lock(call: Call, engine: KnownEngine, lock: str, repeated: str | None, *, user: str) -> None:
    """Raises Refused where `lock` does not hold the engine. `repeated` is the id of a task that an earlier call may
    have sent: the engine answers for one that it has, whoever holds it now."""
    try:
        await call.gateway.claims.require(engine, lock, user=user)
    except Refused:
        if repeated is None:
            raise
        if not await _is_known(call.gateway, engine, repeated):
            raise


async def _require_not_lent_now(call: Call, engine: KnownEngine, repeated: str | None) -> None:
    """Raises Refused where somebody else holds the engine: the owner's code would end his kernel. `repeated` as for
    `_require_lock`."""
    claim = held_claim(engine, call.gateway.clock())
    if claim is None or claim.user in ("", call.caller.user):
        return
    if repeated is None or not await _is_known(call.gateway, engine, repeated):
        raise bad_request(
            f"{engine.title} is lent to {shown(claim.user, 64)} now, and your code would end that user's kernel, tasks"
            " and variables: wait until the lock ends (getEngineStatus has claimedUntil), or send force: true",
            reason="LentToAnother",
            canRetry=True,
        )


async def _is_known(gateway: Gateway, engine: KnownEngine, task_id: str) -> bool:
    """Whether the engine's agent has the task; False where it does not answer."""
    try:
        await gateway.agents.task(engine, task_id)
    except (AgentNotFound, Refused):
        return False
    return True


async def _record_refusal(
    gateway: Gateway, engine: KnownEngine, record: ExecutionRecord, refusal: Refused, *, has_key: bool
) -> None:
    """Record that the engine refused the code, so it has not run. After a broken connection the code may have run; the
    journal's settler finds out later.

    An earlier request with the same key may have run. Its record is then updated from the agent's report.
    """
    if refusal.http not in (None, 413, 429):
        return
    if has_key:
        try:
            reported = await gateway.agents.task(engine, record.task_id)
        except AgentNotFound:
            pass
        except Refused:
            return
        else:
            record_task_report(gateway, engine, record.task_id, reported)
            return
    gateway.executions.refused(record, refusal)


def record_task_report(gateway: Gateway, engine: KnownEngine, task_id: str, reported: dict[str, Any]) -> None:
    """Write the agent's report of a task to the journal. The journal has the request itself already."""
    gateway.executions.write(with_report(_record_without_journal(engine, task_id), reported))


def task_id_for_key(engine: KnownEngine, key: str) -> str:
    """The id of the task that was sent to the engine with this key."""
    return str(uuid.uuid5(_KEY_NAMESPACE, f"{engine.ticket_id}/{key}"))


def _task_ids(call: Call, engine: KnownEngine, key: str | None) -> list[str]:
    """The id of the task of a key, or of a new one, first. In an engine that is lent it is this caller's alone; behind
    it are the ids that the key has had in an earlier pod of the engine, if its agent had another master key."""
    if not engine.lent_level:
        return [call.gateway.new_id() if key is None else task_id_for_key(engine, key)]
    text = f"id {call.gateway.new_id()}" if key is None else f"key {key}"
    masters = lending.masters_of(call.gateway.settings.master_keys, engine)
    return [lending.task_id(master, engine, call.caller.user, text) for master in masters]


def _kernel_of(call: Call, engine: KnownEngine, *, force: bool) -> KernelOf | None:
    """For whom the kernel must be new, where the engine is lent; None where it is nobody else's, or its plugin keeps
    the kernel."""
    plugin = call.gateway.plugins.of(engine)
    if not engine.lent_level or (plugin is not None and plugin.share_kernel):
        return None
    master = lending.masters_of(call.gateway.settings.master_keys, engine)[0]
    return KernelOf(lending.kernel_user(master, engine, call.caller.user), force, engine.version)


async def _ended_earlier(call: Call, engine: KnownEngine, task_ids: list[str]) -> TaskInfo | None:
    """The ended task of a key, by its ids, if an earlier pod of the engine ran it, or if the engine has ended; else
    None."""
    live = engine.takes_code
    if live and engine.attempt == 0:
        return None  # the agent of the only pod knows all tasks
    for task_id in task_ids:
        record = await call.gateway.executions.find(task_id)
        if record is None or not belongs(record, engine) or (live and record.attempt == engine.attempt):
            continue
        after = await call.gateway.executions.settle(record, Observation(engine))
        if after.cannot_change or (after.final and not live):
            return _task_info(after)
    return None


async def get_task(call: Call, request: TaskRequest) -> Answer:
    """How far the task is, or how it ended."""
    engine, task_id = await task_of_request(call, request)
    info = await find_task(call, engine, task_id)
    if info is None:
        raise unknown_task(engine, task_id)
    return Answer(info)


async def find_task(call: Call, engine: KnownEngine, task_id: str) -> TaskInfo | None:
    """The task as the agent reports it, else as the journal has it after settling. None if neither knows it. Raises
    Refused."""
    gateway = call.gateway
    answered, reported = False, None
    if can_ask_agent(engine):
        try:
            reported = await gateway.agents.task(engine, task_id)
            answered = True
        except AgentNotFound:
            answered = True
    record = await gateway.executions.find(task_id)
    if record is not None and not belongs(record, engine):
        return None
    if record is None:
        return None if reported is None else _task_info(_record_without_journal(engine, task_id), reported)
    same_pod = engine.in_cluster and engine.attempt == record.attempt
    seen = Observation(engine, answered=answered and same_pod, reported=reported)
    after = await gateway.executions.settle(record, seen)
    return _task_info(after, reported)


async def list_tasks(call: Call, request: ListTasksRequest) -> Answer:
    """The engine's tasks: of a live engine those that its agent remembers, with what the journal has besides."""
    engine = await call.engine(request.engine_id)
    gateway = call.gateway
    reported = {}
    if can_ask_agent(engine):
        reported = {str(task.get("taskId")): task for task in await gateway.agents.tasks(engine)}
    records = {record.task_id: record for record in await gateway.executions.of_engine(engine, request.page_size)}
    found = [
        _task_info(with_report(_record_without_journal(engine, task_id), report), report)
        for task_id, report in reported.items()
        if task_id not in records
    ]
    # The agent is not asked for each task: that would be one request per task.
    seen = [(record, Observation(engine, reported=reported.get(task_id))) for task_id, record in records.items()]
    found += [_task_info(after, reported.get(after.task_id)) for after in await gateway.executions.settle_all(seen)]
    found.sort(key=lambda task: task.accepted_at, reverse=True)
    return Answer(TasksAnswer(tasks=found[: request.page_size]))


async def get_task_result(call: Call, request: TaskRequest) -> Answer:
    """The result of a task that has ended."""
    engine, task_id = await task_of_request(call, request)
    if not can_ask_agent(engine):
        info = await find_task(call, engine, task_id)
        if info is None:
            raise unknown_task(engine, task_id)
        raise Refused(
            f"{engine.title} has ended, and the task's outputs with it: the task is {info.status}{_why(info)}; its log"
            " is in getEngineLogs",
            http=410,
            data={"task": info.model_dump(by_alias=True)},
        )
    try:
        async with AsyncExitStack() as stack:
            result = await stack.enter_async_context(call.gateway.agents.result(engine, task_id))
            if result.parsed is not None:
                record_task_report(call.gateway, engine, task_id, result.parsed)
            return _result_answer(call, engine, task_id, result, stack)
    except AgentNotFound:
        raise unknown_task(engine, task_id) from None


def _why(info: TaskInfo) -> str:
    """An error's name and the first line of its value, for a sentence; "" where the task had none."""
    value = info.message.partition("\n")[0]
    return f" ({info.reason}: {value})" if info.reason and value else f" ({info.reason})" if info.reason else ""


async def cancel_task(call: Call, request: TaskRequest) -> Answer:
    """End the task: at once where it waits, by an interrupt where it runs; again, or after its end, nothing happens."""
    engine, task_id = await task_of_request(call, request)
    if can_ask_agent(engine):
        try:
            reported = await call.gateway.agents.cancel(engine, task_id)
        except AgentNotFound:
            pass
        else:
            return Answer(_task_info(_record_without_journal(engine, task_id), reported))
    info = await find_task(call, engine, task_id)
    if info is None:
        raise unknown_task(engine, task_id)
    return Answer(info)


async def task_of_request(call: Call, request: TaskRequest) -> tuple[KnownEngine, str]:
    """The engine and the task's id. Of who has borrowed the engine it is an own task. Raises Refused."""
    engine, is_borrowed = await call.engine_to_run(request.engine_id)
    if (request.task_id is None) == (request.idempotency_key is None):
        raise bad_request("Parameter taskId cannot be empty: give taskId, or the idempotencyKey that it was sent with")
    task_id = request.task_id or _task_ids(call, engine, request.idempotency_key)[0]
    keys = call.gateway.settings.master_keys
    if is_borrowed and not lending.is_task_of(keys, engine, call.caller.user, task_id):
        raise unknown_task(engine, task_id)
    return engine, task_id


def unknown_task(engine: KnownEngine, task_id: str) -> Refused:
    """The refusal for an id that is no task of the engine."""
    return bad_request(f"taskId {task_id} is no task of {engine.title}: take it from executeCode or listTasks")


def _record_without_journal(engine: KnownEngine, task_id: str) -> ExecutionRecord:
    """A record for a task that the journal does not have, or not yet."""
    return ExecutionRecord(
        task_id=task_id, ticket_id=engine.ticket_id, uid=engine.uid, attempt=engine.attempt, caller="", run_type="",
        code_sha256="", code_chars=0, status="Accepted", accepted=0.0,
    )  # fmt: skip


# What an end fixes of a task.
_OF_THE_END = frozenset({"status", "startedAt", "endedAt", "reason", "message"})


def _task_info(record: ExecutionRecord, reported: dict[str, Any] | None = None) -> TaskInfo:
    """The task in the shape of the API. An end that the journal has stays as it is, whatever an agent says later."""
    reported = reported or {}
    if record.cannot_change and record.is_complete:
        reported = {name: value for name, value in reported.items() if name not in _OF_THE_END}
    status: Any = str(reported.get("status") or record.status)
    return TaskInfo.model_construct(
        task_id=record.task_id,
        engine_id=record.ticket_id,
        status=status,
        final=status in ENDED,
        reason=record.reason or str(reported.get("reason") or "")[:100],
        message=record.message or str(reported.get("message") or "")[:500],
        progress=1.0 if status in ENDED else reported.get("progress", 0.0),
        progress_message=reported.get("progressMessage", ""),
        execution_count=reported.get("executionCount"),
        accepted_at=record.accepted or reported.get("acceptedAt", 0.0),
        started_at=reported.get("startedAt", record.started),
        ended_at=reported.get("endedAt", record.ended),
        run_type=record.run_type,
        caller=record.caller,
        attempt=record.attempt,
        first_line=reported.get("firstLine", ""),
    )


def _result_answer(call: Call, engine: KnownEngine, task_id: str, result: TaskResult, opened: AsyncExitStack) -> Answer:
    """A task's result as the data of a Message. `opened` closes the agent's answer. For a big result the call keeps it
    open, because the bytes are read while they are sent."""
    if result.content is not None:
        return Answer(orjson.Fragment(result.content))
    assert result.chunks is not None  # noqa: S101 - it has no content

    async def record_end() -> None:
        """A big result is not decoded here, so the task's end is requested from the agent."""
        with suppress(AgentNotFound, Refused):
            record_task_report(call.gateway, engine, task_id, await call.gateway.agents.task(engine, task_id))

    call.held.push_async_exit(opened.pop_all())
    return Answer(LargeJson(result.size, result.chunks, record_end))


def code_refusal(engine: KnownEngine) -> Refused:
    """The refusal for code that the engine cannot run now, with the reason and a remedy."""
    if not engine.in_cluster:
        return bad_request(f"{engine.title} has ended ({engine.status}): create another engine")
    if engine.is_final:
        why = f", {engine.reason}" if engine.reason else ""
        return bad_request(f"{engine.title} has ended ({engine.state}{why}): create another engine")
    if engine.is_ending:
        return bad_request(f"{engine.title} is ShuttingDown and takes no more code: create another engine")
    if not engine.has_agent:
        return no_agent(engine)
    if engine.reason == reasons.KEY_MISMATCH.name:
        return bad_request(f"{engine.title}: {reasons.KEY_MISMATCH.sentence} {reasons.KEY_MISMATCH.remedy}")
    return bad_request(f"{engine.title} is {engine.state}: wait until it is Idle, then send the code again")


def _require_run_type(gateway: Gateway, engine: KnownEngine, run_type: str) -> None:
    """Raises Refused if the plugin does not list the run type. Without the plugin's entry the agent decides."""
    plugin = gateway.plugins.of(engine)
    if plugin is not None and run_type_of(run_type) not in plugin.run_types:
        raise bad_request(
            f"runType is {run_type!r}: an engine of type {engine.engine_type} runs {', '.join(plugin.run_types)}"
        )

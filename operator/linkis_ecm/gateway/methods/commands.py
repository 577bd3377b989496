"""sendEngineCommand: our commands (such as interrupt, lock and unlock) and Linkis's operators, for one engine.

Answers have the shape of Linkis's operators: `result`, or `isError` with the reason (linkis-contract.md, 1.4 and 5.2).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from linkis_ecm.agent.formats.names import LOG_NAMES
from linkis_ecm.api.models import MAX_KEYWORDS, EngineCommandAnswer, EngineCommandRequest
from linkis_ecm.engine.matching import CLAIM_HOLD, HOLD_LONGEST, Verdict
from linkis_ecm.gateway.answers import Answer
from linkis_ecm.gateway.context import Call
from linkis_ecm.gateway.http.errors import Refused, bad_request, shown
from linkis_ecm.gateway.inventory.lending import is_task_of
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.gateway.logs.source import LogQuery
from linkis_ecm.gateway.methods.logs import LOG_TYPE_TEXT, read_page
from linkis_ecm.gateway.methods.tasks import code_refusal
from linkis_ecm.model.reasons import by_name
from linkis_ecm.model.record import ENDED

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Command:
    """What a command does, and the names of the parameters that it reads."""

    run: Callable[[Call, KnownEngine, dict[str, Any]], Awaitable[dict[str, Any]]]
    parameters: tuple[str, ...] = ()


async def send_engine_command(call: Call, request: EngineCommandRequest) -> Answer:
    """Run the command; a refusal by the engine is Linkis's isError, one by the gateway is a refusal."""
    command = COMMANDS.get(request.command)
    if command is None:
        raise bad_request(f"command is {request.command!r}: give one of {', '.join(COMMANDS)}")
    require_known(request.command, request.parameters)
    if request.command != "unlock":
        engine = await call.engine(request.engine_id)
    else:
        engine, is_borrowed = await call.engine_to_run(request.engine_id, fresh=True)
        if is_borrowed and not request.parameters.get("lock"):
            raise bad_request(f"{engine.title} is lent to you: give the lock of askEngineConn's answer to give it back")
    return Answer(await operate(call, engine, command, request.parameters))


def require_known(name: str, parameters: Iterable[str], also: Collection[str] = ()) -> None:
    """Raises Refused for a parameter that the command does not read and that is not in `also`. A misspelled name must
    not change what a command does: without `lock`, unlock ends anybody's claim."""
    known = COMMANDS[name].parameters
    unknown = [f"{shown(parameter, 40)!r}" for parameter in parameters if parameter not in known + tuple(also)]
    if unknown:
        takes = f"takes {', '.join(known)}" if known else "takes no parameters"
        raise bad_request(f"Unknown parameter {', '.join(unknown[:5])}: the command {name} {takes}")


async def operate(call: Call, engine: KnownEngine, command: Command, parameters: dict[str, Any]) -> EngineCommandAnswer:
    """The operator's answer in Linkis's shape."""
    try:
        return EngineCommandAnswer(result=await command.run(call, engine, parameters))
    except Refused as refusal:
        return EngineCommandAnswer(result={}, error_msg=refusal.sentence, is_error=True)


def _require_code(engine: KnownEngine) -> KnownEngine:
    if not engine.takes_code:
        raise code_refusal(engine)
    return engine


async def _interrupt(call: Call, engine: KnownEngine, _: dict[str, Any]) -> dict[str, Any]:
    await call.gateway.agents.interrupt(_require_code(engine))
    return {}


async def _restart(call: Call, engine: KnownEngine, _: dict[str, Any]) -> dict[str, Any]:
    await call.gateway.agents.restart(_require_code(engine))
    return {}


async def _status(call: Call, engine: KnownEngine, _: dict[str, Any]) -> dict[str, Any]:
    return await call.gateway.agents.status(_require_code(engine))


async def _lock(call: Call, engine: KnownEngine, parameters: dict[str, Any]) -> dict[str, Any]:
    """Linkis's RequestEngineLock, for an engine that one has: nobody gets it by askEngineConn until it is given back.

    A lock of type Timed, the default, ends when no task has run for `timeout` milliseconds; one of type Always does not
    end. Answers as ResponseEngineLock: `lockStatus`, `lock`, `msg`.
    """
    kind = parameters.get("lockType") or "Timed"
    if kind not in ("Timed", "Always"):
        raise bad_request(f"lockType is {shown(str(kind), 40)!r}: give Timed or Always")
    given = parameters.get("timeout")
    # Linkis's default is -1.
    millis = whole(parameters, "timeout", 0) if given not in (-1, "-1") else 0
    hold = timedelta(milliseconds=millis) if millis else CLAIM_HOLD
    if hold > HOLD_LONGEST:
        raise bad_request(
            f"timeout is {millis} ms: give {HOLD_LONGEST // timedelta(milliseconds=1)} at most (a lock ends only when"
            " no task has run for so long), or lockType Always"
        )
    if not engine.usable:
        return {"lockStatus": False, "lock": None, "msg": f"{engine.title} is {engine.status}: it cannot be locked"}
    found = await call.gateway.claims.lock(engine, hold=hold, always=kind == "Always")
    if isinstance(found, Verdict):
        return {"lockStatus": False, "lock": None, "msg": f"Engine is busy. {engine.title}: {found.sentence}"}
    assert found.claim is not None  # noqa: S101 - it was just written
    return {"lockStatus": True, "lock": found.claim.by, "msg": ""}


async def _unlock(call: Call, engine: KnownEngine, parameters: dict[str, Any]) -> dict[str, Any]:
    """Release the claim that askEngineConn took. With `lock` only that caller's claim, without it any claim."""
    lock = parameters.get("lock")
    if lock is not None and not isinstance(lock, str):
        raise bad_request(f"lock is {shown(str(lock), 40)!r}: give the lock of askEngineConn's answer, or leave it out")
    if not engine.in_cluster or engine.is_final:
        return {}  # its claim has ended with it
    if engine.lent_level and not call.may_use(engine) and engine.claim is not None and engine.claim.by == lock:
        await _require_no_tasks(call, engine)
    if not await call.gateway.claims.release(engine, lock or None):
        raise bad_request(
            f"lock is {shown(str(lock), 64)!r}: that is not the lock of {engine.title} now, so nothing is given"
            " back. It is in the answer of askEngineConn; if you have mistyped it, you still hold the engine. Else"
            " yours has ended, and another asker may hold it"
        )
    return {}


async def _require_no_tasks(call: Call, engine: KnownEngine) -> None:
    """Raises Refused while a task of the borrower runs or waits: the next asker would get an engine that is in use, and
    who gives engines back while they work would have more of them than one user may (shareLocks)."""
    if not engine.takes_code:
        return
    try:
        tasks = await call.gateway.agents.tasks(engine)
    except Refused as why:
        if why.http == HTTPStatus.TOO_MANY_REQUESTS:
            raise
        # Nobody gets an engine that does not answer, and what runs in it counts for its user all the same.
        log.warning("%s does not say whether a borrower's task runs: %s", engine.title, why.sentence)
        return
    masters, user = call.gateway.settings.master_keys, call.caller.user
    own = [
        str(task["taskId"])
        for task in tasks
        if task.get("status") not in ENDED and is_task_of(masters, engine, user, str(task["taskId"]))
    ]
    if own:
        more = f" and {len(own) - 1} more" if len(own) > 1 else ""
        raise bad_request(
            f"{engine.title} still has your task {own[0]}{more}: cancel what runs (cancelTask) or wait for its end,"
            " then give the engine back"
        )


async def _progress(call: Call, engine: KnownEngine, _: dict[str, Any]) -> dict[str, Any]:
    """Linkis's engineConnProgress: the progress of the running task, in the shape of its OnceExecutor."""
    tasks = await call.gateway.agents.tasks(_require_code(engine))
    running = next((task for task in tasks if task.get("status") == "Running"), None)
    # A float, also for 0 and 1: Linkis's client casts it to Double.
    progress = float(running["progress"]) if running else 0.0
    message = running["progressMessage"] if running else ""
    info = (
        [{"id": running["taskId"], "totalTasks": 1, "runningTasks": 1, "failedTasks": 0, "succeedTasks": 0}]
        if running
        else []
    )
    return {"progress": progress, "progressMessage": message, "progressInfo": info}


async def _metrics(call: Call, engine: KnownEngine, _: dict[str, Any]) -> dict[str, Any]:
    """Linkis's engineConnMetrics."""
    report = await call.gateway.agents.status(_require_code(engine))
    return {"metrics": report["metrics"], "usage": report["usage"]}


async def _diagnosis(call: Call, engine: KnownEngine, _: dict[str, Any]) -> dict[str, Any]:
    """Linkis's engineConnDiagnosis: the engine's state and reason. An object, because its client refuses a text."""
    verb = "is" if engine.in_cluster else "has ended as"
    why = engine.message or engine.reason or ("nothing is wrong with it" if engine.in_cluster else "")
    known = by_name(engine.reason)
    return {
        "diagnosis": {
            "state": engine.status,
            "reason": engine.reason,
            "remedy": known.remedy if known else "",
            "sentence": f"{engine.title} {verb} {engine.status}: {why}",
        }
    }


async def _log(call: Call, engine: KnownEngine, parameters: dict[str, Any]) -> dict[str, Any]:
    """Linkis's engineConnLog, with its parameters. `lastRows` gives `logs` and `rows` only."""
    log_type = parameters.get("logType") or "stdout"
    if log_type not in LOG_NAMES:
        raise bad_request(LOG_TYPE_TEXT)
    last_rows = whole(parameters, "lastRows", 0)
    page = await read_page(
        call,
        engine,
        log_type,
        LogQuery(
            from_line=whole(parameters, "fromLine", 1),
            lines=whole(parameters, "pageSize", 100) or 1,
            last_rows=last_rows,
            tail=_log_switch(parameters, "enableTail"),
            only=_keywords(parameters, "onlyKeywords"),
            ignore=_keywords(parameters, "ignoreKeywords"),
        ),
    )
    found = {"logs": page["logs"], "rows": page["rows"]}
    return found if last_rows else found | {"logPath": page["log_path"], "endLine": page["end_line"]}


def whole(parameters: dict[str, Any], name: str, default: int) -> int:
    """A whole number, as JSON number or text. Raises Refused."""
    value = parameters.get(name, default)
    if value is None:
        return default
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1 << 53:
        raise bad_request(f"{name} is {shown(str(value), 40)!r}: give a whole number of 0 or more")
    return value


def _log_switch(parameters: dict[str, Any], name: str) -> bool:
    """A boolean, as JSON or text; False if it is missing. Raises Refused."""
    value = parameters.get(name)
    if value in (None, "", "true", "false") or isinstance(value, bool):
        return value in (True, "true")
    raise bad_request(f"{name} is {shown(str(value), 40)!r}: give true or false")


def _keywords(parameters: dict[str, Any], name: str) -> str:
    """Keywords, separated by commas. Raises Refused."""
    value = parameters.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_KEYWORDS:
        raise bad_request(
            f"{name} is {shown(str(value), 40)!r}: give text of {MAX_KEYWORDS} characters at most, words with commas"
            " between them"
        )
    return value


COMMANDS: dict[str, Command] = {
    "interrupt": Command(_interrupt),
    "restartKernel": Command(_restart),
    "status": Command(_status),
    "lock": Command(_lock, ("lockType", "timeout")),
    "unlock": Command(_unlock, ("lock",)),
    "engineConnProgress": Command(_progress),
    "engineConnMetrics": Command(_metrics),
    "engineConnDiagnosis": Command(_diagnosis),
    "engineConnLog": Command(
        _log, ("logType", "fromLine", "pageSize", "lastRows", "enableTail", "onlyKeywords", "ignoreKeywords")
    ),
}

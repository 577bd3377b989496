"""openEngineLog and the operations on engines and ECMs (EMRestfulApi, EngineRestfulApi).

In the real one a client that names a log folder is not asked whose it is, and any file can be named: here a folder is
only compared with what the engine's own record says, and the owner is asked each time.
"""

from __future__ import annotations

from typing import Any

from linkis_ecm.agent.formats.names import LOG_NAMES
from linkis_ecm.api.models import EngineCommandAnswer
from linkis_ecm.gateway.answers import Answer
from linkis_ecm.gateway.context import Call
from linkis_ecm.gateway.http.errors import Refused, bad_request, shown
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.gateway.linkis.errors import error_code
from linkis_ecm.gateway.linkis.requests import OpenLog, Operation
from linkis_ecm.gateway.methods.commands import COMMANDS, operate, require_known

OPERATOR = "__operator_name__"
ENGINE = "__engine_conn_instance__"
LOG = "engineConnLog"
# What Linkis's clients and its manager add to an operator's own parameters. An ECM's log operators ignore further ones,
# as Linkis does.
_FRAME = (OPERATOR, ENGINE, "engineConnInstance", "engineConnType", "ticketId", "logDirSuffix", "creator")


async def open_engine_log(call: Call, request: OpenLog) -> Answer:
    """A page of an engine's log, from its end unless asked otherwise."""
    parameters = dict(request.parameters)
    log_type = parameters.get("logType")
    if log_type not in LOG_NAMES:
        raise error_code(210003, "param error(参数错误)")
    if not request.instance and not parameters.get("ticketId"):
        raise bad_request("Parameter instance cannot be empty (参数 instance 不能为空)")
    engine = await _log_engine(call, request.instance, parameters, request.em_instance)
    parameters.setdefault("enableTail", True)
    parameters.setdefault("pageSize", 1000)
    return Answer(await operate(call, engine, COMMANDS[LOG], parameters))


async def _log_engine(
    call: Call, instance: str | None, parameters: dict[str, Any], em_instance: str | None
) -> KnownEngine:
    """The engine whose log it is: by ticket, else by instance; its folder must be the one named, if one is."""
    ticket = parameters.get("ticketId")
    ticket = ticket if isinstance(ticket, str) else None
    suffix = parameters.pop("logDirSuffix", None)
    # Only what the caller has sent: the engine's own folder has its user's name and its ticket.
    path = shown(str(suffix or ticket or instance or ""))
    refusal = bad_request(f"You have no permission to get log with path:{path} in ECM:{shown(em_instance or '')}")
    found = await call.engine_or_refusal((ticket, instance), refusal)
    if found is None:
        raise bad_request(f"EC instance: {shown(str(instance))} not exist ")
    if suffix and str(suffix).rstrip("/") != found.log_dir_suffix:
        raise refusal
    return found


async def execute_engine_conn_operation(call: Call, request: Operation) -> Answer:
    """An operator of the engine."""
    instance = request.instance or ""
    refusal = bad_request(f"You have no permission to execute Engine Operation {shown(instance)}")
    name = str(request.parameters.get(OPERATOR) or "")
    try:
        found = await call.engine_or_refusal((instance,), refusal)
    except Refused:
        found = await _borrowed(call, instance) if name == "unlock" and request.parameters.get("lock") else None
        if found is None:
            raise
    if found is None:
        return Answer(EngineCommandAnswer(result={}, error_msg=f"Ec : {shown(instance)} not found.", is_error=True))
    command = COMMANDS.get(name)
    if command is None:
        return Answer(_unknown(name))
    try:
        require_known(name, request.parameters, also=_FRAME)
    except Refused as refusal:
        return Answer(EngineCommandAnswer(result={}, error_msg=refusal.sentence, is_error=True))
    return Answer(await operate(call, found, command, dict(request.parameters)))


async def _borrowed(call: Call, instance: str) -> KnownEngine | None:
    """The engine that is lent to the caller, who may give it back; None for all others."""
    try:
        found, is_borrowed = await call.engine_to_run(instance, fresh=True)
    except Refused:
        return None
    return found if is_borrowed else None


async def execute_ecm_operation(call: Call, request: Operation) -> Answer:
    """An operator of the ECM: its logs. The others of the real one run a shell, and are not here."""
    parameters = dict(request.parameters)
    name = str(parameters.get(OPERATOR) or "")
    if name != LOG:
        return Answer(_unknown(name))
    instance = parameters.get("engineConnInstance") or parameters.get(ENGINE)
    engine = await _log_engine(call, str(instance or "") or None, parameters, request.instance)
    return Answer(await operate(call, engine, COMMANDS[LOG], parameters))


async def execute_ecm_operation_by_ec(call: Call, request: Operation) -> Answer:
    """The same, found by the engine."""
    parameters = dict(request.parameters) | {ENGINE: request.instance}
    return await execute_ecm_operation(call, request.model_copy(update={"parameters": parameters}))


def _unknown(name: str) -> EngineCommandAnswer:
    """Linkis's OperatorFactory: 20031 without a name, 20030 for one that nobody has."""
    text = f"operator {name[:64]!r} is not supported here" if name else f"parameters.{OPERATOR} is missing"
    return EngineCommandAnswer(
        result={},
        error_msg=f"errCode: {20030 if name else 20031} ,desc: {text}: give one of {', '.join(COMMANDS)}",
        is_error=True,
    )

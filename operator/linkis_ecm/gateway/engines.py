"""executeCode, getEngineStatus, terminateEngine, listEngines."""

from __future__ import annotations

import logging

import orjson
from aiohttp import web

from linkis_ecm.gateway import envelope
from linkis_ecm.gateway.agents import TaskResult
from linkis_ecm.gateway.context import Answer, Call, Gateway, owned
from linkis_ecm.gateway.errors import Refused, bad_request, forbidden, unavailable
from linkis_ecm.gateway.history import PastEngine
from linkis_ecm.gateway.info import info_of
from linkis_ecm.gateway.models import (
    EngineRequest,
    EnginesAnswer,
    ExecuteRequest,
    ListEnginesRequest,
    TerminateAnswer,
)
from linkis_ecm.gateway.views import EngineView, view_of
from linkis_ecm.kube.errors import ApiError, NotFound
from linkis_ecm.kube.resources import ENGINECONNS
from linkis_ecm.model.states import ORDER, EngineState

log = logging.getLogger(__name__)


async def execute_code(call: Call, request: ExecuteRequest) -> Answer | web.StreamResponse:
    """Run code in the engine and give its result. Never sent twice, whatever happens."""
    gateway = call.gateway
    if not request.code.strip():
        raise bad_request("Parameter code cannot be empty: send at least one statement")
    engine = await call.engine(request.engine_id)
    if isinstance(engine, PastEngine) or not engine.takes_code:
        raise _takes_no_code(engine)
    _run_type(gateway, engine, request.run_type)
    async with gateway.agents.execute(
        engine,
        task_id=gateway.new_id(),
        code=request.code,
        run_type=request.run_type,
        seconds=request.timeout_seconds or gateway.settings.execute_seconds,
    ) as result:
        if result.content is not None:
            return Answer(orjson.Fragment(result.content))
        return await _pass_on(call, result)


async def _pass_on(call: Call, result: TaskResult) -> web.StreamResponse:
    """A big result: the Message around it, and its bytes as they come."""
    assert result.chunks is not None  # noqa: S101 - it has no content
    before, after = envelope.around(call.request.path)
    response = web.StreamResponse(
        headers={
            "Content-Type": envelope.CONTENT_TYPE,
            "Content-Length": str(len(before) + result.size + len(after)),
        }
    )
    sender = call.sender(response)
    await sender.begin()
    if await sender.write(before) and await sender.relay(result.chunks, result.size) == result.size:
        await sender.write(after)
    return await sender.end()


def _takes_no_code(engine: EngineView | PastEngine) -> Refused:
    if isinstance(engine, PastEngine):
        return bad_request(f"{engine.title} has ended ({engine.status}): create another engine")
    if engine.is_final:
        why = f", {engine.reason}" if engine.reason else ""
        return bad_request(f"{engine.title} has ended ({engine.state}{why}): create another engine")
    if engine.ending:
        return bad_request(f"{engine.title} is ShuttingDown and takes no more code: create another engine")
    return bad_request(f"{engine.title} is {engine.state}: wait until it is Idle, then send the code again")


def _run_type(gateway: Gateway, engine: EngineView, run_type: str) -> None:
    """Refuse a language that the catalogue's entry does not have; without the entry the agent decides."""
    for plugin in gateway.plugins.offered(engine.engine_type):
        if plugin.engine_version == engine.engine_version:
            if run_type not in plugin.run_types:
                raise bad_request(
                    f"runType is {run_type!r}: an engine of type {engine.engine_type} runs"
                    f" {', '.join(plugin.run_types)}"
                )
            return


async def get_engine_status(call: Call, request: EngineRequest) -> Answer:
    """The engine as it is, or as the database remembers it."""
    return Answer(info_of(await call.engine(request.engine_id)))


async def terminate_engine(call: Call, request: EngineRequest) -> Answer:
    """Ask for the engine's end. Twice, or for an unknown engine, is a success: it is not running, as was asked."""
    gateway, caller = call.gateway, call.caller
    done = "Kill engineConn succeed."
    view = gateway.engines.resolve(request.engine_id)
    if view is None:
        return Answer(TerminateAnswer(engine=None), message=done)
    owned(view, caller)
    if not view.stop_requested and not view.is_final:
        try:
            stop = {"spec": {"desiredState": "Stopped"}}
            view = view_of(await gateway.cluster.patch(ENGINECONNS, view.name, stop, namespace=view.namespace))
        except NotFound:
            pass  # gone is what was asked for
        except ApiError as error:
            log.warning("%s cannot be stopped: %s", view.title, error)
            raise unavailable(f"The API server does not take the stop of {view.title} now: try again") from None
        log.info("%s is stopped by %s", view.title, caller.user)
    return Answer(TerminateAnswer(engine=info_of(view)), message=done)


async def list_engines(call: Call, request: ListEnginesRequest) -> Answer:
    """The caller's engines, an admin's of everybody, newest first."""
    gateway, caller = call.gateway, call.caller
    if request.user is not None and not caller.may_use(request.user):
        raise forbidden(
            f"user is {request.user!r} and you are {caller.user!r}: leave user out to list your own engines"
        )
    status = _status(request.status)
    user = request.user or (None if caller.is_admin else caller.user)
    found = [
        view
        for view in gateway.engines
        if (user is None or view.user == user)
        and (status is None or view.state is status)
        and (request.engine_type is None or view.engine_type == request.engine_type)
    ]
    found.sort(key=lambda view: view.key)
    found.sort(key=lambda view: view.created, reverse=True)
    first = (request.page_now - 1) * request.page_size
    page = found[first : first + request.page_size]
    return Answer(
        EnginesAnswer(
            engines=[info_of(view) for view in page],
            total=len(found),
            page_now=request.page_now,
            page_size=request.page_size,
        )
    )


def _status(text: str | None) -> EngineState | None:
    if not text:
        return None
    try:
        return EngineState(text)
    except ValueError:
        raise bad_request(f"Parameter status is {text[:40]!r}: give one of {', '.join(ORDER)}") from None

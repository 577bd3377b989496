"""getEngineStatus, terminateEngine, listEngines."""

from __future__ import annotations

import logging

from linkis_ecm.api.models import (
    EngineRequest,
    EnginesAnswer,
    ListEnginesRequest,
    TerminateAnswer,
)
from linkis_ecm.engine.matching import linkis_state
from linkis_ecm.gateway.answers import Answer
from linkis_ecm.gateway.context import Call
from linkis_ecm.gateway.http.errors import bad_request, denied, forbidden, unavailable
from linkis_ecm.gateway.inventory.info import info_of
from linkis_ecm.gateway.inventory.lookup import may_use, require_use, unknown_engine
from linkis_ecm.gateway.inventory.view import KnownEngine, view_of
from linkis_ecm.kube.errors import ApiError, NotFound
from linkis_ecm.kube.resources import ENGINECONNS
from linkis_ecm.model.states import ORDER, EngineState

log = logging.getLogger(__name__)


async def get_engine_status(call: Call, request: EngineRequest) -> Answer:
    """The engine as it is, or as the database remembers it."""
    engine = await call.engine(request.engine_id)
    return Answer(info_of(engine, call.gateway.clock(), asked=request.engine_id))


async def terminate_engine(call: Call, request: EngineRequest) -> Answer:
    """Ask for the engine's end. Twice, or after its end, is a success: it is not running, as was asked."""
    gateway, caller = call.gateway, call.caller
    done = "Kill engineConn succeed."
    view = await gateway.lookup.find_fresh(request.engine_id, caller=caller)
    if view is None:
        # An engine that the watch lacks is not ended by saying so.
        view = await gateway.lookup.find_named(request.engine_id, caller=caller)
    if view is None or not view.in_cluster:
        # An admin may know of no engine; others are not told whether there is one that is not theirs.
        if not caller.is_admin and (view is None or not may_use(caller, view.user, view.namespace)):
            raise unknown_engine(caller, request.engine_id)
        return Answer(TerminateAnswer(engine=None), message=done)
    call.audit_engine(view)
    require_use(caller, view, request.engine_id)
    info = info_of(await stop(call, view), gateway.clock(), asked=request.engine_id)
    return Answer(TerminateAnswer(engine=info), message=done)


async def stop(call: Call, view: KnownEngine) -> KnownEngine:
    """Request the engine's stop, unless it is requested already. Returns the engine after the write. Raises Refused."""
    call.audit_engine(view)
    if view.stop_requested or view.is_final:
        return view
    try:
        change = {"spec": {"desiredState": "Stopped"}}
        view = view_of(await call.gateway.cluster.patch(ENGINECONNS, view.name, change, namespace=view.namespace))
    except NotFound:
        pass  # it is deleted already: the stop has succeeded
    except ApiError as error:
        log.warning("%s cannot be stopped: %s", view.title, error)
        raise unavailable(f"The API server does not take the stop of {view.title} now: try again") from None
    log.info("%s is stopped by %s", view.title, call.caller.user)
    return view


async def list_engines(call: Call, request: ListEnginesRequest) -> Answer:
    """The caller's engines, an admin's of everybody, newest first."""
    gateway, caller = call.gateway, call.caller
    if request.user not in (None, caller.user) and not caller.sees_others:
        raise denied(
            forbidden(f"user is {request.user!r} and you are {caller.user!r}: leave user out to list your own engines")
        )
    status = _status(request.status)
    user = request.user or (None if caller.sees_others else caller.user)
    call.about_user(user)
    now = gateway.clock()
    found = [
        view
        for view in call.usable_engines()
        if (user is None or view.user == user)
        and (status is None or status in (view.state, linkis_state(view, now)))
        and (request.engine_type is None or view.engine_type == request.engine_type)
    ]
    found.sort(key=lambda view: view.key)
    found.sort(key=lambda view: view.created, reverse=True)
    first = (request.page_now - 1) * request.page_size
    page = found[first : first + request.page_size]
    return Answer(
        EnginesAnswer(
            engines=[info_of(view, now) for view in page],
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

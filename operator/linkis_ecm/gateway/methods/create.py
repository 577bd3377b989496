"""createEngineConnection: creates an EngineConn and waits until it is ready.

A call can be repeated. The resource's name is derived from the ticket, so a second POST with the same ticket finds the
engine of the first one, on every replica. The wait listens to the engine cache; it does not poll. Must not write
anything but the one resource.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from base64 import b32encode
from contextlib import suppress
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from linkis_ecm.api.models import CreateEngineRequest
from linkis_ecm.engine.admission.limits import Amount, Holder, Refusal
from linkis_ecm.engine.matching import CLAIM_ANNOTATION, Claim
from linkis_ecm.engine.names import INSTANCE
from linkis_ecm.gateway.answers import Answer
from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.context import Call, Gateway
from linkis_ecm.gateway.http.errors import Refused, bad_request, denied, forbidden, unavailable
from linkis_ecm.gateway.http.validate import sentence
from linkis_ecm.gateway.inventory.ecm_state import AVAILABLE
from linkis_ecm.gateway.inventory.info import info_of
from linkis_ecm.gateway.inventory.lending import Loan
from linkis_ecm.gateway.inventory.lookup import require_owner
from linkis_ecm.gateway.inventory.places import refused_place
from linkis_ecm.gateway.inventory.view import KnownEngine, extended, milli, view_of, whole_bytes
from linkis_ecm.gateway.methods.engines import stop
from linkis_ecm.kube.errors import AlreadyExists, ApiError, Forbidden, Invalid, NotFound, ServerError, Unreachable
from linkis_ecm.kube.resources import ENGINECONNS
from linkis_ecm.model import reasons
from linkis_ecm.model.engineconn import API_VERSION, EngineConnSpec
from linkis_ecm.model.formats import sentences

log = logging.getLogger(__name__)

# How many names are tried for one ticket. A name has 30 bits of a hash, so two engines of one user and type get the
# same name once in a billion pairs.
MAX_NAME_TRIES = 3
# Lengths of a name's parts. With its suffix the name is shorter than a label's 63 characters, and mostly shorter than
# the 30 characters that the pod's name has of it.
_TYPE_CHARS, _USER_CHARS = 20, 30
# A watch reports within milliseconds. A broken watch is replaced later than a caller should wait.
WATCH_SECONDS = 5.0
# Linkis's own words around the reason of a failed start.
FAILED = "Create engineConn failed, caused by {}"
# The job of a `once` engine runs or has run, so its creation has succeeded. Its state says how the job ended.
_JOB_REASONS = frozenset({reasons.JOB_RUNNING.name, reasons.COMPLETED.name, reasons.JOB_FAILED.name})


class NotReadyInTimeError(Refused):
    """The engine was not ready in time and goes on starting; `view` is the engine as it was then."""

    def __init__(self, view: KnownEngine, sentence: str, data: dict[str, Any]) -> None:
        super().__init__(sentence, data=data)
        self.view = view


class NoPlaceError(Refused):
    """The operator has given the engine no place under the limits of people; `view` is the engine, which waits."""

    def __init__(self, view: KnownEngine, why: Refused) -> None:
        super().__init__(why.sentence, data=why.data)
        self.view = view


async def create_engine_connection(call: Call, request: CreateEngineRequest) -> Answer:
    """Make the engine, or find the one that this ticket made; wait if asked to."""
    made = await make_engine(call, request)
    # The ticket is the caller's own, or was made for it.
    info = info_of(made, call.gateway.clock(), asked=made.ticket_id)
    return Answer(info, message="create engineConn succeed.")


async def make_engine(
    call: Call, request: CreateEngineRequest, *, claim: Claim | None = None, loan: Loan | None = None
) -> KnownEngine:
    """Create the engine, or find the ticket's. With `claim` it is claimed from the start. With `loan` it is made to be
    lent, in its owner's name, and the caller has no right to it but the claim. Raises Refused."""
    gateway, caller = call.gateway, call.caller
    began = gateway.clock()
    namespace = namespace_of(gateway, caller, request.namespace)
    if loan is None:
        user, ticket_id = _engine_user(caller, request.user, namespace), request.ticket_id or gateway.new_id()
    else:
        user, ticket_id = loan.owner, loan.ticket_id
        # Whose ticket it is, is asked as of the owner.
        caller = Caller(loan.owner)
    engine = await _earlier_engine(gateway, caller, request, user)
    made = engine is None
    if engine is None:
        await refuse_if_drained(gateway)
        _require_offered(gateway, request)
        _require_place(gateway, request, user=user, namespace=namespace)
        body = engine_conn(request, user=user, namespace=namespace, ticket_id=ticket_id)
        if loan is not None:
            body["spec"]["share"] = loan.spec()
        annotations = {}
        if claim is not None:
            annotations[CLAIM_ANNOTATION] = claim.text()
        if owner := gateway.settings.owner:
            # Else another installation in the namespace may take it, and this gateway has no key to its agent.
            annotations[INSTANCE] = owner
        if annotations:
            body["metadata"]["annotations"] = annotations
        engine = await _create(gateway, caller, request, user=user, namespace=namespace, body=body)
    call.audit.add(engine.ticket_id)
    call.about_user(engine.user)
    if request.wait:
        try:
            ready = await _wait_until_ready(gateway, engine, request.timeout_seconds, once=request.mode == "once")
        except NoPlaceError as why:
            if made:
                # Another engine got the place meanwhile. Who was refused does not expect an engine later.
                with suppress(Refused):
                    await stop(call, why.view)
            raise
        if made:
            gateway.metrics.got_engine(ready.ticket_id, "cold", (gateway.clock() - began).total_seconds())
        return ready
    await _wait_until_watched(gateway, engine)
    return engine


def _engine_user(caller: Caller, requested: str | None, namespace: str) -> str:
    if requested is None:
        return caller.user
    refusal = f"user is {requested!r} and you are {caller.user!r}: leave user out, or have an admin of the gateway ask"
    require_owner(caller, requested, namespace, forbidden(refusal))
    return requested or caller.user


def namespace_of(gateway: Gateway, caller: Caller, requested: str | None) -> str:
    """The namespace that a new engine goes to: the requested one, else the first that the caller may use. Raises
    Refused."""
    settings = gateway.settings
    allowed = [name for name in settings.engine_namespaces if caller.may_enter(name)]
    # If the operator watches all namespaces, an admin may choose one. Other users may not.
    if requested in allowed or (requested and caller.is_admin and not settings.watch_namespaces):
        return requested or ""
    if requested is None and allowed:
        return allowed[0]
    found = ", ".join(sorted(allowed)) or "none that you may use"
    refusal = bad_request(f"namespace is {requested!r}: engines of this gateway go to {found}")
    raise denied(refusal) if requested in settings.engine_namespaces else refusal


def _require_offered(gateway: Gateway, request: CreateEngineRequest) -> None:
    """Raises Refused if the catalogue has no such engine type and version."""
    if not gateway.plugins.synced:
        raise unavailable("The catalogue of engines is not read yet: try again in a second")
    entries = gateway.plugins.entries_of_type(request.engine_type)
    catalogue = gateway.plugins.catalogue()
    if not entries:
        raise bad_request(f"engineType is {request.engine_type!r}: the catalogue offers {catalogue}")
    version = request.engine_version
    if request.mode == "computation" and (request.code or request.run_type):
        raise bad_request("code and runType belong to mode once: send them by executeCode, or set mode to once")
    if version is not None and all(entry.engine_version != version for entry in entries):
        raise bad_request(f"engineVersion is {version!r} of {request.engine_type}: the catalogue offers {catalogue}")
    if gateway.plugins.choose(engine_type=request.engine_type, version=version) is None:
        raise bad_request(
            f"engineType {request.engine_type} has several versions and none is the default: give engineVersion;"
            f" the catalogue offers {catalogue}"
        )


def _require_place(gateway: Gateway, request: CreateEngineRequest, *, user: str, namespace: str) -> None:
    """Raises Refused, with figure and remedy, if the engine would get no place under the limits of people."""
    plugin = gateway.plugins.choose(engine_type=request.engine_type, version=request.engine_version)
    size = request.resources
    cpu, memory = (milli(size.cpu), whole_bytes(size.memory)) if size is not None else (0, 0)
    if plugin is not None:
        cpu, memory = cpu or plugin.cpu_milli, memory or plugin.memory_bytes
    devices = extended(dict(plugin.extended) if plugin else None, size.extended if size else None)
    asked = Holder(namespace, request.name or "", user, Amount(1, cpu, memory, devices))
    refused = refused_place(
        asked,
        engines=gateway.engines,
        plugins=gateway.plugins,
        growing=gateway.growing,
        limits=gateway.settings.limits,
    )
    if refused is not None:
        raise limit_reached(gateway, refused, FAILED)


def limit_reached(gateway: Gateway, refused: Refusal, form: str) -> Refused:
    """The refusal of what gets no place; `form` is the sentence with a place for the reason. It is counted."""
    gateway.metrics.engine_refusals.labels(refused.limit).inc()
    reason = reasons.LIMIT_REACHED
    return bad_request(
        form.format(f"{reason.sentence} {refused.sentence} {reason.remedy}"),
        reason=reason.name,
        remedy=reason.remedy,
        canRetry=not refused.fatal,
        limit=refused.limit,
    )


async def _earlier_engine(
    gateway: Gateway, caller: Caller, request: CreateEngineRequest, user: str
) -> KnownEngine | None:
    """As `_engine_of_ticket`. Where the watch knows no such engine, the ECM's state is brought up to date beside the
    database's answer: `refuse_if_drained` asks for it next."""
    asking = _engine_of_ticket(gateway, caller, request, user)
    if request.ticket_id is not None and gateway.engines.resolve(request.ticket_id) is not None:
        return await asking
    engine, _ = await asyncio.gather(asking, gateway.em.state())
    return engine


async def _engine_of_ticket(
    gateway: Gateway, caller: Caller, request: CreateEngineRequest, user: str
) -> KnownEngine | None:
    """The engine that an earlier call with the same ticket created, if any."""
    if request.ticket_id is None:
        return None
    try:
        past = await gateway.lookup.find(request.ticket_id)
    except Refused:
        # The API server is the truth. Engines are created even if the database does not answer.
        return None
    if past is not None and past.in_cluster:
        return _require_same_request(past, caller, request, user)
    if past is not None and past.is_final:
        require_owner(caller, past.user, past.namespace, _foreign_ticket(past.ticket_id))
        raise bad_request(
            f"ticketId {request.ticket_id} belongs to an engine that has ended ({past.status}): give a new ticketId"
        )
    return None


def _foreign_ticket(ticket_id: str) -> Refused:
    """Says no more of another user's engine than that its ticket is taken."""
    return forbidden(f"ticketId {ticket_id} cannot be used: give a new UUID, or none")


def _require_same_request(view: KnownEngine, caller: Caller, request: CreateEngineRequest, user: str) -> KnownEngine:
    """`view` as the answer to a repeated request. Raises Refused where it is another engine."""
    require_owner(caller, view.user, view.namespace, _foreign_ticket(view.ticket_id))
    if view.user != user or (view.engine_type and view.engine_type != request.engine_type):
        raise bad_request(
            f"ticketId {view.ticket_id} is {view.title} of user {view.user} and type {view.engine_type}: give a new"
            " ticketId for another engine"
        )
    return view


def engine_conn(request: CreateEngineRequest, *, user: str, namespace: str, ticket_id: str) -> dict[str, Any]:
    """The EngineConn for the request, without a name. Raises Refused."""
    spec: dict[str, Any] = {
        "engineType": request.engine_type,
        "engineVersion": request.engine_version,
        "user": user,
        "creator": request.creator,
        "tenant": request.tenant,
        "ticketId": ticket_id,
        "mode": "once" if request.mode == "once" else None,  # a session is the resource's own default
        "code": request.code,
        "runType": request.run_type,
        "idleTimeout": request.idle_timeout,
        "startTimeout": request.start_timeout,
        "maxLifetime": request.max_lifetime,
        "ttlAfterFinished": request.ttl_after_finished,
    }
    if request.resources is not None:
        spec["resources"] = request.resources.model_dump(by_alias=True, exclude_none=True)
    if request.env:
        spec["env"] = [{"name": name, "value": value} for name, value in request.env.items()]
    spec = {name: value for name, value in spec.items() if value is not None}
    try:
        EngineConnSpec.model_validate(spec)
    except ValidationError as error:
        raise sentence(EngineConnSpec, error) from None
    metadata: dict[str, Any] = {"namespace": namespace}
    if request.labels:
        metadata["labels"] = dict(request.labels)
    return {"apiVersion": API_VERSION, "kind": "EngineConn", "metadata": metadata, "spec": spec}


def engine_name(engine_type: str, user: str, ticket_id: str, number: int = 0) -> str:
    """The name of a ticket's engine: `<type>-<user>-<6 characters of a hash>`. Each `number` gives another name."""
    suffix = b32encode(hashlib.sha256(f"{ticket_id}/{number}".encode()).digest())[:6].decode().lower()
    return f"{_host_name_part(engine_type, _TYPE_CHARS)}-{_host_name_part(user, _USER_CHARS)}-{suffix}"


def _host_name_part(text: str, length: int) -> str:
    """`text` with the characters of a host name only, since a pod's name is a host name."""
    return re.sub("[^a-z0-9]+", "-", text.lower())[:length].strip("-") or "x"


async def _create(
    gateway: Gateway, caller: Caller, request: CreateEngineRequest, *, user: str, namespace: str, body: dict[str, Any]
) -> KnownEngine:
    """The engine of `body`, created now or by an earlier call with the same ticket. Raises Refused."""
    ticket_id = body["spec"]["ticketId"]
    names = [request.name] if request.name else _names(request.engine_type, user, ticket_id)
    for name in names:
        body["metadata"]["name"] = name
        try:
            return view_of(await gateway.cluster.create(ENGINECONNS, body, namespace=namespace))
        except (AlreadyExists, ServerError, Unreachable) as error:
            # The name exists, or it is unknown whether the engine was created: read it from the API server.
            found = await _get_existing(gateway, namespace, name, error)
        except ApiError as error:
            raise _api_refusal(error) from None
        if found.ticket_id == ticket_id:
            return _require_same_request(found, caller, request, user)
    if request.name:
        raise bad_request(
            f"name {request.name!r} is taken in namespace {namespace}: choose another, leave name out, or repeat the"
            " ticketId of the call that made it"
        )
    raise unavailable("No free name was found for the engine: try again with a new ticketId")


def _names(engine_type: str, user: str, ticket_id: str) -> list[str]:
    return [engine_name(engine_type, user, ticket_id, number) for number in range(MAX_NAME_TRIES)]


async def _get_existing(gateway: Gateway, namespace: str, name: str, cause: ApiError) -> KnownEngine:
    try:
        return view_of(await gateway.cluster.get(ENGINECONNS, name, namespace=namespace))
    except NotFound:
        if isinstance(cause, AlreadyExists):
            # It existed a moment ago and is deleted now. The name is free when the caller tries again.
            raise unavailable(f"The engine {namespace}/{name} of this ticket was just deleted: try again") from None
        raise _api_refusal(cause) from None
    except ApiError as error:
        raise _api_refusal(error) from None


def _api_refusal(error: ApiError) -> Refused:
    """The API server's refusal in a sentence."""
    text = " ".join(error.message.split())[:500]
    if isinstance(error, Invalid):
        return bad_request(f"The API server refuses the engine: {text}")
    if isinstance(error, Forbidden):
        return bad_request(
            f"The API server does not allow the engine: {text}: ask for less, or have an admin of the cluster allow it",
            reason=error.reason,
            canRetry=False,
        )
    if isinstance(error, NotFound):
        return bad_request(f"The API server does not know where to put the engine: {text}: check namespace")
    log.warning("an engine cannot be created: %s", error)
    return unavailable("The API server does not take the engine now: try again with the same ticketId")


async def _wait_until_watched(gateway: Gateway, engine: KnownEngine) -> None:
    """Wait until our own watch has reported the engine, so that the caller's next call finds it."""
    changed = asyncio.Event()
    with gateway.engines.listen(engine.key, lambda _: changed.set()):
        try:
            async with asyncio.timeout(WATCH_SECONDS):
                while (known := gateway.engines.get(engine.key)) is None or known.uid != engine.uid:
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            log.warning("%s is made, and the watch has not told of it within %g s", engine.title, WATCH_SECONDS)


async def _wait_until_ready(gateway: Gateway, engine: KnownEngine, seconds: float, *, once: bool) -> KnownEngine:
    """The engine once it is ready or runs its job. Raises Refused if it ends first, or is not ready in time."""
    views: asyncio.Queue[KnownEngine | None] = asyncio.Queue()
    last = engine
    with gateway.engines.listen(engine.key, views.put_nowait):
        current = gateway.engines.get(engine.key)
        if current is not None and current.uid == engine.uid:
            last = current
        try:
            async with asyncio.timeout(seconds):
                while not (last.usable or (once and last.reason in _JOB_REASONS)):
                    if last.is_final or last.is_ending:
                        raise _start_refusal(last, gateway.clock())
                    if last.reason == reasons.LIMIT_REACHED.name:
                        raise NoPlaceError(last, _start_refusal(last, gateway.clock()))
                    view = await views.get()
                    if view is None or view.uid != engine.uid:
                        raise _start_refusal(last, gateway.clock(), reasons.DELETED)
                    last = view
        except TimeoutError:
            raise _not_ready_in_time(last, seconds, gateway.clock()) from None
    return last


def _start_refusal(view: KnownEngine, now: datetime, reason: reasons.Reason | None = None) -> Refused:
    """Why the engine never became ready."""
    known = reason or reasons.by_name(view.reason)
    if known is None and view.is_ending:
        known = reasons.STOPPED_BY_USER
    text = known.sentence if known else "the engine ended before it was ready."
    if view.message and not reason:
        text = view.message
    elif known and known.remedy:
        text = sentences(text, known.remedy)
    return Refused(
        FAILED.format(text),
        data={
            "reason": known.name if known else view.reason,
            "remedy": known.remedy if known else "",
            "canRetry": bool(known and known.can_retry),
            "ticketId": view.ticket_id,
            "engine": info_of(view, now, asked=view.ticket_id).model_dump(by_alias=True),
        },
    )


def _not_ready_in_time(view: KnownEngine, seconds: float, now: datetime) -> NotReadyInTimeError:
    known = reasons.by_name(view.reason)
    why = f" ({view.message or view.reason})" if view.message or view.reason else ""
    return NotReadyInTimeError(
        view,
        FAILED.format(
            f"{view.title} being {view.state}{why} after {seconds:g} s: it goes on starting, so ask again with ticketId"
            f" {view.ticket_id}, or give a longer timeoutSeconds"
        ),
        data={
            "reason": view.reason,
            "remedy": sentences(known.remedy if known else "", "Repeat the call with the same ticketId"),
            "canRetry": True,
            "ticketId": view.ticket_id,
            "engine": info_of(view, now, asked=view.ticket_id).model_dump(by_alias=True),
        },
    )


async def refuse_if_drained(gateway: Gateway) -> None:
    """Raises Refused where an admin has taken this ECM out."""
    state = await gateway.em.state()
    if state.health not in AVAILABLE:
        raise Refused(
            f"this ECM is {state.health} and takes no new engines: wait, or ask an admin (modifyEMInfo)",
            data={"reason": "EcmUnhealthy", "canRetry": True},
        )

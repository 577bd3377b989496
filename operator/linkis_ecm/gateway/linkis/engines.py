"""Linkis's engine calls: ask, create, get, kill, list (EngineRestfulApi). Texts and shapes are Linkis's.

Where the real one lets anybody kill anything (rm/enginekill), ours asks for the owner or an admin.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from linkis_ecm.api.models import CREATE_SECONDS, CREATE_SECONDS_MAX, CreateEngineRequest
from linkis_ecm.engine.matching import FREE, Claim, Requirements
from linkis_ecm.gateway.answers import Answer
from linkis_ecm.gateway.context import Call
from linkis_ecm.gateway.http.errors import Refused, bad_request, denied, forbidden, shown
from linkis_ecm.gateway.http.validate import validated
from linkis_ecm.gateway.inventory.sizes import with_sizes
from linkis_ecm.gateway.inventory.view import KnownEngine, extended, milli, whole_bytes
from linkis_ecm.gateway.linkis import shapes
from linkis_ecm.gateway.linkis.errors import error_code
from linkis_ecm.gateway.linkis.requests import AskEngine, Instance, KillInstances, Kills, ListEmEngines, Nothing
from linkis_ecm.gateway.methods.create import FAILED, NotReadyInTimeError, make_engine, namespace_of
from linkis_ecm.gateway.methods.engines import stop
from linkis_ecm.model import reasons
from linkis_ecm.model.formats import as_sentence, sentences
from linkis_ecm.model.users import linkis_user

log = logging.getLogger(__name__)

KILLED = "Kill engineConn succeed."
# Linkis's startup properties that say how big an engine is, the more particular one first.
_MEMORY = ("wds.linkis.engineconn.java.driver.memory", "linkis.engineconn.memory", "spark.driver.memory")
_CORES = ("wds.linkis.engineconn.java.driver.cores", "linkis.engineconn.cores", "spark.driver.cores")
_IDLE = "wds.linkis.engineconn.max.free.time"
_MODE = "engineConnMode"
_CONTENT = "onceExecutorContent"


async def ask_engine_conn(call: Call, request: AskEngine) -> Answer:
    """A free engine of these labels, or a new one; either is claimed: no other asker gets it for some minutes.

    With `explain` the answer's data, a refusal's too, has `verdicts`: {engine (a ticketId), verdict, sentence} for each
    live engine of the user, the newest first, 100 at most; `verdict` is Fits or why the engine was not given out.
    """
    create_request = _create_request(call, request, request.time_out)
    required = _requirements(call, create_request)
    # Before the claim: the chosen engine is Claimed after it.
    explained = {"verdicts": _verdicts(call, required)} if request.explain else {}
    try:
        found, message = await _take_or_make(call, create_request, required)
    except Refused as why:
        why.data |= explained
        raise
    call.audit_engine(found)
    engine = shapes.started(found, ecm=call.gateway.settings.instance)
    lock = {"lock": found.claim.by if found.claim else None}
    return Answer({"engine": engine | lock} | explained, message=message)


async def _take_or_make(
    call: Call, create_request: CreateEngineRequest, required: Requirements
) -> tuple[KnownEngine, str]:
    """The engine, and Linkis's word for whether it was free or is new. Raises Refused, in Linkis's words."""
    claims = call.gateway.claims
    try:
        found = await claims.claim_free_engine(required, call.may_use)
    except Refused as why:
        raise _in_linkis_words(why) from None
    if found is not None:
        return found, "reuse engineConn ended."
    made = await _make(call, create_request, claim=claims.new(starting=create_request.timeout_seconds))
    return made, "create engineConn ended."


def _verdicts(call: Call, required: Requirements) -> list[dict[str, str]]:
    return [
        {"engine": engine.ticket_id, "verdict": str(found.mismatch or "Fits"), "sentence": found.sentence}
        for engine, found in call.gateway.claims.explain(required, call.may_use)
    ]


async def create_engine_conn(call: Call, request: AskEngine) -> Answer:
    """A new engine, once it takes code; one for a once job at once, for its client asks until it runs."""
    create_request = _create_request(call, request, request.timeout)
    once = str((request.labels or {}).get(_MODE) or "").lower() == "once"
    view = await _make(call, create_request.model_copy(update={"wait": not once}))
    return Answer(
        {"engine": shapes.started(view, ecm=call.gateway.settings.instance)}, message="create engineConn succeed."
    )


async def _make(call: Call, create_request: CreateEngineRequest, *, claim: Claim | None = None) -> KnownEngine:
    try:
        return await make_engine(call, create_request, claim=claim)
    except NotReadyInTimeError as late:
        # Linkis stops it too: its client cannot name the ticket, so a second try would leave the first one's engine.
        await stop(call, late.view)
        known = reasons.by_name(late.view.reason)
        cause = known if known is not None and known.remedy else None  # else nothing prevents it: it is only slow
        remedy = cause.remedy if cause else "Ask again, with a longer timeout (in milliseconds)."
        state = f"{late.view.title} being {late.view.state} after {create_request.timeout_seconds:g} s: it is stopped"
        why = (late.view.message or cause.sentence) if cause else ""
        # The engine's own message ends with the remedy.
        text = FAILED.format(sentences(state, why, "" if remedy in why else remedy))
        can_retry = cause is None or cause.can_retry
        raise Refused(text, data=late.data | {"remedy": remedy, "canRetry": can_retry}) from None
    except Refused as why:
        raise _in_linkis_words(why) from None


def _in_linkis_words(why: Refused) -> Refused:
    """Linkis's clients read canRetry from data, and the reason from the text."""
    has_cause = why.sentence.startswith(FAILED.format(""))
    text = why.sentence if has_cause else FAILED.format(as_sentence(why.sentence))
    return Refused(text, status=why.status, http=why.http, data=why.data, headers=why.headers)


def _create_request(call: Call, request: AskEngine, millis: int) -> CreateEngineRequest:
    """Linkis's labels and properties as ours. Raises Refused."""
    engine_type, version = _pair(request, "engineType")
    user, creator = _pair(request, "userCreator")
    properties = request.properties or {}
    if properties.get(_CONTENT):
        # An engine that never runs its job would look to the client like one that runs it.
        raise bad_request(
            f"properties.{_CONTENT} is a job that Linkis's BML holds, and this gateway does not read BML: leave it out"
            " and send the code to the engine, or create an EngineConn with mode once and the code in it"
        )
    seconds = CREATE_SECONDS if millis <= 0 else max(1, min(CREATE_SECONDS_MAX, millis // 1000))
    body: dict[str, Any] = {"engineType": engine_type, "wait": True, "timeoutSeconds": seconds}
    if version:
        body["engineVersion"] = version
    if creator:
        body["creator"] = creator
    # As Linkis: the login is the user, whatever the request says; an admin may name another by the label.
    namespace = namespace_of(call.gateway, call.caller, None)
    if user and linkis_user(user) != call.caller.user and call.caller.is_admin_in(namespace):
        body["user"] = user
    resources = {"memory": _memory(properties), "cpu": _property(properties, _CORES)}
    if any(resources.values()):
        body["resources"] = {name: value for name, value in resources.items() if value}
    if idle := _property(properties, (_IDLE,)):
        body["idleTimeout"] = idle if idle[-1:].isalpha() else f"{idle}ms"
    return validated(CreateEngineRequest, body)


def _pair(request: AskEngine, key: str) -> tuple[str, str]:
    """A label's two parts, however the client writes it: text, {"stringValue"}, or its fields."""
    label = (request.labels or {}).get(key)
    if isinstance(label, dict):
        first = label.get("engineType") or label.get("user") or ""
        second = label.get("version") or label.get("creator") or ""
        label = label.get("stringValue") or (f"{first}-{second}" if first else "")
    if label is None and key == "userCreator":
        return "", ""
    if not isinstance(label, str) or not label.strip("-"):
        raise bad_request(f"Label {key} cannot be empty: give labels.{key}, such as python-1 or hadoop-IDE")
    if key == "userCreator" and "-" in label:
        # A user may have hyphens, a creator has none.
        first, _, second = label.rpartition("-")
    else:
        first, _, second = label.partition("-")
    return first, second


def _property(properties: dict[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        value = properties.get(name)
        if value not in (None, ""):
            return str(value)
    return ""


def _memory(properties: dict[str, Any]) -> str:
    """Linkis's 1g, 512m, 2.0 GB as a Kubernetes quantity."""
    text = _property(properties, _MEMORY)
    if not text:
        return ""
    found = shapes.size(text)
    if not found:
        raise bad_request(f"properties: memory is {text[:40]!r}: write it like 512m or 2g")
    return f"{-(-found // (1 << 20))}Mi"


def _requirements(call: Call, create_request: CreateEngineRequest) -> Requirements:
    """What a running engine must have to be given out instead of a new one."""
    size = create_request.resources
    return Requirements(
        user=create_request.user or call.caller.user,
        creator=create_request.creator,
        engine_type=create_request.engine_type,
        engine_version=create_request.engine_version,
        labels=create_request.labels or {},
        cpu_milli=milli(size.cpu) if size else 0,
        memory_bytes=whole_bytes(size.memory) if size else 0,
        extended=extended(size.extended) if size else (),
    )


async def get_engine_conn(call: Call, request: Instance) -> Answer:
    """A node, from the cluster or from its record: by ticket, then by instance."""
    asked = request.instance or request.ticket_id
    if not asked:
        raise bad_request("Parameter instance cannot be empty (参数 instance 不能为空)")
    refusal = forbidden(f"You have no permission to access EngineConn {shown(asked)}")
    engine = await call.engine_or_refusal((request.ticket_id, request.instance), refusal)
    if engine is None:
        raise bad_request(f"Instance does not exist {shown(asked)}")
    metrics = "{}"
    records = call.gateway.records
    if engine.in_cluster:
        node = shapes.engine_node(with_sizes(call.gateway.plugins, engine), ecm=call.gateway.settings.instance)
        metrics = await _metrics(call, engine)
    else:
        node = shapes.past_node(engine)
        if records is not None:
            row = await call.gateway.history.record_of(records, engine)
            metrics = (row.metrics if row is not None else None) or "{}"
    return Answer({"engine": node, "ecMetrics": metrics})


async def _metrics(call: Call, engine: KnownEngine) -> str:
    """The agent's figures, if it answers: how the engine is, which a once job's client asks for, the cluster knows."""
    if not engine.takes_code:
        return "{}"
    try:
        report = await call.gateway.agents.status(engine)
    except Refused as why:
        log.info("%s does not tell its metrics: %s", engine.title, why.sentence)
        return "{}"
    return json.dumps({"ticketId": engine.ticket_id, **report["metrics"]})


async def kill_engine_conn(call: Call, request: Instance) -> Answer:
    """Stop an engine; an own one that has ended is stopped, as was asked. To admins so is one that nobody knows."""
    if not request.instance:
        raise bad_request("Parameter instance cannot be empty (参数 instance 不能为空)")
    await _kill(call, request.instance)
    return Answer({}, message=KILLED)


async def engine_kill(call: Call, request: Kills) -> Answer:
    """rm/enginekill: several. The first that is another user's ends it."""
    for kill in request.root:
        await _kill(call, kill.engine_instance)
    return Answer({}, message=KILLED)


async def engine_kill_async(call: Call, request: KillInstances) -> Answer:
    """rm/enginekillAsyn: for admins, and only engines without a task."""
    caller = call.caller
    if not caller.is_admin:
        raise denied(bad_request(f"User:{caller.user} has no permission to asyn kill engines."))
    for instance in request.instances:
        view = call.gateway.engines.resolve(instance)
        if view is not None and view.state in FREE:
            await stop(call, view)
    return Answer({}, message=KILLED)


async def _kill(call: Call, instance: str) -> None:
    refusal = forbidden(f"You have no permission to kill EngineConn {shown(instance)}")
    view = await call.engine_or_refusal((instance,), refusal)
    if view is not None and view.in_cluster:
        await stop(call, view)


async def list_user_engines(call: Call, _: Nothing) -> Answer:
    """The caller's own live engines."""
    return Answer(
        {
            "engines": [
                shapes.engine_node(with_sizes(call.gateway.plugins, view), ecm=call.gateway.settings.instance)
                for view in sorted(call.usable_engines(), key=lambda view: view.created, reverse=True)
                if view.user == call.caller.user and not view.is_final
            ]
        }
    )


async def list_em_engines(call: Call, request: ListEmEngines) -> Answer:
    """An ECM's live engines, for admins; emInstance looks into the engine's own address, as Linkis's does."""
    if not call.caller.is_admin:
        raise denied(error_code(210003, "Only admin can search engine information(只有管理员才能查询所有引擎信息)."))
    call.about_user(None)
    em_instance = request.em.service_instance.instance if request.em.service_instance is not None else None
    ecm = call.gateway.settings.instance
    found = [
        shapes.engine_vo(with_sizes(call.gateway.plugins, view), ecm=ecm)
        for view in sorted(call.usable_engines(), key=lambda view: view.created, reverse=True)
        if not view.is_final
        and em_instance in (None, "", view.ecm_instance or ecm)
        and (not request.em_instance or request.em_instance in view.service_instance)
        and (not request.node_status or request.node_status.lower() == str(view.state).lower())
        and (not request.engine_type or request.engine_type.lower() == view.engine_type.lower())
        and (not request.owner or request.owner.lower() == view.user.lower())
    ]
    return Answer({"engines": found})

"""Linkis's engine calls: ask, create, get, kill, list (EngineRestfulApi). Texts and shapes are Linkis's.

Where the real one lets anybody kill anything (rm/enginekill), ours asks for the owner or an admin.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

from linkis_ecm.api.models import CREATE_SECONDS, CREATE_SECONDS_MAX, CreateEngineRequest
from linkis_ecm.engine.matching import Claim, Mismatch, Requirements, linkis_state
from linkis_ecm.gateway.answers import Answer
from linkis_ecm.gateway.context import Call
from linkis_ecm.gateway.http.errors import Refused, bad_request, denied, forbidden, shown
from linkis_ecm.gateway.http.validate import validated
from linkis_ecm.gateway.inventory.lending import Loan, group_of, holds, is_lending, no_place, not_lendable, own_lock
from linkis_ecm.gateway.inventory.sizes import with_sizes
from linkis_ecm.gateway.inventory.view import KnownEngine, extended, milli, whole_bytes
from linkis_ecm.gateway.linkis import shapes
from linkis_ecm.gateway.linkis.errors import error_code
from linkis_ecm.gateway.linkis.labels import AskedLabels, read_labels
from linkis_ecm.gateway.linkis.requests import (
    AskEngine,
    Instance,
    KillInstances,
    Kills,
    ListEmEngines,
    Nothing,
    unknown_of_ours,
)
from linkis_ecm.gateway.methods.create import FAILED, NotReadyInTimeError, make_engine, namespace_of
from linkis_ecm.gateway.methods.engines import stop
from linkis_ecm.model import reasons
from linkis_ecm.model.formats import as_sentence, sentences
from linkis_ecm.model.states import EngineState
from linkis_ecm.model.users import linkis_user

log = logging.getLogger(__name__)

KILLED = "Kill engineConn succeed."
# Linkis's startup properties that say how big an engine is, the more particular one first.
_MEMORY = ("wds.linkis.engineconn.java.driver.memory", "linkis.engineconn.memory", "spark.driver.memory")
_CORES = ("wds.linkis.engineconn.java.driver.cores", "linkis.engineconn.cores", "spark.driver.cores")
_IDLE = "wds.linkis.engineconn.max.free.time"
_MODE = "engineConnMode"
_CONTENT = "onceExecutorContent"
_FORMS = {
    "userCreator": "give labels.userCreator as user-creator, such as hadoop-IDE",
    "engineType": "give labels.engineType as type-version, such as python-3.11, or the type alone for its default"
    " version",
}


async def ask_engine_conn(call: Call, request: AskEngine) -> Answer:
    """A free engine of these labels, or a new one; either is claimed: no other asker gets it for some minutes.

    With `explain` the answer's data, a refusal's too, has `verdicts`: {engine (a ticketId), verdict, sentence} for each
    live engine of the user, or of those that are lent to the user's like, the newest first, 100 at most; `verdict` is
    Fits or why the engine was not given out. Of a lent one that the user holds also {instance, lock, until}.
    """
    labels = read_labels(request.labels)
    millis = request.time_out or request.timeout
    create_request = _create_request(call, request, labels, millis)
    loan = loan_of(call, create_request, labels)
    required = _requirements(call, create_request, labels, loan)
    # Before the claim: the chosen engine is Claimed after it.
    explained = {"verdicts": _verdicts(call, required, loan)} if request.explain else {}
    try:
        if loan is None:
            found, message = await _take_or_make(call, create_request, required)
        else:
            found, message = await _borrow(call, create_request, required, loan)
    except Refused as why:
        why.data |= explained
        raise _told_of_wait(why, millis) from None
    call.audit_engine(found)
    engine = shapes.started(found, ecm=call.gateway.settings.instance, now=call.gateway.clock())
    lock = {"lock": found.claim.by if found.claim else None}
    return Answer({"engine": engine | lock} | explained, message=_with_wait(message, millis))


async def _take_or_make(
    call: Call, create_request: CreateEngineRequest, required: Requirements
) -> tuple[KnownEngine, str]:
    """The engine, and Linkis's word for whether it was free or is new. Raises Refused, in Linkis's words."""
    gateway, claims = call.gateway, call.gateway.claims
    began = gateway.clock()
    try:
        found = await claims.claim_free_engine(required, call.may_use)
    except Refused as why:
        raise _in_linkis_words(why) from None
    if found is not None:
        gateway.metrics.got_engine(found.ticket_id, "reuse", (gateway.clock() - began).total_seconds())
        return found, "reuse engineConn ended."
    made = await _make(call, create_request, claim=claims.new(starting=create_request.timeout_seconds))
    return made, "create engineConn ended."


async def _borrow(
    call: Call, create_request: CreateEngineRequest, required: Requirements, loan: Loan
) -> tuple[KnownEngine, str]:
    """The same for an engine that is lent: the caller is no owner and has the claim alone. Raises Refused."""
    gateway, claims, user = call.gateway, call.gateway.claims, call.caller.user
    began = gateway.clock()

    def may_take(engine: KnownEngine) -> bool:
        return call.may_borrow(engine) and loan.covers(engine, gateway.plugins.of(engine))

    try:
        with claims.lending(loan, user):
            found = await claims.claim_free_engine(required, may_take, user=user)
            if found is not None:
                gateway.metrics.got_engine(found.ticket_id, "reuse", (gateway.clock() - began).total_seconds())
                return found, "reuse engineConn ended."
            if why := claims.not_lent.why(loan, gateway.clock()):
                raise not_lendable(why, made=False)
            claim = claims.new(starting=create_request.timeout_seconds, user=user)
            made = await _make(call, _plain(create_request, loan), claim=claim, loan=loan)
            if not may_take(made):
                await stop(call, made)
                why = made.not_lent_because or "Its operator shares no engines: it is older than this gateway."
                claims.not_lent.remember(loan, why, gateway.clock())
                raise not_lendable(why, made=True)
    except Refused as why:
        if why.data.get("reason") == reasons.LIMIT_REACHED.name:
            raise no_place(loan, why.data) from None
        # The engine is another's: what it is, where it runs and its ticket are not for who got nothing.
        kept = {name: why.data[name] for name in why.data if name not in ("engine", "ticketId")}
        told = why if why.sentence.startswith(FAILED.format("")) else _in_linkis_words(why)
        raise Refused(told.sentence, status=why.status, http=why.http, data=kept, headers=why.headers) from None
    return made, "create engineConn ended."


def _verdicts(call: Call, required: Requirements, loan: Loan | None) -> list[dict[str, Any]]:
    def may_see(engine: KnownEngine) -> bool:
        if loan is None:
            return call.may_use(engine)
        # Of an engine that could be lent to the caller, whether the operator lets it or not.
        offered = call.may_borrow(replace(engine, is_lent=True)) and engine.lent_group == required.lent_group
        return offered and loan.covers(engine, call.gateway.plugins.of(engine))

    now, verdicts = call.gateway.clock(), []
    for engine, found in call.gateway.claims.explain(required, may_see):
        told: dict[str, Any] = {
            "engine": engine.ticket_id, "verdict": str(found.mismatch or "Fits"), "sentence": found.sentence
        }  # fmt: skip
        if loan is not None and found.mismatch is Mismatch.CLAIMED and holds(call.caller, engine, now):
            own = own_lock(engine, now)
            until = own["until"] or "it is given back (unlock)"
            told |= own | {"sentence": f"you hold it until {until}; its lock is {own['lock']}"}
        verdicts.append(told)
    return verdicts


def _plain(create_request: CreateEngineRequest, loan: Loan) -> CreateEngineRequest:
    """What is lent has what its plugin gives all of them, and nothing of its first asker."""
    asked = {"engine_type", "engine_version", "wait", "timeout_seconds"}
    body = create_request.model_dump(include=asked) | {"engine_version": loan.plugin.engine_version}
    return CreateEngineRequest.model_validate(body)


def loan_of(call: Call, create_request: CreateEngineRequest, labels: AskedLabels) -> Loan | None:
    """What the plugin lends the asker; None where it lends nothing, or the asker needs an engine of the own: another
    one, one with labels, or one bigger than the plugin's. Else one asker could have an engine made for each label, in
    the places of all. Raises Refused."""
    gateway = call.gateway
    plugin = gateway.plugins.choose(engine_type=create_request.engine_type, version=create_request.engine_version)
    if plugin is None or not is_lending(plugin):
        return None
    if labels.new_wanted or labels.excluded or labels.required or labels.tenant:
        return None
    size = create_request.resources
    if size is not None and (
        milli(size.cpu) > plugin.cpu_milli or whole_bytes(size.memory) > plugin.memory_bytes or size.extended
    ):
        return None
    if create_request.user not in (None, call.caller.user):
        raise bad_request(
            f"Label userCreator names {shown(create_request.user or '', 64)!r}, and an engine that is lent goes to"
            " whoever asks: leave the user out, or make that user an own engine (createEngineConnection)"
        )
    namespace = namespace_of(gateway, call.caller, None)
    return Loan(plugin, plugin.share, group_of(call.caller, plugin), namespace, gateway.new_id())


async def create_engine_conn(call: Call, request: AskEngine) -> Answer:
    """A new engine, once it takes code; one for a once job at once, for its client asks until it runs."""
    millis = request.timeout or request.time_out
    create_request = _create_request(call, request, read_labels(request.labels), millis)
    once = str((request.labels or {}).get(_MODE) or "").lower() == "once"
    try:
        view = await _make(call, create_request.model_copy(update={"wait": not once}))
    except Refused as why:
        raise _told_of_wait(why, millis) from None
    engine = shapes.started(view, ecm=call.gateway.settings.instance, now=call.gateway.clock())
    return Answer({"engine": engine}, message=_with_wait("create engineConn succeed.", millis))


async def _make(
    call: Call, create_request: CreateEngineRequest, *, claim: Claim | None = None, loan: Loan | None = None
) -> KnownEngine:
    try:
        return await make_engine(call, create_request, claim=claim, loan=loan)
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


def _create_request(call: Call, request: AskEngine, labels: AskedLabels, millis: int) -> CreateEngineRequest:
    """Linkis's labels and properties as ours. Raises Refused."""
    if ours := unknown_of_ours(request.model_extra or {}):
        raise bad_request(
            f"Parameter {ours[0]} has no effect here: Linkis's engine calls take labels, properties, timeOut or timeout"
            " (milliseconds) and explain. createEngineConnection takes the rest"
        )
    engine_type, version = _pair(request, "engineType")
    user, creator = _pair(request, "userCreator")
    properties = request.properties or {}
    if properties.get(_CONTENT):
        # An engine that never runs its job would look to the client like one that runs it.
        raise bad_request(
            f"properties.{_CONTENT} is a job that Linkis's BML holds, and this gateway does not read BML: leave it out"
            " and send the code to the engine, or create an EngineConn with mode once and the code in it"
        )
    seconds, _ = _wait(millis)
    body: dict[str, Any] = {"engineType": engine_type, "wait": True, "timeoutSeconds": seconds}
    if version:
        body["engineVersion"] = version
    if creator:
        body["creator"] = creator
    if labels.tenant:
        body["tenant"] = labels.tenant
    if own := labels.of_a_new_engine():
        body["labels"] = own
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


def _wait(millis: int) -> tuple[int, str]:
    """The seconds to wait for an engine, and a sentence where they are not what was asked for. Not a refusal: Linkis's
    clients ask for an hour, and go by the status alone."""
    if millis <= 0:
        return CREATE_SECONDS, ""
    seconds = max(1, min(CREATE_SECONDS_MAX, millis // 1000))
    if 1000 <= millis <= CREATE_SECONDS_MAX * 1000:
        return seconds, ""
    return seconds, (
        f"The timeout of {millis} ms counts as {seconds * 1000}: give 1000 to {CREATE_SECONDS_MAX * 1000} milliseconds"
    )


def _told_of_wait(why: Refused, millis: int) -> Refused:
    """The refusal, with what was made of the caller's timeout."""
    why.sentence = _with_wait(why.sentence, millis)
    return why


def _with_wait(message: str, millis: int) -> str:
    """Linkis's word, and what was made of the caller's timeout."""
    return sentences(message, why) if (why := _wait(millis)[1]) else message


def _pair(request: AskEngine, key: str) -> tuple[str, str]:
    """A label's two parts, however the client writes it: text, {"stringValue"}, or its fields. Raises Refused."""
    label = (request.labels or {}).get(key)
    if isinstance(label, dict):
        first = label.get("engineType") or label.get("user") or ""
        second = label.get("version") or label.get("creator") or ""
        if key == "userCreator" and isinstance(second, str) and set(label) == {"creator"} and second.strip("- "):
            return "", second  # its name says which part it is: our own client does not know who a bearer token is
        whole = f"{first}-{second}" if first or second else ""
        # An engine's type may be alone.
        label = label.get("stringValue") or (first if key == "engineType" and not second else whole)
    if label is None and key == "userCreator":
        return "", ""
    if not isinstance(label, str) or not label.strip("-"):
        raise bad_request(f"Label {key} cannot be empty: {_FORMS[key]}")
    if key == "userCreator":
        # A user may have hyphens, a creator has none.
        first, _, second = label.strip().rpartition("-")
    else:
        first, hyphen, second = label.strip().partition("-")
        if not hyphen:  # the default version of the type, where Linkis has none
            return first, ""
    if not (first.strip() and second.strip()):
        raise bad_request(f"Label {key} is {shown(label, 64)!r}, which has one part of two: {_FORMS[key]}")
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
        given = next(name for name in _MEMORY if properties.get(name) not in (None, ""))
        raise bad_request(f"properties.{given} is {text[:40]!r}: write memory like 512m or 2g")
    return f"{-(-found // (1 << 20))}Mi"


def _requirements(
    call: Call, create_request: CreateEngineRequest, labels: AskedLabels, loan: Loan | None = None
) -> Requirements:
    """What a running engine must have to be given out instead of a new one."""
    size = create_request.resources
    return Requirements(
        user=loan.owner if loan is not None else create_request.user or call.caller.user,
        lent_level=loan.level if loan is not None else "",
        lent_group=loan.group if loan is not None else "",
        creator=(create_request if loan is None else _plain(create_request, loan)).creator,
        engine_type=create_request.engine_type,
        engine_version=create_request.engine_version if loan is None else loan.plugin.engine_version,
        tenant=labels.tenant,
        labels=labels.required,
        preferred=labels.preferred,
        excluded=labels.excluded,
        new_wanted=labels.new_wanted,
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
        node = _node(call, engine)
        metrics = await _metrics(call, engine)
    else:
        node = shapes.past_node(engine)
        if records is not None:
            row = await call.gateway.history.record_of(records, engine)
            metrics = (row.metrics if row is not None else None) or "{}"
    return Answer({"engine": node, "ecMetrics": metrics})


def _node(call: Call, engine: KnownEngine) -> dict[str, Any]:
    gateway = call.gateway
    return shapes.engine_node(with_sizes(gateway.plugins, engine), ecm=gateway.settings.instance, now=gateway.clock())


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
    """rm/enginekillAsyn: for admins, and only engines that nobody holds and that have no task."""
    caller = call.caller
    if not caller.is_admin:
        raise denied(bad_request(f"User:{caller.user} has no permission to asyn kill engines."))
    for instance in request.instances:
        view = call.gateway.engines.resolve(instance)
        if view is not None and linkis_state(view, call.gateway.clock()) is EngineState.UNLOCK:
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
                _node(call, view)
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
    ecm, now = call.gateway.settings.instance, call.gateway.clock()
    found = [
        shapes.engine_vo(with_sizes(call.gateway.plugins, view), ecm=ecm, now=now)
        for view in sorted(call.usable_engines(), key=lambda view: view.created, reverse=True)
        if not view.is_final
        and em_instance in (None, "", view.ecm_instance or ecm)
        and (not request.em_instance or request.em_instance in view.service_instance)
        and (not request.node_status or request.node_status.lower() == str(linkis_state(view, now)).lower())
        and (not request.engine_type or request.engine_type.lower() == view.engine_type.lower())
        and (not request.owner or request.owner.lower() == view.user.lower())
    ]
    return Answer({"engines": found})

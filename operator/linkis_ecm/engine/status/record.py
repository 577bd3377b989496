"""Computes an engine's database record from the API's objects: the columns of linkis-contract 4.1.

Pure; the same input gives the same record, so a resync can rebuild every row. Must not know SQL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from linkis_ecm.engine.pod.spec import sizes_now
from linkis_ecm.engine.times import parse_time
from linkis_ecm.engine.view import EngineView, PluginView, Report
from linkis_ecm.model import reasons
from linkis_ecm.model.formats import label_value, resource_json
from linkis_ecm.model.reasons import Reason
from linkis_ecm.model.record import EngineRecord, Transition
from linkis_ecm.model.states import FINAL, EngineState

# Characters. Linkis limits a start's reason to about 60,000 bytes; the column is a TEXT of 65,535 bytes.
_REASON_MAX = 20000


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """The input of a record. `status` is the desired status, even if it is not written yet."""

    engine: EngineView
    plugin: PluginView | None
    report: Report | None
    state: EngineState
    since: datetime
    reason: Reason
    message: str
    status: Mapping[str, Any]
    ticket: str
    # The reason of the engine's first Idle.
    ready_reason: Reason = reasons.KERNEL_READY


def project(p: Projection) -> EngineRecord | None:
    """The engine's record; None while its type is unknown, because the row's label can never change."""
    engine, spec = p.engine, p.engine.spec
    kind, version = str(p.status.get("engineType") or ""), str(p.status.get("engineVersion") or "")
    final = p.state in FINAL
    if spec is None or not kind:
        if not final:
            return None
        kind = kind or (spec.engine_type if spec is not None else None) or "unknown"
        version = version or (spec.engine_version if spec is not None else None) or "unknown"
    user, creator = (spec.user, spec.creator) if spec is not None else ("unknown", "unknown")
    ready = parse_time(str(p.status.get("readyTime") or ""))
    attempts = int(p.status.get("attempt") or 0) + 1
    used = max(int(p.status.get("timesReady") or 0), 1 if ready is not None else 0)
    resource = _resource(p, kind)
    linkis_state = _linkis_state(p)
    return EngineRecord(
        ticket_id=p.ticket,
        namespace=engine.namespace,
        name=engine.name,
        uid=engine.uid,
        label_value=label_value(user, creator, kind, version),
        create_user=user,
        service_instance=str(p.status.get("serviceInstance") or p.ticket),
        ecm_instance=str(p.status.get("ecmInstance") or ""),
        status=linkis_state,
        log_dir_suffix=str(p.status.get("logDirSuffix") or ""),
        create_time=engine.created,
        as_of=p.since,
        request_times=attempts,
        request_resource=resource,
        used_times=used,
        used_resource=resource if used else None,
        used_time=ready,
        # Each attempt's pod releases its resources when it ends.
        release_times=attempts if final else attempts - 1,
        released_resource=resource if final or attempts > 1 else None,
        release_time=p.since if final else None,
        metrics=_metrics(p, was_ready=ready is not None) if final else None,
        reason=p.reason.name,
        message=p.message,
        final=final,
        transitions=_transitions(p, linkis_state, ready),
    )


def _linkis_state(p: Projection) -> EngineState:
    if p.state is EngineState.SUCCESS and p.reason.name in reasons.KILLED:
        return EngineState.SHUTTING_DOWN
    return p.state


def _resource(p: Projection, kind: str) -> str | None:
    size = sizes_now(p.engine, p.plugin)
    if size is None:
        return None
    return resource_json(
        memory_bytes=size.memory_bytes, cpu_milli=size.cpu_milli, engine_type=kind, namespace=p.engine.namespace
    )


def _metrics(p: Projection, *, was_ready: bool) -> str:
    """Linkis's metrics of an engine. After a failed start: the reason, and whether a retry may succeed."""
    if p.state is EngineState.FAILED and not was_ready:
        end_reason: dict[str, Any] = {"start_reason": p.message[:_REASON_MAX]}
        if p.reason.can_retry:
            end_reason["ec_can_try"] = True
        return json.dumps(end_reason | {"reason": p.reason.name}, ensure_ascii=False)
    reported = dict(p.report.metrics) if p.report is not None else {}
    return json.dumps({"ticketId": p.ticket} | reported | {"reason": p.reason.name}, ensure_ascii=False)


def _transitions(p: Projection, linkis_state: EngineState, ready: datetime | None) -> tuple[Transition, ...]:
    steps = [Transition(EngineState.STARTING, p.engine.created, reasons.ACCEPTED.name)]
    if p.reason is reasons.RESTARTING:
        return (*steps, Transition(EngineState.STARTING, p.since, p.reason.name, p.message))
    if ready is not None and p.since != ready:
        steps.append(Transition(EngineState.IDLE, ready, p.ready_reason.name))
    if p.state is not EngineState.STARTING:
        steps.append(Transition(linkis_state, p.since, p.reason.name, p.message))
    elif p.reason.name != reasons.POD_CREATED.name:
        steps[0] = Transition(EngineState.STARTING, p.engine.created, p.reason.name, p.message)
    return tuple(steps)


def final_record(record: EngineRecord, now: datetime) -> EngineRecord:
    """The last record of an engine whose resource was deleted before the engine had ended."""
    message = reasons.DELETED.sentence
    last = Transition(EngineState.SHUTTING_DOWN, now, reasons.DELETED.name, message)
    return replace(
        record, status=EngineState.SHUTTING_DOWN, as_of=now, release_times=record.request_times, release_time=now,
        released_resource=record.used_resource or record.request_resource, reason=reasons.DELETED.name, message=message,
        metrics=record.metrics or json.dumps({"ticketId": record.ticket_id, "reason": reasons.DELETED.name}),
        final=True, transitions=(*(t for t in record.transitions if t.state not in FINAL), last),
    )  # fmt: skip

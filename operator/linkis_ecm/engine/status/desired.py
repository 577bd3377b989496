"""Computes the whole status of an engine from the decided state. Pure. Must not choose the state."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from linkis_ecm.engine import facts, lending, resizing, soft_pause
from linkis_ecm.engine.admission import given, in_force
from linkis_ecm.engine.decision import CreatePod, Outcome, Restart, Settings, Snapshot
from linkis_ecm.engine.names import host_port, pod_name, service_instance
from linkis_ecm.engine.pending import Amounts, is_larger, own_size, pending, unsized, with_slow
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.pod.spec import sizes_now
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.status.conditions import LARGER, conditions, has_pass_failed, pass_failed_conditions
from linkis_ecm.engine.times import format_time, from_unix, parse_time
from linkis_ecm.engine.view import EngineView, Report
from linkis_ecm.model import reasons
from linkis_ecm.model.engineconn import Launch
from linkis_ecm.model.formats import log_dir_suffix
from linkis_ecm.model.states import AVAILABLE, FINAL, EngineState

# Characters. The CRD takes 32768; what Kubernetes or an admission webhook says may be longer.
MESSAGE_MAX = 16384
# Characters of status.startup.coldBecause.
COLD_MAX = 1024
# Their words have figures, which others change while the engine waits. Written at most so often.
_COUNTED = frozenset({reasons.QUOTA_EXCEEDED, reasons.UNSCHEDULABLE})
WORDS_PERIOD = timedelta(seconds=30)
# The fields that later passes decide by. None holds a value that an agent or a user chose.
ESSENTIAL = (
    "engineState", "stateSince", "reason", "observedGeneration", "attempt", "nextAttemptAt", "podName", "podUid",
    "ticketId", "readyTime", "finishedTime", "ecmInstance", "admission", "share",
)  # fmt: skip


def message_of(s: Snapshot, outcome: Outcome, now: datetime) -> str:
    due = news_at(s, outcome)
    return (outcome.verdict.message if due is not None and now >= due else _message_of(s, outcome))[:MESSAGE_MAX]


def news_at(s: Snapshot, outcome: Outcome) -> datetime | None:
    """When the status' message is to follow: what the engine waits for has other figures now than the status says.
    None where it says the same."""
    same = outcome.verdict.reason.name == s.engine.text("reason") and s.engine.state == outcome.state
    if not same or outcome.verdict.reason not in _COUNTED or not outcome.verdict.details:
        return None
    if s.engine.text("message") == outcome.verdict.message[:MESSAGE_MAX]:
        return None
    return s.words_written + WORDS_PERIOD if s.words_written is not None else outcome.since


def without_details(patch: dict[str, Any]) -> dict[str, Any]:
    """The part of a status patch that is written if the API server refuses the whole: state before details."""
    return {name: patch[name] for name in ESSENTIAL if name in patch}


def patch_without_details(engine: EngineView, patch: dict[str, Any], error: str, now: datetime) -> dict[str, Any]:
    """The patch to write in place of one that the API server has refused; empty if the status already has it."""
    essential = without_details(patch)
    known = engine.status.get("conditions")
    if not essential and has_pass_failed(known):
        return {}
    kept = [condition | {"message": ""} for condition in patch.get("conditions") or known or []]
    return essential | {"conditions": pass_failed_conditions(kept, error, now=now, generation=engine.generation)}


def _message_of(s: Snapshot, outcome: Outcome) -> str:
    same = outcome.verdict.reason.name == s.engine.text("reason") and s.engine.state == outcome.state
    # A verdict without details is the status's own reason. After a change of the spec the words may be others.
    if same and (not outcome.verdict.details or s.engine.status.get("observedGeneration") == s.engine.generation):
        return s.engine.text("message") or outcome.verdict.message
    return outcome.verdict.message


def status_of(
    s: Snapshot, launched: Launch, outcome: Outcome, now: datetime, settings: Settings, *, message: str
) -> dict[str, Any]:  # fmt: skip
    """The whole desired status. `message` is that of `message_of`."""
    engine, current, state = s.engine, s.engine.status, outcome.state
    told = with_slow(engine, s.pod, now)
    sized = s if told is s.pod else replace(s, pod=told)
    ticket = facts.ticket_id(engine)
    desired = dict(current) | _soft_pause_field(s, outcome)
    kind, version = _type_and_version(s)
    ready = state in AVAILABLE or bool(engine.text("readyTime"))
    made = s.pod is not None or bool(engine.text("podName"))
    name = _pod_name(s)
    desired |= {
        "observedGeneration": engine.generation,
        "engineState": state.value,
        "stateSince": format_time(outcome.since),
        "reason": outcome.verdict.reason.name,
        "message": message,
        "ticketId": ticket,
        "ecmInstance": settings.ecm_instance,
        "attempt": facts.attempt(engine),
        "conditions": conditions(
            current.get("conditions"),
            state=state,
            reason=outcome.verdict.reason.name,
            message=message,
            scheduled=s.pod is not None and bool(s.pod.node) and outcome.restart is None,
            registered=ready and outcome.restart is None if launch.has_agent(launched) else None,
            now=now,
            generation=engine.generation,
            exhausted=outcome.exhausted,
            unprepared="" if settings.pod.has_service(engine.namespace) else _unprepared(engine.namespace),
            pending=pending(engine, s.pod) if state not in FINAL and outcome.restart is None else "",
            unsized=_unsized(sized) if state not in FINAL and not outcome.restart else "",
            unsized_reason=_unsized_reason(sized),
            paused=_paused(s, outcome, now),
        ),
    }
    if (checked := in_force.checked(engine, s.policies)) is not None and state not in FINAL:
        desired["admission"] = checked
    desired |= lending.written(s)
    if kind:
        suffix = engine.text("logDirSuffix") or log_dir_suffix(_user(engine), engine.created, kind, ticket)
        desired |= {"engineType": kind, "engineVersion": version, "logDirSuffix": suffix}
    if made or any(isinstance(action, CreatePod) for action in outcome.actions):
        desired |= _made_fields(s, launched, name)
    desired |= _size_fields(s)
    desired.setdefault("serviceInstance", ticket)
    startup = dict(current.get("startup") or {})
    startup.setdefault("accepted", format_time(s.first_seen.get("accepted", now)))
    startup |= _start_kind(s, outcome)
    if facts.was_gated(engine) and s.pod is not None and not s.pod.gates:
        startup.setdefault("admitted", format_time(now))
    desired["startup"] = startup
    if outcome.restart is not None:
        return _restart_fields(s, desired, outcome.restart, now)
    desired |= _cull_fields(s, state, now)
    if s.evidence is not None and s.evidence.attempt == facts.attempt(engine):
        desired["postMortem"] = s.evidence.summary
    if not engine.text("readyTime") and (state in AVAILABLE or (state in FINAL and facts.was_ready(s))):
        desired |= _ready_fields(s, launched, startup, outcome, settings)
    if desired.get("readyTime") and launch.has_agent(launched) and (key := facts.agent_key(s)) is not None:
        desired["agentKey"] = key.written()
    if state in FINAL:
        desired |= _last_pod_fields(s, desired, outcome)
        desired["finishedTime"] = engine.text("finishedTime") or format_time(outcome.since)
        if s.report is not None and s.report.usage:
            desired["usage"] = _usage(s.report)
    return desired


def _made_fields(s: Snapshot, launched: Launch, name: str) -> dict[str, Any]:
    """Of the pod that was made for the attempt, or is made now: then the reconciler adds its uid afterwards."""
    fields: dict[str, Any] = {"podName": s.engine.text("podName") or name}
    if s.pod is not None:
        fields["podUid"] = s.pod.uid
    if (description := launch.written(launched)) is not None:
        fields["launch"] = description
    if s.plugin is not None and "fromPlugin" not in s.engine.status:
        fields["fromPlugin"] = given.written(s.plugin)
    return fields


def _pod_name(s: Snapshot) -> str:
    """Of the current attempt. A pod from a warm pool keeps the name that it had there."""
    if s.pod is not None and s.pod.claimed is not None:
        return s.pod.name
    return pod_name(s.engine.name, s.engine.uid, facts.attempt(s.engine))


def _start_kind(s: Snapshot, outcome: Outcome) -> dict[str, str]:
    """How the current attempt gets its pod: made for it (cold), or from a pool (warm). As first written."""
    if any(isinstance(action, CreatePod) for action in outcome.actions):
        cold = outcome.cold_because
        said = {"coldBecause": cold.sentence[:COLD_MAX], "coldReason": cold.reason.value} if cold is not None else {}
        return {"kind": "cold"} | said
    if s.pod is None or "kind" in (s.engine.status.get("startup") or {}):
        return {}
    return {"kind": "cold" if s.pod.claimed is None else "warm"}


def _unprepared(namespace: str) -> str:
    """A sentence for an engine of a namespace that is served (`clusterWide`) and not prepared by the installation."""
    return (
        f"Namespace {namespace} is not in engineNamespaces of the chart, so it has none of its objects: without its"
        " NetworkPolicies any pod reaches the engine, and its code reaches what the cluster lets it; without the"
        " headless Service a plain process has an address and no name. Have the platform add"
        f" {{name: {namespace}, create: false}} to engineNamespaces."
    )


def _size_fields(s: Snapshot) -> dict[str, Any]:
    """What the pod has, where the spec does not say it. None removes an old value; without a pod it stays."""
    size = own_size(s.engine, s.pod)
    return {"resources": size} if size is not None or (s.pod is not None and "resources" in s.engine.status) else {}


def _unsized(s: Snapshot) -> str:
    """Of a pod from a warm pool that was paused since, the pause is why."""
    if why := soft_pause.not_woken(s.engine, s.pod, _refused(s, down=False)):
        return why
    if s.pod is None or s.pod.claimed is None:
        return ""
    asked = _asked(s)
    if not s.pod.resize_pending and asked is not None and _has(s, s.pod, asked):
        return ""
    return unsized(s.engine, s.pod, _refused(s, down=False), asked)


def _unsized_reason(s: Snapshot) -> str:
    """That the pod lacks nothing, that a limit of people is why, or the kubelet's word; "" for all else."""
    if s.pod is not None and s.pod.claimed is not None and soft_pause.paused(s.engine) is None:
        asked = _asked(s)
        if asked is not None and is_larger(s.engine, s.pod, asked):
            return LARGER
    if s.resize_failure is not None and s.resize_failure.limited:
        return reasons.LIMIT_REACHED.name
    return resizing.kind(s.pod.resize_pending) if s.pod is not None else ""


def _asked(s: Snapshot) -> Amounts | None:
    """The cpu and memory that the engine asks for by now. None where it can have no pod."""
    size = sizes_now(s.engine, s.plugin)
    return size.as_container if size is not None else None


def _has(s: Snapshot, pod: PodView, asked: Amounts) -> bool:
    pod, limits = soft_pause.whole(s.engine, pod), asked["limits"]
    return soft_pause.has_size(pod, cpu=asked["requests"]["cpu"], cpu_limit=limits.get("cpu"), memory=limits["memory"])


def _refused(s: Snapshot, *, down: bool) -> str:
    """Why the last resize of a soft pause in that direction was not taken; "" where it was."""
    return s.resize_failure.sentence if s.resize_failure is not None and s.resize_failure.down is down else ""


def _soft_pause_field(s: Snapshot, outcome: Outcome) -> dict[str, Any]:
    """The record of a pause, or None where it is removed."""
    if outcome.soft_pause:
        return {"softPause": outcome.soft_pause}
    removed = outcome.soft_pause is not None or outcome.state in FINAL
    return {"softPause": None} if removed and "softPause" in s.engine.status else {}


def _paused(s: Snapshot, outcome: Outcome, now: datetime) -> tuple[bool, str] | None:
    """For the condition SoftPaused. Where nobody knows whether the engine is used, it stays."""
    if outcome.state not in AVAILABLE or outcome.soft_pause == {} or facts.is_used(s, now):
        return None
    record = soft_pause.parsed(outcome.soft_pause) if outcome.soft_pause else soft_pause.paused(s.engine)
    return soft_pause.condition(record, s.pod, _refused(s, down=True))


def _ready_fields(
    s: Snapshot, launched: Launch, startup: dict[str, Any], outcome: Outcome, settings: Settings
) -> dict[str, Any]:  # fmt: skip
    """The fields that are known once the engine is ready: its addresses and the times of its start."""
    pod, report, port = s.pod, s.report, launch.port(launched)
    name = _pod_name(s)
    timings = report.timings if report is not None else {}
    answered = from_unix(timings.get("kernelReady", 0.0))
    # If the engine ended before a pass saw it ready, it was ready when its kernel answered.
    ready_at = outcome.since if outcome.state in AVAILABLE else answered or outcome.since
    accepted = parse_time(str(startup["accepted"]))
    # The agent reports the start of its process. The watch shows its container later.
    agent_started = from_unix(timings.get("processStarted", 0.0))
    latest = min(agent_started or ready_at, ready_at)
    scheduled = _most_exact_time(
        s.first_seen.get("scheduled"), pod.scheduled if pod is not None else None, accepted, latest
    )
    started = _most_exact_time(
        s.first_seen.get("containerStarted"), pod.started if pod is not None else None, scheduled or accepted, latest
    )
    phases = {
        "scheduled": scheduled,
        "containerStarted": started,
        "agentStarted": agent_started,
        "kernelReady": answered,
        "ready": ready_at,
    }
    if startup.get("kind") == "warm":
        # The pod and its kernel are older than the engine.
        phases = {"claimed": s.first_seen.get("claimed"), "ready": ready_at}
    ready: dict[str, Any] = {
        "readyTime": format_time(ready_at),
        "timesReady": _times_ready(s) + 1,
        "serviceInstance": _service_instance(s, name, port, settings),
        "startup": startup | {phase: format_time(moment) for phase, moment in phases.items() if moment is not None},
    }
    if pod is not None:
        ready |= {"nodeName": pod.node} | ({"address": host_port(pod.ip, port)} if pod.ip and port else {})
    return ready


def _service_instance(s: Snapshot, name: str, port: int, settings: Settings) -> str:
    """The engine's host name, or its address where no host name resolves."""
    if not settings.pod.has_service(s.engine.namespace) and s.pod is not None and s.pod.ip:
        return host_port(s.pod.ip, port)
    return service_instance(name, settings.pod.service, s.engine.namespace, port)


def _last_pod_fields(s: Snapshot, desired: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Where an ended engine's pod ran, and when it began, if the engine ended before it was ready. Its pod still has
    it, or had it when it was last seen."""
    pod, startup = s.pod or s.last_pod, desired["startup"]
    if pod is None or not pod.node:
        return {}
    accepted = parse_time(str(startup.get("accepted") or ""))
    scheduled = _most_exact_time(s.first_seen.get("scheduled"), pod.scheduled, accepted, outcome.since)
    started = _most_exact_time(
        s.first_seen.get("containerStarted"), pod.started, scheduled or accepted, outcome.since
    )  # fmt: skip
    phases = {"scheduled": scheduled, "containerStarted": started}
    times = {phase: format_time(moment) for phase, moment in phases.items() if moment is not None}
    return {"nodeName": desired.get("nodeName") or pod.node, "startup": times | startup}


def _times_ready(s: Snapshot) -> int:
    value = s.engine.status.get("timesReady")
    return value if isinstance(value, int) and 0 <= value < 1000 else 0


def _cull_fields(s: Snapshot, state: EngineState, now: datetime) -> dict[str, Any]:
    """When the engine will be culled and what prevents that, at this write. None removes an old value."""
    if state not in AVAILABLE:
        removed = {name: None for name in ("nextCullAt", "cullBlockedBy") if name in s.engine.status}
        return dict(removed)
    cull, blocked = facts.next_cull(s, now), facts.cull_blocked_by(s)
    cull_fields = {"nextCullAt": format_time(cull) if cull is not None else None, "cullBlockedBy": blocked or None}
    return {name: value for name, value in cull_fields.items() if value is not None or name in s.engine.status}


def _restart_fields(s: Snapshot, desired: dict[str, Any], restart: Restart, now: datetime) -> dict[str, Any]:
    """The status of an engine between two attempts: without what belongs to the old pod, with why it ended."""
    for name in (
        "podName", "podUid", "launch", "fromPlugin", "resources", "address", "agentKey", "nodeName", "readyTime",
        "nextCullAt", "cullBlockedBy", "startup", "softPause",
    ):  # fmt: skip
        desired.pop(name, None)
    end = restart.verdict
    desired |= {
        "attempt": restart.attempt,
        "serviceInstance": facts.ticket_id(s.engine),
        "nextAttemptAt": format_time(restart.not_before),
        "startup": {"accepted": format_time(now)},
        "lastEnd": {
            "attempt": facts.attempt(s.engine), "reason": end.reason.name, "message": end.message[:4000],
            "at": format_time(now),
        },
    }  # fmt: skip
    if s.evidence is not None:
        desired["postMortem"] = s.evidence.summary
    return desired


def _most_exact_time(
    seen: datetime | None, in_api: datetime | None, before: datetime | None, after: datetime
) -> datetime | None:  # fmt: skip
    """When a phase was reached: the time at which this process saw it, because the API has whole seconds only.

    If this process saw it 1.5 s later than the API's time or more, the API's time counts: the operator has restarted.
    The result lies between the phase before and the agent's start. The API's rounded second may be earlier than the
    phase before, and an agent's report may arrive before the watch shows its container.
    """
    moment = seen or in_api
    if seen is not None and in_api is not None and seen >= in_api + timedelta(seconds=1.5):
        moment = in_api
    if moment is None:
        return None
    moment = min(moment, after)
    return moment if before is None else max(moment, before)


def _usage(report: Report) -> dict[str, int]:
    names = {"memoryBytes": "memoryBytes", "memoryPeakBytes": "memoryPeakBytes"}
    return {name: int(report.usage[key]) for name, key in names.items() if key in report.usage}


def _user(engine: EngineView) -> str:
    return engine.spec.user if engine.spec is not None else "unknown"


def _type_and_version(s: Snapshot) -> tuple[str, str]:
    """Type and version as first written, so that an edited plugin does not rename a running engine. Empty if not known
    yet."""
    if s.engine.text("engineType"):
        return s.engine.text("engineType"), s.engine.text("engineVersion")
    if s.plugin is not None:
        return s.plugin.spec.engine_type, s.plugin.spec.engine_version
    return "", ""

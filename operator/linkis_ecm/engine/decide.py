"""What should be, from what is: one pure function for an engine's whole life.

`decide(snapshot, now, settings)` looks at plain data and a clock and answers with the status to show, the actions to
take, when to look again, and the record for the database. It is total (it answers for every input) and idempotent: on
its own result it answers "nothing". It must not do anything itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from linkis_ecm.engine import ends, podspec
from linkis_ecm.engine.ends import Verdict
from linkis_ecm.engine.names import AGENT_PORT, pod_name, service_instance
from linkis_ecm.engine.project import Projection, project
from linkis_ecm.engine.status import conditions, merge_patch
from linkis_ecm.engine.times import format_time, from_unix, parse_time
from linkis_ecm.engine.view import EngineView, PluginView, PodView, Report
from linkis_ecm.model import reasons
from linkis_ecm.model.formats import log_dir_suffix, parse_duration
from linkis_ecm.model.reasons import Reason
from linkis_ecm.model.record import EngineRecord
from linkis_ecm.model.states import AVAILABLE, FINAL, EngineState, may_follow

# Linkis's own bound on a start, where neither the engine nor its plugin says one.
START_TIMEOUT = 480.0
# How long an agent that reported its kernel dead may take to exit, so that the container's own reason is seen.
LAST_WORDS = timedelta(seconds=10)
# Over the agent's own grace, for its answer and the kubelet's.
STOP_SLACK = timedelta(seconds=15)
# An agent that did not take the request to stop is asked again after this.
STOP_AGAIN = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the operator was told of itself."""

    ecm_instance: str
    pod: podspec.PodSettings
    # A flip between Idle and Busy, or a drain, that is over within this never becomes a write to the API.
    hold: timedelta = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class CreateFailure:
    """The API server's refusal of the pod. `fatal`: no waiting helps."""

    verdict: Verdict
    retry_at: datetime


@dataclass(frozen=True, slots=True)
class Stop:
    """The engine is to end, since when and why; `sent`: when the agent was last told."""

    since: datetime
    reason: Reason
    sent: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a decision may depend on besides the clock.

    The last four are this process's memory: losing it may repeat a question, never change an answer.
    """

    engine: EngineView
    pod: PodView | None
    plugin: PluginView | None
    report: Report | None = None
    failure: CreateFailure | None = None
    stop: Stop | None = None
    # The API server itself said that the pod is gone: a cache alone is not believed.
    pod_gone: bool = False
    # When this process saw a phase of the start, to the microsecond; the API tells seconds.
    seen: dict[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CreatePod:
    """POST the engine's pod; its token is put in by the executor."""

    attempt: int


@dataclass(frozen=True, slots=True)
class DeletePod:
    """DELETE that very pod."""

    name: str
    uid: str
    grace: int


@dataclass(frozen=True, slots=True)
class ConfirmPod:
    """GET the pod that the cache lacks."""

    name: str


@dataclass(frozen=True, slots=True)
class StopAgent:
    """Ask the agent to drain and exit."""

    address: str
    attempt: int
    grace: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeleteEngine:
    """DELETE the ended engine's resource: its ttlAfterFinished is over."""

    uid: str


Action = CreatePod | DeletePod | ConfirmPod | StopAgent | DeleteEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do. `patch` is a merge patch of the status, empty where it is right already; `deadline` is Unix time."""

    state: EngineState
    reason: str
    patch: dict[str, Any]
    actions: tuple[Action, ...]
    deadline: float | None
    record: EngineRecord | None
    stop: Stop | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A state with its reason, since when, and what follows from it."""

    state: EngineState
    verdict: Verdict
    since: datetime
    actions: tuple[Action, ...] = ()
    look_again: datetime | None = None
    stop: Stop | None = None


def decide(s: Snapshot, now: datetime, settings: Settings) -> Decision:
    """The decision for one engine; see the module's text."""
    if s.engine.state in FINAL:
        outcome = _settled(s, now)
    else:
        outcome = _outcome(s, now)
        before = s.engine.state
        if before is not None and not may_follow(before, outcome.state):
            # A late report, or a status edited by hand: an engine never goes back.
            outcome = Outcome(state=before, verdict=_told(s.engine), since=_since(s.engine, now), stop=outcome.stop)
    return _decision(s, outcome, now, settings)


# --- the state


def _outcome(s: Snapshot, now: datetime) -> Outcome:
    if s.engine.spec is None:
        return _failed(s, Verdict(reasons.INVALID_SPEC, s.engine.invalid), now)
    stop = s.stop or _stop_due(s, now)
    if s.pod is None:
        return _without_pod(s, stop, now)
    if s.pod.ended:
        return _ended(s, s.pod, stop, now)
    if stop is not None:
        return _stopping(s, s.pod, stop, now)
    return _living(s, s.pod, now)


def _without_pod(s: Snapshot, stop: Stop | None, now: datetime) -> Outcome:
    if s.engine.text("podName") or s.stop is not None:
        if not s.pod_gone:
            name = s.engine.text("podName") or pod_name(s.engine.name, s.engine.uid, _attempt(s.engine))
            state = s.engine.state or EngineState.STARTING
            look = (ConfirmPod(name),)
            return Outcome(state=state, verdict=_told(s.engine), since=_since(s.engine, now), stop=stop, actions=look)
        if stop is None:
            return _failed(s, Verdict(reasons.POD_DELETED), now)
    if stop is not None:
        return Outcome(state=EngineState.SUCCESS, verdict=Verdict(stop.reason), since=now, stop=stop)
    return _wanted(s, now)


def _wanted(s: Snapshot, now: datetime) -> Outcome:
    """No pod was made yet: one is wanted, if the plugin, the spec and the API server allow it."""
    due = _start_due(s)
    if s.plugin is None:
        problem = Verdict(reasons.PLUGIN_MISSING, _what_was_asked(s.engine))
        if now >= due:
            return _failed(s, problem, now)
        return Outcome(state=EngineState.STARTING, verdict=problem, since=s.engine.created, look_again=due)
    try:
        check_pod(s.engine, s.plugin)
    except podspec.InvalidSpecError as error:
        return _failed(s, Verdict(reasons.INVALID_SPEC, str(error)), now)
    if s.failure is not None and s.failure.verdict.fatal:
        return _failed(s, s.failure.verdict, now)
    problem_now = s.failure.verdict if s.failure is not None else None
    if now >= due:
        return _failed(s, Verdict(reasons.START_TIMEOUT, ends.hung_phase(None, problem_now)), now)
    if s.failure is not None and now < s.failure.retry_at:
        return Outcome(
            state=EngineState.STARTING,
            verdict=s.failure.verdict,
            since=s.engine.created,
            look_again=min(due, s.failure.retry_at),
        )
    return Outcome(
        state=EngineState.STARTING,
        verdict=problem_now or Verdict(reasons.POD_CREATED),
        since=s.engine.created,
        actions=(CreatePod(_attempt(s.engine)),),
        look_again=due,
    )


def _ended(s: Snapshot, pod: PodView, stop: Stop | None, now: datetime) -> Outcome:
    if stop is not None and stop.reason is not reasons.KERNEL_DIED:
        return Outcome(state=EngineState.SUCCESS, verdict=Verdict(stop.reason), since=now, stop=stop)
    state, verdict = ends.end(pod, s.report, was_ready=_was_ready(s))
    return Outcome(state=state, verdict=verdict, since=now)


def _stopping(s: Snapshot, pod: PodView, stop: Stop, now: datetime) -> Outcome:
    limit = stop.since + timedelta(seconds=podspec.GRACE_SECONDS) + STOP_SLACK
    again = limit
    actions: tuple[Action, ...] = ()
    if pod.deleting:
        pass  # the kubelet is at it
    elif now >= limit or not (_was_ready(s) and pod.ip):
        # The agent had its time, or there is none that could be asked.
        actions = (DeletePod(pod.name, pod.uid, 0 if now >= limit else podspec.GRACE_SECONDS),)
    elif stop.sent is None or now >= stop.sent + STOP_AGAIN:
        address = f"{pod.ip}:{AGENT_PORT}"
        actions = (StopAgent(address, _attempt(s.engine), podspec.GRACE_SECONDS, stop.reason.name),)
        stop = Stop(stop.since, stop.reason, now)
        again = min(limit, now + STOP_AGAIN)
    else:
        again = min(limit, stop.sent + STOP_AGAIN)
    return Outcome(
        state=EngineState.SHUTTING_DOWN,
        verdict=Verdict(stop.reason),
        since=stop.since,
        actions=actions,
        look_again=again if again > now else now + STOP_AGAIN,
        stop=stop,
    )


def _living(s: Snapshot, pod: PodView, now: datetime) -> Outcome:
    report = s.report
    if pod.deleting:
        return Outcome(state=EngineState.SHUTTING_DOWN, verdict=Verdict(reasons.POD_DELETED), since=_since_new(s, now))
    if report is not None and report.state is EngineState.FAILED:
        verdict = Verdict(reasons.KERNEL_DIED, report.message)
        exit_due = report.changed + LAST_WORDS
        if now >= exit_due:
            return _failed(s, verdict, now)
        return Outcome(
            state=EngineState.SHUTTING_DOWN, verdict=verdict, since=report.changed, look_again=exit_due
        )  # fmt: skip
    if report is not None and report.state is EngineState.SHUTTING_DOWN:
        return Outcome(
            state=EngineState.SHUTTING_DOWN, verdict=Verdict(reasons.STOP_REQUESTED), since=report.changed
        )  # fmt: skip
    if report is not None and report.state in AVAILABLE:
        verdict = Verdict(reasons.EXECUTING if report.state is EngineState.BUSY else reasons.KERNEL_READY)
        return Outcome(state=report.state, verdict=verdict, since=report.changed, look_again=_next_cull(s, now))
    if s.engine.state in AVAILABLE:
        # This operator is new and has no report yet: what was written stands.
        return Outcome(state=s.engine.state, verdict=_told(s.engine), since=_since(s.engine, now))
    return _starting(s, pod, now)


def _starting(s: Snapshot, pod: PodView, now: datetime) -> Outcome:
    problem = ends.trouble(pod)
    due = _start_due(s)
    if problem is not None and problem.fatal:
        return _failed(s, problem, now)
    if now >= due:
        return _failed(s, Verdict(reasons.START_TIMEOUT, ends.hung_phase(pod, problem)), now)
    return Outcome(
        state=EngineState.STARTING,
        verdict=problem or Verdict(reasons.POD_CREATED),
        since=s.engine.created,
        look_again=due,
    )


def _settled(s: Snapshot, now: datetime) -> Outcome:
    state = s.engine.state or EngineState.FAILED
    since = _since(s.engine, now)
    actions: list[Action] = []
    if s.pod is not None and not s.pod.ended and not s.pod.deleting:
        actions.append(DeletePod(s.pod.name, s.pod.uid, podspec.GRACE_SECONDS))
    gone_at = _removal(s, since)
    if gone_at is not None and now >= gone_at and not s.engine.deleting:
        actions.append(DeleteEngine(s.engine.uid))
        gone_at = None
    return Outcome(state=state, verdict=_told(s.engine), since=since, actions=tuple(actions), look_again=gone_at)


def _failed(s: Snapshot, verdict: Verdict, now: datetime) -> Outcome:
    actions: tuple[Action, ...] = ()
    if s.pod is not None and not s.pod.ended and not s.pod.deleting:
        actions = (DeletePod(s.pod.name, s.pod.uid, podspec.GRACE_SECONDS),)
    return Outcome(state=EngineState.FAILED, verdict=verdict, since=now, actions=actions)


# --- facts about the engine


def check_pod(engine: EngineView, plugin: PluginView) -> dict[str, Any]:
    """The pod without its token; raises InvalidSpecError. The executor builds it again, with the token."""
    if engine.spec is None:
        raise podspec.InvalidSpecError(engine.invalid)
    return podspec.build_pod(
        engine, engine.spec, plugin.spec, ticket=ticket_id(engine), attempt=_attempt(engine), token="",
        settings=podspec.PodSettings(report_url=""),
    )  # fmt: skip


def ticket_id(engine: EngineView) -> str:
    """The ticket that the asker gave, else the resource's uid: a UUID already."""
    return (engine.spec.ticket_id if engine.spec is not None else None) or engine.uid


def _attempt(engine: EngineView) -> int:
    value = engine.status.get("attempt")
    return value if isinstance(value, int) and 0 <= value < 1000 else 0


def _was_ready(s: Snapshot) -> bool:
    return bool(s.engine.text("readyTime")) or (s.report is not None and s.report.state in AVAILABLE)


def _stop_due(s: Snapshot, now: datetime) -> Stop | None:
    engine, spec = s.engine, s.engine.spec
    if engine.state is EngineState.SHUTTING_DOWN and engine.text("reason") != reasons.POD_DELETED.name:
        # A drain that another operator began; its reason stands in the status.
        reason = reasons.by_name(engine.text("reason")) or reasons.STOPPED_BY_USER
        if reason not in (reasons.KERNEL_DIED, reasons.STOP_REQUESTED):
            return Stop(_since(engine, now), reason)
    if (spec is not None and spec.desired_state == "Stopped") or engine.deleting:
        return Stop(now, reasons.STOPPED_BY_USER)
    lifetime = _timeout(s, "max_lifetime")
    if lifetime and now >= engine.created + timedelta(seconds=lifetime):
        return Stop(now, reasons.LIFETIME_OVER)
    cull = _idle_over(s, now)
    return Stop(now, reasons.IDLE_TIMEOUT) if cull is not None and now >= cull else None


def _idle_over(s: Snapshot, now: datetime) -> datetime | None:
    """When an idle engine has been idle long enough; only a report says that it is idle."""
    timeout = _timeout(s, "idle_timeout")
    if not timeout or s.report is None or s.report.state not in (EngineState.IDLE, EngineState.UNLOCK):
        return None
    # The agent's clock may run ahead of ours: no task has ended after now.
    last_task = min(now, from_unix(s.report.last_task_ended) or s.report.changed)
    return max(s.report.changed, last_task) + timedelta(seconds=timeout)


def _next_cull(s: Snapshot, now: datetime) -> datetime | None:
    lifetime = _timeout(s, "max_lifetime")
    ends_at = s.engine.created + timedelta(seconds=lifetime) if lifetime else None
    return min((moment for moment in (_idle_over(s, now), ends_at) if moment is not None), default=None)


def _start_due(s: Snapshot) -> datetime:
    return s.engine.created + timedelta(seconds=_timeout(s, "start_timeout") or START_TIMEOUT)


def _removal(s: Snapshot, finished: datetime) -> datetime | None:
    ttl = _timeout(s, "ttl_after_finished")
    return None if ttl is None else finished + timedelta(seconds=ttl)


def _timeout(s: Snapshot, name: str) -> float | None:
    """A duration of the engine, else of its plugin, in seconds; None where neither says one."""
    own = getattr(s.engine.spec, name) if s.engine.spec is not None else None
    text = own or (getattr(s.plugin.spec, name) if s.plugin is not None else None)
    return parse_duration(text) if text else None


def _what_was_asked(engine: EngineView) -> str:
    spec = engine.spec
    if spec is None:
        return ""
    if spec.plugin:
        return f"spec.plugin is {spec.plugin}."
    version = f" and spec.engineVersion {spec.engine_version}" if spec.engine_version else ""
    return f"spec.engineType is {spec.engine_type}{version}."


def _told(engine: EngineView) -> Verdict:
    """What the status says already, as a verdict."""
    name = engine.text("reason")
    return Verdict(reasons.by_name(name) or reasons.ACCEPTED)


def _since(engine: EngineView, now: datetime) -> datetime:
    return parse_time(engine.text("stateSince")) or now


def _since_new(s: Snapshot, now: datetime) -> datetime:
    return _since(s.engine, now) if s.engine.state is EngineState.SHUTTING_DOWN else now


# --- status and record


def _decision(s: Snapshot, outcome: Outcome, now: datetime, settings: Settings) -> Decision:
    wanted = _status(s, outcome, now, settings)
    patch: dict[str, Any] = {}
    look_again = outcome.look_again
    current = s.engine.status
    same = (
        wanted["engineState"] == current.get("engineState")
        and wanted["reason"] == current.get("reason")
        and current.get("observedGeneration") == s.engine.generation
    )
    if not same:
        held_until = _held_until(s, outcome, settings)
        if held_until is not None and now < held_until:
            look_again = min(filter(None, (look_again, held_until)))
        else:
            patch = merge_patch(current, wanted)
    record = project(
        Projection(
            engine=s.engine, plugin=s.plugin, report=s.report, state=outcome.state, since=outcome.since,
            reason=outcome.verdict.reason, message=_message(s, outcome), status=wanted, ticket=ticket_id(s.engine),
        )
    )  # fmt: skip
    return Decision(
        state=outcome.state,
        reason=outcome.verdict.reason.name,
        patch=patch,
        actions=outcome.actions,
        deadline=look_again.timestamp() if look_again is not None else None,
        record=record,
        stop=outcome.stop,
    )


def _held_until(s: Snapshot, outcome: Outcome, settings: Settings) -> datetime | None:
    """A flip or a drain that may be over in a moment waits before it becomes a write."""
    brief = AVAILABLE | {EngineState.SHUTTING_DOWN}
    if s.engine.state in AVAILABLE and outcome.state in brief:
        return outcome.since + settings.hold
    return None


def _message(s: Snapshot, outcome: Outcome) -> str:
    if outcome.verdict.reason.name == s.engine.text("reason") and s.engine.state == outcome.state:
        return s.engine.text("message") or outcome.verdict.message
    return outcome.verdict.message


def _status(s: Snapshot, outcome: Outcome, now: datetime, settings: Settings) -> dict[str, Any]:
    """The whole status as it should be."""
    engine, current, state = s.engine, s.engine.status, outcome.state
    ticket = ticket_id(engine)
    wanted = dict(current)
    kind, version = _type_and_version(s)
    ready = state in AVAILABLE or bool(engine.text("readyTime"))
    made = s.pod is not None or bool(engine.text("podName"))
    name = pod_name(engine.name, engine.uid, _attempt(engine))
    wanted |= {
        "observedGeneration": engine.generation,
        "engineState": state.value,
        "stateSince": format_time(outcome.since),
        "reason": outcome.verdict.reason.name,
        "message": _message(s, outcome),
        "ticketId": ticket,
        "ecmInstance": settings.ecm_instance,
        "attempt": _attempt(engine),
        "conditions": conditions(
            current.get("conditions"),
            state=state,
            reason=outcome.verdict.reason.name,
            message=_message(s, outcome),
            scheduled=s.pod is not None and bool(s.pod.node),
            registered=ready,
            now=now,
            generation=engine.generation,
        ),
    }
    if kind:
        suffix = engine.text("logDirSuffix") or log_dir_suffix(_user(engine), engine.created, kind, ticket)
        wanted |= {"engineType": kind, "engineVersion": version, "logDirSuffix": suffix}
    if made or any(isinstance(action, CreatePod) for action in outcome.actions):
        wanted["podName"] = engine.text("podName") or name
    wanted.setdefault("serviceInstance", ticket)
    startup = dict(current.get("startup") or {})
    startup.setdefault("accepted", format_time(s.seen.get("accepted", now)))
    wanted["startup"] = startup
    if state in AVAILABLE and not engine.text("readyTime"):
        wanted |= _on_ready(s, startup, outcome, settings, name)
    if state in FINAL:
        wanted["finishedTime"] = engine.text("finishedTime") or format_time(outcome.since)
        if s.report is not None and s.report.usage:
            wanted["usage"] = _usage(s.report)
    return wanted


def _on_ready(
    s: Snapshot, startup: dict[str, Any], outcome: Outcome, settings: Settings, name: str
) -> dict[str, Any]:  # fmt: skip
    """What is known from the moment on which the engine answers: its addresses and how its start went."""
    pod, report = s.pod, s.report
    timings = report.timings if report is not None else {}
    phases = {
        "scheduled": _finer(s.seen.get("scheduled"), pod.scheduled if pod is not None else None),
        "containerStarted": _finer(s.seen.get("containerStarted"), pod.started if pod is not None else None),
        "agentStarted": from_unix(timings.get("processStarted", 0.0)),
        "kernelReady": from_unix(timings.get("kernelReady", 0.0)),
        "ready": outcome.since,
    }
    ready: dict[str, Any] = {
        "readyTime": format_time(outcome.since),
        "serviceInstance": service_instance(name, settings.pod.service, s.engine.namespace),
        "startup": startup | {phase: format_time(moment) for phase, moment in phases.items() if moment is not None},
    }
    if pod is not None:
        ready |= {"address": f"{pod.ip}:{AGENT_PORT}", "nodeName": pod.node}
    return ready


def _finer(seen: datetime | None, told: datetime | None) -> datetime | None:
    """The API tells whole seconds; what we saw is finer, unless we came later than that (a restart)."""
    if seen is None or told is None:
        return seen or told
    return seen if seen < told + timedelta(seconds=1.5) else told


def _usage(report: Report) -> dict[str, int]:
    names = {"memoryBytes": "memoryBytes", "memoryPeakBytes": "memoryPeakBytes"}
    return {name: int(report.usage[key]) for name, key in names.items() if key in report.usage}


def _user(engine: EngineView) -> str:
    return engine.spec.user if engine.spec is not None else "unknown"


def _type_and_version(s: Snapshot) -> tuple[str, str]:
    """As first written: an edit of the catalogue does not rename a running engine. Empty where not known yet."""
    if s.engine.text("engineType"):
        return s.engine.text("engineType"), s.engine.text("engineVersion")
    if s.plugin is not None:
        return s.plugin.spec.engine_type, s.plugin.spec.engine_version
    return "", ""

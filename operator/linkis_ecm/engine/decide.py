"""What should be, from what is: one pure function for an engine's whole life.

`decide(snapshot, now, settings)` looks at plain data and a clock and answers with the status to show, the actions to
take, when to look again, and the record for the database. It is total (it answers for every input) and idempotent: on
its own result it answers "nothing". It must not do anything itself.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from linkis_ecm.engine import ends, facts, podspec
from linkis_ecm.engine.decision import (
    Action,
    ConfirmPod,
    CreatePod,
    Decision,
    DeleteEngine,
    DeletePod,
    Outcome,
    Settings,
    Snapshot,
    Stop,
    StopAgent,
)
from linkis_ecm.engine.ends import Verdict
from linkis_ecm.engine.names import AGENT_PORT, pod_name
from linkis_ecm.engine.project import Projection, project
from linkis_ecm.engine.status import merge_patch
from linkis_ecm.engine.view import PodView
from linkis_ecm.engine.wanted import message_of, status_of
from linkis_ecm.model import reasons
from linkis_ecm.model.states import AVAILABLE, FINAL, EngineState, may_follow

# How long an agent that reported its kernel dead may take to exit, so that the container's own reason is seen.
LAST_WORDS = timedelta(seconds=10)
# Over the agent's own grace, for its answer and the kubelet's.
STOP_SLACK = timedelta(seconds=15)
# An agent that did not take the request to stop is asked again after this.
STOP_AGAIN = timedelta(seconds=5)


def decide(s: Snapshot, now: datetime, settings: Settings) -> Decision:
    """The decision for one engine; see the module's text."""
    if s.engine.state in FINAL:
        outcome = _settled(s, now)
    else:
        outcome = _outcome(s, now)
        before = s.engine.state
        if before is not None and not may_follow(before, outcome.state):
            # A late report, or a status edited by hand: an engine never goes back.
            outcome = Outcome(
                state=before, verdict=facts.told(s.engine), since=facts.since(s.engine, now), stop=outcome.stop
            )
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


def _as_told(
    s: Snapshot, state: EngineState, now: datetime, *, stop: Stop | None = None, actions: tuple[Action, ...] = ()
) -> Outcome:
    """What the status tells stands."""
    told, since = facts.told(s.engine), facts.since(s.engine, now)
    return Outcome(state=state, verdict=told, since=since, stop=stop, actions=actions)


def _without_pod(s: Snapshot, stop: Stop | None, now: datetime) -> Outcome:
    if s.engine.text("podName") or s.stop is not None:
        if not s.pod_gone:
            name = s.engine.text("podName") or pod_name(s.engine.name, s.engine.uid, facts.attempt(s.engine))
            state = s.engine.state or EngineState.STARTING
            look = (ConfirmPod(name),)
            return Outcome(
                state=state, verdict=facts.told(s.engine), since=facts.since(s.engine, now), stop=stop, actions=look
            )
        if stop is None:
            return _failed(s, Verdict(reasons.POD_DELETED), now)
    if stop is not None:
        return Outcome(state=EngineState.SUCCESS, verdict=Verdict(stop.reason), since=now, stop=stop)
    return _wanted(s, now)


def _wanted(s: Snapshot, now: datetime) -> Outcome:
    """No pod was made yet: one is wanted, if the plugin, the spec and the API server allow it."""
    due = facts.start_due(s)
    if s.plugin is None:
        problem = Verdict(reasons.PLUGIN_MISSING, facts.what_was_asked(s.engine))
        if now >= due:
            return _failed(s, problem, now)
        return Outcome(state=EngineState.STARTING, verdict=problem, since=s.engine.created, look_again=due)
    try:
        facts.check_pod(s.engine, s.plugin)
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
        actions=(CreatePod(facts.attempt(s.engine)),),
        look_again=due,
    )


def _ended(s: Snapshot, pod: PodView, stop: Stop | None, now: datetime) -> Outcome:
    if stop is not None and stop.reason is not reasons.KERNEL_DIED:
        return Outcome(state=EngineState.SUCCESS, verdict=Verdict(stop.reason), since=now, stop=stop)
    state, verdict = ends.end(pod, s.report, was_ready=facts.was_ready(s))
    return Outcome(state=state, verdict=verdict, since=now)


def _stopping(s: Snapshot, pod: PodView, stop: Stop, now: datetime) -> Outcome:
    limit = stop.since + timedelta(seconds=podspec.GRACE_SECONDS) + STOP_SLACK
    again = limit
    actions: tuple[Action, ...] = ()
    if pod.deleting:
        pass  # the kubelet is at it
    elif now >= limit or not (facts.was_ready(s) and pod.ip):
        # The agent had its time, or there is none that could be asked.
        actions = (DeletePod(pod.name, pod.uid, 0 if now >= limit else podspec.GRACE_SECONDS),)
    elif stop.sent is None or now >= stop.sent + STOP_AGAIN:
        address = f"{pod.ip}:{AGENT_PORT}"
        actions = (StopAgent(address, facts.attempt(s.engine), podspec.GRACE_SECONDS, stop.reason.name),)
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
        return Outcome(
            state=EngineState.SHUTTING_DOWN, verdict=Verdict(reasons.POD_DELETED), since=facts.since_new(s, now)
        )
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
        return Outcome(state=report.state, verdict=verdict, since=report.changed, look_again=facts.next_cull(s, now))
    if s.engine.state in AVAILABLE:
        # This operator is new and has no report yet: what was written stands.
        return _as_told(s, s.engine.state, now)
    return _starting(s, pod, now)


def _starting(s: Snapshot, pod: PodView, now: datetime) -> Outcome:
    problem = ends.trouble(pod)
    due = facts.start_due(s)
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
    since = facts.since(s.engine, now)
    actions: list[Action] = []
    if s.pod is not None and not s.pod.ended and not s.pod.deleting:
        actions.append(DeletePod(s.pod.name, s.pod.uid, podspec.GRACE_SECONDS))
    gone_at = facts.removal(s, since)
    if gone_at is not None and now >= gone_at and not s.engine.deleting:
        actions.append(DeleteEngine(s.engine.uid))
        gone_at = None
    return Outcome(state=state, verdict=facts.told(s.engine), since=since, actions=tuple(actions), look_again=gone_at)


def _failed(s: Snapshot, verdict: Verdict, now: datetime) -> Outcome:
    actions: tuple[Action, ...] = ()
    if s.pod is not None and not s.pod.ended and not s.pod.deleting:
        actions = (DeletePod(s.pod.name, s.pod.uid, podspec.GRACE_SECONDS),)
    return Outcome(state=EngineState.FAILED, verdict=verdict, since=now, actions=actions)


def _stop_due(s: Snapshot, now: datetime) -> Stop | None:
    engine, spec = s.engine, s.engine.spec
    if engine.state is EngineState.SHUTTING_DOWN and engine.text("reason") != reasons.POD_DELETED.name:
        # A drain that another operator began; its reason stands in the status.
        reason = reasons.by_name(engine.text("reason")) or reasons.STOPPED_BY_USER
        if reason not in (reasons.KERNEL_DIED, reasons.STOP_REQUESTED):
            return Stop(facts.since(engine, now), reason)
    if (spec is not None and spec.desired_state == "Stopped") or engine.deleting:
        return Stop(now, reasons.STOPPED_BY_USER)
    lifetime = facts.seconds(s, "max_lifetime")
    if lifetime and now >= engine.created + timedelta(seconds=lifetime):
        return Stop(now, reasons.LIFETIME_OVER)
    cull = facts.idle_over(s, now)
    return Stop(now, reasons.IDLE_TIMEOUT) if cull is not None and now >= cull else None


# --- status and record


def _decision(s: Snapshot, outcome: Outcome, now: datetime, settings: Settings) -> Decision:
    wanted = status_of(s, outcome, now, settings)
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
            reason=outcome.verdict.reason, message=message_of(s, outcome), status=wanted,
            ticket=facts.ticket_id(s.engine),
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

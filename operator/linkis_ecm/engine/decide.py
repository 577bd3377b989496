"""What should be, from what is: one pure function for an engine's whole life.

`decide(snapshot, now, settings)` looks at plain data and a clock and answers with the status to show, the actions to
take, when to look again, and the record for the database. It is total (it answers for every input) and idempotent: on
its own result it answers "nothing". It must not do anything itself.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from linkis_ecm.engine import facts, live_pod, podspec, restart, verdicts
from linkis_ecm.engine.conditions import merge_patch, says_pass_failed
from linkis_ecm.engine.decision import (
    Action,
    Collect,
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
from linkis_ecm.engine.desired_status import message_of, status_of
from linkis_ecm.engine.names import AGENT_PORT, pod_name
from linkis_ecm.engine.project import Projection, project
from linkis_ecm.engine.verdicts import Verdict
from linkis_ecm.engine.view import PodView
from linkis_ecm.model import reasons
from linkis_ecm.model.states import AVAILABLE, FINAL, EngineState, may_follow

# Over the engine's own grace, for the agent's answer, its last report and its logs on their way to the archive.
STOP_SLACK = timedelta(seconds=podspec.AFTER_GRACE)
# An agent that did not take the request to stop is asked again after this.
STOP_AGAIN = timedelta(seconds=5)
# A pod that is still there so long after its grace has a kubelet that does not answer.
STUCK_AFTER = timedelta(seconds=60)


def decide(s: Snapshot, now: datetime, settings: Settings) -> Decision:
    """The decision for one engine; see the module's text."""
    if s.engine.state in FINAL:
        return _decision(s, _settled(s, now), now, settings)
    outcome = _outcome(s, now, settings)
    before = s.engine.state
    if before is not None and not may_follow(before, outcome.state):
        # A late report, or a status edited by hand: an engine never goes back.
        outcome = live_pod.as_told(s, before, now, stop=outcome.stop)
    if outcome.state is EngineState.FAILED:
        outcome = _with_namespace(s, outcome) or _again(s, outcome, now)
    if (outcome.state in FINAL or outcome.restart) and (collect := _outstanding(s, outcome)) is not None:
        # Nothing is written before what can be had is kept; the outcome is found again with the next pass.
        state = before or EngineState.STARTING
        outcome = live_pod.as_told(s, state, now, stop=outcome.stop, actions=(collect,))
    return _decision(s, outcome, now, settings)


# --- the state


def _outcome(s: Snapshot, now: datetime, settings: Settings) -> Outcome:
    if s.engine.spec is None:
        return live_pod.failed(s, Verdict(reasons.INVALID_SPEC, s.engine.invalid), now)
    stop = s.stop or _stop_due(s, now)
    if s.pod is None:
        return _without_pod(s, stop, now)
    if s.pod.ended:
        return _ended(s, s.pod, stop, now)
    if _is_stuck(s.pod, now):
        return _stuck(s, s.pod, stop, now)
    if stop is not None:
        return _stopping(s, s.pod, stop, now)
    return live_pod.living(s, s.pod, now, settings)


def _without_pod(s: Snapshot, stop: Stop | None, now: datetime) -> Outcome:
    if s.engine.text("podName") or s.stop is not None:
        if not s.pod_gone:
            name = s.engine.text("podName") or pod_name(s.engine.name, s.engine.uid, facts.attempt(s.engine))
            state = s.engine.state or EngineState.STARTING
            return live_pod.as_told(s, state, now, stop=stop, actions=(ConfirmPod(name),))
        if stop is None:
            return _gone(s, now)
    if stop is not None:
        return Outcome(state=EngineState.SUCCESS, verdict=Verdict(stop.reason), since=now, stop=stop)
    return _wanted(s, now)


def _gone(s: Snapshot, now: datetime) -> Outcome:
    """Nobody asked for its pod's end. A kubelet takes a pod away moments after it has told how it ended, which may be
    while evidence is collected: what was told last counts."""
    last = s.last_pod
    if last is not None and last.ended and last.name == s.engine.text("podName"):
        return _ended(s, last, None, now)
    return live_pod.failed(s, Verdict(reasons.POD_DELETED), now)


def _wanted(s: Snapshot, now: datetime) -> Outcome:
    """No pod was made yet: one is wanted, if the plugin, the spec and the API server allow it."""
    begins, due = facts.began(s.engine), facts.start_due(s)
    if s.plugin is None:
        problem = Verdict(reasons.PLUGIN_MISSING, facts.what_was_asked(s.engine))
        if now >= due:
            return live_pod.failed(s, problem, now)
        return Outcome(state=EngineState.STARTING, verdict=problem, since=s.engine.created, look_again=due)
    try:
        facts.check_pod(s.engine, s.plugin)
    except podspec.InvalidSpecError as error:
        return live_pod.failed(s, Verdict(reasons.INVALID_SPEC, str(error)), now)
    if s.failure is not None and s.failure.verdict.fatal:
        return live_pod.failed(s, s.failure.verdict, now)
    if now < begins or s.others:
        # Of one engine one pod lives at most: the old one goes before the next comes.
        waiting = live_pod.as_told(s, EngineState.STARTING, now, actions=_delete_others(s, now))
        return replace(waiting, look_again=max(begins, now + STOP_AGAIN) if s.others else begins)
    problem_now = s.failure.verdict if s.failure is not None else None
    if now >= due:
        return live_pod.failed(s, Verdict(reasons.START_TIMEOUT, verdicts.hung_phase(None, problem_now)), now)
    if s.failure is not None and now < s.failure.retry_at:
        look = min(due, s.failure.retry_at)
        return Outcome(state=EngineState.STARTING, verdict=s.failure.verdict, since=begins, look_again=look)
    return Outcome(
        state=EngineState.STARTING,
        verdict=problem_now or Verdict(reasons.POD_CREATED),
        since=begins,
        actions=(CreatePod(facts.attempt(s.engine)),),
        look_again=due,
    )


def _delete_others(s: Snapshot, now: datetime) -> tuple[Action, ...]:
    deletions = (_take_away(pod, now, 0 if pod.ended else podspec.AFTER_GRACE) for pod in s.others)
    return tuple(one for one in deletions if one is not None)


def _take_away(pod: PodView, now: datetime, grace: int) -> DeletePod | None:
    """A pod that is left over is asked to go, and taken by force where its kubelet is dead; None while it is at it."""
    if pod.deleting:
        return DeletePod(pod.name, pod.uid, 0) if _is_stuck(pod, now) else None
    return DeletePod(pod.name, pod.uid, grace)


def _stuck_at(pod: PodView) -> datetime | None:
    """When its kubelet will not have ended a pod within its grace and a minute more."""
    return pod.deleted_by + STUCK_AFTER if pod.deleting and pod.deleted_by is not None else None


def _is_stuck(pod: PodView, now: datetime) -> bool:
    at = _stuck_at(pod)
    return at is not None and now >= at


def _ended(s: Snapshot, pod: PodView, stop: Stop | None, now: datetime) -> Outcome:
    if stop is not None and stop.reason is not reasons.KERNEL_DIED:
        return Outcome(state=EngineState.SUCCESS, verdict=Verdict(stop.reason), since=now, stop=stop)
    once = s.engine.spec is not None and s.engine.spec.mode == "once"
    state, verdict = verdicts.end(pod, s.report, was_ready=facts.was_ready(s), once=once)
    return Outcome(state=state, verdict=verdict, since=now)


def _stuck(s: Snapshot, pod: PodView, stop: Stop | None, now: datetime) -> Outcome:
    """The API's object is taken away by force."""
    force = (DeletePod(pod.name, pod.uid, 0),)
    if stop is not None:
        return Outcome(state=EngineState.SUCCESS, verdict=Verdict(stop.reason), since=now, stop=stop, actions=force)
    words = f"Its node {pod.node or 'unknown'} did not confirm the end of the pod."
    return replace(live_pod.failed(s, Verdict(reasons.NODE_LOST, words), now), actions=force)


def _stopping(s: Snapshot, pod: PodView, stop: Stop, now: datetime) -> Outcome:
    grace = facts.stop_grace(s)
    limit = stop.since + timedelta(seconds=grace) + STOP_SLACK
    again = limit
    actions: tuple[Action, ...] = ()
    if pod.deleting:
        # The kubelet is at it.
        again = _stuck_at(pod) or now + STOP_AGAIN
    elif now >= limit or not (facts.was_ready(s) and pod.ip):
        # The agent had its time, or there is none that could be asked.
        actions = (DeletePod(pod.name, pod.uid, 0 if now >= limit else podspec.AFTER_GRACE),)
    elif stop.sent is None or now >= stop.sent + STOP_AGAIN:
        address = f"{pod.ip}:{AGENT_PORT}"
        actions = (StopAgent(address, facts.attempt(s.engine), grace, stop.reason.name),)
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


def _settled(s: Snapshot, now: datetime) -> Outcome:
    state = s.engine.state or EngineState.FAILED
    since = facts.since(s.engine, now)
    told = facts.told(s.engine)
    living_on = [pod for pod in (s.pod, *s.others) if pod is not None and not pod.ended]
    grace = 0 if told.reason is reasons.NODE_LOST else podspec.AFTER_GRACE
    actions: list[Action] = [one for pod in living_on if (one := _take_away(pod, now, grace)) is not None]
    gone_at = facts.removal(s, since)
    if gone_at is not None and now >= gone_at and not s.engine.deleting:
        actions.append(DeleteEngine(s.engine.uid))
        gone_at = None
    stuck_at = [at for pod in living_on if (at := _stuck_at(pod)) is not None and at > now]
    look_again = min((at for at in (gone_at, *stuck_at) if at is not None), default=None)
    return Outcome(state=state, verdict=told, since=since, actions=tuple(actions), look_again=look_again)


def _again(s: Snapshot, outcome: Outcome, now: datetime) -> Outcome:
    """A failed attempt that another one follows, by the engine's restart policy."""
    follows = restart.next_attempt(outcome.verdict, s, now)
    if follows is None:
        if restart.exhausted(outcome.verdict, s):
            return replace(outcome, exhausted=True)
        return outcome
    delete: tuple[Action, ...] = ()
    if s.pod is not None:
        lost = outcome.verdict.reason in (reasons.NODE_LOST, reasons.AGENT_LOST)
        delete = (DeletePod(s.pod.name, s.pod.uid, 0 if lost or s.pod.ended else podspec.AFTER_GRACE),)
    most = restart.policy(s).max_attempts
    details = (
        f"Attempt {follows.attempt + 1} of {most} begins in {(follows.begins - now).total_seconds():.0f} s."
        f" The last one ended as {outcome.verdict.reason.name}: {outcome.verdict.message}"
    )
    return Outcome(
        state=EngineState.STARTING,
        verdict=Verdict(reasons.RESTARTING, details),
        since=now,
        actions=delete,
        look_again=follows.begins,
        restart=follows,
    )


def _with_namespace(s: Snapshot, outcome: Outcome) -> Outcome | None:
    """A pod that was deleted with its whole namespace: the engine is deleted, whichever of the two went first."""
    if outcome.verdict.reason is reasons.POD_DELETED and s.evidence is not None and s.evidence.namespace_ending:
        return replace(outcome, state=EngineState.SUCCESS, verdict=Verdict(reasons.DELETED))
    return None


def _outstanding(s: Snapshot, outcome: Outcome) -> Collect | None:
    """The evidence of the pod that ended, where it is not kept yet."""
    attempt = facts.attempt(s.engine)
    if s.evidence is not None and s.evidence.attempt == attempt:
        return None
    if s.pod is None and not s.engine.text("podName"):
        return None
    name = s.pod.name if s.pod is not None else s.engine.text("podName")
    verdict = outcome.restart.verdict if outcome.restart is not None else outcome.verdict
    return Collect(attempt, name, verdict)


def _stop_due(s: Snapshot, now: datetime) -> Stop | None:
    engine = s.engine
    if engine.state is EngineState.SHUTTING_DOWN and engine.text("reason") != reasons.POD_DELETED.name:
        # A drain that another operator began; its reason stands in the status.
        reason = reasons.by_name(engine.text("reason")) or reasons.STOPPED_BY_USER
        since = facts.since(engine, now)
        over = now >= since + timedelta(seconds=facts.stop_grace(s)) + STOP_SLACK
        # One that the engine began itself is its own affair, until its time is over.
        if reason is not reasons.KERNEL_DIED and (reason is not reasons.STOP_REQUESTED or over):
            return Stop(since, reason)
    if facts.stopping(engine):
        return Stop(now, reasons.STOPPED_BY_USER)
    ends_at = facts.life_over(s)
    if ends_at is not None and now >= ends_at:
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
        and wanted["attempt"] == (current.get("attempt") or 0)
        and current.get("observedGeneration") == s.engine.generation
        and not says_pass_failed(current.get("conditions"))
    )
    collecting = any(isinstance(action, Collect) for action in outcome.actions)
    if not same and not collecting:
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
        message=message_of(s, outcome),
    )


def _held_until(s: Snapshot, outcome: Outcome, settings: Settings) -> datetime | None:
    """A flip or a drain that may be over in a moment waits before it becomes a write."""
    brief = AVAILABLE | {EngineState.SHUTTING_DOWN}
    flips = outcome.state is not s.engine.state
    if flips and s.engine.state in AVAILABLE and outcome.state in brief:
        return outcome.since + (settings.hold_end if outcome.state is EngineState.SHUTTING_DOWN else settings.hold)
    return None

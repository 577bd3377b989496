"""An engine whose pod lives and whose end nobody asked for: starting, ready, silent, or ending by itself. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from linkis_ecm.engine import facts, podspec, verdicts
from linkis_ecm.engine.decision import Action, AskAgent, AskNode, DeletePod, Outcome, Settings, Snapshot, Stop
from linkis_ecm.engine.names import AGENT_PORT
from linkis_ecm.engine.verdicts import Verdict
from linkis_ecm.engine.view import PodView, Report
from linkis_ecm.model import reasons
from linkis_ecm.model.reasons import Reason
from linkis_ecm.model.states import AVAILABLE, EngineState

# How long an agent that reported its kernel dead may take to exit, so that the container's own reason is seen and its
# logs are in the archive.
LAST_WORDS = timedelta(seconds=15)
# An agent is called lost after so many vain questions at least, however long it was silent.
ASKS_MIN = 3

_READY: dict[EngineState, Reason] = {
    EngineState.BUSY: reasons.EXECUTING,
    EngineState.RUNNING: reasons.JOB_RUNNING,
    EngineState.LOCKED: reasons.CLAIMED,
    EngineState.UNLOCK: reasons.FREE,
    EngineState.IDLE: reasons.KERNEL_READY,
}


def as_told(
    s: Snapshot, state: EngineState, now: datetime, *, stop: Stop | None = None, actions: tuple[Action, ...] = ()
) -> Outcome:
    """What the status tells stands."""
    told, since = facts.told(s.engine), facts.since(s.engine, now)
    return Outcome(state=state, verdict=told, since=since, stop=stop, actions=actions)


def failed(s: Snapshot, verdict: Verdict, now: datetime) -> Outcome:
    """The attempt has failed; a pod that still lives goes."""
    actions: tuple[Action, ...] = ()
    if s.pod is not None and not s.pod.ended and not s.pod.deleting:
        actions = (DeletePod(s.pod.name, s.pod.uid, podspec.AFTER_GRACE),)
    return Outcome(state=EngineState.FAILED, verdict=verdict, since=now, actions=actions)


def living(s: Snapshot, pod: PodView, now: datetime, settings: Settings) -> Outcome:
    """The outcome for an engine with a live pod and no stop under way."""
    if pod.deleting:
        since = facts.since_new(s, pod.deleted_at or now)
        look = (pod.deleted_by or now) + timedelta(seconds=61)
        verdict = Verdict(reasons.POD_DELETED)
        return Outcome(state=EngineState.SHUTTING_DOWN, verdict=verdict, since=since, look_again=look)
    report = s.report
    if report is not None and report.state is EngineState.FAILED:
        exit_due = report.changed + LAST_WORDS
        if now >= exit_due:
            return failed(s, verdicts.told(report), now)
        return _ends_by_itself(report, verdicts.told(report), exit_due)
    if report is not None and report.state in (EngineState.SHUTTING_DOWN, EngineState.SUCCESS):
        limit = timedelta(seconds=facts.stop_grace(s) + podspec.AFTER_GRACE)
        # A job that is done was not asked to stop.
        reason = reasons.COMPLETED if report.state is EngineState.SUCCESS else reasons.STOP_REQUESTED
        return _ends_by_itself(report, Verdict(reason), report.changed + limit)
    # An agent may report before the API has its pod's address: until then nobody could reach it.
    if report is not None and report.state in AVAILABLE and (pod.ip or s.engine.state in AVAILABLE):
        return _silent(s, pod, now, settings) or _ready(s, report, now, settings)
    if s.engine.state in AVAILABLE:
        # This operator is new and has no report yet: what was written stands.
        return _silent(s, pod, now, settings) or _until_silent(as_told(s, s.engine.state, now), s, settings)
    return _starting(s, pod, now)


def _ends_by_itself(report: Report, verdict: Verdict, until: datetime) -> Outcome:
    return Outcome(
        state=EngineState.SHUTTING_DOWN, verdict=verdict, since=report.changed, look_again=until
    )  # fmt: skip


def _ready(s: Snapshot, report: Report, now: datetime, settings: Settings) -> Outcome:
    verdict = Verdict(_READY[report.state])
    look = facts.next_cull(s, now)
    warned = facts.warned_at(s, now)
    if warned is not None and look is not None:
        if now < warned:
            look = warned
        elif report.state in (EngineState.IDLE, EngineState.UNLOCK):
            which = "idleTimeout" if look == facts.idle_over(s, now) else "maxLifetime"
            verdict = Verdict(reasons.CULL_SOON, f"Its {which} is over at {look:%Y-%m-%d %H:%M:%S} UTC.")
    outcome = Outcome(state=report.state, verdict=verdict, since=report.changed, look_again=look)
    return _until_silent(outcome, s, settings)


def _until_silent(outcome: Outcome, s: Snapshot, settings: Settings) -> Outcome:
    """Looks again when the agent will have been silent for too long, if that is sooner."""
    if s.silence is None:
        return outcome
    due = s.silence.heard + settings.silent_after
    return replace(outcome, look_again=due if outcome.look_again is None else min(outcome.look_again, due))


def _silent(s: Snapshot, pod: PodView, now: datetime, settings: Settings) -> Outcome | None:
    """An agent that stopped reporting is asked; one that does not answer is lost. None while it is heard.

    That the kubelet calls the pod Running says nothing here: a dead node's kubelet says nothing at all.
    """
    silence = s.silence
    if silence is None or now < silence.heard + settings.silent_after:
        return None
    state = s.engine.state or EngineState.IDLE
    if s.deaf:
        return replace(as_told(s, state, now), look_again=now + settings.silent_after)
    quiet = now - silence.heard
    # What was said of the node counts from then on alone: just before, a dead one may still be called ready.
    asked_late = silence.asked is not None and silence.asked >= silence.heard + settings.lost_after
    if asked_late and silence.asks >= ASKS_MIN and (silence.node or not pod.node):
        words = f"It was last heard {quiet.total_seconds():.0f} s ago and did not answer {silence.asks} questions."
        lost = silence.node and silence.node != "ready"
        reason = reasons.NODE_LOST if lost else reasons.AGENT_LOST
        details = f"{words} Its node {pod.node}: {silence.node}." if pod.node else words
        force = (DeletePod(pod.name, pod.uid, 0 if lost else podspec.AFTER_GRACE),)
        return Outcome(state=EngineState.FAILED, verdict=Verdict(reason, details), since=now, actions=force)
    actions: list[Action] = []
    if silence.asked is None or now >= silence.asked + settings.ask_again:
        if pod.ip:
            actions.append(AskAgent(f"{pod.ip}:{AGENT_PORT}", facts.attempt(s.engine)))
        if pod.node and silence.asks >= ASKS_MIN - 1:
            actions.append(AskNode(pod.node))
    return replace(as_told(s, state, now, actions=tuple(actions)), look_again=now + settings.ask_again)


def _starting(s: Snapshot, pod: PodView, now: datetime) -> Outcome:
    problem = verdicts.trouble(pod)
    due = facts.start_due(s)
    if problem is not None and problem.fatal:
        return failed(s, problem, now)
    if now >= due:
        return failed(s, Verdict(reasons.START_TIMEOUT, verdicts.hung_phase(pod, problem)), now)
    verdict = problem or Verdict(reasons.POD_CREATED)
    return Outcome(state=EngineState.STARTING, verdict=verdict, since=facts.began(s.engine), look_again=due)

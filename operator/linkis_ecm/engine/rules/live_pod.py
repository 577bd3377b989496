"""Rules for an engine whose pod runs and that nobody stops: starting, ready, silent, ending by itself. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from linkis_ecm.engine import facts, launch, verdicts
from linkis_ecm.engine.decision import Action, AskAgent, AskNode, DeletePod, Outcome
from linkis_ecm.engine.names import AGENT_PORT
from linkis_ecm.engine.rules.situation import Situation
from linkis_ecm.engine.verdicts import Verdict
from linkis_ecm.engine.view import Report
from linkis_ecm.model import reasons
from linkis_ecm.model.reasons import Reason
from linkis_ecm.model.states import AVAILABLE, EngineState

# How long an agent that reported its kernel dead may take to exit: so that the container's own reason is seen and its
# logs are in the archive.
EXIT_WAIT = timedelta(seconds=15)
# An agent counts as lost only after so many unanswered requests, however long it was silent.
UNANSWERED_MIN = 3
# The API gives whole seconds: where a pass sees a change within this time of them, the pass's own clock is finer.
SEEN_AT_ONCE = timedelta(seconds=1.5)

_READY: dict[EngineState, Reason] = {
    EngineState.BUSY: reasons.EXECUTING,
    EngineState.RUNNING: reasons.JOB_RUNNING,
    EngineState.LOCKED: reasons.CLAIMED,
    EngineState.UNLOCK: reasons.FREE,
    EngineState.IDLE: reasons.KERNEL_READY,
}


# --- the start, whatever is launched


def start_impossible(case: Situation) -> Outcome | None:
    """The kubelet refuses the pod, and waiting does not help."""
    problem = verdicts.start_problem(case.pod)
    return case.failed(problem) if problem is not None and problem.fatal else None


def start_timeout(case: Situation) -> Outcome | None:
    if case.now < facts.start_due(case.s):
        return None
    problem, waits_for = verdicts.start_problem(case.pod), launch.waits_for(case.launch)
    return case.failed(Verdict(reasons.START_TIMEOUT, verdicts.unfinished_phase(case.pod, problem, waits_for)))


def starting(case: Situation) -> Outcome | None:
    return Outcome(
        state=EngineState.STARTING,
        verdict=verdicts.start_problem(case.pod) or Verdict(reasons.POD_CREATED),
        since=facts.attempt_began(case.s.engine),
        requeue_at=min(filter(None, (facts.start_due(case.s), launch.process_ready_at(case.launch, case.pod)))),
    )


# --- an agent that reports


def agent_failed(case: Situation) -> Outcome | None:
    """The agent reported its end: its container has a moment to exit, so that its own reason is seen."""
    report = case.s.report
    if report is None or report.state is not EngineState.FAILED:
        return None
    exit_due = report.changed + EXIT_WAIT
    verdict = verdicts.reported_verdict(report)
    return case.failed(verdict) if case.now >= exit_due else _ends_by_itself(report, verdict, exit_due)


def agent_ends(case: Situation) -> Outcome | None:
    """The agent reported that it drains, or that its job is done."""
    report = case.s.report
    if report is None or report.state not in (EngineState.SHUTTING_DOWN, EngineState.SUCCESS):
        return None
    limit = timedelta(seconds=facts.stop_grace(case.s) + launch.AFTER_GRACE)
    # A job that is done was not asked to stop.
    reason = reasons.COMPLETED if report.state is EngineState.SUCCESS else reasons.STOP_REQUESTED
    return _ends_by_itself(report, Verdict(reason), report.changed + limit)


def agent_silent(case: Situation) -> Outcome | None:
    """An agent that stopped reporting is asked; one that does not answer is lost. None while it reports.

    That the kubelet calls the pod Running says nothing here: a dead node's kubelet says nothing at all.
    """
    s, pod, now, settings = case.s, case.pod, case.now, case.settings
    silence = s.silence
    if not _is_up(case) or silence is None or now < silence.last_contact + settings.silent_after:
        return None
    state = s.engine.state or EngineState.IDLE
    if s.report_path_down:
        return case.unchanged(state, requeue_at=now + settings.silent_after)
    quiet = now - silence.last_contact
    # Of the node only what was said from then on counts: before that, a dead one may still be called ready.
    asked_late = silence.last_asked is not None and silence.last_asked >= silence.last_contact + settings.lost_after
    if asked_late and silence.unanswered >= UNANSWERED_MIN and (silence.node or not pod.node):
        words = (
            f"It was last heard {quiet.total_seconds():.0f} s ago and did not answer {silence.unanswered} questions."
        )
        lost = silence.node and silence.node != "ready"
        reason = reasons.NODE_LOST if lost else reasons.AGENT_LOST
        details = f"{words} Its node {pod.node}: {silence.node}." if pod.node else words
        force = (DeletePod(pod.name, pod.uid, 0 if lost else launch.AFTER_GRACE),)
        return Outcome(state=EngineState.FAILED, verdict=Verdict(reason, details), since=now, actions=force)
    actions: list[Action] = []
    if silence.last_asked is None or now >= silence.last_asked + settings.ask_again:
        if pod.ip:
            actions.append(AskAgent(f"{pod.ip}:{AGENT_PORT}", facts.attempt(s.engine)))
        if pod.node and silence.unanswered >= UNANSWERED_MIN - 1:
            actions.append(AskNode(pod.node))
    return case.unchanged(state, actions=tuple(actions), requeue_at=now + settings.ask_again)


def agent_ready(case: Situation) -> Outcome | None:
    """The engine is in the state that its agent reports."""
    report = case.s.report
    if report is None or report.state not in AVAILABLE or not _is_up(case):
        return None
    return _until_silent(case, available(case, report.state, _READY[report.state], report.changed))


def agent_unheard(case: Situation) -> Outcome | None:
    """This operator process is new and has no report yet: what was written stands."""
    state = case.s.engine.state
    return _until_silent(case, case.unchanged(state)) if state in AVAILABLE else None


# --- a process, by what the kubelet says of its pod


def process_ready(case: Situation) -> Outcome | None:
    ready_at = launch.process_ready_at(case.launch, case.pod)
    if ready_at is None or case.now < ready_at:
        return None
    if case.s.engine.state in AVAILABLE:
        since = facts.since(case.s.engine, case.now)
    else:
        since = case.now if case.now < ready_at + SEEN_AT_ONCE else ready_at
    return available(case, EngineState.IDLE, reasons.PROCESS_READY, since)


def process_not_ready(case: Situation) -> Outcome | None:
    """A process that was ready and does not answer now has not ended: it stays Idle, with the condition Ready False."""
    if case.s.engine.state not in AVAILABLE:
        return None
    return Outcome(
        state=EngineState.IDLE,
        verdict=Verdict(reasons.PROCESS_NOT_READY),
        since=facts.since(case.s.engine, case.now),
        requeue_at=facts.next_cull(case.s, case.now),
    )


# --- both


def available(case: Situation, state: EngineState, reason: Reason, since: datetime) -> Outcome:
    """An engine that can be used; shortly before its idleTimeout or maxLifetime is over it says so."""
    s, now = case.s, case.now
    verdict = Verdict(reason)
    requeue_at = facts.next_cull(s, now)
    warned = facts.cull_warning_at(s, now)
    if warned is not None and requeue_at is not None:
        if now < warned:
            requeue_at = warned
        elif state in (EngineState.IDLE, EngineState.UNLOCK):
            which = "idleTimeout" if requeue_at == facts.idle_over(s, now) else "maxLifetime"
            verdict = Verdict(reasons.CULL_SOON, f"Its {which} is over at {requeue_at:%Y-%m-%d %H:%M:%S} UTC.")
    return Outcome(state=state, verdict=verdict, since=since, requeue_at=requeue_at)


def _is_up(case: Situation) -> bool:
    """The status says so, or the agent does. An agent may report before the API has its pod's address: until then
    nobody could reach it."""
    if case.s.engine.state in AVAILABLE:
        return True
    report = case.s.report
    return report is not None and report.state in AVAILABLE and bool(case.pod.ip)


def _ends_by_itself(report: Report, verdict: Verdict, until: datetime) -> Outcome:
    return Outcome(state=EngineState.SHUTTING_DOWN, verdict=verdict, since=report.changed, requeue_at=until)


def _until_silent(case: Situation, outcome: Outcome) -> Outcome:
    """Looks again when the agent will have been silent for too long, if that is sooner."""
    if case.s.silence is None:
        return outcome
    due = case.s.silence.last_contact + case.settings.silent_after
    return replace(outcome, requeue_at=due if outcome.requeue_at is None else min(outcome.requeue_at, due))

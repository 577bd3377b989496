"""Rules for an engine whose pod runs and has no stop: starting, ready, silent, or exiting by itself. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from linkis_ecm.engine import facts
from linkis_ecm.engine.causes import start_problems, verdicts
from linkis_ecm.engine.causes.verdicts import Verdict
from linkis_ecm.engine.decision import (
    Action,
    DeletePod,
    GetAgentStatus,
    GetNodeCondition,
    GetPodEvents,
    IdentifyPod,
    Outcome,
)
from linkis_ecm.engine.names import AGENT_PORT, host_port
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.rules.ending import STOP_RETRY
from linkis_ecm.engine.rules.situation import Situation
from linkis_ecm.engine.view import Report
from linkis_ecm.model import reasons
from linkis_ecm.model.reasons import Reason
from linkis_ecm.model.states import AVAILABLE, EngineState

# How long an agent that reported a dead kernel may take to exit. In this time it uploads its logs, and the container's
# own reason becomes visible.
EXIT_WAIT = timedelta(seconds=15)
# An agent counts as lost only after this many unanswered requests, however long it was silent.
MIN_UNANSWERED = 3
# The API has whole seconds. A pass that sees a change within this time of it uses its own, finer clock.
SEEN_AT_ONCE = timedelta(seconds=1.5)

# A start of usual length takes less. Only a longer one is explained, because each explanation is a write to the API.
SLOW_START = timedelta(seconds=10)
# Between two reads of the events of a pod that does not start.
EVENTS_PERIOD = timedelta(seconds=30)

_READY: dict[EngineState, Reason] = {
    EngineState.BUSY: reasons.EXECUTING,
    EngineState.RUNNING: reasons.JOB_RUNNING,
    EngineState.LOCKED: reasons.CLAIMED,
    EngineState.UNLOCK: reasons.FREE,
    EngineState.IDLE: reasons.KERNEL_READY,
}


# --- the start, whatever is launched


def identify_pod(case: Situation) -> Outcome | None:
    """A pod has the name of the engine's pod, and nothing says who made it: this operator before it ended, or somebody
    else. It is no pod of the engine until that is known."""
    if not case.s.pod_unknown:
        return None
    state = case.s.engine.state or EngineState.STARTING
    identify = IdentifyPod(case.pod.name, case.pod.uid)
    return case.unchanged(state, stop=case.stop, actions=(identify,), requeue_at=case.now + STOP_RETRY)


def start_impossible(case: Situation) -> Outcome | None:
    """The pod can never start; waiting does not help."""
    problem = start_problems.start_problem(case.pod)
    return case.failed(problem) if problem is not None and problem.fatal else None


def start_timeout(case: Situation) -> Outcome | None:
    if _waits_for_admission(case) or case.now < facts.start_deadline(case.s):
        return None
    pod, evidence = case.pod, case.s.evidence
    problem = start_problems.start_problem(pod) or start_problems.init_runs(pod)
    if problem is None and pod.started is None:
        problem = evidence.start_problem if evidence is not None else case.s.event_problem.verdict
    if problem is not None:
        overdue = verdicts.start_overdue(problem)
        tail = evidence.log_tail if evidence is not None else ""
        return case.failed(verdicts.with_evidence(overdue, start_problem=None, eviction=None, tail=tail))
    waits_for = launch.waits_for(case.launch)
    if pod.started is not None and launch.readiness_probe(case.launch) is not None:
        return case.failed(Verdict(reasons.NEVER_ANSWERED, waits_for))
    return case.failed(Verdict(reasons.START_TIMEOUT, verdicts.unfinished_phase(pod, waits_for)))


def starting(case: Situation) -> Outcome | None:
    """What the start waits for. A start of the usual length says only that its pod is made."""
    s, pod, now = case.s, case.pod, case.now
    problem, actions = start_problems.start_problem(pod), []
    slow_at = facts.start_began(s) + SLOW_START
    # An agent reports when it is ready. Its pod is Ready before that, and a pass that is due in the past runs at once,
    # again and again.
    due: list[datetime | None] = [None if launch.has_agent(case.launch) else launch.process_ready_at(case.launch, pod)]
    # Of a process that runs there is nothing more to say: its readiness check has its own times.
    explained = problem is None and (pod.started is None or launch.has_agent(case.launch))
    if not _waits_for_admission(case):
        due.append(facts.start_deadline(s))
    if explained and now < slow_at:
        due.append(slow_at)
    elif explained:
        problem = start_problems.init_runs(pod)
        if problem is None and pod.node and pod.started is None:
            read = s.event_problem.read
            if read is None or now >= read + EVENTS_PERIOD:
                actions.append(GetPodEvents(pod.name))
            problem = s.event_problem.verdict
            due.append((now if actions or read is None else read) + EVENTS_PERIOD)
        problem = problem or _phase(pod)
    return Outcome(
        state=EngineState.STARTING,
        verdict=problem or Verdict(reasons.POD_CREATED),
        since=facts.attempt_began(s.engine),
        actions=tuple(actions),
        requeue_at=min(filter(None, due), default=None),
    )


def _phase(pod: PodView) -> Verdict | None:
    if pod.started is not None:
        return Verdict(reasons.CONTAINER_STARTED)
    return Verdict(reasons.POD_SCHEDULED) if pod.node else None


def _waits_for_admission(case: Situation) -> bool:
    """Whether the pod waits in a queue of its cluster. The time there is not its start's; the next pass after its
    admission has the new deadline."""
    return bool(case.pod.gates) or facts.was_gated(case.s.engine)


# --- an agent that reports


def agent_failed(case: Situation) -> Outcome | None:
    """The agent reported Failed. Its container gets EXIT_WAIT to exit, so that the container's own reason is
    visible."""
    report = case.s.report
    if report is None or report.state is not EngineState.FAILED:
        return None
    exit_due = report.changed + EXIT_WAIT
    verdict = verdicts.reported_verdict(report)
    return case.failed(verdict) if case.now >= exit_due else _exits_by_itself(report, verdict, exit_due)


def agent_ends(case: Situation) -> Outcome | None:
    """The agent reported that it drains, or that its job has ended."""
    report = case.s.report
    if report is None or report.state not in (EngineState.SHUTTING_DOWN, EngineState.SUCCESS):
        return None
    limit = timedelta(seconds=facts.stop_grace(case.s) + launch.AFTER_GRACE)
    # An ended job was not asked to stop.
    reason = reasons.COMPLETED if report.state is EngineState.SUCCESS else reasons.STOP_REQUESTED
    return _exits_by_itself(report, Verdict(reason), report.changed + limit)


def agent_silent(case: Situation) -> Outcome | None:
    """A silent agent is asked for its status; one that does not answer is lost. None while it reports.

    The pod's phase Running proves nothing: the kubelet of a dead node cannot change it.
    """
    s, pod, now, settings = case.s, case.pod, case.now, case.settings
    silence = s.silence
    if not _is_up(case) or silence is None:
        return None
    # Nobody reports to an operator that does not have the key: it asks at once.
    ask_now = case.key_unknown and not silence.refusal
    if not ask_now and now < silence.last_contact + settings.silent_after:
        return None
    state = s.engine.state or EngineState.IDLE
    if s.report_path_down:
        return case.unchanged(state, requeue_at=now + settings.silent_after)
    silent_for = now - silence.last_contact
    # The node's condition counts only if it was read after lost_after: before that, a dead node may still be Ready.
    asked_late = silence.last_asked is not None and silence.last_asked >= silence.last_contact + settings.lost_after
    if asked_late and silence.unanswered >= MIN_UNANSWERED and (silence.node or not pod.node):
        silence_text = (
            f"It was last heard {silent_for.total_seconds():.0f} s ago and did not answer {silence.unanswered}"
            " questions."
        )
        lost = silence.node and silence.node != "ready"
        reason = reasons.NODE_LOST if lost else reasons.AGENT_LOST
        details = f"{silence_text} Its node {pod.node}: {silence.node}." if pod.node else silence_text
        force = (DeletePod(pod.name, pod.uid, 0 if lost else launch.AFTER_GRACE),)
        return Outcome(state=EngineState.FAILED, verdict=Verdict(reason, details), since=now, actions=force)
    actions: list[Action] = []
    if silence.last_asked is None or now >= silence.last_asked + settings.ask_interval:
        if pod.ip:
            actions.append(GetAgentStatus(host_port(pod.ip, AGENT_PORT), facts.attempt(s.engine), facts.agent_key(s)))
        if pod.node and silence.unanswered >= MIN_UNANSWERED - 1:
            actions.append(GetNodeCondition(pod.node))
    return case.unchanged(state, actions=tuple(actions), requeue_at=now + settings.ask_interval)


def agent_refuses(case: Situation) -> Outcome | None:
    """The agent answers, and does not take this operator's key. It runs on, and cannot be used until the key is back.

    It is asked again as a silent one; maxLifetime and a stop end it as any other.
    """
    s, state = case.s, case.s.engine.state
    if s.silence is None or not s.silence.refusal or state not in AVAILABLE:
        return None
    return _requeue_before_silence(
        case,
        Outcome(
            state=state,
            verdict=Verdict(reasons.KEY_MISMATCH, s.silence.refusal),
            since=facts.since(s.engine, case.now),
            requeue_at=facts.next_cull(s, case.now),
        ),
    )


def agent_ready(case: Situation) -> Outcome | None:
    """The engine is in the state that its agent reports."""
    report = case.s.report
    if report is None or report.state not in AVAILABLE or not _is_up(case):
        return None
    return _requeue_before_silence(case, available(case, report.state, _READY[report.state], report.changed))


def agent_not_reported(case: Situation) -> Outcome | None:
    """This operator process has no report yet, after its start. The status stays as it is."""
    state = case.s.engine.state
    return _requeue_before_silence(case, case.unchanged(state)) if state in AVAILABLE else None


# --- a process, by the kubelet's status of its pod


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
    """A process that was ready and does not answer now. It has not ended: it stays Idle, with condition Ready False."""
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
    """An engine that can be used. Its reason is CullSoon shortly before its idleTimeout or maxLifetime expires."""
    s, now = case.s, case.now
    verdict = Verdict(reason)
    requeue_at = facts.next_cull(s, now)
    warned = facts.cull_warning_at(s, now)
    if warned is not None and requeue_at is not None:
        if now < warned:
            requeue_at = warned
        elif state in (EngineState.IDLE, EngineState.UNLOCK):
            which = "idleTimeout" if requeue_at == facts.idle_deadline(s, now) else "maxLifetime"
            verdict = Verdict(reasons.CULL_SOON, f"Its {which} is over at {requeue_at:%Y-%m-%d %H:%M:%S} UTC.")
    return Outcome(state=state, verdict=verdict, since=since, requeue_at=requeue_at)


def _is_up(case: Situation) -> bool:
    """Whether the engine is up by its status or by its agent's report. A report counts only once the API has the pod's
    address, because before that nobody could reach the engine."""
    if case.s.engine.state in AVAILABLE:
        return True
    report = case.s.report
    return report is not None and report.state in AVAILABLE and bool(case.pod.ip)


def _exits_by_itself(report: Report, verdict: Verdict, until: datetime) -> Outcome:
    return Outcome(state=EngineState.SHUTTING_DOWN, verdict=verdict, since=report.changed, requeue_at=until)


def _requeue_before_silence(case: Situation, outcome: Outcome) -> Outcome:
    """Requeue the engine for when its agent would count as silent, if that is earlier."""
    if case.s.silence is None:
        return outcome
    due = case.s.silence.last_contact + case.settings.silent_after
    return replace(outcome, requeue_at=due if outcome.requeue_at is None else min(outcome.requeue_at, due))

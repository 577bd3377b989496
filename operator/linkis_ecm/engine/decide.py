"""Decides what an engine should be: one pure function for its whole life.

`decide(snapshot, now, settings)` computes the desired status, the actions, the time of the next pass, and the record
for the database. It is total: it returns a decision for every input. It is idempotent: after its decision is executed,
it decides nothing more. Must not do any I/O.

The tables below have the rules in their order. In each list the first rule that returns an outcome counts. The rules
themselves are in `engine.rules`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from linkis_ecm.engine import facts, restart
from linkis_ecm.engine.admission import given
from linkis_ecm.engine.causes.verdicts import Verdict
from linkis_ecm.engine.decision import (
    ClaimAgent,
    ClaimPod,
    CollectEvidence,
    Decision,
    DiscardPod,
    IdentifyPod,
    Outcome,
    Settings,
    Snapshot,
)
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.rules import disruption, ending, live_pod, no_pod, soft_pause, warm
from linkis_ecm.engine.rules.situation import Amendment, Rule, Situation
from linkis_ecm.engine.status.conditions import has_marks_of, merge_patch
from linkis_ecm.engine.status.desired import message_of, news_at, status_of
from linkis_ecm.engine.status.record import Projection, project
from linkis_ecm.model import reasons
from linkis_ecm.model.states import AVAILABLE, FINAL, EngineState, may_follow

# Rule, in order               → state and reason of its outcome.
NO_POD: tuple[Rule, ...] = (
    no_pod.confirm_absence,  # → as before, until the API server itself says that the pod is gone
    no_pod.pod_deleted,  #     → Failed PodDeleted, or as the pod ended when it was last seen
    no_pod.stopped,  #         → Success StoppedByUser, LifetimeOver, IdleTimeout
    no_pod.not_admitted,  #    → Failed NotAdmitted
    no_pod.plugin_missing,  #  → Starting PluginMissing, Failed when the start's time is over
    no_pod.invalid_spec,  #    → Failed InvalidSpec
    no_pod.creation_refused,  # → Failed PodRefused
    no_pod.not_yet_due,  #     → Starting as before: the pause between attempts, an old pod that must go first; Failed
    #                             StartTimeout when that does not go
    no_pod.over_limit,  #      → Starting LimitReached, Failed when it can never fit or the start's time is over
    no_pod.start_timeout,  #   → Failed QuotaExceeded, PodRefused, NameConflict: what it waited for; StartTimeout
    no_pod.creation_waits,  #  → Starting QuotaExceeded, PodRefused, NameConflict
    warm.claim_member,  #      → nothing is written: it takes a pod of a warm pool
    no_pod.create_pod,  #      → Starting PodCreated
)
POD: tuple[Rule, ...] = (
    live_pod.identify_pod,  #    → as before, until it is known whether this operator made the pod
    warm.claim_failed,  #        → as before: the pod that it took is deleted, then one is made for it
    warm.claim_agent,  #         → as before, until the agent of the pod that it took reports as its own
    ending.ended,  #             → Success Completed or the stop's reason; Failed OOMKilled, Evicted, AgentExited, …
    ending.deletion_stuck,  #    → Failed NodeLost, or Success with the stop's reason
    ending.stopping,  #          → ShuttingDown with the stop's reason
    ending.deleted_by_others,  # → ShuttingDown PodDeleted
)
AGENT: tuple[Rule, ...] = (
    live_pod.agent_failed,  #  → ShuttingDown, then Failed KernelDied, JobFailed
    live_pod.agent_ends,  #    → ShuttingDown StopRequested, Completed
    live_pod.agent_silent,  #  → as before while it is asked; Failed AgentLost, NodeLost
    live_pod.agent_refuses,  # → as before with KeyMismatch: its condition Ready is False
    live_pod.agent_ready,  #   → Idle, Busy, Running, Unlock, Locked, as the agent reports; CullSoon
    live_pod.agent_not_reported,  # → as before
)
PROCESS: tuple[Rule, ...] = (
    live_pod.process_ready,  #     → Idle ProcessReady, CullSoon
    live_pod.process_not_ready,  # → Idle ProcessNotReady: its condition Ready is False
)
START: tuple[Rule, ...] = (
    live_pod.start_impossible,  # → Failed ImagePullBackOff
    live_pod.start_timeout,  #    → Failed with what it waited for (as below, MountFailed, ProcessNeverAnswered);
    #                                StartTimeout where nothing is known to prevent the start
    live_pod.starting,  #         → Starting PodCreated, ImagePullBackOff, Unschedulable, CreateContainerConfigError
)


def decide(s: Snapshot, now: datetime, settings: Settings) -> Decision:
    """The decision for one engine; see the module's text."""
    if settings.ownership.is_foreign(s.engine):
        return _left_alone(s)
    if s.pod is not None and not s.engine.text("podName") and settings.ownership.is_foreign_pod(s.pod):
        if not settings.ownership.has_accepted(s.engine):
            # Another installation made the pod and is about to write that it has accepted the engine.
            return _left_alone(s)
        # We were first to write. The other one's pod goes before ours is made.
        s = replace(s, pod=None, other_pods=(*s.other_pods, s.pod))
    if (plugin := given.kept(s.engine, s.plugin)) is not s.plugin:
        s = replace(s, plugin=plugin)
    if not launch.has_agent(launch.of(s.engine, s.plugin, s.pod)):
        # There is no agent, so neither a report nor silence means anything.
        s = replace(s, report=None, silence=None)
    case = Situation(s, now, settings)
    if s.engine.state in FINAL:
        return _decision(case, ending.settled(case))
    outcome = _first_answer(case)
    for amend in AMENDMENTS:
        outcome = amend(case, outcome)
    return _decision(case, outcome)


def _left_alone(s: Snapshot) -> Decision:
    """Another installation's engine: nothing is written, made, deleted or asked."""
    state, reason = s.engine.state or EngineState.STARTING, s.engine.text("reason")
    return Decision(state=state, reason=reason, patch={}, actions=(), deadline=None, record=None, stop=None)


def _rules(case: Situation) -> tuple[Rule, ...]:
    if case.s.pod is None:
        return NO_POD
    return (*POD, *(AGENT if launch.has_agent(case.launch) else PROCESS), *START)


def _first_answer(case: Situation) -> Outcome:
    if case.s.engine.spec is None:
        return case.failed(Verdict(reasons.INVALID_SPEC, case.s.engine.invalid))
    if case.s.ticket_taken:
        return case.failed(Verdict(reasons.INVALID_SPEC, facts.ticket_taken(case.s.engine)))
    for rule in _rules(case):
        if (outcome := rule(case)) is not None:
            return outcome
    raise AssertionError("the last rule of each list answers always")


# --- what is changed in a rule's outcome, in this order


def _never_back(case: Situation, outcome: Outcome) -> Outcome:
    """An engine never returns to an earlier state, neither by a late report nor by a status that was edited by hand."""
    before = case.s.engine.state
    if before is None or may_follow(before, outcome.state):
        return outcome
    return case.unchanged(before, stop=outcome.stop)


def _deleted_with_namespace(case: Situation, outcome: Outcome) -> Outcome:
    """If the pod was deleted together with its namespace, the reason is Deleted, in whatever order they were
    deleted."""
    evidence = case.s.evidence
    if outcome.state is not EngineState.FAILED or outcome.verdict.reason is not reasons.POD_DELETED:
        return outcome
    if evidence is None or not evidence.namespace_terminating:
        return outcome
    return replace(outcome, state=EngineState.SUCCESS, verdict=Verdict(reasons.DELETED))


def _another_attempt(case: Situation, outcome: Outcome) -> Outcome:
    """A failed attempt is followed by another one if the engine's restart policy allows it."""
    return restart.after_failure(case.s, outcome, case.now) if outcome.state is EngineState.FAILED else outcome


def _evidence_first(case: Situation, outcome: Outcome) -> Outcome:
    """No end is written before the pod's evidence is saved. The next pass comes to the same end again."""
    s = case.s
    if outcome.state not in FINAL and outcome.restart is None:
        return outcome
    attempt = facts.attempt(s.engine)
    if s.evidence is not None and s.evidence.attempt == attempt:
        return outcome
    name = s.pod.name if s.pod is not None else s.engine.text("podName")
    if not name:
        return outcome
    verdict = outcome.restart.verdict if outcome.restart is not None else outcome.verdict
    state = s.engine.state or EngineState.STARTING
    return case.unchanged(state, stop=outcome.stop, actions=(CollectEvidence(attempt, name, verdict),))


AMENDMENTS: tuple[Amendment, ...] = (
    _never_back,
    _deleted_with_namespace,
    _another_attempt,
    _evidence_first,
    warm.no_second_pod,
    disruption.follow_work,
    soft_pause.follow_use,
    warm.grow_to_asked,
)
# Nothing is written beside these: what comes of them changes the decision.
_UNWRITTEN = CollectEvidence | ClaimPod | ClaimAgent | DiscardPod | IdentifyPod


# --- status and record


def _decision(case: Situation, outcome: Outcome) -> Decision:
    s, now, settings = case.s, case.now, case.settings
    message, news = message_of(s, outcome, now), news_at(s, outcome)
    desired = status_of(s, case.launch, outcome, now, settings, message=message)
    patch: dict[str, Any] = {}
    requeue_at = outcome.requeue_at
    current = s.engine.status
    if news is not None and now < news:
        requeue_at = min(filter(None, (requeue_at, news)))
    same = (
        (news is None or now < news)
        and desired["engineState"] == current.get("engineState")
        and desired["reason"] == current.get("reason")
        and desired["ecmInstance"] == s.engine.owner
        and desired["attempt"] == (current.get("attempt") or 0)
        and desired.get("agentKey") == current.get("agentKey")
        and (desired.get("admission") == current.get("admission") or "admission" not in current)
        and (desired.get("share") == current.get("share") or "share" not in current)
        and current.get("observedGeneration") == s.engine.generation
        and current.get("softPause") == desired.get("softPause")
        and has_marks_of(current.get("conditions"), desired["conditions"])
    )
    if not same and not any(isinstance(action, _UNWRITTEN) for action in outcome.actions):
        held_until = _held_until(s, outcome, settings)
        if held_until is not None and now < held_until:
            requeue_at = min(filter(None, (requeue_at, held_until)))
        else:
            patch = merge_patch(current, desired)
    record = project(
        Projection(
            engine=s.engine, plugin=s.plugin, report=s.report, state=outcome.state, since=outcome.since,
            reason=outcome.verdict.reason, message=message, status=desired, ticket=facts.ticket_id(s.engine),
            ready_reason=launch.ready_reason(case.launch),
        )
    )  # fmt: skip
    return Decision(
        state=outcome.state,
        reason=outcome.verdict.reason.name,
        patch=patch,
        actions=outcome.actions,
        deadline=requeue_at.timestamp() if requeue_at is not None else None,
        record=None if s.ticket_taken else record,
        stop=outcome.stop,
        message=message,
    )


def _held_until(s: Snapshot, outcome: Outcome, settings: Settings) -> datetime | None:
    """Until when a change that may be brief is not written: between Idle and Busy, or a drain. None: write now."""
    brief = AVAILABLE | {EngineState.SHUTTING_DOWN}
    flips = outcome.state is not s.engine.state
    if flips and s.engine.state in AVAILABLE and outcome.state in brief:
        return outcome.since + (
            settings.shutdown_hold if outcome.state is EngineState.SHUTTING_DOWN else settings.idle_busy_hold
        )
    return None

"""Rules for an engine without a pod in the cache: deleted, stopped before it had one, or to be created. Pure."""

from __future__ import annotations

from linkis_ecm.engine import facts
from linkis_ecm.engine.admission import in_force
from linkis_ecm.engine.causes import verdicts
from linkis_ecm.engine.causes.verdicts import Verdict
from linkis_ecm.engine.decision import Action, ConfirmPodGone, CreatePod, Outcome
from linkis_ecm.engine.names import pod_name
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.pod import spec as podspec
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.rules.ending import STOP_RETRY, delete_leftover, how_it_ended
from linkis_ecm.engine.rules.situation import Situation
from linkis_ecm.engine.rules.warm import why_cold
from linkis_ecm.model import reasons
from linkis_ecm.model.states import EngineState

# Reasons in the status of an engine whose pod the API server refuses for now.
_REFUSALS = (
    reasons.QUOTA_EXCEEDED, reasons.LIMIT_RANGE, reasons.POD_REFUSED, reasons.POD_NOT_MADE, reasons.NAME_CONFLICT,
)  # fmt: skip


def confirm_absence(case: Situation) -> Outcome | None:
    """A pod was or may have been created. Its absence from the cache must be confirmed by the API server first."""
    s = case.s
    if s.pod_gone or not (s.engine.text("podName") or s.stop is not None):
        return None
    name = s.engine.text("podName") or pod_name(s.engine.name, s.engine.uid, facts.attempt(s.engine))
    state = s.engine.state or EngineState.STARTING
    return case.unchanged(state, stop=case.stop, actions=(ConfirmPodGone(name),))


def pod_deleted(case: Situation) -> Outcome | None:
    """The pod was deleted, and no stop was requested.

    A kubelet removes a pod soon after it reported the pod's end, maybe while evidence is collected. So the last view of
    an ended pod counts.
    """
    s = case.s
    if not s.engine.text("podName") or case.stop is not None:
        return None
    last = s.last_pod
    if last is not None and last.ended and last.name == s.engine.text("podName"):
        return how_it_ended(case, last)
    return case.failed(Verdict(reasons.POD_DELETED))


def stopped(case: Situation) -> Outcome | None:
    return case.stopped(case.stop) if case.stop is not None else None


def not_admitted(case: Situation) -> Outcome | None:
    """The spec came in while the admission policies were not there: nobody asked for its author's rights."""
    why = in_force.refusal(case.s.engine, case.s.policies)
    return case.failed(Verdict(reasons.NOT_ADMITTED, why)) if why else None


def plugin_missing(case: Situation) -> Outcome | None:
    """The plugin does not exist. It may still be created, until the start timeout expires."""
    s = case.s
    if s.plugin is not None:
        return None
    problem, due = Verdict(reasons.PLUGIN_MISSING, facts.requested_plugin(s.engine)), facts.start_deadline(s)
    if case.now >= due:
        return case.failed(problem)
    return Outcome(state=EngineState.STARTING, verdict=problem, since=s.engine.created, requeue_at=due)


def invalid_spec(case: Situation) -> Outcome | None:
    try:
        _ = case.manifest
    except podspec.InvalidSpecError as error:
        return case.failed(Verdict(reasons.INVALID_SPEC, str(error)))
    return None


def creation_refused(case: Situation) -> Outcome | None:
    """The API server refused the pod, and waiting does not help."""
    failure = case.s.failure
    return case.failed(failure.verdict) if failure is not None and failure.verdict.fatal else None


def not_yet_due(case: Situation) -> Outcome | None:
    """The delay before another attempt. Also, pods of earlier attempts are deleted first: at most one pod runs.

    One that does not go, such as one with a finalizer, ends the attempt when its time is over.
    """
    s, now = case.s, case.now
    not_before = facts.attempt_began(s.engine)
    if now >= not_before and not s.other_pods:
        return None
    due = facts.start_deadline(s)
    if s.other_pods and now >= due:
        return case.failed(Verdict(reasons.START_TIMEOUT, _not_gone(s.other_pods[0])))
    deletions = (delete_leftover(pod, now, 0 if pod.ended else launch.AFTER_GRACE) for pod in s.other_pods)
    actions: tuple[Action, ...] = tuple(one for one in deletions if one is not None)
    requeue_at = max(not_before, min(due, now + STOP_RETRY)) if s.other_pods else not_before
    return case.unchanged(EngineState.STARTING, actions=actions, requeue_at=requeue_at)


def _not_gone(pod: PodView) -> str:
    return f"No pod is made for it while {pod.name} is there, which was to be deleted: see its finalizers and its node."


def over_limit(case: Situation) -> Outcome | None:
    """A limit of the user or of the namespace is reached. The engine waits for a place until its start timeout."""
    refused = case.s.limit
    if refused is None:
        return None
    verdict, due = Verdict(reasons.LIMIT_REACHED, refused.sentence), facts.start_deadline(case.s)
    if refused.fatal or case.now >= due:
        return case.failed(verdict)
    return Outcome(state=EngineState.STARTING, verdict=verdict, since=case.s.engine.created, requeue_at=due)


def start_timeout(case: Situation) -> Outcome | None:
    s = case.s
    if case.now < facts.start_deadline(s):
        return None
    if s.failure is not None:
        return case.failed(verdicts.start_overdue(s.failure.verdict))
    written = facts.observed(s.engine)
    if written.reason in _REFUSALS:
        # Another operator process got the refusal. Its words are in the status.
        return case.failed(verdicts.start_overdue(facts.observed_with_words(s.engine)))
    return case.failed(Verdict(reasons.START_TIMEOUT, verdicts.unfinished_phase(None)))


def creation_waits(case: Situation) -> Outcome | None:
    """The API server refused the pod for now, for example by a quota. It is tried again later."""
    s = case.s
    if s.failure is None or case.now >= s.failure.retry_at:
        return None
    return Outcome(
        state=EngineState.STARTING,
        verdict=s.failure.verdict,
        since=facts.attempt_began(s.engine),
        requeue_at=min(facts.start_deadline(s), s.failure.retry_at),
    )


def create_pod(case: Situation) -> Outcome | None:
    s = case.s
    return Outcome(
        state=EngineState.STARTING,
        verdict=s.failure.verdict if s.failure is not None else Verdict(reasons.POD_CREATED),
        since=facts.attempt_began(s.engine),
        actions=(CreatePod(facts.attempt(s.engine), case.manifest),),
        requeue_at=facts.start_deadline(s),
        cold_because=why_cold(case),
    )

"""Rules for an engine without a pod in the cache: gone, stopped before it had one, or to be created. Pure."""

from __future__ import annotations

from linkis_ecm.engine import facts, launch, podspec, verdicts
from linkis_ecm.engine.decision import Action, ConfirmPod, CreatePod, Outcome
from linkis_ecm.engine.names import pod_name
from linkis_ecm.engine.rules.ending import STOP_AGAIN, delete_leftover, how_it_ended
from linkis_ecm.engine.rules.situation import Situation
from linkis_ecm.engine.verdicts import Verdict
from linkis_ecm.model import reasons
from linkis_ecm.model.states import EngineState


def confirm_absence(case: Situation) -> Outcome | None:
    """A pod was made, or may have been: a cache that lacks it is not believed before the API server was asked."""
    s = case.s
    if s.pod_gone or not (s.engine.text("podName") or s.stop is not None):
        return None
    name = s.engine.text("podName") or pod_name(s.engine.name, s.engine.uid, facts.attempt(s.engine))
    state = s.engine.state or EngineState.STARTING
    return case.unchanged(state, stop=case.stop, actions=(ConfirmPod(name),))


def pod_deleted(case: Situation) -> Outcome | None:
    """The pod is gone, and no stop was asked for.

    A kubelet removes a pod moments after it has reported how it ended, which may be while evidence is collected: what
    was reported last counts.
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


def plugin_missing(case: Situation) -> Outcome | None:
    """The catalogue's entry may still come, until the start's time is over."""
    s = case.s
    if s.plugin is not None:
        return None
    problem, due = Verdict(reasons.PLUGIN_MISSING, facts.requested_plugin(s.engine)), facts.start_due(s)
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
    """The pause before another attempt; and pods of earlier attempts go first: at most one pod of an engine runs."""
    s, now = case.s, case.now
    begins = facts.attempt_began(s.engine)
    if now >= begins and not s.others:
        return None
    deletions = (delete_leftover(pod, now, 0 if pod.ended else launch.AFTER_GRACE) for pod in s.others)
    actions: tuple[Action, ...] = tuple(one for one in deletions if one is not None)
    requeue_at = max(begins, now + STOP_AGAIN) if s.others else begins
    return case.unchanged(EngineState.STARTING, actions=actions, requeue_at=requeue_at)


def start_timeout(case: Situation) -> Outcome | None:
    s = case.s
    if case.now < facts.start_due(s):
        return None
    problem = s.failure.verdict if s.failure is not None else None
    return case.failed(Verdict(reasons.START_TIMEOUT, verdicts.unfinished_phase(None, problem)))


def creation_waits(case: Situation) -> Outcome | None:
    """The API server refused the pod for now, such as by a quota: it is tried again later."""
    s = case.s
    if s.failure is None or case.now >= s.failure.retry_at:
        return None
    return Outcome(
        state=EngineState.STARTING,
        verdict=s.failure.verdict,
        since=facts.attempt_began(s.engine),
        requeue_at=min(facts.start_due(s), s.failure.retry_at),
    )


def create_pod(case: Situation) -> Outcome | None:
    s = case.s
    return Outcome(
        state=EngineState.STARTING,
        verdict=s.failure.verdict if s.failure is not None else Verdict(reasons.POD_CREATED),
        since=facts.attempt_began(s.engine),
        actions=(CreatePod(facts.attempt(s.engine), case.manifest),),
        requeue_at=facts.start_due(s),
    )

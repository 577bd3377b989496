"""Rules for pods that have ended, are being deleted or must go, and for engines that are settled.

Pure. A deletion with grace 0 takes the API's object away without the kubelet; it is used only where the kubelet does
not answer, or where nothing runs any more.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from linkis_ecm.engine import facts, launch, verdicts
from linkis_ecm.engine.decision import Action, DeleteEngine, DeletePod, Outcome, Stop, StopAgent
from linkis_ecm.engine.names import AGENT_PORT
from linkis_ecm.engine.rules.situation import STOP_SLACK, Situation
from linkis_ecm.engine.verdicts import Verdict
from linkis_ecm.engine.view import PodView
from linkis_ecm.model import reasons
from linkis_ecm.model.states import EngineState

# An agent that did not accept the request to stop is asked again after this.
STOP_AGAIN = timedelta(seconds=5)
# A pod that is still there so long after its grace has a kubelet that does not answer.
STUCK_AFTER = timedelta(seconds=60)


def settled(case: Situation) -> Outcome:
    """The engine has ended: its pods are deleted, and its resource when its ttlAfterFinished is over."""
    s, now = case.s, case.now
    since, observed = facts.since(s.engine, now), facts.observed(s.engine)
    running = [pod for pod in (s.pod, *s.others) if pod is not None and not pod.ended]
    grace = 0 if observed.reason is reasons.NODE_LOST else launch.AFTER_GRACE
    actions: list[Action] = [one for pod in running if (one := delete_leftover(pod, now, grace)) is not None]
    removal = facts.removal(s, since)
    if removal is not None and now >= removal and not s.engine.deleting:
        actions.append(DeleteEngine(s.engine.uid))
        removal = None
    stuck = [at for pod in running if (at := stuck_at(pod)) is not None and at > now]
    requeue_at = min((at for at in (removal, *stuck) if at is not None), default=None)
    return Outcome(
        state=s.engine.state or EngineState.FAILED, verdict=observed, since=since, actions=tuple(actions),
        requeue_at=requeue_at,
    )  # fmt: skip


def ended(case: Situation) -> Outcome | None:
    """The container will not run again."""
    return how_it_ended(case, case.pod) if case.pod.ended else None


def how_it_ended(case: Situation, pod: PodView) -> Outcome:
    """The end that an ended pod tells; a stop that was asked for counts more."""
    s, stop = case.s, case.stop
    if stop is not None and stop.reason is not reasons.KERNEL_DIED:
        return case.stopped(stop)
    # A job, or a process, may be over before a pass saw it ready; its exit code says whether it succeeded.
    once = (s.engine.spec is not None and s.engine.spec.mode == "once") or not launch.has_agent(case.launch)
    state, verdict = verdicts.verdict_of_ended_pod(pod, s.report, was_ready=facts.was_ready(s), once=once)
    return Outcome(state=state, verdict=verdict, since=case.now)


def deletion_stuck(case: Situation) -> Outcome | None:
    """A deleted pod whose kubelet does not end it: the API's object is deleted by force."""
    pod = case.pod
    if not is_stuck(pod, case.now):
        return None
    force = DeletePod(pod.name, pod.uid, 0)
    if case.stop is not None:
        return case.stopped(case.stop, actions=(force,))
    words = f"Its node {pod.node or 'unknown'} did not confirm the end of the pod."
    return Outcome(
        state=EngineState.FAILED, verdict=Verdict(reasons.NODE_LOST, words), since=case.now, actions=(force,)
    )  # fmt: skip


def stopping(case: Situation) -> Outcome | None:
    """A stop is under way or due: an agent is asked to drain; where there is none, the pod is deleted (SIGTERM)."""
    s, pod, now, stop = case.s, case.pod, case.now, case.stop
    if stop is None:
        return None
    grace = facts.stop_grace(s)
    limit = stop.since + timedelta(seconds=grace) + STOP_SLACK
    again = limit
    actions: tuple[Action, ...] = ()
    if pod.deleting:
        # The kubelet ends it.
        again = stuck_at(pod) or now + STOP_AGAIN
    elif not launch.has_agent(case.launch):
        actions = (DeletePod(pod.name, pod.uid, launch.termination_grace(case.launch, grace)),)
        again = now + STOP_AGAIN
    elif now >= limit or not (facts.was_ready(s) and pod.ip):
        # The agent's time is over, or it does not answer yet.
        actions = (DeletePod(pod.name, pod.uid, 0 if now >= limit else launch.AFTER_GRACE),)
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
        requeue_at=again if again > now else now + STOP_AGAIN,
        stop=stop,
    )


def deleted_by_others(case: Situation) -> Outcome | None:
    """The pod is being deleted, and no stop was asked for."""
    pod = case.pod
    if not pod.deleting:
        return None
    since = case.now
    if case.s.engine.state is EngineState.SHUTTING_DOWN:
        since = facts.since(case.s.engine, pod.deleted_at or case.now)
    elif pod.deleted_at is not None:
        since = pod.deleted_at
    return Outcome(
        state=EngineState.SHUTTING_DOWN,
        verdict=Verdict(reasons.POD_DELETED),
        since=since,
        requeue_at=(pod.deleted_by or case.now) + STUCK_AFTER + timedelta(seconds=1),
    )


def delete_leftover(pod: PodView, now: datetime, grace: int) -> DeletePod | None:
    """Deletes a leftover pod, with grace 0 once its kubelet counts as dead. None while a deletion is in progress."""
    if pod.deleting:
        return DeletePod(pod.name, pod.uid, 0) if is_stuck(pod, now) else None
    return DeletePod(pod.name, pod.uid, grace)


def stuck_at(pod: PodView) -> datetime | None:
    """From when on the kubelet of a pod that is being deleted counts as dead."""
    return pod.deleted_by + STUCK_AFTER if pod.deleting and pod.deleted_by is not None else None


def is_stuck(pod: PodView, now: datetime) -> bool:
    at = stuck_at(pod)
    return at is not None and now >= at

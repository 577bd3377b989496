"""Rules for pods that have ended, are being deleted or must be deleted, and for engines in a final state.

Pure. A deletion with grace 0 removes the API object without waiting for the kubelet. It is used only if the kubelet
does not answer or nothing runs any more. Must not import `decide`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from linkis_ecm.engine import facts
from linkis_ecm.engine.causes import verdicts
from linkis_ecm.engine.causes.verdicts import Verdict
from linkis_ecm.engine.decision import Action, DeleteEngine, DeletePod, Outcome, Stop, StopAgent
from linkis_ecm.engine.names import AGENT_PORT, host_port
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.rules.situation import STOP_SLACK, Situation
from linkis_ecm.model import reasons
from linkis_ecm.model.states import EngineState

# An agent that did not accept the request to stop is asked again after this time.
STOP_RETRY = timedelta(seconds=5)
# If a pod still exists this long after its grace has ended, its kubelet counts as dead.
KUBELET_DEAD_AFTER = timedelta(seconds=60)


def settled(case: Situation) -> Outcome:
    """The engine has ended: delete its pods, and its resource when its ttlAfterFinished expires."""
    s, now = case.s, case.now
    since, observed = facts.since(s.engine, now), facts.observed(s.engine)
    running = [pod for pod in (s.pod, *s.other_pods) if pod is not None and (not pod.ended or pod.outlived)]
    grace = 0 if observed.reason is reasons.NODE_LOST else launch.AFTER_GRACE
    actions: list[Action] = [one for pod in running if (one := delete_leftover(pod, now, grace)) is not None]
    delete_at = facts.delete_at(s, since)
    if delete_at is not None and now >= delete_at and not s.engine.deleting:
        actions.append(DeleteEngine(s.engine.uid))
        delete_at = None
    stuck = [at for pod in running if (at := kubelet_dead_at(pod)) is not None and at > now]
    requeue_at = min((at for at in (delete_at, *stuck) if at is not None), default=None)
    return Outcome(
        state=s.engine.state or EngineState.FAILED, verdict=observed, since=since, actions=tuple(actions),
        requeue_at=requeue_at,
    )  # fmt: skip


def ended(case: Situation) -> Outcome | None:
    """The container will not run again."""
    return how_it_ended(case, case.pod) if case.pod.ended else None


def how_it_ended(case: Situation, pod: PodView) -> Outcome:
    """The outcome of an ended pod. A requested stop takes precedence over the pod's own reason."""
    s, stop = case.s, case.stop
    if stop is not None and stop.reason not in reasons.OF_THE_AGENT:
        return case.stopped(stop)
    # A job, or a process that nobody waits for, may end before a pass saw it ready; its exit code says whether it
    # succeeded. One with a port is a session: ended before it took a connection, it has failed.
    process = not launch.has_agent(case.launch)
    once = (s.engine.spec is not None and s.engine.spec.mode == "once") or (process and case.launch.port is None)
    state, verdict = verdicts.verdict_of_ended_pod(
        pod, s.report, was_ready=facts.was_ready(s), once=once, process=process
    )
    evidence = s.evidence
    if evidence is not None and evidence.attempt == facts.attempt(s.engine):
        verdict = verdicts.with_evidence(
            verdict, start_problem=None, eviction=evidence.eviction, tail=evidence.log_tail
        )  # fmt: skip
        state = EngineState.FAILED if verdict.reason is not reasons.COMPLETED else state
    return Outcome(state=state, verdict=verdict, since=case.now)


def deletion_stuck(case: Situation) -> Outcome | None:
    """A deleted pod whose kubelet does not answer: delete the API object with grace 0."""
    pod = case.pod
    if not is_kubelet_dead(pod, case.now):
        return None
    force = DeletePod(pod.name, pod.uid, 0)
    if case.stop is not None:
        return case.stopped(case.stop, actions=(force,))
    details = f"Its node {pod.node or 'unknown'} did not confirm the end of the pod."
    return Outcome(
        state=EngineState.FAILED, verdict=Verdict(reasons.NODE_LOST, details), since=case.now, actions=(force,)
    )  # fmt: skip


def stopping(case: Situation) -> Outcome | None:
    """A stop is due or in progress: ask the agent to drain; without an agent, delete the pod (SIGTERM)."""
    s, pod, now, stop = case.s, case.pod, case.now, case.stop
    if stop is None:
        return None
    grace = facts.stop_grace(s)
    limit = stop.since + timedelta(seconds=grace) + STOP_SLACK
    requeue_at = limit
    actions: tuple[Action, ...] = ()
    if pod.deleting:
        # The kubelet ends the pod.
        requeue_at = kubelet_dead_at(pod) or now + STOP_RETRY
    elif not launch.has_agent(case.launch):
        actions = (DeletePod(pod.name, pod.uid, launch.termination_grace(case.launch, grace)),)
        requeue_at = now + STOP_RETRY
    elif now >= limit or not (facts.was_ready(s) and pod.ip):
        # The agent's time has expired, or it does not answer yet.
        actions = (DeletePod(pod.name, pod.uid, 0 if now >= limit else launch.AFTER_GRACE),)
    elif (key := facts.agent_key(s)) is None or case.key_unknown or facts.refuses(s):
        # Nobody can ask it: the pod's deletion (SIGTERM) does, and it has the same time.
        actions = (DeletePod(pod.name, pod.uid, launch.termination_grace(case.launch, grace)),)
    elif stop.last_sent is None or now >= stop.last_sent + STOP_RETRY:
        address = host_port(pod.ip, AGENT_PORT)
        actions = (StopAgent(address, facts.attempt(s.engine), grace, stop.reason.name, key),)
        stop = Stop(stop.since, stop.reason, now)
        requeue_at = min(limit, now + STOP_RETRY)
    else:
        requeue_at = min(limit, stop.last_sent + STOP_RETRY)
    return Outcome(
        state=EngineState.SHUTTING_DOWN,
        verdict=Verdict(stop.reason),
        since=stop.since,
        actions=actions,
        requeue_at=requeue_at if requeue_at > now else now + STOP_RETRY,
        stop=stop,
    )


def deleted_by_others(case: Situation) -> Outcome | None:
    """Another party deletes the pod; no stop was requested."""
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
        requeue_at=(pod.grace_ends_at or case.now) + KUBELET_DEAD_AFTER + timedelta(seconds=1),
    )


def delete_leftover(pod: PodView, now: datetime, grace: int) -> DeletePod | None:
    """Deletes a leftover pod, with grace 0 once its kubelet counts as dead. None while a deletion is in progress."""
    if pod.deleting:
        return DeletePod(pod.name, pod.uid, 0) if is_kubelet_dead(pod, now) else None
    return DeletePod(pod.name, pod.uid, grace)


def kubelet_dead_at(pod: PodView) -> datetime | None:
    """When the kubelet of a pod that is being deleted will count as dead; None for other pods."""
    return pod.grace_ends_at + KUBELET_DEAD_AFTER if pod.deleting and pod.grace_ends_at is not None else None


def is_kubelet_dead(pod: PodView, now: datetime) -> bool:
    at = kubelet_dead_at(pod)
    return at is not None and now >= at

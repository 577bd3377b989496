"""Decides whether and when another attempt follows a failed one. Pure.

The attempt's number, the earliest time of its pod and the last end are in the status, so that a new operator process
can continue. At most one pod of an engine runs: `decide` waits until the old pod is deleted. Must not create pods.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from linkis_ecm.engine import facts
from linkis_ecm.engine.causes.verdicts import Verdict
from linkis_ecm.engine.decision import DeletePod, Outcome, Restart, Snapshot
from linkis_ecm.engine.pod import launch
from linkis_ecm.model import reasons
from linkis_ecm.model.engineconn import RestartPolicy
from linkis_ecm.model.states import EngineState

# Seconds. As the kubelet's back-off of a crashed container: 10 s, doubling to 5 minutes.
BACKOFF_BASE, BACKOFF_CAP = 10.0, 300.0


def policy(s: Snapshot) -> RestartPolicy:
    """The engine's restart policy, else its plugin's, else Never."""
    own = s.engine.spec.restart_policy if s.engine.spec is not None else None
    return own or (s.plugin.spec.restart_policy if s.plugin is not None else None) or RestartPolicy(max_attempts=1)


def backoff(attempt: int, uid: str) -> timedelta:
    """The delay before attempt `attempt` (1 is the first repetition), with up to a quarter of jitter.

    The jitter is computed from the engine's uid. So engines that failed together do not restart together, and each pass
    gets the same delay for the same engine.
    """
    step = min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(attempt - 1, 20))
    part = (sum(uid.encode()) * 31 + attempt * 17) % 256 / 256
    return timedelta(seconds=step * (1 + part / 4))


def allowed(verdict: Verdict, s: Snapshot) -> bool:
    """Whether the policy has another attempt after this end, if its number of attempts allows."""
    if facts.stop_requested(s.engine) or verdict.reason in reasons.PERMANENT:
        return False
    match policy(s).type:
        case "OnFailure":
            return True
        case "OnInfrastructureFailure":
            return verdict.reason in reasons.INFRASTRUCTURE
    return False


def next_attempt(verdict: Verdict, s: Snapshot, now: datetime) -> Restart | None:
    """The attempt that follows a failed one; None if none follows."""
    number = facts.attempt(s.engine) + 1
    if not allowed(verdict, s) or number >= policy(s).max_attempts:
        return None
    return Restart(number, now + backoff(number, s.engine.uid), verdict)


def exhausted(verdict: Verdict, s: Snapshot) -> bool:
    """Whether another attempt should follow, but all allowed attempts are used (a dead letter)."""
    return allowed(verdict, s) and facts.attempt(s.engine) + 1 >= policy(s).max_attempts > 1


def after_failure(s: Snapshot, outcome: Outcome, now: datetime) -> Outcome:
    """The outcome after a failed attempt: Starting with the reason Restarting if another attempt follows."""
    follows = next_attempt(outcome.verdict, s, now)
    if follows is None:
        return replace(outcome, exhausted=True) if exhausted(outcome.verdict, s) else outcome
    delete: tuple[DeletePod, ...] = ()
    if s.pod is not None:
        lost = outcome.verdict.reason in (reasons.NODE_LOST, reasons.AGENT_LOST)
        delete = (DeletePod(s.pod.name, s.pod.uid, 0 if lost or s.pod.ended else launch.AFTER_GRACE),)
    details = (
        f"Attempt {follows.attempt + 1} of {policy(s).max_attempts} begins in"
        f" {(follows.not_before - now).total_seconds():.0f} s."
        f" The last one ended as {outcome.verdict.reason.name}: {outcome.verdict.message}"
    )
    return Outcome(
        state=EngineState.STARTING,
        verdict=Verdict(reasons.RESTARTING, details),
        since=now,
        actions=delete,
        requeue_at=follows.not_before,
        restart=follows,
    )

"""Whether a failed attempt is followed by another pod, and when. Pure.

An attempt's number, its earliest moment and how the last one ended stand in the status, so that a new operator goes on
where the old one stopped. At most one pod of an engine lives: `decide` waits for the old one to be gone.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from linkis_ecm.engine import facts
from linkis_ecm.engine.decision import Restart, Snapshot
from linkis_ecm.engine.verdicts import Verdict
from linkis_ecm.model import reasons
from linkis_ecm.model.engineconn import RestartPolicy

# The kubelet's own back-off of a crashed container: 10 s, doubling to 5 minutes.
BACKOFF_BASE, BACKOFF_CAP = 10.0, 300.0


def policy(s: Snapshot) -> RestartPolicy:
    """The engine's own, else its plugin's, else Never."""
    own = s.engine.spec.restart_policy if s.engine.spec is not None else None
    return own or (s.plugin.spec.restart_policy if s.plugin is not None else None) or RestartPolicy(max_attempts=1)


def backoff(attempt: int, uid: str) -> timedelta:
    """The wait before attempt number `attempt` (1 is the first repetition), with up to a quarter on top.

    The part on top comes from the engine's uid: engines that died together do not come back together, and the same
    engine gets the same answer on each pass.
    """
    step = min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(attempt - 1, 20))
    part = (sum(uid.encode()) * 31 + attempt * 17) % 256 / 256
    return timedelta(seconds=step * (1 + part / 4))


def wanted(verdict: Verdict, s: Snapshot) -> bool:
    """Whether the policy has this end followed by another attempt, if there are any left."""
    if facts.stopping(s.engine) or verdict.reason in reasons.PERMANENT:
        return False
    match policy(s).type:
        case "OnFailure":
            return True
        case "OnInfrastructureFailure":
            return verdict.reason in reasons.INFRASTRUCTURE
    return False


def next_attempt(verdict: Verdict, s: Snapshot, now: datetime) -> Restart | None:
    """The attempt that follows on a failed one, or None where none does."""
    number = facts.attempt(s.engine) + 1
    if not wanted(verdict, s) or number >= policy(s).max_attempts:
        return None
    return Restart(number, now + backoff(number, s.engine.uid), verdict)


def exhausted(verdict: Verdict, s: Snapshot) -> bool:
    """The policy would have it tried again, and all attempts are used up: a dead letter."""
    return wanted(verdict, s) and facts.attempt(s.engine) + 1 >= policy(s).max_attempts > 1

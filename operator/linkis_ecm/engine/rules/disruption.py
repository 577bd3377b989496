"""Whether autoscalers must leave the engine's pod where it is: annotations that follow the engine's work. Pure.

`doNotDisrupt` of the plugin says for how long. The annotations are requests to the cluster autoscaler and Karpenter
alone; an eviction by anybody else goes its way (docs/design/lifecycle.md says why). Must not choose a state.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from linkis_ecm.engine import facts
from linkis_ecm.engine.decision import MarkPod, Outcome
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.rules.situation import Situation
from linkis_ecm.model.states import AVAILABLE, EngineState

# A pod is held until the engine was idle for this long: a notebook runs a cell each few seconds, and each change is a
# write. An autoscaler waits for minutes before it takes a node.
RELEASE_AFTER = timedelta(seconds=60)
# A task that is over sooner holds nothing.
HOLD_AFTER = timedelta(seconds=1)
# A write that the API server did not take is tried again.
RETRY = timedelta(seconds=30)


def follow_work(case: Situation, outcome: Outcome) -> Outcome:
    """The outcome with a write of the pod's annotations where they are not as the engine's work wants them."""
    pod = case.s.pod
    if (
        case.s.plugin is None
        or case.s.plugin.spec.do_not_disrupt != "busy"
        or not launch.has_agent(case.launch)  # a process reports no work: it is held from its creation
        or pod is None
        or pod.ended
        or pod.deleting
        or outcome.state not in AVAILABLE
        or facts.refuses(case.s)
        or case.s.report is None
    ):
        return outcome
    hold, at = _wanted(case, outcome)
    if hold is pod.undisrupted:
        return outcome
    if at > case.now:
        return replace(outcome, requeue_at=min(filter(None, (outcome.requeue_at, at))))
    again = min(filter(None, (outcome.requeue_at, case.now + RETRY)))
    return replace(outcome, actions=(*outcome.actions, MarkPod(pod.name, pod.uid, hold)), requeue_at=again)


def _wanted(case: Situation, outcome: Outcome) -> tuple[bool, datetime]:
    """Whether the pod is to be held, and from when on."""
    idle = facts.idle_since(case.s, case.now)
    if idle is not None:
        claim = case.s.engine.claim  # whoever has just been given the engine is about to use it
        at = idle + RELEASE_AFTER
        return False, max(at, claim.until) if claim is not None and claim.holds(case.now) else at
    return True, outcome.since + HOLD_AFTER if outcome.state is EngineState.BUSY else case.now

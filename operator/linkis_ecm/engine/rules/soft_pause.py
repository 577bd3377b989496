"""Whether the engine's pod is made smaller because nobody uses it, or gets its cpu back. Pure.

The wanted size follows from the engine's use alone, so a lost write, a lost memory or another operator changes nothing:
the next pass comes to the same. What the pod gets back is in the status before the pod is made smaller, and stays there
until the pod has it. Where nobody knows whether the engine is used, nothing is changed. Must not choose a state.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from linkis_ecm.engine import facts, soft_pause
from linkis_ecm.engine.decision import Outcome, ResizePod
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.rules.situation import Situation
from linkis_ecm.engine.soft_pause import Paused
from linkis_ecm.model.states import AVAILABLE

# A resize whose answer got lost, or that a kubelet has not done, is looked at again after this time.
RETRY = timedelta(seconds=30)


def follow_use(case: Situation, outcome: Outcome) -> Outcome:
    """The outcome with the record of a pause, or with the resize that the record and the engine's use ask for."""
    s, pod = case.s, case.s.pod
    given = s.plugin.spec.soft_pause if s.plugin is not None else None
    record = soft_pause.paused(s.engine)
    if (given is None and record is None) or pod is None or not _is_known(case, pod, outcome):
        return outcome
    due = facts.soft_pause_at(s, case.now)
    pauses = due is not None and due <= case.now
    if record is None:
        return _begun(case, outcome, pod, due, pauses=pauses)
    if record.is_asked_for(s.engine) and record.is_small(pod):
        return _of_another_size(case, outcome, pod, record, pauses=pauses)
    if pauses and record.is_small(pod):
        return outcome
    if not record.is_small(pod) and not record.is_full(pod):
        return _of_another_size(case, outcome, pod, record, pauses=pauses)
    if not pauses and record.is_full(pod):
        # Not before its kubelet has given it: until then the status says what is missing.
        return _later(case, outcome) if pod.resizing else replace(outcome, soft_pause={})
    if pauses and pod.resizing and not pod.resize_pending:
        return _later(case, outcome)
    failure = s.resize_failure
    if failure is not None and failure.down is pauses and case.now < failure.retry_at:
        return _later(case, outcome, failure.retry_at)
    resources = record.small(pod) if pauses else record.full()
    if not pauses and pod.refuses(resources):
        # The status says why, and what helps.
        return outcome
    resize = ResizePod(pod.name, pod.version, resources, down=pauses)
    return _later(case, replace(outcome, actions=(*outcome.actions, resize)))


def _is_known(case: Situation, pod: PodView, outcome: Outcome) -> bool:
    """Whether the engine can be used, and its agent says whether it is."""
    s = case.s
    return (
        outcome.state in AVAILABLE
        and launch.has_agent(case.launch)
        and not pod.ended
        and not pod.deleting
        and s.report is not None
        and not facts.refuses(s)
        and not s.report_path_down
        and (s.silence is None or case.now < s.silence.last_contact + case.settings.silent_after)
    )


def _begun(case: Situation, outcome: Outcome, pod: PodView, due: datetime | None, *, pauses: bool) -> Outcome:
    """The record comes first, and the resize with the next pass."""
    given = case.s.plugin.spec.soft_pause if case.s.plugin is not None else None
    if due is None or given is None or (record := soft_pause.begun(given, case.s.engine, pod, case.now)) is None:
        return outcome
    if not pauses:
        return _later(case, outcome, due)
    return _later(case, outcome) if pod.resizing else replace(outcome, soft_pause=record.written())


def _of_another_size(case: Situation, outcome: Outcome, pod: PodView, record: Paused, *, pauses: bool) -> Outcome:
    """Somebody has resized it meanwhile, such as updateResource: once its kubelet has done that, it is the whole
    size. The pod is then made small from it, or the pause is over."""
    if pod.resizing:
        return _later(case, outcome)
    given = case.s.plugin.spec.soft_pause if case.s.plugin is not None else None
    again = soft_pause.begun(given, case.s.engine, pod, case.now) if pauses and given is not None else None
    return replace(outcome, soft_pause=again.written() if again is not None else {})


def _later(case: Situation, outcome: Outcome, at: datetime | None = None) -> Outcome:
    due = at or case.now + RETRY
    return replace(outcome, requeue_at=due if outcome.requeue_at is None else min(outcome.requeue_at, due))

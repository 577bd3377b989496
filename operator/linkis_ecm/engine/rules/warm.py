"""Rules for an engine that takes its pod from a warm pool, in place of one that is made for it (docs/design/warm.md).

A claim has two steps: the pod becomes the engine's at the API server, then its agent is told. Nothing is written into
the engine's status before the agent's first report as this engine. Whatever goes wrong until then, the pod is deleted
and the engine starts cold: that is no failed attempt. Pure. Must not choose a member: the reconciler brings a reserved
one. Must not import `decide`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from linkis_ecm.engine import facts, soft_pause
from linkis_ecm.engine.admission import in_force
from linkis_ecm.engine.causes.cold_starts import Cold
from linkis_ecm.engine.causes.verdicts import Verdict
from linkis_ecm.engine.decision import ClaimAgent, ClaimPod, DeletePod, DiscardPod, Outcome, ResizePod
from linkis_ecm.engine.names import AGENT_PORT, host_port, pod_name
from linkis_ecm.engine.pending import keeps_members_size, slow_at
from linkis_ecm.engine.pod import spec as podspec
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.rules.ending import STOP_RETRY
from linkis_ecm.engine.rules.situation import Situation
from linkis_ecm.engine.warm import fit
from linkis_ecm.model import reasons
from linkis_ecm.model.engine_status import ColdReason
from linkis_ecm.model.states import AVAILABLE, FINAL, EngineState

# A claim whose call was refused by the pool of calls, or got lost, is looked at again after this time.
CLAIM_RETRY = timedelta(seconds=5)
NOT_AS_MADE = Cold(
    ColdReason.MEMBER_CHANGED,
    "The pod that it took from the warm pool is not as it was made: its image or its containers are others.",
)


# Reasons for which a pool gives an engine no member now, and may another time.
_FOR_NOW = frozenset({ColdReason.POOL_EMPTY, ColdReason.USER_RATE, ColdReason.AGENT_REFUSED})


def claim_member(case: Situation) -> Outcome | None:
    """Take the reserved member, if the engine's own pod would differ from it only in what a claim carries."""
    s = case.s
    if s.warm_failed is not None or s.warm is None or s.warm.member is None or s.warm.template is None or _misfit(case):
        return None
    attempt, member = facts.attempt(s.engine), s.warm.member
    claim = ClaimPod(
        attempt, member, fit.claim_patch(member, case.manifest, attempt), fit.claim_environment(case.manifest),
    )  # fmt: skip
    return Outcome(
        state=EngineState.STARTING,
        verdict=Verdict(reasons.POD_CREATED),
        since=facts.attempt_began(s.engine),
        actions=(claim,),
        requeue_at=facts.start_deadline(s),
    )


def why_cold(case: Situation) -> Cold | None:
    """Why an engine without a pod gets one that is made for it; None where its plugin has no pool."""
    s = case.s
    if s.warm_failed is not None or s.warm is None:
        return s.warm_failed
    fields = _misfit(case)
    if fields:
        return _misfit_of(fields)
    return s.warm.because


def _misfit_of(fields: Iterable[str]) -> Cold:
    said = f"A pod that runs already cannot be given what the engine asks for: {', '.join(fields)}."
    return Cold(ColdReason.MISFIT, said)


def _misfit(case: Situation) -> tuple[str, ...]:
    """The fields that keep the engine from any member of its plugin's pool, whether or not one is there now."""
    warm, plugin = case.s.warm, case.s.plugin
    if warm is None or plugin is None:
        return ()
    if warm.member is not None and warm.member.member is not None and warm.template is not None:
        return fit.differences(case.manifest, warm.template, warm.member.member.takes, warm.member)
    # Of the reasons, these say what would be another time; the fields what never will be.
    if warm.because is None or warm.because.reason not in _FOR_NOW:
        return ()
    try:
        template = fit.template(plugin, case.s.engine.namespace, case.settings.pod)
    except podspec.InvalidSpecError:
        return ()
    # What a member's kernel takes is known of members alone: here the kernel is thought to take all.
    return fit.differences(case.manifest, template, frozenset({fit.TAKES_ENV, fit.TAKES_FOLDER}))


# --- an engine with a claimed pod whose agent has not confirmed the claim


def claim_failed(case: Situation) -> Outcome | None:
    """The claimed pod cannot become the engine's: delete it at once, without waiting for its kubelet. No code has run
    in it. The engine starts cold when it is gone."""
    s = case.s
    if not _is_unwritten(case):
        return None
    if _is_unconfirmed(case):
        because = s.warm_failed or _why_unusable(case)
    else:
        # Nobody has the engine's address yet, and this pod will never have its size.
        never = s.resize_failure is not None and s.resize_failure.final
        because = s.warm_failed if never else None
    if because is None:
        return None
    pod = case.pod
    return _waiting(case, DiscardPod(pod.name, pod.uid, because), STOP_RETRY)


def claim_agent(case: Situation) -> Outcome | None:
    """The pod is the engine's at the API server, and its agent is told so. A repetition changes nothing."""
    pod = case.pod
    if not _is_unconfirmed(case) or pod.member_key is None:
        return None
    claim = ClaimAgent(
        pod.name, host_port(pod.ip, AGENT_PORT), facts.attempt(case.s.engine), pod.member_key,
        fit.claim_environment(case.manifest),
        None if case.s.resize_failure is not None else fit.resize(case.manifest, pod),
    )  # fmt: skip
    return _waiting(case, claim, CLAIM_RETRY)


def _waiting(case: Situation, action: ClaimAgent | DiscardPod, again: timedelta) -> Outcome:
    state = case.s.engine.state or EngineState.STARTING
    return case.unchanged(state, actions=(action,), requeue_at=case.now + again)


def _is_unwritten(case: Situation) -> bool:
    """Whether the engine's pod comes from a pool, and the engine's status does not name it yet.

    With a stop the ordinary rules end the pod: they need nothing of the claim.
    """
    return case.pod.claimed is not None and not case.s.engine.text("podName") and case.stop is None


def _is_unconfirmed(case: Situation) -> bool:
    """Whether such a pod's agent has not reported as this engine's yet. Nor is it taken before its resize is answered:
    a pod that can never have the engine's size is given up while nobody has its address."""
    s, pod = case.s, case.pod
    if not _is_unwritten(case):
        return False
    if s.resize_sent:
        return True
    key = s.report.agent_key if s.report is not None and s.report.attempt == facts.attempt(s.engine) else None
    return key is None or key.pod_uid != pod.uid


def _why_unusable(case: Situation) -> Cold | None:
    """What is wrong with the claimed pod or with the engine's wish for it; None: nothing."""
    pod = case.pod
    if pod.ended or pod.deleting:
        return Cold(
            ColdReason.MEMBER_ENDED, "The pod that it took from the warm pool ended before it was the engine's."
        )
    if pod.restarts or pod.ephemeral:
        return NOT_AS_MADE
    if why := in_force.refusal(case.s.engine, case.s.policies):
        # The pod was claimed while they were read. Without a pod the engine is not admitted, with these words.
        return Cold(ColdReason.OTHER, why)
    if case.s.limit is not None:
        # Its spec was edited since: the size of the resize is asked for anew. Without a pod it waits, or it fails.
        return Cold(ColdReason.OTHER, case.s.limit.sentence)
    if pod.member_key is None or not pod.ip:
        return Cold(ColdReason.AGENT_REFUSED, "The pod that it took from the warm pool has no agent that is known.")
    try:
        never = fit.unresizable(case.manifest, pod)
    except podspec.InvalidSpecError as error:
        return Cold(ColdReason.INVALID_SPEC, f"No pod can be made for it any more: {error}")
    # Its spec was edited since the claim.
    return _misfit_of([f"spec.resources ({never})"]) if never else None


# --- amendments


def grow_to_asked(case: Situation, outcome: Outcome) -> Outcome:
    """The outcome with one more try of the resize that was refused at the claim, or whose answer got lost.

    It follows from what the API has: the pod still has the size from its pool. A soft pause has its cpu meanwhile.
    """
    s, pod = case.s, case.s.pod
    if outcome.state not in AVAILABLE or pod is None or pod.ended or pod.deleting:
        return outcome
    if pod.resizing:
        # Then its status says that it does not come.
        at = slow_at(s.engine, pod) if pod.claimed is not None else None
        return _look_again(outcome, at) if at is not None and case.now < at else outcome
    if soft_pause.paused(s.engine) is not None or not keeps_members_size(s.engine, pod):
        return outcome
    if any(isinstance(one, ResizePod | ClaimAgent | DiscardPod) for one in outcome.actions):
        return outcome
    failure = s.resize_failure
    if failure is not None and not failure.down and case.now < failure.retry_at:
        return _look_again(outcome, failure.retry_at)
    try:
        resources = fit.resize(case.manifest, pod)
    except podspec.InvalidSpecError:
        return outcome
    if resources is None or pod.refuses(resources):
        # The status says why, and what helps.
        return outcome
    resize = ResizePod(pod.name, pod.version, resources, down=False, claimed=True)
    return replace(outcome, actions=(*outcome.actions, resize))


def _look_again(outcome: Outcome, at: datetime) -> Outcome:
    return replace(outcome, requeue_at=at if outcome.requeue_at is None else min(outcome.requeue_at, at))


def no_second_pod(case: Situation, outcome: Outcome) -> Outcome:
    """The outcome with the deletion of a second pod of this attempt.

    An operator that died may have sent a claim that the API server executes when its successor has claimed another
    pod. No agent was told of it, or its engine's address was never shown.
    """
    s = case.s
    if s.pod is None or outcome.state in FINAL or not s.other_pods:
        return outcome
    attempt = facts.attempt(s.engine)
    made = pod_name(s.engine.name, s.engine.uid, attempt)

    def is_second(pod: PodView) -> bool:
        if case.settings.ownership.is_foreign_pod(pod) and not case.settings.ownership.has_accepted(s.engine):
            return False
        return pod.claimed == attempt or (pod.name == made and s.pod is not None and s.pod.claimed is not None)

    surplus = tuple(DeletePod(pod.name, pod.uid, 0) for pod in s.other_pods if is_second(pod))
    return replace(outcome, actions=(*outcome.actions, *surplus)) if surplus else outcome

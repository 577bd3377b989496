"""Why a warm pool is not full, as the condition WarmPoolReady of its EngineConnPlugin says it: a closed set. Pure.

The sentences are for platform engineers: an engine's own reasons (`model.reasons`) tell its user what to ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from linkis_ecm.engine.causes.member_ends import UNKNOWN, end_of_member, help_of_disruption, in_words_of_a_pool
from linkis_ecm.engine.causes.start_problems import start_problem
from linkis_ecm.engine.causes.verdicts import Verdict, unfinished_phase
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.warm.capping import ENDS_WITHIN
from linkis_ecm.model import reasons
from linkis_ecm.model.formats import as_sentence, sentences
from linkis_ecm.model.reasons import Reason

# Characters of a message in the status: a webhook may say more.
MESSAGE_MAX = 1024
# Of a pod that ends: a kernel that nobody has used needs less.
LONG_GRACE = timedelta(seconds=60)

FILLED = Reason("Filled", "Every namespace of the pool has as many pods ready as spec.warmPool wants there now.")
FILLING = Reason("Filling", "Pods of the pool are starting.")
NO_TEMPLATE = Reason(
    "InvalidTemplate",
    "The EngineConnPlugin gives no pod that can wait in a pool.",
    "Correct the field that the message names.",
)
NO_NAMESPACE = Reason(
    "NoNamespace",
    "The pool has no namespace.",
    "Name namespaces that this installation serves in spec.warmPool.namespaces: with clusterWide there is no default.",
)
NOT_SERVED = Reason(
    "NotServed",
    "No installation serves this namespace, so the pool has no pods there.",
    "Add it to engineNamespaces of the chart, or take it out of spec.warmPool.namespaces.",
)
QUOTA = Reason(
    "QuotaExceeded",
    "A ResourceQuota of the namespace refuses pods of the pool.",
    "Lower spec.warmPool.size, give spec.warmPool.resources, or have the quota raised.",
)
UNSCHEDULABLE = Reason(
    "Unschedulable",
    "No node takes a pod of the pool.",
    "Lower spec.warmPool.size, give spec.warmPool.resources, or add a node.",
)
GATED = Reason(
    "SchedulingGated",
    "Pods of the pool wait for their admission to the scheduler.",
    "Whoever runs the queue (Kueue) gives the pool its share; the pods are kept until then.",
)
GIVES_WAY = Reason(
    "GivesWay",
    "An engine of the namespace waits for quota or for room on a node, so pods of the pool there go, and none is made.",
    "It is filled a minute after the last engine has its room. Lower spec.warmPool.size, or add room.",
)
CAP = Reason(
    "CapReached",
    "The namespace has its share of spec.warmPool.cap, the most pods in all namespaces together, and no more is left.",
    "Raise spec.warmPool.cap, lower size, or take namespaces whose pods fail out of spec.warmPool.namespaces.",
)
IMAGE = Reason(
    "ImagePullBackOff",
    "The image of the EngineConnPlugin cannot be pulled.",
    "Check spec.image and the nodes' access to its registry.",
)
PRELOAD = Reason(
    "PreloadFailed",
    "A module of spec.warmPool.preload cannot be imported.",
    "Install it in the image, or take it out of preload.",
)
START_TIMEOUT = Reason(
    "StartTimeout",
    "A pod of the pool was not ready within spec.startTimeout, and was replaced.",
    "Raise spec.startTimeout if image or preload are only slow.",
)
ENDED = Reason(
    "MemberEnded",
    "A pod of the pool ended before an engine took it.",
    UNKNOWN,
)
REMOVED = Reason(
    "MembersRemoved",
    "Pods of the pool were deleted, evicted, changed or ended before an engine took them.",
    "See in the API server's audit log who does it, and take that right away. While it goes on, six a minute are made"
    " there.",
)
SILENT = Reason(
    "AgentsSilent",
    "Agents of the pool's pods do not report to the operator, so no engine gets these pods.",
    "Each is replaced after a minute, or after five while none reports. See the pod's node, and the network from the"
    " namespace to the operator.",
)
CLAIMS = Reason(
    "ClaimsFail",
    "Engines cannot take the pool's pods, so they start cold.",
    "One engine at a time tries again. See the log of a pod of the pool, and whether a NetworkPolicy lets the operator"
    " reach it.",
)
UNTRIED = Reason(
    "ClaimsUntried",
    "Engines could not take the pool's pods when one last tried, and none has tried since.",
    "The next engine of the plugin tries. If the cause is not known to be mended, see the log of a pod of the pool, and"
    " whether a NetworkPolicy lets the operator reach it.",
)
OLD = Reason(
    "MembersTooOld",
    "Pods of the pool are older than spec.warmPool.maxAge.",
    "A quarter of the pool is replaced at a time: raise maxAge where pods need long to get ready.",
)
ZONE = Reason(
    "UnknownTimeZone",
    "An entry of spec.warmPool.schedule has a timeZone that is not known.",
    "Write a name of the zone database, such as Europe/Berlin, or UTC.",
)
SIZE_FIXED = Reason(
    "SizeFixed",
    "Pods of the pool cannot get the size that the EngineConnPlugin gives by default, so engines of that size start"
    " cold.",
    "The namespace's LimitRange has given them a cpu limit. Set defaultResources.cpuLimit to its cpu or above, or leave"
    " spec.warmPool.resources out.",
)
NODES_TOO_SMALL = Reason(
    "NodesTooSmall",
    "Pods of the pool are on nodes that can never give them the size that the EngineConnPlugin gives by default, so"
    " engines of that size start cold.",
    "Raise spec.warmPool.resources or leave it out, so that the scheduler chooses larger nodes, or choose them by"
    " nodeSelector in spec.podTemplate.",
)
CANNOT_START = Reason(
    "CannotStart",
    "A container of the pool's pods cannot be started.",
    "Mend what the message names: a Secret, a ConfigMap, a security setting, or what puts that container into the pod"
    " (spec.podTemplate, an admission policy or a webhook).",
)
REFUSED = Reason(
    "PodRefused", "The API server refuses the pool's pods.", "Mend what the message names in the EngineConnPlugin."
)
NO_ANSWER = Reason(
    "PodNotMade",
    "The API server cannot make the pool's pods now.",
    "It is tried again. If an admission webhook is named, see to its service.",
)
ALL = (
    FILLED, FILLING, NO_TEMPLATE, NO_NAMESPACE, NOT_SERVED, QUOTA, UNSCHEDULABLE, GATED, GIVES_WAY, CAP, IMAGE, PRELOAD,
    START_TIMEOUT, ENDED, REMOVED, SILENT, CLAIMS, UNTRIED, OLD, ZONE, SIZE_FIXED, NODES_TOO_SMALL, CANNOT_START,
    REFUSED, NO_ANSWER,
)  # fmt: skip

_MEANWHILE = "While it goes on, six a minute are made there."

# An engine's reason that says the same of a pod of a pool.
_OF_VERDICTS = {
    reasons.QUOTA_EXCEEDED: QUOTA,
    reasons.UNSCHEDULABLE: UNSCHEDULABLE,
    reasons.SCHEDULING_GATED: GATED,
    reasons.IMAGE_PULL: IMAGE,
    reasons.POD_NOT_MADE: NO_ANSWER,
    reasons.POD_REFUSED: REFUSED,
    reasons.LIMIT_RANGE: REFUSED,
    reasons.CONFIG_ERROR: CANNOT_START,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A reason and its details, which may have any text of Kubernetes or of a kernel. `better` is a remedy that fits
    better than the reason's own."""

    reason: Reason
    details: str = ""
    better: str = ""

    @property
    def message(self) -> str:
        """The reason's sentence, the details, the remedy."""
        remedy = self.better or self.reason.remedy
        room = MESSAGE_MAX - len(self.reason.sentence) - len(remedy) - 3
        return sentences(self.reason.sentence, self.details[: max(0, room)], remedy)


def of_verdict(verdict: Verdict) -> Problem:
    """What keeps an engine's pod from starting, said of a pod of a pool."""
    return Problem(_OF_VERDICTS.get(verdict.reason, ENDED), _details(verdict), verdict.pool_remedy)


def of_report(reason: str, message: str) -> Problem:
    """What a member's agent says of its end."""
    words = as_sentence(message.strip())
    return Problem(PRELOAD if reason == PRELOAD.name else ENDED, f"{words[:1].upper()}{words[1:]}" if words else "")


def of_end(pod: PodView) -> Problem:
    """Why a member that nobody took has ended."""
    details, remedy = end_of_member(pod)
    return Problem(ENDED, details, remedy)


def of_loss(pod: PodView, how: str) -> Problem:
    """A member as it is after it went for nothing: what became of it, as the end of a sentence."""
    where = f", on node {pod.node}," if pod.node else ""
    better = help_of_disruption(pod)
    return Problem(REMOVED, f"The last one: {pod.name}{where} {how}.", sentences(better, _MEANWHILE) if better else "")


def of_claims(said: str) -> Problem:
    """Claims that fail one after the other; what was said of the last one."""
    return Problem(CLAIMS, f"The last one: {said}")


def of_untried(said: str, at: datetime) -> Problem:
    """Claims that have failed, of which nobody knows whether they still do: what was said of the last one, and when."""
    return Problem(UNTRIED, f"It was at {at:%Y-%m-%d %H:%M:%S} UTC: {said}")


def of_ends(pods: Sequence[PodView]) -> Problem:
    """No room under the cap, while pods end that count for it. These are known: the last one is named, since whoever
    deletes a pod may give it any grace."""
    better = "New ones come as these end. Where spec.warmPool.cap is above size, they need not wait for it."
    ends = [(pod.grace_ends_at, pod.name, pod.uid, pod) for pod in pods if pod.grace_ends_at is not None]
    if not ends:
        return Problem(CAP, "Some of its pods end, and count until they are gone.", better)
    over, _, _, pod = max(ends, key=lambda one: one[:3])
    number = (
        "One of the pool's pods ends, and counts"
        if len(pods) == 1
        else f"{len(pods)} of the pool's pods end, and count"
    )
    last = over + ENDS_WITHIN
    details = f"{number} until they are gone, at {last:%Y-%m-%d %H:%M:%S} UTC at the latest"
    sooner = f"`kubectl delete pod -n {pod.namespace} {pod.name} --grace-period=30` gives the last one a shorter grace."
    is_long = pod.deleted_at is not None and over - pod.deleted_at > LONG_GRACE
    return Problem(CAP, details, sentences(better, sooner if is_long else ""))


def of_silent(pods: Sequence[PodView]) -> Problem:
    """Members whose agents do not report, one at least."""
    others = f" and {len(pods) - 1} more" if len(pods) > 1 else ""
    return Problem(SILENT, f"The pods: {pods[0].name}{others}.")


def of_fixed_size(why: str) -> Problem:
    """Members that an engine without wishes cannot take, in the words of `engine.resizing`."""
    return Problem(SIZE_FIXED, as_sentence(f"{why[:1].upper()}{why[1:]}"))


def of_start(pod: PodView) -> Problem | None:
    """Why a member does not start yet; None where nothing is known to prevent it."""
    found = start_problem(pod)
    return None if found is None else Problem(_OF_VERDICTS.get(found.reason, CANNOT_START), _details(found))


def of_overdue(pod: PodView) -> Problem:
    """A member that was not ready in time."""
    found = of_start(pod)
    waits = "Its container runs, but its kernel has not answered, or preload is not done."
    return found if found is not None else Problem(START_TIMEOUT, unfinished_phase(pod, waits))


def with_old(problem: Problem | None, number: int) -> Problem | None:
    """With so many members that are older than maxAge: a problem of their own only where nothing else keeps them."""
    if not number:
        return problem
    they = "One pod is" if number == 1 else f"{number} pods are"
    if problem is None:
        return Problem(OLD, f"{they} older.")
    more = f"{they} older than spec.warmPool.maxAge, since new ones do not come: they are replaced one at a time."
    return replace(problem, details=sentences(problem.details[: MESSAGE_MAX // 2], more))


def _details(verdict: Verdict) -> str:
    """The sentence of a verdict that has no reason of the pool's own, and what was said."""
    own = "" if verdict.reason in _OF_VERDICTS else in_words_of_a_pool(verdict)
    return sentences(own, verdict.details)

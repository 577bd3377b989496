"""Why a pod of a warm pool has ended, for platform engineers: no engine was in it, and the pod itself is deleted.

Pure. The causes are those of engines' pods (`verdicts`); the words and remedies are of the pool. So the sentence names
the pod and its node, and has the kubelet's own reason and message.
"""

from __future__ import annotations

from linkis_ecm.engine.causes.verdicts import Verdict, says, verdict_of_ended_pod
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.model import reasons
from linkis_ecm.model.formats import sentences
from linkis_ecm.model.reasons import Reason

MEMORY = "Raise spec.warmPool.resources.memory (defaultResources.memory where that is absent), or preload less."
UNKNOWN = f"Where memory was short: {MEMORY[0].lower()}{MEMORY[1:]} Otherwise see the pod's node."
_NODE_FULL = (
    "That node was full when the pod came, though the scheduler saw room: see whether static pods or another scheduler"
    " place pods there. Add a node, or lower spec.warmPool.size."
)
_LABELS = (
    "That node does not fit nodeSelector and affinity of spec.podTemplate any more: see whether somebody changed its"
    " labels."
)
_DEVICES = (
    "That node could not give the pod its devices or cpus: see its device plugins and the log of its kubelet, or cordon"
    " it."
)
_TAINT = "That node has a taint that spec.podTemplate does not tolerate: it came after the pod was placed there."
_SEE_NODE = "See that node with `kubectl describe node`, and the log of its kubelet."
# The kubelet's reasons for a pod that it does not let in (pkg/kubelet/lifecycle, cm/admission), by their beginning.
_REJECTED = {
    "OutOf": _NODE_FULL,
    "NodeAffinity": _LABELS,
    "NodeName": _LABELS,
    "PodOS": _LABELS,
    "TaintToleration": _TAINT,
    "UnexpectedAdmissionError": _DEVICES,
    "TopologyAffinityError": _DEVICES,
    "SMTAlignmentError": _DEVICES,
}
# What is said of the pod in place of an engine, and what helps the pool.
_WORDS: dict[Reason, tuple[str, str]] = {
    reasons.OOM_KILLED: ("Its container used more memory than its limit and was killed.", MEMORY),
    reasons.EVICTED: (
        "Its node evicted it.",
        "That node lacks memory, disk or processes: `kubectl describe node` shows its conditions and what uses it."
        " Add a node, or lower spec.warmPool.size.",
    ),
    reasons.STORAGE_EXCEEDED: (
        "It wrote more to its local disk than its limit, and was evicted.",
        "Preload what writes less, or raise storage of the EngineConnPlugin. Of a container beside it the limit is"
        " where that container is from.",
    ),
    reasons.PREEMPTED: (
        "A pod of higher priority took its place.",
        "Add a node, or give spec.podTemplate a priorityClassName that is not preempted.",
    ),
    reasons.NODE_SHUTDOWN: ("Its node was shut down.", "New ones come on other nodes: nothing is to be done."),
    reasons.NODE_LOST: ("Its node does not answer, or has lost it.", _SEE_NODE),
    reasons.POD_DELETED: ("Somebody deleted it.", "The API server's audit log says who did."),
    reasons.INIT_FAILED: (
        "An init container ended with an error, so the pod's own did not start.",
        "Whoever adds this container can mend it: spec.podTemplate, an admission policy or a webhook.",
    ),
    reasons.POD_NOT_STARTED: ("Its container did not run.", _SEE_NODE),
    reasons.START_ERROR: (
        "Its container could not be started.",
        "Mend the EngineConnPlugin's command and args, or its image, which must hold the program.",
    ),
    reasons.AGENT_EXITED: ("Its container ended by itself.", UNKNOWN),
}  # fmt: skip

# Who takes members away with the right to do so, by the reason of a pod's condition DisruptionTarget.
_OF_DISRUPTIONS = {
    "EvictionByEvictionAPI": "A drain, which ends by itself, or an autoscaler that moves pods: let it do so less often."
    " Else see in the API server's audit log who evicts them.",
    "PreemptionByScheduler": "Pods of a higher priority need its node{node}: add room, or give spec.podTemplate a"
    " priorityClassName.",
    "DeletionByTaintManager": "Its node{node} has a taint NoExecute: see `kubectl describe node{node}`.",
    "DeletionByPodGC": "Its node{node} is gone, or was out of service.",
    "TerminationByKubelet": "Its node{node} lacked memory or disk, or is shut down: see `kubectl describe node{node}`.",
}


def in_words_of_a_pool(verdict: Verdict) -> str:
    """The sentence of a verdict where no engine is."""
    return _WORDS[verdict.reason][0] if verdict.reason in _WORDS else verdict.reason.sentence


def end_of_member(pod: PodView) -> tuple[str, str]:
    """Which pod of a pool has ended and why, and what helps."""
    _, verdict = verdict_of_ended_pod(pod, None, was_ready=False, once=False)
    remedy = _WORDS.get(verdict.reason, ("", UNKNOWN))[1]
    if verdict.reason is reasons.POD_NOT_STARTED:
        remedy = next((one for begin, one in _REJECTED.items() if pod.reason.startswith(begin)), remedy)
    where = f" on node {pod.node}" if pod.node else ""
    # The reason is first: the message may be long, and is cut.
    words = pod.message or pod.disruption_message
    said = says(pod.reason, words) if pod.reason and words and verdict.details.startswith(words) else verdict.details
    return sentences(f"It is {pod.name}{where}", in_words_of_a_pool(verdict), said), remedy


def help_of_disruption(pod: PodView) -> str:
    """What helps against whoever takes pods away with the right to do so; "" where Kubernetes does not say who."""
    return _OF_DISRUPTIONS.get(pod.disruption, "").format(node=f" {pod.node}" if pod.node else "")

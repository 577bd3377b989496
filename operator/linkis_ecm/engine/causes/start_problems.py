"""Why an engine's pod does not start, by its containers' states, the scheduler's words and the kubelet's events.

Pure. Each function looks at one kind of evidence and returns a verdict or None. The remedy of a verdict fits its cause:
a longer startTimeout or less cpu helps only where time or room is what lacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from linkis_ecm.engine.causes.verdicts import Verdict, evicted, init_failed, says
from linkis_ecm.engine.names import PLUGIN_VOLUME
from linkis_ecm.engine.pod_view import ContainerView, PodView
from linkis_ecm.model import reasons
from linkis_ecm.model.formats import sentences

_IMAGE = {"ImagePullBackOff", "ErrImagePull", "RegistryUnavailable", "SignatureValidationFailed"}
# What waiting does not change.
_IMAGE_FATAL = {"InvalidImageName", "ErrImageNeverPull"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}
_CRASHES = {"CrashLoopBackOff"}
# The kubelet's and the attach controller's reasons of events about volumes.
_MOUNT_EVENTS = {"FailedMount", "FailedAttachVolume", "FailedMapVolume"}
# Events that a pod's own status says better, or that are about another time of its life.
_TOLD_BY_STATUS = {
    "FailedScheduling", "Failed", "BackOff", "ErrImageNeverPull", "InspectFailed", "Unhealthy", "Evicted", "Preempting",
}  # fmt: skip
# Events of a pod that its node or another controller ends.
_EVICTION_EVENTS = {"Evicted": reasons.EVICTED, "Preempting": reasons.PREEMPTED, "Preempted": reasons.PREEMPTED,
                    "NodeShutdown": reasons.NODE_SHUTDOWN}  # fmt: skip
# Characters of an event's text that are kept.
NOTE_MAX = 1000
# The kubelet's words for a volume that the engine's plugin gives (engine.names).
_GIVEN_VOLUME = re.compile(rf'volume "{PLUGIN_VOLUME}([a-z0-9-]+)"')
_GIVEN = (
    "The EngineConnPlugin's volumes give it ({}), so ask the platform to create what the message names in this"
    " namespace, or to correct the plugin."
)
_WHO_ADDS_IT = (
    "Whoever adds this container can mend it: the EngineConnPlugin's podTemplate, or an admission policy or webhook."
)
# What the scheduler's sentence names, and what helps then. The first one that it names counts.
_SCHEDULER: tuple[tuple[str, str], ...] = (
    (
        "persistentvolumeclaim",
        "Create the claim that the message names, or correct its name in spec.volumes or the plugin's volumes.",
    ),
    ("unbound immediate", "See why the claim is not bound: kubectl describe pvc."),
    ("volume node affinity", "Use a volume that the nodes with room can reach."),
    ("Insufficient", ""),
    ("Too many pods", "Wait for other engines to end, or add a node."),
    ("untolerated taint", "Give the engine a toleration (podTemplate.spec.tolerations), or free a node of the taint."),
    ("affinity/selector", "Correct nodeSelector and affinity in the podTemplate, or label a node so that it fits."),
    ("nodes are available", ""),
)

# Of an extended resource, which has a domain. One way to read each name: two parts that both take a dot are quadratic.
_NO_DEVICE = re.compile(r"Insufficient ([\w-]++\.[\w.-]++/[\w.-]*\w)")


def start_problem(pod: PodView) -> Verdict | None:
    """Why a pod does not start yet; None if nothing is known to prevent it."""
    own = _waiting(pod.waiting_reason, pod.waiting_message)
    if own is not None:
        return own
    init = pod.pending_init
    if init is not None and (problem := _waiting_init(init)) is not None:
        return problem
    if pod.gates:
        return Verdict(reasons.SCHEDULING_GATED, f"Its scheduling gates: {', '.join(pod.gates)}.")
    if pod.unschedulable:
        return _unschedulable(pod.unschedulable)
    # A container beside the engine's: the pod is not ready without it, which is what a process is judged by.
    waiting = (_waiting_init(other) for other in pod.others if not other.init and other.running_since is None)
    found = next(filter(None, waiting), None)
    return replace(found, fatal=False) if found is not None else None


def starts_as_usual(pod: PodView) -> bool:
    """Whether the pod, which was made for its engine and runs an agent alone, is on its way to the agent's report, and
    there is nothing to say of it until then. A process's pod says itself when it is ready; others may not start."""
    return (
        pod.claimed is None
        and pod.launch is not None
        and pod.launch.kind == "agent"
        and not (pod.ended or pod.deleting or pod.disruption or pod.others)
        and start_problem(pod) is None
    )


def init_runs(pod: PodView) -> Verdict | None:
    """The init container that the engine waits for, if one has begun and not ended."""
    init = pod.pending_init
    if init is None or init.running_since is None:
        return None
    since = f"The init container {init.name} has run since {init.running_since:%Y-%m-%d %H:%M:%S} UTC"
    return Verdict(reasons.INIT_RUNS, since, container=init.name)


def _waiting(why: str, message: str) -> Verdict | None:
    if why in _IMAGE or why in _IMAGE_FATAL:
        return Verdict(reasons.IMAGE_PULL, says(why, message), fatal=why in _IMAGE_FATAL)
    if why in _CONFIG:
        return Verdict(reasons.CONFIG_ERROR, says(why, message))
    return None


def _waiting_init(init: ContainerView) -> Verdict | None:
    """An init container that cannot start. The reason is the engine's own container's, the words name this one."""
    where = f"It is the {init.kind} {init.name}"
    if init.waiting_reason in _CRASHES:
        failed = init_failed(init)
        details = sentences(where, says(init.waiting_reason, init.waiting_message))
        return Verdict(failed.reason, details, container=init.name)
    problem = _waiting(init.waiting_reason, init.waiting_message)
    if problem is None:
        return None
    return Verdict(
        problem.reason, sentences(where, problem.details), fatal=problem.fatal, container=init.name,
        remedy=_WHO_ADDS_IT,
    )  # fmt: skip


def _unschedulable(words: str) -> Verdict:
    if (device := _NO_DEVICE.search(words)) is not None:
        fewer = f"Ask for fewer {device[1]} in spec.resources.extended, wait for other engines to end, or add a node"
        return Verdict(
            reasons.UNSCHEDULABLE, words, remedy=f"{fewer} that offers it (its device plugin must run there)."
        )
    remedy = next((remedy for part, remedy in _SCHEDULER if part in words), "")
    return Verdict(reasons.UNSCHEDULABLE, words, remedy=remedy)


# --- events of a pod, as the API server has them (events.k8s.io/v1), the oldest first


def problem_of_events(events: Iterable[Mapping[str, Any]]) -> Verdict | None:
    """Why a pod that has a node does not start, by its last warning; None without one. The pod does not say it."""
    found: Verdict | None = None
    for event in events:
        why, note = str(event.get("reason") or ""), str(event.get("note") or "")[:NOTE_MAX]
        if event.get("type") != "Warning" or why in _TOLD_BY_STATUS:
            continue
        reason = reasons.MOUNT_FAILED if why in _MOUNT_EVENTS else reasons.NODE_CANNOT_START
        # A volume that cannot be mounted says more than what follows from it.
        if found is None or found.reason is not reasons.MOUNT_FAILED or reason is reasons.MOUNT_FAILED:
            given = reason is reasons.MOUNT_FAILED and (volume := _GIVEN_VOLUME.search(note))
            remedy = _GIVEN.format(volume[1]) if given and volume else ""
            found = Verdict(reason, f"Kubernetes says: {note}" if note else f"Kubernetes says {why}.", remedy=remedy)
    return found


def eviction_of_events(events: Iterable[Mapping[str, Any]]) -> Verdict | None:
    """The eviction of a pod by its events; None without one. A pod whose container ended with exit code 0 counts as a
    success for the kubelet, and only its events say that it was evicted."""
    found: Verdict | None = None
    for event in events:
        reason = _EVICTION_EVENTS.get(str(event.get("reason") or ""))
        if reason is not None:
            note = str(event.get("note") or "")[:NOTE_MAX]
            found = evicted(note) if reason is reasons.EVICTED else Verdict(reason, note)
    return found

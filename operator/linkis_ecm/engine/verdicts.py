"""Why an engine's pod is in trouble or has ended, in the closed set of reasons.

Pure. Each function looks at one kind of evidence and answers a verdict or nothing; the first answer counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from linkis_ecm.engine.view import PodView, Report
from linkis_ecm.model import reasons
from linkis_ecm.model.formats import as_sentence, parse_quantity, sentences
from linkis_ecm.model.reasons import Reason
from linkis_ecm.model.states import EngineState

# A container's message may be 4 KiB of log; a person reads the last lines.
LAST_LINES = 5
LAST_CHARACTERS = 1000
# A peak under this part of the limit was measured before the end: the agent looks each 10 s.
NEAR_LIMIT = 0.9

_IMAGE = {"ImagePullBackOff", "ErrImagePull", "RegistryUnavailable", "SignatureValidationFailed"}
# What waiting does not change.
_IMAGE_FATAL = {"InvalidImageName", "ErrImageNeverPull"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}
# What the container runtimes say of a command that is not there or cannot be run.
_START_ERRORS = {"StartError", "ContainerCannotRun"}
_NODE_LOST = {"NodeLost", "NodeShutdown", "Terminated", "Shutdown", "DeletionByTaintManager", "DeletionByPodGC"}
_EVICTED = {"Evicted", "EvictionByEvictionAPI", "TerminationByKubelet"}
_PREEMPTED = {"PreemptionByScheduler", "Preempting"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A reason, the details that make its sentence useful, and whether it is fatal: waiting does not help."""

    reason: Reason
    details: str = ""
    fatal: bool = False

    @property
    def message(self) -> str:
        """The reason's sentence, the details, the remedy."""
        return sentences(self.reason.sentence, self.details, self.reason.remedy)


def start_problem(pod: PodView) -> Verdict | None:
    """Why a pod does not start yet; None if nothing prevents it."""
    why = pod.waiting_reason
    if why in _IMAGE or why in _IMAGE_FATAL:
        return Verdict(reasons.IMAGE_PULL, _details(why, pod.waiting_message), fatal=why in _IMAGE_FATAL)
    if why in _CONFIG:
        return Verdict(reasons.CONFIG_ERROR, _details(why, pod.waiting_message))
    if pod.unschedulable:
        return Verdict(reasons.UNSCHEDULABLE, pod.unschedulable)
    return None


def _memory(pod: PodView, report: Report | None) -> str:
    """The memory limit and the measured peak. With cgroup v2 the agent is killed together with its kernel, so the last
    measurement is old."""
    limit = pod.memory_limit
    peak = int(report.usage.get("memoryPeakBytes", 0)) if report is not None else 0
    if not peak:
        return f"The limit is {limit or 'unknown'}."
    if limit and peak < NEAR_LIMIT * int(parse_quantity(limit)):
        return f"The limit is {limit}; the most that was measured before is {peak / 2**20:.0f} MiB, so it grew fast."
    return f"The limit is {limit or 'unknown'}, and its peak was {peak / 2**20:.0f} MiB."


def verdict_of_ended_pod(
    pod: PodView, report: Report | None, *, was_ready: bool, once: bool, process: bool = False
) -> tuple[EngineState, Verdict]:
    """The final state of an engine whose pod ended by itself, and why.

    With `once`, exit code 0 is a success even if the engine was never seen ready. `process`: no agent ran in it.
    """
    ended = pod.terminated
    if ended is not None and ended.reason == "OOMKilled":
        return EngineState.FAILED, Verdict(reasons.OOM_KILLED, _memory(pod, report))
    for reason in (pod.reason, pod.disruption):
        if reason in _EVICTED:
            return EngineState.FAILED, Verdict(reasons.EVICTED, pod.message or f"Kubernetes says {reason}.")
        if reason in _PREEMPTED:
            return EngineState.FAILED, Verdict(reasons.PREEMPTED, pod.message or f"Kubernetes says {reason}.")
        if reason in _NODE_LOST:
            return EngineState.FAILED, Verdict(reasons.NODE_LOST, pod.message or f"Kubernetes says {reason}.")
    if report is not None and report.state is EngineState.FAILED:
        return EngineState.FAILED, reported_verdict(report)
    if pod.deleting:
        # The agent drains on SIGTERM and exits with 0, but the operator did not delete the pod, so this is a failure.
        return EngineState.FAILED, Verdict(reasons.POD_DELETED)
    exited = reasons.PROCESS_EXITED if process else reasons.AGENT_EXITED
    if ended is None:
        return EngineState.FAILED, Verdict(exited, pod.message or pod.reason)
    if ended.reason in _START_ERRORS:
        return EngineState.FAILED, Verdict(reasons.START_ERROR, _details(ended.reason, ended.message))
    if ended.exit_code == 0 and (was_ready or once):
        return EngineState.SUCCESS, Verdict(reasons.COMPLETED)
    if process and ended.exit_code == 0:
        exited = reasons.PROCESS_NEVER_READY
    return EngineState.FAILED, Verdict(exited, _exit(ended.exit_code, ended.signal, ended.message))


def reported_verdict(report: Report) -> Verdict:
    """The verdict of an agent's report of Failed."""
    reason = reasons.JOB_FAILED if report.reason == reasons.JOB_FAILED.name else reasons.KERNEL_DIED
    message = report.message.strip()
    return Verdict(reason, as_sentence(f"{message[:1].upper()}{message[1:]}"))


def _exit(code: int, signal: int, message: str) -> str:
    number = signal or (code - 128 if code > 128 else 0)
    how = f"It was killed by signal {number}." if number else f"Its exit code was {code}."
    tail = "\n".join(message.strip().splitlines()[-LAST_LINES:])[-LAST_CHARACTERS:]
    return f"{how} Its last lines: {tail}" if tail else how


def _details(reason: str, message: str) -> str:
    return f"Kubernetes says {reason}: {message}" if message else f"Kubernetes says {reason}."


def start_overdue(problem: Verdict) -> Verdict:
    """The end of an engine whose start waited for `problem` until its startTimeout: the problem is the reason, because
    its remedy helps and a longer startTimeout does not."""
    return Verdict(problem.reason, sentences("It was not ready within its startTimeout", problem.details))


def mounts_failed(note: str) -> Verdict:
    """A pod whose volumes cannot be mounted. Only the pod's events tell; `note` is the last event's text."""
    return Verdict(reasons.MOUNT_FAILED, f"Kubernetes says: {note}")


def unfinished_phase(pod: PodView | None, waits_for: str = "") -> str:
    """A sentence that names the unfinished phase of a start, for an engine that was not ready in time and of which no
    problem is known. `waits_for` is the sentence for a pod whose container runs.
    """
    if pod is None:
        return "Its pod could not be made."
    if pod.scheduled is None:
        return "Its pod has no node yet."
    if pod.started is None:
        return "Its container has not started yet: the image may still be pulled, or a volume waits."
    return waits_for

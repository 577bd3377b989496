"""Why an engine's pod is in trouble or has ended, in the closed set of reasons.

Pure. Each function looks at one kind of evidence and answers a verdict or nothing; the first answer counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from linkis_ecm.engine.pod_view import ENGINE_CONTAINER, ContainerView, PodView, Terminated
from linkis_ecm.engine.view import Report
from linkis_ecm.model import reasons
from linkis_ecm.model.formats import as_sentence, parse_quantity, sentences
from linkis_ecm.model.reasons import Reason
from linkis_ecm.model.states import EngineState

# A container's message may be 4 KiB of log; a person reads the last lines.
LAST_LINES = 5
LAST_CHARACTERS = 1000
# A peak under this part of the limit was measured before the end: the agent looks each 10 s.
NEAR_LIMIT = 0.9

# What the container runtimes say of a command that is not there or cannot be run.
_START_ERRORS = {"StartError", "ContainerCannotRun"}
_NODE_LOST = {"NodeLost", "DeletionByTaintManager", "DeletionByPodGC"}
# Of a pod's phase Failed: the kubelet's shutdown manager, by its version.
_NODE_SHUTDOWN = {"NodeShutdown", "Terminated", "Shutdown"}
_EVICTED = {"Evicted", "EvictionByEvictionAPI"}
# The kubelet's words where a pod is over a limit of its own, and not where the node lacks room (eviction/helpers.go).
_OWN_DISK = re.compile(
    r"Usage of EmptyDir volume|Container (\S+) exceeded its local ephemeral storage limit"
    r"|Pod ephemeral local storage usage exceeds the total limit"
)
_PREEMPTED = {"PreemptionByScheduler", "Preempting"}
# The condition's reason of each of the kubelet's own: an eviction, a shutdown, a preemption. Its message says which.
_BY_KUBELET = "TerminationByKubelet"
# Ends of which the container alone tells: whoever evicts the pod makes it end so, too.
_UNEXPLAINED = frozenset(
    {reasons.COMPLETED, reasons.AGENT_EXITED, reasons.PROCESS_EXITED, reasons.PROCESS_NEVER_READY, reasons.POD_DELETED}
)
_LAST_LINES_ARE = "Its last lines:"
# What the kubelet says of a container that it does not find any more, such as after a reboot.
_CONTAINER_LOST = {"ContainerStatusUnknown"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A reason, the details that make its sentence useful, and whether it is fatal: waiting does not help.

    `remedy` is one that fits better than the reason's own, and `pool_remedy` the same for a pod of a warm pool, which
    has no engine whose spec could be changed. `container`: the one that the verdict is about, if it is not
    the engine's. `certain`: no event of the pod says otherwise.
    """

    reason: Reason
    details: str = ""
    fatal: bool = False
    remedy: str = ""
    pool_remedy: str = ""
    container: str = ""
    certain: bool = field(default=False, compare=False)

    @property
    def message(self) -> str:
        """The reason's sentence, the details, the remedy."""
        return sentences(self.reason.sentence, self.details, self.remedy or self.reason.remedy)


def _memory(pod: PodView, report: Report | None) -> str:
    """The memory limit and the measured peak. With cgroup v2 the agent is killed together with its kernel, so the last
    measurement is old."""
    given = pod.memory_limit
    peak = int(report.usage.get("memoryPeakBytes", 0)) if report is not None else 0
    limit = _mebibytes(int(parse_quantity(given))) if given else "unknown"
    if not peak:
        return f"The limit is {limit}."
    if given and peak < NEAR_LIMIT * int(parse_quantity(given)):
        return f"The limit is {limit}; the most that was measured before is {_mebibytes(peak)}, so it grew fast."
    return f"The limit is {limit}, and its peak was {_mebibytes(peak)}."


def _mebibytes(count: int) -> str:
    """One unit for limit and use: people compare them."""
    return f"{count / 2**20:.0f} MiB"


def verdict_of_ended_pod(
    pod: PodView, report: Report | None, *, was_ready: bool, once: bool, process: bool = False
) -> tuple[EngineState, Verdict]:
    """The final state of an engine whose pod ended by itself, and why.

    With `once`, exit code 0 is a success even if the engine was never seen ready. `process`: no agent ran in it.
    """
    ended = pod.terminated
    if ended is not None and ended.reason == "OOMKilled":
        return EngineState.FAILED, Verdict(reasons.OOM_KILLED, _memory(pod, report))
    if (infrastructure := _by_infrastructure(pod)) is not None:
        return EngineState.FAILED, infrastructure
    if report is not None and report.state is EngineState.FAILED:
        return EngineState.FAILED, reported_verdict(report)
    if pod.deleting:
        # The agent drains on SIGTERM and exits with 0, but the operator did not delete the pod, so this is a failure.
        return EngineState.FAILED, Verdict(reasons.POD_DELETED)
    if (init := pod.failed_init) is not None and ended is None:
        return EngineState.FAILED, init_failed(init)
    exited = reasons.PROCESS_EXITED if process else reasons.AGENT_EXITED
    if ended is None:
        # Its container has no end of its own: the kubelet refused the pod, or ended it before the container ran.
        words = sentences(pod.message, f"Kubernetes says {pod.reason}" if pod.reason else "")
        return EngineState.FAILED, Verdict(reasons.POD_NOT_STARTED, words)
    if ended.reason in _START_ERRORS:
        return EngineState.FAILED, Verdict(reasons.START_ERROR, says(ended.reason, ended.message))
    if ended.exit_code == 0 and (was_ready or once):
        # An agent exits with 0 only after its job has succeeded, whatever happened to the pod meanwhile.
        return EngineState.SUCCESS, Verdict(reasons.COMPLETED, certain=once and not process)
    if process and ended.exit_code == 0:
        exited = reasons.PROCESS_NEVER_READY
    # Of a pod that the kubelet ended for a reason that we do not know, such as DeadlineExceeded, its words come first.
    told = says(pod.reason, pod.message) if pod.reason else ""
    return EngineState.FAILED, Verdict(exited, sentences(told, how_it_exited(ended)))


def _by_infrastructure(pod: PodView) -> Verdict | None:
    """The end of a pod that its node, the scheduler or another controller caused; None if none of them did."""
    ended, message = pod.terminated, pod.message or pod.disruption_message
    for reason in (pod.reason, pod.disruption):
        words = message or (f"Kubernetes says {reason}." if reason else "")
        if reason in _EVICTED:
            return evicted(words)
        if reason in _PREEMPTED:
            return Verdict(reasons.PREEMPTED, words)
        if reason in _NODE_SHUTDOWN:
            return Verdict(reasons.NODE_SHUTDOWN, words)
        if reason in _NODE_LOST:
            return Verdict(reasons.NODE_LOST, words)
        if reason == _BY_KUBELET:
            shutdown, preempted = "shutdown" in message.lower(), "preempt" in message.lower()
            if not shutdown and not preempted:
                return evicted(words)
            return Verdict(reasons.NODE_SHUTDOWN if shutdown else reasons.PREEMPTED, words)
    if ended is not None and ended.reason in _CONTAINER_LOST:
        return Verdict(reasons.NODE_LOST, says(ended.reason, ended.message))
    return None


def evicted(words: str) -> Verdict:
    """An eviction by what Kubernetes says of it: the pod's own use of its disk, or another's need of the node.

    The same in another pod on another node, so OnInfrastructureFailure does not repeat the first, as OOMKilled.
    """
    own = _OWN_DISK.match(words)
    if own is None:
        return Verdict(reasons.EVICTED, words)
    if own[1] not in (None, ENGINE_CONTAINER):
        who = f"It is the container {own[1]}, which the EngineConnPlugin or an admission policy puts beside the engine"
        return Verdict(reasons.STORAGE_EXCEEDED, words, remedy=f"{who}: have its limit raised there.")
    return Verdict(reasons.STORAGE_EXCEEDED, words)


def init_failed(init: ContainerView) -> Verdict:
    """An init container has ended with an error, so the engine's own container is never started."""
    ended = init.terminated
    how = how_it_exited(ended) if ended is not None else ""
    if ended is not None and ended.reason == "OOMKilled":
        how = sentences("It used more memory than its own limit", how)
    return Verdict(reasons.INIT_FAILED, sentences(f"It is the init container {init.name}", how), container=init.name)


def reported_verdict(report: Report) -> Verdict:
    """The verdict of an agent's report of Failed."""
    named = reasons.by_name(report.reason)
    reason = named if named in reasons.OF_THE_AGENT else reasons.KERNEL_DIED
    message = report.message.strip()
    return Verdict(reason, as_sentence(f"{message[:1].upper()}{message[1:]}"))


def how_it_exited(ended: Terminated) -> str:
    """The exit code or signal of a container, and the last lines of its message."""
    number = ended.signal or (ended.exit_code - 128 if ended.exit_code > 128 else 0)
    how = f"It was killed by signal {number}." if number else f"Its exit code was {ended.exit_code}."
    return with_last_lines(how, ended.message)


def with_evidence(verdict: Verdict, *, start_problem: Verdict | None, eviction: Verdict | None, tail: str) -> Verdict:
    """The verdict of an end whose evidence is there: the pod's events, and the log of the container that failed."""
    if eviction is not None and verdict.reason in _UNEXPLAINED and not verdict.certain:
        return eviction
    if start_problem is not None and verdict.reason is reasons.START_TIMEOUT:
        return start_overdue(start_problem)
    if verdict.container and tail and _LAST_LINES_ARE not in verdict.details:
        return replace(verdict, details=with_last_lines(sentences(verdict.details), tail))
    return verdict


def with_last_lines(sentence: str, text: str) -> str:
    """The sentence, and the end of what a container wrote, if it wrote something."""
    tail = "\n".join(text.strip().splitlines()[-LAST_LINES:])[-LAST_CHARACTERS:]
    return f"{sentence} {_LAST_LINES_ARE} {tail}" if tail else sentence


def says(reason: str, message: str) -> str:
    """A reason and a message as Kubernetes has them, as a sentence."""
    return f"Kubernetes says {reason}: {message}" if message else f"Kubernetes says {reason}."


def start_overdue(problem: Verdict) -> Verdict:
    """The end of an engine whose start waited for `problem` until its startTimeout: the problem is the reason, because
    its remedy helps and a longer startTimeout does not."""
    details = sentences("It was not ready within its startTimeout", problem.details)
    return replace(problem, details=details, fatal=False)


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

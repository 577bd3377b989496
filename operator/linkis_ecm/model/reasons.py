"""Every reason that an engine's status, its record or a refusal can carry, each with a sentence and a remedy.

A closed set: a condition's reason, an event's reason and the REST answer name one of these constants. Pure data.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """`name` is CamelCase, as Kubernetes's conditions demand. `can_retry`: the same request may succeed later."""

    name: str
    sentence: str
    remedy: str = ""
    can_retry: bool = False


_ALL: dict[str, Reason] = {}


def _reason(name: str, sentence: str, remedy: str = "", *, can_retry: bool = False) -> Reason:
    reason = Reason(name, sentence, remedy, can_retry)
    _ALL[name] = reason
    return reason


def by_name(name: str) -> Reason | None:
    """The reason of that name, or None for a name that is not in this file."""
    return _ALL.get(name)


# Starting, running or stopping without a problem.
ACCEPTED = _reason("Accepted", "The engine is accepted and its pod is wanted.")
POD_CREATED = _reason("PodCreated", "The engine's pod is made and starts.")
SCHEDULING_GATED = _reason("SchedulingGated", "The engine's pod waits for its admission to the scheduler.")
POD_SCHEDULED = _reason("PodScheduled", "The engine's pod has a node and starts there.")
CONTAINER_STARTED = _reason("ContainerStarted", "The engine's container runs; its kernel has not answered yet.")
KERNEL_READY = _reason("KernelReady", "The kernel has answered: the engine runs code.")
PROCESS_READY = _reason("ProcessReady", "The engine's process runs and is ready.")
PROCESS_NOT_READY = _reason(
    "ProcessNotReady",
    "The engine's process runs and does not answer its readiness check now.",
    "See the engine's log with `kubectl logs`; it is ready again with its next good answer.",
)
KEY_MISMATCH = _reason(
    "KeyMismatch",
    "This operator does not have the key that the engine's agent was given.",
    "Give the operator the key of before as its previous one (ECM_PREVIOUS_TOKEN_KEY_FILE, auth.previousTokenKey of the"
    " chart), or delete the engine.",
)
EXECUTING = _reason("Executing", "The engine runs a task.")
RESTARTING = _reason("Restarting", "The engine's last pod ended and another one is made.")
CULL_SOON = _reason(
    "CullSoon", "The engine is idle and ends soon.", "Run code in it, or raise spec.idleTimeout or spec.maxLifetime."
)
JOB_RUNNING = _reason("JobRunning", "The engine runs its one job.")
CLAIMED = _reason("Claimed", "The engine is taken and handed to its user.")
FREE = _reason("Free", "The engine is ready and nobody holds it.")
STOP_REQUESTED = _reason("StopRequested", "The engine was asked to stop and drains.")

# Clean ends.
STOPPED_BY_USER = _reason("StoppedByUser", "The engine was stopped on request.")
DELETED = _reason("Deleted", "The engine's resource was deleted.")
IDLE_TIMEOUT = _reason(
    "IdleTimeout",
    "The engine was idle for longer than its idleTimeout.",
    "Ask for a longer spec.idleTimeout, or run code more often.",
    can_retry=True,
)
LIFETIME_OVER = _reason(
    "LifetimeOver", "The engine reached its maxLifetime.", "Ask for a longer spec.maxLifetime.", can_retry=True
)
COMPLETED = _reason("Completed", "The engine ended by itself without an error.")
# Ends that somebody asked for: Linkis shows them as ShuttingDown, and its job statistics count them as cancelled.
KILLED = frozenset({STOPPED_BY_USER.name, DELETED.name})

# Failures: the engine did not start, or it ended by an error.
PLUGIN_MISSING = _reason(
    "PluginMissing",
    "No EngineConnPlugin offers this engine type and version.",
    "List the catalogue with `kubectl get ecp` and ask for a type that stands in it.",
)
INVALID_SPEC = _reason(
    "InvalidSpec",
    "The engine's spec cannot be turned into a pod.",
    "Mend the field that the message names and create the engine again.",
)
NOT_ADMITTED = _reason(
    "NotAdmitted",
    "The engine's spec was written while the admission policy was not there, so nobody asked for its author's rights.",
    "Delete the engine and create it again some seconds after the policy is there (admission of the chart).",
)
NAME_CONFLICT = _reason(
    "NameConflict",
    "A pod of the engine's name exists and belongs to something else.",
    "Delete that pod, with its finalizers if it has any, or create the engine under another name.",
)
IMAGE_PULL = _reason(
    "ImagePullBackOff",
    "The engine's image cannot be pulled.",
    "Check the image's name and the node's access to its registry in the EngineConnPlugin.",
)
CONFIG_ERROR = _reason(
    "CreateContainerConfigError",
    "The engine's container cannot be configured.",
    "Check the Secrets, ConfigMaps and security settings that the message names.",
)
UNSCHEDULABLE = _reason(
    "Unschedulable",
    "No node takes the engine's pod.",
    "Ask for less cpu or memory, wait for other engines to end, or add a node.",
    can_retry=True,
)
QUOTA_EXCEEDED = _reason(
    "QuotaExceeded",
    "The namespace's quota refuses the engine's pod.",
    "Ask for less, stop an engine, or have the ResourceQuota raised.",
    can_retry=True,
)
LIMIT_RANGE = _reason(
    "LimitRangeExceeded",
    "The namespace's LimitRange refuses the engine's pod.",
    "Ask for resources within the LimitRange, or have it changed.",
    can_retry=True,
)
LIMIT_REACHED = _reason(
    "LimitReached",
    "A limit of engines, cpu or memory is reached.",
    "Stop an engine, ask for less, or have the limit raised (ECM_LIMITS, limits of the chart).",
    can_retry=True,
)
POD_REFUSED = _reason(
    "PodRefused",
    "The API server refuses the engine's pod.",
    "Mend what the message names in the spec or in the EngineConnPlugin.",
)
MOUNT_FAILED = _reason(
    "MountFailed",
    "A volume of the engine cannot be mounted.",
    "Check that the Secrets, ConfigMaps and claims that the message names exist and can be mounted on the node.",
)
NODE_CANNOT_START = _reason(
    "NodeCannotStart",
    "The node does not get the engine's pod to start.",
    "See the pod's events with `kubectl describe pod`; whoever runs the node can mend what they name.",
    can_retry=True,
)
INIT_RUNS = _reason(
    "InitContainerRuns",
    "The engine's pod waits for an init container, which its plugin, an admission policy or a webhook put there.",
    "See that container's log with `kubectl logs`.",
)
INIT_FAILED = _reason(
    "InitContainerFailed",
    "An init container of the engine's pod ended with an error, so the engine was not started.",
    "Whoever adds this container can mend it: the EngineConnPlugin's podTemplate, an admission policy or a webhook. Its"
    " log is in the post-mortem.",
)
POD_NOT_MADE = _reason(
    "PodNotMade",
    "The API server cannot make the engine's pod now.",
    "It is tried again until the engine's startTimeout. If an admission webhook is named, see to its service.",
    can_retry=True,
)
POD_NOT_STARTED = _reason(
    "PodNotStarted",
    "The engine's pod ended before its container ran.",
    "Create the engine again; if it is the same then, see the node that the status names.",
    can_retry=True,
)
NEVER_ANSWERED = _reason(
    "ProcessNeverAnswered",
    "The engine's process runs and did not answer its readiness check within the engine's startTimeout.",
    "Check launch.port and launch.ready of the EngineConnPlugin, and the engine's log; raise spec.startTimeout if the"
    " process only starts slowly.",
)
START_TIMEOUT = _reason(
    "StartTimeout",
    "The engine did not answer within its startTimeout.",
    "See which startup phase hung in status.startup; raise spec.startTimeout if it is slow.",
    can_retry=True,
)
OOM_KILLED = _reason(
    "OOMKilled",
    "The engine used more memory than its limit and was killed.",
    "Ask for more spec.resources.memory, or work on less data at a time.",
)
TOO_MANY_PROCESSES = _reason(
    "TooManyProcesses",
    "The engine's code started more processes and threads than an engine may have, and the engine was ended.",
    "Start fewer of them at a time, or have maxProcesses of the EngineConnPlugin raised.",
)
AGENT_TAMPERED = _reason(
    "AgentTampered",
    "The engine's code took limits or CPU time from the agent that bounds and reports it, and the engine was ended.",
    "Leave process 1 of the container alone: prlimit, renice and chrt are for processes of your own.",
)
STORAGE_EXCEEDED = _reason(
    "StorageExceeded",
    "The engine wrote more to its local disk than its limit, and its pod was evicted.",
    "Write less to /tmp and scratch volumes, write to a claim, or have storage of the EngineConnPlugin raised.",
)
EVICTED = _reason("Evicted", "The node evicted the engine's pod.", "Create the engine again.", can_retry=True)
PREEMPTED = _reason(
    "Preempted",
    "A pod of higher priority took the engine's place.",
    "Create the engine again, or give it a priorityClassName that is not preempted.",
    can_retry=True,
)
NODE_LOST = _reason("NodeLost", "The engine's node does not answer.", "Create the engine again.", can_retry=True)
NODE_SHUTDOWN = _reason("NodeShutdown", "The engine's node was shut down.", "Create the engine again.", can_retry=True)
POD_DELETED = _reason(
    "PodDeleted", "The engine's pod was deleted by somebody else.", "Create the engine again.", can_retry=True
)
KERNEL_DIED = _reason(
    "KernelDied",
    "The engine's kernel ended while the engine was in use.",
    "See the last lines of stderr in the message and in the engine's log.",
)
AGENT_EXITED = _reason(
    "AgentExited", "The engine's container ended with an error.", "See the last lines of stderr in the engine's log."
)
PROCESS_EXITED = _reason(
    "ProcessExited", "The engine's process ended with an error.", "See its log, which is kept as its stdout."
)
PROCESS_NEVER_READY = _reason(
    "ProcessNeverReady",
    "The engine's process ended before it was ready.",
    "Let the program stay in the foreground and listen on launch.port; for a program that does its work and ends, leave"
    " launch.port out of the EngineConnPlugin.",
)
START_ERROR = _reason(
    "StartError",
    "The engine's container could not be started.",
    "Mend the EngineConnPlugin's command and args, or its image, which must hold the program.",
)
JOB_FAILED = _reason(
    "JobFailed", "The engine's job ended with an error.", "See the traceback in the engine's stderr and in its result."
)
PASS_FAILED = _reason(
    "PassFailed",
    "The operator fails on this engine and tries it again each minute.",
    "Tell whoever runs the operator: its log has the stack under this engine's name.",
)
AGENT_LOST = _reason("AgentLost", "The engine stopped reporting.", "Create the engine again.", can_retry=True)


def all_reasons() -> tuple[Reason, ...]:
    """Every reason, in the order of this file."""
    return tuple(_ALL.values())


# Ends that neither the engine nor its code caused: OnInfrastructureFailure restarts after these.
INFRASTRUCTURE = frozenset(
    {EVICTED, PREEMPTED, NODE_LOST, NODE_SHUTDOWN, POD_DELETED, POD_NOT_STARTED, NODE_CANNOT_START, AGENT_LOST}
)
# Ends that would be the same for another pod.
PERMANENT = frozenset({PLUGIN_MISSING, INVALID_SPEC, NOT_ADMITTED, POD_REFUSED, LIMIT_REACHED})

# The failures that an agent reports of its engine. Its container exits by itself then, without a request to stop.
OF_THE_AGENT = frozenset({KERNEL_DIED, JOB_FAILED, TOO_MANY_PROCESSES, AGENT_TAMPERED})

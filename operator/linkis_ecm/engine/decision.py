"""The input and the result of a decision: plain data between the reconciler, `decide` and the executor.

Must not decide anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from linkis_ecm.engine.admission.in_force import InForce
from linkis_ecm.engine.admission.limits import Refusal
from linkis_ecm.engine.admission.ownership import Ownership
from linkis_ecm.engine.causes.cold_starts import Cold
from linkis_ecm.engine.causes.verdicts import Verdict
from linkis_ecm.engine.pod import launch
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.view import EngineView, PluginView, Report
from linkis_ecm.model.agent_key import AgentKeyRef
from linkis_ecm.model.reasons import Reason
from linkis_ecm.model.record import EngineRecord
from linkis_ecm.model.states import EngineState


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The part of the operator's configuration that decisions use."""

    ecm_instance: str
    pod: launch.PodSettings
    # Names of installations whose engines this one takes over: its own former names.
    adopted: frozenset[str] = frozenset()
    # A change between Idle and Busy is written to the API only if it lasts longer than this.
    idle_busy_hold: timedelta = timedelta(seconds=1)
    # The same for a drain. A kubelet checks for ended containers once a second, so a quick drain takes up to 1.5 s.
    shutdown_hold: timedelta = timedelta(seconds=2)
    # An agent that has not reported for this time is asked for its status. It is three report periods.
    silent_after: timedelta = timedelta(seconds=30)
    # An agent without any contact for this time is lost. Kubernetes marks a dead node NotReady after 50 to 55 s, and
    # the agent's last report was up to 10 s earlier. With a shorter time a lost node would look like a lost agent.
    lost_after: timedelta = timedelta(seconds=70)
    # Between two status requests to a silent agent.
    ask_interval: timedelta = timedelta(seconds=5)
    # The ids of the master keys that this operator has; None: not known.
    key_ids: frozenset[str] | None = None

    @property
    def ownership(self) -> Ownership:
        return Ownership(self.ecm_instance, self.adopted)


@dataclass(frozen=True, slots=True)
class CreateFailure:
    """The API server's refusal of the pod. `fatal`: waiting does not help."""

    verdict: Verdict
    retry_at: datetime


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop of the engine: since when, why, and when the agent was last asked to stop (`last_sent`)."""

    since: datetime
    reason: Reason
    last_sent: datetime | None = None


@dataclass(frozen=True, slots=True)
class Silence:
    """What this process knows about a silent agent: its last contact, and the unanswered status requests since then."""

    last_contact: datetime
    unanswered: int = 0
    last_asked: datetime | None = None
    # The node's condition from the API server: "" not read yet, "ready", or a text that says what is wrong.
    node: str = ""
    # How the agent refused the last answered request; "" where it did not. An agent that refuses is alive.
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class KeyRefused:
    """An agent's answer: it is there and does not take this operator's key. `sentence` says how it is known."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """The result of collecting an attempt's evidence; `summary` becomes `status.postMortem`."""

    attempt: int
    summary: dict[str, Any]
    # The namespace was being deleted when the evidence was collected, so the pod was deleted with it.
    namespace_terminating: bool = False
    # What the pod's events say: why it did not start, and whether it was evicted. The pod itself does not say so.
    start_problem: Verdict | None = None
    eviction: Verdict | None = None
    # The end of the log of the container that the end is about, where it is not the engine's.
    log_tail: str = ""


@dataclass(frozen=True, slots=True)
class EventProblem:
    """Why a pod does not start, by its events, and when they were last read; None: they were not."""

    verdict: Verdict | None = None
    read: datetime | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """The next attempt after one that ended with `verdict`. Its pod is created at `not_before` or later."""

    attempt: int
    not_before: datetime
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Warm:
    """What the warm pool of the engine's plugin has for it (docs/design/warm.md).

    A reserved `member` with the `template` that it was made from; without one, `because` says why.
    """

    member: PodView | None = None
    template: dict[str, Any] | None = None
    because: Cold | None = None


@dataclass(frozen=True, slots=True)
class ResizeFailure:
    """Why the API server did not take the last resize: `down` for a soft pause, or up at its end or after a claim. ""
    for a reason that concerns nobody. It is tried again at `retry_at`; `count` is how many failed in a row. `limited`:
    a limit of people is why, and it was not sent. `final`: the API server never takes it of that pod."""

    down: bool
    sentence: str
    retry_at: datetime
    count: int = 1
    limited: bool = False
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a decision may depend on besides the clock.

    The fields after `plugin` are this process's memory, except `other_pods`. Losing the memory may repeat a
    request, but never changes a decision.
    """

    engine: EngineView
    pod: PodView | None
    plugin: PluginView | None
    # The pod has the name and the owner of the engine's pod, and nothing says that this operator made it.
    pod_unknown: bool = False
    report: Report | None = None
    failure: CreateFailure | None = None
    stop: Stop | None = None
    # The API server confirmed that the pod does not exist. The cache alone is no proof.
    pod_gone: bool = False
    # The last view of the pod before it was deleted.
    last_pod: PodView | None = None
    # Existing pods of the engine's other attempts.
    other_pods: tuple[PodView, ...] = ()
    silence: Silence | None = None
    evidence: Evidence | None = None
    # The engine's ticket is another engine's, which the API or the database has.
    ticket_taken: bool = False
    # Most agents are silent at once, so their reports cannot reach us. Then no engine counts as lost.
    report_path_down: bool = False
    # Why the pod does not start, by its events.
    event_problem: EventProblem = field(default_factory=EventProblem)
    # What a warm pool has for the engine's next pod; None: its plugin has no pool here, or no pod is needed.
    warm: Warm | None = None
    # Why this attempt takes no member of a pool any more: what went wrong with one; None: nothing.
    warm_failed: Cold | None = None
    # Why the last resize of the pod was not done; None: it was, or there was none.
    resize_failure: ResizeFailure | None = None
    # The resize of its claim was sent, and is not answered.
    resize_sent: bool = False
    # When this process first saw the engine; None: not known.
    known_since: datetime | None = None
    # When this process last wrote the status' message; None: it has not.
    words_written: datetime | None = None
    # Why the engine gets no place under the limits of people; None: it has one, or needs none.
    limit: Refusal | None = None
    # The admission policies, for an engine without a pod as they are now; None: none are wanted.
    policies: InForce | None = None
    # When this process first saw each phase of the start, in microseconds; the API has whole seconds only.
    first_seen: dict[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CreatePod:
    """POST this pod. The executor adds its token."""

    attempt: int
    pod: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ClaimPod:
    """Take this member of a warm pool: `patch` is a JSON patch that makes its pod the engine's.

    `environment` is what its agent will be given. Its Secrets and ConfigMaps are read first: without them the engine
    starts cold.
    """

    attempt: int
    member: PodView
    patch: list[dict[str, Any]]
    environment: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ClaimAgent:
    """Tell the agent in a pod that came from a pool whose it is now: POST /v1/claim.

    `member_key` is the enrolment of before. Entries of `environment` may have a `valueFrom`. `resources` is what the
    pod must get, in place, for this engine; None: it has that.
    """

    pod: str
    address: str
    attempt: int
    member_key: AgentKeyRef
    environment: list[dict[str, Any]]
    resources: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class DiscardPod:
    """DELETE a pod from a warm pool that cannot become the engine's, at once."""

    name: str
    uid: str
    because: Cold


@dataclass(frozen=True, slots=True)
class DeletePod:
    """DELETE exactly this pod. `grace` is in seconds; 0 deletes the API object without waiting for the kubelet."""

    name: str
    uid: str
    grace: int


@dataclass(frozen=True, slots=True)
class MarkPod:
    """PATCH this pod's annotations that keep autoscalers from it (names.UNDISRUPTED): set them or take them away."""

    name: str
    uid: str
    undisrupted: bool


@dataclass(frozen=True, slots=True)
class ResizePod:
    """PATCH the size of this pod, in the version that was looked at: `down` for a soft pause, else up at its end.
    `claimed`: to the size that the engine asked for when it took the pod from a warm pool."""

    pod: str
    version: int
    resources: dict[str, Any]
    down: bool
    claimed: bool = False


@dataclass(frozen=True, slots=True)
class ConfirmPodGone:
    """GET a pod that is not in the cache, to confirm that it does not exist."""

    name: str


@dataclass(frozen=True, slots=True)
class IdentifyPod:
    """GET a pod that has the name of the engine's pod, to see whether this operator made it; DELETE it if not."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class StopAgent:
    """Ask the agent to drain and exit. `grace` is in seconds."""

    address: str
    attempt: int
    grace: int
    reason: str
    key: AgentKeyRef | None


@dataclass(frozen=True, slots=True)
class DeleteEngine:
    """DELETE the ended engine's resource, because its ttlAfterFinished has expired."""

    uid: str


@dataclass(frozen=True, slots=True)
class GetAgentStatus:
    """GET the status of an agent that has not reported."""

    address: str
    attempt: int
    key: AgentKeyRef | None


@dataclass(frozen=True, slots=True)
class GetNodeCondition:
    """GET the node of a silent engine, for its condition Ready."""

    name: str


@dataclass(frozen=True, slots=True)
class GetPodEvents:
    """LIST the events of a pod that does not start."""

    pod: str


@dataclass(frozen=True, slots=True)
class CollectEvidence:
    """Save the evidence of the attempt's pod before the pod is deleted: its log, last state and events."""

    attempt: int
    pod: str
    verdict: Verdict


Action = (
    CreatePod
    | ClaimPod
    | ClaimAgent
    | DiscardPod
    | DeletePod
    | MarkPod
    | ResizePod
    | ConfirmPodGone
    | IdentifyPod
    | StopAgent
    | DeleteEngine
    | GetAgentStatus
    | GetNodeCondition
    | GetPodEvents
    | CollectEvidence
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do. `patch` is a merge patch of the status, empty if nothing changes; `deadline` is Unix time."""

    state: EngineState
    reason: str
    patch: dict[str, Any]
    actions: tuple[Action, ...]
    deadline: float | None
    record: EngineRecord | None
    stop: Stop | None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The state that the engine should have, with reason, time and actions. `requeue_at`: when the next pass is due."""

    state: EngineState
    verdict: Verdict
    since: datetime
    actions: tuple[Action, ...] = ()
    requeue_at: datetime | None = None
    stop: Stop | None = None
    restart: Restart | None = None
    # All attempts that the policy allows are used up.
    exhausted: bool = False
    # Why the pod that is made now was not taken from a warm pool; None where the plugin has none.
    cold_because: Cold | None = None
    # What `status.softPause` is to have; {} removes it, None leaves it as it is.
    soft_pause: dict[str, Any] | None = None

"""What a decision is made from and made of: plain data between the reconciler, `decide` and the executor.

Must not decide anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from linkis_ecm.engine import launch
from linkis_ecm.engine.verdicts import Verdict
from linkis_ecm.engine.view import EngineView, PluginView, PodView, Report
from linkis_ecm.model.reasons import Reason
from linkis_ecm.model.record import EngineRecord
from linkis_ecm.model.states import EngineState


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decisions take from the operator's configuration."""

    ecm_instance: str
    pod: launch.PodSettings
    # A change between Idle and Busy that is over within this never becomes a write to the API.
    idle_busy_hold: timedelta = timedelta(seconds=1)
    # Nor does a drain: a kubelet looks for ended containers once a second, so a quick one is over after up to 1.5 s.
    shutdown_hold: timedelta = timedelta(seconds=2)
    # An agent that has reported nothing for so long is asked; three of its periods.
    silent_after: timedelta = timedelta(seconds=30)
    # One that does not answer either for so long is lost: Kubernetes calls a dead node NotReady after 50 s and up to 5
    # more, and the agent's last report was up to 10 s before; sooner, a lost node would look like a lost agent.
    lost_after: timedelta = timedelta(seconds=70)
    ask_again: timedelta = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class CreateFailure:
    """The API server's refusal of the pod. `fatal`: waiting does not help."""

    verdict: Verdict
    retry_at: datetime


@dataclass(frozen=True, slots=True)
class Stop:
    """The engine is to end, since when and why; `sent`: when the agent was last asked to stop."""

    since: datetime
    reason: Reason
    sent: datetime | None = None


@dataclass(frozen=True, slots=True)
class Silence:
    """What this process knows of an agent's silence: its last contact, and the unanswered requests since."""

    last_contact: datetime
    unanswered: int = 0
    last_asked: datetime | None = None
    # What the API server says of the pod's node: "" not asked, "ready", else in words what is wrong with it.
    node: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was kept of an attempt's pod; `summary` is `status.postMortem`."""

    attempt: int
    summary: dict[str, Any]
    # The namespace was being deleted when the evidence was collected: the pod went with it.
    namespace_ending: bool = False


@dataclass(frozen=True, slots=True)
class Restart:
    """Another attempt follows one that ended as `verdict` says; its pod is made at `not_before` or later."""

    attempt: int
    not_before: datetime
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a decision may depend on besides the clock.

    The fields after `plugin` are this process's memory, except `others`: losing it may repeat a question, never change
    an answer.
    """

    engine: EngineView
    pod: PodView | None
    plugin: PluginView | None
    report: Report | None = None
    failure: CreateFailure | None = None
    stop: Stop | None = None
    # The API server itself said that the pod is gone: a cache alone is not believed.
    pod_gone: bool = False
    # The pod as the watch last showed it before it was gone.
    last_pod: PodView | None = None
    # Pods of the engine's other attempts that are still there.
    others: tuple[PodView, ...] = ()
    silence: Silence | None = None
    evidence: Evidence | None = None
    # So many agents are silent at once that the path of their reports is rather broken: no engine counts as lost.
    report_path_down: bool = False
    # When this process saw a phase of the start, to the microsecond; the API gives seconds.
    seen: dict[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CreatePod:
    """POST this pod; the executor puts its token in."""

    attempt: int
    pod: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DeletePod:
    """DELETE that very pod. `grace` is in seconds; 0 takes it from the API without its kubelet."""

    name: str
    uid: str
    grace: int


@dataclass(frozen=True, slots=True)
class ConfirmPod:
    """GET the pod that the cache lacks."""

    name: str


@dataclass(frozen=True, slots=True)
class StopAgent:
    """Ask the agent to drain and exit. `grace` is in seconds."""

    address: str
    attempt: int
    grace: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeleteEngine:
    """DELETE the ended engine's resource: its ttlAfterFinished is over."""

    uid: str


@dataclass(frozen=True, slots=True)
class AskAgent:
    """GET the status of an agent that has not reported."""

    address: str
    attempt: int


@dataclass(frozen=True, slots=True)
class AskNode:
    """GET the node of a silent engine."""

    name: str


@dataclass(frozen=True, slots=True)
class Collect:
    """Keep what is left of the attempt's pod before it is gone: its log, last state, events."""

    attempt: int
    pod: str
    verdict: Verdict


Action = CreatePod | DeletePod | ConfirmPod | StopAgent | DeleteEngine | AskAgent | AskNode | Collect


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do. `patch` is a merge patch of the status, empty where it is right already; `deadline` is Unix time."""

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
    """A state with its reason, since when, and what follows from it. `requeue_at`: when the next pass is due."""

    state: EngineState
    verdict: Verdict
    since: datetime
    actions: tuple[Action, ...] = ()
    requeue_at: datetime | None = None
    stop: Stop | None = None
    restart: Restart | None = None
    # All attempts that the policy allows are used up.
    exhausted: bool = False

"""What a decision is made from and made of: plain data between the reconciler, `decide` and the executor.

Must not decide anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from linkis_ecm.engine import podspec
from linkis_ecm.engine.ends import Verdict
from linkis_ecm.engine.view import EngineView, PluginView, PodView, Report
from linkis_ecm.model.reasons import Reason
from linkis_ecm.model.record import EngineRecord
from linkis_ecm.model.states import EngineState


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the operator was told of itself."""

    ecm_instance: str
    pod: podspec.PodSettings
    # A flip between Idle and Busy, or a drain, that is over within this never becomes a write to the API.
    hold: timedelta = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class CreateFailure:
    """The API server's refusal of the pod. `fatal`: no waiting helps."""

    verdict: Verdict
    retry_at: datetime


@dataclass(frozen=True, slots=True)
class Stop:
    """The engine is to end, since when and why; `sent`: when the agent was last told."""

    since: datetime
    reason: Reason
    sent: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a decision may depend on besides the clock.

    The last four are this process's memory: losing it may repeat a question, never change an answer.
    """

    engine: EngineView
    pod: PodView | None
    plugin: PluginView | None
    report: Report | None = None
    failure: CreateFailure | None = None
    stop: Stop | None = None
    # The API server itself said that the pod is gone: a cache alone is not believed.
    pod_gone: bool = False
    # When this process saw a phase of the start, to the microsecond; the API tells seconds.
    seen: dict[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CreatePod:
    """POST the engine's pod; its token is put in by the executor."""

    attempt: int


@dataclass(frozen=True, slots=True)
class DeletePod:
    """DELETE that very pod."""

    name: str
    uid: str
    grace: int


@dataclass(frozen=True, slots=True)
class ConfirmPod:
    """GET the pod that the cache lacks."""

    name: str


@dataclass(frozen=True, slots=True)
class StopAgent:
    """Ask the agent to drain and exit."""

    address: str
    attempt: int
    grace: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeleteEngine:
    """DELETE the ended engine's resource: its ttlAfterFinished is over."""

    uid: str


Action = CreatePod | DeletePod | ConfirmPod | StopAgent | DeleteEngine


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A state with its reason, since when, and what follows from it."""

    state: EngineState
    verdict: Verdict
    since: datetime
    actions: tuple[Action, ...] = ()
    look_again: datetime | None = None
    stop: Stop | None = None

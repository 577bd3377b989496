"""What a decision may look at: small frozen views of the API's objects and of the agent's reports.

Parsed leniently from plain JSON: a field that was edited by hand, or is of a newer version, never raises. A spec that
cannot be parsed is kept as a sentence (`EngineView.invalid`). Only what is read is kept: a whole pod takes
34 KB of memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from linkis_ecm.engine.matching import CLAIM_ANNOTATION, Claim, parse_claim
from linkis_ecm.engine.names import INSTANCE, TICKET_ANNOTATION, UNDISRUPTED
from linkis_ecm.engine.times import parse_time
from linkis_ecm.model.agent_key import AgentKeyRef
from linkis_ecm.model.amounts import STORED
from linkis_ecm.model.engineconn import EngineConnSpec, Launch
from linkis_ecm.model.plugin import EngineConnPluginSpec
from linkis_ecm.model.states import EngineState

# On a pod: JSON of the launch that it was created with.
LAUNCH_ANNOTATION = "linkis.apache.org/launch"
# On a pod: JSON of digests of the spec that it was made from (engine/pending.py).
SPEC_ANNOTATION = "linkis.apache.org/spec"
# The container that the operator puts into the pod. Admission policies may add others.
ENGINE_CONTAINER = "engine"
# Of a pod's other containers.
CONTAINERS_MAX = 32
# Seconds, a year. Whoever deletes a pod may ask for any number as its grace.
GRACE_MAX = 365 * 86400


# Of the annotation that names an installation, host:port: an author may write 256 KiB there. A longer one is no
# installation's, and is shown by its beginning.
OWNER_MAX = 300


@dataclass(frozen=True, slots=True)
class Terminated:
    """How a container ended."""

    reason: str
    exit_code: int
    signal: int
    message: str
    finished: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerView:
    """A container of an engine's pod that is not the engine: somebody's admission policy put it there.

    `init`: the engine's container starts after its end. A `sidecar` is an init container that runs beside the engine;
    the kubelet ends it when the others have ended.
    """

    name: str
    init: bool = False
    sidecar: bool = False
    waiting_reason: str = ""
    waiting_message: str = ""
    running_since: datetime | None = None
    terminated: Terminated | None = None

    @property
    def kind(self) -> str:
        return "init container" if self.init and not self.sidecar else "sidecar container"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """An engine's pod."""

    namespace: str
    name: str
    uid: str
    version: int
    owner_uid: str
    owner_name: str
    phase: str
    reason: str = ""
    message: str = ""
    ip: str = ""
    node: str = ""
    deleting: bool = False
    # When the deletion was asked for, and when the kubelet's grace for it is over.
    deleted_at: datetime | None = None
    grace_ends_at: datetime | None = None
    created: datetime | None = None
    scheduled: datetime | None = None
    unschedulable: str = ""
    # Names of the gates that keep the scheduler from looking at the pod; somebody else removes them.
    gates: tuple[str, ...] = ()
    disruption: str = ""
    disruption_message: str = ""
    waiting_reason: str = ""
    waiting_message: str = ""
    started: datetime | None = None
    # Kubernetes's own condition Ready: every container runs and passes its readiness check, and the node answers.
    ready: bool = False
    ready_since: datetime | None = None
    terminated: Terminated | None = None
    # The pod's other containers, in their order.
    others: tuple[ContainerView, ...] = ()
    cpu_request: str = ""
    cpu_limit: str = ""
    memory_limit: str = ""
    # Its extended resources by name, sorted; what is no whole number counts as none.
    extended: tuple[tuple[str, int], ...] = ()
    # What it was created to run; None if it does not say so.
    launch: Launch | None = None
    # Digests of what it was made from, by the spec's fields; empty if it does not say so.
    made_from: Mapping[str, str] = field(default_factory=dict)
    # Its annotations keep autoscalers from it.
    undisrupted: bool = False
    # The engine's ticket, as the operator wrote it.
    ticket: str = ""
    # The label with the installation that made it; "" where there is none.
    instance: str = ""

    @property
    def ended(self) -> bool:
        """The engine's container will not run again."""
        return self.phase in ("Succeeded", "Failed") or self.terminated is not None

    @property
    def outlived(self) -> bool:
        """The engine has ended, and another container keeps the pod running."""
        return (
            self.terminated is not None
            and self.phase not in ("Succeeded", "Failed")
            and any(not other.init and other.terminated is None for other in self.others)
        )

    @property
    def failed_init(self) -> ContainerView | None:
        """The init container that ended with an error; the engine's container never runs then."""
        for other in self.others:
            if other.init and not other.sidecar and other.terminated is not None and other.terminated.exit_code != 0:
                return other
        return None

    @property
    def pending_init(self) -> ContainerView | None:
        """The first init container that has not ended, or the first sidecar that does not run yet."""
        for other in self.others if self.started is None else ():
            if other.init and (other.running_since is None if other.sidecar else other.terminated is None):
                return other
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineView:
    """An EngineConn. `spec` is None where it cannot be read; then `invalid` says why."""

    namespace: str
    name: str
    uid: str
    version: int
    generation: int
    created: datetime
    deleting: bool
    spec: EngineConnSpec | None
    invalid: str
    status: Mapping[str, Any]
    # A gateway gave it to an asker (engine/matching.py).
    claim: Claim | None = None
    # The installation that is to accept it, by its annotation; "" for any.
    wanted_owner: str = ""

    @property
    def owner(self) -> str:
        """The installation that has accepted it; "" for none."""
        return self.text("ecmInstance")

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    @property
    def state(self) -> EngineState | None:
        """The state in the status; None for none or for a word that is no state."""
        try:
            return EngineState(self.text("engineState"))
        except ValueError:
            return None

    @property
    def stop_requested(self) -> bool:
        """Whether a user requested the engine's stop or deletion. Then no attempt follows."""
        return self.deleting or (self.spec is not None and self.spec.desired_state == "Stopped")

    def text(self, name: str) -> str:
        """A field of the status if it is a text, else an empty one."""
        value = self.status.get(name)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class PluginView:
    """An entry of the catalogue."""

    name: str
    version: int
    spec: EngineConnPluginSpec

    @property
    def engine_type(self) -> str:
        return self.spec.engine_type

    @property
    def engine_version(self) -> str:
        return self.spec.engine_version

    @property
    def default(self) -> bool:
        return self.spec.default


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The agent's last report (docs/design/interfaces.md). `changed` is when this operator saw the state change."""

    attempt: int
    sequence: int
    state: EngineState
    changed: datetime
    reason: str = ""
    message: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    last_task_ended: float = 0.0
    # What prevents the culling of an idle engine, in words; and when that last ended.
    active: str = ""
    last_activity: float = 0.0
    # What the engine's code does without a task, in words, empty where nothing is seen; and when it was last seen.
    background: str = ""
    last_background: float = 0.0
    # The running task: id, when it began, the beginning of its code.
    task: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    # Which enrolment the agent reported with.
    agent_key: AgentKeyRef | None = None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sentence(error: ValidationError) -> str:
    parts = []
    for problem in error.errors(include_url=False, include_input=False)[:3]:
        place = ".".join(["spec", *(str(part) for part in problem["loc"])])
        parts.append(f"{place}: {problem['msg']}")
    return "; ".join(parts)


def engine_view(body: Mapping[str, Any], *, epoch: datetime) -> EngineView:
    """An EngineConn of the API; `epoch` stands in for a creation time that cannot be read."""
    meta = _mapping(body.get("metadata"))
    spec, invalid = None, ""
    try:
        spec = EngineConnSpec.model_validate(body.get("spec") or {}, context=STORED)
    except ValidationError as error:
        invalid = _sentence(error)
    return EngineView(
        namespace=str(meta.get("namespace", "")),
        name=str(meta.get("name", "")),
        uid=str(meta.get("uid", "")),
        version=int(meta.get("resourceVersion") or 0),
        generation=int(meta.get("generation") or 0),
        created=parse_time(meta.get("creationTimestamp")) or epoch,
        deleting=bool(meta.get("deletionTimestamp")),
        spec=spec,
        invalid=invalid,
        status=_mapping(body.get("status")),
        claim=parse_claim(_mapping(meta.get("annotations")).get(CLAIM_ANNOTATION)),
        wanted_owner=str(_mapping(meta.get("annotations")).get(INSTANCE) or "")[:OWNER_MAX],
    )


def plugin_view(body: Mapping[str, Any]) -> PluginView | None:
    """An EngineConnPlugin of the API, or None for one that cannot be read: it is not offered."""
    meta = _mapping(body.get("metadata"))
    try:
        spec = EngineConnPluginSpec.model_validate(body.get("spec") or {}, context=STORED)
    except ValidationError:
        return None
    return PluginView(str(meta.get("name", "")), int(meta.get("resourceVersion") or 0), spec)


def pod_view(body: Mapping[str, Any]) -> PodView:
    """A pod of the API."""
    meta, spec, status = (_mapping(body.get(part)) for part in ("metadata", "spec", "status"))
    owner: Mapping[str, Any] = next((o for o in meta.get("ownerReferences") or [] if o.get("kind") == "EngineConn"), {})
    conditions = {c.get("type"): c for c in status.get("conditions") or []}
    scheduled = _mapping(conditions.get("PodScheduled"))
    disruption = _mapping(conditions.get("DisruptionTarget"))
    ready = _mapping(conditions.get("Ready"))
    is_ready = ready.get("status") == "True"
    container: Mapping[str, Any] = next(
        (c for c in status.get("containerStatuses") or [] if c.get("name") == ENGINE_CONTAINER), {}
    )
    now = _mapping(container.get("state"))
    waiting, running = _mapping(now.get("waiting")), _mapping(now.get("running"))
    ended = now.get("terminated")
    grace_ends_at = parse_time(meta.get("deletionTimestamp"))
    grace = timedelta(seconds=min(max(0, int(meta.get("deletionGracePeriodSeconds") or 0)), GRACE_MAX))
    first: Mapping[str, Any] = next((c for c in spec.get("containers") or [] if c.get("name") == ENGINE_CONTAINER), {})
    gates = tuple(str(_mapping(gate).get("name") or "") for gate in spec.get("schedulingGates") or [])
    return PodView(
        namespace=str(meta.get("namespace", "")),
        name=str(meta.get("name", "")),
        uid=str(meta.get("uid", "")),
        version=int(meta.get("resourceVersion") or 0),
        owner_uid=str(owner.get("uid", "")),
        owner_name=str(owner.get("name", "")),
        phase=str(status.get("phase") or "Pending"),
        reason=str(status.get("reason") or ""),
        message=str(status.get("message") or ""),
        ip=str(status.get("podIP") or ""),
        node=str(spec.get("nodeName") or ""),
        deleting=bool(meta.get("deletionTimestamp")),
        deleted_at=grace_ends_at - grace if grace_ends_at is not None else None,
        grace_ends_at=grace_ends_at,
        created=parse_time(meta.get("creationTimestamp")),
        scheduled=parse_time(scheduled.get("lastTransitionTime")) if scheduled.get("status") == "True" else None,
        unschedulable=str(scheduled.get("message") or "") if scheduled.get("status") == "False" else "",
        gates=gates if scheduled.get("status") != "True" else (),
        disruption=str(disruption.get("reason") or "") if disruption.get("status") == "True" else "",
        disruption_message=str(disruption.get("message") or "") if disruption.get("status") == "True" else "",
        waiting_reason=str(waiting.get("reason") or ""),
        waiting_message=str(waiting.get("message") or ""),
        started=parse_time(running.get("startedAt") or _mapping(ended).get("startedAt")),
        ready=is_ready,
        ready_since=parse_time(ready.get("lastTransitionTime")) if is_ready else None,
        terminated=_terminated(ended) if isinstance(ended, Mapping) else None,
        others=_other_containers(spec, status),
        launch=_launch(meta),
        cpu_request=str(_mapping(_mapping(first.get("resources")).get("requests")).get("cpu") or ""),
        cpu_limit=str(_mapping(_mapping(first.get("resources")).get("limits")).get("cpu") or ""),
        made_from=_made_from(meta),
        undisrupted=UNDISRUPTED.items() <= _mapping(meta.get("annotations")).items(),
        ticket=str((meta.get("annotations") or {}).get(TICKET_ANNOTATION) or ""),
        memory_limit=str(_mapping(_mapping(first.get("resources")).get("limits")).get("memory") or ""),
        instance=str(_mapping(meta.get("labels")).get(INSTANCE) or ""),
        extended=_extended(_mapping(_mapping(first.get("resources")).get("limits"))),
    )


def _extended(limits: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    numbers = ((str(name), str(number)) for name, number in limits.items() if "/" in str(name))
    return tuple(sorted((name, int(number)) for name, number in numbers if number.isdecimal()))


def _other_containers(spec: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[ContainerView, ...]:
    sidecars = {
        str(c.get("name")) for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"
    }  # fmt: skip
    found = []
    for field_name in ("initContainerStatuses", "containerStatuses"):
        for item in status.get(field_name) or []:
            name, now = str(item.get("name") or ""), _mapping(item.get("state"))
            if name == ENGINE_CONTAINER:
                continue
            waiting, ended = _mapping(now.get("waiting")), now.get("terminated")
            found.append(
                ContainerView(
                    name=name, init=field_name == "initContainerStatuses", sidecar=name in sidecars,
                    waiting_reason=str(waiting.get("reason") or ""), waiting_message=str(waiting.get("message") or ""),
                    running_since=parse_time(_mapping(now.get("running")).get("startedAt")),
                    terminated=_terminated(ended) if isinstance(ended, Mapping) else None,
                )
            )  # fmt: skip
    return tuple(found[:CONTAINERS_MAX])


def _launch(meta: Mapping[str, Any]) -> Launch | None:
    text = _mapping(meta.get("annotations")).get(LAUNCH_ANNOTATION)
    try:
        return Launch.model_validate_json(text) if isinstance(text, str) else None
    except ValidationError:
        return None


def _made_from(meta: Mapping[str, Any]) -> Mapping[str, str]:
    text = _mapping(meta.get("annotations")).get(SPEC_ANNOTATION)
    try:
        found = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}
    return {str(name): str(value) for name, value in _mapping(found).items()}


def _terminated(body: Mapping[str, Any]) -> Terminated:
    return Terminated(
        reason=str(body.get("reason") or ""),
        exit_code=int(body.get("exitCode") or 0),
        signal=int(body.get("signal") or 0),
        message=str(body.get("message") or ""),
        finished=parse_time(body.get("finishedAt")),
    )

"""What a decision may look at of a pod: a small frozen view of the API's object. Must not judge it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from linkis_ecm.engine import resizing
from linkis_ecm.engine.names import (
    CLAIMED_ANNOTATION,
    INSTANCE,
    MEMBER_SIZE_ANNOTATION,
    POOL_LABEL,
    READY_ANNOTATION,
    TEMPLATE_ANNOTATION,
    TICKET_ANNOTATION,
    UNDISRUPTED,
)
from linkis_ecm.engine.placing import Placing, beside, placing
from linkis_ecm.engine.times import parse_time
from linkis_ecm.engine.view import OWNER_MAX, mapping
from linkis_ecm.model.agent_key import AgentKeyRef
from linkis_ecm.model.engineconn import Launch

# On a pod: JSON of the launch that it was created with.
LAUNCH_ANNOTATION = "linkis.apache.org/launch"
# On a pod: JSON of digests of the spec that it was made from (engine/pending.py).
SPEC_ANNOTATION = "linkis.apache.org/spec"
ENGINE_CONTAINER = resizing.ENGINE_CONTAINER
# Of a pod's other containers.
CONTAINERS_MAX = 32
# Seconds, a year. Whoever deletes a pod may ask for any number as its grace.
GRACE_MAX = 365 * 86400
# Characters of an annotation: the operator's own are shorter. Anybody may write one of 256 KiB, and views are kept.
NOTE_MAX = 1024
# Of what a member's agent said, names of a kernel's features among it.
READY_MAX = 4096
# Finalizers of a pod, and characters of each: whoever may change pods chooses both.
FINALIZERS_MAX, FINALIZER_MAX = 4, 128


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


@dataclass(frozen=True, slots=True)
class Member:
    """What makes a pod the member of a warm pool (docs/design/warm.md).

    `pool` is the plugin's name, `template` the digest of what the pod was made of. `ready` and `takes` are empty until
    its agent was ready: its enrolment, and what its kernel takes with a claim ("env", "workingDir").
    """

    pool: str
    template: str
    ready: AgentKeyRef | None = None
    takes: frozenset[str] = frozenset()


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
    # The first ones that keep it from going when it has ended.
    finalizers: tuple[str, ...] = ()
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
    # Of a pod that belongs to nobody yet.
    member: Member | None = None
    # For which attempt its engine took it from a pool; None: it was made for its engine.
    claimed: int | None = None
    # Of such a pod, the enrolment of its agent from before: its key is the pool's until the agent has the claim.
    member_key: AgentKeyRef | None = None
    # Of a pod of a pool, also after its claim: the digest of its template, and the seal of `engine.warm.seals`.
    template: str = ""
    seal: str = ""
    member_size: str = ""
    # Why the kubelet does not resize it, in its words; "" where it does, or where nobody asked.
    resize_pending: str = ""
    # Its kubelet has not given it yet what its spec asks for.
    resizing: bool = False
    # Its kubelet is at it, and since when, where it says that.
    in_progress: bool = False
    in_progress_since: datetime | None = None
    # What its container has while that is so, cpu's request and memory's limit; "" where it has what the spec asks for.
    actual_cpu: str = ""
    actual_memory: str = ""
    # Kubernetes's own class of quality of service; it never changes.
    qos: str = ""
    # The image in the spec, which anybody with the right to patch pods may change.
    image: str = ""
    # How often the engine's container was started anew, and whether somebody has put a container in for debugging.
    restarts: int = 0
    ephemeral: bool = False
    cpu_request: str = ""
    cpu_limit: str = ""
    memory_request: str = ""
    memory_limit: str = ""
    # What its other containers take together; empty where there are none.
    beside: Mapping[str, Decimal] = field(default_factory=dict)
    # Which nodes it may use, while it has none.
    placing: Placing | None = None
    # Whether its class follows from the engine's container (`engine.resizing`).
    decides_class: bool = True
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

    def refuses(self, wanted: Mapping[str, Any]) -> str:
        """Why the API server will never resize the engine's container to `wanted`; "" where nothing is known."""
        amounts = {
            "requests": {"cpu": self.cpu_request, "memory": self.memory_request},
            "limits": {"cpu": self.cpu_limit, "memory": self.memory_limit},
        }
        return resizing.never(
            amounts, wanted, guaranteed=self.qos == "Guaranteed", decides=self.decides_class and self.qos != ""
        )

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


def pod_view(body: Mapping[str, Any]) -> PodView:
    """A pod of the API."""
    meta, spec, status = (mapping(body.get(part)) for part in ("metadata", "spec", "status"))
    owner: Mapping[str, Any] = next((o for o in meta.get("ownerReferences") or [] if _is_engine(o)), {})
    conditions = {c.get("type"): c for c in status.get("conditions") or []}
    scheduled = mapping(conditions.get("PodScheduled"))
    disruption = mapping(conditions.get("DisruptionTarget"))
    ready = mapping(conditions.get("Ready"))
    is_ready = ready.get("status") == "True"
    container: Mapping[str, Any] = next(
        (c for c in status.get("containerStatuses") or [] if c.get("name") == ENGINE_CONTAINER), {}
    )
    now = mapping(container.get("state"))
    waiting, running = mapping(now.get("waiting")), mapping(now.get("running"))
    ended = now.get("terminated")
    grace_ends_at = parse_time(meta.get("deletionTimestamp"))
    grace = timedelta(seconds=min(max(0, int(meta.get("deletionGracePeriodSeconds") or 0)), GRACE_MAX))
    first: Mapping[str, Any] = next((c for c in spec.get("containers") or [] if c.get("name") == ENGINE_CONTAINER), {})
    gates = tuple(str(mapping(gate).get("name") or "") for gate in spec.get("schedulingGates") or [])
    resizing_now = resizing.is_under_way(first, container, conditions)
    actual = container.get("resources") if resizing_now else None
    at_it = resizing.in_progress(first, container, conditions)
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
        finalizers=_finalizers(meta),
        created=parse_time(meta.get("creationTimestamp")),
        scheduled=parse_time(scheduled.get("lastTransitionTime")) if scheduled.get("status") == "True" else None,
        unschedulable=str(scheduled.get("message") or "") if scheduled.get("status") == "False" else "",
        gates=gates if scheduled.get("status") != "True" else (),
        disruption=str(disruption.get("reason") or "") if disruption.get("status") == "True" else "",
        disruption_message=str(disruption.get("message") or "") if disruption.get("status") == "True" else "",
        waiting_reason=str(waiting.get("reason") or ""),
        waiting_message=str(waiting.get("message") or ""),
        started=parse_time(running.get("startedAt") or mapping(ended).get("startedAt")),
        ready=is_ready,
        ready_since=parse_time(ready.get("lastTransitionTime")) if is_ready else None,
        terminated=_terminated(ended) if isinstance(ended, Mapping) else None,
        others=_other_containers(spec, status),
        launch=_launch(meta),
        cpu_request=resizing.amount(first.get("resources"), "requests", "cpu"),
        cpu_limit=resizing.amount(first.get("resources"), "limits", "cpu"),
        made_from=_made_from(meta),
        undisrupted=UNDISRUPTED.items() <= mapping(meta.get("annotations")).items(),
        ticket=_note(meta, TICKET_ANNOTATION),
        memory_request=resizing.amount(first.get("resources"), "requests", "memory"),
        memory_limit=resizing.amount(first.get("resources"), "limits", "memory"),
        beside=beside(spec),
        placing=None if spec.get("nodeName") else placing(spec),
        decides_class=resizing.decides_class(spec),
        instance=str(mapping(meta.get("labels")).get(INSTANCE) or ""),
        extended=_extended(mapping(mapping(first.get("resources")).get("limits"))),
        member=_member(meta, owned=bool(owner)),
        claimed=(claimed := _claimed(meta) if owner else None),
        template=_note(meta, TEMPLATE_ANNOTATION),
        seal=seal if isinstance(seal := _ready(meta).get("seal"), str) else "",
        member_key=_enrolment(meta) if claimed is not None else None,
        member_size=_note(meta, MEMBER_SIZE_ANNOTATION)[:OWNER_MAX],
        resize_pending=resizing.pending(conditions),
        resizing=resizing_now,
        in_progress=at_it is not None,
        in_progress_since=parse_time(at_it),
        actual_cpu=resizing.amount(actual, "requests", "cpu"),
        actual_memory=resizing.amount(actual, "limits", "memory"),
        qos=str(status.get("qosClass") or ""),
        # One that is longer than any plugin's is none of them.
        image=str(first.get("image") or "")[:NOTE_MAX],
        restarts=int(container.get("restartCount") or 0),
        ephemeral=bool(spec.get("ephemeralContainers")),
    )


def _is_engine(owner: Mapping[str, Any]) -> bool:
    """Whether it can be one: the API server has no bound for an owner's name and uid."""
    texts = (str(owner.get("name", "")), str(owner.get("uid", "")))
    return owner.get("kind") == "EngineConn" and all(len(text) <= OWNER_MAX for text in texts)


def _member(meta: Mapping[str, Any], *, owned: bool) -> Member | None:
    """None for an engine's pod, whatever its labels say."""
    pool = mapping(meta.get("labels")).get(POOL_LABEL)
    if owned or not isinstance(pool, str) or not pool:
        return None
    takes = _ready(meta).get("takes")
    known = frozenset(one for one in takes if isinstance(one, str)) if isinstance(takes, list) else frozenset()
    return Member(pool, _note(meta, TEMPLATE_ANNOTATION), _enrolment(meta), known)


def _enrolment(meta: Mapping[str, Any]) -> AgentKeyRef | None:
    """The enrolment of a member's agent, in this very pod: the annotation can be a copy of another's, with any uid."""
    return AgentKeyRef.read({**_ready(meta), "podUid": meta.get("uid")})


def _ready(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the agent of a pool's pod said when it was ready, as the operator wrote it; empty where it is not ready."""
    try:
        return mapping(json.loads(_note(meta, READY_ANNOTATION, READY_MAX) or "{}"))
    except (ValueError, RecursionError):
        return {}


def _note(meta: Mapping[str, Any], name: str, most: int = NOTE_MAX) -> str:
    """One of our annotations; "" where there is none, or what is there is none of ours."""
    text = mapping(meta.get("annotations")).get(name)
    return text if isinstance(text, str) and len(text) <= most else ""


def _claimed(meta: Mapping[str, Any]) -> int | None:
    text = _note(meta, CLAIMED_ANNOTATION)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else None


def _finalizers(meta: Mapping[str, Any]) -> tuple[str, ...]:
    found = meta.get("finalizers")
    return tuple(str(one)[:FINALIZER_MAX] for one in found[:FINALIZERS_MAX]) if isinstance(found, list) else ()


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
            name, now = str(item.get("name") or ""), mapping(item.get("state"))
            if name == ENGINE_CONTAINER:
                continue
            waiting, ended = mapping(now.get("waiting")), now.get("terminated")
            found.append(
                ContainerView(
                    name=name, init=field_name == "initContainerStatuses", sidecar=name in sidecars,
                    waiting_reason=str(waiting.get("reason") or ""), waiting_message=str(waiting.get("message") or ""),
                    running_since=parse_time(mapping(now.get("running")).get("startedAt")),
                    terminated=_terminated(ended) if isinstance(ended, Mapping) else None,
                )
            )  # fmt: skip
    return tuple(found[:CONTAINERS_MAX])


def _launch(meta: Mapping[str, Any]) -> Launch | None:
    text = _note(meta, LAUNCH_ANNOTATION)
    return _launch_of(text) if text else None


def _made_from(meta: Mapping[str, Any]) -> Mapping[str, str]:
    text = _note(meta, SPEC_ANNOTATION)
    return _made_from_of(text) if text else {}


# Most pods of an installation say one of a few things, and each of a pod's events repeats it. The views share them.
@lru_cache(maxsize=1024)
def _launch_of(text: str) -> Launch | None:
    try:
        return Launch.model_validate_json(text)
    except ValidationError:
        return None


@lru_cache(maxsize=1024)
def _made_from_of(text: str) -> Mapping[str, str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {str(name): str(value) for name, value in mapping(found).items()}


def _terminated(body: Mapping[str, Any]) -> Terminated:
    return Terminated(
        reason=str(body.get("reason") or ""),
        exit_code=int(body.get("exitCode") or 0),
        signal=int(body.get("signal") or 0),
        message=str(body.get("message") or ""),
        finished=parse_time(body.get("finishedAt")),
    )

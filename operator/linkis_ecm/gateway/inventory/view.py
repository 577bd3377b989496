"""An engine as the gateway knows it: one small flat dataclass, made from its EngineConn or from its database record.

Parsing ignores what it does not know, so that an object of a newer version does not break an older gateway. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from linkis_ecm.engine.matching import CLAIM_ANNOTATION, Claim, parse_claim
from linkis_ecm.engine.status.conditions import not_resized
from linkis_ecm.engine.times import since_accepted
from linkis_ecm.model import formats, reasons
from linkis_ecm.model.agent_key import AgentKeyRef
from linkis_ecm.model.states import AVAILABLE, FINAL, RECORD_FINAL, EngineState
from linkis_ecm.model.users import linkis_user

Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownEngine:
    """One engine. Times are RFC 3339 texts in UTC. `log_dir_suffix` is empty until the operator has written it.

    While the resource exists (`in_cluster`), all fields come from it. Afterwards they come from the database's record,
    which has no address, pod, start phases or sizes.
    """

    # False: the resource does not exist any more; only the record is known.
    in_cluster: bool
    namespace: str
    name: str
    uid: str
    created: str
    ticket_id: str
    engine_type: str
    engine_version: str
    user: str
    creator: str
    # The EngineConnPlugin that the spec names; empty if the spec gives a type instead.
    plugin: str = ""
    # The version of the object that this view was made from: the precondition of a write.
    resource_version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    # The caller that has claimed the engine, from its annotation.
    claim: Claim | None = None
    # The state in Linkis's words. A record may have another word, or none.
    status: str
    # Linkis's combined label: user-creator,engineType-version.
    label_value: str
    since: str | None = None
    reason: str = ""
    message: str = ""
    stop_requested: bool = False
    deleting: bool = False
    service_instance: str = ""
    address: str = ""
    # The kind of program in the pod: agent or process (docs/design/lifecycle.md).
    launch: str = "agent"
    attempt: int = 0
    agent_key: AgentKeyRef | None = None
    ecm_instance: str = ""
    log_dir_suffix: str = ""
    pod_name: str | None = None
    node_name: str | None = None
    startup: Mapping[str, str] = field(default_factory=dict)
    ready_time: str | None = None
    finished_time: str | None = None
    next_cull_at: str | None = None
    cull_blocked_by: str | None = None
    # The requested size; 0 means the plugin's default.
    cpu_milli: int = 0
    memory_bytes: int = 0
    # Extended resources by name, sorted; 0 stands against a default of the plugin.
    extended: tuple[tuple[str, int], ...] = ()
    # What its pod has, where the spec was changed after it was made; else 0.
    pod_cpu_milli: int = 0
    pod_memory_bytes: int = 0
    pod_extended: tuple[tuple[str, int], ...] = ()
    # It took its pod from a warm pool, and has not got the size that it asks for.
    is_unsized: bool = False
    # Whether the status is of the spec as it is now.
    is_observed: bool = True
    tenant: str = ""
    # Its plugin's word for who may get it by askEngineConn: "connection" for nobody; empty while that is not known.
    share: str = ""
    # Of an engine that is made to be lent: the level and group of its spec; empty for one that is its user's alone.
    lent_level: str = ""
    lent_group: str = ""
    # Whether the operator lets it be lent, and if not, why.
    is_lent: bool = False
    # Who has borrowed it, in the call of a borrower; "" in others' calls. Not the cluster's word: `Call` writes it.
    borrower: str = ""
    not_lent_because: str = ""

    @property
    def key(self) -> Key:
        return self.namespace, self.name

    @property
    def version(self) -> int:
        """The resourceVersion as a number, to compare the age of two views; 0 if it is not a number."""
        return int(self.resource_version) if self.resource_version.isdecimal() else 0

    @property
    def title(self) -> str:
        """The engine's name in sentences."""
        return f"engine {self.namespace}/{self.name}" if self.in_cluster else f"engine {self.ticket_id}"

    @property
    def state(self) -> EngineState:
        """`status` as a state; Starting if it is not a known state."""
        return _STATES.get(self.status, EngineState.STARTING)

    @property
    def has_agent(self) -> bool:
        """What runs in its pod is an agent: it takes code, serves its logs and has the engine's key."""
        return self.launch == "agent"

    @property
    def usable(self) -> bool:
        """Whether the engine is ready and does not end."""
        if self.reason == reasons.KEY_MISMATCH.name:
            return False
        return self.state in AVAILABLE and (bool(self.address) or not self.has_agent) and not self.is_ending

    @property
    def takes_code(self) -> bool:
        """Whether the engine is ready and its agent takes code."""
        return self.usable and self.has_agent

    @property
    def is_refused(self) -> bool:
        """Whether the operator has refused the spec, of which the ticket is a part."""
        return self.state is EngineState.FAILED and self.reason == reasons.INVALID_SPEC.name

    @property
    def is_ticket_unproven(self) -> bool:
        """Whether the ticket is only what the author of the resource wrote: the operator has refused the engine, or has
        not looked at it yet. The ticket may then be another engine's."""
        return self.in_cluster and (
            self.is_refused or (self.state is EngineState.STARTING and not self.startup.get("accepted"))
        )

    @property
    def shown_ticket(self) -> str:
        """The ticket as callers are told it; "" while its author alone says so: it may be another engine's."""
        return "" if self.is_ticket_unproven else self.ticket_id

    @property
    def engine_id(self) -> str:
        """The id by which a caller names this engine and no other: its ticket, else its namespace and name."""
        return self.shown_ticket or f"{self.namespace}/{self.name}"

    @property
    def shown_instance(self) -> str:
        """The service instance as callers are told it: the ticket stands for it while there is none."""
        return self.engine_id if self.service_instance == self.ticket_id else self.service_instance

    @property
    def is_ending(self) -> bool:
        """Whether a stop is requested or in progress."""
        return self.stop_requested or self.deleting or self.state is EngineState.SHUTTING_DOWN

    @property
    def is_final(self) -> bool:
        """Whether the engine has ended. A record can say so by its release time alone: an engine that was killed on
        request keeps the status ShuttingDown there."""
        if self.in_cluster:
            return self.state in FINAL
        return bool(self.finished_time) or self.status in RECORD_FINAL


_STATES: dict[str, EngineState] = {str(state): state for state in EngineState}


def view_of(item: Mapping[str, Any]) -> KnownEngine:
    """The view of an EngineConn as the API sent it."""
    metadata = item.get("metadata") or {}
    spec = item.get("spec") or {}
    status = item.get("status") or {}
    own = spec.get("resources") or {}
    # What the engine was given at its start stays with it, also where its plugin is gone.
    default = (status.get("fromPlugin") or {}).get("defaultResources") or {}
    of_pod = status.get("resources") or {}
    uid = str(metadata.get("uid") or "")
    ticket_id = str(spec.get("ticketId") or uid)
    user, creator = linkis_user(str(spec.get("user") or "")), str(spec.get("creator") or "")
    engine_type = str(status.get("engineType") or spec.get("engineType") or "")
    engine_version = str(status.get("engineVersion") or spec.get("engineVersion") or "")
    return KnownEngine(
        in_cluster=True,
        namespace=str(metadata.get("namespace") or ""),
        name=str(metadata.get("name") or ""),
        uid=uid,
        created=str(metadata.get("creationTimestamp") or ""),
        ticket_id=ticket_id,
        plugin=str(spec.get("plugin") or ""),
        resource_version=str(metadata.get("resourceVersion") or ""),
        labels={str(name): str(value) for name, value in (metadata.get("labels") or {}).items()},
        claim=parse_claim((metadata.get("annotations") or {}).get(CLAIM_ANNOTATION)),
        engine_type=engine_type,
        engine_version=engine_version,
        user=user,
        creator=creator,
        status=str(_state(status.get("engineState"))),
        label_value=formats.label_value(user, creator, engine_type, engine_version),
        since=status.get("stateSince"),
        reason=str(status.get("reason") or ""),
        message=str(status.get("message") or ""),
        stop_requested=spec.get("desiredState") == "Stopped",
        deleting=bool(metadata.get("deletionTimestamp")),
        service_instance=str(status.get("serviceInstance") or ticket_id),
        address=str(status.get("address") or ""),
        launch=_launch(status.get("launch")),
        attempt=int(status.get("attempt") or 0),
        agent_key=AgentKeyRef.read(status.get("agentKey")),
        ecm_instance=str(status.get("ecmInstance") or ""),
        log_dir_suffix=str(status.get("logDirSuffix") or ""),
        pod_name=status.get("podName"),
        node_name=status.get("nodeName"),
        startup={phase: str(at) for phase, at in (status.get("startup") or {}).items() if at},
        ready_time=status.get("readyTime"),
        finished_time=status.get("finishedTime"),
        next_cull_at=status.get("nextCullAt"),
        cull_blocked_by=status.get("cullBlockedBy"),
        cpu_milli=milli(own.get("cpu") or default.get("cpu")),
        memory_bytes=whole_bytes(own.get("memory") or default.get("memory")),
        extended=extended(default.get("extended"), own.get("extended")),
        pod_cpu_milli=milli(of_pod.get("cpu")),
        pod_memory_bytes=whole_bytes(of_pod.get("memory")),
        pod_extended=extended(None, of_pod.get("extended")),
        is_unsized=not_resized(status.get("conditions")),
        is_observed=int(status.get("observedGeneration") or 0) >= int(metadata.get("generation") or 0),
        tenant=str(spec.get("tenant") or ""),
        **_lending(spec.get("share"), status.get("share")),
    )


def _lending(asked: Any, decided: Any) -> dict[str, Any]:
    """The fields about lending; what cannot be read is lent to nobody."""
    if not isinstance(asked, Mapping):
        return {}
    found = decided if isinstance(decided, Mapping) else {}
    return {
        # Whatever it says, it is not its user's alone.
        "lent_level": str(asked.get("level") or "unknown"),
        "lent_group": str(asked.get("group") or ""),
        "is_lent": found.get("shared") is True,
        "not_lent_because": str(found.get("message") or ""),
    }


def engine_of_record(
    *,
    ticket_id: str,
    label_value: str,
    user: str,
    service_instance: str,
    ecm_instance: str,
    status: str,
    log_dir_suffix: str,
    create_time: datetime | None,
    used_time: datetime | None,
    release_time: datetime | None,
    reason: str = "",
    message: str = "",
    namespace: str = "",
    name: str = "",
    uid: str = "",
) -> KnownEngine:
    """The engine of one row of linkis_cg_ec_resource_info_record; the store's times are naive UTC."""
    # Linkis's combined label: user-creator,engineType-version; neither part has a "-" of its own.
    user_creator, _, type_version = label_value.partition(",")
    engine_type, _, engine_version = type_version.partition("-")
    return KnownEngine(
        in_cluster=False,
        namespace=namespace,
        name=name,
        uid=uid,
        created=_time(create_time) or "",
        ticket_id=ticket_id,
        engine_type=engine_type,
        engine_version=engine_version,
        user=user,
        creator=user_creator.partition("-")[2],
        status=status,
        label_value=label_value,
        reason=reason,
        message=message,
        service_instance=service_instance,
        ecm_instance=ecm_instance,
        log_dir_suffix=log_dir_suffix,
        ready_time=_time(used_time),
        finished_time=_time(release_time),
    )


def _time(at: datetime | None) -> str | None:
    """RFC 3339 in UTC."""
    if at is None:
        return None
    aware = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return aware.isoformat().replace("+00:00", "Z")


def milli(text: Any) -> int:
    """A quantity of cpu in thousandths of one; 0 for none and for what is no quantity."""
    return int(_quantity(text) * 1000)


def whole_bytes(text: Any) -> int:
    """A quantity of memory in bytes; 0 for none and for what is no quantity."""
    return int(_quantity(text))


def extended(*amounts: Any) -> tuple[tuple[str, int], ...]:
    """Extended resources by name, sorted; of several the last one counts. What is no whole number is left out."""
    found: dict[str, int] = {}
    for one in amounts:
        if isinstance(one, Mapping):
            found |= {str(name): number for name, number in one.items() if type(number) is int}
    return tuple(sorted(found.items()))


def _quantity(text: Any) -> Decimal:
    try:
        return formats.parse_quantity(str(text)) if text else Decimal(0)
    except ValueError:
        return Decimal(0)


def _launch(description: Any) -> str:
    """The kind in status.launch; without one it is an agent. What cannot be read is none: it must not get a key."""
    if description is None:
        return "agent"
    return str(description.get("kind") or "agent") if isinstance(description, Mapping) else "unknown"


def _state(text: Any) -> EngineState:
    try:
        return EngineState(text)
    except ValueError:
        return EngineState.STARTING


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginView:
    """One entry of the catalogue."""

    name: str
    engine_type: str
    engine_version: str
    run_types: tuple[str, ...]
    default: bool = False
    share: str = "user"
    # Of share group and server; see the fields of EngineConnPlugin.
    share_as: str = ""
    share_groups: tuple[str, ...] = ()
    share_locks: int = 2
    share_kernel: bool = False
    cpu_milli: int = 0
    memory_bytes: int = 0
    extended: tuple[tuple[str, int], ...] = ()


def plugin_of(item: Mapping[str, Any]) -> PluginView:
    """The view of an EngineConnPlugin as the API sent it."""
    spec = item.get("spec") or {}
    return PluginView(
        name=str((item.get("metadata") or {}).get("name") or ""),
        engine_type=str(spec.get("engineType") or ""),
        engine_version=str(spec.get("engineVersion") or ""),
        run_types=tuple(map(str, spec.get("runTypes") or ())),
        default=bool(spec.get("default")),
        share=str(spec.get("share") or "user"),
        share_as=linkis_user(str(spec.get("shareAs") or "")) if spec.get("shareAs") else "",
        share_groups=tuple(map(str, spec.get("shareGroups") or ())),
        share_locks=_locks(spec.get("shareLocks")),
        share_kernel=spec.get("shareKernel") is True,
        cpu_milli=milli((spec.get("defaultResources") or {}).get("cpu")),
        memory_bytes=whole_bytes((spec.get("defaultResources") or {}).get("memory")),
        extended=extended((spec.get("defaultResources") or {}).get("extended")),
    )


def _locks(written: Any) -> int:
    return written if type(written) is int and written > 0 else 2


def startup_millis(startup: Mapping[str, str]) -> dict[str, int]:
    """Milliseconds from `accepted` to each phase of the start."""
    return {phase: round(took.total_seconds() * 1000) for phase, took in since_accepted(startup).items()}

"""Requests and answers about engines: made, told of, listed, ended. Must not have behaviour."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from linkis_ecm.api.models.base import (
    CREATE_SECONDS,
    CREATE_SECONDS_MAX,
    MAX_PAGE_SIZE,
    EngineId,
    EnvValue,
    LabelName,
    LabelValue,
    Request,
    Response,
    RunType,
)
from linkis_ecm.model.amounts import CpuAmount, Duration, MemoryAmount, StartTimeout
from linkis_ecm.model.engineconn import (
    CreatorName,
    EngineTypeName,
    EngineVersion,
    EnvName,
    ObjectName,
    TenantName,
    TicketId,
    UserName,
)
from linkis_ecm.model.extended import Extended


class ResourceRequest(Request):
    """What the engine gets; the catalogue's default where absent."""

    cpu: CpuAmount | None = None
    cpu_limit: CpuAmount | None = None
    memory: MemoryAmount | None = None
    extended: Extended | None = Field(None, description="GPUs and the like, as the catalogue offers them.")


class CreateEngineRequest(Request):
    """createEngineConnection: an engine, made at once or, with a ticketId seen before, the one made then."""

    engine_type: EngineTypeName
    engine_version: EngineVersion | None = None
    user: UserName | None = Field(None, description="The caller where absent; only admins may name another.")
    creator: CreatorName = "IDE"
    tenant: TenantName | None = Field(None, description="Linkis's tenant label.")
    mode: Literal["computation", "once"] = Field("computation", description="A session, or one job that ends.")
    code: str | None = Field(None, max_length=524288, description="The job of a `once` engine.")
    run_type: RunType | None = Field(None, description="The language of `code`.")
    resources: ResourceRequest | None = None
    env: dict[EnvName, EnvValue] | None = Field(None, max_length=64)
    idle_timeout: Duration | None = None
    start_timeout: StartTimeout | None = None
    max_lifetime: Duration | None = None
    ttl_after_finished: Duration | None = None
    name: ObjectName | None = None
    namespace: ObjectName | None = None
    labels: dict[LabelName, LabelValue] | None = Field(None, max_length=16, description="Labels of the EngineConn.")
    wait: bool = Field(
        True, description="Answer when the engine is ready (a `once` engine: its job runs) or has failed, not at once."
    )
    timeout_seconds: int = Field(CREATE_SECONDS, ge=1, le=CREATE_SECONDS_MAX, description="How long to wait.")
    ticket_id: TicketId | None = Field(None, description="Yours, to repeat the call without making a second engine.")


class EngineInfo(Response):
    """An engine as the gateway tells of it; createEngineConnection's and getEngineStatus's answer."""

    engine_id: str = Field(
        description="Names this engine and no other: its ticket, or namespace/name while the ticket is not taken."
    )
    ticket_id: str = Field(
        description="Empty where the operator has not taken it (yet): its author chose it, and it may be another's."
    )
    namespace: str | None
    name: str | None
    engine_type: str
    engine_version: str
    user: str
    creator: str
    label_value: str
    status: str = Field(description="The engine's state, as its resource has it: Idle where it has no task.")
    node_status: str = Field(
        "", description="Linkis's NodeStatus: Unlock where it has no task and no holder, Idle where it has a holder."
    )
    status_since: str | None = None
    available: bool = Field(description="It takes its owner's code, also while it is claimed.")
    claimed: bool = Field(False, description="askEngineConn has given it to a caller, and gives it to nobody else.")
    claimed_by: str | None = Field(None, description="The claim's id: `lock` of askEngineConn's answer.")
    claimed_until: str | None = Field(
        None,
        description="When the claim ends unless a task runs before; null while one runs, and where the command unlock"
        " alone ends it (a process's, and a lock of type Always).",
    )
    lent_level: str | None = Field(
        None, description="group or server: made to be lent to askers, one after another; null: its user's alone."
    )
    lent_group: str | None = Field(None, description="At level group: whose members get it.")
    lent_to: str | None = Field(None, description="Who holds it now, where it is lent.")
    not_lent_because: str | None = Field(None, description="Why the operator lends it to nobody.")
    reason: str = ""
    message: str = ""
    remedy: str = ""
    can_retry: bool = False
    stop_requested: bool = False
    service_instance: str
    ecm_instance: str
    log_dir_suffix: str
    pod_name: str | None = None
    node_name: str | None = None
    attempt: int = 0
    create_time: str | None = None
    ready_time: str | None = None
    finished_time: str | None = None
    next_cull_at: str | None = None
    cull_blocked_by: str | None = None
    startup: dict[str, str] = Field(
        default_factory=dict,
        description="When each phase of the start was reached; `kind` is warm where the pod was taken from the plugin's"
        " warm pool, else cold, and `coldBecause` says why an engine whose plugin has a pool started cold,"
        " `coldReason` in one word (docs/warm-pools.md).",
    )
    startup_millis: dict[str, int] = Field(default_factory=dict, description="The same, counted from `accepted`.")


class EngineRequest(Request):
    """One engine, by one of its ids."""

    engine_id: EngineId


class TerminateAnswer(Response):
    """The engine as it was when the stop was asked for; null where nobody knows it."""

    engine: EngineInfo | None


class ListEnginesRequest(Request):
    """listEngines: newest first. Admins see everybody's, others their own."""

    status: str | None = None
    engine_type: EngineTypeName | None = None
    user: UserName | None = None
    page_now: int = Field(1, ge=1, le=1_000_000)
    page_size: int = Field(100, ge=1, le=MAX_PAGE_SIZE)


class EnginesAnswer(Response):
    """One page; `total` counts all that match."""

    engines: list[EngineInfo]
    total: int
    page_now: int
    page_size: int


class TransitionInfo(Response):
    """A state that an engine entered."""

    state: str
    at: str
    reason: str = ""
    message: str = ""


class TransitionsAnswer(Response):
    """listTransitions: the oldest first."""

    transitions: list[TransitionInfo]
    complete: bool = Field(description="They are the database's; else they are what the resource still tells.")

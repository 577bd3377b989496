"""The status of an EngineConn, as the operator sees it, and the whole resource: models of the CRD's schema.

Only the operator writes a status, and it is parsed leniently. Must not say what a user asks for: that is `engineconn`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.config import JsonDict

from linkis_ecm.model.admission import CheckedSpec
from linkis_ecm.model.amounts import WHOLE, Quantity
from linkis_ecm.model.engineconn import Camel, EngineConnSpec, Launch, Resources, RestartPolicy
from linkis_ecm.model.states import EngineState

ConditionReason = Annotated[str, Field(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", max_length=1024), WHOLE]
LIST_MAP_TYPE: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}


class Condition(Camel):
    """A metav1.Condition."""

    type: str = Field(max_length=316)
    status: Literal["True", "False", "Unknown"]
    reason: ConditionReason
    message: str = Field("", max_length=32768)
    last_transition_time: str = Field(json_schema_extra={"format": "date-time"})
    observed_generation: int | None = Field(None, ge=0)


class ColdReason(StrEnum):
    """Why an engine whose plugin has a warm pool started cold. The value is also a metric's label."""

    # It asks for what a pod that runs cannot be given.
    MISFIT = "Misfit"
    # The pool has none in its namespace, by the plugin.
    NOT_IN_NAMESPACE = "NotInNamespace"
    # No member was ready.
    POOL_EMPTY = "PoolEmpty"
    # Another engine was quicker, or the member was deleted.
    MEMBER_TAKEN = "MemberTaken"
    # Its user has taken more members lately than one user may.
    USER_RATE = "UserRate"
    # A Secret of its variables cannot be read, they are larger than a claim carries, or the member cannot be given them
    # or the working folder.
    ENVIRONMENT = "Environment"
    # The API server refused the claim: rights, or a webhook.
    CLAIM_FORBIDDEN = "ClaimForbidden"
    # The member's agent refused the claim, did not answer, or is not known.
    AGENT_REFUSED = "AgentRefused"
    # The member ended while it was claimed.
    MEMBER_ENDED = "MemberEnded"
    # The member was not as it was made.
    MEMBER_CHANGED = "MemberChanged"
    # No pod can be made for it any more.
    INVALID_SPEC = "InvalidSpec"
    OTHER = "Other"


class Startup(Camel):
    """When each phase of the start was reached (RFC 3339, UTC, microseconds)."""

    kind: Literal["cold", "warm"] | None = Field(
        None, description="cold: the pod was made for the engine. warm: it was taken from the plugin's warm pool."
    )
    cold_because: str | None = Field(
        None, max_length=1024, description="Why an engine whose plugin has a warm pool started cold."
    )
    cold_reason: ColdReason | None = Field(None, description="The same as one word.")
    accepted: str | None = None
    claimed: str | None = Field(None, description="Only of a pod from a warm pool: it became the engine's.")
    admitted: str | None = Field(None, description="Only of a pod that waited for its admission to the scheduler.")
    scheduled: str | None = None
    container_started: str | None = None
    agent_started: str | None = None
    kernel_ready: str | None = None
    ready: str | None = None


class Usage(Camel):
    """The last usage written; live figures are served by the gateway."""

    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    cpu_millicores: int | None = None


class AgentKey(Camel):
    """The enrolment of an agent (docs/design/identity.md)."""

    pod_uid: str = ""
    enrolment: str = Field("", description="The random number that the agent enrolled with.")
    key_id: str = Field("", description="Names the master key of which its key was made.")


class LastEnd(Camel):
    """The end of an attempt that another one follows."""

    attempt: int = Field(0, ge=0)
    reason: str = ""
    message: str = Field("", max_length=32768)
    at: str = ""


class Given(Resources):
    """What an engine has. May be 0: a pod from before amounts of 0 were refused still has its status written."""

    cpu: Quantity | None = None
    cpu_limit: Quantity | None = None
    memory: Quantity | None = None


class SoftPaused(Camel):
    """That nobody uses the engine, and what its pod gets back with its next code. It goes when the pod has that."""

    since: str = ""
    cpu: Quantity | None = Field(None, description="What the pod requests meanwhile.")
    full_cpu: Quantity | None = Field(None, description="What it requests while the engine is used.")
    full_cpu_limit: Quantity | None = Field(None, description="Absent: no limit.")
    spec_cpu: Quantity | None = Field(None, description="What the spec asked for when it began. Absent: the default.")


class FromPlugin(Camel):
    """What the EngineConnPlugin gave the engine when its pod was made; a later change of the plugin changes it not."""

    name: str = ""
    overridable: list[str] | None = Field(None, max_length=8)
    idle_timeout: str | None = None
    max_lifetime: str | None = None
    start_timeout: str | None = None
    stop_grace: str | None = None
    ttl_after_finished: str | None = None
    restart_policy: RestartPolicy | None = None
    default_resources: Given | None = None
    memory_request_percent: int | None = None
    do_not_disrupt: Literal["always", "busy", "never"] | None = None


class Lending(Camel):
    """Whether an engine with spec.share is given to askers: decided when it was accepted; a no stays no."""

    shared: bool
    # Without a default, which the API server would write beside `shared`, and each pass would take away.
    message: str | None = Field(None, max_length=1024, description="Why not.")


class PostMortem(Camel):
    """What was kept of the engine's last pod; the bundle itself is in the archive."""

    files: list[str] | None = Field(None, max_length=16)
    size_bytes: int | None = Field(None, ge=0)
    missing: list[str] | None = Field(None, max_length=16, description="What could not be had, and why.")
    expires: str | None = None


class EngineConnStatus(Camel):
    """What the operator sees. Only the operator writes it."""

    observed_generation: int | None = Field(None, ge=0)
    engine_state: EngineState | None = Field(None, description="Linkis's word for the engine's state.")
    state_since: str | None = Field(None, description="When the engine entered engineState.")
    reason: str | None = Field(None, description="Why it is in this state: one constant of the documented set.")
    message: str | None = Field(None, max_length=32768, description="The same in a sentence, with a remedy.")
    ticket_id: str | None = None
    service_instance: str | None = Field(None, description="host:port; the ticket until there is an address.")
    address: str | None = Field(None, description="IP:port of the engine's agent, or of its process.")
    agent_key: AgentKey | None = Field(
        None, description="Which enrolment of the pod's agent counts; nothing of it is secret."
    )
    launch: Launch | None = Field(None, description="What the engine's pod was made to run; absent: an agent.")
    from_plugin: FromPlugin | None = Field(None, description="What the engine's plugin gave it; it stays so.")
    resources: Given | None = Field(
        None, description="What the engine's pod has, where spec.resources was changed after it was made."
    )
    soft_pause: SoftPaused | None = Field(
        None, description="Of an engine that has given cpu back: its plugin's softPause."
    )
    ecm_instance: str | None = None
    share: Lending | None = Field(None, description="Whether an engine with spec.share is given to askers.")
    admission: CheckedSpec | None = Field(None, description="For what the author's rights were asked.")
    engine_type: str | None = None
    engine_version: str | None = None
    log_dir_suffix: str | None = None
    pod_name: str | None = None
    pod_uid: str | None = Field(None, description="Of the pod that the operator made: another of its name is none.")
    node_name: str | None = None
    attempt: int | None = Field(None, ge=0, description="0 for the first pod.")
    times_ready: int | None = Field(None, ge=0, description="How many of the attempts got ready.")
    last_end: LastEnd | None = Field(None, description="How the attempt before this one ended.")
    next_attempt_at: str | None = Field(None, description="Not before this a pod is made for this attempt.")
    startup: Startup | None = None
    usage: Usage | None = None
    ready_time: str | None = None
    finished_time: str | None = None
    next_cull_at: str | None = None
    cull_blocked_by: str | None = None
    post_mortem: PostMortem | None = None
    conditions: list[Condition] | None = Field(None, max_length=16, json_schema_extra=LIST_MAP_TYPE)


class EngineConn(Camel):
    """The whole resource, as parsed from the API (metadata is read by hand where it is needed)."""

    metadata: dict[str, Any]
    spec: EngineConnSpec
    status: EngineConnStatus = Field(default_factory=EngineConnStatus)

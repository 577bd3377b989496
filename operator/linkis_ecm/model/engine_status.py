"""The status of an EngineConn, as the operator sees it, and the whole resource: models of the CRD's schema.

Only the operator writes a status, and it is parsed leniently. Must not say what a user asks for: that is `engineconn`.
"""

from __future__ import annotations

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


class Startup(Camel):
    """When each phase of the start was reached (RFC 3339, UTC, microseconds)."""

    accepted: str | None = None
    # Only of a pod that waited for its admission to the scheduler.
    admitted: str | None = None
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
    ecm_instance: str | None = None
    admission: CheckedSpec | None = Field(None, description="For what the author's rights were asked.")
    engine_type: str | None = None
    engine_version: str | None = None
    log_dir_suffix: str | None = None
    pod_name: str | None = None
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

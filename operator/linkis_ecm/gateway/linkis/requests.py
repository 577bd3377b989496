"""What Linkis's clients send, as pydantic models. Unknown fields are left alone, as Linkis's Jackson does here.

Authority: linkis-contract.md, 1.3, 1.4 and 5.2. Must not hold behaviour.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, RootModel, StringConstraints
from pydantic.alias_generators import to_camel

Text = Annotated[str, StringConstraints(max_length=256)]
Words = Annotated[str, StringConstraints(max_length=4096)]
MAX_LIST = 500


class LinkisRequest(BaseModel):
    """camelCase on the wire; what is not known is ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class AskEngine(LinkisRequest):
    """EngineAskRequest and EngineCreateRequest: labels engineType and userCreator, the rest by default."""

    # What is not known is kept by name, for `unknown_of_ours`.
    model_config = ConfigDict(extra="allow")

    properties: dict[Text, Words | int | float | bool | None] | None = Field(None, max_length=256)
    labels: dict[Text, Any] = Field(max_length=32)
    time_out: int = Field(0, description="Milliseconds, Linkis's name in askEngineConn.")
    timeout: int = Field(0, description="Milliseconds, Linkis's name in createEngineConn.")
    user: Text | None = None
    create_service: Text | None = None
    description: Words | None = None
    ignore_timeout: bool = False
    explain: bool = Field(False, description="Say of each engine of the user why it fits or not (askEngineConn).")


# What createEngineConnection takes and Linkis's calls do not. Linkis's own fields (those that we ignore, too) are not
# among them.
_OURS = frozenset(
    {
        "engineType", "engineVersion", "creator", "tenant", "mode", "code", "runType", "resources", "env",
        "idleTimeout", "startTimeout", "maxLifetime", "ttlAfterFinished", "namespace", "wait",
        "timeoutSeconds", "workingDir",
    }
)  # fmt: skip


def unknown_of_ours(extra: Iterable[str]) -> list[str]:
    """The fields that mean something in our calls alone, or look like `explain` mistyped, so that they are not passed
    over; sorted. Others may be of another version of Linkis."""
    return sorted(name[:64] for name in extra if name in _OURS or (len(name) < 16 and _is_like_explain(name)))


def _is_like_explain(name: str) -> bool:
    return SequenceMatcher(None, name.lower(), "explain").ratio() > 0.8


class Instance(LinkisRequest):
    """One engine: applicationName, instance (host:port), or its ticketId."""

    application_name: Text | None = None
    instance: Text | None = None
    ticket_id: Text | None = None


class Kill(LinkisRequest):
    """One entry of rm/enginekill."""

    application_name: Text | None = None
    engine_type: Text | None = None
    engine_instance: Text


class Kills(RootModel[Annotated[list[Kill], Field(max_length=MAX_LIST)]]):
    """rm/enginekill: a JSON array."""


class KillInstances(LinkisRequest):
    """rm/enginekillAsyn."""

    instances: list[Text] = Field(max_length=MAX_LIST)


class ServiceInstance(LinkisRequest):
    """Linkis's name of a node."""

    application_name: Text | None = None
    instance: Text | None = None


class Em(LinkisRequest):
    """An ECM, as consoles send it."""

    service_instance: ServiceInstance | None = None


class ListEmEngines(LinkisRequest):
    """listEMEngines."""

    em: Em
    em_instance: Text | None = None
    node_status: Text | None = None
    engine_type: Text | None = None
    owner: Text | None = None


class Operation(LinkisRequest):
    """executeEngineConnOperation, executeECMOperation, executeECMOperationByEC."""

    application_name: Text | None = None
    instance: Text | None = None
    parameters: dict[Text, Any] = Field(max_length=64)


class OpenLog(LinkisRequest):
    """openEngineLog."""

    application_name: Text | None = None
    em_instance: Text | None = None
    instance: Text | None = None
    parameters: dict[Text, Any] = Field(max_length=64)


class ListEms(LinkisRequest):
    """listAllEMs."""

    instance: Text | None = None
    node_healthy: Text | None = None
    owner: Text | None = None
    tenant_label: Text | None = None


class Names(LinkisRequest):
    """listAllNodeHealthyStatus, listAllECMHealthyStatus."""

    only_editable: bool = False


class ModifyEm(LinkisRequest):
    """modifyEMInfo."""

    application_name: Text | None = None
    instance: Text | None = None
    em_status: Text | None = None
    labels: list[dict[Text, Any]] = Field(default_factory=list, max_length=64)
    description: Words | None = None


class Ticket(LinkisRequest):
    """ecinfo/get: all in lower case."""

    ticketid: Text


class Records(LinkisRequest):
    """ecinfo/ecrHistoryList; dates as `yyyy-MM-dd HH:mm:ss`."""

    instance: Text | None = None
    creator: Text | None = None
    start_date: Text | None = None
    end_date: Text | None = None
    engine_type: Text | None = None
    status: Text | None = None
    page_now: int = Field(1, ge=1, le=1_000_000)
    page_size: int = Field(20, ge=1, le=1000)


class EcList(LinkisRequest):
    """ecinfo/ecList; the names are Linkis's."""

    creators: list[Text] = Field(default_factory=list, max_length=MAX_LIST)
    engine_types: list[Text] = Field(default_factory=list, max_length=MAX_LIST)
    statuss: list[Text] = Field(default_factory=list, max_length=MAX_LIST)
    queue_name: Text | None = None
    ec_instances: list[Text] = Field(default_factory=list, max_length=MAX_LIST)
    cross_cluster: bool | None = None


class Nothing(LinkisRequest):
    """Nothing is asked."""

"""askEngineConn's answer as the Python client reads it: Linkis's shape, which the gateway makes in
`gateway.linkis.shapes`. Must not have behaviour."""

from __future__ import annotations

from pydantic import Field

from linkis_ecm.api.models.base import Response


class AskedServiceInstance(Response):
    """Linkis's ServiceInstance: an application and where it listens."""

    application_name: str
    instance: str = Field(description="host:port.")


class AskedEngine(Response):
    """The engine that was given out."""

    ticket_id: str = Field(description="Names the engine in other calls.")
    service_instance: AskedServiceInstance
    node_status: str = Field(description="Linkis's word for its state: Idle, as somebody holds it now.")
    ecm_service_instance: AskedServiceInstance
    lock: str | None = Field(None, description="For executeCode and the command unlock: the engine is yours with it.")


class AskVerdict(Response):
    """Why a live engine was given out or not."""

    engine: str = Field(description="Its ticket.")
    verdict: str = Field(description="Fits, or why not.")
    sentence: str
    instance: str | None = Field(None, description="Of a lent engine that the asker holds: host:port.")
    lock: str | None = Field(None, description="Of the same: the lock.")
    until: str | None = Field(None, description="Of the same: when the lock ends.")


class AskEngineAnswer(Response):
    """askEngineConn."""

    engine: AskedEngine
    verdicts: list[AskVerdict] | None = Field(None, description="Where explain was asked for; the newest first.")

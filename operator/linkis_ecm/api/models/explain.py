"""Why an engine is as it is, who would be culled, and what is left of an ended one: ours, beyond Linkis's methods. Must
not have behaviour.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from linkis_ecm.api.models.base import Request, Response
from linkis_ecm.api.models.engines import EngineInfo


class Deadline(Response):
    """Something that will happen unless something else does."""

    name: str
    at: str
    in_seconds: float
    what: str


class ExplainAnswer(Response):
    """Why the engine is as it is, and what it waits for."""

    engine: EngineInfo
    summary: str
    deadlines: list[Deadline] = Field(default_factory=list)
    cull_blocked_by: str | None = None
    restart_policy: str | None = None
    attempts_allowed: int | None = None
    last_end: dict[str, Any] | None = None
    conditions: list[dict[str, Any]] = Field(default_factory=list)
    agent_answered: bool = Field(False, description="The agent itself answered to this question.")
    execution: dict[str, Any] | None = None
    usage: dict[str, int | float] = Field(default_factory=dict)


class PreviewCullRequest(Request):
    """previewCull: the caller's engines, an admin's all."""

    within_seconds: int = Field(3600, ge=0, le=30 * 86400)


class CullCandidate(Response):
    """One engine of a preview."""

    engine_id: str
    namespace: str
    name: str
    user: str
    status: str
    culled: bool
    at: str | None
    blocked_by: str | None


class PreviewCullAnswer(Response):
    """`culled` end within the time asked for if nothing happens; `kept` do not, and say why."""

    culled: list[CullCandidate]
    kept: list[CullCandidate]
    looked_at: int
    total: int


class PostMortemAnswer(Response):
    """What is left of an engine; its log files are read by getEngineLogs and downloadEngineLog as ever."""

    engine: EngineInfo
    attempts: list[int]
    attempt: int
    files: dict[str, int]
    missing: list[str]
    bundle: dict[str, Any]
    result: Any = None

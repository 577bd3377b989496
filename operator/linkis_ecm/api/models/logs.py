"""Requests and answers about an engine's logs. Must not have behaviour."""

from __future__ import annotations

from pydantic import Field

from linkis_ecm.agent.formats.names import LOG_NAMES
from linkis_ecm.api.models.base import EngineId, Keywords, Request, Response


class EngineLogsRequest(Request):
    """getEngineLogs: `lines` lines from the 1-based `fromLine`, or the last `lastRows`, of the log that passes the
    keywords. With `enableTail`, `fromLine` counts from the end: page 1 is the newest."""

    engine_id: EngineId
    log_type: str = Field("stdout", description=f"{', '.join(LOG_NAMES[:-1])} or {LOG_NAMES[-1]}.")
    from_line: int = Field(1, ge=0, le=1 << 53)
    lines: int = Field(1000, ge=1, description="At most 5000.")
    last_rows: int = Field(0, ge=0, description="At most 5000; 0: by fromLine and lines.")
    enable_tail: bool = False
    only_keywords: Keywords = Field("", description="Words with commas between them: lines with one of them.")
    ignore_keywords: Keywords = Field("", description="Words with commas between them: lines with none of them.")


class FollowLogRequest(Request):
    """followEngineLog: from `fromByte`, or the last `tailBytes`, on."""

    engine_id: EngineId
    log_type: str = "stdout"
    from_byte: int | None = Field(None, ge=0, le=1 << 53)
    tail_bytes: int = Field(4096, ge=0, le=1 << 30)


class EngineLogsAnswer(Response):
    """As Linkis's log operator: `endLine` + 1 is where the next page begins; logPath's folder is the logDirSuffix."""

    log_path: str
    logs: list[str]
    end_line: int
    rows: int

"""What all requests and answers have in common, and the texts and bounds that several of them use. Must not have
behaviour beyond validation.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, field_validator
from pydantic.alias_generators import to_camel

from linkis_ecm.model import formats

# Linkis's own limit: "Cannot fetch more than 5000 lines of logs"; and entries of a page.
MAX_LINES, MAX_PAGE_SIZE = 5000, 500
# Rows of a table in one page of JSON: the default and the most.
RESULT_ROWS, RESULT_ROWS_MAX = 1000, 5000
# Seconds that createEngineConnection waits: the default, which is Linkis's and what its clients wait for, and the most.
CREATE_SECONDS, CREATE_SECONDS_MAX = 40, 600

# An engine by ticket id, service instance (host:port) or namespace/name.
EngineId = Annotated[str, StringConstraints(min_length=1, max_length=256)]
RunType = Annotated[str, StringConstraints(pattern=formats.WRITTEN_RUN_TYPE_PATTERN, max_length=30, to_lower=True)]
# Kubernetes's own form of a label, without a prefix: prefixes are reserved for Kubernetes and linkis-ecm.
LABEL_NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$"
LabelName = Annotated[str, StringConstraints(pattern=LABEL_NAME_PATTERN)]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE_PATTERN)]
# The gateway generates task ids (UUIDs), or derives them from a key; `job` is the task of a `once` engine.
TaskId = Annotated[str, StringConstraints(pattern=formats.TASK_ID_PATTERN)]
IdempotencyKey = Annotated[str, StringConstraints(min_length=1, max_length=128)]
# The id of a claim; the gateway's are UUIDs.
Lock = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MAX_KEYWORDS = 1000
Keywords = Annotated[str, StringConstraints(max_length=MAX_KEYWORDS)]
EnvValue = Annotated[str, StringConstraints(max_length=4096)]


def _is_text(value: Any) -> bool:
    """Whether each text in the value, at any depth, can be written as UTF-8."""
    if isinstance(value, str):
        try:
            return value.isascii() or bool(value.encode())
        except UnicodeEncodeError:
            return False
    if isinstance(value, dict):
        return all(_is_text(name) and _is_text(entry) for name, entry in value.items())
    return all(map(_is_text, value)) if isinstance(value, list | tuple | set | frozenset) else True


class Request(BaseModel):
    """camelCase on the wire; unknown fields are refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    @field_validator("*", mode="after")
    @classmethod
    def _no_lone_surrogates(cls, value: Any) -> Any:
        # JSON over HTTP cannot bring one; another transport, or the client's caller, can. Neither the agent nor the
        # database takes it, and the refusal must come before anything was written.
        if not _is_text(value):
            raise ValueError("write text that has no lone surrogates (half of a pair of UTF-16)")
        return value


class Response(BaseModel):
    """camelCase on the wire."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class NoRequest(Request):
    """No parameters."""


class NoAnswer(Response):
    """Nothing but the Message itself."""

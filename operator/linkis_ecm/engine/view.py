"""What a decision may look at: small frozen views of the API's objects and of the agent's reports.

Parsed leniently from plain JSON: a field that was edited by hand, or is of a newer version, never raises. A spec that
cannot be parsed is kept as a sentence (`EngineView.invalid`). Only what is read is kept: a whole pod takes
34 KB of memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from linkis_ecm.engine.matching import CLAIM_ANNOTATION, Claim, parse_claim
from linkis_ecm.engine.names import (
    INSTANCE,
)
from linkis_ecm.engine.times import parse_time
from linkis_ecm.model.agent_key import AgentKeyRef
from linkis_ecm.model.amounts import STORED
from linkis_ecm.model.engineconn import EngineConnSpec
from linkis_ecm.model.plugin import EngineConnPluginSpec
from linkis_ecm.model.states import EngineState

# Of the annotation that names an installation, host:port: an author may write 256 KiB there. A longer one is no
# installation's, and is shown by its beginning.
OWNER_MAX = 300
# By their words: an enumeration's own look-up takes ten times as long, and each pass asks a dozen times.
_STATES = {state.value: state for state in EngineState}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineView:
    """An EngineConn. `spec` is None where it cannot be read; then `invalid` says why."""

    namespace: str
    name: str
    uid: str
    version: int
    generation: int
    created: datetime
    deleting: bool
    spec: EngineConnSpec | None
    invalid: str
    status: Mapping[str, Any]
    # A gateway gave it to an asker (engine/matching.py).
    claim: Claim | None = None
    # The installation that is to accept it, by its annotation; "" for any.
    wanted_owner: str = ""

    @property
    def owner(self) -> str:
        """The installation that has accepted it; "" for none."""
        return self.text("ecmInstance")

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    @property
    def state(self) -> EngineState | None:
        """The state in the status; None for none or for a word that is no state."""
        word = self.status.get("engineState")
        return _STATES.get(word) if isinstance(word, str) else None

    @property
    def stop_requested(self) -> bool:
        """Whether a user requested the engine's stop or deletion. Then no attempt follows."""
        return self.deleting or (self.spec is not None and self.spec.desired_state == "Stopped")

    def text(self, name: str) -> str:
        """A field of the status if it is a text, else an empty one."""
        value = self.status.get(name)
        return value if isinstance(value, str) else ""


# Without slots, for `body`. There are a few.
@dataclass(frozen=True)
class PluginView:
    """An entry of the catalogue."""

    name: str
    version: int
    spec: EngineConnPluginSpec
    # Of the resource: "" for an entry that was never read from the API.
    uid: str = ""
    generation: int = 0
    status: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def body(self) -> Mapping[str, Any]:
        """The spec as plain JSON, without what is not set. Each pass over each engine reads it."""
        return self.spec.model_dump(by_alias=True, exclude_none=True)

    @property
    def engine_type(self) -> str:
        return self.spec.engine_type

    @property
    def engine_version(self) -> str:
        return self.spec.engine_version

    @property
    def default(self) -> bool:
        return self.spec.default


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The agent's last report (docs/design/interfaces.md). `changed` is when this operator saw the state change."""

    attempt: int
    sequence: int
    state: EngineState
    changed: datetime
    reason: str = ""
    message: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    last_task_ended: float = 0.0
    # What prevents the culling of an idle engine, in words; and when that last ended.
    active: str = ""
    last_activity: float = 0.0
    # What the engine's code does without a task, in words, empty where nothing is seen; and when it was last seen.
    background: str = ""
    last_background: float = 0.0
    # The running task: id, when it began, the beginning of its code.
    task: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    # Which enrolment the agent reported with.
    agent_key: AgentKeyRef | None = None


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sentence(error: ValidationError) -> str:
    parts = []
    for problem in error.errors(include_url=False, include_input=False)[:3]:
        place = ".".join(["spec", *(str(part) for part in problem["loc"])])
        parts.append(f"{place}: {problem['msg']}")
    return "; ".join(parts)


def engine_view(body: Mapping[str, Any], *, epoch: datetime) -> EngineView:
    """An EngineConn of the API; `epoch` stands in for a creation time that cannot be read."""
    meta = mapping(body.get("metadata"))
    spec, invalid = None, ""
    try:
        spec = EngineConnSpec.model_validate(body.get("spec") or {}, context=STORED)
    except ValidationError as error:
        invalid = _sentence(error)
    return EngineView(
        namespace=str(meta.get("namespace", "")),
        name=str(meta.get("name", "")),
        uid=str(meta.get("uid", "")),
        version=int(meta.get("resourceVersion") or 0),
        generation=int(meta.get("generation") or 0),
        created=parse_time(meta.get("creationTimestamp")) or epoch,
        deleting=bool(meta.get("deletionTimestamp")),
        spec=spec,
        invalid=invalid,
        status=mapping(body.get("status")),
        claim=parse_claim(mapping(meta.get("annotations")).get(CLAIM_ANNOTATION)),
        wanted_owner=str(mapping(meta.get("annotations")).get(INSTANCE) or "")[:OWNER_MAX],
    )


def plugin_view(body: Mapping[str, Any]) -> PluginView | None:
    """An EngineConnPlugin of the API, or None for one that cannot be read: it is not offered."""
    meta = mapping(body.get("metadata"))
    try:
        spec = EngineConnPluginSpec.model_validate(body.get("spec") or {}, context=STORED)
    except ValidationError:
        return None
    return PluginView(
        str(meta.get("name", "")), int(meta.get("resourceVersion") or 0), spec, str(meta.get("uid") or ""),
        int(meta.get("generation") or 0), mapping(body.get("status")),
    )  # fmt: skip

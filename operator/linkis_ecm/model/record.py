"""What goes to the database about one engine: plain data between the operator and the store.

The operator computes a record from the API's objects, so a lost record can be computed again at any time. Must not
import SQLAlchemy or anything of the operator.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from linkis_ecm.model.states import EngineState


@dataclass(frozen=True, slots=True)
class Transition:
    """An engine entered `state` at `at` (UTC, aware); `reason` is a constant of `model.reasons` or empty."""

    state: EngineState
    at: datetime
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """One row of `linkis_cg_ec_resource_info_record`, and the engine's transitions.

    Times are UTC and aware; the store writes them as naive UTC. `service_instance` is the ticket id until the engine
    has an address. `final` says that this is the engine's last row: it never changes again.
    """

    ticket_id: str
    namespace: str
    name: str
    uid: str
    label_value: str
    create_user: str
    service_instance: str
    ecm_instance: str
    status: EngineState
    log_dir_suffix: str
    create_time: datetime
    # When the engine entered `status`: an older record never overwrites a newer one.
    as_of: datetime
    request_times: int = 0
    request_resource: str | None = None
    used_times: int = 0
    used_resource: str | None = None
    used_time: datetime | None = None
    release_times: int = 0
    released_resource: str | None = None
    release_time: datetime | None = None
    metrics: str | None = None
    reason: str = ""
    message: str = ""
    final: bool = False
    transitions: tuple[Transition, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """One file of an engine plugin in BML: a row of `linkis_cg_engine_conn_plugin_bml_resources`."""

    engine_type: str
    version: str
    file_name: str
    file_size: int
    last_modified_ms: int
    bml_resource_id: str
    bml_resource_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PostMortemRecord:
    """The index entry of one attempt's bundle in the archive. Times are UTC and aware."""

    ticket_id: str
    uid: str
    attempt: int
    at: datetime
    reason: str
    message: str
    files: dict[str, int]
    missing: tuple[str, ...]
    expires: datetime


# How a request to run code can end: Linkis's words, and Lost for what was running when its engine ended.
ENDED = frozenset({"Succeed", "Failed", "Cancelled", "Timeout", "Lost"})
# The reason of a request that its engine did not take.
REFUSED = "Refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRecord:
    """A line of the execution journal. Times are Unix seconds, 0 where it has not happened."""

    task_id: str
    ticket_id: str
    uid: str
    attempt: int
    caller: str
    run_type: str
    code_sha256: str
    code_chars: int
    status: str
    reason: str = ""
    message: str = ""
    accepted: float
    started: float = 0.0
    ended: float = 0.0

    @property
    def final(self) -> bool:
        return self.status in ENDED

    @property
    def is_complete(self) -> bool:
        """Whether the record has its time and its caller; one that was made from an agent's report alone has not."""
        return self.accepted > 0

    @property
    def cannot_change(self) -> bool:
        """Whether the task can change no more. A task that its engine refused has not run: it may still run when it is
        sent again with the same key."""
        return self.final and self.reason != REFUSED

"""What the gateway and the command line read: typed results, blocking, each by one or two short statements.

The one write is the deletion of an ended engine's row, which a caller asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Engine, LargeBinary, Row, and_, cast, delete, false, func, select
from sqlalchemy.exc import SQLAlchemyError

from linkis_ecm.model.record import ExecutionRecord
from linkis_ecm.store import schema
from linkis_ecm.store.database import unreachable
from linkis_ecm.store.linkis import record

# The most rows of one page; Linkis's console asks for 20.
PAGE_MAX = 1000


@dataclass(frozen=True, slots=True)
class RecordRow:
    """A row of `linkis_cg_ec_resource_info_record`; times are naive UTC, as Linkis reads them."""

    id: int
    label_value: str
    create_user: str
    service_instance: str | None
    ecm_instance: str | None
    ticket_id: str
    status: str | None
    log_dir_suffix: str | None
    request_times: int | None
    request_resource: str | None
    used_times: int | None
    used_resource: str | None
    metrics: str | None
    release_times: int | None
    released_resource: str | None
    release_time: datetime | None
    used_time: datetime | None
    create_time: datetime | None


@dataclass(frozen=True, slots=True)
class EngineRow:
    """What our own table says of an engine besides."""

    ticket_id: str
    uid: str
    namespace: str
    name: str
    final: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class TransitionRow:
    """The engine entered `state` at `at` (aware, UTC)."""

    state: str
    at: datetime
    reason: str
    message: str


def same(column: ColumnElement[str], text: str) -> ColumnElement[bool]:
    """The column holds exactly that text. Linkis's tables have the database's collation, to which "ALICE" and "álice"
    are "alice": the first comparison is for the index, the second decides."""
    if not _comparable(text):
        return false()
    return and_(column == text, cast(column, LargeBinary) == text.encode(errors="replace"))


def _comparable(text: str) -> bool:
    """MariaDB refuses to compare a column of charset utf8 with a character over U+FFFF; no such column holds one."""
    return all(char <= "\uffff" for char in text)


class Queries:
    """Reads over one engine; each raises DatabaseError where the database does not answer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record_by_ticket(self, ticket: str) -> RecordRow | None:
        return self._first(same(record.c.ticket_id, ticket))

    def latest_record_by_instance(self, instance: str) -> RecordRow | None:
        """The newest (highest id) of that service instance, as Linkis's own query has it."""
        return self._first(same(record.c.service_instance, instance))

    def record_by_log_suffix(self, suffix: str) -> RecordRow | None:
        """The record of exactly that stored suffix."""
        return self._first(same(record.c.log_dir_suffix, suffix))

    def engine(self, ticket: str) -> EngineRow | None:
        t = schema.engine.c
        found = self._all(
            select(t.ticket_id, t.uid, t.namespace, t.name, t.final, t.reason, t.message).where(t.ticket_id == ticket)
        )
        return EngineRow(**found[0]._mapping) if found else None

    def transitions(self, ticket: str) -> list[TransitionRow]:
        """An engine's states in their order."""
        t = schema.transition.c
        found: list[Any] = self._all(
            select(t.state, t.at, t.reason, t.message).where(t.ticket_id == ticket).order_by(t.at, t.state)
        )
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        return [TransitionRow(state, epoch + timedelta(microseconds=at), why, text) for state, at, why, text in found]

    def execution(self, task_id: str) -> ExecutionRecord | None:
        """A task's line of the journal."""
        found = self._executions(schema.execution.c.task_id == task_id, limit=1)
        return found[0] if found else None

    def executions_by_id(self, task_ids: Sequence[str]) -> list[ExecutionRecord]:
        """The lines of these tasks; none for a task that has none."""
        return self._executions(schema.execution.c.task_id.in_(task_ids), limit=len(task_ids))

    def executions(self, ticket: str, limit: int, *, uid: str, user: str) -> list[ExecutionRecord]:
        """The tasks of the engine `uid` of `user`, the newest first, with the user's own of earlier engines with this
        ticket. Others' tasks are left out: after an engine was deleted, another user's may have its ticket."""
        t = schema.execution.c
        return self._executions((t.ticket_id == ticket) & ((t.uid == uid) | (t.caller == user)), limit=limit)

    def open_executions(self, before: float, limit: int) -> list[ExecutionRecord]:
        """Tasks accepted before then (Unix seconds) whose end is not known, the oldest first."""
        t = schema.execution.c
        return self._executions(t.final.is_(False) & (t.accepted < round(before * 1e6)), limit=limit, oldest=True)

    def _executions(self, condition: Any, *, limit: int, oldest: bool = False) -> list[ExecutionRecord]:
        t = schema.execution.c
        order = t.accepted if oldest else t.accepted.desc()
        found = self._all(select(schema.execution).where(condition).order_by(order, t.task_id).limit(limit))
        return [
            ExecutionRecord(
                task_id=row.task_id,
                ticket_id=row.ticket_id,
                uid=row.uid,
                attempt=row.attempt,
                caller=row.caller,
                run_type=row.run_type,
                code_sha256=row.code_sha256,
                code_chars=row.code_chars,
                status=row.status,
                reason=row.reason,
                message=row.message,
                accepted=row.accepted / 1e6,
                started=row.started / 1e6,
                ended=row.ended / 1e6,
            )
            for row in found
        ]

    def list_records(
        self,
        *,
        user: str | None = None,
        status: str | None = None,
        engine_type: str | None = None,
        instance: str | None = None,
        namespaces: frozenset[str] | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        page: int = 1,
        page_size: int = 20,
    ) -> tuple[list[RecordRow], int]:
        """A page of records, newest first, and how many there are in all. With `namespaces` those of engines in other
        namespaces are left out; a record of Linkis's own ECM is in none, and stays."""
        wanted: list[ColumnElement[bool]] = []
        if user is not None:
            wanted.append(same(record.c.create_user, user))
        if status is not None:
            wanted.append(same(record.c.status, status))
        if instance is not None:
            wanted.append(same(record.c.service_instance, instance))
        if namespaces is not None:
            t = schema.engine.c
            elsewhere = (t.ticket_id == record.c.ticket_id) & t.namespace.not_in(sorted(namespaces))
            wanted.append(~select(t.ticket_id).where(elsewhere).exists())
        if engine_type is not None:
            label = record.c.label_value.contains(f",{engine_type}-", autoescape=True)
            wanted.append(label if _comparable(engine_type) else false())
        if start is not None:
            wanted.append(record.c.create_time >= start)
        if end is not None:
            wanted.append(record.c.create_time <= end)
        size = max(1, min(page_size, PAGE_MAX))
        total = self._all(select(func.count()).select_from(record).where(*wanted))[0][0]
        order = (record.c.create_time.desc(), record.c.id.desc())
        found = self._all(
            select(record).where(*wanted).order_by(*order).limit(size).offset(max(0, page - 1) * size)
        )  # fmt: skip
        return [RecordRow(**row._mapping) for row in found], total

    def delete_record(self, ticket: str) -> None:
        """Deletes an ended engine's row from Linkis's history; our own tables keep that it is final."""
        try:
            with self._engine.begin() as connection:
                connection.execute(
                    delete(record).where(same(record.c.ticket_id, ticket), record.c.release_time.is_not(None))
                )
        except SQLAlchemyError as error:
            raise unreachable(self._engine.url, error) from error

    def _first(self, condition: Any) -> RecordRow | None:
        found = self._all(select(record).where(condition).order_by(record.c.id.desc()).limit(1))
        return RecordRow(**found[0]._mapping) if found else None

    def _all(self, statement: Any) -> list[Row[Any]]:
        try:
            with self._engine.connect() as connection:
                return list(connection.execute(statement))
        except SQLAlchemyError as error:
            raise unreachable(self._engine.url, error) from error

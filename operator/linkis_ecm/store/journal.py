"""Writes the execution journal to the database: merged by task, in batches, from one thread.

`offer` never blocks and never raises, so that no code waits for a database; `end` is for those who tell an end that no
agent has told. What does not fit while the database is down is counted; the engine's agent still knows it. A final row
never changes, except that of a request that was refused and is sent again. Must not decide.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy import bindparam as bind
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from linkis_ecm.model.record import REFUSED, ExecutionRecord
from linkis_ecm.process.backoff import Backoff
from linkis_ecm.store.metrics import JournalMetrics
from linkis_ecm.store.schema import execution
from linkis_ecm.store.texts import fitting, plain_execution

log = logging.getLogger(__name__)

BATCH, LINGER = 500, 0.1
# The largest number of waiting tasks. They are 60 MB at most: 8 minutes of an outage at 100 tasks a second.
PENDING_MAX = 50_000
BACKOFF = Backoff(base=0.2, cap=10.0)

# Errors of the database or its driver for one invalid row. The others of its batch can be written.
_DATA_ERRORS = (DataError, ArithmeticError, TypeError, ValueError)
_CHANGES = ("status", "final", "reason", "message", "started", "ended")
_UPDATE = (
    update(execution)
    .where(
        execution.c.task_id == bind("b_task_id"),
        # What an agent says of a task counts for its own engine's tasks alone: agents are their users'.
        execution.c.ticket_id == bind("b_ticket_id"),
        execution.c.uid == bind("b_uid"),
        execution.c.final.is_(False),
    )
    .values({name: bind(f"b_{name}") for name in _CHANGES})
)
# A request that was refused and is sent again is a new request, perhaps to another pod of the engine.
_UPDATE_ACCEPTED = (
    update(execution)
    .where(
        execution.c.task_id == bind("b_task_id"),
        execution.c.ticket_id == bind("b_ticket_id"),
        execution.c.final.is_(True),
        execution.c.reason == REFUSED,
    )
    .values(
        {
            name: bind(f"b_{name}")
            for name in (*_CHANGES, "uid", "attempt", "caller", "run_type", "code_sha256", "code_chars", "accepted")
        }
    )
)


class Journal:
    """`start`, `offer`, `close`. Without `metrics` what is counted is not scraped (tools and tests)."""

    def __init__(
        self, engine: Engine, *, rng: random.Random | None = None, metrics: JournalMetrics | None = None
    ) -> None:
        self._engine = engine
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._lock = threading.Condition()
        self._pending: OrderedDict[str, ExecutionRecord] = OrderedDict()
        self._writing: dict[str, ExecutionRecord] = {}
        self._failures = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="ecm-journal", daemon=True)
        self.metrics = metrics or JournalMetrics(CollectorRegistry())
        self.metrics.watch(depth=lambda: len(self._pending) + len(self._writing))

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def offer(self, record: ExecutionRecord) -> None:
        """Queue a record. Of one task the last is written, except after one whose `cannot_change` is true; of two
        engines' records the one that has the request."""
        with self._lock:
            before = len(self._pending)
            waiting = self._pending.get(record.task_id)
            if waiting is not None and not same_task(waiting, record):
                log.warning("task %s: a line of another engine is dropped", record.task_id)
                if waiting.is_complete or not record.is_complete:
                    return
                waiting = None
            if waiting is None or not waiting.cannot_change:
                self._pending[record.task_id] = record if waiting is None else merge_records(waiting, record)
            if len(self._pending) > PENDING_MAX:
                self._pending.popitem(last=False)
                self.metrics.dropped.inc()
            # The thread waits for the first record or for a full batch. It is not woken for others: it would take the
            # interpreter from the call that has offered one.
            if not before or before < BATCH <= len(self._pending):
                self._lock.notify_all()

    def end(self, records: Sequence[ExecutionRecord]) -> None:
        """Write the ends of these tasks now; blocking. One that has an end keeps it, and one without a row gets none.

        Raises SQLAlchemyError.
        """
        with self._lock:
            waiting = [record for one in records if (record := self._waiting(one.task_id)) is not None]
        if waiting:
            # What was offered before counts before: the request's own line, or an end that the agent has told.
            with self._engine.begin() as connection:
                write(connection, waiting)
        # In one order, so that two gateways wait for each other's rows and do not block each other.
        rows = [_bound(record) for record in sorted(records, key=lambda record: record.task_id)]
        with self._engine.begin() as connection:
            connection.execute(_UPDATE, rows)

    def purge(self, before: float, limit: int = 1000) -> int:
        """Deletes ended tasks that were accepted before then (Unix seconds), `limit` at most; blocking.

        Raises SQLAlchemyError.
        """
        t = execution.c
        with self._engine.begin() as connection:
            old = select(t.task_id).where(t.final.is_(True), t.accepted < round(before * 1e6)).limit(limit)
            ids = list(connection.scalars(old))
            if ids:
                connection.execute(delete(execution).where(t.task_id.in_(ids)))
        return len(ids)

    def pending(self, task_id: str) -> ExecutionRecord | None:
        """The task's record that is not written yet, or None."""
        with self._lock:
            return self._waiting(task_id)

    def _waiting(self, task_id: str) -> ExecutionRecord | None:
        return self._pending.get(task_id) or self._writing.get(task_id)

    def flush(self, timeout: float) -> bool:
        """Wait until all offered records are written. False if the time expires first."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._pending and not self._writing, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Write what can be written within this time, then end the thread."""
        if self._thread.is_alive() and not self.flush(timeout):
            log.error("%d lines of the execution journal are not in the database", len(self._pending))
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._pending or self._closing)
                if self._closing:
                    return
                if len(self._pending) < BATCH:
                    self._lock.wait_for(lambda: len(self._pending) >= BATCH or self._closing, LINGER)
                batch = [self._pending.popitem(last=False)[1] for _ in range(min(BATCH, len(self._pending)))]
                self._writing = {record.task_id: record for record in batch}
            try:
                with self._engine.begin() as connection:
                    write(connection, batch)
            except _DATA_ERRORS as error:
                log.warning("a batch of the journal is refused, each of its lines alone: %r", error)
                self._write_each(batch)
            except SQLAlchemyError as error:
                self._back_off(error, batch)
            else:
                self._failures = 0
            with self._lock:
                self._writing = {}
                self._lock.notify_all()

    def _write_each(self, batch: list[ExecutionRecord]) -> None:
        """Write each record by itself. An invalid one is left out. After an outage the rest waits."""
        for number, record in enumerate(batch):
            try:
                try:
                    with self._engine.begin() as connection:
                        write(connection, [record])
                except DataError as error:
                    log.warning("task %s: its line is written again in plain words: %r", record.task_id, error)
                    with self._engine.begin() as connection:
                        write(connection, [plain_execution(record)])
            except _DATA_ERRORS as error:
                self.metrics.dropped.inc()
                log.error("task %s: its line cannot be written: %r", record.task_id, error)
            except SQLAlchemyError as error:
                self._back_off(error, batch[number:])
                return

    def _back_off(self, error: SQLAlchemyError, batch: list[ExecutionRecord]) -> None:
        """Put the batch back, before records that were offered meanwhile, and wait."""
        self._failures += 1
        self.metrics.errors.labels(type(error).__name__).inc()
        wait = BACKOFF.delay(self._failures, rng=self._rng)
        cause = getattr(error, "orig", None) or error
        log.warning("the database takes no journal (%d wait), again in %.1f s: %s", len(batch), wait, cause)
        with self._lock:
            for record in reversed(batch):
                newer = self._pending.get(record.task_id)
                # One of another engine came while this one was being written: the first counts, if it has the task.
                other = newer is not None and not same_task(record, newer)
                if newer is None or (record.is_complete if other else record.cannot_change):
                    self._pending[record.task_id] = record
                elif other:
                    continue
                else:
                    self._pending[record.task_id] = merge_records(record, newer)
                self._pending.move_to_end(record.task_id, last=False)
            self._lock.wait_for(lambda: self._closing, wait)


def same_task(one: ExecutionRecord, other: ExecutionRecord) -> bool:
    """Whether both lines are of the same engine's task: of the same uid, or both of the gateway's own making."""
    return one.ticket_id == other.ticket_id and (one.uid == other.uid or (one.is_complete and other.is_complete))


def merge_records(older: ExecutionRecord, newer: ExecutionRecord) -> ExecutionRecord:
    """The newer line; what it does not say of the request is taken from the older one. Pure."""
    if newer.is_complete:
        return newer
    return replace(
        newer, caller=older.caller, run_type=older.run_type, code_sha256=older.code_sha256,
        code_chars=older.code_chars, accepted=older.accepted, uid=older.uid, attempt=older.attempt,
    )  # fmt: skip


def write(connection: Connection, batch: Sequence[ExecutionRecord]) -> None:
    """New rows, and changes of those that are not final. Two gateways may write the same task at once.

    A line that is not whole changes a row and makes none. Rows are locked in the order of their ids, whatever the
    batch's order is, so that two gateways wait for each other and do not block each other.
    """
    batch = sorted(batch, key=lambda record: record.task_id)
    ids = [record.task_id for record in batch]
    known = set(connection.scalars(select(execution.c.task_id).where(execution.c.task_id.in_(ids))))
    fresh = [_row(record) for record in batch if record.task_id not in known and record.is_complete]
    try:
        if fresh:
            with connection.begin_nested():
                connection.execute(insert(execution), fresh)
    except IntegrityError:
        known = set(ids)  # another gateway was faster with one of them
        for row in fresh:
            _insert_one(connection, row)
    changed = [record for record in batch if record.task_id in known]
    complete = [record for record in changed if record.is_complete]
    if 0 < len(complete) < len(changed):
        # The first statement is of some rows and the second of all, which is no order. Of rows that are there: a lock
        # on one that is not would keep its insert away.
        rows = select(execution.c.task_id).where(execution.c.task_id.in_([record.task_id for record in changed]))
        connection.execute(rows.order_by(execution.c.task_id).with_for_update()).all()
    for statement, records in ((_UPDATE_ACCEPTED, complete), (_UPDATE, changed)):
        if records:
            connection.execute(statement, [_bound(record) for record in records])


def _insert_one(connection: Connection, row: dict[str, Any]) -> None:
    try:
        with connection.begin_nested():
            connection.execute(insert(execution), [row])
    except IntegrityError:
        return


def _bound(record: ExecutionRecord) -> dict[str, Any]:
    return {f"b_{name}": value for name, value in _row(record).items()}


def _row(record: ExecutionRecord) -> dict[str, Any]:
    return {
        "task_id": record.task_id,
        "ticket_id": record.ticket_id,
        "uid": record.uid,
        "attempt": record.attempt,
        "caller": record.caller,
        "run_type": record.run_type,
        "code_sha256": record.code_sha256,
        "code_chars": record.code_chars,
        "status": record.status,
        "final": record.final,
        "reason": record.reason[:100],
        "message": fitting(record.message[:4000]),
        "accepted": round(record.accepted * 1e6),
        "started": round(record.started * 1e6),
        "ended": round(record.ended * 1e6),
    }

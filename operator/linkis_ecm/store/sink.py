"""Writes records of engines to the database: merged by engine, in batches, from one thread, and kept during an outage.

`offer` never blocks and never raises, so that no engine waits for a database. The backlog is bounded by the number of
engines; after a crash the next operator's first passes offer the same records again. Must not know SQL: that is
`store.rows`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from linkis_ecm.model.record import EngineRecord, Material, PostMortemRecord, Transition
from linkis_ecm.process.backoff import Backoff
from linkis_ecm.store import rows
from linkis_ecm.store.metrics import SinkMetrics
from linkis_ecm.store.texts import plain_engine

log = logging.getLogger(__name__)

# A batch is written when 200 engines wait, or 50 ms after the first. 200 rows are one round of statements, and a person
# does not notice 50 ms.
BATCH, LINGER = 200, 0.05
# A round of statements takes 2 ms of processor time for one record and 34 ms for 200, so a record costs 2.2 ms alone,
# 0.55 ms of six and 0.2 ms of a hundred. After a batch of CROWD records many engines are starting or ending: the next
# one waits longer.
CROWD, LINGER_CROWD = 5, 0.25
# And for four times what the last one took, so that writing takes a fifth of the time at most. Half a second at most:
# a row is to be late by less than one.
LINGER_FACTOR, LINGER_MAX = 4.0, 0.5
# Between tries while the database is down: 0.2 s doubling to 10 s, the longest delay after it is back.
BACKOFF = Backoff(base=0.2, cap=10.0)
# Transitions of one engine that are kept while the database is down; the oldest are dropped first.
TRANSITIONS_MAX = 1000

# Whose row a record is: the ticket and the engine's uid. A user may name another engine's ticket.
Owner = tuple[str, str]


class Sink:
    """`start`, `offer`, `close`. `clock` is the wall clock; waits are in real time.

    Without `metrics` the counters are not scraped (tools and tests).
    """

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
        metrics: SinkMetrics | None = None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._started = clock()
        self._lock = threading.Condition()
        self._pending: OrderedDict[Owner, tuple[float, EngineRecord]] = OrderedDict()
        self._on_foreign: Callable[[EngineRecord], None] = lambda _: None
        self._materials: OrderedDict[tuple[str, str], Sequence[Material]] = OrderedDict()
        self._post_mortems: OrderedDict[tuple[str, int], PostMortemRecord] = OrderedDict()
        self._writing = 0
        self._writing_since: float | None = None
        # Seconds for which a batch that is not full waits for more.
        self._linger = LINGER
        self._failures = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="ecm-sink", daemon=True)
        self.metrics = metrics or SinkMetrics(CollectorRegistry())
        self.metrics.watch(depth=lambda: self.depth, lag=lambda: self.lag_seconds)

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def watch_foreign(self, on_foreign: Callable[[EngineRecord], None]) -> None:
        """Call this, in the writing thread, for each record that is not written because its ticket is another
        engine's."""
        self._on_foreign = on_foreign

    def offer(self, record: EngineRecord) -> None:
        """Queue a record. Of one engine the newest is written, with the transitions of all."""
        with self._lock:
            waiting = self._pending.get(_owner(record))
            since = waiting[0] if waiting is not None else time.monotonic()
            self._pending[_owner(record)] = (since, self._joined(waiting[1], record) if waiting else record)
            # Each wake-up of the thread takes the interpreter from the event loop: only for what it waits for.
            if waiting is None and len(self._pending) in (1, BATCH):
                self._lock.notify_all()

    def offer_materials(self, engine_type: str, version: str, materials: Sequence[Material]) -> None:
        """Queue the complete list of files of one engine type and version."""
        with self._lock:
            self._materials[engine_type, version] = list(materials)
            self._lock.notify_all()

    def offer_post_mortem(self, entry: PostMortemRecord) -> None:
        """Queue the index entry of a bundle. Of one attempt the newest counts."""
        with self._lock:
            self._post_mortems[entry.uid, entry.attempt] = entry
            self._lock.notify_all()

    @property
    def depth(self) -> int:
        """How many records are not in the database yet."""
        # Within the lock, because a batch that is being taken out is in neither place, and 0 must mean that none waits.
        with self._lock:
            return self._depth()

    def _depth(self) -> int:
        return len(self._pending) + len(self._materials) + len(self._post_mortems) + self._writing

    @property
    def lag_seconds(self) -> float:
        """Age of the oldest record that is not in the database; one that is being written counts until it is."""
        with self._lock:
            first = next(iter(self._pending.values()), None)
            since = self._writing_since if first is None else min(first[0], self._writing_since or first[0])
        return 0.0 if since is None else time.monotonic() - since

    @property
    def healthy(self) -> bool:
        """Whether the last write succeeded."""
        return self._failures == 0

    def flush(self, timeout: float) -> bool:
        """Wait until all offered records are written. False if the time expires first."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._depth(), timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Write what can be written within this time, then end the thread."""
        if not self.flush(timeout):
            log.error("%d records are not in the database; the next operator offers them again", self.depth)
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._engine.dispose()

    def resync(self, live_uids: set[str], now: datetime, namespaces: Collection[str] | None = None) -> list[str]:
        """Ends the rows of engines that the API does not have, in the namespaces listed (None: all); blocking. Raises
        SQLAlchemyError."""
        with self._engine.begin() as connection:
            return rows.end_absent(connection, live_uids, now, started=self._started, namespaces=namespaces)

    def open_elsewhere(self, namespaces: Collection[str]) -> dict[str, int]:
        """The number of open rows by namespace, of all namespaces but these; blocking. Raises SQLAlchemyError."""
        with self._engine.connect() as connection:
            return rows.open_elsewhere(connection, namespaces)

    def expired_post_mortems(self, now: datetime, total: int, per_user: int, limit: int = 100) -> list[str]:
        """uids of engines whose bundles are too old, or beyond `total` bytes of all or `per_user` of one; blocking.
        Raises SQLAlchemyError."""
        with self._engine.connect() as connection:
            return rows.expired_post_mortems(connection, now, total, per_user, limit)

    def archived_bytes(self) -> int:
        """Bytes of all bundles; blocking. Raises SQLAlchemyError."""
        with self._engine.connect() as connection:
            return rows.archived_bytes(connection)

    def first_expiry(self) -> datetime | None:
        """When the first bundle expires; blocking. Raises SQLAlchemyError."""
        with self._engine.connect() as connection:
            return rows.first_expiry(connection)

    def purge_transitions(self, before: datetime, limit: int = 1000) -> int:
        """Deletes transitions from before then, `limit` at most; how many; blocking. Raises SQLAlchemyError."""
        with self._engine.begin() as connection:
            return rows.purge_transitions(connection, before, limit)

    def delete_post_mortems(self, uid: str) -> None:
        """Deletes an engine's entries; blocking. Raises SQLAlchemyError."""
        with self._engine.begin() as connection:
            rows.delete_post_mortems(connection, uid)

    def has_final(self, ticket: str) -> bool:
        """Whether the engine's last row is written; blocking. Raises SQLAlchemyError."""
        with self._engine.connect() as connection:
            return rows.has_final(connection, ticket)

    def delete_engine_rows(self, ticket: str) -> None:
        """Deletes every row of an engine: for the canary alone; blocking. Raises SQLAlchemyError."""
        with self._engine.begin() as connection:
            rows.delete_engine_rows(connection, ticket)

    def differing(self, expected: Sequence[EngineRecord]) -> dict[str, str]:
        """Tickets whose row differs from the record offered, with what differs; blocking. Raises SQLAlchemyError."""
        found: dict[str, str] = {}
        with self._engine.connect() as connection:
            for start in range(0, len(expected), BATCH):
                found |= rows.differing(connection, expected[start : start + BATCH])
        return found

    def repair(self, record: EngineRecord) -> None:
        """Overwrite the row of a record; blocking. Raises SQLAlchemyError."""
        with self._engine.begin() as connection:
            rows.repair(connection, record, self._clock())

    # The thread.

    def _run(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._pending or self._materials or self._post_mortems or self._closing)
                if self._closing:
                    return
                # From the first one's coming: what came while the last batch was written has waited for that long.
                first = next(iter(self._pending.values()), (time.monotonic(),))[0]
                left = first + self._linger - time.monotonic()
                if len(self._pending) < BATCH and left > 0:
                    self._lock.wait_for(lambda: len(self._pending) >= BATCH or self._closing, left)
                batch = [self._pending.popitem(last=False)[1] for _ in range(min(BATCH, len(self._pending)))]
                files = list(self._materials.items())
                self._materials.clear()
                bundles = list(self._post_mortems.values())
                self._post_mortems.clear()
                self._writing = len(batch) + len(files) + len(bundles)
                self._writing_since = batch[0][0] if batch else None
            began = time.monotonic()
            try:
                written = self._write([record for _, record in batch], files, bundles)
            except SQLAlchemyError as error:
                self._requeue(batch, files, bundles)
                self._back_off(error)
            else:
                self._failures = 0
                self._linger = _linger_after(len(batch), time.monotonic() - began)
                self.metrics.rows.inc(written)
                self._write_succeeded()

    def _write(
        self,
        batch: list[EngineRecord],
        files: list[tuple[tuple[str, str], Sequence[Material]]],
        bundles: list[PostMortemRecord],
    ) -> int:
        """Write all in one transaction. If a row is refused, write each in its own, and leave out the refused ones."""

        def write_all(connection: Connection) -> int:
            for (engine_type, version), materials in files:
                rows.write_materials(connection, engine_type, version, materials, self._clock())
            for bundle in bundles:
                rows.write_post_mortem(connection, bundle)
            return self._write_records(connection, batch) if batch else 0

        try:
            with self._engine.begin() as connection:
                return write_all(connection)
        except (OperationalError, InterfaceError):
            raise
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            log.warning("a batch of %d records was refused, trying each alone: %s", len(batch), error.orig)
        written = 0
        for record in batch:
            written += self._separately(
                f"the record of ticket {record.ticket_id}",
                # A refused text must not hide the state: the second try has plain words.
                *(
                    lambda connection, one=one: self._write_records(connection, [one])
                    for one in (record, plain_engine(record))
                ),
            )
        for key, materials in files:
            self._separately(
                f"the materials of {key[0]} {key[1]}",
                lambda connection, key=key, what=materials: rows.write_materials(  # type: ignore[misc]
                    connection, key[0], key[1], what, self._clock()
                ),
            )
        for bundle in bundles:
            self._separately(
                f"the post-mortem of ticket {bundle.ticket_id}",
                lambda connection, one=bundle: rows.write_post_mortem(connection, one),  # type: ignore[misc]
            )
        return written

    def _separately(self, what: str, *tries: Callable[[Connection], int | None]) -> int:
        """The first of these writes that the database takes, each in a transaction of its own; left out where it
        refuses all."""
        for number, write in enumerate(tries, 1):
            try:
                with self._engine.begin() as connection:
                    return write(connection) or 0
            except (OperationalError, InterfaceError):
                raise
            except SQLAlchemyError as error:
                if number == len(tries):
                    self.metrics.refused.inc()
                    log.error("%s is refused and left out: %s", what, error)
                else:
                    log.warning("%s is refused and written again in plain words: %s", what, error)
        return 0

    def _requeue(
        self,
        batch: list[tuple[float, EngineRecord]],
        files: list[tuple[tuple[str, str], Sequence[Material]]],
        bundles: list[PostMortemRecord],
    ) -> None:
        """Put the batch back, before records that were offered meanwhile."""
        with self._lock:
            for since, record in reversed(batch):
                newer = self._pending.get(_owner(record))
                kept = self._joined(record, newer[1]) if newer is not None else record
                self._pending[_owner(record)] = (since, kept)
                self._pending.move_to_end(_owner(record), last=False)
            for key, materials in files:
                self._materials.setdefault(key, materials)
            for bundle in bundles:
                self._post_mortems.setdefault((bundle.uid, bundle.attempt), bundle)
            self._writing, self._writing_since = 0, None

    def _write_records(self, connection: Connection, batch: Sequence[EngineRecord]) -> int:
        return rows.write(connection, batch, self._clock(), on_foreign=self._refuse_foreign)

    def _refuse_foreign(self, record: EngineRecord) -> None:
        self.metrics.refused.inc()
        log.warning(
            "%s/%s: ticket %s is another engine's: no row is written", record.namespace, record.name, record.ticket_id
        )
        self._on_foreign(record)

    def _write_succeeded(self) -> None:
        with self._lock:
            self._writing, self._writing_since = 0, None
            self._lock.notify_all()

    def _back_off(self, error: SQLAlchemyError) -> None:
        self._failures += 1
        self.metrics.errors.labels(type(error).__name__).inc()
        wait = BACKOFF.delay(self._failures, rng=self._rng)
        cause = getattr(error, "orig", None) or error
        log.warning("the database takes no records (%d wait), again in %.1f s: %s", self.depth, wait, cause)
        with self._lock:
            self._lock.wait_for(lambda: self._closing, wait)

    def _joined(self, old: EngineRecord, new: EngineRecord) -> EngineRecord:
        record, dropped = merged(old, new)
        self.metrics.dropped.inc(dropped)
        return record


def _linger_after(records: int, seconds: float) -> float:
    """How long the next batch waits for more, after one of so many records that took so many seconds."""
    least = LINGER_CROWD if records >= CROWD else LINGER
    return min(LINGER_MAX, max(least, LINGER_FACTOR * seconds))


def _owner(record: EngineRecord) -> Owner:
    return record.ticket_id, record.uid


def merged(old: EngineRecord, new: EngineRecord) -> tuple[EngineRecord, int]:
    """The later of two records of one engine, with the transitions of both; and how many transitions are left out,
    since TRANSITIONS_MAX are kept, the latest. Pure."""
    late = old if old.final or (old.as_of > new.as_of and not new.final) else new
    steps: dict[tuple[datetime, str], Transition] = {}
    for step in (*old.transitions, *new.transitions):
        steps[step.at, step.state.value] = step
    kept = sorted(steps.values(), key=lambda step: step.at)
    return replace(late, transitions=tuple(kept[-TRANSITIONS_MAX:])), max(0, len(kept) - TRANSITIONS_MAX)

"""The execution journal: a record of each request to run code and of its definite outcome.

Records are written in the background, so that running code never waits for the database. After a crash some records
say nothing of their task's end. `Settler` asks the engine's agent and looks at the engine, and `settled` computes the
record from both. Such an end is told only after the database has it: the first one counts, whichever gateway found it,
so all askers of all gateways get the same one. Must not run code.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from linkis_ecm.agent_client.errors import AgentNotFound
from linkis_ecm.gateway.agents.link import can_ask_agent
from linkis_ecm.gateway.agents.reported import REPORTED_STATUSES, moment
from linkis_ecm.gateway.http.errors import Refused
from linkis_ecm.gateway.inventory.history import History
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.model.record import REFUSED, ExecutionRecord

log = logging.getLogger(__name__)

# Seconds after which the settler checks a task that has not ended. Before that, the call that waits for the task mostly
# records its end itself.
OPEN_SECONDS = 30.0
# Seconds between two passes of the settler.
SETTLE_SECONDS = 15.0
# The largest number of records in one pass.
BATCH = 200
# Days for which the database keeps records.
KEPT_DAYS = 30
# Ended tasks whose ids are remembered, so that each is counted once: some 100 bytes each.
COUNTED_MAX = 20_000


class Store(Protocol):
    """The journal in the database; the calls block."""

    def execution(self, task_id: str) -> ExecutionRecord | None: ...

    def executions_by_id(self, task_ids: Sequence[str]) -> list[ExecutionRecord]: ...

    def executions(self, ticket: str, limit: int, *, uid: str, user: str) -> list[ExecutionRecord]: ...

    def open_executions(self, before: float, limit: int) -> list[ExecutionRecord]: ...


class Writer(Protocol):
    """Writes records to the database in the background; `offer` never blocks. `end` writes at once, and blocks."""

    def offer(self, record: ExecutionRecord) -> None: ...

    def end(self, records: Sequence[ExecutionRecord]) -> None: ...

    def pending(self, task_id: str) -> ExecutionRecord | None: ...

    def purge(self, before: float) -> int: ...


class TaskCounts(Protocol):
    """The metrics of tasks (`gateway.metrics.TaskMetrics`)."""

    def ended(self, ticket: str, outcome: str, *, seconds: float | None, waited: float | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known about a task. `engine` is from the cluster or the database, None if neither has it. `answered` says
    whether the agent of the task's own pod answered, and `reported` is its report, None if it does not know the
    task."""

    engine: KnownEngine | None
    answered: bool = False
    reported: dict[str, Any] | None = None


class ExecutionJournal:
    """The journal. Without a database it keeps nothing; then only the agents know their tasks."""

    def __init__(
        self,
        history: History,
        *,
        writer: Writer | None = None,
        store: Store | None = None,
        clock: Callable[[], float] = time.time,
        counts: TaskCounts | None = None,
    ) -> None:
        self._history = history
        self._writer = writer
        self._store = store
        self._clock = clock
        self._counts = counts
        # Ids of tasks whose end is counted: an end is seen by the call that waits, by others that ask, and by settlers.
        self._counted: OrderedDict[str, None] = OrderedDict()

    def accepted(self, engine: KnownEngine, *, task_id: str, caller: str, run_type: str, code: str) -> ExecutionRecord:
        """Record a request that is about to be sent to its engine."""
        record = ExecutionRecord(
            task_id=task_id,
            ticket_id=engine.ticket_id,
            uid=engine.uid,
            attempt=engine.attempt,
            caller=caller,
            run_type=run_type,
            code_sha256=hashlib.sha256(code.encode(errors="replace")).hexdigest(),
            code_chars=len(code),
            status="Accepted",
            accepted=self._clock(),
        )
        self.write(record)
        return record

    def ended(self, record: ExecutionRecord, reported: dict[str, Any]) -> None:
        """Record a task that has ended, as the agent reported it."""
        self.write(with_report(record, reported))

    def refused(self, record: ExecutionRecord, why: Refused) -> None:
        """Record a request that its engine refused: the code has not run."""
        now = self._clock()
        self.write(replace(record, status="Failed", reason=REFUSED, message=why.sentence, ended=now))

    def write(self, record: ExecutionRecord) -> None:
        """Queue the record for the database, and count the task if it has ended."""
        if record.final:
            self._count(record)
        if self._writer is not None:
            self._writer.offer(record)

    def _count(self, record: ExecutionRecord) -> None:
        if self._counts is None or record.task_id in self._counted:
            return
        if record.cannot_change:
            # One that was refused may be sent again, and then ends a second time.
            self._counted[record.task_id] = None
            while len(self._counted) > COUNTED_MAX:
                self._counted.popitem(last=False)
        waited, seconds = task_times(record, self._clock())
        outcome = record.status if record.cannot_change else REFUSED
        self._counts.ended(record.ticket_id, outcome, seconds=seconds, waited=waited)

    async def find(self, task_id: str) -> ExecutionRecord | None:
        """The task's record. Raises Refused where the database does not answer."""
        if self._writer is not None and (waiting := self._writer.pending(task_id)) is not None:
            return waiting
        store = self._store
        return None if store is None else await self._history.query(lambda: store.execution(task_id))

    async def of_engine(self, engine: KnownEngine, limit: int) -> list[ExecutionRecord]:
        """An engine's records (`belongs`), the newest first. Raises Refused."""
        store = self._store
        if store is None:
            return []
        found = await self._history.query(
            lambda: store.executions(engine.ticket_id, limit, uid=engine.uid, user=engine.user)
        )
        return [record for record in found if belongs(record, engine)]

    async def settle(self, record: ExecutionRecord, observation: Observation) -> ExecutionRecord:
        """`settle_all` for one record."""
        return (await self.settle_all([(record, observation)]))[0]

    async def settle_all(self, seen: Sequence[tuple[ExecutionRecord, Observation]]) -> list[ExecutionRecord]:
        """The records as they follow from what was seen (`settled`), and as the database keeps them. Of a task that has
        ended this is the first end that any gateway has written. Raises Refused where the database does not answer:
        an end that it does not have might be told otherwise by the next one who is asked."""
        now = self._clock()
        found = [settled(record, observation, now) for record, observation in seen]
        changed = [after for (record, _), after in zip(seen, found, strict=True) if after != record]
        ends = {after.task_id: after for after in changed if after.final}
        for after in changed:
            if not after.final:
                self.write(after)
        if not ends:
            return found
        kept = await self._first_ends(ends)
        return [kept.get(after.task_id, after) for after in found]

    async def _first_ends(self, ends: dict[str, ExecutionRecord]) -> dict[str, ExecutionRecord]:
        """The first end of each of these tasks, by their ids. Raises Refused."""
        store, writer = self._store, self._writer
        if store is None or writer is None:
            for record in ends.values():
                self.write(record)
            return ends

        def keep() -> dict[str, ExecutionRecord]:
            known = {record.task_id: record for record in store.executions_by_id(list(ends)) if record.final}
            missing = [record for task_id, record in ends.items() if task_id not in known]
            if missing:
                writer.end(missing)
                known = {record.task_id: record for record in store.executions_by_id(list(ends))}
            return known

        kept = ends | await self._history.query(keep)
        for task_id, record in ends.items():
            # Another's end was counted by the gateway that wrote it.
            if (kept[task_id].status, kept[task_id].reason) == (record.status, record.reason) and is_same_moment(
                kept[task_id].ended, record.ended
            ):
                self._count(kept[task_id])
        return kept

    async def open(self) -> Sequence[ExecutionRecord]:
        """Records of tasks that were accepted at least OPEN_SECONDS ago and have not ended. Raises Refused."""
        store = self._store
        before = self._clock() - OPEN_SECONDS
        return [] if store is None else await self._history.query(lambda: store.open_executions(before, BATCH))

    async def purge(self) -> int:
        """Delete records older than KEPT_DAYS and return their number. Raises Refused."""
        writer = self._writer
        before = self._clock() - KEPT_DAYS * 86400
        return 0 if writer is None else await self._history.query(lambda: writer.purge(before))

    def now(self) -> float:
        return self._clock()


def task_times(record: ExecutionRecord, now: float) -> tuple[float | None, float | None]:
    """Seconds for which an ended task has waited and run; None where it is not known. Pure.

    The agent's times are those of a pod whose code its user controls: neither is more than the time since the gateway
    has accepted the task.
    """
    if not record.is_complete or not record.started:
        return None, None
    most = max(0.0, now - record.accepted)
    waited = min(max(0.0, record.started - record.accepted), most)
    seconds = min(max(0.0, record.ended - record.started), most) if record.ended else None
    return waited, seconds


def with_report(record: ExecutionRecord, reported: dict[str, Any]) -> ExecutionRecord:
    """The record, updated by the agent's report of the task. The user's code controls the pod, so values that no agent
    sends are ignored."""
    status = reported.get("status")
    outputs = reported.get("outputs")
    parts = [part for part in outputs if isinstance(part, dict)] if isinstance(outputs, list) else []
    error = next((part for part in reversed(parts) if part.get("type") == "error"), None)
    if error is None and isinstance(reported.get("reason"), str):
        # A report without outputs.
        error = {"name": reported["reason"], "value": reported.get("message")}
    return replace(
        record,
        status=status if isinstance(status, str) and status in REPORTED_STATUSES else record.status,
        reason=(str(error.get("name") or "")[:100] if error else "") or record.reason,
        message=(str(error.get("value") or "")[:500] if error else "") or record.message,
        started=moment(reported.get("startedAt")) or record.started,
        ended=moment(reported.get("endedAt")) or record.ended,
    )


def is_same_moment(one: float, other: float) -> bool:
    """Whether both are the same in microseconds, as the database keeps them."""
    return round(one * 1e6) == round(other * 1e6)


def belongs(record: ExecutionRecord, engine: KnownEngine) -> bool:
    """Whether the record is of this engine, or of its user and an earlier engine with this ticket. The ticket alone
    does not say so: after an engine was deleted, an engine of another user may have its ticket."""
    if record.ticket_id != engine.ticket_id:
        return False
    return (bool(engine.uid) and record.uid == engine.uid) or record.caller == engine.user


def settled(record: ExecutionRecord, observation: Observation, now: float) -> ExecutionRecord:
    """The record as it follows from the observation. Pure. A task that may still run keeps its record unchanged."""
    if record.final:
        return record
    if observation.reported is not None:
        return with_report(record, observation.reported)
    engine = observation.engine
    if observation.answered and now - record.accepted >= OPEN_SECONDS:
        # A younger one may be on its way to the agent.
        return _lost_record(
            record, now, "Unknown", "the engine's agent knows no such task: it was never taken, or forgotten"
        )
    if engine is None:
        return _lost_record(record, now, "EngineGone", "the engine is gone, and nothing of this task was heard from it")
    if engine.uid and engine.uid != record.uid:
        return _lost_record(record, now, "EngineGone", "the engine was deleted and made anew")
    if engine.is_final:
        why = engine.message or engine.reason or "no reason was given"
        return _lost_record(
            record, now, engine.reason or "EngineEnded", f"the engine ended while the task was open: {why}"
        )
    if engine.in_cluster and engine.attempt > record.attempt:
        # A pod that is older than the task's says that this gateway's watch is behind.
        return _lost_record(record, now, "EngineRestarted", "the engine's pod was replaced while the task was open")
    return record


def _lost_record(record: ExecutionRecord, now: float, reason: str, message: str) -> ExecutionRecord:
    return replace(record, status="Lost", reason=reason, message=message, ended=now)


class Settler:
    """Settles open records periodically. Several gateways may do so at a time: the outcome is the same."""

    def __init__(
        self,
        journal: ExecutionJournal,
        *,
        engine: Callable[[str], Awaitable[KnownEngine | None]],
        get_task: Callable[[KnownEngine, str], Awaitable[dict[str, Any]]],
        rng: random.Random | None = None,
    ) -> None:
        self._journal = journal
        self._engine = engine
        self._get_task = get_task
        self._rng = rng or random.Random()  # noqa: S311 - jitter

    async def run(self) -> None:
        """Repeat passes until cancelled."""
        while True:
            await asyncio.sleep(SETTLE_SECONDS * self._rng.uniform(0.75, 1.25))
            try:
                await self.run_once()
                await self._journal.purge()
            except Refused as refusal:
                log.warning("the execution journal cannot be settled now: %s", refusal.sentence)

    async def run_once(self) -> int:
        """One pass. Returns how many records it ended. Raises Refused if the database does not answer."""
        changed = 0
        for record in await self._journal.open():
            try:
                after = await self._journal.settle(record, await self.observe(record))
            except Refused:
                raise
            except Exception:
                # A record that cannot be settled must not keep the others open.
                log.exception("task %s cannot be settled", record.task_id)
                continue
            changed += after.final
        return changed

    async def observe(self, record: ExecutionRecord) -> Observation:
        """Observe the task's engine, and its agent if the task's own pod still runs."""
        engine = await self._engine(record.ticket_id)
        if engine is None or not can_ask_agent(engine) or (engine.uid, engine.attempt) != (record.uid, record.attempt):
            return Observation(engine)
        try:
            return Observation(engine, answered=True, reported=await self._get_task(engine, record.task_id))
        except AgentNotFound:
            return Observation(engine, answered=True)
        except Refused:
            return Observation(engine)  # no answer now: the next pass asks again

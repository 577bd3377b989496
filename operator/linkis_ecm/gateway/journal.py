"""The execution journal as the gateway keeps it: each request to run code, and the definite word on how it ended.

A line is written beside the work, never before it. What a crash leaves open is settled afterwards: `settled` decides
from what the engine and its agent say, `Settler` asks them. Must not run code.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from linkis_ecm.agent_client.errors import AgentNotFound
from linkis_ecm.gateway.agents.link import has_agent
from linkis_ecm.gateway.http.errors import Refused
from linkis_ecm.gateway.inventory.history import History, PastEngine
from linkis_ecm.gateway.inventory.view import EngineView
from linkis_ecm.model.record import REFUSED, ExecutionRecord

log = logging.getLogger(__name__)

# A task that was accepted longer ago than this and has no end is asked about; whoever waits for it does so himself.
OPEN_FOR = 30.0
EVERY = 15.0
BATCH = 200
# How long ended tasks are remembered in the database.
KEPT_DAYS = 30
# What an agent may say of a task; that it is lost is for us to say.
TOLD = frozenset({"Accepted", "Scheduled", "Running", "Succeed", "Failed", "Cancelled", "Timeout"})
_LAST_SECOND = 1e11


class Store(Protocol):
    """The journal in the database; the calls block."""

    def execution(self, task_id: str) -> ExecutionRecord | None: ...

    def executions(self, ticket: str, limit: int) -> list[ExecutionRecord]: ...

    def open_executions(self, before: float, limit: int) -> list[ExecutionRecord]: ...


class Writer(Protocol):
    """The way of lines into the database; `offer` never blocks."""

    def offer(self, record: ExecutionRecord) -> None: ...

    def pending(self, task_id: str) -> ExecutionRecord | None: ...

    def purge(self, before: float) -> int: ...


@dataclass(frozen=True, slots=True)
class Found:
    """What was heard of a task: `engine` as the cluster or the database has it (None: nobody knows it), and the agent's
    word; `asked` tells whether the agent of the very pod that had the task has answered."""

    engine: EngineView | PastEngine | None
    asked: bool = False
    told: dict[str, Any] | None = None


class Executions:
    """The journal; without a database only the agents know."""

    def __init__(
        self,
        history: History,
        *,
        writer: Writer | None = None,
        store: Store | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._history = history
        self._writer = writer
        self._store = store
        self._clock = clock

    def accepted(self, engine: EngineView, *, task_id: str, caller: str, run_type: str, code: str) -> ExecutionRecord:
        """Note a request that is about to be sent to its engine."""
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
        self.note(record)
        return record

    def ended(self, record: ExecutionRecord, told: dict[str, Any]) -> None:
        """Note the agent's word on a task that has ended."""
        self.note(by_agent(record, told))

    def refused(self, record: ExecutionRecord, why: Refused) -> None:
        """Note a request that its engine did not take: it has not run."""
        now = self._clock()
        self.note(replace(record, status="Failed", reason=REFUSED, message=why.sentence, ended=now))

    def note(self, record: ExecutionRecord) -> None:
        if self._writer is not None:
            self._writer.offer(record)

    async def find(self, task_id: str) -> ExecutionRecord | None:
        """The task's line. Raises Refused where the database does not answer."""
        if self._writer is not None and (waiting := self._writer.pending(task_id)) is not None:
            return waiting
        store = self._store
        return None if store is None else await self._history.ask(lambda: store.execution(task_id))

    async def of_engine(self, ticket: str, limit: int) -> list[ExecutionRecord]:
        """An engine's lines, the newest first. Raises Refused."""
        store = self._store
        return [] if store is None else await self._history.ask(lambda: store.executions(ticket, limit))

    async def open(self) -> Sequence[ExecutionRecord]:
        """Tasks without an end, that should have one or are long. Raises Refused."""
        store = self._store
        before = self._clock() - OPEN_FOR
        return [] if store is None else await self._history.ask(lambda: store.open_executions(before, BATCH))

    async def purge(self) -> int:
        """Takes away what is too old. Raises Refused."""
        writer = self._writer
        before = self._clock() - KEPT_DAYS * 86400
        return 0 if writer is None else await self._history.ask(lambda: writer.purge(before))

    def now(self) -> float:
        return self._clock()


def by_agent(record: ExecutionRecord, told: dict[str, Any]) -> ExecutionRecord:
    """The line with what the agent says of the task. The engine's pod is its user's ground: words that are none of an
    agent's are left out."""
    status = told.get("status")
    outputs = told.get("outputs")
    parts = [part for part in outputs if isinstance(part, dict)] if isinstance(outputs, list) else []
    error = next((part for part in reversed(parts) if part.get("type") == "error"), None)
    return replace(
        record,
        status=status if isinstance(status, str) and status in TOLD else record.status,
        reason=str(error.get("name") or "")[:100] if error else record.reason,
        message=str(error.get("value") or "")[:500] if error else record.message,
        started=_seconds(told.get("startedAt")) or record.started,
        ended=_seconds(told.get("endedAt")) or record.ended,
    )


def settled(record: ExecutionRecord, found: Found, now: float) -> ExecutionRecord:
    """The line as it has to be now. Pure; a task that may still run stays as it is."""
    if record.final:
        return record
    if found.told is not None:
        return by_agent(record, found.told)
    engine = found.engine
    if found.asked:
        return _lost(record, now, "Unknown", "the engine's agent knows no such task: it was never taken, or forgotten")
    if engine is None:
        return _lost(record, now, "EngineGone", "the engine is gone, and nothing of this task was heard from it")
    if engine.uid and engine.uid != record.uid:
        return _lost(record, now, "EngineGone", "the engine was deleted and made anew")
    if engine.is_final:
        why = engine.message or engine.reason or "no reason was given"
        return _lost(record, now, engine.reason or "EngineEnded", f"the engine ended while the task was open: {why}")
    if isinstance(engine, EngineView) and engine.attempt != record.attempt:
        return _lost(record, now, "EngineRestarted", "the engine's pod was replaced while the task was open")
    return record


def _lost(record: ExecutionRecord, now: float, reason: str, message: str) -> ExecutionRecord:
    return replace(record, status="Lost", reason=reason, message=message, ended=now)


def _seconds(value: Any) -> float:
    """A time of an agent's; 0 for what is none that a row can hold."""
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _LAST_SECOND
    return float(value) if usable else 0.0


class Settler:
    """Goes through the open lines now and then; any number of gateways may, it is the same each time."""

    def __init__(
        self,
        executions: Executions,
        *,
        engine: Callable[[str], Awaitable[EngineView | PastEngine | None]],
        ask: Callable[[EngineView, str], Awaitable[dict[str, Any]]],
        rng: random.Random | None = None,
    ) -> None:
        self._executions = executions
        self._engine = engine
        self._ask = ask
        self._rng = rng or random.Random()  # noqa: S311 - jitter

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY * self._rng.uniform(0.75, 1.25))
            try:
                await self.once()
                await self._executions.purge()
            except Refused as refusal:
                log.warning("the execution journal cannot be settled now: %s", refusal.sentence)

    async def once(self) -> int:
        """One pass; how many lines have changed. Raises Refused where the database does not answer."""
        changed = 0
        for record in await self._executions.open():
            try:
                after = settled(record, await self.look(record), self._executions.now())
            except Refused:
                raise
            except Exception:
                # One line that nobody foresaw must not leave all others open.
                log.exception("task %s cannot be settled", record.task_id)
                continue
            if after != record:
                self._executions.note(after)
                changed += after.final
        return changed

    async def look(self, record: ExecutionRecord) -> Found:
        """What can be heard of a task now."""
        engine = await self._engine(record.ticket_id)
        same = isinstance(engine, EngineView) and engine.uid == record.uid and engine.attempt == record.attempt
        if engine is None or not has_agent(engine) or not same:
            return Found(engine)
        try:
            return Found(engine, asked=True, told=await self._ask(engine, record.task_id))
        except AgentNotFound:
            return Found(engine, asked=True)
        except Refused:
            return Found(engine)  # it does not answer now: next time

"""The control loop: for each engine a pass of snapshot → decide → execute → record. Level-triggered and crash-only.

What it remembers between passes may be lost at any time: it saves questions, never changes an answer. It writes only
while `leading`, which the operator sets once the caches are filled and the Lease is held.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Protocol

from linkis_ecm.controller import metrics
from linkis_ecm.controller.cache import Cache, Key
from linkis_ecm.controller.executor import Executor
from linkis_ecm.controller.queue import WorkQueue
from linkis_ecm.engine.deadlines import Deadlines
from linkis_ecm.engine.decide import decide
from linkis_ecm.engine.decision import (
    Action,
    ConfirmPod,
    CreateFailure,
    CreatePod,
    Decision,
    DeleteEngine,
    DeletePod,
    Settings,
    Snapshot,
    Stop,
    StopAgent,
)
from linkis_ecm.engine.project import farewell
from linkis_ecm.engine.times import parse_time
from linkis_ecm.engine.view import EngineView, PodView, Report
from linkis_ecm.kube.client import ApiError
from linkis_ecm.model import reasons
from linkis_ecm.model.record import EngineRecord
from linkis_ecm.model.states import FINAL, EngineState

log = logging.getLogger(__name__)

# Passes are mostly waits for the API server: enough that a slow one does not hold the rest, few enough to be fair.
WORKERS = 16
# A failed pass is repeated after 0.2 s, doubling to a minute.
BACKOFF_BASE, BACKOFF_CAP = 0.2, 60.0


class RecordSink(Protocol):
    """Where records go; never blocks, never raises."""

    def offer(self, record: EngineRecord) -> None: ...


@dataclass(slots=True)
class Memory:
    """What this process remembers of one engine (of that uid)."""

    uid: str
    report: Report | None = None
    failure: CreateFailure | None = None
    stop: Stop | None = None
    pod_gone: bool = False
    seen: dict[str, datetime] = field(default_factory=dict)
    errors: int = 0
    offered: EngineRecord | None = None


class Reconciler:
    """`notice` keys, `run` until cancelled. Clocks, randomness and everything that acts are handed in."""

    def __init__(
        self,
        *,
        cache: Cache,
        executor: Executor,
        sink: RecordSink,
        settings: Settings,
        clock: Callable[[], datetime],
        rng: random.Random,
        workers: int = WORKERS,
    ) -> None:
        self._cache = cache
        self._executor = executor
        self._sink = sink
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._workers = workers
        self._deadlines = Deadlines()
        self._sooner = asyncio.Event()
        self._memory: dict[Key, Memory] = {}
        self.queue = WorkQueue(clock=lambda: asyncio.get_running_loop().time())
        self.leading = asyncio.Event()
        # Asked before each pass: the Lease may have run out while the loop was busy.
        self.may_write: Callable[[], bool] = self.leading.is_set
        metrics.POISON.set_function(lambda: float(sum(m.errors > 3 for m in self._memory.values())))
        for state in EngineState:
            metrics.ENGINES.labels(state.value).set_function(partial(self._engines_in, state))

    # What comes in.

    def notice(self, key: Key) -> None:
        """Something about the engine may have changed."""
        self.queue.add(key)

    def notice_all(self) -> None:
        """Everything may have changed: after a list, on becoming leader, when the catalogue changed."""
        for key in self._cache.engines:
            self.queue.add(key)

    def notice_pod(self, pod: PodView) -> None:
        """A pod came, changed or went: its engine is looked at."""
        if pod.owner_name:
            self.queue.add((pod.namespace, pod.owner_name))

    def take_report(self, engine: EngineView, report: Report) -> None:
        """The agent's word, checked by `reports`; the last one counts."""
        memory = self._of(engine)
        before = memory.report
        memory.report = report
        # Only a change needs a pass: usage is read when there is something else to write.
        if before is None or (before.state, before.reason) != (report.state, report.reason):
            self.queue.add(engine.key)

    def last_report(self, engine: EngineView) -> Report | None:
        """The last report of that engine, if there was one."""
        return self._of(engine).report

    def forget(self, engine: EngineView) -> None:
        """The engine's resource is gone: its row gets its last word, unless it had it."""
        memory = self._of(engine)
        self._memory.pop(engine.key, None)
        self._deadlines.set(engine.key, None)
        if not self.leading.is_set() or engine.state in FINAL:
            return
        record = decide(self._snapshot(engine, memory), self._clock(), self._settings).record
        if record is not None:
            # That its pod went with it is the deletion's own doing.
            by_itself = record.final and record.reason != reasons.POD_DELETED.name
            self._sink.offer(record if by_itself else farewell(record, self._clock()))

    # What goes on.

    async def run(self) -> None:
        """Workers and the clock, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_deadlines())
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _watch_deadlines(self) -> None:
        while True:
            now = self._clock().timestamp()
            for key in self._deadlines.pop_due(now):
                self.queue.add(key)
            due = self._deadlines.next()
            self._sooner.clear()
            try:
                # An hour at most, so that a clock that jumped is noticed.
                async with asyncio.timeout(min(3600.0, max(0.0, due - now)) if due is not None else 3600.0):
                    await self._sooner.wait()
            except TimeoutError:
                pass

    async def _work(self) -> None:
        while True:
            await self.leading.wait()
            key = await self.queue.get()
            try:
                if self.may_write():
                    with metrics.PASS_SECONDS.time():
                        await self._guarded(key)
                else:
                    self._set_deadline(key, self._clock().timestamp() + 1.0)
            finally:
                self.queue.done(key)

    async def _guarded(self, key: Key) -> None:
        """One pass; whatever goes wrong stays with this engine and is tried again, ever more slowly."""
        try:
            await self.process(key)
        except Exception as error:
            engine = self._cache.engines.get(key)
            if engine is None:
                return
            memory = self._of(engine)
            memory.errors += 1
            metrics.PASS_ERRORS.labels(type(error).__name__).inc()
            if isinstance(error, ApiError):
                log.warning("%s: %s", key, error)
            else:
                log.exception("%s: the pass failed", key)
            delay = min(BACKOFF_CAP, BACKOFF_BASE * 2 ** min(memory.errors - 1, 20)) * self._rng.uniform(0.75, 1.25)
            self._set_deadline(key, self._clock().timestamp() + delay)
        else:
            if (engine := self._cache.engines.get(key)) is not None:
                self._of(engine).errors = 0

    async def process(self, key: Key) -> None:
        """One pass over one engine."""
        engine = self._cache.engines.get(key)
        if engine is None:
            return
        memory = self._of(engine)
        snapshot = self._snapshot(engine, memory)
        decision = decide(snapshot, self._clock(), self._settings)
        memory.stop = decision.stop
        self._set_deadline(key, decision.deadline)
        go_on = True
        for action in decision.actions:
            go_on = await self._perform(engine, memory, snapshot, action) and go_on
        if not go_on:
            # What was learned changes the decision: nothing of this one is written.
            self.queue.add(key)
            return
        if decision.patch:
            if not await self._executor.patch_status(engine, decision.patch):
                return
            self._count(engine, decision)
            # What was written is looked at once more: its own deadlines begin now. A settled pass makes no call.
            self.queue.add(key)
        if decision.record is not None and decision.record != memory.offered:
            memory.offered = decision.record
            self._sink.offer(decision.record)

    async def _perform(self, engine: EngineView, memory: Memory, snapshot: Snapshot, action: Action) -> bool:
        """Does one action; False where the decision must be made anew before it is written down."""
        match action:
            case CreatePod():
                if snapshot.plugin is None:
                    raise ValueError(f"{engine.key}: a pod without a plugin")
                memory.failure = await self._executor.create_pod(engine, snapshot.plugin, action)
                return memory.failure is None
            case DeletePod():
                await self._executor.delete_pod(engine, action)
            case ConfirmPod():
                memory.pod_gone = not await self._executor.confirm_pod(engine, action)
                return False
            case StopAgent():
                if not await self._executor.stop_agent(engine, action) and memory.stop is not None:
                    log.info("%s: its agent will be asked again", engine.key)
            case DeleteEngine():
                await self._executor.delete_engine(engine, action)
        return True

    def _snapshot(self, engine: EngineView, memory: Memory) -> Snapshot:
        pod = self._cache.pod_of(engine)
        now = self._clock()
        if not engine.status:
            memory.seen.setdefault("accepted", now)
        if pod is not None:
            memory.pod_gone = False
            if pod.node:
                memory.seen.setdefault("scheduled", now)
            if pod.started is not None:
                memory.seen.setdefault("containerStarted", now)
        return Snapshot(
            engine=engine,
            pod=pod,
            plugin=self._cache.plugin_for(engine.spec),
            report=memory.report,
            failure=memory.failure,
            stop=memory.stop,
            pod_gone=memory.pod_gone,
            seen=dict(memory.seen),
        )

    def _of(self, engine: EngineView) -> Memory:
        memory = self._memory.get(engine.key)
        if memory is None or memory.uid != engine.uid:
            memory = self._memory[engine.key] = Memory(engine.uid)
        return memory

    def _set_deadline(self, key: Key, at: float | None) -> None:
        self._deadlines.set(key, at)
        self._sooner.set()

    def _count(self, engine: EngineView, decision: Decision) -> None:
        if decision.state in FINAL:
            metrics.ENDS.labels(decision.reason).inc()
        elif "readyTime" in decision.patch:
            accepted = self._of(engine).seen.get("accepted")
            if accepted is not None:
                metrics.START_SECONDS.observe((self._clock() - accepted).total_seconds())

    def _engines_in(self, state: EngineState) -> float:
        return float(sum(engine.state is state for engine in self._cache.engines.values()))


def changed_at(previous: Report | None, engine: EngineView, state: EngineState, now: datetime) -> datetime:
    """When the engine entered a reported state, by this operator's clock; the status tells it after a restart."""
    if previous is not None and previous.state == state:
        return previous.changed
    if previous is None and engine.state == state:
        return parse_time(engine.text("stateSince")) or now
    return now

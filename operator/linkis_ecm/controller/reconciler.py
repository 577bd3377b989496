"""What an engine needs: one pass of snapshot -> decide -> execute -> record. Level-triggered and crash-only.

When a pass runs, and what follows a failure, is `controller.worker`'s. What is remembered between passes may be lost at
any time. Must not decide anything itself: that is `engine.decide`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from linkis_ecm.controller.announcer import Announcer, Recorder
from linkis_ecm.controller.cache import Cache, Key
from linkis_ecm.controller.evidence import EvidenceKeeper
from linkis_ecm.controller.executor import Executor
from linkis_ecm.controller.memory import Memory
from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.report_path import ReportPath
from linkis_ecm.controller.worker import WORKERS, Result, Worker
from linkis_ecm.engine.agent_report import BadReport, report_of
from linkis_ecm.engine.conditions import pass_failed, says_pass_failed
from linkis_ecm.engine.decide import decide
from linkis_ecm.engine.decision import (
    Action,
    AskAgent,
    AskNode,
    Collect,
    ConfirmPod,
    CreatePod,
    DeleteEngine,
    DeletePod,
    Settings,
    Snapshot,
    StopAgent,
)
from linkis_ecm.engine.project import final_record
from linkis_ecm.engine.view import EngineView, PodView, Report
from linkis_ecm.kube.client import ApiError
from linkis_ecm.model import reasons
from linkis_ecm.model.record import EngineRecord
from linkis_ecm.model.states import FINAL

log = logging.getLogger(__name__)

NAME = "engine"


class RecordSink(Protocol):
    """Where records go; never blocks, never raises."""

    def offer(self, record: EngineRecord) -> None: ...


class Reconciler:
    """`enqueue` keys, `run` until cancelled.

    `leading` is set once the caches are filled and the Lease is held. `may_write` is asked before each pass: the Lease
    may have run out while the event loop was busy.
    """

    def __init__(
        self,
        *,
        cache: Cache,
        executor: Executor,
        sink: RecordSink,
        evidence: EvidenceKeeper,
        recorder: Recorder,
        settings: Settings,
        leading: asyncio.Event,
        may_write: Callable[[], bool],
        clock: Callable[[], datetime],
        rng: random.Random,
        metrics: Metrics,
        workers: int = WORKERS,
    ) -> None:
        self._cache = cache
        self._executor = executor
        self._sink = sink
        self._evidence = evidence
        self._settings = settings
        self._clock = clock
        self._memory: dict[Key, Memory] = {}
        self._announcer = Announcer(recorder=recorder, metrics=metrics)
        self._report_path = ReportPath(
            engines=cache.engines, memory=self._memory, silent_after=settings.silent_after, clock=clock, metrics=metrics
        )
        self.leading = leading
        self.worker: Worker[Key] = Worker(
            lambda key: self.process(key),  # noqa: PLW0108 - looked up at each call, so that a test can replace it
            name=NAME, leading=leading, may_write=may_write, clock=clock, rng=rng, metrics=metrics.worker,
            outages=(ApiError,), on_poison=self._report_poison, workers=workers,
        )  # fmt: skip
        metrics.watch_engines(cache.engines)

    # What comes in.

    def enqueue(self, key: Key) -> None:
        """Something about the engine may have changed."""
        self.worker.enqueue(key)

    def enqueue_all(self) -> None:
        """Everything may have changed: after a list, on becoming leader, when the catalogue changed."""
        for key in self._cache.engines:
            self.worker.enqueue(key)

    def pod_changed(self, pod: PodView) -> None:
        """A pod was made or changed: its engine gets a pass."""
        if pod.owner_name:
            self.worker.enqueue((pod.namespace, pod.owner_name))

    def pod_deleted(self, pod: PodView) -> None:
        """A pod is gone; `pod` is as the watch showed it last."""
        engine = self._cache.engines.get((pod.namespace, pod.owner_name))
        if engine is not None and engine.uid == pod.owner_uid:
            self._memory_of(engine).last_pod = pod
        self.pod_changed(pod)

    def take_report(self, engine: EngineView, report: Report) -> None:
        """An agent's report, checked by `reports`; the last one counts."""
        memory = self._memory_of(engine)
        before = memory.report
        memory.report = report
        was_asked = memory.unanswered > 0
        memory.record_contact(self._clock())
        # Only a change needs a pass: usage is read when there is something else to write.
        if was_asked or before is None or _essence(report) != _essence(before):
            self.worker.enqueue(engine.key)

    def record_contact(self, engine: EngineView) -> None:
        """The agent is alive, and reported nothing new."""
        self._memory_of(engine).record_contact(self._clock())

    def last_report(self, engine: EngineView) -> Report | None:
        """The last report of that engine, if there was one."""
        return self._memory_of(engine).report

    def engine_deleted(self, engine: EngineView) -> None:
        """The engine's resource is gone: its final record is offered, unless the database has it."""
        memory = self._memory_of(engine)
        self._memory.pop(engine.key, None)
        self.worker.remove(engine.key)
        self._evidence.engine_deleted(engine)
        if not self.leading.is_set() or engine.state in FINAL:
            return
        record = decide(self._snapshot(engine, memory), self._clock(), self._settings).record
        if record is not None:
            # A pod that went with its engine is the deletion's own doing.
            ended_before = record.final and record.reason != reasons.POD_DELETED.name
            self._sink.offer(record if ended_before else final_record(record, self._clock()))

    def offered(self) -> list[tuple[Key, EngineRecord]]:
        """The record last offered to the database, of each engine that is there."""
        return [(key, memory.offered) for key, memory in self._memory.items() if memory.offered is not None]

    async def run(self) -> None:
        """Reconciles until cancelled."""
        await self.worker.run()

    # One pass.

    async def process(self, key: Key) -> Result:
        """One pass over one engine. Raises ApiError where the API server does not take a write."""
        engine = self._cache.engines.get(key)
        if engine is None:
            return Result()
        memory = self._memory_of(engine)
        decision = decide(self._snapshot(engine, memory), self._clock(), self._settings)
        memory.stop = decision.stop
        result = Result(requeue_at=decision.deadline)
        go_on = True
        for action in decision.actions:
            if not isinstance(action, DeletePod):
                go_on = await self._perform(engine, memory, action) and go_on
        if not go_on:
            # What was learned changes the decision: nothing of this one is written.
            self.worker.enqueue(key)
            return result
        if decision.patch:
            if not await self._executor.patch_status(engine, decision.patch):
                return result
            self._announcer.announce(engine, decision)
            if decision.patch.get("attempt") not in (None, engine.status.get("attempt") or 0):
                memory.next_attempt(self._clock())
            # One more pass over what was written: its own deadlines begin now. A settled pass makes no call.
            self.worker.enqueue(key)
        if decision.record is not None and decision.record != memory.offered:
            memory.offered = decision.record
            self._sink.offer(decision.record)
        # Last: a crash, or a refused write, after a deletion would leave a pod that is gone and no reason for it. The
        # status that is written asks for the deletion again.
        for action in decision.actions:
            if isinstance(action, DeletePod) and await self._executor.delete_pod(engine, action):
                self.worker.enqueue(key)
        return result

    async def _perform(self, engine: EngineView, memory: Memory, action: Action) -> bool:
        """Does one action; False where the decision must be made anew before it is written down."""
        match action:
            case CreatePod():
                memory.failure = await self._executor.create_pod(engine, action)
                return memory.failure is None
            case ConfirmPod():
                memory.pod_gone = not await self._executor.confirm_pod(engine, action)
                return False
            case StopAgent():
                if not await self._executor.stop_agent(engine, action) and memory.stop is not None:
                    log.info("%s: its agent will be asked again", engine.key)
            case AskAgent():
                await self._ask(engine, memory, action)
                return False
            case AskNode():
                memory.node = await self._executor.ask_node(action)
                return False
            case Collect():
                memory.evidence = await self._evidence.collect(engine, action, memory.report)
                return False
            case DeleteEngine():
                await self._executor.delete_engine(engine, action)
        return True

    async def _ask(self, engine: EngineView, memory: Memory, action: AskAgent) -> None:
        """Asks an agent that does not report for its status; its answer counts as a report."""
        memory.unanswered += 1
        memory.asked = self._clock()
        answer = await self._executor.ask_agent(engine, action)
        if answer is None:
            return
        try:
            report = report_of(answer, engine, memory.report, self._clock())
        except BadReport as error:
            log.warning("%s: its agent's answer cannot be read: %s", engine.key, error)
            return
        log.info("%s: its agent did not report, and answers", engine.key)
        memory.report = report
        memory.record_contact(self._clock())

    async def _report_poison(self, key: Key, error: Exception) -> None:
        """Writes on the engine itself that its passes fail: one write, as long as its status says so."""
        engine = self._cache.engines.get(key)
        if engine is None or says_pass_failed(engine.status.get("conditions")):
            return
        conditions = pass_failed(
            engine.status.get("conditions"),
            f"{type(error).__name__}: {error}",
            now=self._clock(),
            generation=engine.generation,
        )
        try:
            await self._executor.patch_status(engine, {"conditions": conditions})
        except Exception as problem:
            log.warning("%s: that its passes fail could not be written: %s", key, problem)

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
            last_pod=memory.last_pod,
            others=self._cache.other_pods(engine, pod),
            silence=memory.silence,
            evidence=memory.evidence,
            report_path_down=memory.unanswered > 0 and self._report_path.is_down(),
            seen=dict(memory.seen),
        )

    def _memory_of(self, engine: EngineView) -> Memory:
        memory = self._memory.get(engine.key)
        if memory is None or memory.uid != engine.uid:
            memory = self._memory[engine.key] = Memory(engine.uid, self._clock())
        return memory


def _essence(report: Report) -> tuple[object, ...]:
    """The part of a report whose change needs a pass."""
    return report.state, report.reason, report.active, report.last_task_ended

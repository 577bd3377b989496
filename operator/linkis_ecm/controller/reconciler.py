"""The control loop: for each engine a pass of snapshot → decide → execute → record. Level-triggered and crash-only.

What it remembers between passes may be lost at any time: it saves questions, never changes an answer. It writes only
while `leading`, which the operator sets once the caches are filled and the Lease is held.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, Protocol

from linkis_ecm.controller import metrics
from linkis_ecm.controller.cache import Cache, Key
from linkis_ecm.controller.deadline_heap import Deadlines
from linkis_ecm.controller.evidence import EvidenceKeeper
from linkis_ecm.controller.executor import Executor
from linkis_ecm.controller.memory import Memory
from linkis_ecm.controller.queue import WorkQueue
from linkis_ecm.engine import launch
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
    Decision,
    DeleteEngine,
    DeletePod,
    Settings,
    Snapshot,
    StopAgent,
)
from linkis_ecm.engine.project import final_record
from linkis_ecm.engine.times import since_accepted
from linkis_ecm.engine.view import EngineView, PodView, Report
from linkis_ecm.kube.client import ApiError
from linkis_ecm.model import reasons
from linkis_ecm.model.engineconn import API_VERSION
from linkis_ecm.model.record import EngineRecord
from linkis_ecm.model.states import AVAILABLE, FINAL, EngineState

log = logging.getLogger(__name__)

# Passes are mostly waits for the API server: enough that a slow one does not hold the rest, few enough to be fair.
WORKERS = 16
# An engine whose passes failed so often in a row is called poison: on itself, in the log and in a metric.
POISON_FROM = 3
# So many silent agents at once, if they are most of those that are up, say that we cannot hear.
DEAF_FROM = 5
# A failed pass is repeated after 0.2 s, doubling to a minute.
BACKOFF_BASE, BACKOFF_CAP = 0.2, 60.0


class RecordSink(Protocol):
    """Where records go; never blocks, never raises."""

    def offer(self, record: EngineRecord) -> None: ...


class Recorder(Protocol):
    """Where people are told: never blocks, never raises."""

    def record(
        self, regarding: dict[str, Any], reason: str, note: str, *, action: str, kind: Literal["Normal", "Warning"]
    ) -> None: ...


class Reconciler:
    """`notice` keys, `run` until cancelled. Clocks, randomness and everything that acts are handed in."""

    def __init__(
        self,
        *,
        cache: Cache,
        executor: Executor,
        sink: RecordSink,
        evidence: EvidenceKeeper,
        recorder: Recorder,
        settings: Settings,
        clock: Callable[[], datetime],
        rng: random.Random,
        workers: int = WORKERS,
    ) -> None:
        self._cache = cache
        self._executor = executor
        self._sink = sink
        self._evidence = evidence
        self._recorder = recorder
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
        self._deaf_until = 0.0
        self._deaf = False
        metrics.POISON.set_function(lambda: float(sum(m.errors >= POISON_FROM for m in self._memory.values())))
        metrics.SILENT.set_function(lambda: float(self._silent()))
        metrics.ENGINES.show(self._cache.engines)

    # What comes in.

    def notice(self, key: Key) -> None:
        """Something about the engine may have changed."""
        self.queue.add(key)

    def notice_all(self) -> None:
        """Everything may have changed: after a list, on becoming leader, when the catalogue changed."""
        for key in self._cache.engines:
            self.queue.add(key)

    def notice_pod(self, pod: PodView) -> None:
        """A pod came or changed: its engine is looked at."""
        if pod.owner_name:
            self.queue.add((pod.namespace, pod.owner_name))

    def notice_gone(self, pod: PodView) -> None:
        """A pod went; it is as the watch told it last."""
        engine = self._cache.engines.get((pod.namespace, pod.owner_name))
        if engine is not None and engine.uid == pod.owner_uid:
            self._of(engine).last_pod = pod
        self.notice_pod(pod)

    def take_report(self, engine: EngineView, report: Report) -> None:
        """The agent's word, checked by `reports`; the last one counts."""
        memory = self._of(engine)
        before = memory.report
        memory.report = report
        was_asked = memory.asks > 0
        memory.hear(self._clock())
        # Only a change needs a pass: usage is read when there is something else to write.
        told = (report.state, report.reason, report.active, report.last_task_ended)
        if was_asked or before is None or told != (before.state, before.reason, before.active, before.last_task_ended):
            self.queue.add(engine.key)

    def hear(self, engine: EngineView) -> None:
        """The agent lives, and said nothing new."""
        self._of(engine).hear(self._clock())

    def last_report(self, engine: EngineView) -> Report | None:
        """The last report of that engine, if there was one."""
        return self._of(engine).report

    def forget(self, engine: EngineView) -> None:
        """The engine's resource is gone: its row gets its last word, unless it had it."""
        memory = self._of(engine)
        self._memory.pop(engine.key, None)
        self._deadlines.set(engine.key, None)
        self._evidence.gone(engine)
        if not self.leading.is_set() or engine.state in FINAL:
            return
        record = decide(self._snapshot(engine, memory), self._clock(), self._settings).record
        if record is not None:
            # That its pod went with it is the deletion's own doing.
            by_itself = record.final and record.reason != reasons.POD_DELETED.name
            self._sink.offer(record if by_itself else final_record(record, self._clock()))

    def told(self) -> list[tuple[Key, EngineRecord]]:
        """What was last offered to the database of each engine that is there."""
        return [(key, memory.offered) for key, memory in self._memory.items() if memory.offered is not None]

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
                # And a millisecond over it: two clocks' last digits would have the same moment waited for for ever.
                async with asyncio.timeout(min(3600.0, max(0.0, due - now) + 0.001) if due is not None else 3600.0):
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
                if memory.errors >= POISON_FROM:
                    await self._tell_poison(engine, error)
            delay = min(BACKOFF_CAP, BACKOFF_BASE * 2 ** min(memory.errors - 1, 20)) * self._rng.uniform(0.75, 1.25)
            self._set_deadline(key, self._clock().timestamp() + delay)
        else:
            if (engine := self._cache.engines.get(key)) is not None:
                self._of(engine).errors = 0

    async def _tell_poison(self, engine: EngineView, error: Exception) -> None:
        """Says on the engine itself that its passes fail: one write, as long as it says so."""
        if says_pass_failed(engine.status.get("conditions")):
            return
        words = f"{type(error).__name__}: {error}"
        told = pass_failed(
            engine.status.get("conditions"), words, now=self._clock(), generation=engine.generation
        )  # fmt: skip
        try:
            await self._executor.patch_status(engine, {"conditions": told})
        except Exception as problem:
            log.warning("%s: that its passes fail could not be written: %s", engine.key, problem)

    async def process(self, key: Key) -> None:
        """One pass over one engine."""
        engine = self._cache.engines.get(key)
        if engine is None:
            return
        memory = self._of(engine)
        decision = decide(self._snapshot(engine, memory), self._clock(), self._settings)
        memory.stop = decision.stop
        self._set_deadline(key, decision.deadline)
        go_on = True
        for action in decision.actions:
            if not isinstance(action, DeletePod):
                go_on = await self._perform(engine, memory, action) and go_on
        if not go_on:
            # What was learned changes the decision: nothing of this one is written.
            self.queue.add(key)
            return
        if decision.patch:
            if not await self._executor.patch_status(engine, decision.patch):
                return
            self._tell(engine, decision)
            if decision.patch.get("attempt") not in (None, engine.status.get("attempt") or 0):
                memory.next_attempt(self._clock())
            # What was written is looked at once more: its own deadlines begin now. A settled pass makes no call.
            self.queue.add(key)
        if decision.record is not None and decision.record != memory.offered:
            memory.offered = decision.record
            self._sink.offer(decision.record)
        # Last: a crash, or a refused write, after it would leave a pod that is gone and nobody who knows why. What is
        # written asks for the deletion again.
        for action in decision.actions:
            if isinstance(action, DeletePod) and await self._executor.delete_pod(engine, action):
                self.queue.add(key)

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
        """An agent that was silent: its answer counts as a report."""
        memory.asks += 1
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
        memory.hear(self._clock())

    def _silent(self) -> int:
        """Engines that are up and whose agents have been silent for too long."""
        limit = self._clock() - self._settings.silent_after
        engines = self._cache.engines
        return sum(
            memory.heard < limit and (engine := engines.get(key)) is not None and _reports(engine)
            for key, memory in self._memory.items()
        )

    def _is_deaf(self) -> bool:
        """Whether most agents are silent: then it is our own network that fails, and nobody is called lost."""
        now = self._clock().timestamp()
        if now >= self._deaf_until:
            # Counted at most once a second: it goes over all engines.
            self._deaf_until = now + 1.0
            silent = self._silent()
            up = sum(map(_reports, self._cache.engines.values()))
            self._deaf = silent >= DEAF_FROM and silent * 2 > up
            metrics.DEAF.set(self._deaf)
        return self._deaf

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
            report_path_down=memory.asks > 0 and self._is_deaf(),
            seen=dict(memory.seen),
        )

    def _of(self, engine: EngineView) -> Memory:
        memory = self._memory.get(engine.key)
        if memory is None or memory.uid != engine.uid:
            memory = self._memory[engine.key] = Memory(engine.uid, self._clock())
        return memory

    def _set_deadline(self, key: Key, at: float | None) -> None:
        self._deadlines.set(key, at)
        self._sooner.set()

    def _tell(self, engine: EngineView, decision: Decision) -> None:
        """Counts what was written and tells people."""
        labels = metrics.labels_of(engine)
        if decision.state in FINAL:
            metrics.ENDS.labels(decision.reason, *labels).inc()
        elif decision.patch.get("readyTime"):
            startup = (engine.status.get("startup") or {}) | (decision.patch.get("startup") or {})
            for phase, took in since_accepted(startup).items():
                if phase != "accepted":
                    metrics.START_SECONDS.labels(phase, "cold").observe(max(0.0, took.total_seconds()))
        reason = reasons.by_name(decision.reason)
        news = "engineState" in decision.patch or "reason" in decision.patch
        # Flips between Idle and Busy are in the row's history; as events they would be noise.
        if not news or reason in (reasons.EXECUTING, None) or (
            reason is reasons.KERNEL_READY and engine.text("readyTime")
        ):  # fmt: skip
            return
        bad = decision.state is EngineState.FAILED or (decision.state is EngineState.STARTING and bool(reason.remedy))
        warning = bad or reason in (reasons.CULL_SOON, reasons.RESTARTING, reasons.PROCESS_NOT_READY)
        regarding = {
            "apiVersion": API_VERSION, "kind": "EngineConn", "namespace": engine.namespace, "name": engine.name,
            "uid": engine.uid,
        }  # fmt: skip
        kind: Literal["Normal", "Warning"] = "Warning" if warning else "Normal"
        self._recorder.record(regarding, decision.reason, decision.message, action=decision.state.value, kind=kind)


def _reports(engine: EngineView) -> bool:
    """The engine is up, and an agent in it reports."""
    return engine.state in AVAILABLE and launch.has_agent(launch.of(engine, None))

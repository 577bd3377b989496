"""Reconciles engines: one pass is snapshot -> decide -> execute -> record. Level-triggered and crash-only.

`controller.workloop.worker` decides when a pass runs and what follows a failure. The memory between passes may be lost
at any time. Must not decide anything about an engine: that is `engine.decide`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from linkis_ecm.controller.admission import Admission
from linkis_ecm.controller.announcer import Announcer, Recorder
from linkis_ecm.controller.engine_calls import EngineCalls
from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.places import Places
from linkis_ecm.controller.pods.evidence import EvidenceKeeper
from linkis_ecm.controller.pods.executor import Executor
from linkis_ecm.controller.pods.resizes import Resizes
from linkis_ecm.controller.policies import Policies
from linkis_ecm.controller.pool.starts import WarmStarts
from linkis_ecm.controller.report_path import ReportPath
from linkis_ecm.controller.state.cache import Cache, Key
from linkis_ecm.controller.state.delays import after_pod_event, after_write
from linkis_ecm.controller.state.memory import Memory
from linkis_ecm.controller.state.snapshots import note_phases, take_snapshot
from linkis_ecm.controller.workloop.call_pool import CallPool
from linkis_ecm.controller.workloop.worker import WORKERS, Result, Worker
from linkis_ecm.engine.admission.limits import Refusal
from linkis_ecm.engine.agent_report import fields_that_need_a_pass
from linkis_ecm.engine.decide import decide
from linkis_ecm.engine.decision import (
    Action,
    ClaimPod,
    ConfirmPodGone,
    CreatePod,
    Decision,
    DeleteEngine,
    DeletePod,
    DiscardPod,
    IdentifyPod,
    MarkPod,
    Settings,
    Snapshot,
    StopAgent,
    Warm,
)
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.status.conditions import has_pass_failed, pass_failed_conditions
from linkis_ecm.engine.status.desired import patch_without_details
from linkis_ecm.engine.status.record import final_record
from linkis_ecm.engine.view import EngineView, Report
from linkis_ecm.kube.client import ApiError
from linkis_ecm.model import reasons
from linkis_ecm.model.record import EngineRecord
from linkis_ecm.model.states import FINAL

log = logging.getLogger(__name__)

NAME = "engine"
# Seconds after which a pass looks again at an engine whose call was refused or got lost.
CALL_RETRY = 30.0
# Seconds. Whoever deletes an engine's pod as soon as it is made makes no pass of each millisecond.
REPLACED_RETRY = 1.0
# A pod of a pool is gone within its grace of 5 seconds.
ROOM_COMES = timedelta(seconds=6)


class RecordSink(Protocol):
    """Where records go; never blocks, never raises."""

    def offer(self, record: EngineRecord) -> None: ...


class Reconciler:
    """`enqueue` keys, `run` until cancelled.

    `leading` is set once the caches are filled and the Lease is held. `may_write` is called before each pass, because
    the Lease may have expired while the event loop was busy.
    """

    def __init__(
        self,
        *,
        cache: Cache,
        executor: Executor,
        admission: Admission,
        policies: Policies,
        warm: WarmStarts,
        resizes: Resizes,
        sink: RecordSink,
        evidence: EvidenceKeeper,
        recorder: Recorder,
        settings: Settings,
        leading: asyncio.Event,
        may_write: Callable[[], bool],
        serves: Callable[[str], bool] = lambda _: True,
        clock: Callable[[], datetime],
        rng: random.Random,
        metrics: Metrics,
        workers: int = WORKERS,
    ) -> None:
        """`serves(namespace)`: whether no other shard does. Of an engine elsewhere nothing is done or written."""
        self._cache = cache
        self._executor = executor
        self._policies = policies
        self._warm = warm
        self._sink = sink
        self._evidence = evidence
        self._resizes = resizes
        self._settings = settings
        self._serves = serves
        self._clock = clock
        self._memory: dict[Key, Memory] = {}
        self._announcer = Announcer(recorder=recorder, metrics=metrics)
        self._report_path = ReportPath(
            engines=self._own_engines,
            memory=self._memory,
            silent_after=settings.silent_after,
            clock=clock,
            metrics=metrics,
        )
        self.reports = self._report_path.reports
        # Called where the API server has refused an engine in other words than before, or refuses it no more.
        self.on_refused: Callable[[EngineView], None] = lambda _engine: None
        self.leading = leading
        self.worker: Worker[Key] = Worker(
            lambda key: self.process(key),  # noqa: PLW0108 - looked up at each call, so that a test can replace it
            name=NAME, leading=leading, may_write=may_write, clock=clock, rng=rng, metrics=metrics.worker,
            is_outage=_is_outage, on_poison=self._report_poison, workers=workers,
        )  # fmt: skip
        self._places = Places(admission, enqueue=self.worker.enqueue, refusals=metrics.engine_refusals)
        self._calls = EngineCalls(
            cache=cache, memories=self._memory, memory_of=self._memory_of,
            decide_now=lambda engine, memory: decide(self._snapshot(engine, memory), clock(), settings),
            enqueue=self.worker.enqueue, is_foreign=self.is_foreign, executor=executor, evidence=evidence,
            admission=admission, warm=warm, resizes=resizes, clock=clock,
            pool=CallPool(may_run=leading.is_set, metrics=metrics.calls),
        )  # fmt: skip
        metrics.watch_engines(
            self._own_engines,
            known_types=lambda: [plugin.spec.engine_type for plugin in self._cache.plugins.values()],
        )
        metrics.foreign_engines.set_function(lambda: float(len(self.foreign_engines())))
        metrics.key_mismatch.set_function(lambda: float(sum(bool(memory.refusal) for memory in self._memory.values())))

    def enqueue(self, key: Key) -> None:
        """Something about the engine may have changed."""
        self.worker.enqueue(key)

    def enqueue_all(self) -> None:
        """Everything may have changed: after a list, on becoming leader, when the catalogue changed."""
        # The oldest first: they are the first to get places under the limits of people.
        for engine in sorted(self._cache.engines.values(), key=lambda engine: (engine.created, engine.uid)):
            self.worker.enqueue(engine.key)

    def pod_changed(self, pod: PodView) -> None:
        """A pod was created or changed: enqueue its engine."""
        key = (pod.namespace, pod.owner_name)
        memory = self._memory.get(key)
        if wait := after_pod_event(self._cache.engines.get(key), memory, pod):
            if memory is not None:
                note_phases(memory, pod, self._clock())
            self.worker.enqueue_by(key, self._clock().timestamp() + wait)
        elif pod.owner_name:
            self.worker.enqueue(key)

    def pod_deleted(self, pod: PodView) -> None:
        """A pod was deleted. `pod` is its last view from the watch."""
        engine = self._cache.engines.get((pod.namespace, pod.owner_name))
        if engine is not None and engine.uid == pod.owner_uid:
            self._memory_of(engine).last_pod = pod
        if pod.owner_name:
            self.worker.enqueue((pod.namespace, pod.owner_name))

    def record_report(self, engine: EngineView, report: Report) -> None:
        """Record an agent's report, which `reports` has checked. The last one counts."""
        memory = self._memory_of(engine)
        before = memory.report
        memory.report, memory.reported = report, self._clock()
        was_asked = memory.unanswered > 0 or bool(memory.refusal)
        memory.record_contact(self._clock())
        # Only a change needs a pass. Usage is written together with the next change.
        if was_asked or before is None or fields_that_need_a_pass(report) != fields_that_need_a_pass(before):
            self.worker.enqueue(engine.key)

    def record_contact(self, engine: EngineView) -> None:
        """The agent is alive and has reported nothing new."""
        memory = self._memory_of(engine)
        if memory.refusal:
            self.worker.enqueue(engine.key)
        memory.record_contact(self._clock())

    def last_report(self, engine: EngineView) -> Report | None:
        """The last report of that engine, if there was one."""
        return self._memory_of(engine).report

    def refused(self, engine: EngineView) -> str:
        """What the API server last said to the engine's pod, or to its resize up; "" where nothing is known."""
        memory = self._memory.get(engine.key)
        return memory.refused if memory is not None and memory.uid == engine.uid else ""

    def room_comes(self, key: Key) -> None:
        """A pod of a pool goes for the engine's resize: it is tried when that is gone, and not a minute later."""
        memory, at = self._memory.get(key), self._clock() + ROOM_COMES
        failure = memory.resize_failure if memory is not None else None
        if memory is not None and failure is not None and not failure.down:
            memory.resize_failure = replace(failure, retry_at=min(failure.retry_at, at), count=1)
            self.worker.enqueue(key)

    def since_report(self, engine: EngineView) -> timedelta | None:
        """How long ago a report of that engine was last taken; None where none was."""
        reported = self._memory_of(engine).reported
        return None if reported is None else self._clock() - reported

    def is_foreign(self, engine: EngineView) -> bool:
        """Whether another installation has accepted the engine, or is to."""
        return self._settings.ownership.is_foreign(engine)

    def foreign_engines(self) -> list[EngineView]:
        """The engines of other installations that have not ended."""
        return [one for one in self._cache.engines.values() if one.state not in FINAL and self.is_foreign(one)]

    def _own_engines(self) -> list[EngineView]:
        return [engine for engine in list(self._cache.engines.values()) if not self.is_foreign(engine)]

    def engine_deleted(self, engine: EngineView) -> None:
        """The engine's resource was deleted: offer its final record, unless the database has one."""
        if self.is_foreign(engine):
            self._memory.pop(engine.key, None)
            self.worker.remove(engine.key)
            return
        memory = self._memory_of(engine)
        self._memory.pop(engine.key, None)
        self.worker.remove(engine.key)
        self._evidence.engine_deleted(engine)
        self._places.freed(engine)
        if not self.leading.is_set() or engine.state in FINAL or not self._serves(engine.namespace):
            return
        record = decide(self._snapshot(engine, memory), self._clock(), self._settings).record
        if record is not None:
            # If only the pod was deleted, it was deleted together with its engine.
            ended_before = record.final and record.reason != reasons.POD_DELETED.name
            self._sink.offer(record if ended_before else final_record(record, self._clock()))

    def last_records(self) -> list[tuple[Key, EngineRecord]]:
        """The last record that was offered to the database, for each existing engine."""
        return [(key, memory.last_record) for key, memory in self._memory.items() if memory.last_record is not None]

    def ticket_taken(self, record: EngineRecord) -> None:
        """The database did not take the record, because its ticket is another engine's."""
        engine = self._cache.engines.get((record.namespace, record.name))
        if engine is not None and engine.uid == record.uid:
            memory = self._memory_of(engine)
            memory.ticket_taken, memory.last_record = True, None
            self.worker.enqueue(engine.key)

    async def run(self) -> None:
        """Reconciles until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.worker.run())
            group.create_task(self._calls.run())

    # One pass.

    async def process(self, key: Key) -> Result:
        """One pass over one engine. Raises ApiError if the API server does not accept a write.

        If it refuses the status itself (422), the state is written without the details and with the reason PassFailed.
        The rest of the pass is done before the error is raised: an engine's end does not depend on its details.
        """
        engine = await self._read_engine(key)
        if engine is None:
            return Result()
        memory = self._memory_of(engine)
        self._tell_refusal(engine, memory)
        await self._warm.settle(engine, memory)
        limit = self._places.ask(engine)
        warm = self._warm.offer(engine, memory, limit)
        decision = decide(self._snapshot(engine, memory, limit, warm), self._clock(), self._settings)
        decision = self._executor.without_dropped(engine, decision)
        self._warm.decided(engine, warm, decision.actions)
        self._resizes.note_wake(engine, memory, decision.actions)
        memory.stop = decision.stop
        result = Result(requeue_at=decision.deadline)
        if self._calls.submit(engine, memory, decision):
            # The calls' results change the decision, so this one is not written. They enqueue the key.
            retry_at = self._clock().timestamp() + CALL_RETRY
            return Result(requeue_at=retry_at if result.requeue_at is None else min(retry_at, result.requeue_at))
        if await self._warm.is_beyond_a_claim(engine, memory, decision):
            self.worker.enqueue(key)
            return result
        still_valid = True
        for action in decision.actions:
            if not isinstance(action, (DeletePod, StopAgent)):
                still_valid = await self._execute(engine, memory, action) and still_valid
        if not still_valid or self._is_pod_replaced(engine, decision):
            # The actions' results change the decision, so this one is not written.
            return self._decide_again(key, result, at_once=not still_valid)
        refused: ApiError | None = None
        if decision.patch:
            exists, refused = await self._write_status(engine, memory, decision)
            if not exists:
                return result
            result = self._look_at_written(key, decision) if refused is None else result
            self._places.decided(engine, limit, decision)
        if decision.record is not None and decision.record != memory.last_record:
            memory.last_record = decision.record
            self._sink.offer(decision.record)
        # Deletions are last. After a crash or a refused write, a deleted pod would have no reason in the status. If a
        # deletion is lost instead, the written status causes it again.
        for action in decision.actions:
            if isinstance(action, DeletePod) and await self._executor.delete_pod(engine, action):
                self.worker.enqueue(key)
        if refused is not None:
            raise refused
        return result

    def _tell_refusal(self, engine: EngineView, memory: Memory) -> None:
        if memory.refused != memory.refusal_told:
            memory.refusal_told = memory.refused
            self.on_refused(engine)

    async def _read_engine(self, key: Key) -> EngineView | None:
        """The engine, after the policies were read if its pass depends on them; None if this pass does nothing more."""
        if not self._serves(key[0]) or await self._claim_beside_reading(key):
            return None
        engine = await self._policies.read_for(lambda: self._cache.engines.get(key))
        if engine is not None and self.is_foreign(engine):
            # Also where it was ours: nothing of it is repaired or counted any more.
            self._memory.pop(key, None)
            return None
        return engine

    async def _claim_beside_reading(self, key: Key) -> bool:
        """Claim a pool's pod while the policies are read, if those that were read last let the engine in; where watches
        show that they are still there, without a reading. Returns whether it was tried: the next pass has both results.
        Raises ApiError as `process`."""
        engine = self._cache.engines.get(key)
        if engine is None or self.is_foreign(engine) or not self._policies.must_be_read_for(engine):
            return False
        if self._policies.last is None:
            return False
        memory = self._memory_of(engine)
        limit = self._places.ask(engine)

        def decided(warm: Warm) -> Decision:
            return decide(self._snapshot(engine, memory, limit, warm), self._clock(), self._settings)

        def read() -> Awaitable[object]:
            return self._policies.read_for(lambda: self._cache.engines.get(key))

        watched = self._policies.are_watched()
        if not await self._warm.claim_beside(engine, memory, limit, decided, None if watched else read):
            return False
        if watched:
            # Now, when the claim is answered. Where one has changed meanwhile, the next pass reads them.
            self._policies.accept_watched(engine)
        self.worker.enqueue(key)
        return True

    async def _write_status(
        self, engine: EngineView, memory: Memory, decision: Decision
    ) -> tuple[bool, ApiError | None]:  # fmt: skip
        """Whether the engine exists, and the API server's refusal of the details, if it refused them."""
        patch, refused = self._with_pod_uid(engine, decision), None
        try:
            exists = await self._executor.patch_status(engine, patch)
        except ApiError as error:
            if not error.is_malformed:
                raise
            refused, patch = error, patch_without_details(engine, patch, str(error), self._clock())
            exists = not patch or await self._executor.patch_status(engine, patch)
        if exists and "message" in patch:
            memory.words_written = self._clock()
        if exists and patch:
            self._announcer.announce(engine, decision)
        if exists and patch.get("attempt") not in (None, engine.status.get("attempt") or 0):
            memory.next_attempt(self._clock())
        if not exists and self._cache.engines.get(engine.key) is not engine:
            # It was changed, and the view that this was decided by was too old.
            self.worker.enqueue(engine.key)
        return exists, refused

    def _decide_again(self, key: Key, result: Result, *, at_once: bool) -> Result:
        if not at_once:
            return Result(requeue_at=self._clock().timestamp() + REPLACED_RETRY)
        self.worker.enqueue(key)
        return result

    def _is_pod_replaced(self, engine: EngineView, decision: Decision) -> bool:
        """Whether the pod that was made since the decision is gone again, or another one has its name. Then there is
        nothing to write: a name without a uid in the status would make anybody's pod of that name the engine's."""
        if not any(isinstance(action, CreatePod) for action in decision.actions):
            return False
        pod = self._cache.pod_of(engine)
        return pod is None or not self._cache.is_made(engine, pod)

    def _with_pod_uid(self, engine: EngineView, decision: Decision) -> dict[str, Any]:
        """The patch, with the uid of the pod that was made since the decision."""
        made = self._cache.pod_of(engine) if any(isinstance(one, CreatePod) for one in decision.actions) else None
        return decision.patch if made is None else decision.patch | {"podUid": made.uid}

    def _look_at_written(self, key: Key, decision: Decision) -> Result:
        """One more pass over the new status, for its deadlines. A pass over a settled engine makes no call."""
        wait = after_write(decision)
        if not wait:
            self.worker.enqueue(key)
            return Result(requeue_at=decision.deadline)
        at = self._clock().timestamp() + wait
        return Result(requeue_at=at if decision.deadline is None else min(at, decision.deadline))

    async def _execute(self, engine: EngineView, memory: Memory, action: Action) -> bool:
        """Do one action. Returns False if the decision must be made again before it is written."""
        match action:
            case CreatePod():
                memory.failure = await self._executor.create_pod(engine, action, tries=self.worker.failures(engine.key))
                memory.failed_generation = engine.generation
                return memory.failure is None
            case ClaimPod():
                await self._warm.claim_pod(engine, memory, action)
                return False
            case DiscardPod():
                self._warm.note_discard(engine, memory, action)
                await self._executor.delete_pod(engine, DeletePod(action.name, action.uid, 0))
            case ConfirmPodGone():
                memory.pod_gone = not await self._executor.confirm_pod(engine, action)
                return False
            case IdentifyPod():
                # Whoever made it, that is known now, and the engine goes on with it or without. Where it is gone, the
                # next pass is with the watch's event, or when the decision says.
                return not await self._executor.identify_pod(engine, action)
            case MarkPod():
                await self._executor.mark_pod(engine, action)
            case DeleteEngine():
                await self._executor.delete_engine(engine, action)
        return True

    async def _report_poison(self, key: Key, error: Exception) -> None:
        """Write into the engine's status that its passes fail. One write; nothing more while the status says so."""
        engine = self._cache.engines.get(key)
        if engine is None or self.is_foreign(engine) or has_pass_failed(engine.status.get("conditions")):
            return
        conditions = pass_failed_conditions(
            engine.status.get("conditions"),
            f"{type(error).__name__}: {error}",
            now=self._clock(),
            generation=engine.generation,
        )
        try:
            await self._executor.patch_status(engine, {"conditions": conditions})
        except Exception as problem:
            log.warning("%s: that its passes fail could not be written: %s", key, problem)

    def _snapshot(
        self, engine: EngineView, memory: Memory, limit: Refusal | None = None, warm: Warm | None = None
    ) -> Snapshot:  # fmt: skip
        return take_snapshot(
            self._cache, engine, memory, self._clock(), limit=limit, warm=warm, policies=self._policies.last,
            report_path_down=memory.unanswered > 0 and self._report_path.is_down(),
        )  # fmt: skip

    def _memory_of(self, engine: EngineView) -> Memory:
        memory = self._memory.get(engine.key)
        if memory is None or memory.uid != engine.uid:
            memory = self._memory[engine.key] = Memory(engine.uid, self._clock())
        return memory


def _is_outage(error: Exception) -> bool:
    """Whether the API server is at fault. What it refuses as malformed is our fault, and stays so."""
    return isinstance(error, ApiError) and not error.is_malformed

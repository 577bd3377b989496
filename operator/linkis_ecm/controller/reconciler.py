"""Reconciles engines: one pass is snapshot -> decide -> execute -> record. Level-triggered and crash-only.

`controller.workloop.worker` decides when a pass runs and what follows a failure. The memory between passes may be lost
at any time. Must not decide anything about an engine: that is `engine.decide`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

from linkis_ecm.controller.admission import Admission
from linkis_ecm.controller.announcer import Announcer, Recorder
from linkis_ecm.controller.cache import Cache, Key
from linkis_ecm.controller.evidence import EvidenceKeeper
from linkis_ecm.controller.executor import Executor
from linkis_ecm.controller.memory import Memory
from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.policies import Policies
from linkis_ecm.controller.report_path import ReportPath
from linkis_ecm.controller.workloop.call_pool import CallPool, Share
from linkis_ecm.controller.workloop.worker import WORKERS, Result, Worker
from linkis_ecm.engine import facts
from linkis_ecm.engine.admission.limits import Refusal
from linkis_ecm.engine.agent_report import InvalidReportError, parse_report
from linkis_ecm.engine.conditions import has_pass_failed, pass_failed_conditions
from linkis_ecm.engine.decide import decide
from linkis_ecm.engine.decision import (
    Action,
    CollectEvidence,
    ConfirmPodGone,
    CreatePod,
    Decision,
    DeleteEngine,
    DeletePod,
    EventProblem,
    GetAgentStatus,
    GetNodeCondition,
    GetPodEvents,
    KeyRefused,
    MarkPod,
    Settings,
    Snapshot,
    StopAgent,
)
from linkis_ecm.engine.desired_status import without_details
from linkis_ecm.engine.facts import stop_requested
from linkis_ecm.engine.project import final_record
from linkis_ecm.engine.view import EngineView, PodView, Report
from linkis_ecm.kube.client import ApiError
from linkis_ecm.model import reasons
from linkis_ecm.model.record import EngineRecord
from linkis_ecm.model.states import FINAL

log = logging.getLogger(__name__)

NAME = "engine"
# Seconds after which a pass looks again at an engine whose call was refused or got lost.
CALL_RETRY = 30.0


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
        self._admission = admission
        self._policies = policies
        self._engine_refusals = metrics.engine_refusals
        self._sink = sink
        self._evidence = evidence
        self._settings = settings
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
        self.leading = leading
        self._calls = CallPool(may_run=leading.is_set, metrics=metrics.calls)
        self.worker: Worker[Key] = Worker(
            lambda key: self.process(key),  # noqa: PLW0108 - looked up at each call, so that a test can replace it
            name=NAME, leading=leading, may_write=may_write, clock=clock, rng=rng, metrics=metrics.worker,
            is_outage=_is_outage, on_poison=self._report_poison, workers=workers,
        )  # fmt: skip
        metrics.watch_engines(self._own_engines)
        metrics.foreign_engines.set_function(lambda: float(len(self.foreign_engines())))
        metrics.key_mismatch.set_function(lambda: float(sum(bool(memory.refusal) for memory in self._memory.values())))

    # Events.

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
        if pod.owner_name:
            self.worker.enqueue((pod.namespace, pod.owner_name))

    def pod_deleted(self, pod: PodView) -> None:
        """A pod was deleted. `pod` is its last view from the watch."""
        engine = self._cache.engines.get((pod.namespace, pod.owner_name))
        if engine is not None and engine.uid == pod.owner_uid:
            self._memory_of(engine).last_pod = pod
        self.pod_changed(pod)

    def record_report(self, engine: EngineView, report: Report) -> None:
        """Record an agent's report, which `reports` has checked. The last one counts."""
        memory = self._memory_of(engine)
        before = memory.report
        memory.report, memory.reported = report, self._clock()
        was_asked = memory.unanswered > 0 or bool(memory.refusal)
        memory.record_contact(self._clock())
        # Only a change needs a pass. Usage is written together with the next change.
        if was_asked or before is None or _fields_that_need_a_pass(report) != _fields_that_need_a_pass(before):
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
        self._place_freed(engine)
        if not self.leading.is_set() or engine.state in FINAL:
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
        engine = await self._policies.read_for(lambda: self._cache.engines.get(key))
        if engine is None:
            return Result()
        if self.is_foreign(engine):
            # Also where it was ours: nothing of it is repaired or counted any more.
            self._memory.pop(key, None)
            return Result()
        memory = self._memory_of(engine)
        limit = self._ask_for_place(engine)
        decision = decide(self._snapshot(engine, memory, limit), self._clock(), self._settings)
        memory.stop = decision.stop
        result = Result(requeue_at=decision.deadline)
        if self._submit_calls(engine, memory, decision):
            # The calls' results change the decision, so this one is not written. They enqueue the key.
            retry_at = self._clock().timestamp() + CALL_RETRY
            return Result(requeue_at=retry_at if result.requeue_at is None else min(retry_at, result.requeue_at))
        still_valid = True
        for action in decision.actions:
            if not isinstance(action, (DeletePod, StopAgent)):
                still_valid = await self._execute(engine, memory, action) and still_valid
        if not still_valid:
            # The actions' results change the decision, so this one is not written.
            self.worker.enqueue(key)
            return result
        refused: ApiError | None = None
        if decision.patch:
            exists, refused = await self._write_status(engine, memory, decision)
            if not exists:
                return result
            self._place_decided(engine, limit, decision)
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

    async def _write_status(
        self, engine: EngineView, memory: Memory, decision: Decision
    ) -> tuple[bool, ApiError | None]:  # fmt: skip
        """Whether the engine exists, and the API server's refusal of the details, if it refused them."""
        patch, refused = decision.patch, None
        try:
            exists = await self._executor.patch_status(engine, patch)
        except ApiError as error:
            if not error.is_malformed:
                raise
            refused, patch = error, self._patch_without_details(engine, patch, error)
            exists = not patch or await self._executor.patch_status(engine, patch)
        if exists and patch:
            self._announcer.announce(engine, decision)
        if exists and patch.get("attempt") not in (None, engine.status.get("attempt") or 0):
            memory.next_attempt(self._clock())
        if exists and refused is None:
            # One more pass over the new status, for its deadlines. A pass over a settled engine makes no call.
            self.worker.enqueue(engine.key)
        if not exists and self._cache.engines.get(engine.key) is not engine:
            # It was changed, and the view that this was decided by was too old.
            self.worker.enqueue(engine.key)
        return exists, refused

    def _patch_without_details(self, engine: EngineView, patch: dict[str, Any], error: ApiError) -> dict[str, Any]:
        """The patch to write in place of a refused one; empty if the status already has it."""
        essential = without_details(patch)
        known = engine.status.get("conditions")
        if not essential and has_pass_failed(known):
            return {}
        kept = [condition | {"message": ""} for condition in patch.get("conditions") or known or []]
        conditions = pass_failed_conditions(kept, str(error), now=self._clock(), generation=engine.generation)
        return essential | {"conditions": conditions}

    def _ask_for_place(self, engine: EngineView) -> Refusal | None:
        """A place under the limits of people, for an engine that is to start. There is no await until it is used."""
        if engine.state in FINAL or stop_requested(engine):
            return None
        return self._admission.ask(engine)

    def _place_decided(self, engine: EngineView, limit: Refusal | None, decision: Decision) -> None:
        """A status was written: it may say for the first time that the engine waits for a place, or give its own up."""
        if limit is not None and engine.text("reason") != decision.reason == reasons.LIMIT_REACHED.name:
            self._engine_refusals.labels(limit.limit).inc()
        if decision.state in FINAL and engine.state not in FINAL:
            self._place_freed(engine)

    def _place_freed(self, engine: EngineView) -> None:
        for key in self._admission.waiting_for(engine):
            self.worker.enqueue(key)

    async def _execute(self, engine: EngineView, memory: Memory, action: Action) -> bool:
        """Do one action. Returns False if the decision must be made again before it is written."""
        match action:
            case CreatePod():
                memory.failure = await self._executor.create_pod(engine, action, tries=self.worker.failures(engine.key))
                memory.failed_generation = engine.generation
                return memory.failure is None
            case ConfirmPodGone():
                memory.pod_gone = not await self._executor.confirm_pod(engine, action)
                return False
            case MarkPod():
                await self._executor.mark_pod(engine, action)
            case DeleteEngine():
                await self._executor.delete_engine(engine, action)
        return True

    # Calls to agents, nodes and logs, which may be slow: none of them is made in a pass.

    def _submit_calls(self, engine: EngineView, memory: Memory, decision: Decision) -> bool:
        """Hand the decision's slow actions to the pool. Returns whether the decision waits for a result."""
        key, share = engine.key, _share(engine)
        questions = [action for action in decision.actions if isinstance(action, GetAgentStatus | GetNodeCondition)]
        if questions:
            self._calls.submit(("ask", key), share, lambda: self._ask(engine, memory, questions))
        evidence = next((action for action in decision.actions if isinstance(action, CollectEvidence)), None)
        if evidence is not None:
            self._calls.submit(("evidence", key), share, lambda: self._collect(engine, memory, evidence))
        events = next((action for action in decision.actions if isinstance(action, GetPodEvents)), None)
        if events is not None:
            self._calls.submit(("events", key), share, lambda: self._read_events(engine, memory, events))
        stop = next((action for action in decision.actions if isinstance(action, StopAgent)), None)
        if stop is not None:
            self._calls.submit(("stop", key), share, lambda: self._stop(engine, memory, stop))
        return bool(questions) or evidence is not None

    def _is_current(self, engine: EngineView, memory: Memory) -> bool:
        """Whether a call's result is about the engine's current attempt: another one may have begun meanwhile."""
        known = self._cache.engines.get(engine.key)
        same_engine = known is not None and known.uid == engine.uid and self._memory.get(engine.key) is memory
        return same_engine and facts.attempt(known or engine) == facts.attempt(engine)

    async def _ask(
        self, engine: EngineView, memory: Memory, questions: list[GetAgentStatus | GetNodeCondition]
    ) -> None:  # fmt: skip
        """Ask a silent agent, then its node: the node's condition counts only if it is as late as the last question."""
        if not self._is_current(engine, memory):
            return
        for question in questions:
            if isinstance(question, GetAgentStatus):
                await self._ask_agent(engine, memory, question)
            else:
                condition = await self._executor.get_node_condition(question)
                # A contact makes the question void.
                if memory.unanswered and self._is_current(engine, memory):
                    memory.node_condition = condition
        self.worker.enqueue(engine.key)

    async def _ask_agent(self, engine: EngineView, memory: Memory, action: GetAgentStatus) -> None:
        """Request the status of a silent agent. Its answer counts as a report."""
        before, contact = memory.report, memory.last_contact
        memory.last_asked = self._clock()
        answer = await self._executor.get_agent_status(engine, action)
        if not self._is_current(engine, memory) or memory.last_contact != contact:
            # The agent has reported meanwhile, which is newer, or it is another attempt's.
            return
        if isinstance(answer, KeyRefused):
            memory.record_contact(self._clock(), refusal=answer.sentence)
            return
        report = self._readable(engine, answer, before)
        if report is None:
            memory.unanswered += 1
            return
        log.info("%s: its agent did not report, and answers", engine.key)
        memory.report, memory.reported = report, self._clock()
        memory.record_contact(self._clock())

    def _readable(self, engine: EngineView, answer: dict[str, Any] | None, before: Report | None) -> Report | None:
        """The report in an agent's answer; None without one."""
        if answer is None:
            return None
        try:
            return parse_report(answer, engine, before, self._clock())
        except InvalidReportError as error:
            log.warning("%s: its agent's answer cannot be read: %s", engine.key, error)
            return None

    async def _read_events(self, engine: EngineView, memory: Memory, action: GetPodEvents) -> None:
        if not self._is_current(engine, memory):
            return
        verdict = await self._executor.get_start_problem(engine, action)
        if self._is_current(engine, memory):
            memory.event_problem = EventProblem(verdict, self._clock())
            self.worker.enqueue(engine.key)

    async def _collect(self, engine: EngineView, memory: Memory, action: CollectEvidence) -> None:
        evidence = await self._evidence.collect(engine, action, memory.report)
        if self._is_current(engine, memory):
            memory.evidence = evidence
        self.worker.enqueue(engine.key)

    async def _stop(self, engine: EngineView, memory: Memory, action: StopAgent) -> None:
        if not self._is_current(engine, memory):
            return
        if not await self._executor.stop_agent(engine, action) and memory.stop is not None:
            log.info("%s: its agent will be asked again", engine.key)

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

    def _snapshot(self, engine: EngineView, memory: Memory, limit: Refusal | None = None) -> Snapshot:
        pod = self._cache.pod_of(engine)
        now = self._clock()
        if not engine.status:
            memory.first_seen.setdefault("accepted", now)
        if pod is not None:
            memory.pod_gone = False
            if pod.node:
                memory.first_seen.setdefault("scheduled", now)
            if pod.started is not None:
                memory.first_seen.setdefault("containerStarted", now)
        return Snapshot(
            engine=engine,
            pod=pod,
            plugin=self._cache.plugin_for(engine.spec),
            report=memory.report,
            failure=memory.failure if memory.failed_generation == engine.generation else None,
            stop=memory.stop,
            pod_gone=memory.pod_gone,
            last_pod=memory.last_pod,
            other_pods=self._cache.other_pods(engine, pod),
            silence=memory.silence,
            evidence=memory.evidence,
            event_problem=memory.event_problem,
            ticket_taken=memory.ticket_taken or self._cache.is_ticket_taken(engine),
            report_path_down=memory.unanswered > 0 and self._report_path.is_down(),
            limit=limit,
            policies=self._policies.last,
            first_seen=dict(memory.first_seen),
        )

    def _memory_of(self, engine: EngineView) -> Memory:
        memory = self._memory.get(engine.key)
        if memory is None or memory.uid != engine.uid:
            memory = self._memory[engine.key] = Memory(engine.uid, self._clock())
        return memory


def _share(engine: EngineView) -> Share:
    """Whose calls an engine's are. Only the namespace is certain: who may create engines in it may name any user."""
    return engine.namespace, engine.spec.user if engine.spec is not None else ""


def _is_outage(error: Exception) -> bool:
    """Whether the API server is at fault. What it refuses as malformed is our fault, and stays so."""
    return isinstance(error, ApiError) and not error.is_malformed


def _fields_that_need_a_pass(report: Report) -> tuple[object, ...]:
    """The part of a report whose change needs a pass."""
    return report.state, report.reason, report.active, report.last_task_ended

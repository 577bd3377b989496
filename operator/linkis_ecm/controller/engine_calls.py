"""Calls to agents, nodes and logs that a decision asks for. They may be slow, so none of them is made in a pass.

Each result goes into the engine's memory, if it is still about the engine's current attempt, and the engine's key is
enqueued. Must not write a status.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial

from linkis_ecm.controller.admission import Admission
from linkis_ecm.controller.pods.evidence import EvidenceKeeper
from linkis_ecm.controller.pods.executor import Executor
from linkis_ecm.controller.pods.resizes import Resizes
from linkis_ecm.controller.pool.starts import WarmStarts
from linkis_ecm.controller.questions import ask_agent
from linkis_ecm.controller.state.cache import Cache, Key
from linkis_ecm.controller.state.memory import Memory
from linkis_ecm.controller.workloop.call_pool import CallPool, Share
from linkis_ecm.engine import facts
from linkis_ecm.engine.decision import (
    ClaimAgent,
    CollectEvidence,
    Decision,
    EventProblem,
    GetAgentStatus,
    GetNodeCondition,
    GetPodEvents,
    ResizePod,
    StopAgent,
)
from linkis_ecm.engine.view import EngineView

log = logging.getLogger(__name__)


class EngineCalls:
    """`submit` in a pass; `run` until cancelled. At most one call of a kind is under way for an engine."""

    def __init__(
        self,
        *,
        cache: Cache,
        memories: Mapping[Key, Memory],
        memory_of: Callable[[EngineView], Memory],
        decide_now: Callable[[EngineView, Memory], Decision],
        enqueue: Callable[[Key], None],
        is_foreign: Callable[[EngineView], bool],
        executor: Executor,
        evidence: EvidenceKeeper,
        admission: Admission,
        warm: WarmStarts,
        resizes: Resizes,
        pool: CallPool,
        clock: Callable[[], datetime],
    ) -> None:
        """`decide_now` decides over the engine as it is; `memory_of` makes the memory of one that has none."""
        self._cache = cache
        self._memory = memories
        self._memory_of = memory_of
        self._decide_now = decide_now
        self._enqueue = enqueue
        self._is_foreign = is_foreign
        self._executor = executor
        self._evidence = evidence
        self._admission = admission
        self._warm = warm
        self._resizes = resizes
        self._pool = pool
        self._clock = clock

    async def run(self) -> None:
        """Makes the calls, until cancelled."""
        await self._pool.run()

    def submit(self, engine: EngineView, memory: Memory, decision: Decision) -> bool:
        """Hand the decision's slow actions to the pool. Returns whether the decision waits for a result."""
        key, share = engine.key, _share(engine)
        self._resizes.note_wake(engine, memory, decision.actions)
        questions = [action for action in decision.actions if isinstance(action, GetAgentStatus | GetNodeCondition)]
        if questions:
            self._pool.submit(("ask", key), share, lambda: self._ask(engine, memory, questions))
        claim = next((action for action in decision.actions if isinstance(action, ClaimAgent)), None)
        if claim is not None:
            self._pool.submit(("claim", key), share, lambda: self._claim_agent(engine, memory, claim))
        evidence = next((action for action in decision.actions if isinstance(action, CollectEvidence)), None)
        if evidence is not None:
            self._pool.submit(("evidence", key), share, lambda: self._collect(engine, memory, evidence))
        events = next((action for action in decision.actions if isinstance(action, GetPodEvents)), None)
        if events is not None:
            self._pool.submit(("events", key), share, lambda: self._read_events(engine, memory, events))
        stop = next((action for action in decision.actions if isinstance(action, StopAgent)), None)
        if stop is not None:
            self._pool.submit(("stop", key), share, lambda: self._stop(engine, memory, stop))
        if any(isinstance(action, ResizePod) for action in decision.actions):
            self._pool.submit(("resize", key), share, lambda: self._resize(key))
        return bool(questions) or claim is not None or evidence is not None

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
                current = partial(self._is_current, engine, memory)
                await ask_agent(self._executor, engine, memory, question, clock=self._clock, is_current=current)
            else:
                condition = await self._executor.get_node_condition(question)
                # A contact makes the question void.
                if memory.unanswered and self._is_current(engine, memory):
                    memory.node_condition = condition
        self._enqueue(engine.key)

    async def _claim_agent(self, engine: EngineView, memory: Memory, action: ClaimAgent) -> None:
        if self._is_current(engine, memory):
            with self._admission.growing(engine, action.resources) as refused:
                # Refused: its spec was edited, and the next pass asks for what it says by then.
                if refused is None:
                    await self._warm.claim_agent(engine, memory, action, lambda: self._is_current(engine, memory))
        self._enqueue(engine.key)

    async def _resize(self, key: Key) -> None:
        """The resize that the engine wants when the call's turn comes: it may be used again by then."""
        engine = self._cache.engines.get(key)
        if engine is None or self._is_foreign(engine):
            return
        memory = self._memory_of(engine)
        decision = self._decide_now(engine, memory)
        action = next((action for action in decision.actions if isinstance(action, ResizePod)), None)
        if action is not None:
            # After a claim the spec may have been edited to a larger size: that one is asked for as at the claim.
            with self._admission.growing(engine, action.resources if action.claimed else None) as refused:
                if refused is None:
                    memory.resize_failure = await self._resizes.resize(engine, action, memory.resize_failure)
                else:
                    memory.resize_failure = self._resizes.refused(refused.sentence, memory.resize_failure)
            self._enqueue(key)

    async def _read_events(self, engine: EngineView, memory: Memory, action: GetPodEvents) -> None:
        if not self._is_current(engine, memory):
            return
        verdict = await self._executor.get_start_problem(engine, action)
        if self._is_current(engine, memory):
            memory.event_problem = EventProblem(verdict, self._clock())
            self._enqueue(engine.key)

    async def _collect(self, engine: EngineView, memory: Memory, action: CollectEvidence) -> None:
        evidence = await self._evidence.collect(engine, action, memory.report)
        if self._is_current(engine, memory):
            memory.evidence = evidence
        self._enqueue(engine.key)

    async def _stop(self, engine: EngineView, memory: Memory, action: StopAgent) -> None:
        if not self._is_current(engine, memory):
            return
        if not await self._executor.stop_agent(engine, action) and memory.stop is not None:
            log.info("%s: its agent will be asked again", engine.key)


def _share(engine: EngineView) -> Share:
    """Whose calls an engine's are. Only the namespace is certain: who may create engines in it may name any user."""
    return engine.namespace, engine.spec.user if engine.spec is not None else ""

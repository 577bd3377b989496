"""What a pass over an engine does with the warm pools: asks for a member, claims it, tells its agent.

Between the steps it keeps in the engine's memory what a crash may lose. Must not decide: that is `engine.rules.warm`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from linkis_ecm.controller.pods.resizes import UP_RETRY
from linkis_ecm.controller.pool.claims import ClaimRefused, Pool, WarmClaims, needs_secrets
from linkis_ecm.controller.pool.refused_sizes import RefusedSizes
from linkis_ecm.controller.pool.user_rates import UserRates
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.controller.state.memory import Memory
from linkis_ecm.engine import facts
from linkis_ecm.engine.admission.limits import Refusal
from linkis_ecm.engine.agent_report import InvalidReportError, parse_report
from linkis_ecm.engine.causes.cold_starts import Cold
from linkis_ecm.engine.decision import (
    Action,
    ClaimAgent,
    ClaimPod,
    CreatePod,
    Decision,
    DiscardPod,
    ResizeFailure,
    Warm,
)  # fmt: skip
from linkis_ecm.engine.rules.warm import NOT_AS_MADE
from linkis_ecm.engine.view import EngineView, Report
from linkis_ecm.engine.warm import fit, user_rate
from linkis_ecm.engine.warm.demand import largest_size
from linkis_ecm.model.engine_status import ColdReason
from linkis_ecm.model.states import FINAL

log = logging.getLogger(__name__)

# So many members are tried: whoever loses twice in a row meets a crowd, and a cold start is certain.
TRIES = 2


class WarmStarts:
    """The warm pools for the engines of one operator."""

    def __init__(self, *, cache: Cache, claims: WarmClaims, pool: Pool, clock: Callable[[], datetime]) -> None:
        self._cache = cache
        self._claims = claims
        self._pool = pool
        self._clock = clock
        self._user_rates = UserRates(clock)
        self._refused_sizes = RefusedSizes(clock)

    def offer(self, engine: EngineView, memory: Memory, limit: Refusal | None) -> Warm | None:
        """What a pool has for the engine's next pod; None where it needs none now, or its plugin has no pool."""
        if (
            limit is not None
            or memory.warm_failed is not None
            or engine.state in FINAL
            or facts.stop_requested(engine)
            or engine.text("podName")
            or self._clock() < facts.attempt_began(engine)
            or self._cache.has_pod(engine.uid)
        ):
            return None
        plugin = self._cache.plugin_for(engine.spec)
        given = plugin.spec.warm_pool if plugin is not None else None
        if plugin is None or given is None or not largest_size(given):
            return None
        if given.namespaces is not None and engine.namespace not in given.namespaces:
            said = f"The warm pool of {plugin.name} has no pods in namespace {engine.namespace}."
            return Warm(because=Cold(ColdReason.NOT_IN_NAMESPACE, said))
        if refused := self._refused_sizes.why(engine, plugin):
            return Warm(because=_misfit(refused))
        found = self._pool.offer(engine)
        if found is None and (because := self._pool.why_none(engine)) is not None:
            return Warm(because=because)
        if found is None:
            said = f"The warm pool of {plugin.name} had no pod ready in namespace {engine.namespace}."
            return Warm(because=Cold(ColdReason.POOL_EMPTY, said))
        if not self._user_rates.may_take(engine, plugin):
            # After the look, so that who finds none counts for the pool's size, whoever it is.
            self._pool.release(engine)
            said = user_rate.in_words(engine.spec.user if engine.spec else "", plugin.name, largest_size(given))
            return Warm(because=Cold(ColdReason.USER_RATE, said))
        return Warm(*found)

    def decided(self, engine: EngineView, warm: Warm | None, actions: Sequence[Action]) -> None:
        """Count a claim for the engine's user; give a reserved member back that the engine does not take."""
        if warm is None or warm.member is None:
            return
        if not any(isinstance(one, ClaimPod) for one in actions):
            self._pool.release(engine)
        elif (plugin := self._cache.plugin_for(engine.spec)) is not None:
            self._user_rates.take(engine, plugin)

    async def claim_beside(
        self,
        engine: EngineView,
        memory: Memory,
        limit: Refusal | None,
        decide: Callable[[Warm], Decision],
        read: Callable[[], Awaitable[object]] | None,
    ) -> bool:
        """Claim a member while `read` reads what else the engine's start depends on, if something is to be read. False:
        there is none to claim, or the claim needs Secrets, which are read for nobody before that.

        The engine's agent is told in a later pass, which has what was read. Raises what either of them raises.
        """
        if memory.unanswered_claim:
            return False
        warm = self.offer(engine, memory, limit)
        if warm is None or warm.member is None:
            return False
        actions = decide(warm).actions
        self.decided(engine, warm, actions)
        claim = next((action for action in actions if isinstance(action, ClaimPod)), None)
        if claim is None:
            return False
        if needs_secrets(claim.environment):
            self._not_taken(engine)
            return False
        if read is None:
            await self.claim_pod(engine, memory, claim)
            return True
        # Both to their ends: a claim that was sent is to be known.
        ended = await asyncio.gather(read(), self.claim_pod(engine, memory, claim), return_exceptions=True)
        for one in ended:
            if isinstance(one, BaseException):
                raise one
        return True

    async def is_beyond_a_claim(self, engine: EngineView, memory: Memory, decision: Decision) -> bool:
        """Whether the engine, which is about to start cold because its pool is empty, has Secrets that no claim could
        carry. Its memory then has why: decide again. Secrets are read for an engine that is let in alone."""
        startup = decision.patch.get("startup") or {}
        if startup.get("coldReason") != ColdReason.POOL_EMPTY:
            return False
        for action in decision.actions:
            if isinstance(action, CreatePod):
                entries = fit.claim_environment(action.pod)
                if needs_secrets(entries):
                    found = await self._claims.environment(engine, entries)
                    if isinstance(found, ClaimRefused):
                        memory.warm_failed = found.why
                        return True
        return False

    async def settle(self, engine: EngineView, memory: Memory) -> None:
        """Look what became of a claim whose answer got lost, before anything else is decided. Raises ApiError."""
        if memory.unanswered_claim:
            await self._claims.is_claimed(engine, memory.unanswered_claim)
            memory.unanswered_claim = ""

    async def claim_pod(self, engine: EngineView, memory: Memory, action: ClaimPod) -> None:
        """Take the member, or note why not. Raises ApiError where it is not known: the next pass looks."""
        environment = await self._claims.environment(engine, action.environment)
        if isinstance(environment, ClaimRefused):
            memory.warm_failed = environment.why
            self._pool.release(engine)
            self._not_taken(engine)
            return
        memory.environment, memory.unanswered_claim = environment, action.member.name
        refused = await self._claims.claim_pod(engine, action)
        memory.unanswered_claim = ""
        if refused is None:
            # Also where one that was to be made for it had been refused.
            memory.failure = None
            memory.first_seen.setdefault("claimed", self._clock())
            pod = self._cache.pod_of(engine)
            if pod is not None and pod.image != action.member.image:
                # Against the plugin's it says nothing: a webhook may put a mirror's name into each pod.
                memory.warm_failed = NOT_AS_MADE
            return
        self._pool.refused(action.member)
        if refused.reason is not ColdReason.MEMBER_TAKEN:
            self._pool.claim_failed(engine, refused.why)
        self._not_taken(engine)
        memory.environment, memory.warm_tries = None, memory.warm_tries + 1
        if not refused.another or memory.warm_tries >= TRIES:
            memory.warm_failed = refused.why
        log.info("%s: %s", engine.key, refused.sentence)

    def _not_taken(self, engine: EngineView) -> None:
        if (plugin := self._cache.plugin_for(engine.spec)) is not None:
            self._user_rates.give_back(engine, plugin)

    async def claim_agent(
        self, engine: EngineView, memory: Memory, action: ClaimAgent, is_current: Callable[[], bool]
    ) -> None:
        """Tell the agent and resize the pod, both at a time; note the agent's first report, or why there is none."""
        environment = memory.environment
        if environment is None:
            found = await self._claims.environment(engine, action.environment)
            if isinstance(found, ClaimRefused):
                memory.warm_failed = found.why
                return
            environment = found
        memory.resize_sent = action.resources is not None
        try:
            answer, (unsized, final) = await asyncio.gather(
                self._claims.claim_agent(engine, action, environment), self._claims.resize_pod(engine, action)
            )
        finally:
            memory.resize_sent = False
        if not is_current():
            return
        memory.environment = None
        # What was refused once may be taken soon: the rule asks again (engine.rules.warm).
        again = self._clock() + timedelta(seconds=UP_RETRY.base)
        memory.resize_failure = (
            ResizeFailure(down=False, sentence=unsized, retry_at=again, final=final) if unsized else None
        )
        if final:
            memory.warm_failed = _misfit(unsized)
            if (plugin := self._cache.plugin_for(engine.spec)) is not None:
                self._refused_sizes.note(engine, plugin, unsized)
            return
        report = self._report_of(engine, action, answer)
        if isinstance(report, ClaimRefused):
            log.warning("%s: %s", engine.key, report.sentence)
            memory.warm_failed = report.why
        else:
            self._pool.claim_succeeded(engine)
            if memory.report is None or memory.report.attempt != action.attempt:
                # Else the agent's own report was quicker, and is newer.
                memory.report, memory.reported = report, self._clock()
        memory.record_contact(self._clock())

    def _report_of(
        self, engine: EngineView, action: ClaimAgent, answer: dict[str, object] | ClaimRefused
    ) -> Report | ClaimRefused:
        if isinstance(answer, ClaimRefused):
            return answer
        try:
            report = parse_report(answer, engine, None, self._clock(), agent_key=action.member_key)
        except InvalidReportError as error:
            return ClaimRefused(f"The agent of the pod that it took answers what cannot be read: {error}.")
        if report.attempt != action.attempt or answer.get("uid") != engine.uid:
            return ClaimRefused("The agent of the pod that it took answers as another engine's.")
        return report

    def note_discard(self, engine: EngineView, memory: Memory, action: DiscardPod) -> None:
        """The attempt starts cold now, and says why."""
        if memory.discarded != action.uid:
            memory.discarded = action.uid
            self._pool.claim_failed(engine, memory.warm_failed or action.because)
        memory.warm_failed, memory.environment = memory.warm_failed or action.because, None
        memory.resize_failure = None
        # What follows is another pod's start.
        memory.first_seen = {name: at for name, at in memory.first_seen.items() if name == "accepted"}


def _misfit(said: str) -> Cold:
    """What the API server said to a resize that it never takes."""
    return Cold(
        ColdReason.MISFIT, f"The API server gives no pod of the warm pool the size that the engine asks for: {said}."
    )

"""Claims free engines for callers, so that no engine is given to two callers at once, also across replicas.

A claim is an annotation. It is written with the resourceVersion of the engine that was checked, so one of two writers
gets a Conflict. A claim has an end, so a gateway that dies needs no cleanup. `engine.matching` decides which engines
fit (docs/design/reuse.md); this module must not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from linkis_ecm.engine.matching import (
    CLAIM_ANNOTATION,
    CLAIM_HOLD,
    Claim,
    Requirements,
    Verdict,
    fitting,
    held_claim,
    verdict,
)
from linkis_ecm.gateway.http.errors import Refused, unavailable
from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.cluster import Cluster
from linkis_ecm.gateway.inventory.sizes import with_sizes
from linkis_ecm.gateway.inventory.view import KnownEngine, view_of
from linkis_ecm.kube.errors import ApiError, Conflict, NotFound
from linkis_ecm.kube.resources import ENGINECONNS
from linkis_ecm.model import reasons

log = logging.getLogger(__name__)

# Writes of one claim where the engine changed and is still free. The operator writes an engine's status some times a
# minute, so a second change within one call is rare, and a third is not waited for.
MAX_TRIES = 3
# Verdicts in one answer: some 150 bytes each, and more engines than one user has.
EXPLAINED_MAX = 100
# Whether the caller may use the engine.
MayUse = Callable[[KnownEngine], bool]


class Claims:
    """Takes and releases claims. One object per gateway process."""

    def __init__(
        self,
        cluster: Cluster,
        engines: EngineCache,
        plugins: PluginCache,
        *,
        new_id: Callable[[], str],
        clock: Callable[[], datetime],
        has_key: Callable[[KnownEngine], bool] = lambda _: True,
    ) -> None:
        self._cluster = cluster
        self._engines = engines
        self._plugins = plugins
        self._new_id = new_id
        self._clock = clock
        # Whether this gateway can reach the engine's agent: one of another installation is given to nobody here.
        self._has_key = has_key
        # The uids that calls of this process are claiming now. Other calls skip them and so avoid a Conflict.
        self._being_claimed: set[str] = set()

    def new(self, *, starting: float = 0.0) -> Claim:
        """A new claim that begins now. `starting`: the seconds that the engine may take until it is ready."""
        return Claim(self._new_id(), self._clock() + timedelta(seconds=starting) + CLAIM_HOLD)

    async def claim_free_engine(self, required: Requirements, may_use: MayUse) -> KnownEngine | None:
        """A free engine that is the caller's from now on, or None where none is left. Raises Refused."""
        offered = (engine for engine in self._engines if self._offers(engine, required) and may_use(engine))
        sized = (with_sizes(self._plugins, engine) for engine in offered)
        for engine in fitting(sized, required, self._clock()):
            if engine.uid in self._being_claimed:
                continue
            self._being_claimed.add(engine.uid)
            try:
                claimed = await self._claim(engine, required)
            finally:
                self._being_claimed.discard(engine.uid)
            if claimed is not None:
                return claimed
        return None

    def explain(self, required: Requirements, may_use: MayUse) -> list[tuple[KnownEngine, Verdict]]:
        """The verdict on each live engine of the required user, the newest first, EXPLAINED_MAX at most.

        It says nothing of other users' engines.
        """
        offered = (engine for engine in self._engines if self._offers(engine, required) and may_use(engine))
        own = [engine for engine in offered if not engine.is_final]
        own.sort(key=lambda engine: (engine.created, engine.key), reverse=True)
        return [(engine, self._judge(engine, required)) for engine in own[:EXPLAINED_MAX]]

    def _offers(self, engine: KnownEngine, required: Requirements) -> bool:
        lost = engine.reason == reasons.KEY_MISMATCH.name
        return engine.user == required.user and not lost and self._has_key(engine)

    def _judge(self, engine: KnownEngine, required: Requirements) -> Verdict:
        return verdict(with_sizes(self._plugins, engine), required, self._clock())

    async def _claim(self, engine: KnownEngine, required: Requirements) -> KnownEngine | None:
        """The engine with our claim on it; None where somebody else was faster or it is free no more."""
        # What this process has learned since the candidates were listed.
        current = self._engines.get(engine.key)
        claim = self.new()
        for _ in range(MAX_TRIES):
            if current is None or current.uid != engine.uid or not self._judge(current, required).fits:
                return None
            try:
                return await self._write(current, claim)
            except NotFound:
                return None
            except Conflict:
                current = await self._read(current)
            except ApiError as error:
                raise _claim_refusal(current, error) from None
            if current is not None and current.claim == claim:
                # The answer to our write was lost, and the client sent it again.
                return current
        return None

    async def release(self, engine: KnownEngine, by: str | None = None) -> bool:
        """Remove the engine's claim: any claim, or only that of `by`. Returns whether it is unclaimed now. Raises
        Refused."""
        current = await self._read(engine)
        for _ in range(MAX_TRIES):
            if current is None or current.uid != engine.uid or current.claim is None:
                return True
            if by is not None and by != current.claim.by and held_claim(current, self._clock()) is not None:
                return False
            try:
                await self._write(current, None)
            except NotFound:
                return True
            except Conflict:
                current = await self._read(current)
            except ApiError as error:
                raise _claim_refusal(current, error) from None
            else:
                return True
        raise unavailable(f"{engine.title} changes too often to be given back now: try again")

    async def _write(self, engine: KnownEngine, claim: Claim | None) -> KnownEngine:
        """Write or remove the claim. Raises Conflict if the engine has changed since it was checked."""
        if not engine.resource_version:
            # Without a resourceVersion the write would have no precondition.
            raise Conflict(409, "Conflict", "the engine's resourceVersion is not known")
        text = claim.text() if claim is not None else None
        metadata = {"resourceVersion": engine.resource_version, "annotations": {CLAIM_ANNOTATION: text}}
        answer = await self._cluster.patch(ENGINECONNS, engine.name, {"metadata": metadata}, namespace=engine.namespace)
        return self._update_cache(view_of(answer))

    async def _read(self, engine: KnownEngine) -> KnownEngine | None:
        """The engine from the API server; None if it is deleted. Raises Refused."""
        try:
            found = await self._cluster.get(ENGINECONNS, engine.name, namespace=engine.namespace)
        except NotFound:
            return None
        except ApiError as error:
            raise _claim_refusal(engine, error) from None
        return self._update_cache(view_of(found))

    def _update_cache(self, view: KnownEngine) -> KnownEngine:
        # Our watch may report the change later, and the next call must not choose by the old state.
        self._engines.update_if_newer(view)
        return view


def _claim_refusal(engine: KnownEngine, error: ApiError) -> Refused:
    log.warning("%s cannot be claimed or given back: %s", engine.title, error)
    return unavailable(f"The API server does not take the claim of {engine.title} now: try again")

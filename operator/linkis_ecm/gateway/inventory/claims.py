"""Claims free engines for callers, so that no engine is given to two askers at once, on whichever replica they ask.

The claim is an annotation, written with the resourceVersion of the engine that was judged: of two writers one gets a
Conflict. It ends by its own time, so a gateway that dies leaves nothing behind. Which engines fit, `engine.matching`
says (docs/design/reuse.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from linkis_ecm.engine.matching import CLAIM_ANNOTATION, CLAIM_HOLD, Claim, Wanted, fitting, verdict
from linkis_ecm.gateway.http.errors import Refused, unavailable
from linkis_ecm.gateway.inventory.cache import EngineCache
from linkis_ecm.gateway.inventory.cluster import Cluster
from linkis_ecm.gateway.inventory.view import KnownEngine, view_of
from linkis_ecm.kube.errors import ApiError, Conflict, NotFound
from linkis_ecm.kube.resources import ENGINECONNS

log = logging.getLogger(__name__)

# Writes of one claim where the engine changed and is still free. The operator writes an engine's status some times a
# minute, so a second change within one call is rare, and a third is not waited for.
TRIES = 3


class Claims:
    """Takes and gives back; one for each gateway."""

    def __init__(
        self, cluster: Cluster, engines: EngineCache, *, new_id: Callable[[], str], clock: Callable[[], datetime]
    ) -> None:
        self._cluster = cluster
        self._engines = engines
        self._new_id = new_id
        self._clock = clock
        # uids that a call of this process is about to claim: its neighbours take others at once, without a Conflict.
        self._being_claimed: set[str] = set()

    def new(self, *, starting: float = 0.0) -> Claim:
        """A claim from now on; `starting` is how many seconds the engine may take until it is ready."""
        return Claim(self._new_id(), self._clock() + timedelta(seconds=starting) + CLAIM_HOLD)

    async def take(self, wanted: Wanted) -> KnownEngine | None:
        """A free engine that is the caller's from now on, or None where none is left. Raises Refused."""
        for engine in fitting(self._engines, wanted, self._clock()):
            if engine.uid in self._being_claimed:
                continue
            self._being_claimed.add(engine.uid)
            try:
                claimed = await self._claim(engine, wanted)
            finally:
                self._being_claimed.discard(engine.uid)
            if claimed is not None:
                return claimed
        return None

    async def _claim(self, engine: KnownEngine, wanted: Wanted) -> KnownEngine | None:
        """The engine with our claim on it; None where somebody else was faster or it is free no more."""
        # What this process has learned since the candidates were listed.
        current = self._engines.get(engine.key)
        claim = self.new()
        for _ in range(TRIES):
            if current is None or current.uid != engine.uid or not verdict(current, wanted, self._clock()).fits:
                return None
            try:
                return await self._write(current, claim)
            except NotFound:
                return None
            except Conflict:
                current = await self._read(current)
            except ApiError as error:
                raise _not_taken(current, error) from None
            if current is not None and current.claim == claim:
                # The answer to our write was lost, and the client sent it again.
                return current
        return None

    async def release(self, engine: KnownEngine, by: str | None = None) -> bool:
        """Give the engine back, whoever has claimed it, or only `by`; whether it is unclaimed now. Raises Refused."""
        current = await self._read(engine)
        for _ in range(TRIES):
            if current is None or current.uid != engine.uid or current.claim is None:
                return True
            if by is not None and by != current.claim.by and current.claim.holds(self._clock()):
                return False
            try:
                await self._write(current, None)
            except NotFound:
                return True
            except Conflict:
                current = await self._read(current)
            except ApiError as error:
                raise _not_taken(current, error) from None
            else:
                return True
        raise unavailable(f"{engine.title} changes too often to be given back now: try again")

    async def _write(self, engine: KnownEngine, claim: Claim | None) -> KnownEngine:
        """Raises Conflict where the engine is no longer as it was judged."""
        if not engine.resource_version:
            # Without one the write would have no precondition.
            raise Conflict(409, "Conflict", "the engine's resourceVersion is not known")
        text = claim.text() if claim is not None else None
        metadata = {"resourceVersion": engine.resource_version, "annotations": {CLAIM_ANNOTATION: text}}
        answer = await self._cluster.patch(ENGINECONNS, engine.name, {"metadata": metadata}, namespace=engine.namespace)
        return self._learned(view_of(answer))

    async def _read(self, engine: KnownEngine) -> KnownEngine | None:
        """The engine as the API server has it; None where it is gone. Raises Refused."""
        try:
            found = await self._cluster.get(ENGINECONNS, engine.name, namespace=engine.namespace)
        except NotFound:
            return None
        except ApiError as error:
            raise _not_taken(engine, error) from None
        return self._learned(view_of(found))

    def _learned(self, view: KnownEngine) -> KnownEngine:
        # Else the next asker would choose by what our watch has not told yet.
        self._engines.learn(view)
        return view


def _not_taken(engine: KnownEngine, error: ApiError) -> Refused:
    log.warning("%s cannot be claimed or given back: %s", engine.title, error)
    return unavailable(f"The API server does not take the claim of {engine.title} now: try again")

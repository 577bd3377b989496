"""Claims free engines for callers, so that no engine is given to two callers at once, also across replicas.

A claim is an annotation. It is written with the resourceVersion of the engine that was checked, so one of two writers
gets a Conflict. A claim has an end, so a gateway that dies needs no cleanup. `engine.matching` decides which engines
fit (docs/design/reuse.md); this module must not.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta

from linkis_ecm.engine.matching import (
    CLAIM_ANNOTATION,
    CLAIM_HOLD,
    Claim,
    Mismatch,
    Requirements,
    Verdict,
    claim_ends,
    counts_for,
    fitting,
    held_claim,
    is_free,
    verdict,
)
from linkis_ecm.gateway.http.errors import Refused, bad_request, shown, unavailable
from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.cluster import Cluster
from linkis_ecm.gateway.inventory.lending import Loan, NotLent, too_many_locks
from linkis_ecm.gateway.inventory.sizes import as_candidate
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
# Why an engine that was free a moment ago is not claimed.
_GONE = Verdict(Mismatch.BEING_DELETED, "it is deleted")
_CHANGES = Verdict(Mismatch.NOT_FREE, "it changes too often to be claimed now")
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
        # By asker, the tickets that calls of this process are lending engines for now.
        self._being_lent: defaultdict[str, set[str]] = defaultdict(set)
        self.not_lent = NotLent()

    def new(self, *, starting: float = 0.0, user: str = "") -> Claim:
        """A new claim that begins now. `starting`: the seconds that a new engine may take until it is ready; 0 for an
        engine that runs. `user`: who borrows it, where it is lent."""
        until = self._clock() + timedelta(seconds=starting) + CLAIM_HOLD
        return Claim(self._new_id(), until, starting=starting > 0, user=user)

    @contextmanager
    def lending(self, loan: Loan, user: str) -> Iterator[None]:
        """Within the block the user is about to borrow an engine. Raises Refused where he holds as many of the plugin's
        as one may. Other gateways count what they see, so each of them may lend one more for a moment."""
        now, under_way = self._clock(), self._being_lent[user]
        held = {engine.ticket_id: engine for engine in self._engines if self._is_lent_to(engine, loan, user, now)}
        try:
            if len(held.keys() | under_way) >= loan.plugin.share_locks:
                raise too_many_locks(loan, held.values(), now)
            under_way.add(loan.ticket_id)
            yield
        finally:
            under_way.discard(loan.ticket_id)
            if not under_way:
                self._being_lent.pop(user, None)

    def _is_lent_to(self, engine: KnownEngine, loan: Loan, user: str, now: datetime) -> bool:
        if not engine.lent_level or engine.is_final or engine.user != loan.owner:
            return False
        plugin = self._plugins.of(engine)
        return counts_for(engine, now) == user and (plugin is None or plugin.name == loan.plugin.name)

    async def claim_free_engine(self, required: Requirements, may_use: MayUse, *, user: str = "") -> KnownEngine | None:
        """A free engine that is the caller's from now on, or None where none is left. `user`: who borrows it, where it
        is lent. Raises Refused."""
        offered = (engine for engine in self._engines if self._offers(engine, required) and may_use(engine))
        known = (as_candidate(self._plugins, engine) for engine in offered)
        for engine in fitting(known, required, self._clock()):
            if engine.uid in self._being_claimed:
                continue
            claim = self.new(user=user)
            taken = await self._claim(engine, claim, lambda current: self._judge(current, required))
            if isinstance(taken, KnownEngine):
                return taken
        return None

    async def lock(self, engine: KnownEngine, *, hold: timedelta, always: bool) -> KnownEngine | Verdict:
        """The engine with a new claim on it, or why it is not free. The caller must be allowed to use it. Raises
        Refused."""
        claim = Claim(self._new_id(), self._clock() + hold, hold, always)
        return await self._claim(engine, claim, lambda current: is_free(current, self._clock()))

    async def require(self, engine: KnownEngine, lock: str, *, user: str = "") -> KnownEngine:
        """The engine, whose claim is `lock` and does not end for half of its hold at least; `user`, if one is given,
        must hold it. Raises Refused.

        Where it would end sooner it is renewed: a task that is sent now is in the engine's status a second later, and
        a short one may never be. So a lock that is used costs one write in half of its hold at most.
        """
        current, is_fresh = engine, False
        for _ in range(MAX_TRIES + 1):
            now = self._clock()
            claim, ends = held_claim(current, now), claim_ends(current)
            if claim is not None and claim.by == lock and user in ("", claim.user):
                if ends is None or ends - now >= claim.hold / 2:
                    return current
                try:
                    return await self._write(current, replace(claim, until=now + claim.hold, starting=False))
                except NotFound:
                    raise _invalid_lock(engine, lock, borrowed=bool(user)) from None
                except Conflict:
                    pass
                except ApiError as error:
                    raise _claim_refusal(current, error) from None
            elif is_fresh:
                raise _invalid_lock(engine, lock, borrowed=bool(user))
            # The engine has changed, or another replica has given out a lock that our watch has not told of.
            found, is_fresh = await self._read(current), True
            if found is None or found.uid != engine.uid:
                raise _invalid_lock(engine, lock, borrowed=bool(user))
            current = found
        raise unavailable(f"{engine.title} changes too often for its lock to be renewed now: try again")

    def explain(self, required: Requirements, may_use: MayUse) -> list[tuple[KnownEngine, Verdict]]:
        """The verdict on each live engine of the required user, the newest first, EXPLAINED_MAX at most.

        It says nothing of other users' engines, and of those that are lent nothing to who may not borrow them.
        """
        offered = (engine for engine in self._engines if self._offers(engine, required) and may_use(engine))
        own = [engine for engine in offered if not engine.is_final]
        own.sort(key=lambda engine: (engine.created, engine.key), reverse=True)
        return [(engine, self._judge(engine, required)) for engine in own[:EXPLAINED_MAX]]

    def _offers(self, engine: KnownEngine, required: Requirements) -> bool:
        lost = engine.reason == reasons.KEY_MISMATCH.name
        return engine.user == required.user and not lost and self._has_key(engine)

    def _judge(self, engine: KnownEngine, required: Requirements) -> Verdict:
        return verdict(as_candidate(self._plugins, engine), required, self._clock())

    async def _claim(
        self, engine: KnownEngine, claim: Claim, judge: Callable[[KnownEngine], Verdict]
    ) -> KnownEngine | Verdict:
        """The engine with our claim on it; else why not: somebody else was faster, or it is free no more."""
        self._being_claimed.add(engine.uid)
        try:
            return await self._claim_judged(engine, claim, judge)
        finally:
            self._being_claimed.discard(engine.uid)

    async def _claim_judged(
        self, engine: KnownEngine, claim: Claim, judge: Callable[[KnownEngine], Verdict]
    ) -> KnownEngine | Verdict:
        # What this process has learned since the candidates were listed.
        current = self._engines.get(engine.key)
        for _ in range(MAX_TRIES):
            if current is None or current.uid != engine.uid:
                return _GONE
            if not (found := judge(current)).fits:
                return found
            try:
                return await self._write(current, claim)
            except NotFound:
                return _GONE
            except Conflict:
                current = await self._read(current)
            except ApiError as error:
                raise _claim_refusal(current, error) from None
            if current is not None and current.claim == claim:
                # The answer to our write was lost, and the client sent it again.
                return current
        return _CHANGES

    async def release(self, engine: KnownEngine, by: str | None = None) -> bool:
        """Remove the engine's claim: any claim, or only that of `by`. Returns whether it is unclaimed now. Of an engine
        that is lent the last user's name stays, who may have code in it that runs on. Raises Refused."""
        current = await self._read(engine)
        for _ in range(MAX_TRIES):
            if current is None or current.uid != engine.uid:
                return True
            if (claim := current.claim) is None or claim.released:
                return True
            if by is not None and by != claim.by and held_claim(current, self._clock()) is not None:
                return False
            try:
                lent = current.lent_level and claim.user
                await self._write(current, replace(claim, always=False, released=True) if lent else None)
            except NotFound:
                return True
            except Conflict:
                current = await self._read(current)
            except ApiError as error:
                raise _claim_refusal(current, error) from None
            else:
                return True
        raise unavailable(f"{engine.title} changes too often to be given back now: try again")

    async def read(self, engine: KnownEngine) -> KnownEngine | None:
        """The engine as the API server has it now; None if it is deleted, or made anew. Raises Refused."""
        found = await self._read(engine)
        return found if found is not None and found.uid == engine.uid else None

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


def _invalid_lock(engine: KnownEngine, lock: str, *, borrowed: bool) -> Refused:
    """In Linkis: "Lock not exixt". Code without a lock is refused from who has borrowed the engine."""
    otherwise = "" if borrowed else ", or send the code without lock"
    return bad_request(
        f"lock {shown(lock, 64)!r} is not the lock of {engine.title} now: it was given back, or it ended because no"
        f" task ran for its time ({CLAIM_HOLD.total_seconds() / 60:g} minutes unless another was asked for), or"
        f" somebody else holds the engine. Ask for an engine again (askEngineConn){otherwise}",
        reason="LockNotValid",
        canRetry=False,
    )


def _claim_refusal(engine: KnownEngine, error: ApiError) -> Refused:
    log.warning("%s cannot be claimed or given back: %s", engine.title, error)
    return unavailable(f"The API server does not take the claim of {engine.title} now: try again")

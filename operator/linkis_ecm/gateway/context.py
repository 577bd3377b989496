"""Everything that a method may use, put together once by `gateway.app`. Must not have behaviour of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from linkis_ecm.archive.bundles import Archive
from linkis_ecm.gateway.agents.client import Agents
from linkis_ecm.gateway.auth.base import Authenticator, Caller
from linkis_ecm.gateway.followers.follow import Followers
from linkis_ecm.gateway.http.budget import ByteBudget, ByteShares
from linkis_ecm.gateway.http.errors import Refused, denied
from linkis_ecm.gateway.http.ratelimit import Limits
from linkis_ecm.gateway.http.streams import Streams
from linkis_ecm.gateway.inventory.cache import EngineCache, PluginCache
from linkis_ecm.gateway.inventory.changes import EngineChanges
from linkis_ecm.gateway.inventory.claims import Claims
from linkis_ecm.gateway.inventory.cluster import Cluster
from linkis_ecm.gateway.inventory.ecm_state import EcmStateStore
from linkis_ecm.gateway.inventory.engine_tokens import EngineTokens
from linkis_ecm.gateway.inventory.history import History, Records
from linkis_ecm.gateway.inventory.lending import holds, may_borrow
from linkis_ecm.gateway.inventory.lookup import EngineLookup, may_use, require_use, unknown_engine
from linkis_ecm.gateway.inventory.places import Growing
from linkis_ecm.gateway.inventory.trends import Trends
from linkis_ecm.gateway.inventory.usage_reports import UsageReports
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.gateway.journal import ExecutionJournal
from linkis_ecm.gateway.logs.source import Logs
from linkis_ecm.gateway.metrics import Metrics
from linkis_ecm.gateway.results.source import ResultSource
from linkis_ecm.gateway.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The gateway's parts."""

    settings: Settings
    authenticator: Authenticator
    cluster: Cluster
    engines: EngineCache
    plugins: PluginCache
    changes: EngineChanges
    trends: Trends
    history: History
    lookup: EngineLookup
    agents: Agents
    executions: ExecutionJournal
    # The database's records of ended engines; None without a database.
    records: Records | None
    usage_reports: UsageReports
    logs: Logs
    results: ResultSource
    # None: logs and results end with their pod.
    archive: Archive | None
    em: EcmStateStore
    claims: Claims
    # Engines that grow in place now.
    growing: Growing
    limits: Limits
    streams: Streams
    metrics: Metrics
    budget: ByteBudget
    # The part of it that one user's bodies may have.
    body_shares: ByteShares
    followers: Followers
    engine_tokens: EngineTokens
    # A fresh UUID in lower case.
    new_id: Callable[[], str]
    clock: Callable[[], datetime]


@dataclass(slots=True)
class Audit:
    """What a call was about, for the audit log: the ids of its engines, in the order of the call."""

    engines: list[str] = field(default_factory=list)
    # Whether the call was about what another user has.
    others: bool = False

    def add(self, engine_id: str) -> None:
        if engine_id not in self.engines:
            self.engines.append(engine_id)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one caller. It knows no HTTP; `call_as` makes one for any caller.

    `held` keeps what the answer needs until it is sent or read, such as reserved bytes or an agent's connection.
    """

    gateway: Gateway
    caller: Caller
    held: AsyncExitStack
    audit: Audit = field(default_factory=Audit)
    # What the caller's rights to its engines were asked by: a long answer asks them again (`http.standing`).
    rights: list[Callable[[], Awaitable[object]]] = field(default_factory=list)

    async def ask_rights_again(self) -> None:
        """Raises Refused where the caller has no right any more to an engine that this call is about."""
        for right in self.rights:
            await right()

    def audit_engine(self, engine: KnownEngine) -> None:
        """Add the engine to the audit log's entry of this call."""
        self.audit.add(engine.engine_id)
        self.about_user(engine.user)

    def about_user(self, owner: str | None) -> None:
        """What is asked for is that user's; None: everybody's."""
        if owner != self.caller.user:
            self.audit.others = True

    def usable_engines(self) -> list[KnownEngine]:
        """The engines in the cluster that the caller may use: what lists are made of."""
        return [engine for engine in self.gateway.engines if self.may_use(engine)]

    def may_use(self, engine: KnownEngine) -> bool:
        """Whether the caller may use the engine."""
        return may_use(self.caller, engine.user, engine.namespace)

    async def engine(self, engine_id: str) -> KnownEngine:
        """The engine of that id, if the caller may use it. Raises Refused."""
        engine = await self._engine(engine_id)
        self.rights.append(lambda: self._engine(engine_id))
        return engine

    async def _engine(self, engine_id: str) -> KnownEngine:
        found = await self.gateway.lookup.find_fresh(engine_id, caller=self.caller)
        if found is None:
            raise unknown_engine(self.caller, engine_id)
        self.audit_engine(found)
        require_use(self.caller, found, engine_id)
        return found

    async def engine_to_run(self, engine_id: str, *, fresh: bool = False) -> tuple[KnownEngine, bool]:
        """The engine of that id, and whether the caller has borrowed it: then it is his for his own tasks and unlock
        alone. For who may use it, as `engine`. Raises Refused, for others as where there is no such engine.

        The API server is asked where the watch does not have the caller's lock, which another replica may have given,
        and always if it must be `fresh`; for who may not borrow the engine it never is.
        """
        found = await self._engine_to_run(engine_id, fresh=fresh)
        self.rights.append(lambda: self._engine_to_run(engine_id))
        return found

    async def _engine_to_run(self, engine_id: str, *, fresh: bool = False) -> tuple[KnownEngine, bool]:
        found = await self.gateway.lookup.find_fresh(engine_id, caller=self.caller)
        if found is None:
            raise unknown_engine(self.caller, engine_id)
        self.audit_engine(found)
        if self.may_use(found):
            return found, False
        refusal = denied(unknown_engine(self.caller, engine_id))
        if not self.may_borrow(found):
            raise refusal
        current: KnownEngine | None = found
        if fresh or not holds(self.caller, found, self.gateway.clock()):
            current = await self.gateway.claims.read(found)
        if current is None or not (self.may_borrow(current) and holds(self.caller, current, self.gateway.clock())):
            raise refusal
        return replace(current, borrower=self.caller.user), True

    def may_borrow(self, engine: KnownEngine) -> bool:
        """Whether the caller may hold the engine's lock, if it is lent."""
        return may_borrow(self.caller, engine, self.gateway.plugins.of(engine))

    async def engine_or_refusal(self, engine_ids: Iterable[str | None], refusal: Refused) -> KnownEngine | None:
        """The first engine of these ids that the caller may use, for Linkis's calls, which have their own sentences.
        None where there is none, for admins alone, who may know that.

        Raises `refusal` for all others, whether an id names another user's engine or nothing: names can be guessed. So
        `refusal` may repeat only what the caller has sent.
        """
        asked = tuple(engine_ids)
        engine = await self._engine_or_refusal(asked, refusal)
        self.rights.append(lambda: self._engine_or_refusal(asked, refusal))
        return engine

    async def _engine_or_refusal(self, engine_ids: Iterable[str | None], refusal: Refused) -> KnownEngine | None:
        for engine_id in engine_ids:
            found = await self.gateway.lookup.find(engine_id) if engine_id else None
            if found is not None:
                self.audit_engine(found)
                if self.may_use(found):
                    return found
        if self.caller.is_admin:
            return None
        raise denied(refusal)


@asynccontextmanager
async def call_as(gateway: Gateway, caller: Caller, *, audit: Audit | None = None) -> AsyncIterator[Call]:
    """A call of `caller`. Its answer, also a stream, must be read within the block."""
    async with AsyncExitStack() as held:
        yield Call(gateway, caller, held, audit if audit is not None else Audit())

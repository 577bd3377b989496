"""Finds the engine that an id names, live or past, and has the one rule of who may use it.

The watch's cache answers first, then the database, and the API server where the watch may be behind. Must not know
calls, agents or HTTP.
"""

from __future__ import annotations

from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.http.errors import Refused, bad_request, forbidden, shown, unavailable
from linkis_ecm.gateway.inventory.cache import EngineCache
from linkis_ecm.gateway.inventory.cluster import Cluster
from linkis_ecm.gateway.inventory.history import History
from linkis_ecm.gateway.inventory.view import KnownEngine, view_of
from linkis_ecm.kube.errors import ApiError, NotFound
from linkis_ecm.kube.resources import ENGINECONNS


class EngineLookup:
    """Engines by a ticket id, a service instance (host:port) or `namespace/name`."""

    def __init__(self, engines: EngineCache, history: History, cluster: Cluster) -> None:
        self._engines = engines
        self._history = history
        self._cluster = cluster

    async def find(self, engine_id: str) -> KnownEngine | None:
        """The engine of that id, whosever it is: as the watch has it, else its record. Raises Refused where the
        database does not answer."""
        return self._engines.resolve(engine_id) or await self._history.find(engine_id)

    async def find_fresh(self, engine_id: str) -> KnownEngine | None:
        """The same, but where the database has an open record and the watch no engine, the API server is asked: the
        watch may be behind. Raises Refused."""
        found = await self.find(engine_id)
        if found is None or found.in_cluster or found.is_final or not found.name:
            return found
        try:
            item = await self._cluster.get(ENGINECONNS, found.name, namespace=found.namespace)
        except NotFound:
            return found
        except ApiError:
            raise unavailable(
                f"{found.title} is not known here yet, and the API server does not answer: try again"
            ) from None
        engine = view_of(item)
        return engine if engine.uid == found.uid else found

    async def current(self, engine: KnownEngine) -> KnownEngine:
        """The engine as the API server has it now, or as it was where that does not answer. The caller may have seen a
        newer state than our watch has, by kubectl or by another replica."""
        try:
            item = await self._cluster.get(ENGINECONNS, engine.name, namespace=engine.namespace)
        except ApiError:
            return engine
        now = view_of(item)
        return now if now.uid == engine.uid else engine


def unknown_engine(engine_id: str) -> Refused:
    """The refusal for an id that names no engine."""
    return bad_request(
        f"engineId {shown(engine_id, 128)!r} is no engine that is known here: give a ticket id, a service"
        " instance (host:port) or namespace/name as listEngines shows them"
    )


def may_use(caller: Caller, owner: str) -> bool:
    """The rule: an engine is used by its owner and by admins; names are compared exactly, as Linkis does for logs."""
    return caller.is_admin or caller.user == owner


def may_use_record(caller: Caller, owner: str) -> bool:
    """Linkis's rule for the records of `ecinfo/get` and `ecinfo/delete`: as `may_use`, but names are compared without
    regard to case (linkis-contract.md, 1.4: "owner (ignore case)/admin", ECResourceInfoRestfulApi)."""
    return caller.is_admin or caller.user.lower() == owner.lower()


def require_owner(caller: Caller, owner: str, refusal: Refused) -> None:
    """Raises `refusal` where the caller may not use the owner's engines. Linkis's calls have sentences of their own."""
    if not may_use(caller, owner):
        raise refusal


def require_use(caller: Caller, engine: KnownEngine) -> None:
    """Raises Refused, with our own sentence, where the engine is another user's."""
    require_owner(
        caller,
        engine.user,
        forbidden(f"{engine.title} belongs to another user than {caller.user}: call as its owner, or as an admin"),
    )

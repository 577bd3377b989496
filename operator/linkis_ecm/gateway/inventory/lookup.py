"""Finds the live or ended engine of an id, and has the one rule of who may use an engine.

The cache is read first, then the database, and then the API server if the watch may be late. Must not know calls,
agents or HTTP.
"""

from __future__ import annotations

import re

from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.http.errors import Refused, bad_request, forbidden, shown, unavailable
from linkis_ecm.gateway.inventory.cache import EngineCache
from linkis_ecm.gateway.inventory.cluster import Cluster
from linkis_ecm.gateway.inventory.history import History
from linkis_ecm.gateway.inventory.view import KnownEngine, view_of
from linkis_ecm.kube.errors import ApiError, NotFound
from linkis_ecm.kube.resources import ENGINECONNS

# A name of the Kubernetes API: what else there is in an id must not get into a path.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


class EngineLookup:
    """Engines by a ticket id, a service instance (host:port) or `namespace/name`."""

    def __init__(self, engines: EngineCache, history: History, cluster: Cluster) -> None:
        self._engines = engines
        self._history = history
        self._cluster = cluster

    async def find(self, engine_id: str) -> KnownEngine | None:
        """The engine with this id, of any owner: from the watch, else from its record. Raises Refused if the database
        does not answer and the watch has no such engine.

        The author of an EngineConn chooses its ticket. Until the operator has accepted the engine, a ticket that the
        database has for another engine is that other engine's.
        """
        found = self._engines.resolve(engine_id)
        if found is None:
            return await self._history.find(engine_id)
        if not found.is_ticket_unproven or engine_id == found.uid or "/" in engine_id:
            return found
        try:
            recorded = await self._history.find(engine_id)
        except Refused:
            return found  # its own user may use it, and nobody else
        if recorded is None or recorded.uid == found.uid or (not recorded.uid and recorded.user == found.user):
            return found
        return recorded

    async def find_fresh(self, engine_id: str, *, caller: Caller | None = None) -> KnownEngine | None:
        """The same, but where the database has an open record and the watch no engine, the API server is asked: the
        watch may be behind. Not for a `caller` who may not use the engine: a stranger's answer must not depend on it.
        Raises Refused."""
        found = await self.find(engine_id)
        if found is None or found.in_cluster or found.is_final or not found.name:
            return found
        if caller is not None and not may_use(caller, found.user, found.namespace):
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

    async def find_named(self, engine_id: str, *, caller: Caller) -> KnownEngine | None:
        """The engine of a `namespace/name` as the API server has it: what the watch does not have may be there all the
        same. None for any other id. For admins of that namespace only: a stranger must not learn which names exist.
        Raises Refused."""
        namespace, _, name = engine_id.partition("/")
        if _NAME.fullmatch(namespace) is None or _NAME.fullmatch(name) is None or not caller.is_admin_in(namespace):
            return None
        try:
            return view_of(await self._cluster.get(ENGINECONNS, name, namespace=namespace))
        except NotFound:
            return None
        except ApiError:
            raise unavailable(
                f"engine {namespace}/{name} is not known here, and the API server does not answer: try again"
            ) from None

    async def current(self, engine: KnownEngine) -> KnownEngine:
        """The engine as the API server has it now, or `engine` if that does not answer. A caller may know a newer state
        than our watch, from kubectl or from another replica."""
        try:
            item = await self._cluster.get(ENGINECONNS, engine.name, namespace=engine.namespace)
        except ApiError:
            return engine
        found = view_of(item)
        return found if found.uid == engine.uid else engine


def unknown_engine(caller: Caller, engine_id: str) -> Refused:
    """The refusal for an id that names no engine, or another user's: one for both, since names can be guessed."""
    name = f"engineId {shown(engine_id, 128)!r} is no engine that is known here"
    ids = "a ticket id, a service instance (host:port) or namespace/name as listEngines shows them"
    if caller.is_admin:
        return bad_request(f"{name}: give {ids}")
    return forbidden(
        f"{name}, or it belongs to another user than {caller.user}: call as its owner, or as an admin, and give {ids}."
        " Where it was lent to you, your lock may have ended: ask for an engine again (askEngineConn)"
    )


def may_use(caller: Caller, owner: str, namespace: str) -> bool:
    """The rule, for engines and their records: the owner and admins may, each in the namespaces of the own login; names
    are compared exactly. `namespace` is "" for a record of Linkis's own ECM, which is in none.

    Linkis does so for logs, but compares without case for ecinfo/*: to Kubernetes and here ALICE and alice are two
    users, so what is one's to see must not be the other's to delete.
    """
    if caller.is_admin_in(namespace):
        return True
    return caller.user == owner and (not namespace or caller.may_enter(namespace))


def require_owner(caller: Caller, owner: str, namespace: str, refusal: Refused) -> None:
    """Raises `refusal` if the caller may not use the owner's engines. Linkis's calls have their own sentences."""
    if not may_use(caller, owner, namespace):
        refusal.denied = True
        raise refusal


def require_use(caller: Caller, engine: KnownEngine, engine_id: str) -> None:
    """Raises Refused where the engine is another user's: as for an id that names none."""
    require_owner(caller, engine.user, engine.namespace, unknown_engine(caller, engine_id))

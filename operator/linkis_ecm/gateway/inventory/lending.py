"""Who may borrow an engine that is lent (share: group and server), and which tasks in it are a borrower's own.

A borrower has the lock and nothing else: what he may do with it is in `context.Call.engine_to_run`. `may_use` is the
rule for all other calls and knows no borrowers. Pure: views, a caller and a time in, a verdict out.
"""

from __future__ import annotations

import hmac
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from linkis_ecm.engine.matching import claim_ends, held_claim
from linkis_ecm.engine.times import format_time
from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.http.errors import Refused, bad_request, forbidden, unavailable
from linkis_ecm.gateway.inventory.view import KnownEngine, PluginView
from linkis_ecm.model import reasons
from linkis_ecm.model.agent_key import key_id
from linkis_ecm.model.engineconn import SHARED_LEVELS

# Of a task's id, 16 bytes: what makes it the only one, and what makes it its user's.
_NONCE_BYTES = 8
# How long a no of the operator counts for the next asker: a platform that has mended it waits no longer than that.
NOT_LENT_FOR = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Loan:
    """What an asker is lent: an engine of this plugin, in its owner's name, of this group at level group."""

    plugin: PluginView
    level: str
    group: str
    # Where the asker's new engines go: one of another namespace has other admins, and other objects to mount.
    namespace: str
    # Of the engine that is made where none is free; it counts the asker's engines meanwhile, too.
    ticket_id: str

    @property
    def owner(self) -> str:
        return self.plugin.share_as

    def covers(self, engine: KnownEngine, plugin: PluginView | None) -> bool:
        """Whether it is such an engine; `plugin` is the engine's own."""
        return engine.namespace == self.namespace and plugin is not None and plugin.name == self.plugin.name

    def spec(self) -> dict[str, str]:
        """For `spec.share` of a new engine."""
        return {"level": self.level} | ({"group": self.group} if self.group else {})


def is_lending(plugin: PluginView) -> bool:
    """Whether engines of this entry are lent by askEngineConn."""
    return plugin.share in SHARED_LEVELS and bool(plugin.share_as)


def group_of(caller: Caller, plugin: PluginView) -> str:
    """The group in whose engines the caller may run code; "" at level server. Raises Refused."""
    if plugin.share != "group":
        return ""
    offer = f"engines of {plugin.engine_type} {plugin.engine_version} are shared by the members of a group"
    if caller.groups is None:
        raise forbidden(
            f"{offer}, and your login says nothing of groups: log in by OIDC with a groups claim or by a Kubernetes"
            " token (Linkis's tokens have no groups), or make an engine of your own (createEngineConnection)"
        )
    for group in plugin.share_groups:
        if group in caller.groups:
            return group
    raise forbidden(
        f"{offer}, and you are in none of those that it is offered to: ask the platform for membership, or make an"
        " engine of your own (createEngineConnection)"
    )


def may_borrow(caller: Caller, engine: KnownEngine, plugin: PluginView | None) -> bool:
    """Whether the caller may hold this engine's lock at all. The plugin's word counts as it is now, and so do the
    caller's groups."""
    if plugin is None or not (engine.in_cluster and engine.is_lent and engine.has_agent):
        return False
    if not is_lending(plugin) or engine.lent_level != plugin.share or engine.user != plugin.share_as:
        return False
    if not caller.may_enter(engine.namespace):
        return False
    if plugin.share == "server":
        return not engine.lent_group
    return engine.lent_group in plugin.share_groups and engine.lent_group in (caller.groups or ())


def holds(caller: Caller, engine: KnownEngine, now: datetime) -> bool:
    """Whether the caller holds the engine's lock now. Its id is no secret, so it is the user that counts."""
    claim = held_claim(engine, now)
    return claim is not None and claim.user == caller.user and bool(claim.user)


def masters_of(masters: Sequence[bytes], engine: KnownEngine) -> list[bytes]:
    """The master keys, the one of the engine's agent first: while keys are changed gateways have them in different
    orders, and a user's name and task must be the same through each of them."""
    ref = engine.agent_key
    return sorted(masters, key=lambda master: ref is None or key_id(master) != ref.key_id)


def task_id(master: bytes, engine: KnownEngine, user: str, text: str) -> str:
    """The id of a user's task in an engine that is lent: the same for the same `text`, and nobody else's.

    Whose it is can be checked without asking anybody (`is_task_of`). The agent cannot make one up: it has no master
    key.
    """
    nonce = sha256(text.encode(errors="surrogatepass")).digest()[:_NONCE_BYTES]
    return _id(master, engine, user, nonce)


def is_task_of(masters: Sequence[bytes], engine: KnownEngine, user: str, given: str) -> bool:
    """Whether it is the id of a task that this user has sent to this engine, under one of the master keys."""
    try:
        nonce = uuid.UUID(given).bytes[:_NONCE_BYTES]
    except ValueError:
        return False
    return any(hmac.compare_digest(_id(master, engine, user, nonce), given) for master in masters)


def _id(master: bytes, engine: KnownEngine, user: str, nonce: bytes) -> str:
    body = f"linkis-ecm task\n{engine.uid}\n{user}\n".encode(errors="surrogatepass")
    seal = hmac.digest(master, body + nonce, "sha256")[: 16 - _NONCE_BYTES]
    return str(uuid.UUID(bytes=nonce + seal))


def kernel_user(master: bytes, engine: KnownEngine, user: str) -> str:
    """A name for the user that tells the agent, which is in the sharers' pod, nothing but who is another."""
    body = f"linkis-ecm kernel user\n{engine.uid}\n{user}".encode(errors="surrogatepass")
    return hmac.digest(master, body, "sha256").hex()[:32]


def too_many_locks(loan: Loan, held: Iterable[KnownEngine], now: datetime) -> Refused:
    """The refusal for who holds as many of the plugin's engines as one may. Its data has what the user needs to go on
    with them, or to give them back, where their answer was lost."""
    plugin = loan.plugin
    locks = [own_lock(engine, now) for engine in held]
    ends = min((lock["until"] for lock in locks if lock["until"]), default="")
    return bad_request(
        f"you hold {plugin.share_locks} shared engines of {plugin.engine_type} {plugin.engine_version}, as many as one"
        " user may: give one back (the command unlock, with engine and lock of data.locks), or wait until its lock ends"
        f"{f' (the first at {ends}, if you do not use it)' if ends else ''}; one that you gave back while your code ran"
        " counts until that has ended",
        reason="TooManyLocks",
        canRetry=True,
        locks=locks,
    )


def own_lock(engine: KnownEngine, now: datetime) -> dict[str, str | None]:
    """An engine that the user takes up, for that user: {engine (a ticketId), instance, lock, until}. `lock` is null
    where it is given back, `until` where no time ends it, as while a task runs."""
    claim = held_claim(engine, now)
    ends = claim_ends(engine) if claim is not None else None
    return {
        "engine": engine.ticket_id,
        "instance": engine.service_instance,
        "lock": claim.by if claim is not None else None,
        "until": format_time(ends) if ends is not None else None,
    }


def no_place(loan: Loan, data: Mapping[str, Any]) -> Refused:
    """The refusal where the owner has no place left for one more engine: without the names of those that there are, for
    they may be another group's."""
    plugin, can_retry = loan.plugin, data.get("canRetry") is not False
    remedy = "Wait until somebody gives one back, or make" if can_retry else "Make"
    remedy += " an engine of your own (createEngineConnection)."
    if not can_retry:
        remedy += " Ask the platform for more: the limit has no room for a single one."
    return bad_request(
        f"Create engineConn failed, caused by the limits of people: {loan.owner}, who owns the shared engines of"
        f" {plugin.engine_type} {plugin.engine_version}, has no place left for one more. {remedy}",
        reason=reasons.LIMIT_REACHED.name,
        remedy=remedy,
        canRetry=can_retry,
    )


def not_lendable(why: str, *, made: bool) -> Refused:
    """The refusal where the operator lends no engine of this entry; `why` is its sentence. `made`: of one that was made
    for this call; else of one a moment ago."""
    remedy = "Make an engine of your own (createEngineConnection), and tell the platform."
    start = f"The engine that was made {'' if made else 'a moment ago '}cannot be lent, and is stopped"
    refusal = unavailable(f"{start}: {why} {remedy}")
    refusal.data |= {"reason": "NotLendable", "remedy": remedy, "canRetry": True}
    return refusal


class NotLent:
    """Which entries the operator refused to lend a moment ago: for a while no further engine is made, only to be
    stopped. One object per gateway process; it has at most an entry for each plugin and namespace."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[PluginView, datetime, str]] = {}

    def remember(self, loan: Loan, why: str, now: datetime) -> None:
        """`why` as the operator says it."""
        self._known[loan.namespace, loan.plugin.name] = loan.plugin, now + NOT_LENT_FOR, why

    def why(self, loan: Loan, now: datetime) -> str:
        """The operator's sentence; "" where it is not known, is old, or was said of another plugin."""
        plugin, until, why = self._known.get((loan.namespace, loan.plugin.name), (None, now, ""))
        return why if plugin == loan.plugin and now < until else ""

"""Authenticates callers by Kubernetes: the API server reviews their bearer tokens. Must not log a token, or show it.

A TokenReview tells whose token it is. SubjectAccessReviews tell in which of the engines' namespaces RBAC allows that
user to create EngineConns (there the user may use the gateway) and to impersonate them (there the user is an admin).
Who may create them in none, and list them in some, may only look there. A token that cannot be reviewed is refused, and
so is one of whose reviews one failed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from linkis_ecm.gateway.auth.base import Caller, Credentials, Reach, people_groups
from linkis_ecm.gateway.auth.bearer import AUTHORIZATION, bearer_token
from linkis_ecm.gateway.auth.signed import SignedTokens
from linkis_ecm.gateway.auth.suspects import FullError, Suspects
from linkis_ecm.gateway.http.errors import Refused, forbidden, no_login, too_many, unavailable
from linkis_ecm.gateway.http.peers import Peers
from linkis_ecm.kube.errors import ApiError
from linkis_ecm.kube.resources import ACCESS_REVIEWS, ENGINECONNS, TOKEN_REVIEWS, Resource
from linkis_ecm.model.users import user_name
from linkis_ecm.process.jwt import end_of, unverified_part
from linkis_ecm.process.ports.addresses import counted_as
from linkis_ecm.process.ports.ratelimit import TokenBuckets

log = logging.getLogger(__name__)

# Seconds that an answer is cached: how long a withdrawn right still counts, and how long a corrected Role still
# refuses.
ADMITTED_SECONDS = 60.0
REFUSED_SECONDS = 10.0
CACHE_ENTRIES = 1024
# An invalid token costs one call: this many calls at a time go to the API server.
CALLS_AT_ONCE = 16
LOOKUPS_AT_ONCE = 1024
# Addresses whose failed logins are remembered.
PEERS = 10_000

_NO_RIGHT = "does not let the gateway ask: bind its service account to the ClusterRole system:auth-delegator"


class ReviewClient(Protocol):
    """The calls to the API server that the authenticator needs. They raise kube's ApiError."""

    async def create(
        self, resource: Resource, body: dict[str, Any], *, namespace: str | None = None
    ) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The result of a lookup. One with `keep_seconds` 0 is not cached: only the calls that waited for it get it."""

    answer: Caller | Refused
    keep_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Peer:
    """Whose failed lookups count together: a client's address, or the account of a signed token."""

    shown: str
    key: str


class KubernetesAuthenticator:
    """The Authenticator of Kubernetes's users and service accounts."""

    def __init__(
        self,
        client: ReviewClient,
        *,
        namespaces: Sequence[str],
        audiences: Sequence[str] = (),
        seconds: float = 10.0,
        failed_per_second: float = 0.0,
        failed_burst: int = 50,
        peers: Peers | None = None,
        signed: SignedTokens | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`namespaces`: those of engines, without duplicates; "" is every namespace. In ADMITTED_SECONDS a token costs
        one call, and one to three for each namespace. `audiences`: a token must be meant for one of them; none: for
        the API server. `seconds`: of one lookup.
        `failed_per_second`, `failed_burst`: lookups of one peer that end without a user, before its next ones wait for
        each other (suspects.py); 0: no limit. `peers` says from which client a call comes. `signed` sorts tokens by
        their signature: one that the API server has signed counts for its account, not for its address."""
        self._client = client
        self._namespaces = tuple(namespaces)
        self._audiences = list(audiences)
        self._seconds = seconds
        self._clock = clock
        # Two caches, so that a flood of invalid tokens does not push out the users.
        self._admitted = _Cache()
        self._refused = _Cache()
        self._failures = TokenBuckets[str](per_second=failed_per_second, burst=failed_burst, keys=PEERS, clock=clock)
        self._suspects = Suspects()
        self._peers = peers or Peers()
        self._signed = signed
        self._under_way: dict[bytes, asyncio.Task[_Outcome]] = {}
        self._turns = asyncio.Semaphore(CALLS_AT_ONCE)

    async def authenticate(self, request: Credentials) -> Caller:
        """The user of the bearer token, if RBAC lets that user create or list EngineConns."""
        token = bearer_token(request)
        digest = hashlib.sha256(token.encode()).digest()
        now = self._clock()
        answer = self._admitted.get(digest, now) or self._refused.get(digest, now)
        if answer is None:
            holder = await self._signed.holder(token) if self._signed is not None else None
            client = self._peers.client(request.remote, request.headers)
            # No account's name is an address: it has other characters.
            peer = _Peer(client, counted_as(client)) if holder is None else _Peer(holder.name, f"of {holder.name}")
            answer = await self._looked_up(digest, token, peer)
        if isinstance(answer, Refused):
            # A new exception each time: a raised one keeps its traceback, which would grow.
            raise Refused(answer.sentence, status=answer.status, http=answer.http, headers=answer.headers)
        return answer

    async def _looked_up(self, digest: bytes, token: str, peer: _Peer) -> Caller | Refused:
        """The answer for a token that is not cached. Raises Refused where too many of the peer wait already."""
        if self._failures.take(peer.key):
            return await self._looked_up_slowly(digest, token, peer)
        # Shielded: a call that is cancelled must not cancel the lookup for other calls that wait for it.
        answer = (await asyncio.shield(self._lookup(digest, token))).answer
        if not _has_failed(answer):
            # A proxy's users share its address: only tokens that Kubernetes refuses count.
            self._failures.give_back(peer.key)
        return answer

    async def _looked_up_slowly(self, digest: bytes, token: str, peer: _Peer) -> Caller | Refused:
        """The answer for a token of a peer whose logins fail often. A right token may be behind the same proxy, so it
        waits for its turn. Raises Refused where too many wait already."""
        try:
            async with asyncio.timeout(self._seconds):
                leave = await self._suspects.enter(peer.key)
        except (FullError, TimeoutError):
            raise too_many(
                f"Too many logins from {peer.shown} have failed: send a token that Kubernetes accepts, or wait a"
                " moment",
                limit="logins",
            ) from None
        now = self._clock()
        if (known := self._admitted.get(digest, now) or self._refused.get(digest, now)) is not None:
            leave(False)
            return known

        def done(task: asyncio.Task[_Outcome]) -> None:
            leave(task.cancelled() or task.exception() is not None or _has_failed(task.result().answer))

        try:
            lookup = self._lookup(digest, token)
        except Refused:
            leave(True)
            raise
        # The place is left when the lookup ends, also where its caller has gone.
        lookup.add_done_callback(done)
        return (await asyncio.shield(lookup)).answer

    def _lookup(self, digest: bytes, token: str) -> asyncio.Task[_Outcome]:
        """The running lookup of this token; started if there is none. Raises Refused."""
        if (running := self._under_way.get(digest)) is not None:
            return running
        if len(self._under_way) >= LOOKUPS_AT_ONCE:
            raise unavailable("The gateway has too many tokens to look up: try again in a second", limit="lookups")

        def done(task: asyncio.Task[_Outcome]) -> None:
            del self._under_way[digest]
            if task.cancelled() or task.exception() is not None:
                return
            outcome = task.result()
            if outcome.keep_seconds:
                cache = self._admitted if isinstance(outcome.answer, Caller) else self._refused
                cache.put(digest, outcome.answer, self._clock() + outcome.keep_seconds)

        task = asyncio.create_task(self._ask(token))
        self._under_way[digest] = task
        task.add_done_callback(done)
        return task

    async def _ask(self, token: str) -> _Outcome:
        """One lookup. Does not raise for failures of the API server, because nobody may be left to catch them."""
        try:
            async with asyncio.timeout(self._seconds):
                return _Outcome(await self._review(token), ADMITTED_SECONDS)
        except Refused as refusal:
            return _Outcome(refusal, REFUSED_SECONDS)
        except TimeoutError:
            log.warning("the API server did not review a token within %g s", self._seconds)
            return _Outcome(_not_reviewed("did not answer in time"))
        except ApiError as error:
            # Only the status: a proxy's error page may repeat the request, which contains the token.
            log.warning("the API server did not review a token: %s, status %d", type(error).__name__, error.status)
            if error.status in (401, 403):
                return _Outcome(_not_reviewed(_NO_RIGHT))
            return _Outcome(_not_reviewed("did not answer"))
        except _UnusableReviewError as error:
            log.warning("the API server's review cannot be used: %s", error)
            return _Outcome(_not_reviewed("sent an answer that cannot be used"))

    async def _review(self, token: str) -> Caller:
        """Raises Refused, ApiError, _UnusableReviewError."""
        user = await self._user_of(token)
        entered = await self._allowed(user, "create", self._namespaces)
        read_only = not entered
        if read_only:
            # As a holder of the role linkis-ecm-view may.
            entered = await self._allowed(user, "list", self._namespaces)
        if not entered:
            raise forbidden(
                f"The Kubernetes user of this token may not create engineconns in {_shown(self._namespaces)}: ask for"
                f" a Role with the verb create on {ENGINECONNS.plural}.{ENGINECONNS.group} there, or list to only look"
            )
        administered = await self._allowed(user, "impersonate", entered)
        reach = Reach(frozenset(entered), frozenset(administered))
        everywhere = "" in administered or len(administered) == len(self._namespaces)
        groups = people_groups(user.get("groups") or [])
        # Kubernetes has verified it; a token that is no JWT says nothing of its end.
        expires = end_of(unverified_part(token, 1) or {})
        name = user_name(user["username"])
        return Caller(name, everywhere, reach, read_only=read_only, groups=groups, expires=expires)

    async def _user_of(self, token: str) -> dict[str, Any]:
        """The user of the reviewed token, in the form of a SubjectAccessReview. Raises Refused, ApiError and
        _UnusableReviewError."""
        spec: dict[str, Any] = {"token": token}
        if self._audiences:
            spec["audiences"] = self._audiences
        status = await self._create(TOKEN_REVIEWS, spec)
        if status.get("authenticated") is not True:
            raise no_login(
                f"{AUTHORIZATION}: the Bearer token is not accepted by Kubernetes: it may have expired, get a new one"
                + (f" for the audience {self._audiences[0]}" if self._audiences else "")
            )
        # An API server without support for audiences answers without them: the token may then be for any audience.
        if self._audiences and not set(self._audiences) & set(_texts(status.get("audiences"), "audiences")):
            raise no_login(
                f"{AUTHORIZATION}: the Bearer token is not meant for this gateway: get one for the audience"
                f" {self._audiences[0]}"
            )
        user = status.get("user")
        if not isinstance(user, dict) or not isinstance(user.get("username"), str) or not user["username"]:
            raise _UnusableReviewError("a TokenReview without a user name")
        return user

    async def _allowed(self, user: dict[str, Any], verb: str, namespaces: Sequence[str]) -> list[str]:
        """Those of the namespaces where RBAC allows the verb. Raises ApiError, _UnusableReviewError."""
        asked = (self._allowed_in(user, verb, namespace) for namespace in namespaces)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [namespace for namespace, answer in zip(namespaces, answers, strict=True) if answer is True]

    async def _allowed_in(self, user: dict[str, Any], verb: str, namespace: str) -> bool:
        spec: dict[str, Any] = {
            "user": user["username"],
            "groups": _texts(user.get("groups"), "groups"),
            "resourceAttributes": {
                "namespace": namespace,
                "verb": verb,
                "group": ENGINECONNS.group,
                "resource": ENGINECONNS.plural,
            },
        }
        for field in ("uid", "extra"):
            if user.get(field):
                spec[field] = user[field]
        status = await self._create(ACCESS_REVIEWS, spec)
        return status.get("allowed") is True and not status.get("denied")

    async def _create(self, resource: Resource, spec: dict[str, Any]) -> dict[str, Any]:
        """The status of the review."""
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "spec": spec}
        async with self._turns:
            answer: Any = await self._client.create(resource, body)
        status = answer.get("status") if isinstance(answer, dict) else None
        if not isinstance(status, dict):
            raise _UnusableReviewError(f"a {resource.kind} without a status")
        return status


def _has_failed(answer: Caller | Refused) -> bool:
    """Whether Kubernetes has refused the token, or RBAC its user."""
    return isinstance(answer, Refused) and answer.status in (-1, 3)


class _UnusableReviewError(Exception):
    """The API server, or a proxy in its place, gave an answer that is not a review."""


class _Cache:
    """The latest answers, each until it expires."""

    def __init__(self) -> None:
        self._entries: OrderedDict[bytes, tuple[float, Caller | Refused]] = OrderedDict()

    def get(self, digest: bytes, now: float) -> Caller | Refused | None:
        found = self._entries.get(digest)
        if found is None:
            return None
        until, answer = found
        if now >= until:
            del self._entries[digest]
            return None
        self._entries.move_to_end(digest)
        return answer

    def put(self, digest: bytes, answer: Caller | Refused, until: float) -> None:
        self._entries[digest] = (until, answer)
        self._entries.move_to_end(digest)
        if len(self._entries) > CACHE_ENTRIES:
            self._entries.popitem(last=False)


def _shown(namespaces: Sequence[str]) -> str:
    """Namespaces as a refusal names them: a gateway may serve hundreds."""
    if "" in namespaces:
        return "all namespaces, as this gateway serves all"
    if len(namespaces) == 1:
        return f"namespace {namespaces[0]}"
    more = f" or {len(namespaces) - 5} more" if len(namespaces) > 5 else ""
    return f"any of the namespaces {', '.join(namespaces[:5])}{more}"


def _texts(value: Any, field: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _UnusableReviewError(f"a TokenReview whose {field} is no list of texts")
    return value


def _not_reviewed(what: str) -> Refused:
    return unavailable(f"The API server, which has to review the Bearer token, {what}; try again later")

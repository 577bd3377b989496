"""Checks the token of Kubernetes by which an agent proves its pod (docs/design/identity.md).

Offline, by the API server's public keys, which are fetched once and again for a key that is not known: no call per
engine. Must not know what the pod is allowed to do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from linkis_ecm.engine.launch import IDENTITY_AUDIENCE
from linkis_ecm.kube.client import ApiError
from linkis_ecm.process.jwt import public_key, unverified_part

log = logging.getLogger(__name__)

# What API servers sign with (kube-apiserver's --service-account-signing-key-file: RSA and ECDSA; RFC 7518).
ALGORITHMS = ["RS256", "ES256", "ES384", "ES512"]
LEEWAY_SECONDS = 60
# Seconds between two fetches because of a key that is not known: a stranger may name any.
REFETCH_SECONDS = 10.0
# Keys are asked for again after this, so that one that was withdrawn is not taken for long.
FRESH_SECONDS = 3600.0
FETCH_SECONDS = 5.0
TOKEN_MAX = 16 << 10


@dataclass(frozen=True, slots=True)
class PodClaims:
    """The pod that a token was made for."""

    namespace: str
    name: str
    uid: str


class TokenError(Exception):
    """The token is not taken; the text says why, and repeats nothing of it."""


class KeysUnavailableError(Exception):
    """The API server's keys cannot be had now: nothing can be said of any token."""


class Keys(Protocol):
    """Where the API server's keys come from."""

    async def signing_keys(self, *, timeout: float) -> Mapping[str, Any]:
        """The JSON Web Key Set. Raises ApiError."""
        ...


class PodTokens:
    """Over the API server's keys. `clock` gives Unix seconds, `monotonic` the age of keys."""

    def __init__(self, keys: Keys, *, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._source = keys
        self._clock = clock
        self._monotonic = monotonic
        self._keys: dict[str, Key] = {}
        self._fetched = self._tried = float("-inf")
        self._lock = asyncio.Lock()
        self._registry = JWSRegistry(algorithms=ALGORITHMS)

    async def claims(self, token: str) -> PodClaims:
        """Raises TokenError and KeysUnavailableError."""
        if len(token) > TOKEN_MAX:
            raise TokenError("the token is too long")
        key = await self._key_of(token)
        try:
            claims: dict[str, Any] = jwt.decode(token, key, registry=self._registry).claims
            jwt.JWTClaimsRegistry(
                now=lambda: int(self._clock()),
                leeway=LEEWAY_SECONDS,
                aud={"essential": True, "value": IDENTITY_AUDIENCE},
                exp={"essential": True},
            ).validate(claims)
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            raise TokenError(f"the token is not taken: {type(error).__name__}") from None
        pod = _mapping(_mapping(claims.get("kubernetes.io")).get("pod"))
        namespace = _mapping(claims.get("kubernetes.io")).get("namespace")
        found = (namespace, pod.get("name"), pod.get("uid"))
        if not all(isinstance(part, str) and part for part in found):
            raise TokenError("the token is bound to no pod")
        return PodClaims(*found)  # type: ignore[arg-type]

    async def refresh(self) -> None:
        """Fetches the keys, so that no agent waits for them. Raises KeysUnavailableError."""
        self._tried = self._monotonic()
        try:
            document = await self._source.signing_keys(timeout=FETCH_SECONDS)
        except ApiError as error:
            log.warning("the API server's keys cannot be had: %s", error)
            raise KeysUnavailableError from error
        found = [key for data in document.get("keys") or [] if (key := public_key(data)) is not None]
        self._keys = {key.kid: key for key in found if key.kid is not None}
        self._fetched = self._monotonic()

    async def _key_of(self, token: str) -> Key:
        header = unverified_part(token, 0)
        if header is None:
            raise TokenError("the token is no JWT")
        kid = header.get("kid")
        if not isinstance(kid, str):
            raise TokenError("the token names no key")
        async with self._lock:
            now = self._monotonic()
            stale = now - self._fetched >= FRESH_SECONDS
            if (kid not in self._keys or stale) and now - self._tried >= REFETCH_SECONDS:
                try:
                    await self.refresh()
                except KeysUnavailableError:
                    if kid not in self._keys:
                        raise
        if kid not in self._keys:
            if not self._keys:
                raise KeysUnavailableError
            raise TokenError("the token is signed by a key that the API server does not have")
        return self._keys[kid]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

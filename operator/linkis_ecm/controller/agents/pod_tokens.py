"""Checks the token of Kubernetes by which an agent proves its pod (docs/design/identity.md).

Offline, by the API server's public keys, which are fetched once and again for a key that is not known: no call per
engine. Must not know what the pod is allowed to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from joserfc import jwt
from joserfc.errors import JoseError

from linkis_ecm.engine.pod.launch import IDENTITY_AUDIENCE
from linkis_ecm.kube.client import ApiError
from linkis_ecm.process.signing_keys import KeysUnavailableError, NotSignedError, SigningKeys

log = logging.getLogger(__name__)

LEEWAY_SECONDS = 60
FETCH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PodClaims:
    """The pod that a token was made for."""

    namespace: str
    name: str
    uid: str


class TokenError(Exception):
    """The token is not taken; the text says why, and repeats nothing of it."""


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
        self._keys = SigningKeys(self._fetch, monotonic=monotonic)

    async def claims(self, token: str) -> PodClaims:
        """Raises TokenError and KeysUnavailableError."""
        try:
            claims = await self._keys.signed_claims(token)
        except NotSignedError as error:
            raise TokenError(str(error)) from None
        try:
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
        await self._keys.refresh()

    async def _fetch(self) -> Mapping[str, Any]:
        try:
            return await self._source.signing_keys(timeout=FETCH_SECONDS)
        except ApiError as error:
            log.warning("the API server's keys cannot be had: %s", error)
            raise KeysUnavailableError from error


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

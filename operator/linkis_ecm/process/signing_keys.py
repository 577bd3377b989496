"""The API server's public keys of service account tokens, fetched when they are needed, and what they say of a token.

Must not decide who is let in, or what a token's claims mean.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from linkis_ecm.process.jwt import public_key, unverified_part

log = logging.getLogger(__name__)

# What API servers sign with (kube-apiserver's --service-account-signing-key-file: RSA and ECDSA; RFC 7518).
ALGORITHMS = ["RS256", "ES256", "ES384", "ES512"]
# Seconds between two fetches because of a key that is not known: a stranger may name any.
REFETCH_SECONDS = 10.0
# Keys are asked for again after this, so that one that was withdrawn is not taken for long.
FRESH_SECONDS = 3600.0
TOKEN_MAX = 16 << 10


class KeysUnavailableError(Exception):
    """The API server's keys cannot be had now: nothing can be said of any token."""


class NotSignedError(Exception):
    """The token is not signed by the API server; the text says why, and repeats nothing of it."""


class UnknownKeyError(NotSignedError):
    """The token is no JWT, or names no key of the API server: somebody else may have issued it."""


class SigningKeys:
    """`fetch` gives the JSON Web Key Set, and raises KeysUnavailableError. `monotonic` tells the age of keys."""

    def __init__(self, fetch: Callable[[], Awaitable[Mapping[str, Any]]], *, monotonic: Callable[[], float]) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._keys: dict[str, Key] = {}
        self._fetched = self._tried = float("-inf")
        self._lock = asyncio.Lock()
        self._registry = JWSRegistry(algorithms=ALGORITHMS)

    async def signed_claims(self, token: str) -> dict[str, Any]:
        """The claims of a token that the API server has signed; its times and audience are not checked. Raises
        NotSignedError and KeysUnavailableError."""
        if len(token) > TOKEN_MAX:
            raise UnknownKeyError("the token is too long")
        key = await self._key_of(token)
        try:
            claims = jwt.decode(token, key, registry=self._registry).claims
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            raise NotSignedError(f"the token is not taken: {type(error).__name__}") from None
        if not isinstance(claims, dict):
            raise NotSignedError("the token has no claims")
        return claims

    async def refresh(self) -> None:
        """Fetches the keys, so that nobody waits for them. Raises KeysUnavailableError."""
        self._tried = self._monotonic()
        document = await self._fetch()
        listed = document.get("keys")
        found = [public_key(data) for data in (listed if isinstance(listed, list) else ())]
        self._keys = {key.kid: key for key in found if key is not None and key.kid is not None}
        self._fetched = self._monotonic()

    async def _key_of(self, token: str) -> Key:
        header = unverified_part(token, 0)
        if header is None:
            raise UnknownKeyError("the token is no JWT")
        kid = header.get("kid")
        if not isinstance(kid, str):
            raise UnknownKeyError("the token names no key")
        # A key that is there does not wait for a fetch that a stranger's token has begun.
        if kid not in self._keys or self._is_stale():
            async with self._lock:
                if (kid not in self._keys or self._is_stale()) and self._monotonic() - self._tried >= REFETCH_SECONDS:
                    try:
                        await self.refresh()
                    except KeysUnavailableError:
                        if kid not in self._keys:
                            raise
        if kid not in self._keys:
            if not self._keys:
                raise KeysUnavailableError
            raise UnknownKeyError("the token is signed by a key that the API server does not have")
        return self._keys[kid]

    def _is_stale(self) -> bool:
        return self._monotonic() - self._fetched >= FRESH_SECONDS

"""Authenticates callers by OpenID Connect: a JWT of one issuer as bearer token. Must not log a token, or show it.

Only a signature by the issuer's private key is accepted: not a token without signature, not a shared secret, not a key
or an address that the token itself names.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from joserfc import jwt
from joserfc.errors import BadSignatureError, ClaimError, ExpiredTokenError, JoseError, MissingClaimError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from linkis_ecm.engine.pod.launch import IDENTITY_AUDIENCE
from linkis_ecm.gateway.auth.base import Caller, Credentials, people_groups
from linkis_ecm.gateway.auth.bearer import AUTHORIZATION, MAX_TOKEN, bearer_token
from linkis_ecm.gateway.auth.documents import FETCH_SECONDS, discovery_url, endpoint, read_document
from linkis_ecm.gateway.http.errors import Refused, no_login, unavailable
from linkis_ecm.model.users import LOGIN_MAX, is_login, user_name
from linkis_ecm.process.jwt import end_of, public_key, unverified_part

log = logging.getLogger(__name__)

ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448"}
)
LEEWAY_SECONDS = 60
KEYS_FRESH_SECONDS = 600.0
KEYS_KEPT_SECONDS = 86400.0  # while the issuer is down
# Seconds between two fetches because of an unknown key in a token, and after a failed fetch; shorter while there are no
# keys at all, because nobody can log in then.
REFETCH_SECONDS = 30.0
FIRST_REFETCH_SECONDS = 5.0
# RFC 7517's type of keys: Kubernetes's API server answers 406 where only JSON is accepted.
ACCEPT = "application/jwk-set+json, application/json"
# The form of `sub` with Kubernetes as the issuer. No two such names are mapped to the same user.
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:[a-z0-9-]{1,63}:[a-z0-9.-]{1,253}")
_TOKEN_IS = f"{AUTHORIZATION}: the Bearer token"


class OidcAuthenticator:
    """The Authenticator of one issuer's JWTs."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        issuer: str,
        audience: str,
        jwks_url: str = "",
        user_claim: str = "preferred_username",
        admins: frozenset[str] = frozenset(),
        groups_claim: str = "",
        admin_group: str = "",
        ca_file: str = "",
        token_file: str = "",
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ValueError where a setting cannot be used. `clock` checks the times in tokens, `monotonic` the age of
        keys.

        Without `jwks_url` the address of the keys comes from the issuer's discovery document. `ca_file` has the only
        certificate authorities that are trusted for the issuer; without it the system's are. `token_file` has a bearer
        token for an issuer whose keys are not public, as Kubernetes's API server.
        """
        for name, value in (("issuer", issuer), ("audience", audience), ("user_claim", user_claim)):
            if not value:
                raise ValueError(f"the OIDC {name} is empty: set it, or configure no OIDC at all")
        for name, url in (("issuer", issuer), ("jwks_url", jwks_url)):
            if url and not url.startswith(("https://", "http://")):
                raise ValueError(f"the OIDC {name} is no address: write it like https://login.example.org")
        if admin_group and not groups_claim:
            raise ValueError("the OIDC admin_group needs the OIDC groups_claim: set it, or leave admin_group out")
        _check_files(ca_file, token_file, urls=(issuer, jwks_url))
        self.issuer = issuer
        self._audience = audience
        self._user_claim = user_claim
        self._admins = admins
        self._groups_claim = groups_claim
        self._admin_group = admin_group
        self._clock = clock
        self._keys = IssuerKeys(
            session, issuer=issuer, jwks_url=jwks_url, ca_file=ca_file, token_file=token_file, clock=monotonic
        )
        self._registry = _Registry(algorithms=ALGORITHMS, strict_check_header=False)

    async def authenticate(self, request: Credentials) -> Caller:
        """The user whom the token names. Raises Refused."""
        token = bearer_token(request)
        header = unverified_part(token, 0)
        if header is None:
            raise no_login(f"{_TOKEN_IS} is no JWT: send an access token of {self.issuer}")
        # Checked first: a token of another issuer must not cause a fetch of the keys.
        if unverified_issuer(token) != self.issuer:
            raise self._wrong("iss", missing=False)
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise no_login(f"{_TOKEN_IS} is not signed with an algorithm that counts: use RS256, PS256, ES256 or EdDSA")
        # Extensions change which bytes are signed, and a JWT must not have an unencoded payload (RFC 7797, section 7).
        if "crit" in header or "b64" in header or not isinstance(kid, str | None):
            raise no_login(f"{_TOKEN_IS} has a header (crit, b64, kid) that cannot be used: send an ordinary JWT")
        key = await self._keys.find(kid, algorithm)
        return self._caller(self._verified(token, key))

    def _verified(self, token: str, key: Key) -> dict[str, Any]:
        """The claims of a token that is valid now. Raises Refused."""
        try:
            claims: dict[str, Any] = jwt.decode(token, key, registry=self._registry).claims
            jwt.JWTClaimsRegistry(
                now=int(self._clock()),
                leeway=LEEWAY_SECONDS,
                iss={"essential": True, "value": self.issuer},
                aud={"essential": True, "value": self._audience},
                exp={"essential": True},
            ).validate(claims)
        except BadSignatureError:
            raise no_login(f"{_TOKEN_IS} has a wrong signature: get a new one from {self.issuer}") from None
        except ExpiredTokenError:
            raise no_login(f"{_TOKEN_IS} has expired: get a new one from {self.issuer}") from None
        except ClaimError as error:
            raise self._wrong(error.claim, missing=isinstance(error, MissingClaimError)) from None
        except (JoseError, ValueError, TypeError, RecursionError):
            raise no_login(
                f"{_TOKEN_IS} cannot be read: send an access token of {self.issuer} as it was issued"
            ) from None
        if _is_of_an_engine(claims):
            raise no_login(f"{_TOKEN_IS} is an engine's, which proves its pod and is no login: get one for a user")
        return claims

    def _wrong(self, claim: str, *, missing: bool) -> Refused:
        if missing:
            return no_login(f"{_TOKEN_IS} has no claim {claim}: have {self.issuer} put it into access tokens")
        remedy = {
            "iss": f"is not from the issuer {self.issuer} (claim iss): get one there",
            "aud": f"is not meant for this gateway (claim aud): get one for the audience {self._audience}",
            "nbf": "is not valid yet (claim nbf): wait, or set the clocks right",
            "iat": "was issued in the future (claim iat): set the clocks right",
        }
        return no_login(f"{_TOKEN_IS} {remedy.get(claim, f'has a claim {claim} of a wrong form: get a new one')}")

    def _caller(self, claims: dict[str, Any]) -> Caller:
        user = claims.get(self._user_claim)
        if user is None:
            raise self._wrong(self._user_claim, missing=True)
        if not isinstance(user, str) or not _is_user(user):
            raise no_login(
                f"{_TOKEN_IS}'s claim {self._user_claim} is no user name: it must have printable characters without"
                f" blanks at the ends, at most {LOGIN_MAX} of them, and not begin with system:; have the user or the"
                f" claim changed at {self.issuer}"
            )
        groups = claims.get(self._groups_claim) if self._groups_claim else None
        # The same user as with Kubernetes's own tokens; and no user gets a name that a service account is mapped to.
        user = user_name(user)
        is_admin = bool(self._admin_group) and isinstance(groups, list) and self._admin_group in groups
        expires = end_of(claims) + LEEWAY_SECONDS
        return Caller(user, user in self._admins or is_admin, groups=people_groups(groups), expires=expires)


class IssuerKeys:
    """The issuer's public keys, fetched when they are needed."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        issuer: str,
        jwks_url: str,
        ca_file: str,
        token_file: str,
        clock: Callable[[], float],
    ) -> None:
        self._session = session
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._ca_file = ca_file
        self._token_file = token_file
        self._clock = clock
        self._keys: list[Key] = []
        self._fetched = self._tried = self._asked = float("-inf")
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> Key:
        """The key that a token's header names. Raises Refused."""
        if self._should_fetch(kid):
            await self._fetch()
        named = self._named(kid)
        if self._clock() - self._fetched >= KEYS_KEPT_SECONDS or (self._failed and not named):
            raise unavailable(f"The issuer {self._issuer} does not give its keys: try again later")
        fitting = [key for key in named if _fits(key, algorithm)]
        if not fitting:
            raise no_login(f"{_TOKEN_IS} is signed with a key that {self._issuer} does not have: get a new one there")
        if kid is None and len(fitting) > 1:
            raise no_login(
                f"{_TOKEN_IS} does not say which key it is signed with: have {self._issuer} set its header kid"
            )
        return fitting[0]

    def _should_fetch(self, kid: str | None) -> bool:
        """Whether this token needs newer keys, or must wait for a running fetch."""
        now = self._clock()
        stale = now - self._fetched >= KEYS_FRESH_SECONDS
        if not stale and self._named(kid):
            return False
        if self._fetching is not None and not self._fetching.done():
            return True
        if self._failed and now - self._tried < (REFETCH_SECONDS if self._keys else FIRST_REFETCH_SECONDS):
            return False
        if not stale:
            # Anyone can put an unknown key id into a token, so such fetches are limited.
            if now - self._asked < REFETCH_SECONDS:
                return False
            self._asked = now
        return True

    def _named(self, kid: str | None) -> list[Key]:
        return self._keys if kid is None else [key for key in self._keys if key.kid == kid]

    async def _fetch(self) -> None:
        if self._fetching is None or self._fetching.done():
            self._tried = self._clock()
            self._fetching = asyncio.create_task(self._read())
        # Shielded: a call that is cancelled must not cancel the fetch for other calls that wait for it.
        await asyncio.shield(self._fetching)

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                url = self._jwks_url or await self._discover()
                found = (await self._document(url)).get("keys")
            if not isinstance(found, list):
                raise ValueError(f"{url} has no list of keys")
        except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
            self._failed = True
            log.warning("the keys of %s cannot be fetched: %s: %s", self._issuer, type(error).__name__, error)
            return
        # Also an empty list: an issuer withdraws all its keys this way.
        self._keys = [key for data in found if (key := public_key(data)) is not None]
        self._fetched, self._failed = self._clock(), False
        log.info("fetched %d keys of %s", len(self._keys), self._issuer)

    async def _discover(self) -> str:
        return endpoint(await self._document(discovery_url(self._issuer)), "jwks_uri", issuer=self._issuer)

    async def _document(self, url: str) -> dict[str, Any]:
        headers = {"Accept": ACCEPT}
        # Read for each fetch: it is renewed while the gateway runs.
        if self._token_file and self._may_have_token(url):
            headers[AUTHORIZATION] = f"Bearer {_read_token(self._token_file)}"
        return await read_document(self._session, url, ca_file=self._ca_file, headers=headers)

    def _may_have_token(self, url: str) -> bool:
        """Whether the url may get the token: the issuer and the configured address of its keys, but no other address
        from its document."""
        return url == self._jwks_url or _origin(url) == _origin(self._issuer)


class _Registry(JWSRegistry):
    """With limits for a header with certificates and a signature by an RSA key of 8192 bits; joserfc's are lower."""

    max_header_length = MAX_TOKEN
    max_signature_length = 2048


def unverified_issuer(token: str) -> str:
    """The issuer that a token claims, not verified; empty where it is no JWT."""
    issuer = (unverified_part(token, 1) or {}).get("iss")
    return issuer if isinstance(issuer, str) else ""


def _is_of_an_engine(claims: dict[str, Any]) -> bool:
    """Whether the kubelet made the token for an agent: bound to a pod, for the audience of agents, whatever others it
    has. User code of the engine reads it."""
    bound, audience = claims.get("kubernetes.io"), claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    return isinstance(bound, dict) and "pod" in bound and IDENTITY_AUDIENCE in audiences


def _is_user(name: str) -> bool:
    """Whether it is a Linkis user's name, or that of a service account, which is mapped to one."""
    if _SERVICE_ACCOUNT.fullmatch(name) is not None:
        return True
    # Kubernetes's own names begin so.
    return is_login(name) and not name.startswith("system:")


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _read_token(path: str) -> str:
    return Path(path).read_text(encoding="ascii").strip()


def _check_files(ca_file: str, token_file: str, *, urls: tuple[str, ...]) -> None:
    """Raises ValueError where a file cannot be used, so that the gateway fails at its start, not at the first call."""
    try:
        if ca_file:
            ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ValueError(f"the OIDC ca_file {ca_file} has no certificates in PEM that can be read: {error}") from None
    if not token_file:
        return
    if any(url.startswith("http://") for url in urls):
        raise ValueError("the OIDC token_file needs an issuer and a jwks_url with https: a token must not go in clear")
    try:
        _read_token(token_file)
    except (OSError, ValueError) as error:
        raise ValueError(f"the OIDC token_file {token_file} cannot be read: {type(error).__name__}") from None


def _fits(key: Key, algorithm: str) -> bool:
    try:
        JWSRegistry.algorithms[algorithm].check_key(key)
    except JoseError:
        return False
    return True

"""OpenID Connect's code flow with PKCE for the console: where a browser logs in, and the token for its code.

The browser makes the verifier and the state, and keeps both. The gateway is a public client of the issuer: it has no
secret, and exchanges a code only because the page's policy lets it talk to nobody but the gateway. A token is given
back only if it logs in here. Must not log a code or a token.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from linkis_ecm.gateway.auth.base import Authenticator, Caller
from linkis_ecm.gateway.auth.bearer import AUTHORIZATION
from linkis_ecm.gateway.auth.documents import FETCH_SECONDS, discovery_url, endpoint, read_document
from linkis_ecm.gateway.http.errors import Refused, bad_request, no_login, shown, too_many, unavailable
from linkis_ecm.process.ports.ratelimit import TokenBuckets

log = logging.getLogger(__name__)

# Exchanges at a time, and of one address: nobody is logged in yet. A person logs in once an hour.
AT_ONCE = 8
PER_SECOND, BURST, PEERS = 0.5, 10, 10_000
# How long the addresses of the issuer are kept.
FRESH_SECONDS = 600.0
# RFC 7636, section 4.1.
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_CODE = re.compile(r"[\x21-\x7e]{1,4096}")
_REDIRECT = re.compile(r"https?://[\x21-\x7e]{1,1000}/console/callback[.]html")
# Characters of an issuer's reason that are repeated: Entra's first sentence, which says what to do, has some 200.
REASON_CHARS = 300
# A code or verifier that is shorter could be a part of any word.
SECRET_CHARS = 16


@dataclass(frozen=True, slots=True)
class _Bearer:
    """A request that carries nothing but this token."""

    token: str
    remote: str | None
    cookies: Mapping[str, str] = field(default_factory=dict)

    @property
    def headers(self) -> Mapping[str, str]:
        return {AUTHORIZATION: f"Bearer {self.token}"}


@dataclass(frozen=True, slots=True)
class _Endpoints:
    """Where an issuer is asked. `end_session` ends its own login of a browser, and not every issuer has it: ""."""

    authorization: str
    token: str
    end_session: str


def reason(error: str, description: object, *, secrets: tuple[str, ...] = ()) -> str:
    """What the issuer says of a refusal, as a sentence and a log line may repeat it: its description, else its code of
    the error; in one line, printable, at most REASON_CHARS, without the secrets that it repeats."""
    for text in (description, error):
        found = text if isinstance(text, str) else ""
        for secret in secrets:
            found = found.replace(secret, "…") if len(secret) >= SECRET_CHARS else found
        found = " ".join(found.split())
        if found:
            return shown(found, REASON_CHARS) + ("…" if len(found) > REASON_CHARS else "")
    return "without a reason"


class CodeFlow:
    """The flow with one issuer. `authenticator` is the gateway's own: it decides which token counts."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        issuer: str,
        client_id: str,
        scopes: str,
        authenticator: Authenticator,
        ca_file: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._issuer = issuer
        self._client_id = client_id
        self._scopes = scopes
        self._authenticator = authenticator
        self._ca_file = ca_file
        self._clock = clock
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._reading = asyncio.Lock()
        self._buckets = TokenBuckets[str](per_second=PER_SECOND, burst=BURST, keys=PEERS, clock=clock)
        self._found: _Endpoints | None = None
        self._read = self._tried = float("-inf")

    async def way(self) -> dict[str, Any]:
        """What a browser needs to send its user to the issuer. Raises Refused."""
        found = await self._endpoints()
        way = {
            "issuer": self._issuer,
            "authorizationEndpoint": found.authorization,
            "clientId": self._client_id,
            "scope": self._scopes,
        }
        return way | ({"endSessionEndpoint": found.end_session} if found.end_session else {})

    async def exchange(self, *, code: str, verifier: str, redirect_uri: str, peer: str) -> tuple[str, Caller]:
        """The token for the code, the first of the issuer's that logs in here, and who it is. Raises Refused."""
        if not _VERIFIER.fullmatch(verifier) or not _CODE.fullmatch(code) or not _REDIRECT.fullmatch(redirect_uri):
            raise bad_request("The login's code, verifier or address is not what the console sends: log in again")
        if wait := self._buckets.take(peer):
            raise too_many(f"Too many logins come from {peer}: log in again in {wait:.0f} s", limit="logins")
        url = (await self._endpoints()).token
        form = {
            "grant_type": "authorization_code", "code": code, "code_verifier": verifier,
            "redirect_uri": redirect_uri, "client_id": self._client_id,
        }  # fmt: skip
        async with self._turns:
            # RFC 6749, section 5.2: an error is a JSON object with status 400 or 401.
            answer = await self._ask(url, form=form, statuses=(200, 400, 401))
        if isinstance(error := answer.get("error"), str):
            why = reason(error, answer.get("error_description"), secrets=(code, verifier))
            log.warning("%s does not accept a login of %s: %s", self._issuer, peer, why)
            raise no_login(f"{self._issuer} does not accept this login ({why}): log in again")
        refusal = None
        for name in ("access_token", "id_token"):
            token = answer.get(name)
            if not isinstance(token, str) or not token:
                continue
            try:
                return token, await self._authenticator.authenticate(_Bearer(token, peer))
            except Refused as refused:
                refusal = refusal or refused
        raise refusal or unavailable(f"{self._issuer} has given no token for this login: log in again")

    async def _endpoints(self) -> _Endpoints:
        """The issuer's addresses. Raises Refused."""
        if self._found is not None and self._clock() - self._read < FRESH_SECONDS:
            return self._found
        # One question for all who wait, and while the issuer is away one every 5 s: anyone can ask for the way.
        async with self._reading:
            now = self._clock()
            if self._found is not None and now - self._read < FRESH_SECONDS:
                return self._found
            if now - self._tried < FETCH_SECONDS:
                raise self._away()
            self._tried = now
            document = await self._ask(discovery_url(self._issuer))
            try:
                # The third is OpenID Connect RP-Initiated Logout 1.0, section 2.1.
                authorization, token, *more = (
                    endpoint(document, name, issuer=self._issuer)
                    for name in ("authorization_endpoint", "token_endpoint", "end_session_endpoint")
                    if name in document or name != "end_session_endpoint"
                )
                self._found = _Endpoints(authorization, token, more[0] if more else "")
            except ValueError as error:
                log.warning("%s", error)
                raise self._away() from None
            self._read = now
            return self._found

    async def _ask(self, url: str, **more: Any) -> dict[str, Any]:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                return await read_document(
                    self._session, url, ca_file=self._ca_file, headers={"Accept": "application/json"}, **more
                )
        except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
            # Not the error's text alone: it may repeat what was sent.
            log.warning("%s cannot be asked: %s", url, type(error).__name__)
            raise self._away() from None

    def _away(self) -> Refused:
        return unavailable(f"The issuer {self._issuer} does not answer as it should: try again later, or use a token")

"""Selects the authenticator by the credentials that a call carries. Must not judge a token itself.

Closed by default: credentials for a way that is not configured are refused, and a refusal is not retried with another
authenticator.
"""

from __future__ import annotations

from typing import Protocol

from linkis_ecm.gateway.auth.base import Authenticator, Caller, Credentials
from linkis_ecm.gateway.auth.bearer import AUTHORIZATION, bearer_token
from linkis_ecm.gateway.auth.oidc import unverified_issuer
from linkis_ecm.gateway.auth.tokens import TOKEN_HEADER, USER_HEADER
from linkis_ecm.gateway.http.errors import no_login

_LINKIS = (TOKEN_HEADER, USER_HEADER)


class IssuerAuthenticator(Authenticator, Protocol):
    """An Authenticator of one issuer's tokens."""

    issuer: str


class Chain:
    """The Authenticator of a gateway with several ways to log in."""

    def __init__(
        self,
        *,
        tokens: Authenticator | None = None,
        oidc: IssuerAuthenticator | None = None,
        kubernetes: Authenticator | None = None,
    ) -> None:
        self._tokens = tokens
        self._oidc = oidc
        self._kubernetes = kubernetes
        self._ways = " or ".join(_ways(tokens, oidc, kubernetes))

    async def authenticate(self, request: Credentials) -> Caller:
        """The caller, as the selected authenticator determines it. Raises Refused."""
        if not self._ways:
            raise no_login("The gateway has no way to log in: whoever runs it has to configure one")
        return await self._pick(request).authenticate(request)

    def _pick(self, request: Credentials) -> Authenticator:
        sent = []
        if any(carried.get(name) for carried in (request.headers, request.cookies) for name in _LINKIS):
            if self._tokens is not None:
                return self._tokens
            sent.append(TOKEN_HEADER)
        if request.headers.get(AUTHORIZATION):
            if self._oidc is not None or self._kubernetes is not None:
                return self._of_bearer(bearer_token(request))
            sent.append(AUTHORIZATION)
        if sent:
            raise no_login(f"{' and '.join(sent)} is no way to log in to this gateway: send {self._ways}")
        raise no_login(f"The call does not say who is calling: send {self._ways}")

    def _of_bearer(self, token: str) -> Authenticator:
        if self._oidc is not None and unverified_issuer(token) == self._oidc.issuer:
            return self._oidc
        if self._kubernetes is not None:
            return self._kubernetes
        raise no_login(f"{AUTHORIZATION}: the Bearer token is not one that this gateway takes: send {self._ways}")


def _ways(
    tokens: Authenticator | None, oidc: IssuerAuthenticator | None, kubernetes: Authenticator | None
) -> list[str]:
    """The configured ways to log in, as a refusal names them."""
    ways = []
    if tokens is not None:
        ways.append(f"{TOKEN_HEADER} and {USER_HEADER} (a token of this gateway and your user name)")
    if oidc is not None:
        ways.append(f"{AUTHORIZATION}: Bearer with an access token of {oidc.issuer}")
    if kubernetes is not None:
        ways.append(f"{AUTHORIZATION}: Bearer with a Kubernetes token")
    return ways

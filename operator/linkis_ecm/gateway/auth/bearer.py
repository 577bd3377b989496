"""The bearer token of a call, as the header `Authorization` has it. Must not judge the token, log it or show it."""

from __future__ import annotations

import re

from linkis_ecm.gateway.auth.base import Credentials, single_header
from linkis_ecm.gateway.http.errors import no_login

AUTHORIZATION = "Authorization"
# Service account tokens have about 1 KiB; one of a user with hundreds of groups has some more.
MAX_TOKEN = 16 * 1024
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def bearer_token(request: Credentials) -> str:
    """The token of the header `Authorization: Bearer`. Raises Refused."""
    header = single_header(request, AUTHORIZATION)
    scheme, _, token = header.partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not token:
        raise no_login(f"{AUTHORIZATION} has no Bearer token: send the header {AUTHORIZATION}: Bearer <token>")
    if len(token) > MAX_TOKEN:
        raise no_login(
            f"{AUTHORIZATION}: the Bearer token has more than {MAX_TOKEN} characters: get one with fewer groups or"
            " claims in it"
        )
    if not _TOKEN.fullmatch(token):
        raise no_login(f"{AUTHORIZATION}: the Bearer token has characters that no token has: send it as it was issued")
    return token

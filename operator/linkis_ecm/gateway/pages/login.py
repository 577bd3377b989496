"""The two addresses of the console's login at an issuer: where to log in, and the token for a code.

Both are for people who are not logged in yet, so what they read is bounded, and CodeFlow bounds how often they ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.auth.code_flow import CodeFlow
from linkis_ecm.gateway.http.errors import bad_request, forbidden, no_such_path, too_large
from linkis_ecm.gateway.http.peers import Peers

WAYS, TOKEN = "/console/login.json", "/console/token"
# A code of 4 KiB, a verifier and an address.
MAX_BODY = 8 << 10
BODY_SECONDS = 10.0


def add_routes(
    router: web.UrlDispatcher,
    flow: CodeFlow | None,
    peers: Peers,
    *,
    on_login: Callable[[web.Request, Caller], None],
) -> None:
    """The two addresses. `peers` says from which client a login comes; `on_login` hears who has logged in."""

    async def ways(_: web.Request) -> web.Response:
        return _json({"oidc": await flow.way() if flow is not None else None})

    async def token(request: web.Request) -> web.Response:
        if flow is None:
            raise no_such_path("This gateway has no login at an issuer: log in with a token")
        # A browser says which page asks; only the console does.
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise forbidden("A page of another site asks for this login: log in at the console itself")
        sent = await _body(request)
        code, verifier, redirect = (sent.get(name) for name in ("code", "verifier", "redirectUri"))
        if not isinstance(code, str) or not isinstance(verifier, str) or not isinstance(redirect, str):
            raise bad_request("The login is not what the console sends: log in again")
        # Browsers without Sec-Fetch-Site send an Origin.
        origin = request.headers.get("Origin")
        if origin is not None and not redirect.startswith(f"{origin}/"):
            raise forbidden("The login is of a console at another address: log in at the console itself")
        peer = peers.client(request.remote, request.headers)
        found, caller = await flow.exchange(code=code, verifier=verifier, redirect_uri=redirect, peer=peer)
        on_login(request, caller)
        return _json({"token": found})

    router.add_get(WAYS, ways)
    router.add_post(TOKEN, token)


def _json(data: dict[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(data), content_type="application/json", charset="utf-8")


async def _body(request: web.Request) -> dict[str, Any]:
    """The request's JSON object. Raises Refused."""
    if request.content_type != "application/json" or "Content-Encoding" in request.headers:
        raise bad_request("The login is not JSON: log in at the console")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > MAX_BODY:
                    raise too_large(f"The login has more than {MAX_BODY} bytes", limit="body")
    except TimeoutError:
        raise bad_request("The login did not come whole: log in again") from None
    try:
        sent = orjson.loads(body)
    except orjson.JSONDecodeError:
        sent = None
    if not isinstance(sent, dict):
        raise bad_request("The login is no JSON object: log in again")
    return sent

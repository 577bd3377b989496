"""An OpenID Connect issuer with the code flow and PKCE, on loopback: whoever asks is logged in as alice at once."""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from joserfc import jwk, jwt

CLIENT = "ecm-console"
AUDIENCE = "linkis-ecm"


@dataclass
class CodeIssuer:
    """`url` is the issuer. `refuse`: its page sends the browser back with this error. `claims` change the token's."""

    url: str = ""
    refuse: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    # What the token endpoint answers with besides, or instead.
    extra: dict[str, Any] = field(default_factory=dict)
    # The forms that the token endpoint got.
    forms: list[dict[str, str]] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    discoveries: int = 0
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)
    # What else its discovery document has.
    more: dict[str, Any] = field(default_factory=dict)
    _key: Any = field(default_factory=lambda: jwk.generate_key("RSA", 2048, {"kid": "one"}))

    def token(self, **changes: Any) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "aud": AUDIENCE, "iat": now, "exp": now + 300, "preferred_username": "alice"}
        return jwt.encode({"alg": "RS256", "kid": "one"}, claims | self.claims | changes, self._key)

    def code(self, challenge: str, redirect_uri: str) -> str:
        """A code as the issuer's page gives it."""
        code = uuid.uuid4().hex
        self._codes[code] = {"code_challenge": challenge, "redirect_uri": redirect_uri}
        return code

    async def _discover(self, _: web.Request) -> web.Response:
        self.discoveries += 1
        return web.json_response(
            {
                "issuer": self.url, "jwks_uri": f"{self.url}/keys",
                "authorization_endpoint": f"{self.url}/authorize", "token_endpoint": f"{self.url}/token",
            } | self.more
        )  # fmt: skip

    async def _keys(self, _: web.Request) -> web.Response:
        return web.json_response({"keys": [self._key.as_dict(private=False)]})

    async def _authorize(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        self.asked.append(query)
        if self.refuse:
            sent = {"error": "access_denied", "error_description": self.refuse, "state": query["state"]}
        else:
            code = self.code(query["code_challenge"], query["redirect_uri"])
            sent = {"code": code, "state": query["state"], "iss": self.url}
        raise web.HTTPFound(f"{query['redirect_uri']}?{urlencode(sent)}")

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.forms.append(form)
        known = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            known is None
            or known["code_challenge"] != challenge
            or form.get("redirect_uri") != known["redirect_uri"]
            or form.get("client_id") != CLIENT
        ):
            return web.json_response({"error": "invalid_grant", "error_description": "code is not valid"}, status=400)
        return web.json_response({"access_token": self.token(), "token_type": "Bearer"} | self.extra)


@asynccontextmanager
async def code_issuer() -> AsyncIterator[CodeIssuer]:
    """A running one."""
    made = CodeIssuer()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", made._discover)
    app.router.add_get("/keys", made._keys)
    app.router.add_get("/authorize", made._authorize)
    app.router.add_post("/token", made._token)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()

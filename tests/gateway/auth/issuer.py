"""An OpenID Connect issuer for tests: a real server on loopback, tokens signed with real keys, clocks to turn."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import weakref
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from joserfc import jwk, jwt
from joserfc.jws import JWSRegistry

from linkis_ecm.gateway.auth.base import Caller
from linkis_ecm.gateway.auth.oidc import OidcAuthenticator
from linkis_ecm.gateway.http.errors import Refused
from tools.testkit.gateway.callers import Clock, Sent
from tools.testkit.servers.ports import reserved

AUDIENCE = "linkis-ecm"
NOW = 1_800_000_000
RSA = jwk.generate_key("RSA", 2048, {"kid": "rsa"})
OTHER = jwk.generate_key("RSA", 2048, {"kid": "other"})
EC = jwk.generate_key("EC", "P-256", {"kid": "ec"})
ED = jwk.generate_key("OKP", "Ed25519", {"kid": "ed"})


class Issuer:
    """Serves a discovery document and keys, and counts who asks."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        # The same one after a stop, and nobody else's meanwhile.
        held = reserved()
        weakref.finalize(self, held.close)
        self.port = held.getsockname()[1]
        # The Authorization header of each request.
        self.shown: list[str | None] = []
        self.keys: list[Any] = [RSA.as_dict()]
        self.fetches = 0
        self.discoveries = 0
        self.discovery: dict[str, Any] = {}
        # What the keys' address answers with instead.
        self.answer: Callable[[], web.StreamResponse] | None = None
        self.held: asyncio.Event | None = None
        self.asked = asyncio.Event()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/realm/.well-known/openid-configuration", self._discover)
        app.router.add_get("/keys", self._keys)
        app.router.add_get("/elsewhere", self._elsewhere)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.tls).start()
        self.origin = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        self.url = f"{self.origin}/realm"
        self.discovery = {"issuer": self.url, "jwks_uri": f"{self.origin}/keys"}

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _discover(self, request: web.Request) -> web.Response:
        self.shown.append(request.headers.get("Authorization"))
        self.discoveries += 1
        return web.json_response(self.discovery)

    async def _keys(self, request: web.Request) -> web.StreamResponse:
        self.shown.append(request.headers.get("Authorization"))
        # As Kubernetes's API server does.
        if "application/jwk-set+json" not in request.headers["Accept"]:
            return web.Response(status=406)
        self.fetches += 1
        self.asked.set()
        if self.held is not None:
            await self.held.wait()
        return (
            self.answer()
            if self.answer is not None
            else web.json_response({"keys": self.keys}, content_type="application/jwk-set+json")
        )

    async def _elsewhere(self, _: web.Request) -> web.Response:
        return web.json_response({"keys": self.keys})

    def claims(self, **changes: Any) -> dict[str, Any]:
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "iat": NOW - 10,
            "exp": NOW + 300,
            "preferred_username": "alice",
        } | changes
        return {name: value for name, value in claims.items() if value is not None}

    def token(
        self, key: Any = RSA, algorithm: str = "RS256", header: dict[str, Any] | None = None, **changes: Any
    ) -> str:
        full = {"alg": algorithm, "kid": key.kid} | (header or {})
        registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        return jwt.encode(
            {name: value for name, value in full.items() if value is not None},
            self.claims(**changes),
            key,
            registry=registry,
        )


class Setup:
    """An authenticator with its clocks."""

    def __init__(self, session: aiohttp.ClientSession, issuer: Issuer) -> None:
        self.session = session
        self.issuer = issuer
        self.clock = Clock(NOW)
        self.ticks = Clock(50.0)

    def new(self, **options: Any) -> OidcAuthenticator:
        options = {"issuer": self.issuer.url, "audience": AUDIENCE} | options
        return OidcAuthenticator(self.session, clock=self.clock, monotonic=self.ticks, **options)


def part(value: Any) -> str:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


async def ask(authenticator: OidcAuthenticator, token: str) -> Caller:
    return await authenticator.authenticate(Sent({"Authorization": f"Bearer {token}"}))


async def refused(authenticator: OidcAuthenticator, token: str) -> Refused:
    with pytest.raises(Refused) as caught:
        await ask(authenticator, token)
    refusal = caught.value
    assert token not in refusal.sentence
    assert not any(len(piece) > 8 and piece in refusal.sentence for piece in token.split("."))
    return refusal


async def refusal(authenticator: OidcAuthenticator, token: str) -> str:
    found = await refused(authenticator, token)
    assert found.status == -1
    return found.sentence

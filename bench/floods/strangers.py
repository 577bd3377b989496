"""Attacks on the gateway's port without a login. Must not measure."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import ssl
import uuid
from base64 import urlsafe_b64encode

from aiohttp import web

from bench.floods.attack import JSON, Context, Flood, call, hold, pipeline, repeat, together
from linkis_ecm.api.paths import BASE
from tools.loopback.sockets import connection, request

GUESSED = {"Authorization": "Bearer guessed"}
_HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


async def silent(context: Context) -> None:
    await hold(context, context.at_gateway, 4000, b"")


async def half_heads(context: Context) -> None:
    await hold(context, context.at_gateway, 2000, _HEAD + b"X-A: " + b"a" * 30_000)


async def half_bodies(context: Context) -> None:
    async with asyncio.TaskGroup() as group:
        for headers in (GUESSED, {}):
            for method in ("reportResourceUsage", "executeCode"):
                head = request("POST", f"{BASE}/{method}", headers=headers | JSON, length=8 << 20)
                group.create_task(hold(context, context.at_gateway, 200, head + b'{"a":'))


async def many_keys(context: Context) -> None:
    body = json.dumps({str(n): 0 for n in range(800_000)}, separators=(",", ":")).encode()
    data = request("POST", f"{BASE}/reportResourceUsage", headers=GUESSED | JSON, body=body)
    await repeat(context, context.at_gateway, 8, lambda _: data)


async def packed(context: Context) -> None:
    body = gzip.compress(b'{"engineId":"' + b"x" * (8 << 20) + b'"}')
    headers = GUESSED | JSON | {"Content-Encoding": "gzip"}
    data = request("POST", f"{BASE}/reportResourceUsage", headers=headers, body=body)
    await repeat(context, context.at_gateway, 64, lambda _: data)


def _part(content: object) -> str:
    return urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def made_up_token(issuer: str, kid: str) -> str:
    """A JWT with a signature that is none."""
    signature = urlsafe_b64encode(os.urandom(256)).rstrip(b"=").decode()
    return f"{_part({'alg': 'RS256', 'kid': kid})}.{_part({'iss': issuer, 'sub': 'x', 'exp': 4e9})}.{signature}"


async def garbage_tokens(context: Context) -> None:
    issuer = f"http://127.0.0.1:{context.issuer}"

    def make(number: int) -> bytes:
        ways = (
            {"Token-Code": uuid.uuid4().hex, "Token-User": "alice"},
            {"Authorization": f"Bearer {uuid.uuid4().hex}"},
            {"Authorization": f"Bearer {made_up_token(issuer, uuid.uuid4().hex)}"},
            {"Authorization": f"Bearer {made_up_token('https://elsewhere.example', uuid.uuid4().hex)}"},
            {"Authorization": f"Bearer {'x' * 16_000}"},
        )
        return call("listEngines", login=ways[number % len(ways)])

    await repeat(context, context.at_gateway, 32, make)


async def endless_keys(context: Context) -> None:
    """The issuer's keys come without end, and each token asks for another one."""

    async def keys(request: web.Request) -> web.StreamResponse:
        context.count("keys asked for")
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        await answer.write(b'{"keys":[')
        while True:
            await answer.write(b'{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"k"},' * 20_000)

    app = web.Application()
    app.router.add_get("/{path:.*}", keys)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", context.issuer, reuse_address=True).start()
    issuer = f"http://127.0.0.1:{context.issuer}"
    try:
        await repeat(
            context, context.at_gateway, 16,
            lambda _: call("listEngines", login={"Authorization": f"Bearer {made_up_token(issuer, uuid.uuid4().hex)}"}),
        )  # fmt: skip
    finally:
        await runner.cleanup()


async def no_http(context: Context) -> None:
    upgrade = (
        b"GET %s/listEngines HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" % BASE.encode()
    ) + os.urandom(4096)
    samples = (
        os.urandom(8192),
        upgrade,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(512),
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01" + os.urandom(512),
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFF\r\n" + b"x" * 4096,
        _HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        _HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(20_000)) + b"\r\n",
        b"GET " + b"/a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    await repeat(context, context.at_gateway, 64, lambda n: samples[n % len(samples)], seconds=2)


async def open_pages(context: Context) -> None:
    """What needs no login, by many who do not read it."""
    paths = ("/openapi.json", "/metrics", "/docs", "/healthz", "/readyz")
    data = b"".join(request("GET", path) for path in paths) * 4

    async def deaf() -> None:
        while True:
            try:
                async with connection(context.at_gateway) as (_, writer):
                    context.count("connections")
                    while True:
                        writer.write(data)
                        async with asyncio.timeout(5):
                            await writer.drain()
                        await asyncio.sleep(0)  # drain alone gives nobody else a turn while the bytes are taken
            except (OSError, TimeoutError):
                context.count("cut")
                await asyncio.sleep(0.1)

    await together(200, deaf)


async def pipelined(context: Context) -> None:
    data = (request("GET", "/nowhere") + call("listEngines", login={})) * 50
    await pipeline(context, context.at_gateway, 16, data)


async def silent_tls(context: Context) -> None:
    async with asyncio.TaskGroup() as group:
        target = context.target(context.tls)
        group.create_task(hold(context, target, 1500, b""))
        group.create_task(hold(context, target, 500, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))


async def handshakes_tls(context: Context) -> None:
    trust = ssl.create_default_context(cafile=context.ca)
    await repeat(context, context.target(context.tls, trust=trust), 32, lambda _: request("GET", "/nowhere"))


async def silent_within_tls(context: Context) -> None:
    trust = ssl.create_default_context(cafile=context.ca)
    await hold(context, context.target(context.tls, trust=trust), 800, _HEAD, at_once=32)


FLOODS = (
    Flood("silent", "4000 silent connections", "gateway", silent),
    Flood("half-heads", "2000 half heads of 30 KB", "gateway", half_heads),
    Flood("half-bodies", "800 bodies of 8 MiB that do not come (S2)", "gateway", half_bodies),
    Flood("many-keys", "bodies of 800,000 keys (S3)", "gateway", many_keys),
    Flood("packed", "packed bodies (S8)", "gateway", packed),
    Flood("garbage-tokens", "tokens that nobody made (S23)", "gateway", garbage_tokens),
    Flood("endless-keys", "an issuer whose keys do not end", "gateway", endless_keys),
    Flood("no-http", "garbage, upgrades, smuggling, long lines", "gateway", no_http),
    Flood("open-pages", "200 who ask for open pages and do not read", "gateway", open_pages),
    Flood("pipelined", "requests without a login, without a pause", "gateway", pipelined),
    Flood("silent-tls", "2000 connections without a handshake, TLS", "tls", silent_tls),
    Flood("handshakes", "handshakes and no more, TLS", "tls", handshakes_tls),
    Flood("silent-in-tls", "800 half requests after a handshake, TLS", "tls", silent_within_tls),
)

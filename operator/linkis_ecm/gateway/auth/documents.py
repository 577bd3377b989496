"""Reads JSON documents of an OpenID Connect issuer, with bounds on time and size. Must not know what they mean."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp

FETCH_SECONDS = 5.0
MAX_DOCUMENT = 1 << 20


async def read_document(
    session: aiohttp.ClientSession,
    url: str,
    *,
    ca_file: str,
    headers: Mapping[str, str],
    form: Mapping[str, str] | None = None,
    statuses: tuple[int, ...] = (200,),
) -> dict[str, Any]:
    """The JSON object at the url: by GET, or by POST of a form. The caller bounds the time. Raises ValueError and
    aiohttp's errors. `ca_file`: the only authorities that are trusted; empty: the system's."""
    # Read for each fetch: it is renewed while the gateway runs.
    trust = ssl.create_default_context(cafile=ca_file) if ca_file else True
    async with session.request(
        "GET" if form is None else "POST",
        url,
        headers={"Accept-Encoding": "identity", **headers},
        data=form,
        allow_redirects=False,
        auto_decompress=False,
        ssl=trust,
    ) as answer:
        if answer.status not in statuses:
            raise ValueError(f"{url} answered with status {answer.status}")
        if "Content-Encoding" in answer.headers:
            raise ValueError(f"{url} answered with a packed body, which was not asked for")
        body = bytearray()
        async for chunk in answer.content.iter_chunked(64 * 1024):
            body += chunk
            if len(body) > MAX_DOCUMENT:
                raise ValueError(f"{url} answered with more than {MAX_DOCUMENT} bytes")
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError(f"{url} answered with no JSON object")
    return document


def discovery_url(issuer: str) -> str:
    """Where the issuer describes itself (OpenID Connect Discovery)."""
    return f"{issuer.rstrip('/')}/.well-known/openid-configuration"


def endpoint(document: Mapping[str, Any], name: str, *, issuer: str) -> str:
    """An address of the discovery document. Raises ValueError where it is another issuer's, or not https."""
    url = discovery_url(issuer)
    if document.get("issuer") != issuer:
        raise ValueError(f"{url} is another issuer's: set the issuer exactly as it is written there")
    found = document.get(name)
    if not isinstance(found, str) or urlsplit(found).scheme not in ("https", urlsplit(issuer).scheme):
        raise ValueError(f"{url} has no {name} that can be used: it must be https")
    return found

"""Linkis's envelope, `Message`: {"method", "status", "message", "data"}, and the HTTP status that follows from it.

Authority: Linkis's Message.java. Must not know what a call does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from linkis_ecm.api.paths import PREFIX
from linkis_ecm.gateway.http.errors import Refused

# Message's status → HTTP status: not logged in, ok, error, validation failed, not allowed, warning.
HTTP_STATUS = {-1: 401, 0: 200, 1: 400, 2: 412, 3: 403, 4: 206}
JSON = "application/json"
CONTENT_TYPE = f"{JSON}; charset=utf-8"


def method_of(path: str) -> str | None:
    """Linkis's value of `method`: "/api" and the path after the servlet's prefix; None for other paths."""
    return "/api" + path.removeprefix(PREFIX) if path.startswith(PREFIX + "/") else None


def encode(path: str, *, status: int, message: str, data: Any) -> bytes:
    """The Message's JSON; `data` may hold orjson.Fragments."""
    body = {"method": method_of(path), "status": status, "message": message, "data": data}
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        # A path or a value that is not Unicode (a lone surrogate from a percent-escape).
        return orjson.dumps(body | {"method": None, "message": message.encode("ascii", "replace").decode()})


def around(path: str) -> tuple[bytes, bytes]:
    """The bytes before and after `data` in a Message of status 0."""
    before, mark, after = encode(path, status=0, message="OK", data="\0").partition(rb'"\u0000"')
    assert mark  # noqa: S101 - orjson escapes control characters so
    return before, after


def ok(path: str, data: Any, *, message: str = "OK") -> web.Response:
    """A Message of status 0."""
    return web.Response(body=encode(path, status=0, message=message, data=data), content_type=JSON, charset="utf-8")


def refused(path: str, refusal: Refused) -> web.Response:
    """The Message of a refusal, with its HTTP status."""
    headers: Mapping[str, str] = refusal.headers
    return web.Response(
        body=encode(path, status=refusal.status, message=refusal.sentence, data=refusal.data),
        status=refusal.http or HTTP_STATUS[refusal.status],
        content_type=JSON,
        charset="utf-8",
        headers=headers,
    )

"""Reads the agent's requests: methods, JSON bodies, numbers of a query. Must not know what they are for."""

from __future__ import annotations

import json
from typing import Any

from linkis_ecm.agent.http.server import HttpError, Request


def only(method: str, request: Request) -> None:
    """Raises HttpError for another method."""
    if request.method != method:
        raise HttpError(405, f"{request.path} takes {method} only", ((b"allow", method.encode()),))


async def json_body(request: Request, most: int | None = None) -> dict[str, Any]:
    """The body, {} where there is none; of at most so many bytes, where that is not the server's bound. Raises
    HttpError."""
    raw = await (request.read_body() if most is None else request.read_body(most))
    if not raw:
        return {}
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise HttpError(400, "the body is not a JSON object: send one in UTF-8")
    return body


def boolean(body: dict[str, Any], name: str, *, default: bool) -> bool:
    """`body[name]`. Raises HttpError."""
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise HttpError(400, f"{name} is {str(value)[:32]!r}: send true or false")
    return value


def text(body: dict[str, Any], name: str) -> str:
    """`body[name]`, "" where it is not there. Raises HttpError."""
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise HttpError(400, f"{name} is not a string: send it as JSON text")
    if value != value.encode(errors="replace").decode():
        raise HttpError(400, f"{name} has half of a surrogate pair: send characters that UTF-8 can hold")
    return value


def number(body: dict[str, Any], name: str, default: float | None, *, top: int) -> float | None:
    """Seconds from 0 to `top`. Raises HttpError."""
    value = body.get(name, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= top:
        raise HttpError(400, f"{name} is {value!r}: send a number of seconds from 0 to {top}")
    return float(value)


def whole(query: dict[str, str], name: str, default: int, *, top: int) -> int:
    """A whole number from 0 to `top` out of the query. Raises HttpError."""
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 16 or int(text) > top:
        raise HttpError(400, f"{name} is {text[:32]!r}: send a whole number from 0 to {top}")
    return int(text)

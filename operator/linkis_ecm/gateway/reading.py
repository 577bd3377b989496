"""Reads what a request asks of its method: bounds first, then the body, then the model. Must not know what a method
does.

Nothing is read before its length is checked and its memory reserved; the caller is logged in already.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from linkis_ecm.gateway.context import Call
from linkis_ecm.gateway.http import envelope
from linkis_ecm.gateway.http.budget import SMALL
from linkis_ecm.gateway.http.errors import Refused, bad_request, too_large, unavailable
from linkis_ecm.gateway.http.validate import from_json, from_query
from linkis_ecm.gateway.results.json_budget import parsed_size
from linkis_ecm.gateway.routes import Method, RequestParts
from linkis_ecm.gateway.settings import KIB, MIB
from linkis_ecm.process.ports.encoding import is_packed

# Bytes that the objects of one body may take, its text left out. A request of the longest lists takes a tenth; a body
# of 8 MiB that is all brackets and commas would take 600 MiB.
MAX_OBJECT_BYTES = 4 * MIB


async def arguments(call: Call, request: web.Request, method: Method) -> Any:
    """What the method's handler takes. Raises Refused."""
    model = None if method.request is None else await _read(call, request, method, method.request)
    if method.arguments is None:
        return model
    query = {name: request.query.getall(name) for name in request.query}
    return method.arguments(model, RequestParts(path=request.match_info, query=query, headers=request.headers))


async def _read(call: Call, request: web.Request, method: Method, model: type[BaseModel]) -> BaseModel:
    """The request model of a call. Raises Refused."""
    if request.method in ("GET", "DELETE"):
        query = request.query
        repeated = next((name for name in query if len(query.getall(name)) > 1), None) if query else None
        return from_query(model, query, repeated=repeated)
    if request.content_type != envelope.JSON:
        # A form of another site could send any other type with the caller's cookies.
        raise Refused("Content-Type must be application/json: send the header and a JSON object", http=415)
    if is_packed(request.headers):
        raise Refused("Content-Encoding is not taken: send the body as plain JSON", http=415, limit="encoding")
    body = await _read_body(call, request, method)
    if len(body) <= SMALL:
        return from_json(model, body)
    return await asyncio.to_thread(_parse_large, model, body)


async def _read_body(call: Call, request: web.Request, method: Method) -> bytes:
    """The body, which fits the method's limit. Raises Refused."""
    settings = call.gateway.settings
    limit = min(method.max_body, settings.max_body_bytes)
    size = limit if request.content_length is None else request.content_length
    if size > limit:
        raise _body_too_large(method, limit)
    try:
        async with asyncio.timeout(settings.client_seconds):
            # As bytes, as text, and as what goes to the agent. First of the user's share: somebody who announces bodies
            # and sends none keeps his own calls waiting.
            await call.held.enter_async_context(call.gateway.body_shares.hold(call.caller.user, 3 * size))
            await call.held.enter_async_context(call.gateway.budget.hold(3 * size))
    except TimeoutError:
        raise unavailable(
            "The gateway has too many big bodies under way: try again in a second", limit="budget"
        ) from None
    body = bytearray()
    try:
        async with asyncio.timeout(settings.client_seconds):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise _body_too_large(method, limit)
    except TimeoutError:
        raise Refused("The body did not come in time: send it faster", http=408, limit="body_time") from None
    return bytes(body)


def _parse_large(model: type[BaseModel], body: bytes) -> BaseModel:
    """In a thread: a body of megabytes takes the time of many small calls. Raises Refused."""
    if parsed_size(body) > MAX_OBJECT_BYTES:
        raise bad_request(
            "The body has too many values: send lists and objects with fewer entries, and code as one text"
        )
    return from_json(model, body)


def _body_too_large(method: Method, limit: int) -> Refused:
    size = f"{limit // MIB} MiB" if limit >= MIB else f"{limit // KIB} KiB"
    remedy = "send less code at once, and data through a volume" if limit > MIB else f"{method.name} takes no more"
    return too_large(f"The body is over {size}: {remedy}", limit="body")

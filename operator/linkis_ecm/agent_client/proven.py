"""Connections to agents that have shown that they have their key, before the key or anything else is sent to them.

A pod's address is given to another pod when it is gone, and a status may be edited: what listens there may be anybody.
So the first request of each new connection is a challenge, `GET /v1/identity` (agent/formats/proof.py); a peer that
cannot answer it gets no key and no code. Must not know what is asked for afterwards.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from typing import TYPE_CHECKING
from weakref import WeakSet

import aiohttp
import orjson
from aiohttp.http_exceptions import HttpProcessingError

from linkis_ecm.agent.formats.proof import proof
from linkis_ecm.agent_client.errors import AgentNotProven, AgentUnreachable
from linkis_ecm.agent_client.paths import identity

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

# A healthy agent answers within a millisecond; one whose node is busy within some hundred.
PROOF_SECONDS = 3.0
# {"proof": 64 digits}; whatever is longer is none.
_ANSWER_MAX = 1 << 10


class ProvenConnector(aiohttp.TCPConnector):
    """aiohttp's connector; `connect` gives only connections whose peer has proved its key.

    The key is that of the request's Authorization header. Raises AgentUnreachable and AgentNotProven.
    """

    def __init__(self, *, limit: int, keepalive_timeout: float) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout, enable_cleanup_closed=False)
        self._proven: WeakSet[asyncio.BaseTransport] = WeakSet()

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        connection = await super().connect(req, traces, timeout)
        transport = connection.transport
        if transport is not None and transport not in self._proven:
            try:
                await _prove(connection, req)
            except BaseException:
                connection.close()
                raise
            self._proven.add(transport)
        return connection


async def _prove(connection: Connection, req: ClientRequest) -> None:
    protocol = connection.protocol
    if protocol is None or protocol.transport is None:
        raise AgentUnreachable("the connection broke before the agent could prove its key")
    key = req.headers.get("Authorization", "").removeprefix("Bearer ")
    challenge = secrets.token_hex(16)
    request = f"GET {identity(challenge)} HTTP/1.1\r\nHost: {req.url.authority}\r\n\r\n"
    protocol.set_response_params(
        auto_decompress=False, read_bufsize=_ANSWER_MAX, read_timeout=PROOF_SECONDS, max_line_size=_ANSWER_MAX,
        max_field_size=_ANSWER_MAX,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PROOF_SECONDS):
            protocol.transport.write(request.encode())
            head, payload = await protocol.read()
            length = head.headers.get("Content-Length", "")
            if head.code != 200 or not length.isdecimal() or len(length) > 4 or int(length) > _ANSWER_MAX:
                raise AgentUnreachable(f"what listens there answers {head.code} to the question who it is")
            answer = orjson.loads(await payload.read())
    except TimeoutError:
        raise AgentUnreachable("what listens there does not say in time who it is") from None
    except (aiohttp.ClientError, HttpProcessingError, OSError, orjson.JSONDecodeError) as error:
        raise AgentUnreachable(f"what listens there does not say who it is: {type(error).__name__}") from None
    # An agent that was claimed shows the key of the pool's member, too: whoever claims once more does not know whether
    # the claim before has arrived.
    given = [answer.get(name) for name in ("proof", "memberProof")] if isinstance(answer, dict) else []
    right = proof(key, challenge).encode()
    if not any(isinstance(one, str) and hmac.compare_digest(one.encode(), right) for one in given):
        raise AgentNotProven("what listens there does not have this engine's key: it is another agent, or none")

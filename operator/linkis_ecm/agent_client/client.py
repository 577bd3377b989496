"""Calls to the agents in engine pods over one HTTP session.

An engine's pod is controlled by its user: what comes from there is bounded in size and time, redirects are not
followed, compressed bodies are not decompressed, cookies are not kept. Timeouts and limits are arguments. Must not know
what an error means to the caller.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from linkis_ecm.agent_client.errors import AgentBadResponse, AgentNotFound, AgentRefused, transport_errors
from linkis_ecm.agent_client.proven import ProvenConnector

# Unused connections are closed before the agent would (75 s): a call never meets a connection that is being closed.
KEEPALIVE_SECONDS = 30.0
# aiohttp stops reading from the agent at twice this, so a download holds 512 KiB at most however slow its client is.
READ_BUFFER = 256 << 10
# Chunks of a body that are kept as they came.
BIG_CHUNK = 4 << 10
# The agent's sentences are a few hundred bytes.
MAX_ERROR_BYTES = 16 << 10
# Of an agent's sentence that is repeated to a caller.
MAX_ERROR_CHARS = 500


@dataclass(frozen=True, slots=True)
class AgentEndpoint:
    """Where an engine's agent listens, `host:port`, and its key."""

    address: str
    key: str = field(repr=False)


class AgentClient:
    """One session for all agents, opened with the first call; `close` ends it. Belongs to one event loop.

    `connections` bounds how many there are at a time to all agents; 0: as many as there are calls.
    """

    def __init__(self, *, user_agent: str, connections: int) -> None:
        self._user_agent = user_agent
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(
        self,
        agent: AgentEndpoint,
        path: str,
        *,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
        timeout: aiohttp.ClientTimeout,
        read_buffer: int = READ_BUFFER,
    ) -> aiohttp.ClientResponse:
        """One request with a JSON body; its answer of any status, to be given to `release`.

        Raises AgentUnreachable, AgentTimeout, AgentConnectionBroken.
        """
        if self._session is None:
            self._session = self._open_session()
        headers = {"Authorization": f"Bearer {agent.key}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        with transport_errors():
            return await self._session.request(
                method,
                f"http://{agent.address}{path}",
                data=None if body is None else orjson.dumps(body),
                headers=headers,
                timeout=timeout,
                read_bufsize=read_buffer,
                allow_redirects=False,
            )

    @asynccontextmanager
    async def open(
        self,
        agent: AgentEndpoint,
        path: str,
        *,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
        timeout: aiohttp.ClientTimeout,
        accepted: Collection[int] = (200,),
        read_buffer: int = READ_BUFFER,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer of an accepted status, whose body is read within the block. Raises AgentError before the block
        begins; an error of reading within the block is raised as aiohttp raises it."""
        answer = await self.send(agent, path, method=method, body=body, timeout=timeout, read_buffer=read_buffer)
        try:
            await require_status(answer, accepted)
            yield answer
        finally:
            release(answer)

    async def ask(
        self,
        agent: AgentEndpoint,
        path: str,
        *,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
        timeout: aiohttp.ClientTimeout,
        limit: int,
    ) -> dict[str, Any]:
        """A JSON object of at most `limit` bytes. Raises AgentError."""
        async with self.open(agent, path, method=method, body=body, timeout=timeout, accepted=(200, 202)) as answer:
            with transport_errors():
                content = await _read_bounded(answer, limit)
        if content is None:
            raise AgentBadResponse(f"more than {limit} bytes")
        try:
            found = orjson.loads(content)
        except orjson.JSONDecodeError:
            raise AgentBadResponse("what is not JSON") from None
        if not isinstance(found, dict):
            raise AgentBadResponse("what is no object")
        return found

    def _open_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=ProvenConnector(limit=self._connections, keepalive_timeout=KEEPALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BUFFER,
            headers={"Accept-Encoding": "identity", "User-Agent": self._user_agent},
        )


async def require_status(answer: aiohttp.ClientResponse, accepted: Collection[int]) -> None:
    """Raises AgentNotFound or AgentRefused where the status is not accepted, and what reading the agent's sentence
    raises."""
    if answer.status in accepted:
        return
    if answer.status == 404:
        raise AgentNotFound
    with transport_errors():
        content = await _read_bounded(answer, MAX_ERROR_BYTES)
    raise AgentRefused(answer.status, _sentence(content or b""))


def release(answer: aiohttp.ClientResponse) -> None:
    """Keep the connection if the whole body was read; else close it, so that the agent does not go on sending."""
    if answer.content.is_eof():
        answer.release()
    else:
        answer.close()


def header_number(answer: aiohttp.ClientResponse, name: str) -> int | None:
    """A header's whole number, None where it is none that fits into 64 bits."""
    text = answer.headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


async def read_exact(answer: aiohttp.ClientResponse, size: int) -> bytes:
    """The body, which the answer announced to have `size` bytes. Raises aiohttp.ClientPayloadError where more come: an
    agent may announce one length and send by another."""
    content = await _read_bounded(answer, size)
    if content is None:
        raise aiohttp.ClientPayloadError(f"more than the announced {size} bytes")
    return content


async def _read_bounded(answer: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The body, None where it is over `limit`."""
    if answer.content_length is not None and answer.content_length > limit:
        return None
    parts: list[bytes | bytearray] = []
    size = 0
    async for chunk in answer.content.iter_any():
        size += len(chunk)
        if size > limit:
            return None
        # One copy of the whole at the end. A peer that sends byte by byte must not make an object of each.
        if len(chunk) >= BIG_CHUNK:
            parts.append(chunk)
        elif parts and isinstance(parts[-1], bytearray):
            parts[-1] += chunk
        else:
            parts.append(bytearray(chunk))
    return b"".join(parts)


def _sentence(content: bytes) -> str:
    """The agent's own sentence, in one line; "" where there is none."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return ""
    text = body.get("error") if isinstance(body, dict) else None
    return " ".join(text.split())[:MAX_ERROR_CHARS] if isinstance(text, str) else ""

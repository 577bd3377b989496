"""One way to talk to the agents in engine pods: the session, its bounds, and what their refusals mean to a caller.

An engine's pod is its user's ground: what comes from there is bounded in size and time, never followed, never unpacked.
Must not know what is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeGuard

import aiohttp
import orjson

from linkis_ecm.gateway.http.budget import ByteBudget
from linkis_ecm.gateway.http.errors import Refused, bad_request, timed_out, too_many, upstream
from linkis_ecm.gateway.inventory.history import PastEngine
from linkis_ecm.gateway.inventory.view import EngineView
from linkis_ecm.gateway.metrics import Metrics
from linkis_ecm.gateway.settings import Settings
from linkis_ecm.model.token import engine_token

# A few reads and questions at a time; the agent scans four pages at once and a few more may wait there.
READS_PER_ENGINE = 8
# Unused connections are closed before the agent would (75 s): a call never meets a connection that is being closed.
KEEPALIVE_SECONDS = 30.0
# aiohttp stops reading from the agent at twice this, so a download holds 512 KiB at most however slow its client is.
READ_BUFFER = 256 << 10
MAX_ERROR_BYTES = 16 << 10
MAX_ANSWER_BYTES = 1 << 20


class NotThere(Exception):  # noqa: N818 - a fact, not a fault
    """The agent has no such thing (404)."""


def has_agent(engine: EngineView | PastEngine) -> TypeGuard[EngineView]:
    """Its pod has an address and has not ended: there is somebody to ask."""
    return isinstance(engine, EngineView) and bool(engine.address) and not engine.is_final


class AgentLink:
    """All engines' agents, over one session."""

    def __init__(
        self, session: aiohttp.ClientSession, *, settings: Settings, metrics: Metrics, budget: ByteBudget
    ) -> None:
        self.session = session
        self.settings = settings
        self.metrics = metrics
        self.budget = budget
        self._under_way: dict[tuple[str, str], int] = {}
        self._quick = aiohttp.ClientTimeout(
            total=settings.agent_seconds, sock_connect=settings.connect_seconds, sock_read=settings.agent_seconds
        )
        # As long as the other side gives something now and then.
        self._patient = aiohttp.ClientTimeout(
            total=None, sock_connect=settings.connect_seconds, sock_read=settings.agent_seconds
        )

    async def ask(
        self,
        engine: EngineView,
        path: str,
        *,
        method: str = "GET",
        body: dict[str, Any] | None = None,
        kind: str = "question",
        limit: int = MAX_ANSWER_BYTES,
    ) -> dict[str, Any]:
        """A small JSON object. Raises NotThere and Refused."""
        with self.slot(kind, engine, READS_PER_ENGINE, "questions"), self.faults(engine):
            async with self.session.request(
                method,
                f"http://{engine.address}{path}",
                data=None if body is None else orjson.dumps(body),
                headers=self.headers(engine),
                timeout=self._quick,
                allow_redirects=False,
            ) as answer:
                if answer.status == 404:
                    raise NotThere
                if answer.status not in (200, 202):
                    raise await self.refusal(engine, answer)
                content = await read_bounded(answer, limit)
        try:
            found = orjson.loads(content or b"")
        except orjson.JSONDecodeError:
            raise self.garbage(engine, "what is not JSON") from None
        if not isinstance(found, dict):
            raise self.garbage(engine, "what is no object")
        return found

    @asynccontextmanager
    async def open(
        self, engine: EngineView, path: str, *, kind: str, bound: int, what: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is read in pieces; leaving the block closes its connection if bytes are left.

        Raises NotThere and Refused. What breaks inside the block breaks in the reader's hands.
        """
        with self.slot(kind, engine, bound, what):
            with self.faults(engine):
                answer = await self.session.get(
                    f"http://{engine.address}{path}",
                    headers=self.headers(engine),
                    timeout=self._patient,
                    allow_redirects=False,
                )
            try:
                if answer.status == 404:
                    raise NotThere
                if answer.status != 200:
                    with self.faults(engine):
                        raise await self.refusal(engine, answer)
                if "Content-Encoding" in answer.headers:
                    raise self.garbage(engine, "a packed answer")
                yield answer
            finally:
                let_go(answer)

    def headers(self, engine: EngineView) -> dict[str, str]:
        """The engine's own token."""
        token = engine_token(self.settings.token_key, engine.uid, engine.attempt)
        return {"Authorization": f"Bearer {token}"}

    @contextmanager
    def slot(self, kind: str, engine: EngineView, bound: int, what: str) -> Iterator[None]:
        """One of `bound` calls of that kind to the engine; more are refused rather than queued out of sight."""
        key = (kind, engine.uid)
        taken = self._under_way.get(key, 0)
        if taken >= bound:
            raise too_many(f"{taken} {what} of {engine.title} are under way already: try again when one has ended")
        self._under_way[key] = taken + 1
        try:
            yield
        finally:
            left = self._under_way[key] - 1
            if left:
                self._under_way[key] = left
            else:
                del self._under_way[key]

    @contextmanager
    def faults(self, engine: EngineView) -> Iterator[None]:
        """Transport errors of a read as refusals."""
        try:
            yield
        except TimeoutError:
            self.metrics.agent_errors.labels("timeout").inc()
            raise timed_out(f"{engine.title} did not answer in time: try again later") from None
        except aiohttp.ClientConnectorError:
            self.metrics.agent_errors.labels("connect").inc()
            raise upstream(
                f"{engine.title} cannot be reached: see its state with getEngineStatus and try again"
            ) from None
        except aiohttp.ClientError:
            self.metrics.agent_errors.labels("broken").inc()
            raise upstream(f"The connection to {engine.title} broke: try again") from None

    async def refusal(self, engine: EngineView, answer: aiohttp.ClientResponse) -> Refused:
        """What the agent's refusal means to the caller."""
        text = await self.error_text(answer)
        match answer.status:
            case 400 | 409 if text:
                return bad_request(f"{engine.title}: {text}")
            case 410:
                return Refused(f"{engine.title}: {text or 'that is not kept any more'}", http=410)
            case 413:
                return Refused(f"{engine.title}: {text or 'the code is too long'}", http=413)
            case 429:
                return too_many(f"{engine.title}: {text or 'it has too much to do'}")
            case 401 | 403:
                self.metrics.agent_errors.labels("token").inc()
                return upstream(
                    f"{engine.title} refuses the gateway's token: operator and gateway must read the same token key"
                )
        return self.garbage(engine, f"HTTP {answer.status}")

    async def error_text(self, answer: aiohttp.ClientResponse) -> str:
        """The agent's own sentence, "" where there is none."""
        content = await read_bounded(answer, MAX_ERROR_BYTES)
        try:
            body = orjson.loads(content or b"")
        except orjson.JSONDecodeError:
            return ""
        text = body.get("error") if isinstance(body, dict) else None
        return " ".join(text.split())[:500] if isinstance(text, str) else ""

    def garbage(self, engine: EngineView, what: str) -> Refused:
        """The agent answered with `what`."""
        self.metrics.agent_errors.labels("garbage").inc()
        return upstream(f"The agent of {engine.title} answered with {what}")


def new_session() -> aiohttp.ClientSession:
    """The session for agents: no cookies, no proxies, no unpacking, connections kept."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS, enable_cleanup_closed=False)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=READ_BUFFER,
        headers={"Accept-Encoding": "identity", "User-Agent": "linkis-ecm-gateway"},
    )


def let_go(answer: aiohttp.ClientResponse) -> None:
    """Reusable after its last byte, else closed at once: the agent must not go on for nobody."""
    if answer.content.is_eof():
        answer.release()
    else:
        answer.close()


async def read_bounded(answer: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The body, None where it is over `limit`."""
    if answer.content_length is not None:
        return await answer.read() if answer.content_length <= limit else None
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)

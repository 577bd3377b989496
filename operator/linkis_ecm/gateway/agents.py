"""Talks to the agents in engine pods: runs code, reads logs (docs/design/interfaces.md, "Gateway → agent").

An engine's pod is its user's ground: what comes from there is bounded in size and time, never followed, never unpacked.
Connections are kept open and shared; nothing here executes code a second time. Must not know of callers or Linkis.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from linkis_ecm.gateway.budget import ByteBudget
from linkis_ecm.gateway.caches import EngineCache
from linkis_ecm.gateway.errors import Refused, bad_request, timed_out, too_many, upstream
from linkis_ecm.gateway.metrics import Metrics
from linkis_ecm.gateway.settings import Settings
from linkis_ecm.gateway.views import EngineView
from linkis_ecm.model.token import engine_token

# The agent runs one task and lets 16 wait: more calls than that would only be refused there.
EXECUTES_PER_ENGINE = 17
# The agent scans four pages at a time; a few more may wait there.
READS_PER_ENGINE = 8
DOWNLOADS_PER_ENGINE = 4
# Unused connections are closed before the agent would (75 s): a call never meets a connection that is being closed.
KEEPALIVE_SECONDS = 30.0
# aiohttp stops reading from the agent at twice this, so a download holds 512 KiB at most however slow its client is.
READ_BUFFER = 256 << 10
# A result up to this is read whole and checked before a byte is sent; a bigger one is passed on as it comes.
WHOLE_RESULT = 1 << 20
# An agent's page of lines ends at 8 MiB, which JSON escapes at worst sixfold.
MAX_PAGE_BYTES = 64 << 20
MAX_ERROR_BYTES = 16 << 10
MAX_STATUS_BYTES = 64 << 10
# When the cluster says that an engine has ended, its agent's last answer may still be on its way.
LAST_WORDS_SECONDS = 5.0
# When the connection breaks, the cluster's word on why is this far behind at most, or is not waited for.
OBITUARY_SECONDS = 3.0
# What a call may take beyond the code's own time: the agent's five seconds for an interrupt, and the way back.
EXECUTE_SLACK = 30.0


class LogMissing(Exception):  # noqa: N818 - a fact, not a fault
    """The engine has written no such log."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A task's result, JSON: whole in `content`, or `size` bytes in `chunks`."""

    size: int
    content: bytes | None = None
    chunks: AsyncIterator[bytes] | None = None


@dataclass(frozen=True, slots=True)
class AgentLog:
    """An open log: its size when it was opened, and exactly as many bytes, in pieces."""

    size: int
    chunks: AsyncIterator[bytes]


class Agents:
    """All engines' agents, over one session."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        settings: Settings,
        cache: EngineCache,
        metrics: Metrics,
        budget: ByteBudget,
    ) -> None:
        self._session = session
        self._budget = budget
        self._settings = settings
        self._cache = cache
        self._metrics = metrics
        self._under_way: dict[tuple[str, str], int] = {}
        self._quick = aiohttp.ClientTimeout(
            total=settings.agent_seconds, sock_connect=settings.connect_seconds, sock_read=settings.agent_seconds
        )
        self._download = aiohttp.ClientTimeout(
            total=None, sock_connect=settings.connect_seconds, sock_read=settings.agent_seconds
        )
        self._execute = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_seconds)

    # -- code --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def execute(
        self, engine: EngineView, *, task_id: str, code: str, run_type: str, seconds: float
    ) -> AsyncIterator[TaskResult]:
        """The task's result as the agent's JSON. Raises Refused."""
        body = orjson.dumps({"taskId": task_id, "code": code, "runType": run_type, "timeoutSeconds": seconds})
        with self._slot("execute", engine, EXECUTES_PER_ENGINE, "tasks"):
            answer = await self._run(engine, body, seconds + EXECUTE_SLACK)
            try:
                if answer.status != 200:
                    with self._faults(engine):
                        raise await self._refusal(engine, answer)
                yield await self._result(engine, answer)
            finally:
                _let_go(answer)

    async def _run(self, engine: EngineView, body: bytes, limit: float) -> aiohttp.ClientResponse:
        """Send the code, once, and wait for the answer's head."""
        ended = False
        try:
            async with asyncio.timeout(limit) as patience:

                def listener(view: EngineView | None) -> None:
                    nonlocal ended
                    if not ended and (view is None or view.is_final or view.uid != engine.uid):
                        ended = True
                        patience.reschedule(asyncio.get_running_loop().time() + LAST_WORDS_SECONDS)

                with self._cache.listen(engine.key, listener):
                    return await self._session.post(
                        f"http://{engine.address}/v1/execute",
                        data=body,
                        headers=self._headers(engine) | {"Content-Type": "application/json"},
                        timeout=self._execute,
                        allow_redirects=False,
                    )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            self._metrics.agent_errors.labels("connect").inc()
            raise await self._broken(engine, "before it could take the code, which has not run") from None
        except TimeoutError:
            self._metrics.agent_errors.labels("timeout").inc()
            if ended:
                raise await self._broken(engine, "while the code was under way") from None
            raise timed_out(
                f"{engine.title} has not answered within {limit:g} s and the code may still run or wait there:"
                " give a longer timeoutSeconds, or run less at a time"
            ) from None
        except (aiohttp.ClientError, OSError):
            self._metrics.agent_errors.labels("broken").inc()
            raise await self._broken(engine, "while the code was under way, which may have run") from None

    async def _result(self, engine: EngineView, answer: aiohttp.ClientResponse) -> TaskResult:
        """A small result whole and checked; of a big one the length, and its bytes as they come."""
        size = answer.content_length
        if size is None or "Content-Encoding" in answer.headers:
            raise self._garbage(engine, "a result without its length")
        if size > WHOLE_RESULT:
            return TaskResult(size=size, chunks=answer.content.iter_any())
        try:
            content = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            self._metrics.agent_errors.labels("broken").inc()
            raise await self._broken(engine, "while it answered: the code has run") from None
        try:
            result = orjson.loads(content)
        except orjson.JSONDecodeError:
            raise self._garbage(engine, "a result that is not JSON") from None
        if not isinstance(result, dict) or not isinstance(result.get("status"), str):
            raise self._garbage(engine, "a result without a status")
        return TaskResult(size=size, content=content)

    async def _broken(self, engine: EngineView, when: str) -> Refused:
        """The connection is gone; the cluster may know why, in a moment."""
        view = await self._obituary(engine)
        if view is None:
            return upstream(f"{engine.title} was deleted {when}: create another engine")
        if view.is_final or view.ending:
            why = view.message or view.reason or "no reason was given"
            return upstream(f"{engine.title} ended ({view.state}) {when}: {why}", reason=view.reason)
        return upstream(
            f"The connection to {engine.title} broke {when}: look at getEngineStatus before you send it again"
        )

    async def _obituary(self, engine: EngineView) -> EngineView | None:
        changed = asyncio.Event()
        with self._cache.listen(engine.key, lambda _: changed.set()):
            try:
                async with asyncio.timeout(OBITUARY_SECONDS):
                    while True:
                        view = self._cache.get(engine.key)
                        if view is None or view.uid != engine.uid:
                            return None
                        if view.is_final:
                            return view
                        changed.clear()
                        await changed.wait()
            except TimeoutError:
                return self._cache.get(engine.key)

    async def status(self, engine: EngineView) -> dict[str, Any]:
        """What the agent would report now. Raises Refused."""
        with self._slot("status", engine, READS_PER_ENGINE, "questions"), self._faults(engine):
            async with self._session.get(
                f"http://{engine.address}/v1/status",
                headers=self._headers(engine),
                timeout=self._quick,
                allow_redirects=False,
            ) as answer:
                if answer.status != 200:
                    raise await self._refusal(engine, answer)
                content = await _read(answer, MAX_STATUS_BYTES)
        try:
            body = orjson.loads(content or b"")
        except orjson.JSONDecodeError:
            raise self._garbage(engine, "a status that is not JSON") from None
        if not isinstance(body, dict):
            raise self._garbage(engine, "a status that is no object")
        return body

    # -- logs --------------------------------------------------------------------------------------------------------

    async def lines(
        self, engine: EngineView, log_type: str, *, from_line: int, lines: int, held: AsyncExitStack
    ) -> dict[str, Any]:
        """A page of a log: `logs`, `endLine`, `rows`. Raises LogMissing and Refused. `held` holds its bytes."""
        url = f"http://{engine.address}/v1/logs/{log_type}/lines?fromLine={from_line}&lines={lines}"
        with self._slot("lines", engine, READS_PER_ENGINE, "log pages"), self._faults(engine):
            async with self._session.get(
                url, headers=self._headers(engine), timeout=self._quick, allow_redirects=False
            ) as answer:
                if answer.status == 404:
                    raise LogMissing
                if answer.status != 200:
                    raise await self._refusal(engine, answer)
                size = answer.content_length
                if size is None or size > MAX_PAGE_BYTES:
                    raise self._garbage(engine, "a page of its log over the limit: ask for fewer lines")
                # As the agent's text, as objects, and as the answer's text.
                await held.enter_async_context(self._budget.hold(3 * size))
                content = await answer.read()
        try:
            page = orjson.loads(content or b"")
        except orjson.JSONDecodeError:
            raise self._garbage(engine, "a page of its log that is not JSON") from None
        logs, end_line = (page.get("logs"), page.get("endLine")) if isinstance(page, dict) else (None, None)
        if not isinstance(logs, list) or not isinstance(end_line, int) or not all(isinstance(x, str) for x in logs):
            raise self._garbage(engine, "a page of its log without lines")
        return {"logs": logs, "endLine": end_line, "rows": len(logs)}

    @asynccontextmanager
    async def open_log(self, engine: EngineView, log_type: str) -> AsyncIterator[AgentLog]:
        """The whole log; leaving the block closes the connection at once if bytes are left. Raises as `lines`."""
        url = f"http://{engine.address}/v1/logs/{log_type}"
        with self._slot("download", engine, DOWNLOADS_PER_ENGINE, "downloads"):
            with self._faults(engine):
                answer = await self._session.get(
                    url, headers=self._headers(engine), timeout=self._download, allow_redirects=False
                )
            try:
                if answer.status == 404:
                    raise LogMissing
                if answer.status != 200:
                    with self._faults(engine):
                        raise await self._refusal(engine, answer)
                if answer.content_length is None or "Content-Encoding" in answer.headers:
                    raise self._garbage(engine, "a log without its length")
                # What breaks from here on breaks in the reader's hands: only it knows which side it was.
                yield AgentLog(answer.content_length, answer.content.iter_any())
            finally:
                _let_go(answer)

    # -- common ------------------------------------------------------------------------------------------------------

    def _headers(self, engine: EngineView) -> dict[str, str]:
        token = engine_token(self._settings.token_key, engine.uid, engine.attempt)
        return {"Authorization": f"Bearer {token}"}

    @contextmanager
    def _slot(self, kind: str, engine: EngineView, bound: int, what: str) -> Iterator[None]:
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
    def _faults(self, engine: EngineView) -> Iterator[None]:
        """Transport errors of a read as refusals."""
        try:
            yield
        except TimeoutError:
            self._metrics.agent_errors.labels("timeout").inc()
            raise timed_out(f"{engine.title} did not answer in time: try again later") from None
        except aiohttp.ClientConnectorError:
            self._metrics.agent_errors.labels("connect").inc()
            raise upstream(
                f"{engine.title} cannot be reached: see its state with getEngineStatus and try again"
            ) from None
        except aiohttp.ClientError:
            self._metrics.agent_errors.labels("broken").inc()
            raise upstream(f"The connection to {engine.title} broke: try again") from None

    async def _refusal(self, engine: EngineView, answer: aiohttp.ClientResponse) -> Refused:
        """What the agent's refusal means to the caller."""
        text = await self._error_text(answer)
        match answer.status:
            case 400 | 409 if text:
                return bad_request(f"{engine.title}: {text}")
            case 413:
                return Refused(f"{engine.title}: {text or 'the code is too long'}", http=413)
            case 429:
                return too_many(f"{engine.title}: {text or 'it has too much to do'}")
            case 401 | 403:
                self._metrics.agent_errors.labels("token").inc()
                return upstream(
                    f"{engine.title} refuses the gateway's token: operator and gateway must read the same token key"
                )
        return self._garbage(engine, f"HTTP {answer.status}")

    async def _error_text(self, answer: aiohttp.ClientResponse) -> str:
        content = await _read(answer, MAX_ERROR_BYTES)
        try:
            body = orjson.loads(content or b"")
        except orjson.JSONDecodeError:
            return ""
        text = body.get("error") if isinstance(body, dict) else None
        return " ".join(text.split())[:500] if isinstance(text, str) else ""

    def _garbage(self, engine: EngineView, what: str) -> Refused:
        self._metrics.agent_errors.labels("garbage").inc()
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


def _let_go(answer: aiohttp.ClientResponse) -> None:
    """Reusable after its last byte, else closed at once: the agent must not go on for nobody."""
    if answer.content.is_eof():
        answer.release()
    else:
        answer.close()


async def _read(answer: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The body, None where it is over `limit`."""
    if answer.content_length is not None:
        return await answer.read() if answer.content_length <= limit else None
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)

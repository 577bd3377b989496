"""Has code run by the agents in engine pods, and asks what became of it (docs/design/interfaces.md, "Gateway → agent").

Nothing here executes code a second time: a request that may have reached its engine is sent again with its task's id
alone, by which the agent joins it to the first. Must not know of callers or Linkis.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from linkis_ecm.gateway.agents.link import AgentLink, NotThere, let_go
from linkis_ecm.gateway.http.errors import Refused, timed_out, upstream
from linkis_ecm.gateway.inventory.cache import EngineCache
from linkis_ecm.gateway.inventory.view import EngineView

log = logging.getLogger(__name__)

# The agent runs one task and lets 16 wait: more calls than that would only be refused there.
EXECUTES_PER_ENGINE = 17
# Followers of one engine's tasks: a few consoles.
FOLLOWERS_PER_ENGINE = 16
# A result up to this is read whole and checked before a byte is sent; a bigger one is passed on as it comes.
WHOLE_RESULT = 1 << 20
# When the cluster says that an engine has ended, its agent's last answer may still be on its way.
LAST_WORDS_SECONDS = 5.0
# When the connection breaks, the cluster's word on why is this far behind at most, or is not waited for.
OBITUARY_SECONDS = 3.0
# What a call may take beyond the code's own time: the agent's five seconds for an interrupt, and the way back.
EXECUTE_SLACK = 30.0


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A task's result, JSON: whole in `content` and parsed in `told`, or `size` bytes in `chunks`."""

    size: int
    content: bytes | None = None
    told: dict[str, Any] | None = None
    chunks: AsyncIterator[bytes] | None = None


class Agents:
    """All engines' agents, over one session."""

    def __init__(self, link: AgentLink, cache: EngineCache) -> None:
        self._link = link
        self._cache = cache
        # The code's own time is bounded by what the caller asks for.
        self._execute = aiohttp.ClientTimeout(total=None, sock_connect=link.settings.connect_seconds)

    # -- code --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def execute(
        self, engine: EngineView, *, task_id: str, code: str, run_type: str, seconds: float
    ) -> AsyncIterator[TaskResult]:
        """The task's result as the agent's JSON. Raises Refused."""
        body = orjson.dumps({"taskId": task_id, "code": code, "runType": run_type, "timeoutSeconds": seconds})
        with self._link.slot("execute", engine, EXECUTES_PER_ENGINE, "tasks"):
            answer = await self._run(engine, body, seconds + EXECUTE_SLACK)
            try:
                if answer.status != 200:
                    with self._link.faults(engine):
                        raise await self._link.refusal(engine, answer)
                yield await self._result(engine, answer)
            finally:
                let_go(answer)

    async def _run(self, engine: EngineView, body: bytes, limit: float) -> aiohttp.ClientResponse:
        """Have the code run and wait for the answer's head; a connection that breaks under it is made again, once."""
        deadline = asyncio.get_running_loop().time() + limit
        try:
            return await self._send(engine, body, deadline)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            self._link.metrics.agent_errors.labels("connect").inc()
            raise await self._broken(engine, "before it could take the code, which has not run") from None
        except (aiohttp.ClientError, OSError) as error:
            self._link.metrics.agent_errors.labels("broken").inc()
            log.warning("%s: the connection broke under its code: %r", engine.title, error)
        view = self._cache.get(engine.key)
        if view is not None and view.uid == engine.uid and not view.is_final and view.attempt == engine.attempt:
            try:
                return await self._send(engine, body, deadline)
            except (aiohttp.ClientError, OSError) as error:
                log.warning("%s: the connection broke again: %r", engine.title, error)
        raise await self._broken(engine, "while the code was under way, which may have run")

    async def _send(self, engine: EngineView, body: bytes, deadline: float) -> aiohttp.ClientResponse:
        """One request. Raises Refused where the time is over or the engine ends, and what breaks as it is."""
        ended = False
        try:
            async with asyncio.timeout_at(deadline) as patience:

                def listener(view: EngineView | None) -> None:
                    nonlocal ended
                    if not ended and (view is None or view.is_final or view.uid != engine.uid):
                        ended = True
                        patience.reschedule(asyncio.get_running_loop().time() + LAST_WORDS_SECONDS)

                with self._cache.listen(engine.key, listener):
                    return await self._link.session.post(
                        f"http://{engine.address}/v1/execute",
                        data=body,
                        headers=self._link.headers(engine) | {"Content-Type": "application/json"},
                        timeout=self._execute,
                        allow_redirects=False,
                    )
        except aiohttp.ConnectionTimeoutError:
            raise
        except TimeoutError:
            self._link.metrics.agent_errors.labels("timeout").inc()
            if ended:
                raise await self._broken(engine, "while the code was under way") from None
            raise timed_out(
                f"{engine.title} has not answered within the time that was given and the code may still run or wait"
                " there: give a longer timeoutSeconds, or run less at a time"
            ) from None

    async def _result(self, engine: EngineView, answer: aiohttp.ClientResponse) -> TaskResult:
        """A small result whole and checked; of a big one the length, and its bytes as they come."""
        size = answer.content_length
        if size is None or "Content-Encoding" in answer.headers:
            raise self._link.garbage(engine, "a result without its length")
        if size > WHOLE_RESULT:
            return TaskResult(size=size, chunks=self._patient(answer))
        try:
            async with asyncio.timeout(self._link.settings.agent_seconds):
                content = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError):
            self._link.metrics.agent_errors.labels("broken").inc()
            raise await self._broken(engine, "while it answered: the code has run") from None
        try:
            result = orjson.loads(content)
        except orjson.JSONDecodeError:
            raise self._link.garbage(engine, "a result that is not JSON") from None
        if not isinstance(result, dict) or not isinstance(result.get("status"), str):
            raise self._link.garbage(engine, "a result without a status")
        return TaskResult(size=size, content=content, told=result)

    async def _patient(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The answer's bytes, as long as some come now and then."""
        while True:
            async with asyncio.timeout(self._link.settings.agent_seconds):
                piece = await answer.content.readany()
            if not piece:
                return
            yield piece

    async def _broken(self, engine: EngineView, when: str) -> Refused:
        """The connection is gone; the cluster may know why, in a moment."""
        view = await self.obituary(engine)
        if view is None:
            return upstream(f"{engine.title} was deleted {when}: create another engine")
        if view.is_final or view.ending:
            why = view.message or view.reason or "no reason was given"
            return upstream(f"{engine.title} ended ({view.state}) {when}: {why}", reason=view.reason)
        return upstream(
            f"The connection to {engine.title} broke {when}: look at getEngineStatus before you send it again"
        )

    async def obituary(self, engine: EngineView) -> EngineView | None:
        """The engine's end as the cluster tells it in a moment; else the engine as it is."""
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

    # -- what became of it -------------------------------------------------------------------------------------------

    async def submit(
        self, engine: EngineView, *, task_id: str, code: str, run_type: str, seconds: float
    ) -> dict[str, Any]:
        """Queue the code; the task as it is at once. Raises Refused."""
        body = {"taskId": task_id, "code": code, "runType": run_type, "timeoutSeconds": seconds, "wait": False}
        return await self._ask(engine, "/v1/execute", method="POST", body=body, kind="submit")

    async def task(self, engine: EngineView, task_id: str) -> dict[str, Any]:
        """How far a task is. Raises NotThere where the agent knows no such task (any more), and Refused."""
        return await self._link.ask(engine, f"/v1/tasks/{task_id}")

    async def tasks(self, engine: EngineView) -> list[dict[str, Any]]:
        """The tasks that the agent remembers, the newest first. Raises Refused."""
        found = (await self._ask(engine, "/v1/tasks")).get("tasks")
        if not isinstance(found, list):
            raise self._link.garbage(engine, "no list of tasks")
        return found

    async def cancel(self, engine: EngineView, task_id: str) -> dict[str, Any]:
        """End a task; it as it is at once. Raises NotThere and Refused."""
        return await self._link.ask(engine, f"/v1/tasks/{task_id}/cancel", method="POST", body={})

    @asynccontextmanager
    async def result(self, engine: EngineView, task_id: str) -> AsyncIterator[TaskResult]:
        """An ended task with its outputs. Raises NotThere and Refused."""
        path = f"/v1/tasks/{task_id}/result"
        async with self._link.open(engine, path, kind="result", bound=EXECUTES_PER_ENGINE, what="results") as answer:
            yield await self._result(engine, answer)

    def events(
        self, engine: EngineView, task_id: str, cursor: str
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """What becomes of a task, a JSON object a line, from `cursor` on. Raises NotThere and Refused."""
        path = f"/v1/tasks/{task_id}/events" + (f"?from={cursor}" if cursor else "")
        return self._link.open(engine, path, kind="events", bound=FOLLOWERS_PER_ENGINE, what="followers")

    # -- the engine itself -------------------------------------------------------------------------------------------

    async def status(self, engine: EngineView) -> dict[str, Any]:
        """What the agent would report now. Raises Refused."""
        return await self._ask(engine, "/v1/status", kind="status")

    async def interrupt(self, engine: EngineView) -> None:
        """Interrupt the running task. Raises Refused."""
        await self._ask(engine, "/v1/interrupt", method="POST", body={})

    async def restart(self, engine: EngineView) -> None:
        """Give the engine a new kernel; returns when that has answered. Raises Refused."""
        await self._ask(engine, "/v1/restart", method="POST", body={})

    async def _ask(self, engine: EngineView, path: str, **options: Any) -> dict[str, Any]:
        """A question whose path every agent has."""
        try:
            return await self._link.ask(engine, path, **options)
        except NotThere:
            raise self._link.garbage(engine, "HTTP 404: its image is older than this gateway") from None

"""Runs code through the agents in engine pods, and reads tasks and results (docs/design/interfaces.md, "Gateway →
agent").

No code runs twice. A request that may have reached its engine is repeated only with the same task id, and the agent
then answers with the task of the first request. Must not know callers or Linkis.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from linkis_ecm.agent_client import paths
from linkis_ecm.agent_client.client import read_exact, release, require_status
from linkis_ecm.agent_client.errors import (
    AgentConnectTimeout,
    AgentError,
    AgentNotFound,
    AgentNotProven,
    AgentTimeout,
    AgentUnreachable,
)
from linkis_ecm.gateway.agents import reported
from linkis_ecm.gateway.agents.link import AgentLink, chunks_of, stream_errors
from linkis_ecm.gateway.http.errors import Refused, timed_out, upstream
from linkis_ecm.gateway.inventory.cache import EngineCache
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.process import exact_json

log = logging.getLogger(__name__)

# The agent runs one task and queues 16: it would refuse further calls.
EXECUTES_PER_ENGINE = 17
# Open event streams from one engine. Followers of one task share one, beside those who catch up (gateway.followers).
FOLLOWERS_PER_ENGINE = 16
# Of each follower: a thousand of them that do not read hold 64 MiB.
EVENT_BUFFER = 32 << 10
# A result up to this size is read and checked before a byte is sent. A larger one is streamed.
WHOLE_RESULT = 1 << 20
_TOO_OLD = "HTTP 404: its image is older than this gateway"
# When the cluster reports the end of an engine, the answer of its agent may still arrive for this long.
FINAL_ANSWER_SECONDS = 5.0
# When a connection breaks, the cluster's report of the engine's end is waited for this long at most.
END_REPORT_SECONDS = 3.0
# How much longer than the code a call may take: the agent's 5 s for an interrupt, and the transfer of the answer.
EXECUTE_SLACK = 30.0


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A task's result as JSON of `size` bytes: whole in `content` and decoded in `parsed`, or else in `chunks`."""

    size: int
    content: bytes | None = None
    parsed: dict[str, Any] | None = None
    chunks: AsyncIterator[bytes] | None = None


@dataclass(frozen=True, slots=True)
class KernelOf:
    """In whose kernel code runs: the agent makes a new one first where its last code was another's. While other's code
    runs or waits it refuses this one, unless `force` ends that. `version` is the engine's, as it was when the code was
    let in: the agent refuses what comes after code of another user that was let in later."""

    user: str
    force: bool = False
    version: int = 0


class Agents:
    """The agents of all engines."""

    def __init__(self, link: AgentLink, cache: EngineCache) -> None:
        self._link = link
        self._cache = cache
        # This bounds only the connecting. The caller's own limit bounds the run.
        self._execute = aiohttp.ClientTimeout(total=None, sock_connect=link.settings.connect_seconds)

    # -- code --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def execute(
        self,
        engine: KnownEngine,
        *,
        task_id: str,
        code: str,
        run_type: str,
        seconds: float,
        kernel: KernelOf | None = None,
    ) -> AsyncIterator[TaskResult]:
        """Run the code; its result, to be read within the block. `seconds` bounds the run. `kernel`: of an engine
        that is lent. Raises Refused."""
        body = {"taskId": task_id, "code": code, "runType": run_type, "timeoutSeconds": seconds} | _kernel(kernel)
        with self._link.slot("execute", engine, EXECUTES_PER_ENGINE, "tasks"):
            answer = await self._run(engine, body, seconds + EXECUTE_SLACK)
            try:
                try:
                    await require_status(answer, (200,))
                except AgentNotFound:
                    raise self._link.bad_response(engine, _TOO_OLD) from None
                except AgentError as error:
                    raise self._link.refusal(engine, error) from None
                yield await self._result(engine, answer)
            finally:
                release(answer)

    async def _run(self, engine: KnownEngine, body: dict[str, Any], limit: float) -> aiohttp.ClientResponse:
        """Send the code and wait for the answer's head. If the connection breaks meanwhile, send it once more."""
        deadline = asyncio.get_running_loop().time() + limit
        try:
            return await self._send(engine, body, deadline)
        except AgentNotProven as error:
            raise self._link.refusal(engine, error) from None
        except (AgentUnreachable, AgentConnectTimeout):
            self._link.metrics.agent_errors.labels("connect").inc()
            raise await self._broken_connection(engine, "before it could take the code, which has not run") from None
        except AgentError as error:
            self._link.metrics.agent_errors.labels("broken").inc()
            log.warning("%s: the connection broke under its code: %r", engine.title, error)
        view = self._cache.get(engine.key)
        if view is not None and view.uid == engine.uid and not view.is_final and view.attempt == engine.attempt:
            try:
                return await self._send(engine, body, deadline)
            except AgentError as error:
                log.warning("%s: the connection broke again: %r", engine.title, error)
        raise await self._broken_connection(engine, "while the code was under way, which may have run")

    async def _send(self, engine: KnownEngine, body: dict[str, Any], deadline: float) -> aiohttp.ClientResponse:
        """One request. Raises Refused at the deadline or when the engine ends, and AgentError if the connection
        breaks."""
        ended = False
        try:
            async with asyncio.timeout_at(deadline) as timeout:

                def listener(view: KnownEngine | None) -> None:
                    nonlocal ended
                    if not ended and (view is None or view.is_final or view.uid != engine.uid):
                        ended = True
                        timeout.reschedule(asyncio.get_running_loop().time() + FINAL_ANSWER_SECONDS)

                with self._cache.listen(engine.key, listener):
                    return await self._link.client.send(
                        self._link.endpoint(engine), _path(body), method="POST", body=body, timeout=self._execute
                    )
        except AgentConnectTimeout:
            raise
        except (TimeoutError, AgentTimeout):
            self._link.metrics.agent_errors.labels("timeout").inc()
            if ended:
                raise await self._broken_connection(engine, "while the code was under way") from None
            raise timed_out(
                f"{engine.title} has not answered within the time that was given and the code may still run or wait"
                " there: give a longer timeoutSeconds, or run less at a time"
            ) from None

    async def _result(self, engine: KnownEngine, answer: aiohttp.ClientResponse) -> TaskResult:
        """A small result, read and checked, or the size and the byte stream of a large one."""
        size = answer.content_length
        if size is None or "Content-Encoding" in answer.headers:
            raise self._link.bad_response(engine, "a result without its length")
        if size > WHOLE_RESULT:
            return TaskResult(size=size, chunks=self._chunks(answer))
        try:
            async with asyncio.timeout(self._link.settings.agent_seconds):
                content = await read_exact(answer, size)
        except (aiohttp.ClientError, OSError, TimeoutError):
            self._link.metrics.agent_errors.labels("broken").inc()
            raise await self._broken_connection(engine, "while it answered: the code has run") from None
        try:
            result = exact_json.loads(content)
        except ValueError:
            raise self._link.bad_response(engine, "a result that is not JSON") from None
        if not isinstance(result, dict) or not isinstance(result.get("status"), str):
            raise self._link.bad_response(engine, "a result without a status")
        return TaskResult(size=size, content=content, parsed=result)

    async def _chunks(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The answer's bytes. Raises TimeoutError if none arrives for `agent_seconds`, and ConnectionResetError if they
        break off."""
        while True:
            with stream_errors():
                async with asyncio.timeout(self._link.settings.agent_seconds):
                    chunk = await answer.content.readany()
            if not chunk:
                return
            yield chunk

    async def _broken_connection(self, engine: KnownEngine, when: str) -> Refused:
        """The refusal after a broken connection. Its reason is the engine's end if the cluster reports one."""
        view = await self.wait_for_end(engine)
        if view is None:
            return upstream(f"{engine.title} was deleted {when}: create another engine")
        if view.is_final or view.is_ending:
            why = view.message or view.reason or "no reason was given"
            return upstream(f"{engine.title} ended ({view.state}) {when}: {why}", reason=view.reason)
        return upstream(
            f"The connection to {engine.title} broke {when}: look at getEngineStatus before you send it again"
        )

    async def wait_for_end(self, engine: KnownEngine) -> KnownEngine | None:
        """The engine once the cluster reports its end, None once it is deleted; the engine as it is after
        END_REPORT_SECONDS."""
        changed = asyncio.Event()
        with self._cache.listen(engine.key, lambda _: changed.set()):
            try:
                async with asyncio.timeout(END_REPORT_SECONDS):
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

    # -- tasks -------------------------------------------------------------------------------------------------------

    async def submit(
        self,
        engine: KnownEngine,
        *,
        task_id: str,
        code: str,
        run_type: str,
        seconds: float,
        kernel: KernelOf | None = None,
    ) -> dict[str, Any]:
        """Queue the code; the task as it is then. `kernel` as for `execute`. Raises Refused."""
        body: dict[str, Any] = {"taskId": task_id, "code": code, "runType": run_type, "timeoutSeconds": seconds}
        body |= {"wait": False} | _kernel(kernel)
        return reported.task(await self._ask(engine, _path(body), method="POST", body=body, kind="submit"))

    async def task(self, engine: KnownEngine, task_id: str) -> dict[str, Any]:
        """The task's status. Raises AgentNotFound where the agent knows no such task (any more), and Refused."""
        return reported.task(await self._link.ask(engine, paths.task(task_id)))

    async def tasks(self, engine: KnownEngine) -> list[dict[str, Any]]:
        """The tasks that the agent remembers, the newest first. Raises Refused."""
        found = (await self._ask(engine, paths.TASKS)).get("tasks")
        if not isinstance(found, list):
            raise self._link.bad_response(engine, "no list of tasks")
        return reported.tasks(found)

    async def cancel(self, engine: KnownEngine, task_id: str) -> dict[str, Any]:
        """End a task; the task as it is then. Raises AgentNotFound and Refused."""
        return reported.task(await self._link.ask(engine, paths.cancel(task_id), method="POST", body={}))

    @asynccontextmanager
    async def result(self, engine: KnownEngine, task_id: str) -> AsyncIterator[TaskResult]:
        """An ended task with its outputs. Raises AgentNotFound and Refused."""
        path = paths.result(task_id)
        async with self._link.open(engine, path, kind="result", bound=EXECUTES_PER_ENGINE, what="results") as answer:
            yield await self._result(engine, answer)

    @asynccontextmanager
    async def events(
        self, engine: KnownEngine, task_id: str, cursor: str, until: str = ""
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The events of a task after `cursor`, one JSON object per line, in chunks as they arrive; of a running task up
        to `until`, which older agents do not know. Raises AgentNotFound and Refused. The chunks raise OSError and
        TimeoutError if the connection breaks."""
        path = paths.events(task_id, cursor, until)
        async with self._link.open(
            engine, path, kind="events", bound=FOLLOWERS_PER_ENGINE, what="followers", read_buffer=EVENT_BUFFER
        ) as answer:
            yield chunks_of(answer.content)

    # -- the engine itself -------------------------------------------------------------------------------------------

    async def status(self, engine: KnownEngine) -> dict[str, Any]:
        """The report that the agent would send now. Raises Refused."""
        return reported.status_report(await self._ask(engine, paths.STATUS, kind="status"))

    async def interrupt(self, engine: KnownEngine) -> None:
        """Interrupt the running task. Raises Refused."""
        await self._ask(engine, paths.INTERRUPT, method="POST", body={})

    async def restart(self, engine: KnownEngine) -> None:
        """Restart the engine's kernel; returns when the new one has answered. Raises Refused."""
        await self._ask(engine, paths.RESTART, method="POST", body={})

    async def _ask(self, engine: KnownEngine, path: str, **options: Any) -> dict[str, Any]:
        """A request that every agent of this version can answer, so 404 is a bad response."""
        try:
            return await self._link.ask(engine, path, **options)
        except AgentNotFound:
            raise self._link.bad_response(engine, _TOO_OLD) from None


def _kernel(kernel: KernelOf | None) -> dict[str, Any]:
    if kernel is None:
        return {}
    version = {"version": kernel.version} if kernel.version else {}
    return {"user": kernel.user} | version | ({"force": True} if kernel.force else {})


def _path(body: Mapping[str, Any]) -> str:
    """An agent of an older version has no path for code of a user, and so cannot ignore whose code it is."""
    return paths.EXECUTE_SHARED if "user" in body else paths.EXECUTE

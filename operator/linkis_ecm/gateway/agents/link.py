"""The gateway's requests to agents: how many at a time, with which token, and which refusal an error becomes.

Must not know the meaning of a request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import aiohttp

from linkis_ecm.agent.formats.names import LATE_CODE, OTHERS_TASK
from linkis_ecm.agent_client.address import agent_host
from linkis_ecm.agent_client.client import READ_BUFFER, AgentClient, AgentEndpoint
from linkis_ecm.agent_client.errors import (
    AgentBadResponse,
    AgentError,
    AgentNotFound,
    AgentNotProven,
    AgentRefused,
    AgentTimeout,
    AgentUnreachable,
    transport_errors,
)
from linkis_ecm.gateway.http.budget import ByteBudget
from linkis_ecm.gateway.http.errors import Refused, bad_request, timed_out, too_many, upstream
from linkis_ecm.gateway.http.slots import Slots
from linkis_ecm.gateway.inventory.view import KnownEngine
from linkis_ecm.gateway.metrics import Metrics
from linkis_ecm.gateway.settings import Settings
from linkis_ecm.model.agent_key import key_of

# Requests to one engine at a time. The agent scans four log pages at once, and a few more may wait.
READS_PER_ENGINE = 8
# The largest answer that is read at once. The list of all tasks that an agent remembers is smaller.
MAX_ANSWER_BYTES = 1 << 20
_NO_KEY = "{engine} refuses the gateway's token: operator and gateway must read the same token key"


def can_ask_agent(engine: KnownEngine) -> bool:
    """Whether the engine's agent can be reached: the pod runs an agent, has an address, and has not ended.

    `engine.has_agent` says only that the pod runs an agent and not another process.
    """
    return engine.has_agent and bool(engine.address) and not engine.is_final


def no_agent(engine: KnownEngine) -> Refused:
    """The refusal for an engine whose pod runs a process without an agent."""
    # A process without a launch.port has port 0.
    listens = not engine.service_instance.endswith(":0")
    use = f"use it at {engine.service_instance}, and read its log" if listens else "it listens nowhere: read its log"
    return bad_request(
        f"{engine.title} runs a {engine.launch} (launch.kind of its EngineConnPlugin) and no agent, so it takes neither"
        f" code nor commands: {use} with kubectl logs {engine.pod_name or ''} -n {engine.namespace}"
    )


def others_task(engine: KnownEngine) -> Refused:
    """The refusal for code in an engine that is lent, while another user's code still runs or waits in it."""
    return bad_request(
        f"code of another user still runs or waits in {engine.title}, and is not ended for yours, which has not run:"
        " send it again later, or ask for another engine (askEngineConn) and give this one back (the command unlock);"
        " its owner or an admin can end the code (cancelTask, restartKernel, or executeCode with force)",
        reason="OthersTask",
        canRetry=True,
    )


def late_code(engine: KnownEngine) -> Refused:
    """The refusal for code in an engine that is lent, which passed on to another user while the code was on its way."""
    return bad_request(
        f"{engine.title} has passed on to another user while your code was on its way, so it has not run: the kernel is"
        " that user's. Ask for an engine again (askEngineConn)",
        reason="LockNotValid",
        canRetry=False,
    )


@contextmanager
def stream_errors() -> Iterator[None]:
    """Raises ConnectionResetError for aiohttp's errors within the block, because the readers of a stream
    (`gateway.answers`) do not know aiohttp."""
    try:
        yield
    except aiohttp.ClientError as error:
        raise ConnectionResetError(str(error)) from None


async def chunks_of(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The bytes of an agent's answer, in chunks as they arrive. Raises ConnectionResetError if they break off."""
    with stream_errors():
        async for chunk in content.iter_any():
            yield chunk
            del chunk  # it may be large, and the next one may take long


class AgentLink:
    """Requests to the agents of all engines, over one client."""

    def __init__(self, client: AgentClient, *, settings: Settings, metrics: Metrics, budget: ByteBudget) -> None:
        self.client = client
        self.settings = settings
        self.metrics = metrics
        self.budget = budget
        self._master_keys = settings.master_keys
        # By kind of call, the engine's uid, and who has borrowed it: what a former borrower does not read, and so keeps
        # open, must not keep the next one or the owner out.
        self._slots: Slots[tuple[str, str, str]] = Slots()
        self._answer_timeout = aiohttp.ClientTimeout(
            total=settings.agent_seconds, sock_connect=settings.connect_seconds, sock_read=settings.agent_seconds
        )
        # A stream may take any time as long as bytes come now and then.
        self._stream_timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=settings.connect_seconds, sock_read=settings.agent_seconds
        )

    def has_key(self, engine: KnownEngine) -> bool:
        """Whether the engine's agent, if one has enrolled, has a key that this gateway can compute."""
        ref = engine.agent_key
        return ref is None or key_of(self._master_keys, ref, engine.uid, engine.attempt) is not None

    async def ask(
        self,
        engine: KnownEngine,
        path: str,
        *,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
        kind: str = "question",
    ) -> dict[str, Any]:
        """The agent's answer, a small JSON object. Raises AgentNotFound and Refused."""
        with self.slot(kind, engine, READS_PER_ENGINE, "questions"), self.errors_as_refusals(engine):
            return await self.client.ask(
                self.endpoint(engine),
                path,
                method=method,
                body=body,
                timeout=self._answer_timeout,
                limit=MAX_ANSWER_BYTES,
            )

    @asynccontextmanager
    async def open(
        self,
        engine: KnownEngine,
        path: str,
        *,
        kind: str,
        bound: int,
        what: str,
        read_buffer: int = READ_BUFFER,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is read in chunks. Leaving the block closes the connection if there are unread bytes, of which
        twice `read_buffer` are kept.

        Raises AgentNotFound and Refused before the block begins. Within the block aiohttp's errors are raised
        unchanged.
        """
        with self.slot(kind, engine, bound, what):
            async with AsyncExitStack() as stack:
                with self.errors_as_refusals(engine):
                    answer = await stack.enter_async_context(
                        self.client.open(
                            self.endpoint(engine), path, timeout=self._stream_timeout, read_buffer=read_buffer
                        )
                    )
                if "Content-Encoding" in answer.headers:
                    raise self.bad_response(engine, "a packed answer")
                yield answer

    def endpoint(self, engine: KnownEngine) -> AgentEndpoint:
        """Where the engine's agent is, with its key. Raises Refused where there is none: a key is never sent to what is
        no agent."""
        if not engine.has_agent:
            raise no_agent(engine)
        try:
            host = agent_host(engine.address, self.settings.agent_port)
        except ValueError as error:
            self.metrics.agent_errors.labels("bad_response").inc()
            raise upstream(
                f"{engine.title} has an address in its status that no agent has ({error}): its operator writes it anew"
            ) from None
        key = key_of(self._master_keys, engine.agent_key, engine.uid, engine.attempt)
        if key is None:
            self.metrics.agent_errors.labels("token").inc()
            raise upstream(_NO_KEY.format(engine=engine.title))
        return AgentEndpoint(host, key)

    @contextmanager
    def slot(self, kind: str, engine: KnownEngine, bound: int, what: str) -> Iterator[None]:
        """Take one of `bound` slots for this kind of request to the engine. Raises Refused if none is free: a queue
        here would be invisible to callers."""
        key = (kind, engine.uid, engine.borrower)
        taken = self._slots.taken(key)
        if taken >= bound:
            raise too_many(f"{taken} {what} of {engine.title} are under way already: try again when one has ended")
        with self._slots.hold(key):
            yield

    @contextmanager
    def errors_as_refusals(self, engine: KnownEngine) -> Iterator[None]:
        """Raises Refused for each AgentError within the block, but leaves AgentNotFound unchanged."""
        try:
            with transport_errors():
                yield
        except AgentNotFound:
            raise
        except AgentError as error:
            raise self.refusal(engine, error) from None

    def refusal(self, engine: KnownEngine, error: AgentError) -> Refused:
        """The refusal that a caller gets for an agent's error. Counts it in the metrics."""
        match error:
            case AgentRefused():
                return self._refused(engine, error.status, error.sentence)
            case AgentBadResponse():
                return self.bad_response(engine, str(error))
            case AgentTimeout():
                self.metrics.agent_errors.labels("timeout").inc()
                return timed_out(f"{engine.title} did not answer in time: try again later")
            case AgentNotProven():
                self.metrics.agent_errors.labels("token").inc()
                return upstream(_NO_KEY.format(engine=engine.title))
            case AgentUnreachable():
                self.metrics.agent_errors.labels("connect").inc()
                return upstream(f"{engine.title} cannot be reached: see its state with getEngineStatus and try again")
        self.metrics.agent_errors.labels("broken").inc()
        return upstream(f"The connection to {engine.title} broke: try again")

    def _refused(self, engine: KnownEngine, status: int, sentence: str) -> Refused:
        match status:
            case 409 if sentence == OTHERS_TASK:
                return others_task(engine)
            case 409 if sentence == LATE_CODE:
                return late_code(engine)
            case 400 | 409 if sentence:
                return bad_request(f"{engine.title}: {sentence}")
            case 410:
                return Refused(f"{engine.title}: {sentence or 'that is not kept any more'}", http=410)
            case 413:
                return Refused(f"{engine.title}: {sentence or 'the code is too long'}", http=413)
            case 429:
                return too_many(f"{engine.title}: {sentence or 'it has too much to do'}")
            case 401 | 403:
                self.metrics.agent_errors.labels("token").inc()
                return upstream(_NO_KEY.format(engine=engine.title))
        return self.bad_response(engine, f"HTTP {status}")

    def bad_response(self, engine: KnownEngine, what: str) -> Refused:
        """The refusal for an agent that answered with `what`. Counts it in the metrics."""
        self.metrics.agent_errors.labels("bad_response").inc()
        return upstream(f"The agent of {engine.title} answered with {what}")

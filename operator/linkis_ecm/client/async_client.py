"""The asynchronous driver over httpx: the blocking one with `await`.

Must not decide what is sent or repeated: that is in methods, exchanges and streams.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx
from pydantic import BaseModel

from linkis_ecm.api.models import EngineInfo
from linkis_ecm.client import exchanges, http, methods, streams
from linkis_ecm.client.binding import as_method
from linkis_ecm.client.errors import EcmError
from linkis_ecm.client.files import DownloadFile, Target
from linkis_ecm.client.lifetime import Lifetime
from linkis_ecm.client.login import Bearer, Login, login_of
from linkis_ecm.client.protocol import Close, Done, Emit, Exchange, Head, Open, Read, Sleep, Stepper, Stream, Terms
from linkis_ecm.client.request_plan import RequestPlan
from linkis_ecm.client.retry import RetryPolicy

P = ParamSpec("P")
T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)


def _method(
    maker: Callable[P, RequestPlan[Model]],
) -> Callable[Concatenate[AsyncEcmClient, P], Coroutine[Any, Any, Model]]:
    async def call(self: AsyncEcmClient, /, *args: P.args, **kwargs: P.kwargs) -> Model:
        return await self.run(exchanges.ask(maker(*args, **kwargs), self.terms))

    return as_method(call, maker)


def _exchange(
    maker: Callable[Concatenate[Terms, P], Exchange[T]],
) -> Callable[Concatenate[AsyncEcmClient, P], Coroutine[Any, Any, T]]:
    async def call(self: AsyncEcmClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(maker(self.terms, *args, **kwargs))

    return as_method(call, maker, drop=1)


def _stream(
    maker: Callable[Concatenate[Terms, P], Stream[T]],
) -> Callable[Concatenate[AsyncEcmClient, P], AsyncGenerator[T, None]]:
    def call(self: AsyncEcmClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
        return self.iterate(maker(self.terms, *args, **kwargs))

    return as_method(call, maker, drop=1)


def _engine(maker: Callable[P, RequestPlan[EngineInfo]]) -> Callable[Concatenate[AsyncEcmClient, P], AsyncEngine]:
    def call(self: AsyncEcmClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncEngine:
        """`async with client.engine("python") as engine:` an engine by create_engine_connection, for the block."""
        return AsyncEngine(self, Lifetime.of(maker(*args, **kwargs), self.terms))

    doc = call.__doc__
    bound = as_method(call, maker)
    bound.__name__, bound.__doc__ = "engine", doc
    return bound


class AsyncEcmClient:
    """A gateway's methods, to be awaited. To be closed, or used as a context; belongs to one event loop.

    Arguments that are left out come from LINKIS_ECM_URL, LINKIS_ECM_TOKEN and LINKIS_ECM_USER. Who calls: `token` and
    `user` are Linkis's Token-Code and Token-User; `bearer` is a Kubernetes or OpenID Connect token, or a function that
    gives one, as is a token without a user.

    Methods have the REST's names in Python's form (create_engine_connection), and the eleven of the contract their own
    too (createEngineConnection). They return the models of `linkis_ecm.api.models` and raise EcmError. A call that
    can be repeated without harm is repeated for `patience` seconds. `verify` is httpx's: how an https gateway's
    certificate is checked, by default with the authorities in LINKIS_ECM_CA_FILE, else with the public ones.
    `transport` is httpx's, to go through a proxy.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        user: str | None = None,
        bearer: Bearer | None = None,
        patience: float = 30.0,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        rng: random.Random | None = None,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._login = login_of(environment, url=url, token=token, user=user, bearer=bearer)
        self._sleep = sleep
        self.terms = Terms(
            policy=RetryPolicy(patience=patience),
            clock=clock,
            rng=rng or random.Random(),  # noqa: S311 - it spreads waits
            new_id=new_id,
        )
        http_transport = transport or httpx.AsyncHTTPTransport(
            verify=http.verification(verify, environment),
            limits=http.LIMITS,
            socket_options=http.socket_options(),
        )
        self._http = httpx.AsyncClient(transport=http_transport, **http.common())

    def __repr__(self) -> str:
        return f"AsyncEcmClient({self._login!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    create_engine_connection = _method(methods.create_engine_connection)
    ask_engine_conn = _method(methods.ask_engine_conn)
    execute_code = _method(methods.execute_code)
    submit_code = _method(methods.submit_code)
    get_engine_status = _method(methods.get_engine_status)
    terminate_engine = _method(methods.terminate_engine)
    list_engines = _method(methods.list_engines)
    get_engine_metrics = _method(methods.get_engine_metrics)
    get_resource_usage = _method(methods.get_resource_usage)
    update_resource = _method(methods.update_resource)
    report_resource_usage = _method(methods.report_resource_usage)
    send_engine_command = _method(methods.send_engine_command)
    get_engine_logs = _method(methods.get_engine_logs)
    get_task = _method(methods.get_task)
    get_task_result = _method(methods.get_task_result)
    get_result_set = _method(methods.get_result_set)
    list_tasks = _method(methods.list_tasks)
    cancel_task = _method(methods.cancel_task)
    explain_engine = _method(methods.explain_engine)
    preview_cull = _method(methods.preview_cull)
    get_post_mortem = _method(methods.get_post_mortem)
    who_am_i = _method(methods.who_am_i)
    list_engine_plugins = _method(methods.list_engine_plugins)
    get_overview = _method(methods.get_overview)
    list_transitions = _method(methods.list_transitions)
    wait_until_ready = _exchange(exchanges.wait_until_ready)
    task_events = _stream(streams.task_events)
    follow_engine_log = _stream(streams.follow_engine_log)
    engine = _engine(methods.create_engine_connection)

    # The contract's eleven methods by their own names too.
    createEngineConnection = create_engine_connection  # noqa: N815
    executeCode = execute_code  # noqa: N815
    getEngineStatus = get_engine_status  # noqa: N815
    terminateEngine = terminate_engine  # noqa: N815
    listEngines = list_engines  # noqa: N815
    getEngineMetrics = get_engine_metrics  # noqa: N815
    getResourceUsage = get_resource_usage  # noqa: N815
    updateResource = update_resource  # noqa: N815
    reportResourceUsage = report_resource_usage  # noqa: N815
    sendEngineCommand = send_engine_command  # noqa: N815
    getEngineLogs = get_engine_logs  # noqa: N815

    async def download_engine_log(self, engine: str | EngineInfo, target: Target, log_type: str = "stdout") -> int:
        """downloadEngineLog into a file, given by its path or open for bytes; returns its size in bytes.

        An interrupted download is resumed. A path has the whole log at the end, or stays as it was.
        """
        return await self._write_chunks(target, streams.downloaded(self.terms, engine, log_type))

    async def download_result_set(
        self,
        engine_id: str,
        target: Target,
        task_id: str | None = None,
        *,
        format: streams.ResultFormat = "arrow",
        idempotency_key: str | None = None,
        output: int | None = None,
        from_row: int | None = None,
        rows: int | None = None,
        allow_truncated: bool = False,
    ) -> int:
        """getResultSet into a file, whole unless rows are named: an Arrow IPC stream, or Linkis's result set (dolphin).

        Returns its size in bytes. A table of which not all is kept raises ResultTruncated, unless `allow_truncated`. An
        interrupted download starts again; a path has all of it at the end, or stays as it was.
        """
        stream = streams.result_downloaded(
            self.terms,
            engine_id,
            task_id,
            format=format,
            idempotency_key=idempotency_key,
            output=output,
            from_row=from_row,
            rows=rows,
            allow_truncated=allow_truncated,
        )
        return await self._write_chunks(target, stream)

    async def _write_chunks(self, target: Target, stream: Stream[streams.Piece]) -> int:
        file = DownloadFile(target)
        try:
            async for piece in self.iterate(stream):
                await asyncio.to_thread(file.write, piece)
            return await asyncio.to_thread(file.finish)
        except BaseException:
            file.abort()
            raise

    async def run(self, exchange: Exchange[T]) -> T:
        """Do the exchange's steps; its result. Raises EcmError."""
        async with _Driver(self._http, self._login, self._sleep) as driver:
            end = await driver.advance(Stepper(exchange))
        assert isinstance(end, Done)  # noqa: S101 - only streams emit
        return end.value

    async def iterate(self, stream: Stream[T]) -> AsyncGenerator[T, None]:
        """Do the stream's steps; its items as they come. Raises EcmError."""
        stepper = Stepper(stream.exchange)
        async with _Driver(self._http, self._login, self._sleep) as driver:
            while isinstance(step := await driver.advance(stepper), Emit):
                yield step.item


class _Driver:
    """Does the steps of one exchange over httpx, with one response open at a time."""

    def __init__(
        self, http_client: httpx.AsyncClient, login: Login, sleep: Callable[[float], Awaitable[object]]
    ) -> None:
        self._http = http_client
        self._login = login
        self._sleep = sleep
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def advance(self, stepper: Stepper[T]) -> Emit | Done[T]:
        """Do its steps up to the next item, or to its end."""
        step = stepper.send(None)
        while not isinstance(step, Emit | Done):
            try:
                result = await self._do(step)
            except EcmError as error:
                step = stepper.throw(error)
            else:
                step = stepper.send(result)
        return step

    async def _do(self, step: Open | Read | Close | Sleep) -> Head | bytes | None:
        try:
            match step:
                case Open():
                    return await self._open(step)
                case Read():
                    return await anext(self._chunks, b"") if self._chunks is not None else b""
                case Close():
                    await self._close()
                case Sleep():
                    await self._close()  # a connection of the pool is not held during a wait
                    await self._sleep(step.seconds)
        except http.TRANSPORT_ERRORS as error:
            raise http.error_of_transport(error, self._login) from None
        return None

    async def _open(self, request: Open) -> Head:
        await self._close()
        sent = self._http.build_request(**http.arguments(request, self._login))
        self._response = await self._http.send(sent, stream=True)
        self._chunks = self._response.aiter_bytes()
        return http.response_head(self._response)

    async def _close(self) -> None:
        if self._response is not None:
            await self._response.aclose()
            self._response, self._chunks = None, None


def _of_engine(
    maker: Callable[Concatenate[str, P], RequestPlan[Model]],
) -> Callable[Concatenate[AsyncEngine, P], Coroutine[Any, Any, Model]]:
    async def call(self: AsyncEngine, /, *args: P.args, **kwargs: P.kwargs) -> Model:
        return await self.client.run(exchanges.ask(maker(self.engine_id, *args, **kwargs), self.client.terms))

    return as_method(call, maker, drop=1)


def _stream_of_engine(
    maker: Callable[Concatenate[Terms, str, P], Stream[T]],
) -> Callable[Concatenate[AsyncEngine, P], AsyncGenerator[T, None]]:
    def call(self: AsyncEngine, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
        return self.client.iterate(maker(self.client.terms, self.engine_id, *args, **kwargs))

    return as_method(call, maker, drop=2)


class AsyncEngine:
    """An engine for the time of an `async with` block. `info` is how it was when it was ready."""

    info: EngineInfo

    def __init__(self, client: AsyncEcmClient, lifetime: Lifetime) -> None:
        self.client = client
        self._lifetime = lifetime

    @property
    def engine_id(self) -> str:
        """Its ticket."""
        return self._lifetime.engine_id

    async def __aenter__(self) -> Self:
        try:
            self.info = await self.client.run(exchanges.ask(self._lifetime.begin, self.client.terms))
        except BaseException as error:
            if self._lifetime.may_exist_after(error):
                with suppress(EcmError):
                    await self.client.run(
                        exchanges.ask(self._lifetime.abort, self._lifetime.with_less_patience(self.client.terms))
                    )
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.client.run(exchanges.ask(self._lifetime.end, self.client.terms))
        except EcmError as failure:
            self._lifetime.report_not_ended(failure, during=error)

    execute = _of_engine(methods.execute_code)
    submit = _of_engine(methods.submit_code)
    status = _of_engine(methods.get_engine_status)
    command = _of_engine(methods.send_engine_command)
    resize = _of_engine(methods.update_resource)
    logs = _of_engine(methods.get_engine_logs)
    task = _of_engine(methods.get_task)
    result = _of_engine(methods.get_task_result)
    result_set = _of_engine(methods.get_result_set)
    cancel = _of_engine(methods.cancel_task)
    events = _stream_of_engine(streams.task_events)
    follow_log = _stream_of_engine(streams.follow_engine_log)

    async def download_log(self, target: Target, log_type: str = "stdout") -> int:
        """As AsyncEcmClient.download_engine_log."""
        return await self.client.download_engine_log(self.engine_id, target, log_type)

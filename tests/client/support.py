"""What the client's tests share: both clients behind one face, a clock that sleep alone moves, a scripted wire."""

from __future__ import annotations

import asyncio
import inspect
import json
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx

from linkis_ecm.client import AsyncEcmClient, EcmClient

URL = "http://gateway.test:9102"
TOKEN = "LINKIS-SECRET-0123456789"
Handler = Callable[[httpx.Request], httpx.Response]


class Both:
    """One of the clients, driven from a test's event loop: the blocking one in threads of its own."""

    def __init__(self, client: EcmClient | AsyncEcmClient) -> None:
        self.client = client

    async def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """What the method answers; of a stream the list of what it emits."""
        function = getattr(self.client, method)
        if isinstance(self.client, EcmClient):
            return await asyncio.to_thread(lambda: _listed(function(*args, **kwargs)))
        found = function(*args, **kwargs)
        return await found if inspect.isawaitable(found) else [item async for item in found]

    async def stream(self, method: str, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """A stream, item by item."""
        found = getattr(self.client, method)(*args, **kwargs)
        if not isinstance(found, Iterator):
            async for item in found:
                yield item
            return
        nothing = object()
        while (item := await asyncio.to_thread(next, found, nothing)) is not nothing:
            yield item

    async def with_engine(self, body: Callable[[Callable[..., Awaitable[Any]], Any], Any], **wanted: Any) -> Any:
        """`body(call, engine)` with an engine around it, in whose methods `call` runs one."""
        if isinstance(self.client, AsyncEcmClient):
            async with self.client.engine(**wanted) as engine:
                return await body(lambda name, *a, **k: getattr(engine, name)(*a, **k), engine)
        manager = self.client.engine(**wanted)
        engine = await asyncio.to_thread(manager.__enter__)

        async def call(name: str, *args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(lambda: getattr(engine, name)(*args, **kwargs))

        try:
            found = await body(call, engine)
        except BaseException as error:
            await asyncio.to_thread(manager.__exit__, type(error), error, error.__traceback__)
            raise
        await asyncio.to_thread(manager.__exit__, None, None, None)
        return found

    async def close(self) -> None:
        if isinstance(self.client, EcmClient):
            self.client.close()
        else:
            await self.client.close()


def _listed(found: Any) -> Any:
    return list(found) if inspect.isgenerator(found) else found


class Clock:
    """Time that passes in sleep alone, and by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self.now += seconds

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


def client_of(kind: str, url: str, **options: Any) -> Both:
    """A client of that kind, "blocking" or "asynchronous"."""
    options = {"token": TOKEN, "user": "alice", "environment": {}, **options}
    return Both(EcmClient(url, **options) if kind == "blocking" else AsyncEcmClient(url, **options))


class Script:
    """Answers in their order; each a response, an exception, or a function of the request. Keeps what was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Exception):
            raise answer
        # One of its own each time: httpx uses a response up.
        if isinstance(answer.stream, Cut):
            return httpx.Response(answer.status_code, headers=answer.headers, stream=answer.stream)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests]

    def client(self, kind: str, clock: Clock | None = None, **options: Any) -> Both:
        clock = clock or Clock()
        ids = iter(f"id-{number}" for number in range(1000))
        return client_of(
            kind,
            options.pop("url", URL),
            transport=httpx.MockTransport(self),
            clock=clock,
            sleep=clock.sleep if kind == "blocking" else clock.asleep,
            rng=random.Random(7),
            new_id=lambda: next(ids),
            **options,
        )


class Cut(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in these pieces and breaks off where one is an exception."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def message(data: Any = None, *, http: int = 200, status: int = 0, text: str = "OK", **headers: str) -> httpx.Response:
    body = {"method": "/api", "status": status, "message": text, "data": data}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(http, json=body, headers=named)


def engine_data(**changes: Any) -> dict[str, Any]:
    """An engine as getEngineStatus tells of it."""
    ticket = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
    return {
        "engineId": ticket, "ticketId": ticket, "namespace": "linkis", "name": "python-alice-abc",
        "engineType": "python", "engineVersion": "3.11", "user": "alice", "creator": "IDE",
        "labelValue": "alice-IDE,python-3.11",
        "status": "Idle", "available": True, "serviceInstance": "pod.engines.linkis:9105", "ecmInstance": "ecm:9102",
        "logDirSuffix": "alice/20261124/python/t/logs",
    } | changes  # fmt: skip


def result_data(*outputs: dict[str, Any], status: str = "Succeed") -> dict[str, Any]:
    return {
        "taskId": "t-1", "status": status, "executionCount": 1, "acceptedAt": 1.0, "startedAt": 2.0, "endedAt": 3.0,
        "progress": 1.0, "progressMessage": "", "outputs": list(outputs),
    }  # fmt: skip


def text(value: str, stream: str = "result") -> dict[str, Any]:
    return {"type": "text", "stream": stream, "text": value}

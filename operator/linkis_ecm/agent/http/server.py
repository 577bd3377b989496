"""A small HTTP/1.1 server over asyncio streams, with h11 for the protocol.

h11 and not aiohttp: importing aiohttp.web takes 0.29 s, h11 0.02 s. What comes in is bounded in size and time: headers,
bodies, connections, how long a peer may be slow. Must not know what the paths mean.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote

import h11

from linkis_ecm.agent.http.sent import count_sent, send_piece

MAX_HEADER_BYTES = 16 << 10
MAX_BODY_BYTES = 8 << 20
MAX_CONNECTIONS = 256
# Longer than the gateway keeps an unused connection (aiohttp: 15 s), so that it is never the server that cuts first.
IDLE_TIMEOUT = 75.0
HEADER_TIMEOUT = 10.0
BODY_TIMEOUT = 60.0
# For each piece of an answer: a reader slower than 8 MiB a minute is cut.
WRITE_TIMEOUT = 60.0
FILE_CHUNK = 8 << 20
# What a peer still sends after an early answer is read until it has sent nothing for so long, and for BODY_TIMEOUT at
# most, or TCP's reset could destroy the answer: 9 MiB of code take a busy machine more than two seconds.
LINGER = 2.0
_READ = 64 << 10
_JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Request:
    """A request's line and headers; the body is read by `read_body` when the handler wants it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[bytes, bytes]
    # Given the most bytes that it may have, where those are not MAX_BODY_BYTES.
    read_body: Callable[..., Awaitable[bytes]]
    # To be called once the caller has shown who it is: its connection keeps its place from then on.
    set_known: Callable[[], None] = lambda: None


@dataclass(slots=True)
class Response:
    """An answer: `body`, and after it `size` bytes of the file open as `file` from `offset` on, which is closed after
    it; or what `stream` yields, piece by piece."""

    status: int
    body: bytes = b""
    content_type: bytes = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    file: int | None = None
    # (where, length) of what is sent of the file, in order.
    parts: Sequence[tuple[int, int]] = ()
    # Whether the file's bytes from an offset on are still what they were; asked after they were sent.
    intact: Callable[[int], bool] | None = None
    stream: AsyncGenerator[bytes] | None = None
    # Called when the answer has been sent, or its peer has gone.
    done: Callable[[], None] | None = None


class HttpError(Exception):
    """Answered as {"error": sentence} with `status`."""

    def __init__(self, status: int, sentence: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers


Handler = Callable[[Request], Awaitable[Response]]


def json_response(status: int, content: Any) -> Response:
    """`content` as JSON."""
    return Response(status, json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode(errors="replace"))


class Server:
    """Serves `handler` on one port."""

    def __init__(self, handler: Handler, *, on_error: Callable[[str], None]) -> None:
        self._handler = handler
        self._on_error = on_error
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        # Those on which nobody has shown who calls, with the address of each; the oldest first.
        self._strangers: dict[asyncio.Task[None], str] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._no_answers = asyncio.Event()
        self._no_answers.set()
        self._closing = False

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, which is chosen by the system for 0."""
        listener = _listener(host, port)
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=_READ, backlog=128)
        return int(listener.getsockname()[1])

    async def stop(self, timeout: float) -> None:
        """Take no more requests and let those being answered end, within `timeout` seconds."""
        self._closing = True
        if self._server is not None:
            self._server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._no_answers.wait()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=1.0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or not self._make_room():
            writer.transport.abort()
            return
        self._connections.add(task)
        # None where the other side is gone already.
        self._strangers[task] = str((writer.get_extra_info("peername") or ("",))[0])
        # drain() then waits until the system has every byte, so what was answered survives the close.
        writer.transport.set_write_buffer_limits(high=0)
        connection = _Connection(
            self._handler, reader, writer, self._on_error, self._set_answering,
            set_known=lambda: self._set_known(task),
        )  # fmt: skip
        try:
            await connection.serve()
        except asyncio.CancelledError:
            pass  # the server stops, or needs the place
        except (OSError, TimeoutError) as error:
            # The peer is gone or too slow. Who only reads may leave; who asked for something wonders what became of it.
            if connection.under_way:
                self._on_error(f"{connection.under_way}: the connection broke: {type(error).__name__}: {error}")
        finally:
            self._set_answering(False)
            self._connections.discard(task)
            self._strangers.pop(task, None)
            writer.transport.abort()

    def _set_known(self, task: asyncio.Task[None]) -> None:
        self._strangers.pop(task, None)

    def _make_room(self) -> bool:
        """Whether one more connection may come. Where all places are taken, a stranger's is given away: the oldest of
        the address that has most of them, so that other pods' silent connections keep neither gateway nor kubelet
        out."""
        if len(self._connections) < MAX_CONNECTIONS:
            return True
        if not self._strangers:
            return False
        ((most, _),) = Counter(self._strangers.values()).most_common(1)
        oldest = next(task for task, peer in self._strangers.items() if peer == most)
        del self._strangers[oldest]
        oldest.cancel()
        return True

    def _set_answering(self, answering: bool) -> bool:
        """Note whether this connection owes an answer; False where no further request is to be read."""
        task = asyncio.current_task()
        if task is not None:
            (self._answering.add if answering else self._answering.discard)(task)
            (self._no_answers.clear if self._answering else self._no_answers.set)()
        return not self._closing


class _Connection:
    """One peer, from its first request to its last."""

    def __init__(
        self,
        handler: Handler,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_error: Callable[[str], None],
        mark: Callable[[bool], bool],
        *,
        set_known: Callable[[], None],
    ) -> None:
        self._set_known = set_known
        self._handler = handler
        self._reader = reader
        self._writer = writer
        self._on_error = on_error
        self._set_answering = mark
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
        # HEAD: h11 takes no body for its answer.
        self._without_body = False
        # The request for a change that is being answered, "" where there is none.
        self.under_way = ""

    async def serve(self) -> None:
        while True:
            try:
                event = await self._first_event()
            except h11.RemoteProtocolError as error:
                await self._refuse(HttpError(error.error_status_hint, f"not a request of HTTP/1.1: {error}"))
                return
            if not isinstance(event, h11.Request):
                return
            self._set_answering(True)
            self._without_body = event.method == b"HEAD"
            if event.method != b"GET":
                self.under_way = f"{event.method.decode('ascii')} {event.target.decode('ascii', 'replace')[:200]}"
            response = await self._answer(event)
            try:
                await self._send(response)
            finally:
                if response.done is not None:
                    response.done()
            open_for_more = self._set_answering(False)
            self.under_way = ""
            if self._h11.their_state is h11.SEND_BODY:
                await self._close_after_read()  # its body was not wanted
            if not open_for_more or self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
                return
            self._h11.start_next_cycle()
            self._without_body = False

    async def _first_event(self) -> Any:
        """The next request: unhurried until its first byte, then quick."""
        event = self._h11.next_event()
        if event is h11.NEED_DATA and not self._h11.trailing_data[0]:
            async with asyncio.timeout(IDLE_TIMEOUT):
                self._h11.receive_data(await self._reader.read(_READ))
            event = self._h11.next_event()
        if event is h11.NEED_DATA:
            async with asyncio.timeout(HEADER_TIMEOUT):
                event = await self._next_event()
        return event

    async def _next_event(self) -> Any:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(await self._reader.read(_READ))
        return event

    async def _answer(self, event: h11.Request) -> Response:
        if not any(name in (b"content-length", b"transfer-encoding") for name, _ in event.headers):
            self._h11.next_event()  # its end: without a body, the connection is free for the next request
        target, _, query = event.target.decode("ascii", "replace").partition("?")
        request = Request(
            method=event.method.decode("ascii"),
            path=unquote(target),
            query=dict(parse_qsl(query, keep_blank_values=True)),
            headers=dict(event.headers),
            read_body=partial(self._read_body, dict(event.headers).get(b"content-length", b"0")),
            set_known=self._set_known,
        )
        try:
            return await self._handler(request)
        except HttpError as error:
            return _error_response(error)
        except h11.RemoteProtocolError as error:
            return _error_response(HttpError(error.error_status_hint, f"the body is not of HTTP/1.1: {error}"))
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:  # the peer gets no detail, the log does
            self._on_error(f"{request.method} {request.path}: {type(error).__name__}: {error}")
            return _error_response(HttpError(500, "the agent failed on this request: its log says why"))

    async def _read_body(self, announced: bytes, most: int | None = None) -> bytes:
        """The whole body. Raises HttpError above `most` bytes or MAX_BODY_BYTES, by its announced length if there is
        one."""
        if self._h11.their_state is h11.DONE:
            return b""
        remedy = "send less code at once" if most is None else "send less at once"
        most = MAX_BODY_BYTES if most is None else most
        too_big = HttpError(413, f"the body is over {most} bytes: {remedy}")
        if int(announced) > most:  # h11 lets digits pass only, 20 at most
            raise too_big
        body = bytearray()
        if self._h11.they_are_waiting_for_100_continue:
            self._writer.write(self._h11.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        async with asyncio.timeout(BODY_TIMEOUT):
            while True:
                event = await self._next_event()
                if isinstance(event, h11.Data):
                    body += event.data
                    if len(body) > most:
                        raise too_big
                elif isinstance(event, h11.EndOfMessage):
                    return bytes(body)
                else:
                    raise ConnectionResetError("the peer left in the middle of its request")

    async def _send(self, response: Response) -> None:
        if response.stream is not None:
            await self._send_stream(response, response.stream)
            return
        size = len(response.body) + sum(length for _, length in response.parts)
        headers = [(b"content-type", response.content_type), (b"content-length", b"%d" % size), *response.headers]
        # Where the body was not read, what follows is not a request: say so.
        if self._h11.their_state is not h11.DONE:
            headers.append((b"connection", b"close"))
        data = self._h11.send(h11.Response(status_code=response.status, headers=headers)) or b""
        async with asyncio.timeout(WRITE_TIMEOUT):
            if response.file is None:
                if response.body and not self._without_body:
                    data += self._h11.send(h11.Data(data=response.body)) or b""
                data += self._h11.send(h11.EndOfMessage()) or b""
                self._writer.write(data)
                await self._writer.drain()
                return
            self._writer.write(data + response.body)
        await self._send_file(response.file, response.parts, response.intact)
        count_sent(self._h11, size)
        self._h11.send(h11.EndOfMessage())

    async def _send_stream(self, response: Response, stream: AsyncGenerator[bytes]) -> None:
        """As long as there is something to tell and the peer is there; then the connection is closed."""
        headers = [
            (b"content-type", response.content_type),
            (b"transfer-encoding", b"chunked"),
            (b"connection", b"close"),
            *response.headers,
        ]
        data = self._h11.send(h11.Response(status_code=response.status, headers=headers)) or b""
        # Whoever reads a stream sends nothing more: its end of the connection tells when it leaves.
        left = asyncio.ensure_future(self._reader.read(1))
        piece: asyncio.Future[bytes] | None = None
        try:
            while True:
                async with asyncio.timeout(WRITE_TIMEOUT):
                    self._writer.write(data)
                    await self._writer.drain()
                piece = asyncio.ensure_future(anext(stream))
                await asyncio.wait((piece, left), return_when=asyncio.FIRST_COMPLETED)
                if not piece.done():
                    raise ConnectionResetError("the peer left")
                try:
                    data = self._h11.send(h11.Data(data=piece.result())) or b""
                except StopAsyncIteration:
                    break
            async with asyncio.timeout(WRITE_TIMEOUT):
                self._writer.write(self._h11.send(h11.EndOfMessage()) or b"")
                await self._writer.drain()
        finally:
            for waited in (left, piece):
                if waited is not None and not waited.done():
                    waited.cancel()
                    with suppress(asyncio.CancelledError, StopAsyncIteration, OSError):
                        await waited
            await stream.aclose()

    async def _send_file(
        self, descriptor: int, parts: Sequence[tuple[int, int]], intact: Callable[[int], bool] | None
    ) -> None:
        """Exactly these parts by sendfile, in pieces that a reader must take in time."""
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            for begin, length in parts:
                offset, end = begin, begin + length
                while offset < end:
                    async with asyncio.timeout(WRITE_TIMEOUT):
                        piece = await send_piece(self._writer.transport, file, offset, min(FILE_CHUNK, end - offset))
                    if not piece:
                        raise ConnectionAbortedError("the log became shorter while it was sent")
                    if intact is not None and not intact(offset):
                        raise ConnectionAbortedError("the log's beginning was dropped up to what was being sent")
                    offset += piece

    async def _refuse(self, error: HttpError) -> None:
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._send(_error_response(error))
            await self._close_after_read()

    async def _close_after_read(self) -> None:
        with suppress(OSError, TimeoutError):
            self._writer.write_eof()
            async with asyncio.timeout(BODY_TIMEOUT):
                while await asyncio.wait_for(self._reader.read(_READ), LINGER):
                    pass


def _error_response(error: HttpError) -> Response:
    response = json_response(error.status, {"error": str(error)})
    response.headers = error.headers
    return response


def _listener(host: str, port: int) -> socket.socket:
    """A listening socket on `host`, or on all addresses of both families where it is empty."""
    if host:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    except (OSError, ValueError):
        return socket.create_server(("0.0.0.0", port))  # noqa: S104 - the pod's only server, behind a token

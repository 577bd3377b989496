"""HTTP to the operator: a request on a connection of its own, and how any answer is read.

Must not know what is sent or why.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from urllib.parse import urlencode

import h11

from linkis_ecm.agent.http.sent import count_sent, send_piece
from linkis_ecm.agent.identity import Identity
from linkis_ecm.agent.logs.files import OpenLog
from linkis_ecm.agent.settings import Settings

READ_BYTES = 64 << 10
_PIECE = 8 << 20
# Code is 512 KiB at most.
_ANSWER_MAX = 4 << 20


def identity_query(settings: Settings, identity: Identity) -> str:
    """The query that names this engine and attempt."""
    return urlencode(
        {
            "namespace": settings.namespace,
            "name": settings.name,
            "uid": settings.uid,
            "attempt": settings.attempt,
            "ticket": settings.ticket_id,
            "podUid": identity.pod_uid,
            "enrolment": identity.nonce,
        }
    )


async def exchange(
    settings: Settings, identity: Identity, method: bytes, target: str, log: OpenLog | None = None
) -> tuple[int, bytes]:
    """One request on a connection of its own; what the disk has of the log, or of another file, as its body."""
    parts = [] if log is None else log.kept_parts()
    size = 0 if log is None else len(log.start.head) + sum(length for _, length in parts)
    reader, writer = await asyncio.open_connection(settings.report_host, settings.report_port, limit=READ_BYTES)
    try:
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=READ_BYTES)
        headers = [
            (b"host", f"{settings.report_host}:{settings.report_port}".encode()),
            (b"authorization", identity.authorization()),
            (b"connection", b"close"),
            (b"content-length", b"%d" % size),
        ]
        writer.write(http.send(h11.Request(method=method, target=target.encode(), headers=headers)) or b"")
        await writer.drain()
        if log is not None:
            await _send_file(writer, log, parts)
        if size:
            count_sent(http, size)
        http.send(h11.EndOfMessage())
        return await answer(reader, http, most=_ANSWER_MAX)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _send_file(writer: asyncio.StreamWriter, log: OpenLog, parts: list[tuple[int, int]]) -> None:
    writer.write(log.start.head)
    await writer.drain()
    with os.fdopen(os.dup(log.descriptor), "rb", buffering=0) as file:
        for begin, length in parts:
            offset, end = begin, begin + length
            while offset < end:
                piece = await send_piece(writer.transport, file, offset, min(_PIECE, end - offset))
                if not piece or not log.intact(offset):
                    raise EOFError("the log became shorter while it was sent")
                offset += piece


async def answer(reader: asyncio.StreamReader, http: h11.Connection, *, most: int) -> tuple[int, bytes]:
    """The answer's status and body, once the request is out. Raises EOFError, h11.ProtocolError; ConnectionAbortedError
    where it has more than `most` bytes."""
    status, body, received = 0, b"", 0
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            chunk = await reader.read(READ_BYTES)
            received += len(chunk)
            if received > most:
                raise ConnectionAbortedError(f"the answer is over {most >> 10} KiB")
            http.receive_data(chunk)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return status, body
        elif isinstance(event, h11.ConnectionClosed):
            raise EOFError("the operator closed the connection")

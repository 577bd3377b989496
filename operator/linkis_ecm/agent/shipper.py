"""The agent's other calls to the operator: fetches a `once` engine's code, and on the way out sends its log files.

One connection and one try per file within the time that the pod has left; what does not get there is told in the log.
Imported when it is needed, so that no engine's start waits for it. Must not hold up the process beyond its time.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import h11

from linkis_ecm.agent.logfiles import LOG_NAMES, LogFiles, OpenLog, open_file
from linkis_ecm.agent.resultship import Results
from linkis_ecm.agent.settings import Settings
from linkis_ecm.agent.web import count_sent

RESULT = "result.json"
_READ = 64 << 10
_PIECE = 8 << 20
# Code is 512 KiB at most.
_ANSWER_MAX = 4 << 20
JOB_TRIES, JOB_PAUSE = 30, 1.0


class ShippingError(Exception):
    """The operator did not take or give it; the text says why."""


async def fetch_job(settings: Settings) -> dict[str, Any]:
    """The code to run and its runType; asked again for 30 s, as an operator that restarts needs."""
    problem = ""
    for _ in range(JOB_TRIES):
        try:
            async with asyncio.timeout(10):
                status, body = await exchange(settings, b"GET", f"/v1/job?{who(settings)}")
            if status == 200:
                job: dict[str, Any] = json.loads(body)
                return job
            problem = f"the operator answered {status}: {body[:200].decode(errors='replace')}"
        except (OSError, TimeoutError, EOFError, h11.ProtocolError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
        await asyncio.sleep(JOB_PAUSE)
    raise ShippingError(problem)


async def ship(settings: Settings, logs: LogFiles, *, seconds: float, results: Results) -> None:
    """Sends what is kept of every log file, the smaller ones first, and the result of a `once` engine; then the spilled
    results that are still to be sent."""
    if not settings.report_host:
        return
    files = [(name, log) for name in LOG_NAMES if (log := logs.open(name)) is not None]
    if (descriptor := open_file(f"{logs.directory}/{RESULT}")) is not None:
        files.append((RESULT, OpenLog(descriptor, None)))
    try:
        async with asyncio.timeout(seconds):
            for name, log in sorted(files, key=lambda entry: entry[1].size - entry[1].start.first):
                try:
                    status, body = await exchange(settings, b"PUT", f"/v1/archive/{name}?{who(settings)}", log)
                except (OSError, EOFError, h11.ProtocolError) as error:
                    logs.event("WARN", f"log {name} was not archived: {type(error).__name__}: {error}")
                    continue
                if status != 200:
                    logs.event("WARN", f"log {name} was not archived: {status} {body[:200].decode(errors='replace')}")
            await results.flush()
    except TimeoutError:
        logs.event("WARN", f"not all logs were archived within {seconds:g} s")
    finally:
        for _, log in files:
            log.close()


def who(settings: Settings) -> str:
    """The query that names this engine and attempt."""
    return urlencode(
        {
            "namespace": settings.namespace,
            "name": settings.name,
            "uid": settings.uid,
            "attempt": settings.attempt,
            "ticket": settings.ticket_id,
        }
    )


async def exchange(settings: Settings, method: bytes, target: str, log: OpenLog | None = None) -> tuple[int, bytes]:
    """One request on a connection of its own; what there is of the log, or of another file, as its body."""
    size = 0 if log is None else log.size - log.start.first
    reader, writer = await asyncio.open_connection(settings.report_host, settings.report_port, limit=_READ)
    try:
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_READ)
        headers = [
            (b"host", f"{settings.report_host}:{settings.report_port}".encode()),
            (b"authorization", f"Bearer {settings.token}".encode()),
            (b"connection", b"close"),
            (b"content-length", b"%d" % size),
        ]
        writer.write(http.send(h11.Request(method=method, target=target.encode(), headers=headers)) or b"")
        await writer.drain()
        if log is not None:
            await _send_file(writer, log)
        return await _answer(reader, http, size)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _send_file(writer: asyncio.StreamWriter, log: OpenLog) -> None:
    loop = asyncio.get_running_loop()
    writer.write(log.start.head)
    await writer.drain()
    with os.fdopen(os.dup(log.descriptor), "rb", buffering=0) as file:
        offset = log.start.begin
        while offset < log.size:
            piece = await loop.sendfile(writer.transport, file, offset, min(_PIECE, log.size - offset))
            if not piece or not log.intact(offset):
                raise EOFError("the log became shorter while it was sent")
            offset += piece


async def _answer(reader: asyncio.StreamReader, http: h11.Connection, size: int) -> tuple[int, bytes]:
    if size:
        count_sent(http, size)
    http.send(h11.EndOfMessage())
    status, body = 0, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(_READ))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _ANSWER_MAX:
                raise EOFError("the answer is over 4 MiB")
        elif isinstance(event, h11.EndOfMessage):
            return status, body
        elif isinstance(event, h11.ConnectionClosed):
            raise EOFError("the operator closed the connection")

"""The agent's other calls to the operator: fetches a `once` engine's code, and on the way out sends its log files.

One connection per try and file, within the time that the pod has left; what does not get there is told in the log.
Imported when it is needed, so that no engine's start waits for it. Must not hold up the process beyond its time.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import h11

from linkis_ecm.agent.formats.names import JOB_RESULT, LOG_NAMES
from linkis_ecm.agent.identity import Identity
from linkis_ecm.agent.logs.files import LogFiles, OpenLog, open_file
from linkis_ecm.agent.operator_client.client import exchange, identity_query
from linkis_ecm.agent.operator_client.results import Results
from linkis_ecm.agent.settings import Settings

JOB_TRIES, JOB_PAUSE = 30, 1.0
# Files that many engines send at a time have to wait, and of several operators a new connection finds the right one
# sooner or later: a file is tried for about 2 s.
BUSY, BUSY_TRIES, BUSY_PAUSE = 503, 20, 0.1


class UploadError(Exception):
    """The operator did not take or give it; the text says why."""


async def fetch_job(settings: Settings, identity: Identity) -> dict[str, Any]:
    """The code to run and its runType; asked again for 30 s, as an operator that restarts needs."""
    problem = "the operator has not taken this engine's first report"
    with suppress(TimeoutError):
        async with asyncio.timeout(JOB_TRIES * JOB_PAUSE):
            await identity.enrolled.wait()
    for _ in range(JOB_TRIES):
        try:
            async with asyncio.timeout(10):
                status, body = await exchange(
                    settings, identity, b"GET", f"/v1/job?{identity_query(settings, identity)}"
                )
            if status == 200:
                job: dict[str, Any] = json.loads(body)
                return job
            problem = f"the operator answered {status}: {body[:200].decode(errors='replace')}"
        except (OSError, TimeoutError, EOFError, h11.ProtocolError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
        await asyncio.sleep(JOB_PAUSE)
    raise UploadError(problem)


async def upload_logs(
    settings: Settings, identity: Identity, logs: LogFiles, *, seconds: float, results: Results
) -> None:
    """Sends what is kept of every log file, the smaller ones first, and the result of a `once` engine; then the spilled
    results that are still to be sent."""
    if not settings.report_host:
        return
    files = [(name, log) for name in LOG_NAMES if (log := logs.open(name)) is not None]
    if (descriptor := open_file(f"{logs.directory}/{JOB_RESULT}")) is not None:
        files.append((JOB_RESULT, OpenLog(descriptor, None)))
    try:
        async with asyncio.timeout(seconds):
            for name, log in sorted(files, key=lambda entry: entry[1].size - entry[1].start.first):
                try:
                    target = f"/v1/archive/{name}?{identity_query(settings, identity)}"
                    status, body = await exchange(settings, identity, b"PUT", target, log)
                    for _ in range(BUSY_TRIES):
                        if status != BUSY:
                            break
                        await asyncio.sleep(BUSY_PAUSE)
                        status, body = await exchange(settings, identity, b"PUT", target, log)
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

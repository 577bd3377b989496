"""What the paths of the agent's HTTP API mean (docs/design/interfaces.md, "Gateway → agent")."""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import uuid
from collections.abc import Callable
from typing import Any

from linkis_ecm.agent.engine import Engine, NotReadyError, QueueFullError
from linkis_ecm.agent.logfiles import LOG_NAMES, MAX_LINES, open_log, read_lines
from linkis_ecm.agent.web import HttpError, Request, Response, json_response

RUN_TYPES = ("python", "py", "python3", "py3")
MAX_TIMEOUT_SECONDS = 7 * 86400
MAX_GRACE_SECONDS = 3600
# Each page of log lines may be a scan of a big file in a thread: so many at once.
MAX_SCANS = 4


class Api:
    """Routes requests to the engine and to its log files."""

    def __init__(
        self,
        engine: Engine,
        *,
        token: str,
        log_dir: str,
        status: Callable[[], dict[str, Any]],
    ) -> None:
        self._engine = engine
        self._expected = f"Bearer {token}".encode()
        self._log_dir = log_dir
        self._status = status
        self._scans = asyncio.Semaphore(MAX_SCANS)

    async def handle(self, request: Request) -> Response:
        """Answer one request. Raises HttpError."""
        if request.path == "/healthz":
            _only("GET", request)
            return Response(200, b"ok", b"text/plain; charset=utf-8")
        if not hmac.compare_digest(request.headers.get(b"authorization", b""), self._expected):
            raise HttpError(
                401,
                "the bearer token is not this engine's: send it as Authorization: Bearer <token>",
                ((b"www-authenticate", b"Bearer"),),
            )
        match request.path.split("/")[1:]:
            case ["v1", "status"]:
                _only("GET", request)
                return json_response(200, self._status())
            case ["v1", "execute"]:
                _only("POST", request)
                return await self._execute(await _json_body(request))
            case ["v1", "interrupt"]:
                _only("POST", request)
                self._engine.interrupt()
                return json_response(202, {})
            case ["v1", "stop"]:
                _only("POST", request)
                body = await _json_body(request)
                grace = _number(body, "graceSeconds", 30.0, top=MAX_GRACE_SECONDS) or 0.0
                self._engine.stop(grace=grace, reason=_text(body, "reason")[:200])
                return json_response(202, {})
            case ["v1", "logs", name]:
                _only("GET", request)
                return self._download(name)
            case ["v1", "logs", name, "lines"]:
                _only("GET", request)
                return await self._lines(name, request.query)
        raise HttpError(404, "no such path: see the agent's API in docs/design/interfaces.md")

    async def _execute(self, body: dict[str, Any]) -> Response:
        run_type = _text(body, "runType") or "python"
        if run_type not in RUN_TYPES:
            raise HttpError(
                400, f"runType is {run_type!r}: an engine of type python runs {', '.join(RUN_TYPES[:-1])} or py3"
            )
        code = _text(body, "code")
        if not code.strip():
            raise HttpError(400, "code is blank: send at least one statement")
        timeout = _number(body, "timeoutSeconds", None, top=MAX_TIMEOUT_SECONDS)
        try:
            result = self._engine.submit(
                task_id=_text(body, "taskId")[:128] or str(uuid.uuid4()), code=code, timeout=timeout or None
            )
        except NotReadyError as error:
            raise HttpError(409, str(error)) from None
        except QueueFullError as error:
            raise HttpError(429, str(error), ((b"retry-after", b"1"),)) from None
        return json_response(200, await result)

    def _download(self, name: str) -> Response:
        descriptor = self._open(name)
        size = os.fstat(descriptor).st_size
        self._engine.attach("download")
        return Response(
            200, b"", b"text/plain; charset=utf-8", file=descriptor, size=size,
            done=lambda: self._engine.detach("download"),
        )  # fmt: skip

    async def _lines(self, name: str, query: dict[str, str]) -> Response:
        from_line = _whole(query, "fromLine", 1, top=1 << 53)
        count = _whole(query, "lines", 1000, top=MAX_LINES)
        descriptor = self._open(name)
        try:
            async with self._scans:
                page = await asyncio.to_thread(read_lines, descriptor, from_line=from_line, count=count)
        finally:
            os.close(descriptor)
        return json_response(200, {**page, "logPath": f"{self._log_dir}/{name}"})

    def _open(self, name: str) -> int:
        descriptor = open_log(self._log_dir, name)
        if descriptor is None:
            known = name in LOG_NAMES
            raise HttpError(
                404,
                f"this engine has written no log {name}" if known else f"no such log: ask for {', '.join(LOG_NAMES)}",
            )
        return descriptor


def _only(method: str, request: Request) -> None:
    if request.method != method:
        raise HttpError(405, f"{request.path} takes {method} only", ((b"allow", method.encode()),))


async def _json_body(request: Request) -> dict[str, Any]:
    raw = await request.read_body()
    if not raw:
        return {}
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise HttpError(400, "the body is not a JSON object: send one in UTF-8")
    return body


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise HttpError(400, f"{name} is not a string: send it as JSON text")
    return value


def _number(body: dict[str, Any], name: str, default: float | None, *, top: int) -> float | None:
    value = body.get(name, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= top:
        raise HttpError(400, f"{name} is {value!r}: send a number of seconds from 0 to {top}")
    return float(value)


def _whole(query: dict[str, str], name: str, default: int, *, top: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 16 or int(text) > top:
        raise HttpError(400, f"{name} is {text[:32]!r}: send a whole number from 0 to {top}")
    return int(text)

"""What the agent's paths about tasks mean: run, look, follow, cancel (docs/design/interfaces.md, "Gateway → agent").

A stream is one JSON object a line. Must not know of log files.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from linkis_ecm.agent.engine import Engine
from linkis_ecm.agent.formats.cursors import Cursor
from linkis_ecm.agent.formats.names import run_type_of
from linkis_ecm.agent.formats.result_files import is_id
from linkis_ecm.agent.http.requests import boolean, json_body, number, only, text
from linkis_ecm.agent.http.server import HttpError, Request, Response, json_response
from linkis_ecm.agent.kernel_user import EVERYBODY, KernelUser, LateCodeError, OthersTaskError
from linkis_ecm.agent.tasks import NotReadyError, OtherTaskError, QueueFullError, Task

MAX_TIMEOUT_SECONDS = 7 * 86400
MAX_ID = 128
NOT_KEPT = "the task's outputs are not kept any more: its status is; ask sooner, or fetch less"
# A resourceVersion: etcd counts from 1, one for each write.
MAX_VERSION = 2**53
# Followers are told what is new so often at most: code that prints in a loop is no reason for a packet a line. What
# comes after a pause is told at once.
FOLLOW_PAUSE = 0.05
# With nothing new, a blank line: whoever stands between keeps the connection open, and a reader that left is noticed.
HEARTBEAT = 10.0


class TaskApi:
    """The paths under /v1/execute and /v1/tasks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._users = KernelUser(engine)

    async def execute(self, request: Request, *, shared: bool = False) -> Response:
        """Run code; the result when it has ended, or at once what became of it. `shared`: of a user whom the body
        names, in a kernel that has run nobody else's."""
        only("POST", request)
        body = await json_body(request)
        can = self._engine.capabilities
        run_type = text(body, "runType") or can.run_types[0]
        if run_type_of(run_type) not in can.run_types:
            kinds = " or ".join(filter(None, (", ".join(can.run_types[:-1]), can.run_types[-1])))
            raise HttpError(400, f"runType is {run_type!r}: an engine of type {can.language} runs {kinds}")
        code = text(body, "code")
        if not code.strip():
            raise HttpError(400, "code is blank: send at least one statement")
        timeout = number(body, "timeoutSeconds", None, top=MAX_TIMEOUT_SECONDS)
        wait = boolean(body, "wait", default=True)
        force = boolean(body, "force", default=False)
        user = text(body, "user")
        if shared != (0 < len(user) <= MAX_ID):
            raise HttpError(400, f"user is {user[:32]!r}: name one on the path of shared engines, and on that alone")
        task_id = text(body, "taskId")[:MAX_ID] or str(uuid.uuid4())
        try:
            task = await self._users.submit(
                user if shared else EVERYBODY,
                task_id=task_id,
                code=code,
                timeout=timeout or None,
                force=force,
                version=int(number(body, "version", 0, top=MAX_VERSION) or 0),
            )
        except (NotReadyError, OtherTaskError, OthersTaskError, LateCodeError) as error:
            raise HttpError(409, str(error)) from None
        except QueueFullError as error:
            raise HttpError(429, str(error), ((b"retry-after", b"1"),)) from None
        if not wait:
            return json_response(202, task.as_json())
        return await self._result(task)

    async def tasks(self, path: list[str], request: Request) -> Response:
        """What is behind /v1/tasks."""
        if not path:
            only("GET", request)
            return json_response(200, {"tasks": self._engine.tasks.list_status()})
        task = self._engine.tasks.find(path[0])
        if task is None:
            raise HttpError(404, "this engine knows no such task (any more)")
        match path[1:]:
            case []:
                only("GET", request)
                return json_response(200, task.as_json())
            case ["result"]:
                only("GET", request)
                if not task.is_ended:
                    raise HttpError(409, f"the task is {task.status}: ask again when it has ended")
                return await self._result(task)
            case ["outputs", which]:
                only("GET", request)
                return _output(task, which)
            case ["cancel"]:
                only("POST", request)
                self._engine.cancel(task)
                return json_response(202, task.as_json())
            case ["events"]:
                only("GET", request)
                return self._events(task, request)
        raise HttpError(404, "no such path: see the agent's API in docs/design/interfaces.md")

    async def _result(self, task: Task) -> Response:
        await asyncio.shield(task.done)
        if task.outputs is None:
            raise HttpError(410, NOT_KEPT)
        return json_response(200, task.result())

    def _events(self, task: Task, request: Request) -> Response:
        seen = _cursor(request, "from") or Cursor()
        until = _cursor(request, "until")
        stream = _follow(task, seen)
        if until is not None and not task.is_ended and task.outputs is not None:
            try:
                stream = _tell(_lines_until(task, seen, until))
            except ValueError as error:
                raise HttpError(409, f"until: {error}; leave it out") from None
        self._engine.stream_opened("client")
        return Response(
            200,
            content_type=b"application/x-ndjson",
            stream=stream,
            done=lambda: self._engine.stream_closed("client"),
        )


def _output(task: Task, which: str) -> Response:
    """One output of a task that has ended: by its index, or `first`, which is the first table where there is one. The
    rows of a table that is kept as a file are left out."""
    if not task.is_ended:
        raise HttpError(409, f"the task is {task.status}: ask again when it has ended")
    if task.outputs is None:
        raise HttpError(410, NOT_KEPT)
    outputs = task.outputs.result()
    if which == "first":
        index = next((n for n, output in enumerate(outputs) if output["type"] == "table"), 0)
    elif which.isascii() and which.isdigit() and len(which) < 8:
        index = int(which)
    else:
        raise HttpError(404, "no such path: see the agent's API in docs/design/interfaces.md")
    if index >= len(outputs):
        raise HttpError(400, f"output is {index}: the task has {len(outputs)} outputs, counted from 0")
    output = outputs[index]
    if is_id(output.get("resultId")):
        output = {name: value for name, value in output.items() if name != "rows"}
    told = {"taskId": task.id, "index": index, "outputs": len(outputs), "output": output}
    return json_response(200, told)


def _cursor(request: Request, name: str) -> Cursor | None:
    """An event's id in the query; None where it is not there. Raises HttpError."""
    if name not in request.query:
        return None
    try:
        return Cursor.parse(request.query[name])
    except ValueError as error:
        raise HttpError(400, f"{name}: {error}; give the id of the last event that you saw") from None


def _lines_until(task: Task, seen: Cursor, until: Cursor) -> list[dict[str, Any]]:
    """What was told of a running task between two places; the last line has the second one's id. Raises ValueError."""
    news, _ = task.outputs.since(seen, until) if task.outputs is not None else ([], until)
    return [*_events_of(news), {"event": "status", **_status(task), "id": str(until)}]


async def _tell(lines: list[dict[str, Any]]) -> AsyncGenerator[bytes]:
    yield _encoded(lines)


def _encoded(lines: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode(errors="replace")


def _events_of(news: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"event": "reset" if "reset" in part else "output", **part} for part in news]


def _status(task: Task) -> dict[str, Any]:
    told = task.as_json()
    return {name: told[name] for name in ("status", "progress", "progressMessage")}


async def _follow(task: Task, seen: Cursor) -> AsyncGenerator[bytes]:
    """All that becomes of a task from `seen` on; ends with it."""
    told: dict[str, Any] = {}
    clock = asyncio.get_running_loop().time
    while True:
        changed, over = task.changed, task.is_ended
        lines = []
        now = _status(task)
        if now != told and not over:
            lines.append({"event": "status", **now})
            told = now
        if task.outputs is not None:
            news, seen = task.outputs.since(seen)
            lines += _events_of(news)
        if lines:
            lines[-1]["id"] = str(seen)
        if over:
            lines.append({"event": "end", "id": str(seen), **task.as_json()})
        if lines:
            yield _encoded(lines)
        if over:
            return
        told_at = clock()
        try:
            async with asyncio.timeout(HEARTBEAT):
                await changed.wait()
        except TimeoutError:
            yield b"\n"
        await asyncio.sleep(max(0.0, told_at + FOLLOW_PAUSE - clock()))

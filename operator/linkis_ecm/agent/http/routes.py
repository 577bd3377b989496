"""Routes the agent's requests, after their key was checked (docs/design/interfaces.md, "Gateway → agent")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from linkis_ecm.agent.engine import Engine
from linkis_ecm.agent.formats.proof import CHALLENGE
from linkis_ecm.agent.http.logs import LogApi, send_result
from linkis_ecm.agent.http.requests import json_body, number, only, text
from linkis_ecm.agent.http.server import HttpError, Request, Response, json_response
from linkis_ecm.agent.http.tasks import TaskApi
from linkis_ecm.agent.identity import Identity
from linkis_ecm.agent.logs.files import LogFiles
from linkis_ecm.agent.tasks import NotReadyError

MAX_GRACE_SECONDS = 3600


class Api:
    """All paths of the agent."""

    def __init__(
        self,
        engine: Engine,
        *,
        identity: Identity,
        logs: LogFiles,
        status: Callable[[], dict[str, Any]],
    ) -> None:
        self._engine = engine
        self._identity = identity
        self._status = status
        self._tasks = TaskApi(engine)
        self._logs = LogApi(engine, logs)
        self._log_dir = logs.directory

    async def handle(self, request: Request) -> Response:
        """Answer one request. Raises HttpError."""
        if request.path == "/healthz":
            only("GET", request)
            return Response(200, b"ok", b"text/plain; charset=utf-8")
        if request.path == "/v1/identity":
            only("GET", request)
            return self._prove(request.query.get("challenge", ""))
        if not self._identity.accepts(request.headers.get(b"authorization", b"")):
            raise HttpError(
                401,
                "the bearer token is not this engine's: send it as Authorization: Bearer <token>",
                ((b"www-authenticate", b"Bearer"),),
            )
        request.set_known()
        match request.path.split("/")[1:]:
            case ["v1", "status"]:
                only("GET", request)
                return json_response(200, self._status())
            case ["v1", "execute"]:
                return await self._tasks.execute(request)
            case ["v1", "tasks", *path]:
                return await self._tasks.tasks(path, request)
            case ["v1", "logs", *path]:
                return await self._logs.logs(path, request)
            case ["v1", "results", result_id]:
                only("GET", request)
                return send_result(self._engine, self._log_dir, result_id, request.query)
            case ["v1", "interrupt"]:
                only("POST", request)
                self._engine.interrupt()
                return json_response(202, {})
            case ["v1", "restart"]:
                only("POST", request)
                return await self._restart()
            case ["v1", "stop"]:
                only("POST", request)
                body = await json_body(request)
                grace = number(body, "graceSeconds", 30.0, top=MAX_GRACE_SECONDS) or 0.0
                self._engine.stop(grace=grace, reason=text(body, "reason")[:200])
                return json_response(202, {})
        raise HttpError(404, "no such path: see the agent's API in docs/design/interfaces.md")

    def _prove(self, challenge: str) -> Response:
        """Who calls learns whether this is the agent that has the key, before the key is sent here."""
        if not CHALLENGE.fullmatch(challenge):
            raise HttpError(400, "challenge must be 32 hexadecimal digits")
        found = self._identity.proof(challenge)
        if not found:
            raise HttpError(409, "this agent has no key yet")
        return json_response(200, {"proof": found})

    async def _restart(self) -> Response:
        """Answers when the new kernel has."""
        try:
            await self._engine.restart_kernel()
        except NotReadyError as error:
            raise HttpError(409, str(error)) from None
        return json_response(200, {})

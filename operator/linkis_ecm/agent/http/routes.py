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
from linkis_ecm.agent.member.claims import ClaimFailedError, Claims, NotReadyYetError, TakenError
from linkis_ecm.agent.member.environment import TooLargeError, UnusableError
from linkis_ecm.agent.states import MEMBER_REFUSAL
from linkis_ecm.agent.tasks import NotReadyError

MAX_GRACE_SECONDS = 3600
# Twice what Linux lets a process have (member.environment): in JSON some characters take two bytes, and few take more.
MAX_CLAIM_BYTES = 4 << 20
# What has to do with code, which a member of a warm pool does not take.
_OF_CODE = frozenset({"execute", "tasks", "results", "interrupt", "restart"})


class Api:
    """All paths of the agent."""

    def __init__(
        self,
        engine: Engine,
        *,
        identity: Identity,
        logs: LogFiles,
        status: Callable[[], dict[str, Any]],
        claims: Claims | None = None,
    ) -> None:
        self._engine = engine
        self._identity = identity
        self._status = status
        self._claims = claims
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
        self._authenticate(request)
        request.set_known()
        path = request.path.split("/")[1:]
        if self._engine.is_member and path[0] == "v1" and _OF_CODE.intersection(path[1:2]):
            raise HttpError(409, MEMBER_REFUSAL)
        match path:
            case ["v1", "claim"]:
                only("POST", request)
                return await self._claim(request)
            case ["v1", "status"]:
                only("GET", request)
                return json_response(200, self._status())
            case ["v1", "execute", *kind] if kind in ([], ["shared"]):
                return await self._tasks.execute(request, shared=bool(kind))
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

    def _authenticate(self, request: Request) -> None:
        """Raises HttpError for whoever has not the key, or the member's, which is good for a claim alone."""
        given = request.headers.get(b"authorization", b"")
        accepts = self._identity.accepts_claim if request.path == "/v1/claim" else self._identity.accepts
        if not accepts(given):
            raise HttpError(
                401,
                "the bearer token is not this engine's: send it as Authorization: Bearer <token>",
                ((b"www-authenticate", b"Bearer"),),
            )

    def _prove(self, challenge: str) -> Response:
        """Who calls learns whether this is the agent that has the key, before the key is sent here."""
        if not CHALLENGE.fullmatch(challenge):
            raise HttpError(400, "challenge must be 32 hexadecimal digits")
        found = self._identity.proofs(challenge)
        if not found:
            raise HttpError(409, "this agent has no key yet")
        return json_response(200, found)

    async def _claim(self, request: Request) -> Response:
        """Answers with the first report as the agent of the engine that claims it."""
        if self._claims is None:
            raise HttpError(409, "this agent was started for an engine of its own: claim a member of a warm pool")
        body = await json_body(request, MAX_CLAIM_BYTES)
        environment = body.get("environment")
        if not isinstance(environment, dict):
            raise HttpError(400, "environment is not an object: send the engine's variables, by name")
        try:
            await self._claims.claim(environment, text(body, "key"))
        except TooLargeError as error:
            raise HttpError(413, str(error)) from None
        except UnusableError as error:
            raise HttpError(400, str(error)) from None
        except TakenError as error:
            raise HttpError(409, str(error)) from None
        except NotReadyYetError as error:
            raise HttpError(503, str(error)) from None
        except ClaimFailedError as error:
            raise HttpError(500, str(error)) from None
        return json_response(200, self._status() | self._identity.enrolment())

    async def _restart(self) -> Response:
        """Answers when the new kernel has."""
        try:
            await self._engine.restart_kernel()
        except NotReadyError as error:
            raise HttpError(409, str(error)) from None
        return json_response(200, {})

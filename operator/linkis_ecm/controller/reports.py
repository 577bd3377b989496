"""Takes the agents' reports: `POST /v1/report` (docs/design/interfaces.md).

Checks the engine's token, reads a bounded body, hands the report to the reconciler. A report is a level: the highest
sequence of the current attempt counts, and any one may be lost. Must not write or wait for anything.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import orjson
from aiohttp import web

from linkis_ecm.controller import metrics
from linkis_ecm.controller.cache import Cache
from linkis_ecm.controller.reconciler import Reconciler, changed_at
from linkis_ecm.engine.view import Report
from linkis_ecm.model.states import EngineState
from linkis_ecm.model.token import engine_token

log = logging.getLogger(__name__)

# A report is about 1 KiB; a kernel's last words may add some.
BODY_MAX = 64 * 1024
_STATES = {
    EngineState.STARTING, EngineState.IDLE, EngineState.BUSY, EngineState.RUNNING, EngineState.SHUTTING_DOWN,
    EngineState.FAILED,
}  # fmt: skip


class BadReport(ValueError):  # noqa: N818 - a refusal, told to the agent
    """The report's body cannot be read; the text names the field."""


class Reports:
    """The report endpoint over cache and reconciler."""

    def __init__(
        self, *, cache: Cache, reconciler: Reconciler, token_key: bytes, clock: Callable[[], datetime]
    ) -> None:
        self._cache = cache
        self._reconciler = reconciler
        self._token_key = token_key
        self._clock = clock

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=BODY_MAX)
        app.router.add_post("/v1/report", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.Response:
        code, sentence = self.answer(request.headers.get("Authorization", ""), await request.read())
        metrics.REPORTS.labels(str(code)).inc()
        return web.Response(status=code, text=sentence or None)

    def answer(self, authorization: str, raw: bytes) -> tuple[int, str]:
        """The HTTP status and a sentence for a report."""
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" or not token:
            return 401, "give the engine's token as Authorization: Bearer"
        try:
            body = _object(orjson.loads(raw))
            uid, attempt, sequence = _text(body, "uid"), _number(body, "attempt"), _number(body, "sequence")
            key = (_text(body, "namespace"), _text(body, "name"))
            state = _state(body)
        except (orjson.JSONDecodeError, BadReport) as error:
            return 400, f"the report cannot be read: {error}"
        # First the token, so that a stranger learns nothing about which engines exist.
        expected = engine_token(self._token_key, uid, attempt)
        if not hmac.compare_digest(expected.encode(), token.encode(errors="replace")):
            return 401, "the token is not this engine's"
        if not self._reconciler.leading.is_set():
            return 503, "this replica is not leading; ask again"
        engine = self._cache.engines.get(key)
        if engine is None or engine.uid != uid:
            return 404, "no such engine is known (yet)"
        if attempt != int(engine.status.get("attempt") or 0):
            return 409, "another attempt of this engine is current"
        previous = self._reconciler.last_report(engine)
        if previous is not None and (previous.attempt, previous.sequence) >= (attempt, sequence):
            return 204, ""
        self._reconciler.take_report(
            engine,
            Report(
                attempt=attempt,
                sequence=sequence,
                state=state,
                changed=changed_at(previous, engine, state, self._clock()),
                reason=str(body.get("reason") or "")[:200],
                message=str(body.get("message") or "")[:8000],
                timings=_floats(body.get("timings")),
                last_task_ended=_float(body.get("lastTaskEnded")),
                usage=_floats(body.get("usage")),
                metrics=_floats(body.get("metrics")),
            ),
        )
        return 204, ""


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadReport("it must be a JSON object")
    return value


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value or len(value) > 253:
        raise BadReport(f"{name} must be a text of 1 to 253 characters")
    return value


def _number(body: Mapping[str, Any], name: str) -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadReport(f"{name} must be a whole number of 0 or more")
    return value


def _state(body: Mapping[str, Any]) -> EngineState:
    word = body.get("state")
    if word not in _STATES:
        raise BadReport(f"state must be one of {', '.join(sorted(_STATES))}")
    return EngineState(str(word))


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _floats(value: Any) -> dict[str, float]:
    """The numbers of an object; at most 32 of them."""
    if not isinstance(value, dict):
        return {}
    numbers = {str(k)[:64]: v for k, v in value.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return dict(list(numbers.items())[:32])

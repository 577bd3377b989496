"""Takes the agents' reports: `POST /v1/report` (docs/design/interfaces.md).

Checks the engine's token, reads a bounded body, passes the report to the reconciler. A report says how things are, not
what has changed: the highest sequence of the current attempt counts, and any one may be lost. Must not write or wait.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from datetime import datetime

import orjson
from aiohttp import web

from linkis_ecm.controller.cache import Cache
from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.reconciler import Reconciler
from linkis_ecm.engine.agent_report import InvalidReportError, as_object, number, parse_report, state, text
from linkis_ecm.model.token import engine_token

log = logging.getLogger(__name__)

# Bytes. A report is about 1 KiB; the end of a kernel's output may add some.
BODY_MAX = 64 * 1024


class Reports:
    """The report endpoint over cache and reconciler."""

    def __init__(
        self,
        *,
        cache: Cache,
        reconciler: Reconciler,
        token_key: bytes,
        clock: Callable[[], datetime],
        metrics: Metrics,
    ) -> None:
        self._cache = cache
        self._reconciler = reconciler
        self._token_key = token_key
        self._clock = clock
        self._answers = metrics.reports

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=BODY_MAX)
        app.router.add_post("/v1/report", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.Response:
        code, sentence = self.answer(request.headers.get("Authorization", ""), await request.read())
        self._answers.labels(str(code)).inc()
        return web.Response(status=code, text=sentence or None)

    def answer(self, authorization: str, raw: bytes) -> tuple[int, str]:
        """The HTTP status and a sentence for a report."""
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" or not token:
            return 401, "give the engine's token as Authorization: Bearer"
        try:
            body = as_object(orjson.loads(raw))
            uid, attempt, sequence = text(body, "uid"), number(body, "attempt"), number(body, "sequence")
            key = (text(body, "namespace"), text(body, "name"))
            state(body)
        except (orjson.JSONDecodeError, InvalidReportError) as error:
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
            # Late or repeated: nothing new, except that the agent is alive.
            self._reconciler.record_contact(engine)
            return 204, ""
        self._reconciler.record_report(engine, parse_report(body, engine, previous, self._clock()))
        return 204, ""

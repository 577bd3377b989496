"""Takes the agents' reports: `POST /v1/report` (docs/design/interfaces.md), the first of which enrols the agent.

Checks who sends it, reads a bounded body, passes the report to the reconciler. A report says how things are, not
what has changed: the highest sequence of the current attempt counts, and any one may be lost. Must not write or wait.

An engine's token may be in wrong hands: the rate of its reports is bounded, a sequence far beyond the last is refused,
and one that is not followed up does not silence the real agent for longer than RESUME_AFTER.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from aiohttp import web

from linkis_ecm.controller.agents.pod_tokens import PodClaims, PodTokens, TokenError
from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.pool.agents import MemberAgents
from linkis_ecm.controller.pool.roster import Roster
from linkis_ecm.controller.reconciler import Reconciler
from linkis_ecm.controller.state.cache import Cache, Key
from linkis_ecm.engine.agent_report import InvalidReportError, as_object, number, parse_report, state, text
from linkis_ecm.engine.facts import attempt as current_attempt
from linkis_ecm.engine.names import MEMBER_UID
from linkis_ecm.engine.view import EngineView
from linkis_ecm.model.agent_key import AgentKeyRef, Enrolment, key_id, key_of, master_of
from linkis_ecm.process.ports.encoding import is_packed
from linkis_ecm.process.ports.listener import prove
from linkis_ecm.process.ports.ratelimit import TokenBuckets
from linkis_ecm.process.signing_keys import KeysUnavailableError

log = logging.getLogger(__name__)

# Bytes. A report is about 1 KiB; the end of a kernel's output may add some.
BODY_MAX = 64 * 1024
# Seconds for a report's body: the agent itself gives up after 5.
BODY_SECONDS = 10.0
# Reports of one engine at once, after a pause.
BURST = 100
# Engines whose rate is remembered: more than one operator runs.
ENGINES = 50_000
# How far a sequence may be beyond the last report, besides what the rate allows for the time between: an agent counts
# each try, also those that reach nobody.
JUMP = 1000
# A report with a lower sequence than the last one is late or repeated for so long; the network keeps none for longer.
RESUME_AFTER = timedelta(seconds=60)
# To an agent whose namespace another operator of the installation serves, or is about to.
ANOTHER_SHARD = "another shard serves this namespace; connect again"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a report: a status, and a sentence or, after an enrolment, the agent's key."""

    status: int
    sentence: str = ""
    key: str = ""


_SECOND_AGENT = Reply(403, "another agent of this pod has enrolled: code of the engine has used the pod's token")


class Reports:
    """The report endpoint over cache and reconciler. The first of `master_keys` makes keys, all are taken."""

    def __init__(
        self,
        *,
        cache: Cache,
        reconciler: Reconciler,
        members: MemberAgents,
        roster: Roster,
        master_keys: Sequence[bytes],
        pods: PodTokens,
        clock: Callable[[], datetime],
        metrics: Metrics,
        per_second: int = 20,
        is_misdirected: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`is_misdirected(namespace)`: whether another shard of the installation serves it."""
        self._cache = cache
        self._reconciler = reconciler
        self._members = members
        self._roster = roster
        self._master_keys = master_keys
        self._pods = pods
        self._clock = clock
        self._answers = metrics.reports
        self._limits = metrics.limits
        self._per_second = per_second
        self._is_misdirected = is_misdirected
        self._rates = TokenBuckets[str](
            per_second=per_second, burst=BURST, keys=ENGINES, clock=lambda: clock().timestamp()
        )

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=BODY_MAX, middlewares=[self._refuse_encoded])
        app.router.add_post("/v1/report", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.Response:
        reply = await self._reply(request)
        if reply.status in (200, 204):
            prove(request, request.remote or "")
        self._answers.labels(str(reply.status)).inc()
        if reply.key:
            return web.json_response({"key": reply.key})
        return web.Response(status=reply.status, text=reply.sentence or None)

    async def _reply(self, request: web.Request) -> Reply:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not given:
            return Reply(401, "give the agent's key as Authorization: Bearer")
        if "." not in given:  # a key has none, a JWT two
            return await self._read_and_answer(given, request)
        try:
            pod = await self._pods.claims(given)
        except TokenError as error:
            return Reply(401, str(error))
        except KeysUnavailableError:
            return Reply(503, "the API server's keys cannot be had now; ask again")
        return await self._read_and_answer(pod, request)

    @web.middleware
    async def _refuse_encoded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Of everything that agents send."""
        if is_packed(request.headers):
            self._limits.labels("encoding").inc()
            return web.Response(status=415, text="Content-Encoding is not taken: send the body as it is")
        return await handler(request)

    async def _read_and_answer(self, given: str | PodClaims, request: web.Request) -> Reply:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.read()
        except TimeoutError:
            self._limits.labels("body_time").inc()
            return Reply(408, f"the body did not come within {BODY_SECONDS:g} s")
        except web.HTTPRequestEntityTooLarge:
            self._limits.labels("body").inc()
            return Reply(413, f"the report is over {BODY_MAX} bytes")
        return self.answer(given, body)

    def answer(self, given: str | PodClaims, raw: bytes) -> Reply:
        """What a report is answered, of an agent that gave its key or, to enrol, proved its pod."""
        try:
            body = as_object(orjson.loads(raw))
            uid, attempt, sequence = text(body, "uid"), number(body, "attempt"), number(body, "sequence")
            # A pod of a warm pool has no engine yet, and so no engine's name.
            key = (text(body, "namespace"), text(body, "name") if uid != MEMBER_UID else "")
            enrolment = Enrolment(text(body, "podUid"), uid, attempt, text(body, "enrolment"))
            if not enrolment.usable:
                raise InvalidReportError("podUid or enrolment has a wrong form")
            state(body)
        except (orjson.JSONDecodeError, InvalidReportError) as error:
            return Reply(400, f"the report cannot be read: {error}")
        # First who it is, so that a stranger learns nothing about which engines exist.
        master: bytes | None = self._master_keys[0]
        if isinstance(given, PodClaims):
            if (given.namespace, given.uid) != (key[0], enrolment.pod_uid):
                return Reply(401, "the token is not this pod's")
        else:
            master = master_of(self._master_keys, enrolment, given)
        if master is None:
            return Reply(401, "the key is not this engine's")
        if (busy := self._not_now(enrolment.pod_uid, key[0])) is not None:
            return busy
        if uid == MEMBER_UID:
            taken = self._take_member(key[0], body, enrolment, master, sequence)
        else:
            taken = self._take_engine(key, body, enrolment, master, sequence)
        if isinstance(taken, Reply):
            return taken
        if isinstance(given, PodClaims):
            # By the key that the enrolment was recorded with: an answer that got lost is repeated, not replaced.
            return Reply(200, key=key_of(self._master_keys, taken, uid, attempt) or "")
        return Reply(204)

    def _take_engine(
        self, key: Key, body: dict[str, Any], enrolment: Enrolment, master: bytes, sequence: int
    ) -> AgentKeyRef | Reply:
        """Passes the report on. Returns the enrolment that counts, else why the report is not taken."""
        engine = self._engine(key, enrolment)
        if isinstance(engine, Reply):
            return engine
        known = self._known(engine, enrolment.pod_uid)
        if known is not None and known.nonce != enrolment.nonce:
            log.warning("%s: a second agent of pod %s is refused", engine.key, enrolment.pod_uid)
            return _SECOND_AGENT
        ref = self._ref(known, enrolment, master)
        return self._take(engine, body, (enrolment.attempt, sequence), ref) or ref

    def _take_member(
        self, namespace: str, body: dict[str, Any], enrolment: Enrolment, master: bytes, sequence: int
    ) -> AgentKeyRef | Reply:
        """The same for the agent of a pod that belongs to nobody yet (docs/design/warm.md)."""
        pod = self._roster.member(namespace, enrolment.pod_uid)
        if pod is None or enrolment.attempt != 0:
            return Reply(404, "no such pod of a warm pool is known (yet)")
        known = self._members.key_of(pod)
        if known is not None and known.nonce != enrolment.nonce:
            log.warning("%s/%s: a second agent of this pod is refused", namespace, pod.name)
            return _SECOND_AGENT
        ref = self._ref(known, enrolment, master)
        previous, since = self._members.last(pod), self._members.since(pod)
        if previous is not None and since is not None:
            if sequence > self._highest(previous.sequence, since):
                return self._beyond(sequence)
            if sequence <= previous.sequence and since < RESUME_AFTER:
                return ref
        self._members.record(pod, body, sequence, ref)
        return ref

    def _engine(self, key: Key, enrolment: Enrolment) -> EngineView | Reply:
        """The engine whose current pod an agent says that it is in; else why it is not taken."""
        engine = self._cache.engines.get(key)
        if engine is None or engine.uid != enrolment.uid:
            return Reply(404, "no such engine is known (yet)")
        if self._reconciler.is_foreign(engine):
            return Reply(421, f"this engine is another installation's: {engine.owner or engine.wanted_owner}")
        if enrolment.attempt != current_attempt(engine):
            return Reply(409, "another attempt of this engine is current")
        pod = self._cache.pod_of(engine)
        if pod is None or pod.uid != enrolment.pod_uid or not self._cache.is_made(engine, pod):
            return Reply(404, "no such pod of this engine is known (yet)")
        return engine

    def _not_now(self, pod_uid: str, namespace: str) -> Reply | None:
        """Why no report of that pod, which has proved itself, is taken now, if so."""
        if self._rates.take(pod_uid):
            self._limits.labels("rate").inc()
            return Reply(429, f"this engine reports more than {self._per_second} times a second: send its state later")
        if not self._reconciler.leading.is_set():
            return Reply(503, "this replica is not leading; ask again")
        if self._is_misdirected(namespace):
            # As of a replica that does not lead: the agent connects anew, and finds who serves it.
            return Reply(503, ANOTHER_SHARD)
        return None

    def _known(self, engine: EngineView, pod_uid: str) -> AgentKeyRef | None:
        """The enrolment of this pod that counts: the first."""
        report = self._reconciler.last_report(engine)
        reported = report.agent_key if report is not None else None
        for ref in (reported, AgentKeyRef.read(engine.status.get("agentKey"))):
            if ref is not None and ref.pod_uid == pod_uid:
                return ref
        return None

    def _ref(self, known: AgentKeyRef | None, enrolment: Enrolment, master: bytes) -> AgentKeyRef:
        """The enrolment as recorded; one by a master key that is not here any more is made anew."""
        if known is not None and any(key_id(one) == known.key_id for one in self._master_keys):
            return known
        return AgentKeyRef(enrolment.pod_uid, enrolment.nonce, key_id(master))

    def _take(
        self, engine: EngineView, body: dict[str, Any], order: tuple[int, int], ref: AgentKeyRef
    ) -> Reply | None:  # fmt: skip
        """Why the report is not taken; None where it was."""
        attempt, sequence = order
        previous, since = self._reconciler.last_report(engine), self._reconciler.since_report(engine)
        if previous is not None and previous.agent_key is not None and previous.agent_key.pod_uid != ref.pod_uid:
            # Of a pod from a warm pool that was given up for another one, in the same attempt: each counts for itself.
            previous = since = None
        same = previous is not None and previous.attempt == attempt
        if same and previous is not None and since is not None and sequence > self._highest(previous.sequence, since):
            return self._beyond(sequence)
        late = previous is not None and (previous.attempt, previous.sequence) >= order
        if late and (since is None or since < RESUME_AFTER):
            # Late or repeated: nothing new, except that the agent is alive.
            self._reconciler.record_contact(engine)
            return None
        self._reconciler.record_report(engine, parse_report(body, engine, previous, self._clock(), agent_key=ref))
        return None

    def _highest(self, last: int, since: timedelta) -> int:
        """The highest sequence that a report may have now, after one with the sequence `last`."""
        tries = max(0.0, since.total_seconds()) * (self._per_second or BURST)
        return last + JUMP + int(tries)

    def _beyond(self, sequence: int) -> Reply:
        self._limits.labels("sequence").inc()
        return Reply(409, f"sequence is {sequence}, far beyond the last report's: count each report by one")

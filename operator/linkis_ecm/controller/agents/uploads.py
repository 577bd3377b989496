"""What agents fetch and send besides reports: a `once` engine's code, spilled results, and log files at the end.

`GET /v1/job` and `PUT /v1/archive/{name}`, each with the engine's token. A file is streamed to the archive as it comes,
so memory does not grow with it. Must not decide.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

from aiohttp import web

from linkis_ecm.agent.formats.names import JOB_RESULT, LOG_NAMES, RESULTS_LIST
from linkis_ecm.agent.formats.result_files import FILE as RESULT_FILE
from linkis_ecm.archive.bundles import PIECE
from linkis_ecm.controller.agents.reports import ANOTHER_SHARD
from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.pods.evidence import EvidenceKeeper, UploadRefusedError
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.model.agent_key import Enrolment, master_of
from linkis_ecm.process.ports.listener import prove

# Files at a time: each holds a piece in memory and, for short times, a thread of the archive.
UPLOADS = 16
# Of one engine: it sends a log and a result at a time, and must not take the places of others.
ENGINE_UPLOADS = 4
# Seconds without a byte after which the sender counts as gone; its pod has less time than that.
STALL_SECONDS = 15.0
_TAKEN = frozenset({*LOG_NAMES, JOB_RESULT, RESULTS_LIST})
# Bytes of the list of spilled results: more than any agent sends.
LIST_BYTES = 16 << 20
# The HTTP status of each kind of UploadRefusedError; after 507 the agent sends the file again.
_CODES = {"engine": 413, "file": 413, "total": 507, "written": 409}


class Slots:
    """The places of files that are taken at a time, shared by engines and by their users. Pure.

    A user may have fewer than are free: the first has half of them, the next half of what is left, and so on, so that
    there is a place for one more.
    """

    def __init__(self) -> None:
        self._engines: Counter[str] = Counter()
        self._users: Counter[str] = Counter()

    def take(self, uid: str, user: str) -> bool:
        """Whether there is a place for a file of the engine `uid` of that user; it is taken then."""
        if self._engines[uid] >= ENGINE_UPLOADS or self._users[user] >= UPLOADS - self._users.total():
            return False
        self._engines[uid] += 1
        self._users[user] += 1
        return True

    def give_back(self, uid: str, user: str) -> None:
        """The file is taken, or broke off."""
        for counts, key in ((self._engines, uid), (self._users, user)):
            counts[key] -= 1
            if not counts[key]:
                del counts[key]


class Uploads:
    """The two endpoints, over the cache and the archive, for agents whose pod is there and runs."""

    def __init__(
        self,
        *,
        cache: Cache,
        keeper: EvidenceKeeper,
        master_keys: Sequence[bytes],
        file_max: int,
        metrics: Metrics,
        is_misdirected: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`is_misdirected(namespace)`: whether another shard of the installation serves it."""
        self._cache = cache
        self._keeper = keeper
        self._master_keys = master_keys
        self._file_max = file_max
        self._metrics = metrics
        self._is_misdirected = is_misdirected
        self._slots = Slots()
        self._spilling: set[str] = set()

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/v1/job", self._job)
        app.router.add_put("/v1/archive/{name}", self._take)

    async def _job(self, request: web.Request) -> web.Response:
        """The code of a `once` engine: it may be longer than an environment variable."""
        self._check(request)
        key = (request.query.get("namespace", ""), request.query.get("name", ""))
        engine = self._cache.engines.get(key)
        if engine is None or engine.uid != request.query["uid"] or engine.spec is None:
            return _refusal(404, "no such engine is known (yet)")
        return web.json_response({"code": engine.spec.code or "", "runType": engine.spec.run_type or ""})

    async def _take(self, request: web.Request) -> web.Response:
        enrolment, pod = self._check(request)
        uid, attempt = enrolment.uid, enrolment.attempt
        name = request.match_info["name"]
        spilled = RESULT_FILE.fullmatch(name) is not None
        if name not in _TAKEN and not spilled:
            return _refusal(404, f"{name[:50]!r} is no file of a bundle: send {', '.join(sorted(_TAKEN))}")
        if spilled and uid in self._spilling:
            return _refusal(503, "another result of this engine is being taken: send one after the other")
        user = self._user(pod)
        if not self._slots.take(uid, user):
            self._count_refused("busy", request.content_length)
            return _refusal(503, "enough files are being taken: send it again in a moment")
        # What the agent says of its ticket is not asked: its files would stand under another engine's.
        ticket, announced = pod.ticket or uid, request.content_length
        try:
            if spilled:
                self._spilling.add(uid)
                size, cut = await self._keeper.add_result(
                    uid, attempt, name, _patient(request), limit=self._file_max, ticket=ticket,
                    announced=announced,
                )  # fmt: skip
            else:
                limit = LIST_BYTES if name == RESULTS_LIST else self._file_max
                size, cut = await self._keeper.add_file(
                    uid, attempt, name, _patient(request), limit=limit, ticket=ticket, announced=announced,
                    whole=name == RESULTS_LIST,
                )  # fmt: skip
        except UploadRefusedError as why:
            self._count_refused(why.kind, announced)
            return _refusal(_CODES[why.kind], str(why))
        except OSError as error:
            self._metrics.uploads.labels("failed").inc()
            return _refusal(507, f"the archive takes nothing now ({error.strerror or type(error).__name__})")
        finally:
            self._slots.give_back(uid, user)
            if spilled:
                self._spilling.discard(uid)
        self._metrics.uploads.labels("cut" if cut else "whole").inc()
        if cut:
            self._count_refused("file", (announced or 0) - size)
        if cut and spilled:
            return _refusal(413, f"half of a result is none: {cut}")
        self._metrics.upload_bytes.inc(size)
        return web.json_response({"bytes": size, "cut": cut})

    def _user(self, pod: PodView) -> str:
        """Whose engine it is; of one that was deleted the engine itself."""
        engine = self._cache.engines.get((pod.namespace, pod.owner_name))
        if engine is None or engine.uid != pod.owner_uid or engine.spec is None:
            return f"engine {pod.owner_uid}"  # no user's name has a space
        return engine.spec.user

    def _count_refused(self, kind: str, size: int | None) -> None:
        self._metrics.uploads.labels("refused").inc()
        self._metrics.upload_refused_bytes.labels(kind).inc(max(0, size or 0))

    def _check(self, request: web.Request) -> tuple[Enrolment, PodView]:
        """Who asks, by the key of its enrolment, and its pod. Raises 401; 503 where another shard serves it; 409 where
        the pod is gone or its container has ended: an agent sends while it lives, and a key that outlives it opens
        nothing."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        uid, attempt, pod_uid, nonce = (request.query.get(n, "") for n in ("uid", "attempt", "podUid", "enrolment"))
        number = int(attempt) if attempt.isascii() and attempt.isdigit() and len(attempt) < 4 else -1
        enrolment = Enrolment(pod_uid, uid, number, nonce)
        if scheme != "Bearer" or not enrolment.usable or master_of(self._master_keys, enrolment, key) is None:
            raise web.HTTPUnauthorized(text="give the agent's key as Authorization: Bearer, and who it is in the query")
        if self._is_misdirected(request.query.get("namespace", "")):
            raise web.HTTPServiceUnavailable(text=ANOTHER_SHARD)
        pod = self._cache.pod_by_uid(uid, pod_uid)
        if pod is None or pod.ended:
            self._metrics.upload_refused_bytes.labels("ended").inc(request.content_length or 0)
            raise web.HTTPConflict(text="the engine's pod has ended: nothing is taken for it any more")
        prove(request, request.remote or "")
        return enrolment, pod


async def _patient(request: web.Request) -> AsyncIterator[bytes]:
    """The body, piece by piece; a sender that stalls ends it with TimeoutError."""
    while True:
        async with asyncio.timeout(STALL_SECONDS):
            piece = await request.content.read(PIECE)
        if not piece:
            return
        yield piece


def _refusal(code: int, sentence: str) -> web.Response:
    return web.Response(status=code, text=sentence)

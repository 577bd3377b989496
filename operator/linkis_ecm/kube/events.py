"""Records what happened as events.k8s.io/v1 Events, which `kubectl describe` shows to people.

An aid, never a record: under load events are dropped and counted. One object and reason is written at most once a
minute; what repeats meanwhile goes into the event's series. Must not block or fail its caller, nor take the API
server's time from the writes that matter.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from prometheus_client import CollectorRegistry

from linkis_ecm.kube.client import KubeClient, Object
from linkis_ecm.kube.errors import ApiError
from linkis_ecm.kube.metrics import EventMetrics
from linkis_ecm.kube.resources import EVENTS
from linkis_ecm.kube.times import micro_time, utc_now

log = logging.getLogger(__name__)

# At most one write of one object and reason in this time.
PERIOD = 60.0
# Seconds until the first one that is no warning. It follows a change that somebody may wait for, such as an engine that
# is Idle, and must not take the API server's time from the watches that show the change: these need some ten
# milliseconds.
LINGER = 0.5
# Seconds. After this time without a repetition a series ends, and the next event begins a new one (as in client-go).
SERIES_MAX_AGE = 360.0
# Events known at a time, waiting ones included: some bytes each, and more than the engines that start in
# SERIES_MAX_AGE.
LIMIT = 4096
# Writes in the long run and at once: client-go allows one source 25 and one in five minutes, which a start of many
# engines uses up; five a second is a tenth of what the API server grants us by default.
RATE, BURST = 5.0, 25
# The API's own limits.
_NOTE, _WORD = 1024, 128

Type = Literal["Normal", "Warning"]


@dataclass(slots=True)
class _Series:
    """The events of one object and reason: what is written, and what is not written yet."""

    regarding: Object
    reason: str
    action: str
    kind: Type
    first: datetime
    due: float
    name: str = ""
    note: str = ""
    count: int = 0
    written: int = 0
    last: float = 0.0
    last_time: datetime | None = None

    @property
    def namespace(self) -> str:
        return str(self.regarding.get("namespace") or "default")


class EventRecorder:
    """`record` from anywhere in the loop; `run()` writes until cancelled."""

    def __init__(
        self,
        client: KubeClient,
        *,
        controller: str,
        instance: str,
        limit: int = LIMIT,
        clock: Callable[[], float] | None = None,
        now: Callable[[], datetime] = utc_now,
        metrics: EventMetrics | None = None,
    ) -> None:
        self._client = client
        self._controller = controller
        self._instance = instance[:_WORD] or controller
        self._limit = limit
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._now = now
        self._metrics = metrics or EventMetrics(CollectorRegistry())
        # In the order of their last repetition, so that the oldest are dropped first.
        self._known: OrderedDict[tuple[str, str], _Series] = OrderedDict()
        self._wake = asyncio.Event()
        self._tokens = float(BURST)
        self._filled: float | None = None

    def record(self, regarding: Object, reason: str, note: str, *, action: str, kind: Type = "Normal") -> None:
        """Record that something happened to an object (apiVersion, kind, namespace, name, uid). Never blocks.

        `reason` (why) and `action` (what was done) are in CamelCase.
        """
        at = self._clock()
        key = (str(regarding.get("uid", "")), reason)
        self._drop_old_series(at)
        series = self._known.get(key)
        if series is None:
            if len(self._known) >= self._limit:
                self._metrics.events.labels("dropped").inc()
                return
            linger = LINGER if kind == "Normal" else 0.0
            # Its body is made when it is written: of many events at once most are dropped.
            series = self._known[key] = _Series(regarding, reason, action, kind, self._now(), at + linger)
        series.note = note[:_NOTE]
        series.count += 1
        series.last, series.last_time = at, self._now()
        self._known.move_to_end(key)
        self._wake.set()

    async def run(self) -> None:
        """Write due events until cancelled."""
        while True:
            pause = self._next_due()
            self._wake.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass
            for series in [s for s in self._known.values() if s.count > s.written and s.due <= self._clock()]:
                await self._wait_for_token()
                await self._write(series)

    def _next_due(self) -> float | None:
        """Seconds until the next write is due; None if none is."""
        waits = [series.due - self._clock() for series in self._known.values() if series.count > series.written]
        # A little more: a wait may end slightly before its time, and would be repeated.
        return max(0.0, min(waits)) + 0.01 if waits else None

    async def _wait_for_token(self) -> None:
        now = self._clock()
        if self._filled is not None:
            self._tokens = min(float(BURST), self._tokens + (now - self._filled) * RATE)
        self._filled = now
        if self._tokens < 1:
            await asyncio.sleep((1 - self._tokens) / RATE)
            self._tokens, self._filled = 1.0, self._clock()
        self._tokens -= 1

    async def _write(self, series: _Series) -> None:
        count, series.due = series.count, self._clock() + PERIOD
        try:
            if series.written == 0:
                body = self._first(series)
                await self._client.create(EVENTS, body, namespace=series.namespace, timeout=5.0)
            else:
                last = micro_time(series.last_time or series.first)
                change = {"note": series.note, "series": {"count": count, "lastObservedTime": last}}
                await self._client.patch(EVENTS, series.name, change, namespace=series.namespace, timeout=5.0)
        except ApiError as error:
            # An event is tried once. A repeated one is tried again with its next write.
            self._metrics.events.labels("failed").inc()
            log.info("an event of %s was not taken: %s", series.name, error)
        else:
            self._metrics.events.labels("written").inc()
        series.written = count

    def _first(self, series: _Series) -> Object:
        """The event as it is created; its name is fixed, so that a retry after a lost answer does not create a second
        one."""
        regarding, moment = series.regarding, micro_time(series.first)
        if not series.name:
            key = (str(regarding.get("uid", "")), series.reason)
            digest = hashlib.sha256(f"{key}{moment}{self._instance}".encode()).hexdigest()[:16]
            series.name = f"{str(regarding.get('name', 'event'))[:200]}.{digest}"
        return {
            "apiVersion": EVENTS.api_version, "kind": EVENTS.kind,
            "metadata": {"namespace": series.namespace, "name": series.name},
            "eventTime": moment, "reportingController": self._controller, "reportingInstance": self._instance,
            "action": series.action[:_WORD], "reason": series.reason[:_WORD], "regarding": regarding,
            "type": series.kind, "note": series.note,
        }  # fmt: skip

    def _drop_old_series(self, now: float) -> None:
        while self._known:
            key, series = next(iter(self._known.items()))
            if series.last + SERIES_MAX_AGE > now or series.count > series.written:
                return
            del self._known[key]

"""Tells people what happened, as events.k8s.io/v1 Events: `kubectl describe` shows them.

An aid, never a record: under load events are dropped and counted. One object and reason is written at most once a minute;
what repeats meanwhile goes into the event's series. Must not block or fail its caller, nor take the API server's time from
the writes that matter.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from linkis_ecm.kube import metrics
from linkis_ecm.kube.client import KubeClient, Object
from linkis_ecm.kube.errors import ApiError, NotFound
from linkis_ecm.kube.resources import EVENTS
from linkis_ecm.kube.times import micro_time, utc_now

log = logging.getLogger(__name__)

# At most one write of one object and reason in this time.
PERIOD = 60.0
# After this long without a repetition an event is over; the next of its kind is a new one (as client-go's series).
FORGET = 360.0
# Events known at a time, waiting ones included: some bytes each, and more than the engines that start in FORGET.
LIMIT = 4096
# Writes in the long run and at once: client-go allows one source 25 and one in five minutes, which a start of many engines
# uses up; five a second is a tenth of what the API server grants us by default.
RATE = 5.0
BURST = 25
# The API's own limits.
_NOTE, _WORD = 1024, 128


@dataclass(slots=True)
class _Series:
    """One object and reason: what is written of it, and what is not yet."""

    namespace: str
    body: Object
    name: str
    count: int = 0
    written: int = 0
    due: float = 0.0
    last: float = 0.0
    last_time: str = ""
    queued: bool = field(default=False)


class EventRecorder:
    """`record` from anywhere in the loop; `run()` writes until cancelled."""

    def __init__(
        self,
        client: KubeClient,
        *,
        controller: str,
        instance: str,
        period: float = PERIOD,
        limit: int = LIMIT,
        rate: float = RATE,
        burst: int = BURST,
        clock: Callable[[], float] | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._client = client
        self._controller = controller
        self._instance = instance[:_WORD]
        self._period = period
        self._limit = limit
        self._rate = rate
        self._burst = burst
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._now = now
        # In the order of their last repetition, so that the oldest are forgotten first.
        self._known: OrderedDict[tuple[str, str], _Series] = OrderedDict()
        self._wake = asyncio.Event()
        self._tokens = float(burst)
        self._filled: float | None = None
        # Events not written because there were too many, or the API server would not have them.
        self.dropped = 0

    def record(
        self,
        regarding: Object,
        reason: str,
        note: str,
        *,
        action: str,
        kind: Literal["Normal", "Warning"] = "Normal",
    ) -> None:
        """Notes that something happened to an object (anything with apiVersion, kind and metadata). Never blocks.

        `reason` and `action` are CamelCase words: why, and what was done about it.
        """
        metadata = regarding["metadata"]
        moment, at = self._now(), self._clock()
        key = (str(metadata.get("uid", "")), reason)
        self._forget_old(at)
        series = self._known.get(key)
        if series is None:
            if len(self._known) >= self._limit:
                self._drop("full")
                return
            series = self._known[key] = self._begin(regarding, reason, note, action, kind, moment)
            series.due = at
        self._known.move_to_end(key)
        series.count += 1
        series.last, series.last_time = at, micro_time(moment)
        metrics.EVENTS_QUEUED.set(len(self._known))
        self._wake.set()

"""Writes the resizes of engines' pods: at and after the claim of a pool's pod, and for a soft pause.

The API server's answer goes into the cache at once. Must not decide a size, nor whether a resize is wanted.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from prometheus_client import Counter, Histogram

from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.controller.state.memory import Memory
from linkis_ecm.engine import resizing, soft_pause
from linkis_ecm.engine.decision import Action, ResizeFailure, ResizePod
from linkis_ecm.engine.facts import ticket_id
from linkis_ecm.engine.pod_view import pod_view
from linkis_ecm.engine.view import EngineView
from linkis_ecm.kube.client import ApiError, Conflict, KubeClient, NotFound
from linkis_ecm.kube.resources import PODS
from linkis_ecm.process.backoff import Backoff
from linkis_ecm.process.engine_metrics import exemplar_of

log = logging.getLogger(__name__)

# Seconds. A healthy API server answers within some ten milliseconds.
WRITE_SECONDS = 3.0
# Seconds between two tries. Whoever uses the engine waits for an up; a down that does not come costs room alone.
UP_RETRY, DOWN_RETRY = Backoff(2, 60), Backoff(30, 600)
# The pod has changed since it was looked at: its newest view is here after that time at the latest.
CONFLICT_RETRY = timedelta(seconds=1)
# Characters of what the API server says.
WORDS_MAX = 1500
OVERRULED = "the API server took it and changed nothing: a webhook of the cluster sets another size"
NO_RESIZES = "this cluster does not resize pods in place: Kubernetes 1.33 and later do"


async def resize(
    client: KubeClient, cache: Cache, engine: EngineView, pod: str, resources: dict[str, Any], *, version: int = 0
) -> bool:  # fmt: skip
    """PATCH pods/resize. Its kubelet follows within a second or two, or says in the pod's status why not.

    Whether the pod asks for that size now: what changes pods on admission may have put back another. Raises ApiError;
    Conflict where the pod is not of that `version` any more.
    """
    answer = await client.patch(
        PODS, pod, resizing.body(resources, version=version), namespace=engine.namespace, subresource="resize",
        strategic=True, timeout=WRITE_SECONDS,
    )  # fmt: skip
    view = pod_view(answer)
    cache.apply_pod(view)
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    return soft_pause.has_size(
        view, cpu=requests.get("cpu"), cpu_limit=limits.get("cpu"), memory=limits.get("memory")
    )  # fmt: skip


def why_refused(error: ApiError) -> str:
    """What the API server said to a resize, for a sentence."""
    return NO_RESIZES if isinstance(error, NotFound) else short(error)


def short(error: ApiError) -> str:
    """The API server's words, for a sentence: whole where a quota of several resources says them."""
    return " ".join(error.message.split())[:WORDS_MAX].rstrip(".")


class Resizes:
    """Does the resizes of soft pauses, and those of claims that were refused, one at a time for each engine; the pool
    of calls bounds how many at once."""

    def __init__(
        self,
        *,
        client: KubeClient,
        cache: Cache,
        clock: Callable[[], datetime],
        rng: random.Random,
        counted: Counter,
        wakes: Histogram,
    ) -> None:
        self._client = client
        self._cache = cache
        self._clock = clock
        self._rng = rng
        self._counted = counted
        self._wakes = wakes

    def note_wake(self, engine: EngineView, memory: Memory, actions: Sequence[Action]) -> None:
        """Measure how long an engine that is used again waits for the cpu that it gave back. Of one that was woken by
        another process nothing is known."""
        record, pod = soft_pause.paused(engine), self._cache.pod_of(engine)
        resizes = [one for one in actions if isinstance(one, ResizePod) and not one.claimed]
        if record is None or pod is None or any(one.down for one in resizes):
            memory.waking_since = None
        elif memory.waking_since is None:
            memory.waking_since = (memory.reported or self._clock()) if resizes else None
        elif record.is_full(pod) and not pod.resizing:
            took = (self._clock() - memory.waking_since).total_seconds()
            self._wakes.observe(max(0.0, took), exemplar_of(ticket_id(engine)))
            memory.waking_since = None

    async def resize(self, engine: EngineView, action: ResizePod, before: ResizeFailure | None) -> ResizeFailure | None:
        """None: the API server took it. `before` is the last failure: the next try waits for longer."""
        direction, outcome, failure = "down" if action.down else "up", "taken", None
        count = _tries(before, down=action.down)
        try:
            if not await resize(
                self._client, self._cache, engine, action.pod, action.resources, version=action.version
            ):  # fmt: skip
                outcome, failure = "overruled", self._failure(down=action.down, sentence=OVERRULED, count=count)
        except Conflict as error:
            log.info("%s: its pod %s changed before its resize: %s", engine.key, action.pod, error)
            await self._read_again(engine, action.pod)
            outcome = "conflict"
            failure = ResizeFailure(action.down, "", self._clock() + CONFLICT_RETRY, count)
        except ApiError as error:
            log.warning("%s: its pod %s is not resized %s: %s", engine.key, action.pod, direction, error)
            outcome = "refused" if 400 <= error.status < 500 else "unanswered"
            failure = self._failure(down=action.down, sentence=why_refused(error), count=count)
        if not action.claimed:
            self._counted.labels(direction, outcome).inc()
        return failure

    def refused(self, sentence: str, before: ResizeFailure | None) -> ResizeFailure:
        """A resize up that was not sent, for a limit of people: asked again as one that the API server refused."""
        failure = self._failure(down=False, sentence=sentence.rstrip("."), count=_tries(before, down=False))
        return replace(failure, limited=True)

    def _failure(self, *, down: bool, sentence: str, count: int) -> ResizeFailure:
        wait = timedelta(seconds=(DOWN_RETRY if down else UP_RETRY).delay(count, rng=self._rng))
        return ResizeFailure(down, sentence, self._clock() + wait, count)

    async def _read_again(self, engine: EngineView, pod: str) -> None:
        """The pod as it is now, into the cache. Without an answer its watch brings it."""
        try:
            self._cache.apply_pod(pod_view(await self._client.get(PODS, pod, namespace=engine.namespace)))
        except ApiError as error:
            log.info("%s: its pod %s is not read: %s", engine.key, pod, error)


def _tries(before: ResizeFailure | None, *, down: bool) -> int:
    """How many have failed in a row, this one included."""
    return before.count + 1 if before is not None and before.down is down else 1

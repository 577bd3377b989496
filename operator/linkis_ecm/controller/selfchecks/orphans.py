"""Ends engines' pods that have no engine, soon after it is gone: such as after `kubectl delete ec --cascade=orphan`.

Usually Kubernetes's garbage collector does that, but a deletion may tell it not to, and anybody who may edit a pod can
take its owner out. Such a pod would run on outside of limits, REST and culling. It is deleted only when the API server
itself says that its engine does not exist: the cache may be behind. Must not touch another installation's pods.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.state.cache import Cache, Key
from linkis_ecm.controller.workloop.worker import Result, Worker
from linkis_ecm.engine.pod_view import PodView
from linkis_ecm.engine.view import EngineView
from linkis_ecm.kube.client import ApiError, KubeClient, NotFound
from linkis_ecm.kube.resources import ENGINECONNS, PODS

log = logging.getLogger(__name__)

# The garbage collector deletes most pods within a second of their engine, and the watches are that late at most.
LOOK_AFTER = timedelta(seconds=3)
# The engine exists and the cache does not have it: its watch or a resync brings it.
LOOK_AGAIN = timedelta(minutes=1)
# One question at a time: about 100 a second, and passes over engines have the rest of the API server.
WORKERS = 1


class OrphanPods:
    """`pod_changed` and `engine_deleted` for each event, `enqueue_all` where one may have been missed; `worker` runs.

    The audit uses `found` and `delete`.
    """

    def __init__(
        self,
        *,
        client: KubeClient,
        cache: Cache,
        is_foreign: Callable[[PodView], bool],
        unserved: Callable[[], Collection[str]],
        leading: asyncio.Event,
        may_write: Callable[[], bool],
        clock: Callable[[], datetime],
        rng: random.Random,
        metrics: Metrics,
    ) -> None:
        self._client = client
        self._cache = cache
        self._is_foreign = is_foreign
        self._unserved = unserved
        self._leading = leading
        self._clock = clock
        self._drift = metrics.drift
        # When a pod was first seen without its engine: the uid and the time.
        self._seen: dict[Key, tuple[str, datetime]] = {}
        self.worker: Worker[Key] = Worker(
            self._look, name="orphan", leading=leading, may_write=may_write, clock=clock, rng=rng,
            metrics=metrics.worker, is_outage=lambda error: isinstance(error, ApiError), workers=WORKERS,
        )  # fmt: skip

    def pod_changed(self, pod: PodView) -> None:
        """A pod was created or changed: its owner may be gone."""
        if self._leading.is_set() and not pod.deleting and self._cache.is_orphan(pod):
            self.worker.enqueue((pod.namespace, pod.name))

    def engine_deleted(self, engine: EngineView) -> None:
        """The engine is gone from the cache, and its pods may be there."""
        for pod in self._cache.other_pods(engine, None):
            self.pod_changed(pod)

    def enqueue_all(self) -> None:
        """Events may have been missed, or this replica did not lead."""
        for pod in self.found():
            self.pod_changed(pod)

    def found(self) -> list[PodView]:
        """The pods without an engine that are this installation's to delete. Of a namespace that is not served nothing
        is known."""
        unserved = self._unserved()
        return [pod for pod in self._cache.orphans() if self._is_ours(pod, unserved)]

    def _is_ours(self, pod: PodView, unserved: Collection[str]) -> bool:
        return not (pod.deleting or pod.namespace in unserved or self._is_foreign(pod))

    async def _look(self, key: Key) -> Result:
        pod = self._cache.pod(key)
        if pod is None or not self._cache.is_orphan(pod) or not self._is_ours(pod, self._unserved()):
            self._seen.pop(key, None)
            return Result()
        now = self._clock()
        uid, since = self._seen.get(key, ("", now))
        if uid != pod.uid:
            self._seen[key] = pod.uid, (since := now)
        if now < since + LOOK_AFTER:
            return Result(requeue_at=(since + LOOK_AFTER).timestamp())
        await self.delete(pod)
        # Also where it was deleted: its event ends the look.
        return Result(requeue_at=(now + LOOK_AGAIN).timestamp())

    async def delete(self, pod: PodView) -> bool:
        """Delete the pod unless its engine exists. Returns whether it was. Raises ApiError."""
        try:
            if await self._has_engine(pod):
                return False
            await self._client.delete(PODS, pod.name, namespace=pod.namespace, uid=pod.uid)
        except NotFound:
            return False
        log.warning("pod %s/%s had no engine and is deleted", pod.namespace, pod.name)
        self._drift.labels("orphan_pod").inc()
        return True

    async def _has_engine(self, pod: PodView) -> bool:
        """Ask for the pod's engine. The cache may lack it where the API server refuses lists: that is no deletion."""
        if not pod.owner_name:
            return False
        try:
            found = await self._client.get(ENGINECONNS, pod.owner_name, namespace=pod.namespace)
        except NotFound as error:
            # Without Kubernetes's own reason nobody serves the path: a CRD that the API server has not read yet.
            return error.reason != "NotFound"
        return bool(found["metadata"]["uid"] == pod.owner_uid)

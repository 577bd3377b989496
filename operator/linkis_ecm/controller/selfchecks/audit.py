"""The drift audit: compares API, pods and rows; differences are counted and repaired.

The work loop reacts to changes. The audit finds what no event reports, such as a row that somebody edited. A difference
counts only if two audits in a row find it. Must not repair what is still changing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Protocol

from linkis_ecm.controller.cache import Cache, Key
from linkis_ecm.controller.metrics import NAN, Metrics
from linkis_ecm.controller.reconciler import Reconciler
from linkis_ecm.engine.view import PodView
from linkis_ecm.kube.client import ApiError, KubeClient, NotFound
from linkis_ecm.kube.resources import ENGINECONNS, PODS
from linkis_ecm.model.record import EngineRecord

log = logging.getLogger(__name__)


class AuditedRows(Protocol):
    """The store's part. `differing` and `repair` block and run in threads."""

    @property
    def depth(self) -> int: ...

    def differing(self, expected: list[EngineRecord]) -> dict[str, str]:
        """The differing rows: ticket → missing, status or address."""
        ...

    def repair(self, record: EngineRecord) -> None: ...


class Audit:
    """`run_once` for each resync, between `start_leading` and `stop_leading`. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        *,
        client: KubeClient,
        cache: Cache,
        reconciler: Reconciler,
        rows: AuditedRows,
        clock: Callable[[], float],
        is_foreign: Callable[[PodView], bool],
        unserved: Callable[[], Collection[str]],
        metrics: Metrics,
    ) -> None:
        self._client = client
        self._cache = cache
        self._reconciler = reconciler
        self._rows = rows
        self._clock = clock
        self._is_foreign = is_foreign
        self._unserved = unserved
        self._drift = metrics.drift
        self._orphans: set[str] = set()
        self._rows_off: dict[str, str] = {}
        # When the last audit ended, or this replica began to lead; None while it does not lead.
        self._since: float | None = None
        metrics.audit_age.set_function(lambda: NAN if self._since is None else self._clock() - self._since)

    def start_leading(self) -> None:
        """From here on an audit is due."""
        self._since = self._clock()

    def stop_leading(self) -> None:
        """Another replica does the audits."""
        self._since = None

    async def run_once(self) -> dict[str, int]:
        """One audit. Returns the number of repaired differences by kind. Raises the database's errors."""
        found = {"orphan_pod": await self._pods()} | await self._tables()
        if self._since is not None:
            self._since = self._clock()
        return {kind: count for kind, count in found.items() if count}

    async def _pods(self) -> int:
        """Delete pods whose engine does not exist. The garbage collector takes seconds, so only the second audit
        acts. Of a namespace that is not served nothing is known."""
        unserved = self._unserved()
        orphans = {
            pod.uid: pod
            for pod in self._cache.orphans()
            if not (pod.deleting or pod.namespace in unserved or self._is_foreign(pod))
        }
        removed = 0
        for uid, pod in orphans.items():
            if uid not in self._orphans:
                continue
            try:
                if await self._has_engine(pod):
                    continue
                await self._client.delete(PODS, pod.name, namespace=pod.namespace, uid=uid)
            except NotFound:
                continue
            except ApiError as error:
                log.warning("orphan pod %s/%s: %s", pod.namespace, pod.name, error)
                continue
            log.warning("pod %s/%s had no engine and is deleted", pod.namespace, pod.name)
            self._drift.labels("orphan_pod").inc()
            removed += 1
        self._orphans = set(orphans)
        return removed

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

    async def _tables(self) -> dict[str, int]:
        """Repair rows that differ from their last offered record. Does nothing while records wait to be written."""
        if self._rows.depth:
            return {}
        offered: dict[str, tuple[Key, EngineRecord]] = {
            r.ticket_id: (key, r) for key, r in self._reconciler.last_records()
        }
        off = await asyncio.to_thread(self._rows.differing, [record for _, record in offered.values()])
        counts: dict[str, int] = {}
        for ticket, kind in off.items():
            if self._rows_off.get(ticket) != kind:
                continue
            key, record = offered[ticket]
            await asyncio.to_thread(self._rows.repair, record)
            log.warning("%s: the row of ticket %s differed (%s) and is written again", key, ticket, kind)
            self._drift.labels(f"row_{kind}").inc()
            counts[f"row_{kind}"] = counts.get(f"row_{kind}", 0) + 1
        self._rows_off = off
        return counts

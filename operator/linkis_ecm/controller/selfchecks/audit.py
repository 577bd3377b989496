"""The drift audit: compares API, pods and rows; differences are counted and repaired.

The work loop reacts to changes. The audit finds what no event reports, such as a row that somebody edited. A difference
counts only if two audits in a row find it. Must not repair what is still changing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from linkis_ecm.controller.metrics import NAN, Metrics
from linkis_ecm.controller.reconciler import Reconciler
from linkis_ecm.controller.selfchecks.orphans import OrphanPods
from linkis_ecm.controller.state.cache import Key
from linkis_ecm.kube.client import ApiError
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
        orphan_pods: OrphanPods,
        reconciler: Reconciler,
        rows: AuditedRows,
        clock: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._orphan_pods = orphan_pods
        self._reconciler = reconciler
        self._rows = rows
        self._clock = clock
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
        """Delete pods whose engine does not exist, where no event has led to that. Only the second audit acts."""
        orphans = {pod.uid: pod for pod in self._orphan_pods.found()}
        removed = 0
        for uid, pod in orphans.items():
            if uid not in self._orphans:
                continue
            try:
                removed += await self._orphan_pods.delete(pod)
            except ApiError as error:
                log.warning("orphan pod %s/%s: %s", pod.namespace, pod.name, error)
        self._orphans = set(orphans)
        return removed

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

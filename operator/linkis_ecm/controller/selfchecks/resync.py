"""Lists all objects, at the start and every few minutes, to find what the watches have missed.

Nothing is written before the first run has ended. Later runs repair engines whose deletion no watch reported, and rows
whose engine does not exist any more. Must not decide.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Protocol

from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.reconciler import Reconciler
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.kube.client import ApiError, Forbidden, KubeClient, NotFound
from linkis_ecm.kube.reflector import Key, Reflector
from linkis_ecm.kube.resources import ENGINECONNS, PLUGINS

log = logging.getLogger(__name__)

# Seconds. client-go's informers resync every 10 hours, but here a missed deletion leaves a wrong row until then.
PERIOD_MIN, PERIOD_MAX = 300.0, 600.0


class LiveRows(Protocol):
    """The store's part of a resync. The calls block and run in threads."""

    def resync(self, live_uids: set[str], now: datetime, namespaces: Collection[str] | None) -> list[str]: ...

    def open_elsewhere(self, namespaces: Collection[str]) -> dict[str, int]: ...


class Resync:
    """`run_once` at the start, then `run`. `audit` is awaited at the end of each later run, while leading."""

    def __init__(
        self,
        *,
        client: KubeClient,
        cache: Cache,
        reconciler: Reconciler,
        rows: LiveRows,
        relist_pods: Callable[[], None],
        namespaces: tuple[str, ...],
        clock: Callable[[], datetime],
        rng: random.Random,
        audit: Callable[[], Awaitable[object]],
        on_denied: Callable[[str, ApiError], None],
        on_served: Callable[[str], None],
        unserved: Callable[[], Collection[str]],
        elsewhere: Callable[[], Collection[str]] = tuple,
        metrics: Metrics,
        reflectors: Mapping[str, Reflector[dict[str, Any]]],
    ) -> None:
        """`elsewhere()`: the namespaces that other shards serve now, and end the rows of."""
        self._client = client
        self._cache = cache
        self._reconciler = reconciler
        self._rows = rows
        self._relist_pods = relist_pods
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._clock = clock
        self._rng = rng
        self._audit = audit
        self._on_denied = on_denied
        self._on_served = on_served
        # Of EngineConns, by namespace; they have not begun.
        self._reflectors = reflectors
        self._unserved = unserved
        self._elsewhere = elsewhere
        self._metrics = metrics
        # Namespaces whose open rows were logged as left alone.
        self._left: frozenset[str] = frozenset()

    async def run_once(self) -> None:
        """List plugins, then engines, into the cache. Raises ApiError if a list fails.

        A namespace that is gone or that the operator may not list is left out, and does not stop the others.
        """
        for item in (await self._client.list(PLUGINS)).items:
            self._cache.apply_plugin(item)
        for namespace in self._namespaces:
            try:
                await self._list_engines(namespace)
            except (Forbidden, NotFound) as error:
                if namespace is None:
                    raise
                self._on_denied(namespace, error)
            else:
                if namespace is not None:
                    self._on_served(namespace)

    async def _list_engines(self, namespace: str | None) -> None:
        present: set[str] = set()
        found: dict[Key, tuple[str, int, dict[str, Any]]] = {}
        version = 0
        # Page by page, because all raw objects together are many times larger than their cached views.
        async for page in self._client.pages(ENGINECONNS, namespace=namespace):
            version = int(page.resource_version)
            for item in page.items:
                metadata = item["metadata"]
                present.add(metadata["uid"])
                names = {name: metadata[name] for name in ("namespace", "name", "uid")}
                found[names["namespace"], names["name"]] = (
                    names["uid"],
                    int(metadata["resourceVersion"]),
                    {"metadata": names},
                )
                self._cache.apply_engine(item)
        for missed in self._cache.absent_engines(present, version):
            if namespace in (None, missed.namespace) and self._cache.drop_engine(missed.key, missed.uid):
                log.warning("%s: its deletion was missed by the watch", missed.key)
                self._reconciler.engine_deleted(missed)
        if (reflector := self._reflectors.get(namespace or "")) is not None:
            # Its first list, too: to list and parse all engines twice takes a successor as much again.
            reflector.adopt(found, version)

    async def end_absent_rows(self) -> None:
        """End the rows of engines that do not exist in the API. Only while leading, and after `run_once`.

        Rows of namespaces that are not watched, or not served now, are left alone: their engines may live.
        """
        live = {engine.uid for engine in self._cache.engines.values()}
        listed: frozenset[str] | None = None
        if None not in self._namespaces:
            listed = frozenset(name for name in self._namespaces if name is not None) - frozenset(self._unserved())
        for ticket in await asyncio.to_thread(self._rows.resync, live, self._clock(), listed):
            log.warning("ticket %s: its row was live and its engine is gone: ended", ticket)
        if listed is not None:
            left = await asyncio.to_thread(self._rows.open_elsewhere, listed | frozenset(self._elsewhere()))
            self._metrics.rows_unwatched.set(sum(left.values()))
            for namespace in sorted(left.keys() - self._left):
                log.warning(
                    "the namespace %s is not watched, or not served: %d rows of its engines are left as they are",
                    namespace, left[namespace],
                )  # fmt: skip
            self._left = frozenset(left)

    async def run(self) -> None:
        """Run every few minutes until cancelled. After an outage of API or database the next run tries again."""
        while True:
            await asyncio.sleep(self._rng.uniform(PERIOD_MIN, PERIOD_MAX))
            try:
                await self.run_once()
                self._relist_pods()
                if self._reconciler.leading.is_set():
                    self._reconciler.enqueue_all()
                    await self.end_absent_rows()
                    # The audit is last, because it compares the results of the lines above.
                    await self._audit()
            except ApiError as error:
                log.warning("resync: %s", error)
            except Exception:
                log.exception("resync failed")

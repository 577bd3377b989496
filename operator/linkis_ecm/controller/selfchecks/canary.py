"""Tests the operator from the watch to the database, once a minute, with an engine that never gets a pod.

A round creates an EngineConn that is stopped from the start and waits for its final row. The engine is removed by its
ttlAfterFinished, its rows by the canary. Nothing in the operator treats it unlike any other engine. Must not repair:
it reports which part does not answer.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from linkis_ecm.controller.cache import Cache, Key
from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.kube.client import ApiError, KubeClient, NotFound
from linkis_ecm.kube.resources import ENGINECONNS
from linkis_ecm.model.engineconn import API_VERSION
from linkis_ecm.model.states import FINAL

log = logging.getLogger(__name__)

ENGINE_TYPE = "canary"
USER = "ecm_canary"
NAME = "ecm-canary"
# Seconds between rounds: four writes a minute, and a fault is known within one or two rounds.
PERIOD = 60.0
# Seconds for a round: a healthy one takes under one.
TIMEOUT = 15.0
# Seconds between two looks at what a round waits for.
LOOK = 0.02
# Rounds in a row that a part may miss before the operator says that it is not ready.
MISSES = 2


class CanaryRows(Protocol):
    """The store's side; both block and are called in threads."""

    def has_final(self, ticket: str) -> bool: ...
    def delete_engine_rows(self, ticket: str) -> None: ...


class CanaryError(Exception):
    """A round did not end in time; `phase` is create, watch, decide or database."""

    def __init__(self, phase: str) -> None:
        super().__init__(f"the canary engine got stuck at {phase}")
        self.phase = phase


class Canary:
    """`run` while leading. `on_watch_stalled` is awaited where the watch missed two rounds in a row."""

    def __init__(
        self,
        *,
        client: KubeClient,
        cache: Cache,
        rows: CanaryRows,
        namespace: str,
        on_watch_stalled: Callable[[], Awaitable[None]],
        rng: random.Random,
        metrics: Metrics,
        period: float = PERIOD,
        timeout: float = TIMEOUT,
    ) -> None:
        self._client = client
        self._cache = cache
        self._rows = rows
        self._namespace = namespace
        self._on_watch_silent = on_watch_stalled
        self._rng = rng
        self._metrics = metrics
        self._period = period
        self._timeout = timeout
        # How often each part was the one that got stuck, in a row.
        self.misses: dict[str, int] = {}

    @property
    def problem(self) -> str:
        """What does not answer, as a sentence; empty while all is well."""
        for phase, count in self.misses.items():
            if count >= MISSES:
                return f"the canary engine got stuck at {phase} in {count} rounds"
        return ""

    async def run(self, leading: asyncio.Event) -> None:
        """Round after round while leading, until cancelled."""
        while True:
            await leading.wait()
            try:
                seconds = await self.round()
            except CanaryError as error:
                self.misses = {error.phase: self.misses.get(error.phase, 0) + 1}
                self._metrics.canary_failures.labels(error.phase).inc()
                self._metrics.canary_ok.set(0)
                log.warning("%s (%d in a row)", error, self.misses[error.phase])
                if error.phase == "watch" and self.misses["watch"] >= MISSES:
                    await self._on_watch_silent()
            else:
                self.misses = {}
                self._metrics.canary_seconds.observe(seconds)
                self._metrics.canary_ok.set(1)
            await asyncio.sleep(self._period * self._rng.uniform(0.9, 1.1))

    async def round(self) -> float:
        """One round; how many seconds it took. Raises CanaryError."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        key, uid = await self._create()
        phase = "watch"
        try:
            async with asyncio.timeout(self._timeout):
                await _until(lambda: self._sees(key, uid))
                phase = "decide"
                await _until(lambda: self._decided(key))
                phase = "database"
                await _until(lambda: asyncio.to_thread(self._rows.has_final, uid))
            took = loop.time() - began
            await asyncio.to_thread(self._rows.delete_engine_rows, uid)
        except Exception as error:
            # An error of the database is what the canary looks for, and so is no answer.
            await self._remove(key[1], uid)
            raise CanaryError(phase) from error
        return took

    async def _sees(self, key: Key, uid: str) -> bool:
        engine = self._cache.engines.get(key)
        return engine is not None and engine.uid == uid

    async def _decided(self, key: Key) -> bool:
        engine = self._cache.engines.get(key)
        # Gone already: its ttl was over before this look.
        return engine is None or engine.state in FINAL

    async def _create(self) -> tuple[Key, str]:
        name = f"{NAME}-{self._rng.getrandbits(40):010x}"
        body = {
            "apiVersion": API_VERSION, "kind": "EngineConn", "metadata": {"name": name, "namespace": self._namespace},
            "spec": {
                "engineType": ENGINE_TYPE, "user": USER, "creator": "ECM", "desiredState": "Stopped",
                "ttlAfterFinished": "1s",
            },
        }  # fmt: skip
        try:
            made = await self._client.create(ENGINECONNS, body, timeout=self._timeout)
        except ApiError as error:
            raise CanaryError("create") from error
        return (self._namespace, name), str(made["metadata"]["uid"])

    async def _remove(self, name: str, uid: str) -> None:
        """Deletes the engine of a round that got stuck."""
        try:
            await self._client.delete(ENGINECONNS, name, namespace=self._namespace, uid=uid, timeout=5.0)
        except NotFound:
            pass
        except ApiError as error:
            log.info("the canary %s stays for now: %s", name, error)


async def _until(probe: Callable[[], Awaitable[bool]]) -> None:
    """Polls, since no event spans cache, API and database. The caller bounds the time."""
    while not await probe():  # noqa: ASYNC110 - see above
        await asyncio.sleep(LOOK)

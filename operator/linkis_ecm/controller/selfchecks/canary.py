"""Tests the operator from the watch to the database, once a minute, with an engine that never gets a pod.

A round creates an EngineConn that is stopped from the start and waits for its final row. The engine is deleted by its
ttlAfterFinished, its rows by the canary. The operator treats it like any other engine. It only reports which part does
not work. Must not repair anything.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

from linkis_ecm.controller.metrics import NAN, Metrics
from linkis_ecm.controller.state.cache import Cache, Key
from linkis_ecm.engine.names import INSTANCE
from linkis_ecm.kube.client import ApiError, Forbidden, KubeClient, NotFound
from linkis_ecm.kube.resources import ENGINECONNS
from linkis_ecm.model.engineconn import API_VERSION
from linkis_ecm.model.states import FINAL

log = logging.getLogger(__name__)

ENGINE_TYPE = "canary"
USER = "ecm_canary"
NAME = "ecm-canary"
# Seconds between rounds. A round makes 4 writes, and a fault is noticed within 1 or 2 rounds.
PERIOD = 60.0
# Seconds for a round. A healthy one takes less than 1 s.
TIMEOUT = 15.0
# Seconds between two polls within a round.
POLL_SECONDS = 0.02
# After this many failed rounds in a row of one part the operator is not ready.
MAX_MISSES = 2


class CanaryRows(Protocol):
    """The store's part. Both calls block and run in threads."""

    def has_final(self, ticket: str) -> bool: ...
    def delete_engine_rows(self, ticket: str) -> None: ...


class CanaryError(Exception):
    """A round did not end in time; `phase` is create, watch, decide or database. `cause`: in the API server's words."""

    def __init__(self, phase: str, cause: str = "") -> None:
        super().__init__(f"the canary engine got stuck at {phase}{f': {cause}' if cause else ''}")
        self.phase = phase


class CanaryRefusedError(CanaryError):
    """A namespace's quota, a policy or RBAC refuses the canary's engine: that says nothing of the operator."""

    def __init__(self, cause: str) -> None:
        super().__init__("create", cause)
        self.phase = "refused"


class Canary:
    """`run` while leading. `on_watch_stalled` is awaited if the watch missed MAX_MISSES rounds in a row.

    No engine is made in an `unserved` namespace: a watch that is refused does not see it, and is not stalled. After a
    round that failed comes the next namespace: what one tenant's roles refuse, or one tenant deletes, says nothing of
    the operator.
    """

    def __init__(
        self,
        *,
        client: KubeClient,
        cache: Cache,
        rows: CanaryRows,
        namespaces: Sequence[str],
        unserved: Callable[[], Collection[str]] = tuple,
        instance: str,
        on_watch_stalled: Callable[[], Awaitable[None]],
        rng: random.Random,
        metrics: Metrics,
        period: float = PERIOD,
        timeout: float = TIMEOUT,
    ) -> None:
        self._client = client
        self._cache = cache
        self._rows = rows
        self._namespaces = tuple(namespaces)
        self._unserved = unserved
        self._instance = instance
        self._on_watch_stalled = on_watch_stalled
        self._rng = rng
        self._metrics = metrics
        self._period = period
        self._timeout = timeout
        # Failed rounds in a row, by the part that failed.
        self.misses: dict[str, int] = {}

    @property
    def problem(self) -> str:
        """A sentence that names the part that does not work; empty if all work."""
        for phase, count in self.misses.items():
            if count >= MAX_MISSES:
                return f"the canary engine got stuck at {phase} in {count} rounds"
        return ""

    async def run(self, leading: asyncio.Event) -> None:
        """Repeat rounds while leading, until cancelled."""
        while True:
            if not leading.is_set():
                self._metrics.canary_ok.set(NAN)
            await leading.wait()
            try:
                seconds = await self.run_once()
            except CanaryRefusedError as error:
                self.misses = {}
                self._metrics.canary_failures.labels(error.phase).inc()
                self._metrics.canary_ok.set(0)
                log.warning("%s", error)
            except CanaryError as error:
                self._namespaces = (*self._namespaces[1:], *self._namespaces[:1])
                self.misses = {error.phase: self.misses.get(error.phase, 0) + 1}
                self._metrics.canary_failures.labels(error.phase).inc()
                self._metrics.canary_ok.set(0)
                log.warning("%s (%d in a row)", error, self.misses[error.phase])
                if error.phase == "watch" and self.misses["watch"] >= MAX_MISSES:
                    await self._on_watch_stalled()
            else:
                self.misses = {}
                self._metrics.canary_seconds.observe(seconds)
                self._metrics.canary_ok.set(1)
            await asyncio.sleep(self._period * self._rng.uniform(0.9, 1.1))

    async def run_once(self) -> float:
        """One round. Returns its duration in seconds. Raises CanaryError."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        key, uid = await self._create()
        phase = "watch"
        try:
            async with asyncio.timeout(self._timeout):
                await _until(lambda: self._is_cached(key, uid))
                phase = "decide"
                await _until(lambda: self._is_final(key))
                phase = "database"
                await _until(lambda: asyncio.to_thread(self._rows.has_final, uid))
            took = loop.time() - began
            await asyncio.to_thread(self._rows.delete_engine_rows, uid)
        except Exception as error:
            # The canary reports both errors of the database and missing answers.
            await self._remove(key, uid)
            raise CanaryError(phase, "" if isinstance(error, TimeoutError) else str(error)) from error
        return took

    async def _is_cached(self, key: Key, uid: str) -> bool:
        engine = self._cache.engines.get(key)
        return engine is not None and engine.uid == uid

    async def _is_final(self, key: Key) -> bool:
        engine = self._cache.engines.get(key)
        # None: it was deleted before this poll, because its ttl had expired.
        return engine is None or engine.state in FINAL

    async def _create(self) -> tuple[Key, str]:
        """An engine in the first served namespace that takes it. Raises CanaryError."""
        refused: ApiError | None = None
        unserved = self._unserved()
        for namespace in self._namespaces:
            if namespace in unserved:
                continue
            try:
                return await self._create_in(namespace)
            except (Forbidden, NotFound) as error:
                refused = refused or error
            except ApiError as error:
                raise CanaryError("create", str(error)) from error
        raise CanaryRefusedError(str(refused or "no namespace is served")) from refused

    async def _create_in(self, namespace: str) -> tuple[Key, str]:
        name = f"{NAME}-{self._rng.getrandbits(40):010x}"
        body = {
            "apiVersion": API_VERSION, "kind": "EngineConn",
            "metadata": {"name": name, "namespace": namespace, "annotations": {INSTANCE: self._instance}},
            "spec": {
                "engineType": ENGINE_TYPE, "user": USER, "creator": "ECM", "desiredState": "Stopped",
                "ttlAfterFinished": "1s",
            },
        }  # fmt: skip
        made = await self._client.create(ENGINECONNS, body, timeout=self._timeout)
        return (namespace, name), str(made["metadata"]["uid"])

    async def _remove(self, key: Key, uid: str) -> None:
        """Delete the engine of a failed round."""
        namespace, name = key
        try:
            await self._client.delete(ENGINECONNS, name, namespace=namespace, uid=uid, timeout=5.0)
        except NotFound:
            pass
        except ApiError as error:
            log.info("the canary %s stays for now: %s", name, error)


async def _until(probe: Callable[[], Awaitable[bool]]) -> None:
    """Poll, because no event covers cache, API and database together. The caller sets the timeout."""
    while not await probe():  # noqa: ASYNC110 - see above
        await asyncio.sleep(POLL_SECONDS)

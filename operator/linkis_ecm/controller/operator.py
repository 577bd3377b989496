"""The operator's composition root: builds the parts, runs them in order, ends them in reverse.

Order of the start: database, API client, lists (the gate), pods, Lease, kopf. Nothing is written before both kinds were
listed once and the Lease is held. Must not hold logic of its own.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from linkis_ecm.archive.bundles import Archive
from linkis_ecm.controller import handlers, metrics
from linkis_ecm.controller.audit import Audit
from linkis_ecm.controller.cache import Cache
from linkis_ecm.controller.canary import Canary
from linkis_ecm.controller.clock import SteadyClock
from linkis_ecm.controller.engine_agents import EngineAgents
from linkis_ecm.controller.evidence import Bundles, EvidenceKeeper
from linkis_ecm.controller.executor import Executor
from linkis_ecm.controller.health import health_app
from linkis_ecm.controller.reconciler import Reconciler
from linkis_ecm.controller.reports import Reports
from linkis_ecm.controller.resync import Resync
from linkis_ecm.controller.settings import OperatorSettings
from linkis_ecm.controller.uploads import Uploads
from linkis_ecm.engine.decision import Settings
from linkis_ecm.engine.launch import PodSettings
from linkis_ecm.engine.names import POD_SELECTOR
from linkis_ecm.engine.view import PodView, pod_view
from linkis_ecm.kube.client import ApiError, KubeClient
from linkis_ecm.kube.events import EventRecorder
from linkis_ecm.kube.lease import Lease
from linkis_ecm.kube.reflector import Reflector
from linkis_ecm.kube.resources import ENGINECONNS, PODS, Resource
from linkis_ecm.model.record import Material
from linkis_ecm.store.database import open_engine
from linkis_ecm.store.migrate import upgrade
from linkis_ecm.store.sink import Sink

log = logging.getLogger(__name__)

LEASE_NAME = "linkis-ecm-operator"
# The rest of what the sink holds at the end; what does not fit is told again by the next operator.
FLUSH_SECONDS = 5.0
CONTROLLER = "linkis.apache.org/ecm-operator"
# Lists that stand in for a deaf watch before the process gives up.
DEAF_LISTS = 1
# A loop that does not come round for this long is stuck.
LOOP_STUCK = 30.0


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class DeafWatchError(Exception):
    """kopf's watch does not tell what happens; only a new process helps."""


class Operator:
    """All parts of one operator over a client and a sink; kopf or a test feeds it events."""

    def __init__(
        self,
        *,
        client: KubeClient,
        sink: Sink,
        settings: OperatorSettings,
        clock: Callable[[], datetime] = utc_now,
        rng: random.Random | None = None,
        agents: Any = None,
        archive: Bundles,
    ) -> None:
        rng = rng or random.Random()  # noqa: S311 - jitter
        self.settings = settings
        self.client = client
        self.sink = sink
        self.agents = agents or EngineAgents()
        self.cache = Cache(epoch=clock())
        silent = max(30.0, 3 * settings.report_period)
        decisions = Settings(
            ecm_instance=settings.ecm_instance,
            silent_after=timedelta(seconds=silent),
            lost_after=timedelta(seconds=silent + 40),
            pod=PodSettings(
                report_url=settings.report_url, service=settings.engine_service, report_period=settings.report_period
            ),
        )
        executor = Executor(
            client=client, cache=self.cache, agents=self.agents, token_key=settings.token_key,
            clock=clock,
        )  # fmt: skip
        self.keeper = EvidenceKeeper(
            client=client, archive=archive, index=sink, clock=clock, retention=timedelta(days=settings.archive_days),
            total=settings.archive_total,
        )  # fmt: skip
        self.recorder = EventRecorder(client, controller=CONTROLLER, instance=settings.identity, now=clock)
        self.reconciler = Reconciler(
            cache=self.cache, executor=executor, sink=sink, evidence=self.keeper, recorder=self.recorder,
            settings=decisions, clock=clock, rng=rng,
        )  # fmt: skip
        self.reports = Reports(
            cache=self.cache, reconciler=self.reconciler, token_key=settings.token_key, clock=clock
        )  # fmt: skip
        self.pods = [
            Reflector(
                client, PODS, namespace=namespace, label_selector=POD_SELECTOR, transform=pod_view, on_event=self._pod
            )
            for namespace in (settings.watch_namespaces or (None,))
        ]
        self.resync = Resync(
            client=client, cache=self.cache, reconciler=self.reconciler, ledger=sink, relist_pods=self._relist_pods,
            namespaces=settings.watch_namespaces, clock=clock, rng=rng,
        )  # fmt: skip
        self.audit = Audit(
            client=client, cache=self.cache, reconciler=self.reconciler, rows=sink,
            clock=lambda: asyncio.get_running_loop().time(),
        )  # fmt: skip
        self.resync.audit = self.audit.once
        self.uploads = Uploads(
            cache=self.cache, keeper=self.keeper, token_key=settings.token_key, file_max=settings.archive_file_max
        )
        self.canary = Canary(
            client=client, cache=self.cache, rows=sink, deaf=self._deaf, rng=rng,
            namespace=(settings.watch_namespaces or (settings.namespace,))[0],
        )  # fmt: skip
        self._deaf_told = 0
        self.synced = False
        self._turn = time.monotonic()

    def take(self, resource: Resource, deleted: bool, body: dict[str, Any]) -> None:
        """An event of an EngineConn or an EngineConnPlugin."""
        meta = body["metadata"]
        if resource is ENGINECONNS:
            key = (meta["namespace"], meta["name"])
            if deleted:
                gone = self.cache.drop_engine(key, meta["uid"])
                if gone is not None:
                    self.reconciler.forget(gone)
            elif self.cache.apply_engine(body):
                self.reconciler.notice(key)
            return
        changed = self.cache.drop_plugin(meta["name"]) if deleted else self.cache.apply_plugin(body)
        if changed:
            self._offer_materials(meta["name"])
            # Engines may wait for it; the others' passes cost no call.
            self.reconciler.notice_all()

    def lead(self) -> None:
        """The Lease is held and the caches are filled: from here on this replica writes."""
        log.info("leading, with %d engines", len(self.cache.engines))
        metrics.LEADING.set(1)
        self.reconciler.leading.set()
        self.reconciler.notice_all()
        for name in self.cache.plugins:
            self._offer_materials(name)

    def follow(self) -> None:
        """The Lease is lost: nothing is written any more."""
        log.warning("no longer leading")
        metrics.LEADING.set(0)
        self.reconciler.leading.clear()

    def alive(self) -> str:
        stuck = time.monotonic() - self._turn
        return f"the event loop has not come round for {stuck:.0f} s" if stuck > LOOP_STUCK else ""

    def ready(self) -> str:
        return self.canary.wrong if self.synced else "the caches are not filled yet"

    async def _deaf(self) -> None:
        """No watch tells of the canary: first a list stands in, then the process is begun anew."""
        self._deaf_told += 1
        if self._deaf_told > DEAF_LISTS:
            raise DeafWatchError("the watch of EngineConns is deaf: the process ends and begins anew")
        log.error("the watch of EngineConns tells nothing: listed instead")
        try:
            await self.resync.once()
            self.reconciler.notice_all()
        except ApiError as error:
            log.warning("the list failed, too: %s", error)

    def report_app(self) -> web.Application:
        """Everything that agents call."""
        app = self.reports.app()
        self.uploads.add_routes(app)
        return app

    async def beat(self) -> None:
        """Proves that the loop comes round."""
        while True:
            self._turn = time.monotonic()
            await asyncio.sleep(1)

    async def fill(self) -> None:
        """The gate: lists everything once, engines before pods, so that no pod is missed that a status names."""
        delay = 0.2
        while True:
            try:
                await self.resync.once()
                break
            except ApiError as error:
                log.warning("the first list failed, again in %.1f s: %s", delay, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 10.0)

    async def repair_ledger(self) -> None:
        """Once, when this replica begins to lead: rows of engines that went while nobody looked."""
        await self.reconciler.leading.wait()
        try:
            await self.resync.ledger()
        except Exception:
            # The database may be down; the periodic resync does it then.
            log.exception("rows of engines that are gone could not be ended")

    async def pods_synced(self) -> None:
        for reflector in self.pods:
            await reflector.synced.wait()
        self.synced = True

    def _pod(self, kind: str, pod: PodView) -> None:
        if kind == "DELETED":
            if self.cache.drop_pod(pod):
                self.reconciler.notice_gone(pod)
        elif self.cache.apply_pod(pod):
            self.reconciler.notice_pod(pod)

    def _relist_pods(self) -> None:
        for reflector in self.pods:
            reflector.request_relist()

    def _offer_materials(self, name: str) -> None:
        plugin = self.cache.plugins.get(name)
        if plugin is None or not self.reconciler.leading.is_set():
            return
        spec = plugin.spec
        materials = [
            Material(
                engine_type=spec.engine_type, version=spec.engine_version, file_name=m.file_name,
                file_size=m.file_size, last_modified_ms=m.last_modified, bml_resource_id=m.resource_id,
                bml_resource_version=m.resource_version,
            )
            for m in spec.materials or []
        ]  # fmt: skip
        self.sink.offer_materials(spec.engine_type, spec.engine_version, materials)


@asynccontextmanager
async def serving(app: web.Application, port: int) -> AsyncIterator[None]:
    """An application on all addresses of the pod."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104 - it is a pod's port
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def background(*coroutines: Any) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Tasks for the time of the block, in their order.

    One that fails ends the process, which is started anew and loses nothing.
    """
    main = asyncio.current_task()
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]

    def ended(task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None and main is not None:
            log.critical("a part of the operator failed", exc_info=task.exception())
            main.cancel()

    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run(settings: OperatorSettings) -> None:
    """The operator's process, until SIGTERM. Raises the store's or the archive's error where one cannot be used."""
    await asyncio.to_thread(upgrade, settings.database_url)
    archive = Archive(settings.archive_url)
    clock = SteadyClock(wall=time.time, monotonic=time.monotonic)
    async with AsyncExitStack() as stack:
        stack.callback(archive.close)
        client = await stack.enter_async_context(await KubeClient.connect())
        sink = Sink(open_engine(settings.database_url))
        sink.start()
        stack.callback(sink.close, FLUSH_SECONDS)
        operator = Operator(client=client, sink=sink, settings=settings, archive=archive, clock=clock)
        stack.push_async_callback(operator.agents.close)
        health = health_app(alive=operator.alive, ready=operator.ready)
        await stack.enter_async_context(serving(health, settings.health_port))
        await stack.enter_async_context(serving(operator.report_app(), settings.report_port))
        await stack.enter_async_context(background(operator.beat()))
        await operator.fill()
        reflectors = [reflector.run() for reflector in operator.pods]
        await stack.enter_async_context(background(*reflectors, operator.reconciler.run(), operator.resync.run()))
        await operator.pods_synced()
        lease = Lease(
            client, namespace=settings.namespace, name=LEASE_NAME, identity=settings.identity,
            on_started=operator.lead, on_stopped=operator.follow,
        )  # fmt: skip
        operator.reconciler.may_write = lambda: lease.held
        stack.push_async_callback(lease.release)
        leading = operator.reconciler.leading
        parts = [lease.run(), operator.repair_ledger(), operator.recorder.run(), operator.keeper.run(leading)]
        if settings.canary:
            parts.append(operator.canary.run(leading))
        contending, *_ = await stack.enter_async_context(background(*parts))

        async def hand_over() -> None:
            contending.cancel()
            await asyncio.gather(contending, return_exceptions=True)
            await lease.release()

        await handlers.run(operator.take, namespaces=settings.watch_namespaces, stopping=hand_over)

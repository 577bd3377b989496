"""The operator's composition root: builds the parts, runs them in order, ends them in reverse.

Order of the start: database, API client, first lists, pods, Lease, kopf. Nothing is written before both kinds were
listed once and the Lease is held. Each part gets what it needs in its constructor. Must not hold logic of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from aiohttp import web

from linkis_ecm.archive.bundles import Archive
from linkis_ecm.controller import handlers
from linkis_ecm.controller.admission import Admission
from linkis_ecm.controller.agents.engine_agents import EngineAgents
from linkis_ecm.controller.agents.pod_tokens import PodTokens
from linkis_ecm.controller.agents.reports import Reports
from linkis_ecm.controller.agents.uploads import Uploads
from linkis_ecm.controller.clock import SteadyClock
from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.pods.evidence import BundleStore, EvidenceKeeper
from linkis_ecm.controller.pods.executor import Executor
from linkis_ecm.controller.pods.resizes import Resizes
from linkis_ecm.controller.policies import Policies
from linkis_ecm.controller.pool.claims import WarmClaims
from linkis_ecm.controller.pool.pools import WarmPools
from linkis_ecm.controller.pool.starts import WarmStarts
from linkis_ecm.controller.reconciler import Reconciler
from linkis_ecm.controller.selfchecks.audit import Audit
from linkis_ecm.controller.selfchecks.canary import Canary
from linkis_ecm.controller.selfchecks.health import health_app
from linkis_ecm.controller.selfchecks.names import NameCheck
from linkis_ecm.controller.selfchecks.namespaces import LIST, Namespaces
from linkis_ecm.controller.selfchecks.orphans import OrphanPods
from linkis_ecm.controller.selfchecks.overlap import Overlap
from linkis_ecm.controller.selfchecks.resync import Resync
from linkis_ecm.controller.serving import serve
from linkis_ecm.controller.settings import OperatorSettings
from linkis_ecm.controller.shards.assignment import COMMON
from linkis_ecm.controller.shards.claims import NamespaceClaims
from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.controller.state.kept import KeptFields
from linkis_ecm.controller.watches import Watches
from linkis_ecm.engine.decision import Settings
from linkis_ecm.engine.pod.launch import PodSettings
from linkis_ecm.kube.client import ApiError, KubeClient
from linkis_ecm.kube.events import EventRecorder
from linkis_ecm.kube.lease import Lease
from linkis_ecm.kube.resources import ENGINECONNS
from linkis_ecm.model.agent_key import key_id
from linkis_ecm.model.record import EngineRecord, Material
from linkis_ecm.process.ports.connections import NOBODY_LOGS_IN
from linkis_ecm.process.startup_heap import freeze_startup_heap
from linkis_ecm.store.database import open_engine
from linkis_ecm.store.migrate import upgrade
from linkis_ecm.store.sink import Sink

log = logging.getLogger(__name__)

# Seconds to write the sink's remaining records at the end. The next operator offers the rest again.
FLUSH_SECONDS = 5.0
# Seconds for running passes when the process ends. A write takes milliseconds, and another replica waits.
DRAIN_SECONDS = 2.0
CONTROLLER = "linkis.apache.org/ecm-operator"
# How many lists replace a stalled watch before the process ends itself.
STALLED_WATCH_LISTS = 1
# After this many seconds without a heartbeat the event loop counts as stuck.
LOOP_STUCK_SECONDS = 30.0


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class StalledWatchError(Exception):
    """kopf's watch delivers no events. Only a new process helps."""


class Operator:
    """All parts of one operator, over a client and a sink. kopf or a test calls `watches.on_event`.

    `lease_client` has connections of its own, so that a renewal does not wait for one behind slow calls. `clock` is for
    decisions. `wall` is for times that others read, such as the Lease's.
    """

    def __init__(
        self,
        *,
        client: KubeClient,
        sink: Sink,
        settings: OperatorSettings,
        archive: BundleStore,
        metrics: Metrics,
        clock: Callable[[], datetime] = utc_now,
        wall: Callable[[], datetime] = utc_now,
        rng: random.Random | None = None,
        agents: Any = None,
        lease_client: KubeClient | None = None,
        pool: Any = None,
    ) -> None:
        rng = rng or random.Random()  # noqa: S311 - jitter
        master_keys = settings.master_keys
        # In a rotation one looks for engines whose status.agentKey.keyId is the one before.
        log.info("the token key has the id %s", ", the one before ".join(map(key_id, master_keys)))
        self._wall = wall
        self.metrics = metrics
        self.settings = settings
        self.client = client
        self.sink = sink
        self.agents = agents or EngineAgents()
        self.cache = Cache(epoch=clock())
        silent = max(30.0, 3 * settings.report_period)
        decisions = Settings(
            ecm_instance=settings.ecm_instance,
            adopted=frozenset(settings.adopt_instances),
            key_ids=frozenset(map(key_id, master_keys)),
            silent_after=timedelta(seconds=silent),
            lost_after=timedelta(seconds=silent + 40),
            pod=PodSettings(
                report_url=settings.report_url,
                report_urls=settings.report_urls,
                instance=settings.ecm_instance,
                service=settings.engine_service,
                service_namespaces=frozenset(settings.engine_service_namespaces) or None,
                report_period=settings.report_period,
                admission=settings.admission,
                own_namespace=settings.namespace,
                protected=frozenset(settings.protected),
            ),
        )
        self.recorder = EventRecorder(
            client, controller=CONTROLLER, instance=settings.identity, now=clock, metrics=metrics.events
        )
        executor = Executor(
            client=client, cache=self.cache, agents=self.agents, master_keys=master_keys, clock=clock,
            ownership=decisions.ownership,
            kept=KeptFields(kind=ENGINECONNS.kind, clock=clock, recorder=self.recorder),
        )  # fmt: skip
        self.keeper = EvidenceKeeper(
            client=client, archive=archive, index=sink, clock=clock, retention=timedelta(days=settings.archive_days),
            total=settings.archive_total, engine_max=settings.archive_engine_max, user_max=settings.archive_user_max,
            history=timedelta(days=settings.history_days), metrics=metrics,
        )  # fmt: skip
        self.leading = asyncio.Event()
        self.lease = Lease(
            lease_client or client, namespace=settings.namespace, name=settings.lease_name,
            identity=settings.identity, now=wall, rng=rng, on_started=self.start_leading,
            on_stopped=self.stop_leading, metrics=metrics.lease,
        )  # fmt: skip
        self.claims = NamespaceClaims(
            client=lease_client or client, namespace=settings.namespace, configmap=settings.shards_configmap or "",
            lease=settings.lease_name, identity=settings.identity, watched=settings.watch_namespaces,
            neighbours=settings.neighbours, may_write=lambda: self.lease.held, on_served=self._serve, metrics=metrics,
        )  # fmt: skip
        self.admission = Admission(cache=self.cache, limits=settings.limits)
        self.policies = Policies(
            client=client, names=settings.admission_policies, fields=settings.admission_fields, clock=clock,
            metrics=metrics,
            on_change=lambda: self.reconciler.enqueue_all(),  # noqa: PLW0108 - it is made below
        )  # fmt: skip
        self.pools = WarmPools(
            client=client, cache=self.cache, pod_settings=decisions.pod, master_keys=master_keys,
            ownership=decisions.ownership, namespaces=settings.watch_namespaces, leading=self.leading,
            may_write=lambda: self.lease.held, clock=clock, rng=rng, metrics=metrics, recorder=self.recorder,
            silent_after=decisions.silent_after,
            serves=self.claims.serves, elsewhere=self.claims.elsewhere,
        )  # fmt: skip
        self.warm = WarmStarts(
            cache=self.cache, pool=pool or self.pools.reservations, clock=clock,
            claims=WarmClaims(client=client, cache=self.cache, agents=self.agents, master_keys=master_keys),
        )  # fmt: skip
        self.reconciler = Reconciler(
            cache=self.cache, executor=executor, admission=self.admission, policies=self.policies, warm=self.warm,
            resizes=Resizes(
                client=client, cache=self.cache, clock=clock, rng=rng, counted=metrics.soft_pause_resizes,
                wakes=metrics.wake_seconds,
            ),
            sink=sink, evidence=self.keeper, recorder=self.recorder, settings=decisions, leading=self.leading,
            may_write=lambda: self.lease.held, serves=self.claims.serves, clock=clock, rng=rng, metrics=metrics,
        )  # fmt: skip
        self.pools.waiting.refused, self.reconciler.on_refused = self.reconciler.refused, self.pools.engine_refused
        self.pools.waiting.gave_room = self.reconciler.room_comes
        metrics.watch_usage(self.reconciler.reports, limit=settings.metrics_engines)
        metrics.limit_shares.watch(self.admission.shares)
        metrics.archive.watch(
            lambda: self.keeper.archive_size() if self.leading.is_set() else None, most=settings.archive_total
        )
        self.pod_tokens = PodTokens(client, clock=lambda: wall().timestamp(), monotonic=time.monotonic)
        self.reports = Reports(
            cache=self.cache, reconciler=self.reconciler, members=self.pools.agents,
            roster=self.pools.roster, master_keys=master_keys,
            pods=self.pod_tokens, clock=clock, metrics=metrics, per_second=settings.reports_per_second,
            is_misdirected=self.claims.is_misdirected,
        )  # fmt: skip
        self.namespaces = Namespaces(metrics=metrics)
        self.orphans = OrphanPods(
            client=client, cache=self.cache, is_foreign=decisions.ownership.is_foreign_pod,
            unserved=self._unserved, leading=self.leading, may_write=lambda: self.lease.held,
            clock=clock, rng=rng, metrics=metrics,
        )  # fmt: skip
        self.watches = Watches(
            client=client, namespaces=settings.watch_namespaces, cache=self.cache, reconciler=self.reconciler,
            orphans=self.orphans, pools=self.pools, served=self.namespaces, on_plugin=self._offer_materials,
        )  # fmt: skip
        self.audit = Audit(
            orphan_pods=self.orphans, reconciler=self.reconciler, rows=sink,
            clock=lambda: asyncio.get_running_loop().time(), metrics=metrics,
        )  # fmt: skip
        self.resync = Resync(
            client=client, cache=self.cache, reconciler=self.reconciler, rows=sink,
            relist_pods=self.watches.relist_pods,
            namespaces=settings.watch_namespaces, clock=clock, rng=rng,
            audit=self._check_and_audit, on_denied=partial(self.namespaces.denied, LIST),
            on_served=partial(self.namespaces.served, (LIST,)),
            unserved=self._unserved, elsewhere=lambda: self.claims.elsewhere | self.claims.waiting.keys(),
            metrics=metrics, reflectors=dict(zip(settings.watch_namespaces, self.watches.engines, strict=True)),
        )  # fmt: skip
        self.overlap = Overlap(
            client=client, own=settings.ecm_instance, foreign=self.reconciler.foreign_engines, recorder=self.recorder,
        )  # fmt: skip
        self.uploads = Uploads(
            cache=self.cache, keeper=self.keeper, master_keys=master_keys, file_max=settings.archive_file_max,
            metrics=metrics, is_misdirected=self.claims.is_misdirected,
        )  # fmt: skip
        self.canary = Canary(
            client=client, cache=self.cache, rows=sink, on_watch_stalled=self._watch_stalled, rng=rng, metrics=metrics,
            namespaces=_canary_namespaces(settings),
            unserved=self._unserved, instance=settings.ecm_instance,
        )  # fmt: skip
        self._loop = asyncio.get_running_loop()
        sink.watch_foreign(self._ticket_taken)
        self._stalled_watches = 0
        # Why the first list failed last.
        self._list_problem = ""
        self.names = NameCheck(settings.report_url)
        # The last heartbeat of the event loop, by the monotonic clock.
        self._last_heartbeat = time.monotonic()

    def _ticket_taken(self, record: EngineRecord) -> None:
        """Called by the sink, in its thread."""
        # The loop may be closed while the sink writes its last records.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.reconciler.ticket_taken, record)

    def start_leading(self) -> None:
        """The Lease is held and the caches are filled: this replica writes from now on."""
        log.info("leading, with %d engines", len(self.cache.engines))
        self.metrics.leading.set(1)
        self.audit.start_leading()
        self.admission.start_leading()
        self.leading.set()
        self.claims.start_leading()

    def _serve(self, served: frozenset[str]) -> None:
        """Nobody else serves these namespaces, or does this work, from now on."""
        self.reconciler.enqueue_all()
        self.pools.start_leading()
        self.orphans.enqueue_all()
        if self.claims.serves(COMMON):
            for name in self.cache.plugins:
                self._offer_materials(name)

    def _unserved(self) -> dict[str, str]:
        """Why each watched namespace that is not served is not: the API server refuses it, or another shard has it."""
        return {**self.claims.unserved, **self.namespaces.unserved}

    @property
    def note(self) -> str:
        """What does not keep the process from being ready, as a sentence; empty if there is nothing."""
        waiting = sorted(self.claims.waiting.items())
        shards = f"waits for other shards: {', '.join(f'{one} ({lease})' for one, lease in waiting)}"[:2000]
        return "; ".join(filter(None, (self.namespaces.note, shards if waiting else "")))

    def stop_leading(self) -> None:
        """The Lease is lost: this replica writes nothing any more."""
        log.warning("no longer leading")
        self.metrics.leading.set(0)
        self.audit.stop_leading()
        self.leading.clear()
        self.claims.stop_leading()
        self.pools.stop_leading()

    def alive(self) -> str:
        """The process's problem as a sentence; empty if there is none."""
        stuck = time.monotonic() - self._last_heartbeat
        return f"the event loop has not run for {stuck:.0f} s" if stuck > LOOP_STUCK_SECONDS else ""

    def ready(self) -> str:
        """Why the process is not ready, as a sentence; empty if it is."""
        if self.names.problem:
            return self.names.problem
        # `helm install --wait` ends when this process is ready, and the next command makes an engine.
        if problem := self.policies.problem(self._wall()):
            return problem
        if self.claims.problem:
            return self.claims.problem
        return self.canary.problem if self.watches.synced else f"the caches are not filled yet{self._list_problem}"

    async def _watch_stalled(self) -> None:
        """The watch of EngineConns delivers no events: first list instead, then end the process."""
        self._stalled_watches += 1
        if self._stalled_watches > STALLED_WATCH_LISTS:
            raise StalledWatchError("the watch of EngineConns delivers no events: the process ends and begins anew")
        log.error("the watch of EngineConns delivers no events: listed instead")
        try:
            await self.resync.run_once()
            self.reconciler.enqueue_all()
        except ApiError as error:
            log.warning("the list failed, too: %s", error)

    def report_app(self) -> web.Application:
        """The HTTP application for all requests of agents."""
        app = self.reports.app()
        self.uploads.add_routes(app)
        return app

    async def heartbeat(self) -> None:
        """Record once a second that the event loop runs."""
        while True:
            self._last_heartbeat = time.monotonic()
            await asyncio.sleep(1)

    async def fill_caches(self) -> None:
        """List everything once, engines before pods, so that every pod that a status names is found."""
        delay = 0.2
        while True:
            try:
                await self.resync.run_once()
                break
            except ApiError as error:
                log.warning("the first list failed, again in %.1f s: %s", delay, error)
                self._list_problem = f": the API server gives no list ({error})"
                await asyncio.sleep(delay)
                delay = min(delay * 2, 10.0)

    async def repair_rows(self) -> None:
        """Once, when this replica starts to lead: say where other installations have engines, and end the rows of
        engines that were deleted while no operator ran."""
        await self.claims.serving.wait()
        await self.overlap.check()
        try:
            await self.resync.end_absent_rows()
        except Exception:
            # The database may be down. The periodic resync does it later.
            log.exception("rows of engines that are gone could not be ended")

    async def _check_and_audit(self) -> None:
        await self.overlap.check()
        self.orphans.enqueue_all()
        await self.audit.run_once()

    def _offer_materials(self, name: str) -> None:
        plugin = self.cache.plugins.get(name)
        if plugin is None or not self.leading.is_set() or not self.claims.serves(COMMON):
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


def _canary_namespaces(settings: OperatorSettings) -> tuple[str, ...]:
    """Where the canary's engine may be: the operator's own namespace if it is watched, else each of those."""
    watched = settings.watch_namespaces
    if not watched or settings.namespace in watched:
        return (settings.namespace, *(name for name in watched if name != settings.namespace))
    return watched


@asynccontextmanager
async def run_background(*coroutines: Any) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Run coroutines as tasks within the block.

    A task that fails ends the process. The kubelet restarts it, and nothing is lost.
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
    """Run the operator until SIGTERM. Raises the store's or the archive's error if one cannot be used."""
    database_url = settings.database_url.get_secret_value()
    await asyncio.to_thread(upgrade, database_url)
    archive = Archive(settings.archive_url.get_secret_value())
    metrics = Metrics()
    clock = SteadyClock(wall=time.time, monotonic=time.monotonic, metrics=metrics)
    async with AsyncExitStack() as stack:
        stack.callback(archive.close)
        client = await stack.enter_async_context(await KubeClient.connect(metrics=metrics.kube))
        lease_client = await stack.enter_async_context(await KubeClient.connect(metrics=metrics.kube))
        sink = Sink(open_engine(database_url), metrics=metrics.sink)
        sink.start()
        stack.callback(sink.close, FLUSH_SECONDS)
        operator = Operator(
            client=client, sink=sink, settings=settings, archive=archive, metrics=metrics, clock=clock,
            lease_client=lease_client,
        )  # fmt: skip
        stack.push_async_callback(operator.agents.close)
        health = health_app(
            alive=operator.alive, ready=operator.ready, registry=metrics.registry, note=lambda: operator.note
        )  # fmt: skip
        await stack.enter_async_context(
            serve(
                health, settings.health_port, limits=NOBODY_LOGS_IN,
                counts=metrics.connections.of("health"),
            )
        )  # fmt: skip
        reports = serve(
            operator.report_app(), settings.report_port, limits=settings.report_connections,
            counts=metrics.connections.of("reports"),
        )  # fmt: skip
        await stack.enter_async_context(reports)
        await stack.enter_async_context(run_background(operator.heartbeat(), operator.names.run()))
        await operator.fill_caches()
        freeze_startup_heap()
        reflectors = [one.run() for one in operator.watches.reflectors]
        workers = (operator.reconciler.worker, operator.pools.worker, operator.orphans.worker)
        loops = [one.run() for one in (operator.reconciler, *workers[1:], operator.resync, operator.policies)]
        await stack.enter_async_context(run_background(*reflectors, *loops))
        await operator.watches.wait_pods_synced()
        stack.push_async_callback(operator.lease.release)
        leading = operator.leading
        keeping = operator.keeper.run(leading, deletes=lambda: operator.claims.serves(COMMON))
        parts = [operator.lease.run(), operator.claims.run(), operator.repair_rows(), operator.recorder.run(), keeping]
        if settings.canary:
            parts.append(operator.canary.run(operator.claims.serving))
        contending, *_ = await stack.enter_async_context(run_background(*parts))

        async def release_leadership() -> None:
            await asyncio.gather(*(worker.drain(DRAIN_SECONDS) for worker in workers))
            contending.cancel()
            await asyncio.gather(contending, return_exceptions=True)
            await operator.lease.release()

        await handlers.run(
            operator.watches.on_event, engines=not settings.watch_namespaces, stopping=release_leadership
        )  # fmt: skip

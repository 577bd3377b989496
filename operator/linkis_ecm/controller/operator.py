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
from linkis_ecm.controller.cache import Cache
from linkis_ecm.controller.clock import SteadyClock
from linkis_ecm.controller.evidence import BundleStore, EvidenceKeeper
from linkis_ecm.controller.executor import Executor
from linkis_ecm.controller.metrics import Metrics
from linkis_ecm.controller.policies import Policies
from linkis_ecm.controller.reconciler import Reconciler
from linkis_ecm.controller.selfchecks.audit import Audit
from linkis_ecm.controller.selfchecks.canary import Canary
from linkis_ecm.controller.selfchecks.health import health_app
from linkis_ecm.controller.selfchecks.names import NameCheck
from linkis_ecm.controller.selfchecks.namespaces import LIST, POD_WATCH, WATCH, Namespaces, Request
from linkis_ecm.controller.selfchecks.overlap import Overlap
from linkis_ecm.controller.selfchecks.resync import Resync
from linkis_ecm.controller.serving import serve
from linkis_ecm.controller.settings import OperatorSettings
from linkis_ecm.engine.decision import Settings
from linkis_ecm.engine.launch import PodSettings
from linkis_ecm.engine.names import POD_SELECTOR
from linkis_ecm.engine.view import PodView, pod_view
from linkis_ecm.kube.client import ApiError, KubeClient
from linkis_ecm.kube.events import EventRecorder
from linkis_ecm.kube.lease import Lease
from linkis_ecm.kube.reflector import Reflector
from linkis_ecm.kube.resources import ENGINECONNS, PODS, Resource
from linkis_ecm.model.agent_key import key_id
from linkis_ecm.model.record import EngineRecord, Material
from linkis_ecm.process.connections import NOBODY_LOGS_IN
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
    """All parts of one operator, over a client and a sink. kopf or a test calls `on_event`.

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
                instance=settings.ecm_instance,
                service=settings.engine_service,
                service_namespaces=frozenset(settings.engine_service_namespaces) or None,
                report_period=settings.report_period,
                admission=settings.admission,
                own_namespace=settings.namespace,
                protected=frozenset(settings.protected),
            ),
        )
        executor = Executor(
            client=client, cache=self.cache, agents=self.agents, master_keys=master_keys, clock=clock,
            ownership=decisions.ownership,
        )  # fmt: skip
        self.keeper = EvidenceKeeper(
            client=client, archive=archive, index=sink, clock=clock, retention=timedelta(days=settings.archive_days),
            total=settings.archive_total, engine_max=settings.archive_engine_max, user_max=settings.archive_user_max,
            history=timedelta(days=settings.history_days), metrics=metrics,
        )  # fmt: skip
        self.recorder = EventRecorder(
            client, controller=CONTROLLER, instance=settings.identity, now=clock, metrics=metrics.events
        )
        self.leading = asyncio.Event()
        self.lease = Lease(
            lease_client or client, namespace=settings.namespace, name=settings.lease_name,
            identity=settings.identity, now=wall, rng=rng, on_started=self.start_leading,
            on_stopped=self.stop_leading, metrics=metrics.lease,
        )  # fmt: skip
        self.admission = Admission(cache=self.cache, limits=settings.limits)
        self.policies = Policies(
            client=client, names=settings.admission_policies, metrics=metrics,
            on_change=lambda: self.reconciler.enqueue_all(),  # noqa: PLW0108 - it is made below
        )  # fmt: skip
        self.reconciler = Reconciler(
            cache=self.cache, executor=executor, admission=self.admission, policies=self.policies, sink=sink,
            evidence=self.keeper, recorder=self.recorder, settings=decisions, leading=self.leading,
            may_write=lambda: self.lease.held, clock=clock, rng=rng, metrics=metrics,
        )  # fmt: skip
        self.pod_tokens = PodTokens(client, clock=lambda: wall().timestamp(), monotonic=time.monotonic)
        self.reports = Reports(
            cache=self.cache, reconciler=self.reconciler, master_keys=master_keys, pods=self.pod_tokens, clock=clock,
            metrics=metrics, per_second=settings.reports_per_second,
        )  # fmt: skip
        self.namespaces = Namespaces(metrics=metrics)
        # Of each listed namespace its own, which goes on while that namespace is gone or refused. Where none is listed,
        # kopf watches all of the cluster.
        self.engines: list[Reflector[dict[str, Any]]] = [
            Reflector(
                client, ENGINECONNS, namespace=namespace, transform=dict, on_event=self._engine,
                **self._watches(namespace, WATCH, LIST),
            )
            for namespace in settings.watch_namespaces
        ]  # fmt: skip
        self.pods = [
            Reflector(
                client, PODS, namespace=namespace, label_selector=POD_SELECTOR, transform=pod_view, on_event=self._pod,
                **self._watches(namespace, POD_WATCH),
            )
            for namespace in (settings.watch_namespaces or (None,))
        ]  # fmt: skip
        self.audit = Audit(
            client=client, cache=self.cache, reconciler=self.reconciler, rows=sink,
            clock=lambda: asyncio.get_running_loop().time(), metrics=metrics,
            is_foreign=decisions.ownership.is_foreign_pod, unserved=lambda: self.namespaces.unserved,
        )  # fmt: skip
        self.resync = Resync(
            client=client, cache=self.cache, reconciler=self.reconciler, rows=sink, relist_pods=self._relist_pods,
            namespaces=settings.watch_namespaces, clock=clock, rng=rng,
            audit=self._check_and_audit, on_denied=partial(self.namespaces.denied, LIST),
            on_served=partial(self.namespaces.served, (LIST,)),
            unserved=lambda: self.namespaces.unserved, metrics=metrics,
        )  # fmt: skip
        self.overlap = Overlap(
            client=client, own=settings.ecm_instance, foreign=self.reconciler.foreign_engines, recorder=self.recorder,
        )  # fmt: skip
        self.uploads = Uploads(
            cache=self.cache, keeper=self.keeper, master_keys=master_keys, file_max=settings.archive_file_max,
            metrics=metrics,
        )  # fmt: skip
        self.canary = Canary(
            client=client, cache=self.cache, rows=sink, on_watch_stalled=self._watch_stalled, rng=rng, metrics=metrics,
            namespaces=_canary_namespaces(settings),
            unserved=lambda: self.namespaces.unserved, instance=settings.ecm_instance,
        )  # fmt: skip
        self._loop = asyncio.get_running_loop()
        sink.watch_foreign(self._ticket_taken)
        self._stalled_watches = 0
        self.synced = False
        # Why the first list failed last.
        self._list_problem = ""
        self.names = NameCheck(settings.report_url)
        # The last heartbeat of the event loop, by the monotonic clock.
        self._last_heartbeat = time.monotonic()

    def on_event(self, resource: Resource, deleted: bool, body: dict[str, Any]) -> None:
        """An event of an EngineConn or an EngineConnPlugin."""
        meta = body["metadata"]
        if resource is ENGINECONNS:
            key = (meta["namespace"], meta["name"])
            if deleted:
                gone = self.cache.drop_engine(key, meta["uid"])
                if gone is not None:
                    self.reconciler.engine_deleted(gone)
            elif self.cache.apply_engine(body):
                self.reconciler.enqueue(key)
            return
        changed = self.cache.drop_plugin(meta["name"]) if deleted else self.cache.apply_plugin(body)
        if changed:
            self._offer_materials(meta["name"])
            # Engines may wait for this plugin. A pass over any other engine makes no call.
            self.reconciler.enqueue_all()

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
        self.reconciler.enqueue_all()
        for name in self.cache.plugins:
            self._offer_materials(name)

    def stop_leading(self) -> None:
        """The Lease is lost: this replica writes nothing any more."""
        log.warning("no longer leading")
        self.metrics.leading.set(0)
        self.audit.stop_leading()
        self.leading.clear()

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
        return self.canary.problem if self.synced else f"the caches are not filled yet{self._list_problem}"

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
        await self.leading.wait()
        await self.overlap.check()
        try:
            await self.resync.end_absent_rows()
        except Exception:
            # The database may be down. The periodic resync does it later.
            log.exception("rows of engines that are gone could not be ended")

    async def _check_and_audit(self) -> None:
        await self.overlap.check()
        await self.audit.run_once()

    async def wait_pods_synced(self) -> None:
        """Wait until pods were listed in each watched namespace that is served."""
        for reflector in self.pods:
            await reflector.settled.wait()
        self.synced = True

    def _watches(self, namespace: str | None, refused: Request, *also_served: Request) -> dict[str, Any]:
        """What a reflector of one namespace says of it. Of all namespaces together nothing is known: it waits."""
        if namespace is None:
            return {}
        return {
            "on_denied": partial(self.namespaces.denied, refused, namespace),
            "on_served": partial(self.namespaces.served, (refused, *also_served), namespace),
        }

    def _engine(self, kind: str, body: dict[str, Any]) -> None:
        """An event of an EngineConn. The reflector keeps `body`, so all but its names is taken out of it."""
        self.on_event(ENGINECONNS, kind == "DELETED", dict(body))
        metadata = body["metadata"]
        body.clear()
        body["metadata"] = {name: metadata[name] for name in ("namespace", "name", "uid")}

    def _pod(self, kind: str, pod: PodView) -> None:
        if kind == "DELETED":
            if self.cache.drop_pod(pod):
                self.reconciler.pod_deleted(pod)
        elif self.cache.apply_pod(pod):
            self.reconciler.pod_changed(pod)

    def _relist_pods(self) -> None:
        for reflector in self.pods:
            reflector.request_relist()

    def _offer_materials(self, name: str) -> None:
        plugin = self.cache.plugins.get(name)
        if plugin is None or not self.leading.is_set():
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
            alive=operator.alive, ready=operator.ready, registry=metrics.registry, note=lambda: operator.namespaces.note
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
        reflectors = [*(one.run() for one in operator.engines), *(one.run() for one in operator.pods)]
        loops = [operator.reconciler.run(), operator.resync.run(), operator.policies.run()]
        await stack.enter_async_context(run_background(*reflectors, *loops))
        await operator.wait_pods_synced()
        stack.push_async_callback(operator.lease.release)
        leading = operator.leading
        parts = [operator.lease.run(), operator.repair_rows(), operator.recorder.run(), operator.keeper.run(leading)]
        if settings.canary:
            parts.append(operator.canary.run(leading))
        contending, *_ = await stack.enter_async_context(run_background(*parts))

        async def release_leadership() -> None:
            await operator.reconciler.worker.drain(DRAIN_SECONDS)
            contending.cancel()
            await asyncio.gather(contending, return_exceptions=True)
            await operator.lease.release()

        await handlers.run(
            operator.on_event, engines=not settings.watch_namespaces, stopping=release_leadership
        )  # fmt: skip

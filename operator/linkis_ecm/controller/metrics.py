"""Everything that an operator's process counts, in one registry. Must not compute anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from linkis_ecm.controller.workloop.call_pool import CallMetrics
from linkis_ecm.controller.workloop.worker import WorkerMetrics
from linkis_ecm.engine.facts import ticket_id
from linkis_ecm.engine.status.conditions import soft_paused, too_small
from linkis_ecm.engine.view import EngineView, Report
from linkis_ecm.kube.metrics import EventMetrics, KubeMetrics, LeaseMetrics
from linkis_ecm.model.states import FINAL
from linkis_ecm.process.engine_metrics import EngineUsage, LimitShares, OwnerCount, UsageByEngine, build_info
from linkis_ecm.process.pool_metrics import PoolMetrics
from linkis_ecm.process.registry import (
    ConnectionMetrics,
    EngineCount,
    EngineLabels,
    Registry,
    engine_refusals,
    from_zero,
)
from linkis_ecm.store.metrics import SinkMetrics

_ENDS_LABELS = ("reason", "engine_type", "tenant")
# From 50 ms (a claim of a warm engine) to 10 minutes (an image pulled over a slow line).
_START_BUCKETS = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 120, 300, 600)
# Of model.engineconn.Startup, those that each start of an engine with an agent has.
_START_PHASES = ("scheduled", "containerStarted", "agentStarted", "kernelReady", "ready")
_WARM_PHASES = ("claimed", "ready")
# Measured, 0.1 to 0.3 s on a node with room (docs/design/warm.md); without, until other pods end.
_WAKE_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60, 300)
# From a round of an idle operator (under 0.1 s) to twice the canary's patience.
_CANARY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30)

# A gauge that has nothing to say yet: Prometheus compares it with nothing, so it raises no alert.
NAN = float("nan")


class Metrics:
    """The operator's registry and all its families."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.kube = KubeMetrics(self.registry)
        self.lease = LeaseMetrics(self.registry)
        self.events = EventMetrics(self.registry)
        self.sink = SinkMetrics(self.registry)
        self.worker = WorkerMetrics(self.registry)
        self.calls = CallMetrics(self.registry)
        self.pools = PoolMetrics(self.registry)
        build_info(self.registry)
        self._engines = EngineCount(registry=self.registry)
        self._owners = OwnerCount(self.registry)
        self._usage = UsageByEngine(self.registry)
        self.limit_shares = LimitShares(self.registry)
        self.start_seconds = from_zero(
            Histogram(
                "ecm_engine_start_seconds",
                "From an engine's acceptance to each phase of its start; ready is the whole. By origin: cold, or warm"
                " (from a pool).",
                ["phase", "origin"],
                buckets=_START_BUCKETS,
                registry=self.registry,
            ),
            *((phase, "cold") for phase in _START_PHASES),
            *((phase, "warm") for phase in _WARM_PHASES),
        )
        self.ends = Counter(
            "ecm_engine_ends",
            "Engines that ended, by reason. The canary's are among them, each minute, with the engine_type `canary`.",
            _ENDS_LABELS,
            registry=self.registry,
        )
        self._engines.engine_types.on_evict = lambda value: self._forget_ends("engine_type", value)
        self._engines.tenants.on_evict = lambda value: self._forget_ends("tenant", value)
        self.not_reporting = Gauge(
            "ecm_engines_not_reporting",
            "Engines that are up and whose agents have not reported for too long.",
            registry=self.registry,
        )
        self.key_mismatch = Gauge(
            "ecm_engines_key_mismatch",
            "Engines whose agents answer and do not take this operator's key: they run, and cannot be used.",
            registry=self.registry,
        )
        self._paused = Gauge(
            "ecm_engines_soft_paused",
            "Engines that nobody uses and that have given cpu back (softPause of their plugin).",
            registry=self.registry,
        )
        self._too_small = Gauge(
            "ecm_engines_too_small",
            "Engines whose pods have not the size that they ask for: a resize at a warm start, or at the end of a soft"
            " pause, was refused or waits for room.",
            registry=self.registry,
        )
        self.soft_pause_resizes = from_zero(
            Counter(
                "ecm_soft_pause_resizes",
                "Resizes of soft pauses, by direction (down, up) and outcome: taken, refused, conflict (the pod had"
                " changed), overruled (taken, and nothing changed), unanswered; all but taken are tried again.",
                ["direction", "outcome"],
                registry=self.registry,
            ),
            *(
                (one, outcome)
                for one in ("down", "up")
                for outcome in ("taken", "refused", "conflict", "overruled", "unanswered")
            ),
        )
        self.wake_seconds = Histogram(
            "ecm_soft_pause_wake_seconds",
            "From the report that a soft-paused engine is used again until its kubelet has given it its whole size. Its"
            " code does not wait for that.",
            buckets=_WAKE_BUCKETS,
            registry=self.registry,
        )
        self.foreign_engines = Gauge(
            "ecm_foreign_engines",
            "Engines in the watched namespaces that run and are another installation's: they are left alone.",
            registry=self.registry,
        )
        self.report_path_down = Gauge(
            "ecm_report_path_down",
            "1 while most agents do not report: the operator's own network is taken to be down, and no engine is"
            " called lost.",
            registry=self.registry,
        )
        self.post_mortems = from_zero(
            Counter(
                "ecm_post_mortems",
                "Post-mortem bundles by outcome: complete, partial, failed (the archive took nothing).",
                ["outcome"],
                registry=self.registry,
            ),
            "complete",
            "partial",
            "failed",
        )
        self.uploads = from_zero(
            Counter(
                "ecm_uploads",
                "Files that agents sent to the archive, by outcome: whole, cut, failed, refused.",
                ["outcome"],
                registry=self.registry,
            ),
            "whole",
            "cut",
            "failed",
            "refused",
        )
        self.upload_bytes = Counter(
            "ecm_upload_bytes", "Bytes of files that agents sent to the archive.", registry=self.registry
        )
        self.upload_refused_bytes = from_zero(
            Counter(
                "ecm_upload_refused_bytes",
                "Bytes of agents' files that the archive did not take, by kind: file (over its bound, or broken off),"
                " engine, total (over that bound), written (kept already), ended (no pod), busy (too many at a time).",
                ["kind"],
                registry=self.registry,
            ),
            "file",
            "engine",
            "total",
            "written",
            "ended",
            "busy",
        )
        self.archive = ArchiveMetrics(self.registry)
        self.drift = from_zero(
            Counter(
                "ecm_drift",
                "Differences between API, pods and rows that the audit found and repaired, by kind: orphan_pod,"
                " row_missing, row_status, row_address.",
                ["kind"],
                registry=self.registry,
            ),
            "orphan_pod",
            "row_missing",
            "row_status",
            "row_address",
        )
        self.audit_age = Gauge(
            "ecm_audit_age_seconds",
            "Time since the last audit of API, pods and rows ended; before the first, since this replica began to lead."
            " NaN where it does not lead.",
            registry=self.registry,
        )
        self.canary_seconds = Histogram(
            "ecm_canary_seconds",
            "From the creation of a canary engine to its final row in the database.",
            buckets=_CANARY_BUCKETS,
            registry=self.registry,
        )
        self.canary_failures = from_zero(
            Counter(
                "ecm_canary_failures",
                "Canary rounds that did not end in time, by the phase that they got stuck in.",
                ["phase"],
                registry=self.registry,
            ),
            "create",
            "refused",
            "watch",
            "decide",
            "database",
        )
        self.canary_ok = Gauge(
            "ecm_canary_ok",
            "1 while the last canary round ended in time, 0 while it did not. NaN before the first round, and where"
            " this replica does not lead.",
            registry=self.registry,
        )
        self.canary_ok.set(NAN)
        self.clock_skew = Gauge(
            "ecm_clock_skew_seconds",
            "How far the wall clock has jumped from the process's own since its start.",
            registry=self.registry,
        )
        self.reports = Counter(
            "ecm_reports", "Reports of agents, by the status of the answer.", ["code"], registry=self.registry
        )
        self.limits = from_zero(
            Counter(
                "ecm_report_refusals",
                "What the operator refused of agents by the limit reached: body, body_time, encoding,"
                " rate (an engine's reports), sequence (far beyond the last).",
                ["limit"],
                registry=self.registry,
            ),
            "body",
            "body_time",
            "encoding",
            "rate",
            "sequence",
        )
        self.engine_refusals = engine_refusals(self.registry)
        self.connections = ConnectionMetrics(self.registry)
        self.namespaces_unserved = Gauge(
            "ecm_namespaces_unserved",
            "Watched namespaces that are gone, or in which the operator has no rights.",
            registry=self.registry,
        )
        self.namespaces_waiting = Gauge(
            "ecm_namespaces_waiting",
            "Namespaces of this shard that it does not serve although it leads: another one still does, or it cannot"
            " claim them.",
            registry=self.registry,
        )
        self.shards = Gauge(
            "ecm_shards",
            "Operators that share this installation's namespaces; 1 without shards.",
            registry=self.registry,
        )
        self.policies_missing = Gauge(
            "ecm_admission_policies_missing",
            "1 while an admission policy of the chart, or its binding, is not in force: no new engine is started.",
            registry=self.registry,
        )
        self.rows_unwatched = Gauge(
            "ecm_rows_unwatched",
            "Open rows of namespaces that are not watched or not served: nobody ends them.",
            registry=self.registry,
        )
        self.leading = Gauge("ecm_leading", "1 while this replica holds the Lease.", registry=self.registry)

    def watch_engines(
        self, engines: Callable[[], Iterable[EngineView]], *, known_types: Callable[[], Iterable[str]] = tuple
    ) -> None:
        """Counts these engines at each scrape; `known_types` are the catalogue's."""
        self._engines.watch(lambda: [_labels(engine) for engine in engines()], known_types=known_types)
        self._paused.set_function(lambda: _count(engines(), lambda conditions: soft_paused(conditions) == "True"))
        self._too_small.set_function(lambda: _count(engines(), too_small))
        self._owners.watch(lambda: [owner_of(engine) for engine in engines() if engine.state not in FINAL])

    def watch_usage(self, reports: Callable[[], Iterable[tuple[EngineView, Report]]], *, limit: int) -> None:
        """Shows the usage of at most `limit` engines, as their agents have reported it."""
        self._usage.watch(lambda: [_usage(engine, report) for engine, report in reports()], limit=limit)

    def _forget_ends(self, label: str, value: str) -> None:
        """Remove the time series of a value that made room for another."""
        samples = [sample for metric in self.ends.collect() for sample in metric.samples]
        for labels in (sample.labels for sample in samples if sample.name.endswith("_total")):
            if labels[label] == value:
                self.ends.remove(*(labels[name] for name in _ENDS_LABELS))

    def labels_of(self, engine: EngineView) -> tuple[str, str]:
        """The engine's values of the labels engine_type and tenant."""
        _, kind, tenant = _labels(engine)
        return self._engines.engine_types.of(kind), self._engines.tenants.of(tenant)


class ArchiveMetrics:
    """The archive of ended engines, as of the last look at its index."""

    def __init__(self, registry: Registry) -> None:
        self._bytes = Gauge(
            "ecm_archive_bytes",
            "Bytes of all files in the archive. NaN before the first look, and where this replica does not lead.",
            registry=registry,
        )
        self._most = Gauge(
            "ecm_archive_max_bytes",
            "Bytes that the archive may have; the oldest files of the user who has most are deleted beyond it.",
            registry=registry,
        )
        self._age = Gauge(
            "ecm_archive_oldest_age_seconds",
            "Age of the oldest files in the archive; 0 without one. NaN where the bytes are.",
            registry=registry,
        )

    def watch(self, size: Callable[[], tuple[int, float] | None], *, most: int) -> None:
        """Asks `size` at each scrape for the bytes and the oldest age; None: they are not known here."""
        self._bytes.set_function(lambda: float((size() or (NAN, NAN))[0]))
        self._age.set_function(lambda: (size() or (NAN, NAN))[1])
        self._most.set(most)


def _count(engines: Iterable[EngineView], holds: Callable[[Any], bool]) -> float:
    """How many of them have not ended and have such conditions."""
    return float(sum(holds(engine.status.get("conditions")) for engine in engines if engine.state not in FINAL))


def owner_of(engine: EngineView) -> str:
    """The engine's user; empty where its spec cannot be read."""
    return engine.spec.user if engine.spec is not None else ""


def _usage(engine: EngineView, report: Report) -> EngineUsage:
    _, kind, _ = _labels(engine)
    cpu, memory = report.usage.get("cpuSeconds", 0.0), report.usage.get("memoryBytes", 0.0)
    return EngineUsage(ticket_id(engine), owner_of(engine), kind, cpu, memory)


def _labels(engine: EngineView) -> EngineLabels:
    """State, engine type and tenant; empty where it has none."""
    spec = engine.spec
    kind = engine.text("engineType") or (spec.engine_type if spec is not None else "") or ""
    return str(engine.state or "New"), kind, (spec.tenant if spec is not None else "") or ""

"""The operator's Prometheus metrics, in one place so that dashboards find them. Must not compute anything."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from linkis_ecm.engine.view import EngineView

# From 50 ms (a claim of a warm engine) to 10 minutes (an image pulled over a slow line).
_START_BUCKETS = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 120, 300, 600)

QUEUE_DEPTH = Gauge("ecm_queue_depth", "Engines that wait for a worker")
QUEUE_AGE = Gauge("ecm_queue_oldest_seconds", "How long the first engine of the queue has waited")
PASS_SECONDS = Histogram("ecm_pass_seconds", "One pass over one engine, its writes included")
PASS_ERRORS = Counter("ecm_pass_errors_total", "Passes that failed and are tried again", ["kind"])
POISON = Gauge("ecm_poison_engines", "Engines whose last passes all failed")
START_SECONDS = Histogram(
    "ecm_engine_start_seconds",
    "From an engine's acceptance to each phase of its start; ready is the whole",
    ["phase", "start"],
    buckets=_START_BUCKETS,
)
ENDS = Counter("ecm_engine_ends_total", "Engines that ended, by reason", ["reason", "engine_type", "tenant"])
SILENT = Gauge("ecm_silent_engines", "Engines that are up and whose agents do not report")
DEAF = Gauge("ecm_deaf", "1 while so many agents are silent that none of them is called lost")
EVIDENCE = Counter("ecm_post_mortems_total", "Post-mortem bundles by how complete they are", ["outcome"])
UPLOADS = Counter("ecm_uploads_total", "Log files that agents sent, by outcome", ["outcome"])
UPLOAD_BYTES = Counter("ecm_upload_bytes_total", "Bytes of log files that agents sent")
DRIFT = Counter("ecm_drift_total", "Differences between API, pods and rows that the audit found and repaired", ["kind"])
AUDIT_SECONDS = Gauge("ecm_audit_age_seconds", "Time since the last audit of API, pods and rows ended")
CANARY_SECONDS = Histogram(
    "ecm_canary_seconds",
    "From the creation of a canary engine to its final row in the database",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30),
)
CANARY_FAILURES = Counter("ecm_canary_failures_total", "Canary rounds that did not end in time, by where", ["phase"])
CANARY_OK = Gauge("ecm_canary_ok", "1 while the last canary round ended in time")
CLOCK_SKEW = Gauge("ecm_clock_skew_seconds", "How far the wall clock has jumped from the process's own since its start")
REPORTS = Counter("ecm_reports_total", "Reports of agents by answer", ["code"])
LEADING = Gauge("ecm_leading", "1 while this replica holds the Lease")


def labels_of(engine: EngineView) -> tuple[str, str]:
    """Engine type and tenant, empty where it has none."""
    spec = engine.spec
    kind = engine.text("engineType") or (spec.engine_type if spec is not None else "") or ""
    return kind, (spec.tenant if spec is not None else "") or ""


class EnginesByLabel(Collector):
    """`ecm_engines`: counted when somebody looks, over whatever cache was shown last."""

    def __init__(self) -> None:
        self._engines: Mapping[tuple[str, str], EngineView] = {}

    def show(self, engines: Mapping[tuple[str, str], EngineView]) -> None:
        self._engines = engines

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily("ecm_engines", "Engines in the API", labels=["state", "engine_type", "tenant"])
        found = Tally((str(e.state or "New"), *labels_of(e)) for e in list(self._engines.values()))
        for labels, count in sorted(found.items()):
            family.add_metric(list(labels), count)
        yield family


ENGINES = EnginesByLabel()
REGISTRY.register(ENGINES)

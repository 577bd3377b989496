"""The operator's Prometheus metrics, in one place so that dashboards find them. Must not compute anything."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

# From 50 ms (a claim of a warm engine) to 10 minutes (an image pulled over a slow line).
_START_BUCKETS = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 120, 300, 600)

QUEUE_DEPTH = Gauge("ecm_queue_depth", "Engines that wait for a worker")
QUEUE_AGE = Gauge("ecm_queue_oldest_seconds", "How long the first engine of the queue has waited")
PASS_SECONDS = Histogram("ecm_pass_seconds", "One pass over one engine, its writes included")
PASS_ERRORS = Counter("ecm_pass_errors_total", "Passes that failed and are tried again", ["kind"])
POISON = Gauge("ecm_poison_engines", "Engines whose last passes all failed")
ENGINES = Gauge("ecm_engines", "Engines in the API by state", ["state"])
START_SECONDS = Histogram(
    "ecm_engine_start_seconds", "From first sight of an engine to its kernel's first answer", buckets=_START_BUCKETS
)
ENDS = Counter("ecm_engine_ends_total", "Engines that ended, by reason", ["reason"])
REPORTS = Counter("ecm_reports_total", "Reports of agents by answer", ["code"])
LEADING = Gauge("ecm_leading", "1 while this replica holds the Lease")

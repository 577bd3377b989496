"""The Prometheus metrics of the two ways into the database. Only declares them, and imports no SQLAlchemy."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class SinkMetrics:
    """Records of engines on their way into the database (`store.sink`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._depth = Gauge("ecm_sink_depth", "Records that wait for the database.", registry=registry)
        self._lag = Gauge(
            "ecm_sink_lag_seconds",
            "Age of the oldest record that is not in the database; 0 without one.",
            registry=registry,
        )
        self.rows = Counter("ecm_sink_rows", "Records written that changed something.", registry=registry)
        self.errors = Counter("ecm_sink_errors", "Failed tries to write a batch.", ["error"], registry=registry)
        self.refused = Counter(
            "ecm_sink_refused", "Records that the database refuses and that were left out.", registry=registry
        )
        self.dropped = Counter(
            "ecm_sink_transitions_dropped", "Transitions of engines that did not fit the backlog.", registry=registry
        )

    def watch(self, *, depth: Callable[[], int], lag: Callable[[], float]) -> None:
        """Asks these at each scrape."""
        self._depth.set_function(lambda: float(depth()))
        self._lag.set_function(lag)


class JournalMetrics:
    """Executions on their way into the database (`store.journal`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._depth = Gauge("ecm_journal_depth", "Executions that wait for the database.", registry=registry)
        self.dropped = Counter(
            "ecm_journal_dropped",
            "Executions that were left out: they did not fit the backlog, or the database refuses them.",
            registry=registry,
        )
        self.errors = Counter("ecm_journal_errors", "Failed tries to write a batch.", ["error"], registry=registry)

    def watch(self, *, depth: Callable[[], int]) -> None:
        """Asks this at each scrape."""
        self._depth.set_function(lambda: float(depth()))

"""The gateway's Prometheus metrics, in a registry of its own so that two gateways in one process do not clash."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# From a status out of the cache to code that runs for minutes.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """What is counted. `method` is a name of the route table or "other": never what a caller wrote."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "ecm_gateway_requests", "Calls by method and HTTP status.", ("method", "code"), registry=self.registry
        )
        self.seconds = Histogram(
            "ecm_gateway_request_seconds",
            "How long calls took, waiting for engines included.",
            ("method",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        # Calls under way: what the gateway bounds itself by, shown at each scrape.
        self.calls = 0
        Gauge("ecm_gateway_requests_under_way", "Calls under way.", registry=self.registry).set_function(
            lambda: self.calls
        )
        self.agent_errors = Counter(
            "ecm_gateway_agent_errors", "Agents that did not answer as they should.", ("kind",), registry=self.registry
        )
        self.download_bytes = Counter("ecm_gateway_download_bytes", "Log bytes sent.", registry=self.registry)
        self.answers_cut = Counter(
            "ecm_gateway_answers_cut", "Answers that ended early, by who left.", ("side",), registry=self.registry
        )
        self.errors = Counter("ecm_gateway_unexpected_errors", "Calls that ended as a bug.", registry=self.registry)

    def watch_engines(self, states: Callable[[], Mapping[str, int]]) -> None:
        """Show how many engines the cache has in each state, counted at each scrape."""
        self.registry.register(_Engines(states))

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


class _Engines(Collector):
    def __init__(self, states: Callable[[], Mapping[str, int]]) -> None:
        self._states = states

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily("ecm_gateway_engines", "Engines in the gateway's cache.", labels=["status"])
        for state, count in self._states().items():
            family.add_metric([state], count)
        yield family

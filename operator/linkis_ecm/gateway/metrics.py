"""Everything that a gateway's process counts, in one registry. Must not compute anything.

Each gateway has a registry of its own, so that several in one process (tests) do not clash.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram

from linkis_ecm.kube.metrics import KubeMetrics
from linkis_ecm.process.registry import ConnectionMetrics, EngineCount, EngineLabels, Registry, engine_refusals
from linkis_ecm.store.metrics import JournalMetrics

# From a status out of the cache to code that runs for minutes.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Budget(Protocol):
    """The byte budget, as far as it is shown."""

    @property
    def held(self) -> int: ...

    @property
    def stalled_seconds(self) -> float: ...


class Certificate(Protocol):
    """The certificate of the gateway's port, as far as it is shown."""

    @property
    def expires(self) -> float: ...


class Metrics:
    """The gateway's registry and all its families. The label `method` never holds what a caller wrote."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.kube = KubeMetrics(self.registry)
        self.journal = JournalMetrics(self.registry)
        self._engines = EngineCount(registry=self.registry)
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
        # Calls in flight: what the gateway bounds itself by.
        self.calls = 0
        Gauge(
            "ecm_gateway_requests_in_flight", "Calls that are not answered yet.", registry=self.registry
        ).set_function(lambda: self.calls)
        self.agent_errors = Counter(
            "ecm_gateway_agent_errors",
            "Requests to agents that failed, by kind: connect, timeout, token, broken, bad_response.",
            ("kind",),
            registry=self.registry,
        )
        self.download_bytes = Counter("ecm_gateway_download_bytes", "Bytes of logs sent.", registry=self.registry)
        self.answers_cut = Counter(
            "ecm_gateway_responses_aborted",
            "Responses that ended early, by the side that left.",
            ("side",),
            registry=self.registry,
        )
        self.limits = Counter(
            "ecm_gateway_refusals",
            "Refused calls by the limit reached: body, body_time, budget (memory), calls (a user's at once), encoding,"
            " logins (failed, of an address), lookups, rate (a user's), requests (all at a time).",
            ("limit",),
            registry=self.registry,
        )
        self._held = Gauge(
            "ecm_gateway_held_bytes", "Bytes of bodies and pages that are reserved in memory.", registry=self.registry
        )
        self._stalled = Gauge(
            "ecm_gateway_budget_stalled_seconds",
            "Time for which calls wait for memory and none is freed; /readyz fails when it is too long.",
            registry=self.registry,
        )
        self.connections = ConnectionMetrics(self.registry)
        self.engine_refusals = engine_refusals(self.registry)
        self.errors = Counter(
            "ecm_gateway_unexpected_errors",
            "Calls that failed by an error in the gateway itself.",
            registry=self.registry,
        )

        self._expires = Gauge(
            "ecm_gateway_tls_certificate_expiry_timestamp_seconds",
            "When the certificate in use expires, in seconds since 1970; NaN without TLS.",
            registry=self.registry,
        )
        self._expires.set(math.nan)
        self._tls_reloads = Counter(
            "ecm_gateway_tls_reloads",
            "Changed pairs of certificate and key, by result: success, or failure (the pair before stays in use).",
            ("result",),
            registry=self.registry,
        )

    def watch_certificate(self, certificate: Certificate) -> None:
        """Shows when the certificate in use expires."""
        self._expires.set_function(lambda: certificate.expires)

    def count_tls_reload(self, result: str) -> None:
        """Counts a changed pair; `result` is success or failure."""
        self._tls_reloads.labels(result).inc()

    def watch_budget(self, budget: Budget) -> None:
        """Shows the bytes of bodies and pages that are held."""
        self._held.set_function(lambda: budget.held)
        self._stalled.set_function(lambda: budget.stalled_seconds)

    def watch_engines(self, engines: Callable[[], Iterable[EngineLabels]]) -> None:
        """Counts these engines at each scrape."""
        self._engines.watch(engines)

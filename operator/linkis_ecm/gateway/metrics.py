"""Everything that a gateway's process counts, in one registry. Must not compute anything.

Each gateway has a registry of its own, so that several in one process (tests) do not clash.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram

from linkis_ecm.kube.metrics import KubeMetrics
from linkis_ecm.process.engine_metrics import build_info, exemplar_of
from linkis_ecm.process.registry import (
    ConnectionMetrics,
    EngineCount,
    EngineLabels,
    Registry,
    engine_refusals,
    from_zero,
)
from linkis_ecm.store.metrics import JournalMetrics

# From a status out of the cache to code that runs for minutes.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


# From a cell that is evaluated at once to a job of a day.
_TASK_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400)
# From a claim of a free engine, one PATCH, to the longest start that is waited for.
_WAIT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)


class Budget(Protocol):
    """The byte budget, as far as it is shown."""

    @property
    def total(self) -> int: ...

    @property
    def held(self) -> int: ...

    @property
    def stalled_seconds(self) -> float: ...


class Certificate(Protocol):
    """The certificate of the gateway's port, as far as it is shown."""

    @property
    def begins(self) -> float: ...

    @property
    def expires(self) -> float: ...


class Metrics:
    """The gateway's registry and all its families. The label `method` never holds what a caller wrote."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.kube = KubeMetrics(self.registry)
        self.journal = JournalMetrics(self.registry)
        build_info(self.registry)
        self._engines = EngineCount(registry=self.registry)
        self.tasks = TaskMetrics(self.registry)
        self._engine_wait = from_zero(
            Histogram(
                "ecm_gateway_engine_wait_seconds",
                "From a call that asks for an engine to the moment in which it can be used, by where the engine came"
                " from. Calls that do not wait are not counted.",
                ("origin",),
                buckets=_WAIT_BUCKETS,
                registry=self.registry,
            ),
            "cold",
            "reuse",
        )
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
        self._streams = Gauge(
            "ecm_gateway_streams",
            "Streams that are open (watchEngines, taskEvents, followEngineLog); they are no calls in flight.",
            registry=self.registry,
        )
        self._followers = Gauge(
            "ecm_gateway_task_followers",
            "Followers of tasks (taskEvents), by where they read: own (a connection to the agent), shared (one for all"
            " followers of the task).",
            ("source",),
            registry=self.registry,
        )
        self.followers_behind = Counter(
            "ecm_gateway_task_followers_behind",
            "Followers of a task that did not take what all are sent, and read on by themselves.",
            registry=self.registry,
        )
        self.agent_errors = from_zero(
            Counter(
                "ecm_gateway_agent_errors",
                "Requests to agents that failed, by kind: connect, timeout, token, broken, bad_response.",
                ("kind",),
                registry=self.registry,
            ),
            "connect",
            "timeout",
            "token",
            "broken",
            "bad_response",
        )
        self.download_bytes = Counter("ecm_gateway_download_bytes", "Bytes of logs sent.", registry=self.registry)
        self.answers_cut = from_zero(
            Counter(
                "ecm_gateway_responses_aborted",
                "Responses that ended early, by the side that left: client, engine, or gateway (it stops, or the"
                " caller's login or rights have ended).",
                ("side",),
                registry=self.registry,
            ),
            "client",
            "engine",
            "gateway",
        )
        self.limits = from_zero(
            Counter(
                "ecm_gateway_refusals",
                "Refused calls by limit: body, body_time, budget (memory), calls (a user's), encoding, logins (failed,"
                " of an address), lookups, rate (a user's), requests (all), streams (open).",
                ("limit",),
                registry=self.registry,
            ),
            "body",
            "body_time",
            "budget",
            "calls",
            "encoding",
            "logins",
            "lookups",
            "rate",
            "requests",
            "streams",
        )
        self._held = Gauge(
            "ecm_gateway_held_bytes", "Bytes of bodies and pages that are reserved in memory.", registry=self.registry
        )
        self._budget = Gauge(
            "ecm_gateway_held_max_bytes", "Bytes of bodies and pages that may be reserved.", registry=self.registry
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
        self._begins = Gauge(
            "ecm_gateway_tls_certificate_start_timestamp_seconds",
            "From when the certificate in use is valid, in seconds since 1970; NaN without TLS.",
            registry=self.registry,
        )
        self._begins.set(math.nan)
        self._token_expires = Gauge(
            "ecm_gateway_token_expiry_timestamp_seconds",
            "When the first of Linkis's tokens ends or has ended, in seconds since 1970; NaN where none ends.",
            registry=self.registry,
        )
        self._token_expires.set(math.nan)
        self._tls_reloads = from_zero(
            Counter(
                "ecm_gateway_tls_reloads",
                "Changed pairs of certificate and key, by result: success, or failure (the pair before stays in use).",
                ("result",),
                registry=self.registry,
            ),
            "success",
            "failure",
        )

    def got_engine(self, ticket: str, origin: str, seconds: float) -> None:
        """Counts an engine that a call has waited for; `origin` is cold or reuse."""
        self._engine_wait.labels(origin).observe(max(0.0, seconds), exemplar_of(ticket))

    def watch_certificate(self, certificate: Certificate) -> None:
        """Shows from when to when the certificate in use is valid."""
        self._begins.set_function(lambda: certificate.begins)
        self._expires.set_function(lambda: certificate.expires)

    def watch_tokens(self, first_expiry: Callable[[], float]) -> None:
        """Shows when the first of the tokens ends, at each scrape."""
        self._token_expires.set_function(first_expiry)

    def count_tls_reload(self, result: str) -> None:
        """Counts a changed pair; `result` is success or failure."""
        self._tls_reloads.labels(result).inc()

    def watch_budget(self, budget: Budget) -> None:
        """Shows the bytes of bodies and pages that are held, and how many may be."""
        self._budget.set(budget.total)
        self._held.set_function(lambda: budget.held)
        self._stalled.set_function(lambda: budget.stalled_seconds)

    def watch_streams(self, count: Callable[[], int]) -> None:
        """Shows how many streams are open."""
        self._streams.set_function(count)

    def watch_followers(self, *, own: Callable[[], int], shared: Callable[[], int]) -> None:
        """Shows how many followers of tasks there are, by where they read."""
        self._followers.labels("own").set_function(own)
        self._followers.labels("shared").set_function(shared)

    def watch_engines(
        self, engines: Callable[[], Iterable[EngineLabels]], *, known_types: Callable[[], Iterable[str]] = tuple
    ) -> None:
        """Counts these engines at each scrape; `known_types` are the catalogue's."""
        self._engines.watch(engines, known_types=known_types)


class TaskMetrics:
    """Requests to run code, counted once each by the gateway that learns of their end."""

    def __init__(self, registry: Registry) -> None:
        self._ended = from_zero(
            Counter(
                "ecm_tasks",
                "Tasks that ended, by outcome: Succeed, Failed, Cancelled, Timeout, Lost, Refused (its engine did not"
                " take it).",
                ("outcome",),
                registry=registry,
            ),
            "Succeed",
            "Failed",
            "Cancelled",
            "Timeout",
            "Lost",
            "Refused",
        )
        self._seconds = from_zero(
            Histogram(
                "ecm_task_seconds",
                "From a task's begin in its engine to its end, by outcome as in ecm_tasks_total.",
                ("outcome",),
                buckets=_TASK_BUCKETS,
                registry=registry,
            ),
            "Succeed",
            "Failed",
            "Cancelled",
            "Timeout",
        )
        self._wait = Histogram(
            "ecm_task_wait_seconds",
            "From a task's acceptance by the gateway to its begin in its engine.",
            buckets=_TASK_BUCKETS,
            registry=registry,
        )

    def ended(self, ticket: str, outcome: str, *, seconds: float | None, waited: float | None) -> None:
        """Counts one task. A time that is not known is None."""
        exemplar = exemplar_of(ticket)
        self._ended.labels(outcome).inc()
        if seconds is not None:
            self._seconds.labels(outcome).observe(seconds, exemplar)
        if waited is not None:
            self._wait.observe(waited, exemplar)

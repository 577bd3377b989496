"""One registry of Prometheus metrics for each process: everything that the process counts is in it, and is scraped.

Classes of metrics (`KubeMetrics`, `JournalMetrics` and so on) take the registry as an argument; a process makes one
registry and passes it to all of them. Must not declare what a process counts.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from linkis_ecm.process.connections import Connections

CONTENT_TYPE = CONTENT_TYPE_LATEST
PREFIX = "ecm_"
# Each label that we use: what it says, and what bounds its values. A test refuses a family with any other label, since
# a label with endless values is a time series each, in this process's memory and in Prometheus's.
LABELS: Mapping[str, str] = {
    "cause": "Why a watch ended: ended, silent, relist, or the class of the error.",
    "change": "gained or lost.",
    "code": "An HTTP status; 0: no answer, 499: the caller left first.",
    "controller": "The kind of object that a work loop reconciles, such as engine.",
    "engine_type": "The engine's type; at most 100 values at a time, then `other`.",
    "error": "The class of an error.",
    "kind": "One of a fixed list that the family's text names.",
    "limit": "The limit that was reached, one of a fixed list that the family's text names.",
    "method": "A name of the gateway's route table, or other.",
    "origin": "Where an engine got its pod from: cold (made for it).",
    "port": "The port by what it serves: api or metrics (the gateway's), reports or health (the operator's).",
    "outcome": "One of a fixed list that the family's text names.",
    "phase": "A phase of an engine's start, or of a canary round.",
    "reason": "A reason of model/reasons.py.",
    "resource": "A kind of the Kubernetes API that we use, in the plural; with /status or /log for that part of it.",
    "result": "success or failure.",
    "side": "client or engine.",
    "state": "A state of Linkis's; New: no operator has looked at the engine yet.",
    "tenant": "The engine's tenant, empty where it has none; at most 100 values at a time, then `other`.",
    "verb": "A verb of the Kubernetes API.",
}
# What users may choose freely is bounded by this number of values for one label: as many tenants as fit a dashboard.
VALUES_MAX = 100
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Family:
    """One family of metrics as Prometheus sees it: `name` with its suffix, such as _total."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...]


class Registry(CollectorRegistry):
    """The metrics of one process, with those of the process itself (memory, files, garbage collection)."""

    def __init__(self) -> None:
        super().__init__()
        # Prometheus's server makes no use of the times when each series began to count.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._collectors: list[Collector] = []
        ProcessCollector(registry=self)
        PlatformCollector(registry=self)
        GCCollector(registry=self)

    def register(self, collector: Collector) -> None:
        super().register(collector)
        self._collectors.append(collector)

    def families(self) -> list[Family]:
        """Our own families, by name: also those of which nothing was counted yet."""
        found = []
        for collector in self._collectors:
            for metric in collector.describe() if hasattr(collector, "describe") else collector.collect():
                if metric.name.startswith(PREFIX):
                    # The one place that has the label names of a family without any value.
                    labels: tuple[str, ...] = getattr(collector, "_labelnames", getattr(metric, "_labelnames", ()))
                    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
                    found.append(Family(name, metric.type, metric.documentation, tuple(labels)))
        return sorted(found, key=lambda family: family.name)

    def text(self) -> bytes:
        """Everything in Prometheus's exposition format; its media type is CONTENT_TYPE."""
        return generate_latest(self)


class BoundedValues:
    """The values of one label: at most VALUES_MAX at a time as they are, all others as `other`.

    A value that no object has any more makes room for a new one, the one that was used longest ago first. Else values
    that somebody made up once would stand in the way of real ones until the process ends. `on_evict` is called with
    each such value: its time series are to be removed.
    """

    def __init__(self, limit: int = VALUES_MAX) -> None:
        self._limit = limit
        # The one that was used longest ago first.
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._present: frozenset[str] = frozenset()
        self.on_evict: Callable[[str], None] = lambda _: None

    def keep(self, present: Iterable[str]) -> None:
        """Objects have these values now: none of them makes room for another."""
        self._present = frozenset(present)

    def of(self, value: str) -> str:
        """The label's value for what a user has chosen."""
        if value not in self._seen and len(self._seen) >= self._limit:
            absent = next((one for one in self._seen if one not in self._present), None)
            if absent is None:
                return OTHER
            del self._seen[absent]
            self.on_evict(absent)
        self._seen[value] = None
        self._seen.move_to_end(value)
        return value


# State, engine type and tenant of one engine.
EngineLabels = tuple[str, str, str]


class EngineCount(Collector):
    """`ecm_engines`: the engines that a process knows, counted at each scrape. The same family in each process."""

    def __init__(self, *, registry: CollectorRegistry) -> None:
        self._engines: Callable[[], Iterable[EngineLabels]] = tuple
        self.engine_types = BoundedValues()
        self.tenants = BoundedValues()
        registry.register(self)

    def watch(self, engines: Callable[[], Iterable[EngineLabels]]) -> None:
        """Count these from now on."""
        self._engines = engines

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "ecm_engines", "Engines that this process knows from the Kubernetes API, by state.",
            labels=["state", "engine_type", "tenant"],
        )  # fmt: skip
        engines = list(self._engines())
        self.engine_types.keep(kind for _, kind, _ in engines)
        self.tenants.keep(tenant for _, _, tenant in engines)
        found = Tally((state, self.engine_types.of(kind), self.tenants.of(tenant)) for state, kind, tenant in engines)
        for labels, count in sorted(found.items()):
            family.add_metric(list(labels), count)
        yield family


def engine_refusals(registry: CollectorRegistry) -> Counter:
    """`ecm_engine_refusals`: the same family in each process."""
    return Counter(
        "ecm_engine_refusals",
        "Engines that were refused, or wait, for a limit of people: user_engines, user_cpu, user_memory,"
        " user_extended, namespace_engines, namespace_cpu, namespace_memory, namespace_extended.",
        ["limit"],
        registry=registry,
    )


class ConnectionMetrics:
    """`ecm_connections` and `ecm_connections_cut`: the same families in each process, for each port that it serves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._open = Gauge(
            "ecm_connections",
            "Open connections by kind: stranger (no login on it, or in its handshake), known (a login on it).",
            ["port", "kind"],
            registry=registry,
        )
        self._cut = Counter(
            "ecm_connections_cut",
            "Connections refused or cut by kind: peer (its address has too many), full (no place), replaced (by a newer"
            " one), silent (no request in time), slow (no login and no answer in time).",
            ["port", "kind"],
            registry=registry,
        )

    def of(self, port: str) -> PortConnections:
        """Those of one port."""
        return PortConnections(port, self._open, self._cut)


class PortConnections:
    """The counts of one port's connections (`process.connections.Counts`)."""

    def __init__(self, port: str, opened: Gauge, cut: Counter) -> None:
        self._port = port
        self._open = opened
        self._cut = cut

    def watch(self, connections: Connections) -> None:
        self._open.labels(self._port, "stranger").set_function(lambda: connections.strangers)
        self._open.labels(self._port, "known").set_function(lambda: connections.known)

    def cut(self, reason: str) -> None:
        self._cut.labels(self._port, reason).inc()

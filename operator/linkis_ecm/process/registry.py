"""One registry of Prometheus metrics for each process: everything that the process counts is in it, and is scraped.

Classes of metrics (`KubeMetrics`, `JournalMetrics` and so on) take the registry as an argument; a process makes one
registry and passes it to all of them. Must not declare what a process counts.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPEN_METRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as open_metrics
from prometheus_client.registry import Collector

from linkis_ecm.process.ports.connections import Connections

CONTENT_TYPE = CONTENT_TYPE_LATEST
OPEN_METRICS_CONTENT_TYPE = OPEN_METRICS_TYPE
PREFIX = "ecm_"
# Each label that we use: what it says, and what bounds its values. A test refuses a family with any other label, since
# a label with endless values is a time series each, in this process's memory and in Prometheus's.
LABELS: Mapping[str, str] = {
    "cause": "Why a watch ended: ended, silent, relist, or the class of the error.",
    "change": "gained or lost.",
    "code": "An HTTP status; 0: no answer, 499: the caller left first.",
    "controller": "The kind of object that a work loop reconciles, such as engine.",
    "direction": "down (less cpu) or up.",
    "engine_type": "The engine's type; at most 100 values at a time, then `other`.",
    "error": "The class of an error.",
    "kind": "One of a fixed list that the family's text names.",
    "limit": "The limit that was reached, one of a fixed list that the family's text names.",
    "method": "A name of the gateway's route table, or other.",
    "origin": "Where an engine came from: cold (made for the call), warm (of a pool), reuse (it was free).",
    "plugin": "An EngineConnPlugin that has a warm pool: the platform makes them.",
    "port": "The port by what it serves: api or metrics (the gateway's), reports or health (the operator's).",
    "outcome": "One of a fixed list that the family's text names.",
    "owner": "The engine's user; at most 100 values at a time, then `other`.",
    "phase": "A phase of an engine's start, or of a canary round.",
    "reason": "A reason of model/reasons.py; of a warm pool one of docs/warm-pools.md, or as the family's text says.",
    "resource": "A kind of the Kubernetes API that we use, in the plural; with /status or /log for that part of it.",
    "result": "success or failure.",
    "side": "client or engine.",
    "source": "Value, Schedule or Rate (docs/warm-pools.md).",
    "state": "A state of Linkis's; New: no operator has looked at the engine yet. Of a warm pool as its text says.",
    "tenant": "The engine's tenant, empty where it has none; at most 100 values at a time, then `other`.",
    "ticket": "An engine's ticketId, of as many engines at a time as ECM_METRICS_ENGINES says; by default of none.",
    "verb": "A verb of the Kubernetes API.",
    "version": "The version of the software.",
}
# What users may choose freely is bounded by this number of values for one label: as many tenants as fit a dashboard.
VALUES_MAX = 100
# What Prometheus calls the series of a family, behind the family's name.
_SUFFIXES = {"counter": "_total", "info": "_info"}
OTHER = "other"
# The type of the engines by which the operator checks itself (controller.selfchecks.canary).
CANARY_TYPE = "canary"
# Time series of ecm_engines that are shown one by one: ten states of a hundred types or tenants. States, types and
# tenants multiply to a hundred times as many.
SERIES_MAX = 1000


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
                    if metric.type == "info":
                        labels = tuple(name for one in collector.collect() for s in one.samples for name in s.labels)
                    name = f"{metric.name}{_SUFFIXES.get(metric.type, '')}"
                    found.append(Family(name, metric.type, metric.documentation, tuple(labels)))
        return sorted(found, key=lambda family: family.name)

    def text(self) -> bytes:
        """Everything in Prometheus's exposition format; its media type is CONTENT_TYPE."""
        return generate_latest(self)

    def open_metrics(self) -> bytes:
        """The same in OpenMetrics's format, which has exemplars; its media type is OPEN_METRICS_CONTENT_TYPE."""
        return bytes(open_metrics(self))  # type: ignore[no-untyped-call]


class BoundedValues:
    """The values of one label: at most VALUES_MAX at a time as they are, all others as `other`.

    A value that no object has any more makes room for a new one, the one that was used longest ago first. Else values
    that somebody made up once would stand in the way of real ones until the process ends. Of the values that objects
    have, the known ones come first, then those of most objects. `on_evict` is called with each value that made room:
    its time series are to be removed.
    """

    def __init__(self, limit: int = VALUES_MAX) -> None:
        self._limit = limit
        # The one that was used longest ago first.
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._present: frozenset[str] = frozenset()
        # Of these the ones that come first, as many as there are places.
        self._wanted: frozenset[str] = frozenset()
        self.on_evict: Callable[[str], None] = lambda _: None

    def keep(self, present: Iterable[str], *, known: Iterable[str] = ()) -> None:
        """Objects have these values now, one for each object: none of them makes room for one that comes after it."""
        found = Tally(present)
        order = dict.fromkeys((*(value for value in known if value in found), *dict(found.most_common())))
        self._present = frozenset(found)
        first = list(islice(order, self._limit))
        self._wanted = frozenset(first)
        # Now, and not while they are counted: what makes room must not have been counted before.
        for value in first:
            self.of(value)

    def of(self, value: str) -> str:
        """The label's value for what a user has chosen."""
        if value not in self._seen and len(self._seen) >= self._limit:
            stays = self._wanted if value in self._wanted else self._present
            absent = next((one for one in self._seen if one not in stays), None)
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
        self._known_types: Callable[[], Iterable[str]] = tuple
        self.engine_types = BoundedValues()
        self.tenants = BoundedValues()
        registry.register(self)

    def watch(
        self, engines: Callable[[], Iterable[EngineLabels]], *, known_types: Callable[[], Iterable[str]] = tuple
    ) -> None:
        """Count these from now on. `known_types`: the catalogue's engine types, which have series of their own before
        those that users have made up."""
        self._engines = engines
        self._known_types = known_types

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "ecm_engines", "Engines that this process knows from the Kubernetes API, by state.",
            labels=["state", "engine_type", "tenant"],
        )  # fmt: skip
        engines = list(self._engines())
        known = (CANARY_TYPE, *self._known_types())
        self.engine_types.keep((kind for _, kind, _ in engines), known=known)
        self.tenants.keep(tenant for _, _, tenant in engines)
        found = Tally((state, self.engine_types.of(kind), self.tenants.of(tenant)) for state, kind, tenant in engines)
        for labels, count in sorted(_fewer(found, frozenset(known)).items()):
            family.add_metric(list(labels), count)
        yield family


def _fewer(found: Tally[EngineLabels], known: frozenset[str]) -> Tally[EngineLabels]:
    """SERIES_MAX of the series, known types first, then those of most engines; of the rest the tenants are `other`, and
    the types that are not known."""
    if len(found) <= SERIES_MAX:
        return found
    order = sorted(found.items(), key=lambda one: (one[0][1] not in known, -one[1], one[0]))
    fewer = Tally(dict(order[:SERIES_MAX]))
    for (state, kind, _), count in order[SERIES_MAX:]:
        fewer[state, kind if kind in known else OTHER, OTHER] += count
    return fewer


_Counts = TypeVar("_Counts", Counter, Histogram)


def from_zero(family: _Counts, *values: str | Sequence[str]) -> _Counts:
    """The counter or histogram, whose label (or labels) has these values: each is shown from the start, with 0.

    Prometheus sees a counter increase only where it has seen it before.
    """
    for value in values:
        family.labels(*([value] if isinstance(value, str) else value))
    return family


# What the limits of people count (engine.admission.limits).
_LIMITED = ("engines", "cpu", "memory", "extended")


def engine_refusals(registry: CollectorRegistry) -> Counter:
    """`ecm_engine_refusals`: the same family in each process."""
    counter = Counter(
        "ecm_engine_refusals",
        "Engines that were refused, or wait, for a limit of people: user_engines, user_cpu, user_memory,"
        " user_extended, namespace_engines, namespace_cpu, namespace_memory, namespace_extended.",
        ["limit"],
        registry=registry,
    )
    limits = (f"{scope}_{what}" for scope in ("user", "namespace") for what in _LIMITED)
    return from_zero(counter, *limits)


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
    """The counts of one port's connections (`process.ports.connections.Counts`)."""

    def __init__(self, port: str, opened: Gauge, cut: Counter) -> None:
        self._port = port
        self._open = opened
        self._cut = cut

    def watch(self, connections: Connections) -> None:
        self._open.labels(self._port, "stranger").set_function(lambda: connections.strangers)
        self._open.labels(self._port, "known").set_function(lambda: connections.known)

    def cut(self, reason: str) -> None:
        self._cut.labels(self._port, reason).inc()

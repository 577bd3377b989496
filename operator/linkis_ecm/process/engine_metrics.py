"""What several processes count about engines, by owner and by engine, and the exemplars of histograms.

Users choose the values of these labels, so each family bounds its time series. Must not know where engines come from.
"""

from __future__ import annotations

import heapq
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from linkis_ecm import __version__
from linkis_ecm.process.registry import OTHER, VALUES_MAX, BoundedValues

# OpenMetrics allows this many characters for the names and values of an exemplar together.
EXEMPLAR_CHARS = 128
_TICKET = "ticket"


def exemplar_of(ticket: str) -> dict[str, str] | None:
    """The exemplar of an observation that belongs to one engine; None for no ticket, or one too long for it."""
    return {_TICKET: ticket} if 0 < len(ticket) <= EXEMPLAR_CHARS - len(_TICKET) else None


def build_info(registry: CollectorRegistry) -> None:
    """`ecm_build_info`: the same family in each process."""
    Info("ecm_build", "The version of this process.", registry=registry).info({"version": __version__})


class OwnerCount(Collector):
    """`ecm_owned_engines`: engines that have not ended, by owner, counted at each scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._owners: Callable[[], Iterable[str]] = tuple
        self._values = BoundedValues()
        registry.register(self)

    def watch(self, owners: Callable[[], Iterable[str]]) -> None:
        """Count these from now on: the owner of each engine that has not ended."""
        self._owners = owners

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily("ecm_owned_engines", "Engines that have not ended, by owner.", labels=["owner"])
        found = Tally(self._owners())
        # Those with most engines have their own series.
        most = found.most_common(VALUES_MAX)
        self._values.keep(owner for owner, _ in most)
        shown: Tally[str] = Tally()
        for owner, count in most:
            shown[self._values.of(owner)] += count
        if rest := found.total() - shown.total():
            shown[OTHER] += rest
        for owner, count in sorted(shown.items()):
            family.add_metric([owner], count)
        yield family


@dataclass(frozen=True, slots=True)
class EngineUsage:
    """What one engine uses, as its agent has reported it last: CPU seconds since its start, bytes of memory."""

    ticket: str
    owner: str
    engine_type: str
    cpu_seconds: float
    memory_bytes: float


class UsageByEngine(Collector):
    """`ecm_engine_cpu_seconds_total` and `ecm_engine_memory_bytes`: one series each for `limit` engines at most.

    Those with most memory are shown. An engine that is not watched any more has no series from then on.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._engines: Callable[[], Iterable[EngineUsage]] = tuple
        self._limit = 0
        registry.register(self)

    def watch(self, engines: Callable[[], Iterable[EngineUsage]], *, limit: int) -> None:
        """Show these from now on; a limit of 0 shows none."""
        self._engines, self._limit = engines, limit

    def collect(self) -> Iterable[Metric]:
        labels = ["ticket", "owner", "engine_type"]
        cpu = CounterMetricFamily("ecm_engine_cpu_seconds", "CPU time that an engine has used.", labels=labels)
        memory = GaugeMetricFamily(
            "ecm_engine_memory_bytes", "Memory that an engine uses: its working set.", labels=labels
        )
        if self._limit:
            # Not in a set order: the order of a page has no meaning.
            for one in heapq.nlargest(self._limit, self._engines(), key=lambda engine: engine.memory_bytes):
                values = [one.ticket, one.owner, one.engine_type]
                cpu.add_metric(values, one.cpu_seconds)
                memory.add_metric(values, one.memory_bytes)
        yield cpu
        yield memory


class LimitShares(Collector):
    """`ecm_engine_quota_used_ratio`: how much of each limit of people the one who has most of it uses."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._shares: Callable[[], Mapping[str, float]] = dict
        registry.register(self)

    def watch(self, shares: Callable[[], Mapping[str, float]]) -> None:
        """Ask this at each scrape: the share by limit, 1 for all of it."""
        self._shares = shares

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "ecm_engine_quota_used_ratio",
            "Part of a limit of people that is used, 1 is all: of the user or namespace that uses most of its own."
            " Absent for a limit that is not set.",
            labels=["limit"],
        )
        for limit, share in sorted(self._shares().items()):
            family.add_metric([limit], share)
        yield family

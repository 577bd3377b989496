"""The Prometheus metrics of everything that talks to the API server. Must not talk to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from linkis_ecm.process.registry import from_zero


@dataclass(frozen=True, slots=True, eq=False)
class _WatchedReflector:
    objects: Callable[[], int]
    age: Callable[[], float]
    unreadable: Callable[[], int]


class KubeMetrics:
    """Requests to the API server, and what reflectors see: in each process that has a KubeClient."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "ecm_kube_requests",
            "Requests sent to the API server, each try counted; code 0 means no answer.",
            ["verb", "resource", "code"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "ecm_kube_request_seconds",
            "Time of one try of a request to the API server, watches left out.",
            ["verb"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )
        self.retries = Counter("ecm_kube_retries", "Requests tried again.", ["verb", "resource"], registry=registry)
        self.reflector_events = Counter(
            "ecm_reflector_events",
            "Changes that a reflector saw, by kind: added, modified, deleted, dropped (repeated or old), unreadable.",
            ["resource", "kind"],
            registry=registry,
        )
        self.reflector_lists = Counter(
            "ecm_reflector_lists", "Full lists taken by a reflector.", ["resource"], registry=registry
        )
        self.reflector_watch_ends = Counter(
            "ecm_reflector_watch_ends", "Watches that ended, by cause.", ["resource", "cause"], registry=registry
        )
        self.reflector_objects = Gauge(
            "ecm_reflector_objects",
            "Objects of a kind that the process holds: a sum over its watched namespaces.",
            ["resource"],
            registry=registry,
        )
        self.reflector_last_event = Gauge(
            "ecm_reflector_last_event_age_seconds",
            "Time since the API server last sent something of a kind, in the watched namespace that has waited for"
            " longest; before the first list, since the reflector began.",
            ["resource"],
            registry=registry,
        )
        self.reflector_unreadable = Gauge(
            "ecm_reflector_unreadable_objects",
            "Objects of a kind that the API server has and the process cannot read, so that it does not know them, or"
            " knows an older version.",
            ["resource"],
            registry=registry,
        )
        self._reflectors: dict[str, list[_WatchedReflector]] = {}
        # What `labels` gives: to look it up there takes a lock and a tuple of texts, several times in each pass.
        self._requests: dict[tuple[str, str, int], Counter] = {}
        self._seconds: dict[str, Histogram] = {}
        self._events: dict[tuple[str, str], Counter] = {}

    def count_request(self, verb: str, resource: str, code: int, seconds: float | None = None) -> None:
        """One try of a request: the status of its answer, 0 for none, and how long it took; None for a watch."""
        key = (verb, resource, code)
        counter = self._requests.get(key)
        if counter is None:
            counter = self._requests[key] = self.requests.labels(verb, resource, str(code))
        counter.inc()
        if seconds is None:
            return
        histogram = self._seconds.get(verb)
        if histogram is None:
            histogram = self._seconds[verb] = self.request_seconds.labels(verb)
        histogram.observe(seconds)

    def count_event(self, resource: str, kind: str) -> None:
        """A change that a reflector of this resource saw; `kind` as in ecm_reflector_events."""
        counter = self._events.get((resource, kind))
        if counter is None:
            counter = self._events[resource, kind] = self.reflector_events.labels(resource, kind)
        counter.inc()

    @contextmanager
    def watch_reflector(
        self, resource: str, *, objects: Callable[[], int], age: Callable[[], float], unreadable: Callable[[], int]
    ) -> Iterator[None]:
        """Within the block, counts a reflector of this resource (in the plural) in the three gauges.

        `objects` is how many it holds, `unreadable` how many it cannot read, `age` the seconds since it last received
        something. There is one reflector for each watched namespace; a label for the namespace would clash with the
        one that Prometheus adds to a target.
        """
        watched = self._reflectors.setdefault(resource, [])
        if not watched:
            self.reflector_objects.labels(resource).set_function(lambda: float(sum(one.objects() for one in watched)))
            self.reflector_last_event.labels(resource).set_function(lambda: max(one.age() for one in watched))
            self.reflector_unreadable.labels(resource).set_function(
                lambda: float(sum(one.unreadable() for one in watched))
            )
        one = _WatchedReflector(objects, age, unreadable)
        watched.append(one)
        try:
            yield
        finally:
            watched.remove(one)
            if not watched:
                self.reflector_objects.remove(resource)
                self.reflector_last_event.remove(resource)
                self.reflector_unreadable.remove(resource)


class LeaseMetrics:
    """Leader election: in each process that contends for a Lease."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.changes = from_zero(
            Counter(
                "ecm_lease_changes",
                "Times this process gained or lost the Lease.",
                ["change"],
                registry=registry,
            ),
            "gained",
            "lost",
        )


class EventMetrics:
    """Kubernetes Events that this process writes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.events = from_zero(
            Counter(
                "ecm_kube_events",
                "Kubernetes Events by outcome: written, failed (tried once), dropped (too many at once).",
                ["outcome"],
                registry=registry,
            ),
            "written",
            "failed",
            "dropped",
        )

"""The Prometheus metrics of everything that talks to the API server. Only declares them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "ecm_kube_requests",
    "Requests sent to the API server, each try counted; code 0 means no answer",
    ["verb", "resource", "code"],
)
REQUEST_SECONDS = Histogram(
    "ecm_kube_request_seconds",
    "Time of one try of a request to the API server, watches left out",
    ["verb"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RETRIES = Counter("ecm_kube_retries", "Requests tried again", ["verb", "resource"])
REFLECTOR_EVENTS = Counter(
    "ecm_reflector_events",
    "Changes seen by a reflector; `dropped` are repeated or outdated",
    ["resource", "kind"],
)
REFLECTOR_LISTS = Counter("ecm_reflector_lists", "Full lists taken by a reflector", ["resource"])
REFLECTOR_WATCH_ENDS = Counter("ecm_reflector_watch_ends", "Watches that ended, by cause", ["resource", "cause"])
REFLECTOR_OBJECTS = Gauge("ecm_reflector_objects", "Objects held by a reflector", ["resource"])
REFLECTOR_LAST_EVENT = Gauge(
    "ecm_reflector_last_event_age_seconds", "Time since a reflector last heard from the API server", ["resource"]
)
LEASE_HELD = Gauge("ecm_lease_held", "1 where this process holds the lease", ["lease"])
LEASE_CHANGES = Counter("ecm_lease_changes", "Times the lease was gained or lost by this process", ["lease", "change"])
EVENTS = Counter("ecm_events", "Kubernetes Events by what became of them", ["outcome"])

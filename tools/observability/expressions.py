"""What is wrong with a PromQL expression: families that no process has, labels that a family has not.

Whether it parses at all is promtool's to say. Must not run anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from tools.reference import families

# What Prometheus adds to each series: where it was scraped. `le` is a histogram's own.
TARGET_LABELS = frozenset(
    {"cluster", "namespace", "release", "shard", "pod", "job", "instance", "container", "service"}
)
# Families of the process itself, of which prometheus_client has these.
PROCESS = {
    "process_resident_memory_bytes": frozenset[str](),
    "process_cpu_seconds_total": frozenset[str](),
    "process_open_fds": frozenset[str](),
    "process_max_fds": frozenset[str](),
    "process_start_time_seconds": frozenset[str](),
    "up": frozenset[str](),
}
_HISTOGRAM = ("_bucket", "_sum", "_count")
_SELECTOR = re.compile(r"\b(ecm_[a-z_]+|process_[a-z_]+|up)\b\s*(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)\s*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")


@cache
def series() -> Mapping[str, frozenset[str]]:
    """The labels of each time series that a process has, by its name."""
    return PROCESS | {name: labels for process in families() for name, labels in _series_of(process).items()}


@cache
def series_of_operators() -> frozenset[str]:
    """The time series that no other process has."""
    others = {name for process in families() if process != "operator" for name in _series_of(process)}
    return frozenset(set(_series_of("operator")) - others)


@cache
def _series_of(process: str) -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for family in families()[process]:
        labels = frozenset(family.labels)
        if family.type == "histogram":
            found |= {
                f"{family.name}{suffix}": labels | ({"le"} if suffix == "_bucket" else set()) for suffix in _HISTOGRAM
            }
        else:
            found[family.name] = labels
    return found


def names(expression: str) -> set[str]:
    """The time series that an expression asks for."""
    return {name for name, _ in _SELECTOR.findall(_GROUPING.sub("", expression))}


def problems(expression: str) -> list[str]:
    """Sentences; empty where all of it exists."""
    found, known = [], set(TARGET_LABELS)
    for name, matchers in _SELECTOR.findall(_GROUPING.sub("", expression)):
        if name not in series():
            found.append(f"no process has {name}")
            continue
        known |= series()[name]
        found += [
            f"{name} has no label {label}"
            for label in _MATCHER.findall(matchers)
            if label not in series()[name] | TARGET_LABELS
        ]
    for labels in _GROUPING.findall(expression):
        found += [
            f"nothing in it has the label {label}" for label in re.findall(r"[a-zA-Z_]+", labels) if label not in known
        ]
    return found

"""Which benchmarks a run has, in their order, and the time that each may take. Must not start one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from tools.cluster import binaries, tools

# Of the whole run, whatever happens in it.
SECONDS = 1500.0


def _always() -> str:
    return ""


def _cluster() -> str:
    """Starting a cluster takes longer than a run, and its processes are to stay."""
    return "" if tools.is_up() else "no cluster answers: `make cluster`"


def _control_plane() -> str:
    """Building the control plane takes longer than a run."""
    missing = [name for name in ("kube", "kubectl", "etcd", "kwok") if not binaries.cached(name).exists()]
    return f"not built yet: {', '.join(missing)}; `python -m bench.scale 100` builds them" if missing else ""


@dataclass(frozen=True, slots=True)
class Bench:
    """A benchmark: its command, the seconds that it may measure, and those for its cleaning behind them.

    `missing` says what it lacks on this machine, "" where it can run.
    """

    name: str
    command: tuple[str, ...]
    seconds: float
    cleaning: float = 10.0
    missing: Callable[[], str] = _always


def _module(*command: str) -> tuple[str, ...]:
    return sys.executable, "-m", *command


# Each has about twice the time that it takes on two quiet cores; a machine that is slower than that measures nothing
# of use. Those without a cluster come first, so that one that hangs cannot take their time.
PLAN = (
    Bench("calls", _module("bench.calls"), 150),
    Bench("streams", _module("bench.hot", "streams"), 100),
    Bench("results", _module("bench.hot", "results"), 90),
    Bench("crowd", _module("bench.hot", "crowd"), 60),
    Bench("neighbours", _module("bench.hot", "neighbours"), 130),
    Bench("logs", _module("bench.logs", "--pairs", "11"), 180),
    Bench("burst", _module("bench.burst"), 60),
    # Fewer engines than `make bench-scale`: ratios and the cost of an engine are the same, the memory is not.
    Bench("scale", _module("bench.scale", "2000", "--raw", "1000"), 220, 20, _control_plane),
    # A release is uninstalled in 30 s, and its namespaces are gone after 90 at most.
    Bench("cluster", _module("bench", "--running"), 300, 120, _cluster),
)

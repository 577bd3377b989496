"""What a real Prometheus answers to each query of each dashboard: for tests that look for dead ones, and their tables.

Must not judge which may be dead.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from tools.dashboards.boards import BOARDS
from tools.observability.evaluating import ALL, plain
from tools.reference import table
from tools.testkit.servers.prometheus import PrometheusServer

# All that a test does is within these: a test has 10 minutes.
WINDOWS: Mapping[str, str] = ALL | {"$__rate_interval": "15m", "$__range": "15m"}
# A scrape lasts a second at most: so old a moment changes no more.
_SETTLED = 2.0


@dataclass(frozen=True, slots=True)
class Seen:
    """The answer to one query: how many time series have a figure, and the largest, None without one."""

    board: str
    panel: str
    unit: str
    expr: str
    series: int
    largest: float | None


def scraped_at(server: PrometheusServer, jobs: Set[str], since: float) -> float:
    """A moment after `since` at which all those jobs had just been scraped, in seconds of Unix; 0 where there is none
    yet. A job whose last scrape took too long has no figures until the next one."""
    at = time.time() - _SETTLED
    return at if at > since and jobs <= server.healthy(at) else 0.0


def seen(server: PrometheusServer, at: float) -> list[Seen]:
    """All queries of all dashboards, at one moment."""
    found = []
    for board in BOARDS:
        for panel in board.panels():
            for query in panel.queries:
                samples = server.query(plain(query.expr, WINDOWS), at)
                live = [sample.value for sample in samples if not math.isnan(sample.value)]
                largest = max(live, default=None)
                found.append(Seen(board.name, panel.title, panel.unit, query.expr, len(live), largest))
    return found


def as_table(found: Iterable[Seen]) -> str:
    """Panel, expression and a value of each, as Markdown."""
    head = ("dashboard", "panel", "unit", "series", "largest", "expression")
    shown = [(one, "none" if one.largest is None else f"{one.largest:.6g}") for one in found]
    rows = [(one.board, one.panel, one.unit, str(one.series), value, one.expr) for one, value in shown]
    return table(head, rows)

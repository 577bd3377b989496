"""What a dashboard is made of, as data. Must not know Grafana's JSON: that is `build`.

Expressions may use `$cluster`, `$namespace`, `$release` and `$shard`, the variables of all dashboards, and Grafana's
`$__rate_interval` and `$__range`. The variables may stand for several installations, each of which may have several
replicas: `once`, `highest`, `fullest` and `weakest` say what several replicas' gauges mean, and what several
installations' do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tools.observability.alerts import INSTALLATION, PROCESS, SHARD
from tools.observability.expressions import series, series_of_operators

# Where a panel's reader goes on: a page of docs/runbooks, or the gateway's console.
CONSOLE = "console"
# Engines that have not ended.
LIVE = 'state!~"Success|Failed"'
# In each selector: the installations that are looked at.
HERE = 'cluster=~"$cluster", namespace=~"$namespace", release=~"$release"'
# The same of the operators that are looked at. A gateway is of all shards, and has no such label.
HERE_OF_SHARDS = f'{HERE}, shard=~"$shard"'


@dataclass(frozen=True, slots=True)
class Query:
    """One expression and the name of its lines, in which `{{label}}` is a label's value."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """`kind`: a graph, a number (the last value), a name (the legend of each line, without its value), or a table of
    the last values. `unit` is Grafana's name of one.

    `link` is a runbook's page without its ending, or CONSOLE. `exemplars`: the graph shows tickets of single engines.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    link: str
    kind: Literal["graph", "number", "name", "table"] = "graph"
    exemplars: bool = False
    stacked: bool = False
    # Of 24 columns.
    width: int = 8


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard. `name` is its file's and a part of its uid."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]

    def panels(self) -> list[Panel]:
        """All of them, in their order."""
        return [panel for row in self.rows for panel in row.panels]


def select(family: str, *matchers: str) -> str:
    """A selector of the installations that are looked at, with further matchers; of a family that operators alone have,
    of the shards that are looked at."""
    here = HERE_OF_SHARDS if family in series_of_operators() else HERE
    return f"{family}{{{', '.join((here, *matchers))}}}"


def per_second(family: str, *matchers: str, by: str = "") -> str:
    """The rate of a counter, as a sum by labels."""
    return f"sum{_by(by)} (rate({select(family, *matchers)}[$__rate_interval]))"


def in_range(family: str, *matchers: str, by: str = "") -> str:
    """By how much a counter grew in the time that the dashboard shows."""
    return f"sum{_by(by)} (increase({select(family, *matchers)}[$__range]))"


def appeared_in_range(family: str, *matchers: str, by: str, since: str) -> str:
    """As `in_range`, of a counter whose labels appear with its first count, which `increase` does not see.

    One that was not there at the range's begin, while its process (which has the family `since`) was, counts whole.
    """
    counter, window = select(family, *matchers), "$__range"
    born = f"({counter} unless {counter} offset {window}) and on ({PROCESS}) {select(since)} offset {window}"
    return f"sum{_by(by)} (({born}) or increase({counter}[{window}]))"


def total(family: str, *matchers: str, by: str = "") -> str:
    """A gauge, as a sum by labels."""
    return f"sum{_by(by)} ({select(family, *matchers)})"


def once(family: str, *matchers: str, by: str = "") -> str:
    """A figure of a whole installation, as each replica has it, or the one that leads: counted once an installation
    or shard, then summed up by labels over installations."""
    own = ", ".join((SHARD, *sorted(series()[family])))
    return f"sum{_by(by)} (max by ({own}) ({_known(family, *matchers)}))"


def highest(family: str, *matchers: str, by: str = "") -> str:
    """The worst installation's figure, where more is worse, such as an age: the largest of all replicas' values."""
    return f"max{_by(by)} ({_known(family, *matchers)})"


def earliest(family: str, *matchers: str) -> str:
    """The worst installation's time at which something ends: the smallest of all replicas' values."""
    return f"min ({_known(family, *matchers)})"


def weakest(family: str) -> str:
    """The worst installation's figure, where less is worse, and one good replica is enough: 0 or 1."""
    return f"min (max by ({SHARD}) ({_known(family)}))"


# An installation of which something is scraped, but no operator, has none that leads.
LEADS = (
    f"min (max by ({SHARD}) ({select('ecm_leading')})"
    f" or on ({INSTALLATION}) 0 * max by ({INSTALLATION}) ({select('ecm_build_info')}))"
)


def fullest(part: str, whole: str) -> str:
    """The share of the installation whose gauge `part` is nearest to its gauge `whole`."""
    used, room = (f"max by ({SHARD}) ({_known(family)})" for family in (part, whole))
    return f"max ({used} / ({room} > 0))"


def of_leaders(family: str, *matchers: str) -> str:
    """A gauge of the operators that lead, one in each installation. Others have figures of their own of the same, and
    may be behind, or have chosen other owners for their bounded labels."""
    return f"{select(family, *matchers)} and on ({PROCESS}) {select('ecm_leading')} == 1"


def total_of_leaders(family: str, *matchers: str, by: str = "") -> str:
    """As `total`, of the operators that lead."""
    return f"sum{_by(by)} ({of_leaders(family, *matchers)})"


def quantile(share: float, family: str, *matchers: str, by: str = "") -> str:
    """A quantile of a histogram, by labels."""
    labels = f"le, {by}" if by else "le"
    selector = select(f"{family}_bucket", *matchers)
    return f"histogram_quantile({share}, sum by ({labels}) (rate({selector}[$__rate_interval])))"


def part_of(part: str, whole: str) -> str:
    """A part of a whole; no data while the whole is 0, where Prometheus would divide 0 by 0."""
    return f"{part} / ({whole} > 0)"


def by_shard(expression: str) -> str:
    """An expression with the label shard: an operator without a shard's name is `without a name`."""
    return f'label_replace({expression}, "shard", "without a name", "shard", "")'


def or_none(family: str, *matchers: str, by: str) -> str:
    """As `per_second`; while nothing is counted one line of 0 whose first label is `none`.

    For counters of errors, which appear with their first error.
    """
    first = by.partition(",")[0]
    return f'{per_second(family, *matchers, by=by)} or on() label_replace(vector(0), "{first}", "none", "", "")'


def number(title: str, description: str, unit: str, expr: str, link: str) -> Panel:
    """One figure; six stand beside each other."""
    return Panel(title, description, unit, (Query(expr, ""),), link, kind="number", width=4)


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: tuple[str, str],
    link: str,
    exemplars: bool = False,
    stacked: bool = False,
) -> Panel:
    """Lines over time; `queries` are expressions and legends."""
    found = tuple(Query(expr, legend) for expr, legend in queries)
    return Panel(title, description, unit, found, link, exemplars=exemplars, stacked=stacked)


def quantiles(
    title: str, description: str, family: str, *matchers: str, link: str, by: str = "", shares: tuple[float, ...]
) -> Panel:
    """Quantiles of a histogram in seconds, with exemplars."""
    name = f" {{{{{by}}}}}" if by else ""
    lines = [(quantile(share, family, *matchers, by=by), f"{share * 100:g} %{name}") for share in shares]
    return graph(title, description, "s", *lines, link=link, exemplars=True)


def named(title: str, description: str, expr: str, legend: str, link: str) -> Panel:
    """What the lines are called, beside figures: for what has no value of interest, such as a version."""
    return Panel(title, description, "short", (Query(expr, legend),), link, kind="name", width=4)


def table(title: str, description: str, unit: str, expr: str, legend: str, link: str) -> Panel:
    """The last values, one line each."""
    return Panel(title, description, unit, (Query(expr, legend),), link, kind="table")


def _known(family: str, *matchers: str) -> str:
    """Without NaN, which replicas have that do not lead: with NaN alone there is no data."""
    return f"{select(family, *matchers)} > -Inf"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def live_engines(title: str, by: str, text: str = "Engines that have not ended.") -> Panel:
    """Curves of the engines that have not ended, one for each value of a label."""
    return graph(title, text, "short", (once("ecm_engines", LIVE, by=by), f"{{{{{by}}}}}"), link=CONSOLE, stacked=True)

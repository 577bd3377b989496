"""Turns a board into Grafana's JSON, by grafana-foundation-sdk. Must not know what any board shows."""

from __future__ import annotations

import itertools
import json
from typing import TypeAlias

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard

from tools.dashboards.panels import CONSOLE, Board, Panel, Query
from tools.observability.alerts import RUNBOOKS

# Grafana's grid has 24 columns.
HEIGHTS = {"graph": 8, "number": 4, "name": 4, "table": 8}
SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "linkis-ecm"
_PLACE = 'cluster=~"$cluster", namespace=~"$namespace"'
_Builder: TypeAlias = timeseries.Panel | stat.Panel | table.Panel


def to_json(board: Board) -> str:
    """The dashboard, ready to be imported; the same text for the same board."""
    made = (
        builders.Dashboard(board.title)
        .uid(f"linkis-ecm-{board.name}")
        .description(board.description)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .link(
            builders.DashboardLink("Linkis ECM").type(dashboard.DashboardLinkType.DASHBOARDS).tags([TAG])
            .as_dropdown(True).include_vars(True).keep_time(True)
        )
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_choice("cluster", "Cluster", "label_values(ecm_build_info, cluster)"))
        .with_variable(
            _choice("namespace", "Namespace", 'label_values(ecm_build_info{cluster=~"$cluster"}, namespace)')
        )
        .with_variable(_choice("release", "Release", f"label_values(ecm_build_info{{{_PLACE}}}, release)"))
        .with_variable(
            _choice("shard", "Shard", f'label_values(ecm_leading{{{_PLACE}, release=~"$release"}}, shard)')
        )
        .with_variable(builders.TextBoxVariable("console").label("Console's URL").default_value("/console"))
    )  # fmt: skip
    ids = itertools.count(1)
    for row in board.rows:
        made = made.with_row(builders.Row(row.title).id(next(ids)))
        for panel in row.panels:
            made = made.with_panel(_panel(panel, next(ids)))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _choice(name: str, label: str, query: str) -> builders.QueryVariable:
    """A variable for one or more values of a label, all to begin with. `.*` also fits series without the label."""
    return (
        builders.QueryVariable(name).label(label).query(query)
        .datasource(SOURCE).refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True).include_all(True).all_value(".*").current(dashboard.VariableOption(True, ["All"], ["$__all"]))
    )  # fmt: skip


def _panel(panel: Panel, number: int) -> _Builder:
    made = _kind(panel)
    made.id(number)
    made.title(panel.title)
    made.description(panel.description)
    made.unit(panel.unit)
    made.datasource(SOURCE)
    made.span(panel.width)
    made.height(HEIGHTS[panel.kind])
    made.links([_link(panel.link)])
    for letter, query in zip("ABCD", panel.queries, strict=False):
        made.with_target(_query(query, letter, panel))
    return made


def _kind(panel: Panel) -> _Builder:
    if panel.kind in ("number", "name"):
        made = stat.Panel().reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        return made.text_mode(common.BigValueTextMode.NAME) if panel.kind == "name" else made
    if panel.kind == "table":
        last = dashboard.DataTransformerConfig("reduce", options={"reducers": ["last"]})
        return table.Panel().with_transformation(last)
    legend = common_builders.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST)
    graph = (
        timeseries.Panel()
        .legend(legend.placement(common.LegendPlacement.BOTTOM).show_legend(True))
        .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
        .min(0)
        .fill_opacity(20 if panel.stacked else 0)
    )
    if panel.stacked:
        graph.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    return graph


def _query(query: Query, name: str, panel: Panel) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.expr).ref_id(name).datasource(SOURCE)
    if query.legend:
        made.legend_format(query.legend)
    if panel.kind == "graph":
        return made.range().exemplar(panel.exemplars)
    return made.instant()


def _link(link: str) -> builders.DashboardLink:
    if link == CONSOLE:
        made = builders.DashboardLink("Console").url("${console}")
    else:
        made = builders.DashboardLink(f"Runbook: {link}").url(f"{RUNBOOKS}/{link}.md")
    return made.type(dashboard.DashboardLinkType.LINK).target_blank(True)

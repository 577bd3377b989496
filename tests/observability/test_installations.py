"""Two installations of two replicas each: a dashboard of all counts each once and shows the worse one, by Prometheus.

And an alert tells them apart, though they are in two clusters and their namespaces have one name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.observability.test_quiet import promtool
from tools.dashboards.boards import BOARDS
from tools.dashboards.panels import LEADS, of_leaders, total_of_leaders
from tools.observability.alerts import INSTALLATION, SHARD, alerts
from tools.observability.evaluating import plain
from tools.observability.expressions import names, series
from tools.observability.rules import rule_file, told

QUERIES = [
    (f"{board.name}: {panel.title}", query.expr)
    for board in BOARDS
    for panel in board.panels()
    for query in panel.queries
]
# In one namespace of two clusters, and one pod address in both: what tells them apart is the cluster alone.
FIRST, SECOND = ('cluster="east", namespace="linkis"', 'cluster="west", namespace="linkis"')
REPLICAS = ("a", "b")
# What each form of an expression makes of FIRST, whose replicas have 3 and 2, and SECOND, whose have 5 and no figure.
FORMS = {
    "once": (re.compile(rf"sum( by \([^)]*\))? \(max by \({SHARD}"), 8),
    "highest": (re.compile(r"max( by \([^)]*\))? \(ecm_[a-z_]+\{[^}]*\} > -Inf\)"), 5),
    "highest magnitude": (re.compile(r"max \(abs\("), 5),
    "earliest": (re.compile(r"min \(ecm_"), 2),
    "weakest": (re.compile(rf"min \(max by \({SHARD}\) \(ecm_"), 3),
    "fullest": (re.compile(rf"max \(max by \({SHARD}\) \(.* / \(max by"), 1),
}


def form(expression: str) -> str:
    """The form that an expression is of, without what is done with all of it; empty for none."""
    inner = expression.removeprefix("topk(10, ").removeprefix("topk(20, ")
    return next((name for name in reversed(FORMS) if FORMS[name][0].match(inner)), "")


def history(family: str, installation: str, replica: str, value: str, **labels: str) -> dict[str, str]:
    own = dict.fromkeys(series()[family], "x") | {
        name: content for name, content in labels.items() if name in series()[family]
    }
    text = "".join(f', {name}="{content}"' for name, content in own.items())
    return {
        "series": f'{family}{{{installation}, job="ecm", instance="{replica}"{text}}}',
        "values": " ".join([value] * 20),
    }


def both(family: str, first: tuple[str, str], second: tuple[str, str], **labels: str) -> list[dict[str, str]]:
    """The histories of a family of both replicas of both installations."""
    return [
        history(family, installation, replica, value, **labels)
        for installation, values in ((FIRST, first), (SECOND, second))
        for replica, value in zip(REPLICAS, values, strict=True)
    ]


def case(expression: str, input_series: list[dict[str, str]], *samples: tuple[str, float]) -> dict[str, Any]:
    expected = [{"labels": labels, "value": value} for labels, value in samples]
    return {
        "input_series": input_series,
        "promql_expr_test": [{"expr": plain(expression), "eval_time": "15m", "exp_samples": expected}],
    }


def test_the_forms_are_used() -> None:
    assert {form(expression) for _, expression in QUERIES} == {*FORMS, ""}


def test_each_figure_of_all_is_the_sum_or_the_worst(tmp_path: Path) -> None:
    cases = []
    for name, expression in QUERIES:
        if not (found := form(expression)):
            continue
        stripped = expression.removesuffix(" - time()")
        labels = dict(re.findall(r'(\w+)="(\w+)"', expression))
        input_series = [
            one for family in sorted(names(stripped)) for one in both(family, ("3", "2"), ("5", "NaN"), **labels)
        ]
        cases.append(case(f"sum({stripped})", input_series, ("{}", FORMS[found][1])) | {"name": name})
    assert len(cases) > 30
    promtool(tmp_path, cases)


@pytest.mark.parametrize(("name", "expression"), QUERIES, ids=[name for name, _ in QUERIES])
def test_a_figure_is_not_the_largest_or_smallest_of_some_installation(name: str, expression: str) -> None:
    """All maxima and minima are of one of the forms, or keep the installation's labels."""
    others = ("max by (owner) (", "histogram_quantile")
    if re.search(r"\b(max|min)\b", expression) and not form(expression):
        assert expression == LEADS or others[0] in expression
    assert "on (job" not in expression


def test_the_panel_of_leaders_shows_the_installation_without_one(tmp_path: Path) -> None:
    cases = [
        case(LEADS, both("ecm_leading", first, second) + both("ecm_build_info", ("1", "1"), ("1", "1")), ("{}", shown))
        for first, second, shown in (
            (("1", "0"), ("0", "1"), 1),
            (("1", "0"), ("0", "0"), 0),
            # No operator of the second is scraped, but its gateway is.
            (("1", "0"), ("_", "_"), 0),
        )
    ]
    promtool(tmp_path, [*cases, case(LEADS, [])])


def test_a_user_of_two_installations_is_one_and_a_standby_counts_nobody(tmp_path: Path) -> None:
    (users,) = (expression for name, expression in QUERIES if name == "overview: Users with engines")
    (by_user,) = (expression for name, expression in QUERIES if name == "overview: Engines by user")
    leading = both("ecm_leading", ("1", "0"), ("0", "1"))
    owned = [
        history("ecm_owned_engines", FIRST, "a", "2", owner="alice"),
        # The one that does not lead is behind: bob's engine has ended.
        history("ecm_owned_engines", FIRST, "b", "2", owner="alice"),
        history("ecm_owned_engines", FIRST, "b", "1", owner="bob"),
        history("ecm_owned_engines", SECOND, "b", "3", owner="alice"),
        history("ecm_owned_engines", SECOND, "b", "1", owner="carol"),
        history("ecm_owned_engines", SECOND, "b", "1", owner="ecm_canary"),
    ]
    shown = (('{owner="alice"}', 5), ('{owner="carol"}', 1), ('{owner="ecm_canary"}', 1))
    promtool(
        tmp_path,
        [
            case(users, leading + owned, ("{}", 2)),
            case(by_user, leading + owned, *shown),
            # Nobody has an engine; nobody knows, as none leads.
            case(users, leading, ("{}", 0)),
            case(users, both("ecm_leading", ("0", "0"), ("0", "0")) + owned),
        ],
    )
    assert of_leaders("ecm_owned_engines") in total_of_leaders("ecm_owned_engines", by="owner")


def test_one_cluster_alone_is_chosen_by_the_variable(tmp_path: Path) -> None:
    (silent,) = (expression for name, expression in QUERIES if name == "overview: Silent engines")
    known = both("ecm_engines_not_reporting", ("1", "1"), ("4", "4"))
    west = silent.replace("$cluster", "west")
    # Where no series has the label, All fits.
    bare = [{"series": one["series"].replace('cluster="east", ', ""), "values": one["values"]} for one in known[:2]]
    promtool(tmp_path, [case(west, known, ("{}", 4)), case(silent, bare, ("{}", 1)), case(silent, known, ("{}", 5))])


def test_an_alert_names_the_cluster_that_it_is_of(tmp_path: Path) -> None:
    alert = next(one for one in alerts() if one.name == "LinkisEcmNoLeader")
    labels = {"severity": alert.severity, "cluster": "west", "namespace": "linkis"}
    promtool(
        tmp_path,
        [
            {
                "input_series": both("ecm_leading", ("1", "0"), ("0", "0")),
                "alert_rule_test": [
                    {
                        "eval_time": "15m",
                        "alertname": alert.name,
                        "exp_alerts": [{"exp_labels": labels, "exp_annotations": told(alert)}],
                    }
                ],
            }
        ],
        rule_file(),
    )


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_an_alert_keeps_installations_apart(alert: Any) -> None:
    groupings = re.findall(r"\bby \(([^)]*)\)", alert.expr)
    assert groupings or alert.expr.startswith("absent(")
    assert all(one.startswith(INSTALLATION) for one in groupings)

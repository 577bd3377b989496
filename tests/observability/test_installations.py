"""Two installations of two replicas each: a dashboard of all counts each once and shows the worse one, by Prometheus.

And an alert tells them apart, though they are in two clusters and their namespaces have one name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.observability.cases import CASES
from tests.observability.test_quiet import promtool, promtool_each
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


# Where two releases are: in one namespace, in two, with and without the label, and in two clusters.
ONE_NAMESPACE = ({"namespace": "shared", "release": "a"}, {"namespace": "shared", "release": "b"})
PLACES = (
    ONE_NAMESPACE,
    ({"namespace": "one", "release": "a"}, {"namespace": "two", "release": "a"}),
    ({"namespace": "bare-one"}, {"namespace": "bare-two"}),
    (
        {"cluster": "east", "namespace": "linkis", "release": "a"},
        {"cluster": "west", "namespace": "linkis", "release": "a"},
    ),
)
# Which of the two is ill, then the other one, elsewhere.
TURNS = [*PLACES, *(tuple(one | {"namespace": f"{one['namespace']}-2"} for one in pair[::-1]) for pair in PLACES)]


def of(place: dict[str, str], histories: Mapping[str, str]) -> list[dict[str, str]]:
    """The series of a case as one release has them."""
    found = []
    for name, samples in histories.items():
        family, _, labels = name.partition("{")
        own = [f'{label}="{content}"' for label, content in place.items()]
        inner = ", ".join([*own, *filter(None, [labels.removesuffix("}")])])
        found.append({"series": f"{family}{{{inner}}}", "values": samples})
    return found


def test_of_two_releases_each_alert_fires_for_the_one_alone_that_it_is_for(tmp_path: Path) -> None:
    """Neither does one that is well hide the other, nor is one blamed for the other, whichever of the two it is."""
    tests = {}
    for alert in alerts():
        case = CASES[alert.name]
        if not case.has_namespace:
            continue  # absent(): tests/unit/chart/test_chart_monitoring.py asks by the chart's rules
        expected = [
            {
                "exp_labels": {"severity": alert.severity} | ill | dict(case.labels),
                "exp_annotations": told(alert) | {"description": case.says},
            }
            for ill, _ in TURNS
        ]
        both = [one for ill, well in TURNS for one in (*of(ill, case.fires), *of(well, case.silent))]
        asked = {"eval_time": f"{case.at}m", "alertname": alert.name, "exp_alerts": expected}
        tests[alert.name] = [{"input_series": both, "alert_rule_test": [asked]}]
    assert len(tests) == len(alerts()) - 2
    promtool_each(tmp_path, tests)


def test_a_second_release_in_the_namespace_hides_no_shard_that_is_gone(tmp_path: Path) -> None:
    """It has no shards, or as many: its operators are none of the first one's."""
    alert = next(one for one in alerts() if one.name == "LinkisEcmShardMissing")
    first, second = ONE_NAMESPACE
    ill = of(first, CASES[alert.name].fires)
    labels = {"severity": "critical"} | first
    expected = {"exp_labels": labels, "exp_annotations": told(alert) | {"description": CASES[alert.name].says}}
    asked = [{"eval_time": "20m", "alertname": alert.name, "exp_alerts": [expected]}]
    others = (
        {"ecm_shards": "1x30", "ecm_leading": "1x30"},
        {'ecm_shards{shard="b"}': "2x30", 'ecm_leading{shard="a"}': "1x30", 'ecm_leading{shard="b"}': "1x30"},
    )
    tests = [{"input_series": [*ill, *of(second, other)], "alert_rule_test": asked} for other in others]
    promtool(tmp_path, tests, rule_file())


def test_a_shard_alone_is_chosen_by_the_variable_and_the_gateway_stays(tmp_path: Path) -> None:
    (waiting,) = (expression for name, expression in QUERIES if name == "operator: Namespaces that wait")
    (calls,) = (expression for name, expression in QUERIES if name == "overview: Version")
    known = [
        *({"series": f'ecm_namespaces_waiting{{namespace="linkis", shard="{shard}"}}', "values": f"{value}x20"}
          for shard, value in (("big", 3), ("small", 4))),
        {"series": 'ecm_namespaces_waiting{namespace="linkis"}', "values": "5x20"},
        {"series": 'ecm_build_info{namespace="linkis", job="gateway", version="1"}', "values": "1x20"},
    ]  # fmt: skip
    chosen = [one.replace("$shard", "big") for one in (waiting, calls)]
    every = [('{shard="big"}', 3), ('{shard="small"}', 4), ('{shard="without a name"}', 5)]
    promtool(
        tmp_path,
        [
            case(chosen[0], known, ('{shard="big"}', 3)),
            case(chosen[1], known, ('{version="1"}', 1)),
            case(waiting, known, *every),
        ],
    )


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_an_alert_keeps_installations_apart(alert: Any) -> None:
    groupings = re.findall(r"\bby \(([^)]*)\)", alert.expr)
    assert groupings or alert.expr.startswith("absent(")
    assert all(one.startswith(INSTALLATION) for one in groupings)

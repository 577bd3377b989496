"""What dashboards show while nothing happens: no NaN, no line without a name, and each alert that fires."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.dashboards.boards import BOARDS
from tools.dashboards.panels import Panel
from tools.observability.alerts import alerts
from tools.observability.evaluating import ALL, plain
from tools.observability.expressions import series
from tools.observability.prometheus import binary
from tools.observability.rules import rule_file, told
from tools.reference import families

PANELS = [panel for board in BOARDS for panel in board.panels()]
NUMBERS = [panel for panel in PANELS if panel.kind == "number"]
HERE = 'namespace="linkis", job="ecm", instance="a"'
# The operator and the gateway have started and nobody has come yet.
QUIET = dict.fromkeys(series(), 0.0)
# No replica leads: what only a leader knows is NaN, as its help says.
NO_LEADER = QUIET | {
    family.name: math.nan for process in families().values() for family in process if "NaN" in family.help
}


def promtool(folder: Path, tests: list[dict[str, Any]], rules: str = "") -> None:
    """Runs unit tests of promtool. Each gets the interval of a minute."""
    _run(folder, [_written(folder, "tests", tests, rules or "groups: []")])


def promtool_each(folder: Path, tests: Mapping[str, list[dict[str, Any]]]) -> None:
    """The same for tests by the alert that they ask for, each with its own rule alone: promtool evaluates all rules of
    a file at each minute of each test, and these are fifty. Each test costs a database of its own."""
    given = [rule for group in yaml.safe_load(rule_file())["groups"] for rule in group["rules"]]
    one = {rule["alert"]: json.dumps({"groups": [{"name": "one", "rules": [rule]}]}) for rule in given}
    _run(folder, [_written(folder, name, own, one[name]) for name, own in tests.items()])


def _written(folder: Path, name: str, tests: list[dict[str, Any]], rules: str) -> str:
    (folder / f"{name}-rules.yaml").write_text(rules)
    each = [{"interval": "1m"} | test for test in tests]
    file = {"rule_files": [f"{name}-rules.yaml"], "evaluation_interval": "1m", "tests": each}
    (folder / f"{name}.yaml").write_text(json.dumps(file))
    return f"{name}.yaml"


def _run(folder: Path, files: list[str]) -> None:
    done = subprocess.run(
        [binary("promtool"), "test", "rules", *files],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def histories(values: Mapping[str, float]) -> list[dict[str, str]]:
    """Each family with these labels of the target and of its own, for 20 minutes."""
    found = []
    for family, value in values.items():
        own = "".join(f', {label}="x"' for label in sorted(series()[family]))
        found.append({"series": f"{family}{{{HERE}{own}}}", "values": " ".join([str(value)] * 20)})
    return found


def asked(expression: str, **values: str) -> str:
    return plain(expression, ALL | {"$__rate_interval": "5m", "$__range": "10m"} | values)


def test_some_figures_are_known_to_a_leader_alone() -> None:
    assert {name for name, value in NO_LEADER.items() if math.isnan(value)} >= {"ecm_canary_ok", "ecm_archive_bytes"}


@pytest.mark.parametrize("values", [QUIET, NO_LEADER], ids=["nothing happened", "nobody leads"])
def test_a_figure_is_never_not_a_number(values: dict[str, float], tmp_path: Path) -> None:
    # NaN differs from itself: the query has an answer where the panel would show NaN.
    queries = [
        {"expr": f"({text}) != ({text})", "eval_time": "15m", "exp_samples": []}
        for text in (asked(query.expr) for panel in NUMBERS for query in panel.queries)
    ]
    promtool(tmp_path, [{"input_series": histories(values), "promql_expr_test": queries}])


def test_a_share_of_nothing_has_no_data_and_no_call_is_no_failed_call(tmp_path: Path) -> None:
    figures = {panel.title: asked(panel.queries[0].expr) for panel in NUMBERS}
    promtool(
        tmp_path,
        [
            {
                "input_series": histories(QUIET),
                "promql_expr_test": [
                    {"expr": figures["Tasks that succeed"], "eval_time": "15m", "exp_samples": []},
                    {
                        "expr": figures["Calls that fail"],
                        "eval_time": "15m",
                        "exp_samples": [{"labels": "{}", "value": 0}],
                    },
                ],
            },
            {
                "input_series": [
                    {"series": f'ecm_gateway_requests_total{{{HERE}, code="{code}"}}', "values": f"0+{step}x20"}
                    for code, step in (("200", 3), ("500", 1))
                ],
                "promql_expr_test": [
                    {
                        "expr": figures["Calls that fail"],
                        "eval_time": "15m",
                        "exp_samples": [{"labels": "{}", "value": 0.25}],
                    }
                ],
            },
            # No gateway is scraped: nobody knows.
            {
                "input_series": [],
                "promql_expr_test": [{"expr": figures["Calls that fail"], "eval_time": "15m", "exp_samples": []}],
            },
        ],
    )


@pytest.mark.parametrize("counted", [False, True], ids=["before the first", "after it"])
def test_a_line_has_the_labels_that_its_legend_shows(counted: bool, tmp_path: Path) -> None:
    """A line without one is shown under the whole expression's text."""
    input_series = histories(dict.fromkeys(series(), 1.0)) if counted else []
    queries = [
        {"expr": f'label_replace({asked(query.expr)}, "nameless", "yes", "{label}", "")'
         ' and on(nameless) label_replace(vector(1), "nameless", "yes", "", "")',
         "eval_time": "15m", "exp_samples": []}
        for panel in PANELS
        for query in panel.queries
        for label in first_labels(query.legend)
    ]  # fmt: skip
    assert len(queries) > 30
    promtool(tmp_path, [{"input_series": input_series, "promql_expr_test": queries}])


def first_labels(legend: str) -> list[str]:
    """The first label that a legend shows, where it shows one."""
    return [legend.partition("{{")[2].partition("}}")[0]] if "{{" in legend else []


def firing(panel: Panel, namespace: str) -> str:
    return asked(panel.queries[0].expr, **{"$namespace": namespace})


@pytest.mark.parametrize("in_chart", [False, True], ids=["plain rule file", "the chart's"])
def test_the_tile_counts_an_operator_that_is_down_where_one_namespace_is_chosen(in_chart: bool, tmp_path: Path) -> None:
    (tile,) = (panel for panel in NUMBERS if panel.title == "Alerts")
    others = [{"series": 'ecm_gateway_requests_in_flight{namespace="linkis"}', "values": "0x20"}]
    if in_chart:
        # Another installation that runs does not hide this one.
        others.append({"series": 'ecm_leading{namespace="other"}', "values": "1x20"})
        others.append({"series": 'ecm_gateway_requests_in_flight{namespace="other"}', "values": "0x20"})
    labels = {"severity": "critical"} | ({"namespace": "linkis"} if in_chart else {})
    alert = next(one for one in alerts() if one.name == "LinkisEcmOperatorDown")
    promtool(
        tmp_path,
        [
            {
                "input_series": others,
                "alert_rule_test": [
                    {
                        "eval_time": "10m",
                        "alertname": alert.name,
                        "exp_alerts": [{"exp_labels": labels, "exp_annotations": told(alert)}],
                    }
                ],
                "promql_expr_test": [
                    {
                        "expr": firing(tile, "linkis"),
                        "eval_time": "10m",
                        "exp_samples": [{"labels": "{}", "value": 1}],
                    }
                ],
            },
            {
                "input_series": [*others, {"series": 'ecm_leading{namespace="linkis"}', "values": "1x20"}],
                "promql_expr_test": [
                    {
                        "expr": firing(tile, "linkis"),
                        "eval_time": "10m",
                        "exp_samples": [{"labels": "{}", "value": 0}],
                    }
                ],
            },
        ],
        rule_file(here='namespace="linkis"' if in_chart else ""),
    )


def test_what_has_expired_does_not_expire_soon(tmp_path: Path) -> None:
    gone = [
        {"series": f'{family}{{namespace="linkis"}}', "values": "600x80"}
        for family in (
            "ecm_gateway_tls_certificate_expiry_timestamp_seconds",
            "ecm_gateway_token_expiry_timestamp_seconds",
        )
    ]
    silent = [
        {"eval_time": "79m", "alertname": name, "exp_alerts": []}
        for name in ("LinkisEcmCertificateExpires", "LinkisEcmTokenExpires")
    ]
    promtool(tmp_path, [{"input_series": gone, "alert_rule_test": silent}], rule_file())


def lives(begins: int, expires: int) -> list[dict[str, str]]:
    """A certificate that is valid between these seconds."""
    family = "ecm_gateway_tls_certificate"
    return [
        {"series": f"{family}_{name}_timestamp_seconds{{{HERE}}}", "values": f"{second}x600"}
        for name, second in (("start", begins), ("expiry", expires))
    ]


@pytest.mark.parametrize(
    ("lifetime", "minute", "fires"),
    [
        # cert-manager renews after two thirds of the lifetime; what is served is then a new one.
        (86_400, 960, False),
        (86_400, 1_195, False),
        (86_400, 1_210, True),
        (3_600, 49, False),
        (3_600, 56, True),
        (90 * 86_400, 82 * 1_440, False),
        (90 * 86_400, 84 * 1_440, True),
    ],
)
def test_a_short_lived_certificate_that_is_renewed_in_time_fires_nothing(
    lifetime: int, minute: int, fires: bool, tmp_path: Path
) -> None:
    at = 10
    begins = (at - minute) * 60
    alert = next(one for one in alerts() if one.name == "LinkisEcmCertificateExpires")
    asked_for = {"expr": alert.expr, "eval_time": f"{at}m"}
    left = lifetime - minute * 60
    samples = [{"labels": '{namespace="linkis"}', "value": left}] if fires else []
    promtool(tmp_path, [{"input_series": lives(begins, begins + lifetime),
                         "promql_expr_test": [asked_for | {"exp_samples": samples}]}])  # fmt: skip

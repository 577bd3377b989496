"""Each alert fires on a history that it is for, says its figure, and is silent on a near miss: by promtool, in one run.

And the files are what the code makes, each alert has its runbook, and no expression asks for what nobody counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from linkis_ecm.model import reasons
from tests.observability.cases import CASES, NAMESPACE, Case
from tests.observability.test_quiet import promtool, promtool_each
from tools.observability import alerts as alerts_module
from tools.observability.alerts import GROUPS, Alert, alerts
from tools.observability.expressions import problems
from tools.observability.rules import FILES, rule_file, told

ROOT = Path(__file__).parents[2]
ALERTS = {alert.name: alert for alert in alerts()}
SECTIONS = ("## Meaning", "## Impact", "## Diagnosis", "## Mitigation")


def series(histories: Mapping[str, str], namespace: str = NAMESPACE) -> list[dict[str, str]]:
    """In promtool's words, each with the namespace."""
    found = []
    for name, samples in histories.items():
        family, brace, labels = name.partition("{")
        inner = labels.removesuffix("}")
        both = ",".join(part for part in (f'namespace="{namespace}"', inner) if part)
        found.append({"series": f"{family}{{{both}}}", "values": samples})
        assert bool(brace) == bool(inner)
    return found


def unit_tests(alert: Alert, case: Case) -> list[dict[str, Any]]:
    """What fires, beside what is silent in another namespace; apart for an alert that knows no namespace."""
    labels = {"severity": alert.severity} | ({"namespace": NAMESPACE} if case.has_namespace else {}) | dict(case.labels)
    expected = {"exp_labels": labels, "exp_annotations": told(alert) | {"description": case.says}}
    asked = {"eval_time": f"{case.at}m", "alertname": alert.name}
    fires, silent = series(case.fires), series(case.silent, "quiet")
    tests = [(fires + silent, [expected])] if case.has_namespace else [(fires, [expected]), (silent, [])]
    return [{"input_series": known, "alert_rule_test": [asked | {"exp_alerts": exp}]} for known, exp in tests]


def test_each_alert_fires_and_stays_silent(tmp_path: Path) -> None:
    tests = {name: unit_tests(ALERTS[name], case) for name, case in CASES.items()}
    assert sum(map(len, tests.values())) == len(ALERTS) + 2
    promtool_each(tmp_path, tests)


def test_no_history_of_an_alert_breaks_another_ones_rule(tmp_path: Path) -> None:
    """All rules over all the series that fire any: such as two series of one rule that end with the same labels."""
    every: dict[str, str] = {}
    for case in CASES.values():
        every |= dict(case.fires)
    silent = {"eval_time": "20m", "alertname": "none", "exp_alerts": []}
    promtool(tmp_path, [{"input_series": series(every), "alert_rule_test": [silent]}], rule_file())


def test_every_alert_has_a_case() -> None:
    assert list(CASES) == list(ALERTS)
    assert len(ALERTS) >= 20


@pytest.mark.parametrize("name", FILES)
def test_a_committed_file_is_what_the_code_makes(name: str) -> None:
    assert (ROOT / name).read_text() == FILES[name](), "run `make generate` and commit the files"


@pytest.mark.parametrize("alert", ALERTS.values(), ids=lambda alert: alert.name)
def test_an_alert_says_what_a_reader_needs(alert: Alert) -> None:
    assert re.fullmatch(r"LinkisEcm([A-Z][a-z]+)+", alert.name)
    assert re.fullmatch(r"[A-Z].{10,80}[^.]", alert.summary), "a line without a full stop"
    assert re.fullmatch(r"(\{\{|[A-Z]|[0-9]).{30,300}\.", alert.description), "a sentence"
    assert any(figure in alert.description for figure in ("$value", "minute", "one before")), "it has the figure"


@pytest.mark.parametrize("alert", ALERTS.values(), ids=lambda alert: alert.name)
def test_an_alert_asks_for_what_is_counted(alert: Alert) -> None:
    assert problems(alert.expr) == []


@pytest.mark.parametrize("alert", ALERTS.values(), ids=lambda alert: alert.name)
def test_an_alert_has_its_runbook(alert: Alert) -> None:
    page = (ROOT / "docs/runbooks" / alert.page).read_text()
    assert page.startswith(f"# {alert.name}\n")
    places = [page.index(section) for section in SECTIONS]
    assert places == sorted(places)
    diagnosis = page[places[2] : places[3]]
    assert "```sh" in diagnosis, "commands that find the cause"
    for expression in re.findall(r"```promql\n(.*?)```", page, re.DOTALL):
        assert problems(expression) == []


def test_no_runbook_is_left_over() -> None:
    pages = {path.name for path in (ROOT / "docs/runbooks").glob("*.md")}
    assert pages == {alert.page for alert in ALERTS.values()} | {"README.md"}


@pytest.mark.parametrize("name", ["START_REASONS", "CAPACITY_REASONS", "NODE_REASONS"])
def test_the_reasons_of_an_alert_are_reasons(name: str) -> None:
    known = {reason.name for reason in reasons.all_reasons()}
    assert set(getattr(alerts_module, name).split("|")) <= known


def test_the_reasons_of_nodes_are_those_that_nobodys_code_caused() -> None:
    infrastructure = {reason.name for reason in reasons.INFRASTRUCTURE}
    others = {reasons.POD_NOT_STARTED.name, reasons.NODE_CANNOT_START.name}
    assert set(alerts_module.NODE_REASONS.split("|")) == infrastructure - others
    assert others <= set(alerts_module.START_REASONS.split("|"))


def test_a_group_is_not_too_long_for_one_evaluation() -> None:
    # The rules of a group are evaluated one after another.
    assert all(len(members) <= 20 for members in GROUPS.values())

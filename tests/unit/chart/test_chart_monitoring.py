"""Monitoring by the chart: alerts as a platform wants them, and several releases in one namespace or Grafana."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.observability.test_quiet import promtool
from tests.unit.chart.test_chart import refusal, template
from tests.unit.chart.test_chart_parts import of_kind, value

KINDS = ("ServiceMonitor", "PodMonitor", "PrometheusRule", "ConfigMap")
TLS = ("--set", "tls.enabled=true,tls.secretName=t")
OTHER = ("--namespace", "b-c")


def rules(*arguments: str, **values: Any) -> dict[str, dict[str, Any]]:
    """The alerts of a PrometheusRule with these values, by name."""
    (found,) = of_kind("PrometheusRule", *value("metrics.prometheusRule", {"enabled": True, **values}), *arguments)
    return {one["alert"]: one for group in found["spec"]["groups"] for one in group["rules"]}


def objects(namespace: str, *arguments: str) -> set[tuple[str, str, str]]:
    """Kind, namespace and name of what monitoring has in this common namespace."""
    wanted = {"enabled": True, "namespace": namespace}
    documents = template(
        *value("metrics", {"serviceMonitor": wanted, "podMonitor": wanted, "prometheusRule": wanted}),
        *value("dashboards", wanted),
        *arguments,
    )
    found = {(d["kind"], d["metadata"].get("namespace", ""), d["metadata"]["name"]) for d in documents}
    return {one for one in found if one[0] in KINDS and one[1] == namespace}


def test_releases_of_one_name_share_a_namespace_of_monitoring() -> None:
    first, second = objects("monitoring"), objects("monitoring", *OTHER)
    assert len(first) == len(second) == 2 + 2 + 1 + 4
    assert first & second == set()
    assert ("PrometheusRule", "monitoring", "ns-x") in first
    assert ("PrometheusRule", "monitoring", "b-c.x") in second
    # In the release's own namespace nothing is in its way.
    assert ("PrometheusRule", "ns", "x") in objects("ns")


def boards(*arguments: str, **values: Any) -> dict[str, dict[str, Any]]:
    """The dashboards by the names of their files in Grafana."""
    maps = of_kind("ConfigMap", *value("dashboards", {"enabled": True, **values}), *arguments)
    return {
        name: json.loads(text)
        for d in maps
        if "-dashboard-" in d["metadata"]["name"]
        for name, text in d["data"].items()
    }


def test_releases_share_one_set_of_dashboards_unless_one_has_a_console_of_its_own() -> None:
    assert boards() == boards(*OTHER), "the same files with the same content"
    first, second = boards(consoleUrl="https://a/console"), boards(*OTHER, consoleUrl="https://b/console")
    both = [boards(), first, second]
    for key in ("uid", "title"):
        assert len({board[key] for one in both for board in one.values()}) == 12
    assert len({name for one in both for name in one}) == 12
    # Grafana takes 40 characters.
    assert all(len(board["uid"]) <= 40 for one in both for board in one.values())
    assert {one["title"] for one in first.values()} >= {"Linkis ECM ns/x: overview"}


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PodMonitor"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"serverName": "x-gateway.ns.svc"}),
        ({"ca": {"secret": {"name": "a", "key": "b"}}},
         {"ca": {"secret": {"name": "a", "key": "b"}}, "serverName": "x-gateway.ns.svc"}),
        ({"serverName": "ecm.example.org"}, {"serverName": "ecm.example.org"}),
    ],
)  # fmt: skip
def test_a_tls_config_is_completed(kind: str, given: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    values = {"enabled": True, "tlsConfig": given}
    monitors = of_kind(kind, *value(f"metrics.{kind[0].lower()}{kind[1:]}", values), *TLS)
    (found,) = [d["spec"] for d in monitors if d["metadata"]["name"] == "x-gateway"]
    (endpoint,) = found.get("endpoints") or found["podMetricsEndpoints"]
    assert endpoint["tlsConfig"] == expected


def test_alerts_have_a_platforms_labels_and_one_may_differ() -> None:
    plain = rules()
    found = rules(
        ruleLabels={"team": "data", "severity": "none"},
        alerts={
            "LinkisEcmStartsSlow": {"severity": "page", "for": "1h30m", "labels": {"team": "engines"}},
            "LinkisEcmQueueLate": {
                "expr": "max by (cluster, namespace, controller) (ecm_queue_oldest_age_seconds) > 99"
            },
        },
    )
    assert set(found) == set(plain)
    slow = found.pop("LinkisEcmStartsSlow")
    assert slow == plain["LinkisEcmStartsSlow"] | {"for": "1h30m", "labels": {"severity": "page", "team": "engines"}}
    late = found.pop("LinkisEcmQueueLate")
    assert late["expr"].endswith("> 99")
    assert (late["for"], late["labels"]) == ("5m", {"severity": "warning", "team": "data"})
    for name, one in found.items():
        assert one == plain[name] | {"labels": plain[name]["labels"] | {"team": "data"}}
    assert all(one["labels"] == {"severity": one["labels"]["severity"]} for one in plain.values())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"alerts": {"LinkisEcmNone": {"for": "1m"}}}, "alerts names LinkisEcmNone, and there is no such alert"),
        ({"alerts": {"LinkisEcmDrift": {"for": "soon"}}}, "for"),
        ({"alerts": {"LinkisEcmDrift": {"threshold": 3}}}, "threshold"),
        ({"cluster": "east: 1"}, "cluster"),
    ],
)
def test_an_override_that_means_nothing_is_refused(values: Mapping[str, Any], sentence: str) -> None:
    assert sentence in refusal(*value("metrics.prometheusRule", {"enabled": True, **values}))


def test_what_is_gone_is_asked_for_by_namespace_and_cluster() -> None:
    assert rules()["LinkisEcmOperatorDown"]["expr"] == 'absent(ecm_leading{namespace="ns"})'
    found = rules(cluster="eu:east/1")
    assert found["LinkisEcmOperatorDown"]["expr"] == 'absent(ecm_leading{cluster="eu:east/1", namespace="ns"})'
    family = "ecm_gateway_requests_in_flight"
    assert found["LinkisEcmGatewayDown"]["expr"] == f'absent({family}{{cluster="eu:east/1", namespace="ns"}})'


def monitored(kind: str, **values: Any) -> dict[str, dict[str, Any]]:
    """The alerts, with a monitor of the chart that scrapes the release."""
    return rules(*value(f"metrics.{kind}", {"enabled": True}), **values)


@pytest.mark.parametrize("kind", ["serviceMonitor", "podMonitor"])
def test_what_is_gone_is_asked_for_by_release_where_the_monitors_give_that_label(kind: str) -> None:
    found = monitored(kind, cluster="east")
    here = '{cluster="east", namespace="ns", release="x"}'
    assert found["LinkisEcmOperatorDown"]["expr"] == f"absent(ecm_leading{here})"
    assert found["LinkisEcmGatewayDown"]["expr"] == f"absent(ecm_gateway_requests_in_flight{here})"


@pytest.mark.parametrize("kind", ["serviceMonitor", "podMonitor"])
def test_a_second_release_in_the_namespace_hides_none_that_is_gone(kind: str, tmp_path: Any) -> None:
    """By Prometheus: `x` of the namespace is gone, and `y` runs there."""
    found = monitored(kind)
    families = {"LinkisEcmOperatorDown": "ecm_leading", "LinkisEcmGatewayDown": "ecm_gateway_requests_in_flight"}
    labels = {"severity": "critical", "namespace": "ns", "release": "x"}
    fires = [
        {"eval_time": "10m", "alertname": name,
         "exp_alerts": [{"exp_labels": labels, "exp_annotations": found[name]["annotations"]}]}
        for name in families
    ]  # fmt: skip
    second, first = (
        [{"series": f'{family}{{namespace="ns", release="{name}"}}', "values": "1x20"} for family in families.values()]
        for name in ("y", "x")
    )
    silent = [{**one, "exp_alerts": []} for one in fires]
    promtool(
        tmp_path,
        [
            {"input_series": second, "alert_rule_test": fires},
            {"input_series": first + second, "alert_rule_test": silent},
        ],
        json.dumps({"groups": [{"name": "chart", "rules": list(found.values())}]}),
    )


def test_the_one_of_two_installations_that_is_gone_fires(tmp_path: Any) -> None:
    """By Prometheus: the rules of the chart, with another installation of the same namespace in another cluster."""
    found = rules(cluster="east")
    labels = {"severity": "critical", "cluster": "east", "namespace": "ns"}
    asked = [
        {"eval_time": "10m", "alertname": name,
         "exp_alerts": [{"exp_labels": labels, "exp_annotations": found[name]["annotations"]}]}
        for name in ("LinkisEcmOperatorDown", "LinkisEcmGatewayDown")
    ]  # fmt: skip
    others = [
        {"series": f'{family}{{{installation}, instance="a"}}', "values": "1x20"}
        for family in ("ecm_leading", "ecm_gateway_requests_in_flight")
        for installation in ('cluster="west", namespace="ns"', 'cluster="east", namespace="b-c"')
    ]
    here = [{"series": one["series"].replace("west", "east"), "values": "1x20"} for one in others]
    silent = [{**one, "exp_alerts": []} for one in asked]
    promtool(
        tmp_path,
        [
            {"input_series": others, "alert_rule_test": asked},
            {"input_series": here[::2] + others, "alert_rule_test": silent},
        ],
        json.dumps({"groups": [{"name": "chart", "rules": list(found.values())}]}),
    )

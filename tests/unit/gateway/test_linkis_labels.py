"""What the labels of an asker mean: Linkis's rule of which engines have to have them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from linkis_ecm.api.models import LABEL_VALUE_PATTERN
from linkis_ecm.gateway.http.errors import Refused
from linkis_ecm.gateway.linkis.labels import AskedLabels, label_value, read_labels

USUAL = {"engineType": "python-3.11", "userCreator": "alice-IDE"}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param({}, AskedLabels(), id="type and creator have fields of their own"),
        pytest.param({"fixedEngineConn": "s-1"}, AskedLabels(required={"fixedEngineConn": "s-1"}), id="CORE"),
        pytest.param({"fixedEngineConn": {"sessionId": 7}}, AskedLabels(required={"fixedEngineConn": "7"}), id="parts"),
        pytest.param(
            {"yarnCluster": {"clusterName": "blue", "clusterType": "K8S"}},
            AskedLabels(required={"yarnCluster": "K8S-blue"}), id="parts in Linkis's order",
        ),
        pytest.param(
            {"engingeConnRuntimeMode": {"stringValue": "yarnCluster", "modeValue": "x"}},
            AskedLabels(required={"engingeConnRuntimeMode": "yarnCluster"}), id="stringValue",
        ),
        pytest.param({"team": "blue", "dry": True}, AskedLabels(required={"team": "blue", "dry": "true"}), id="own"),
        pytest.param({"team": "", "fixedEngineConn": None, "x": {}, "y": []}, AskedLabels(), id="empty"),
        pytest.param({"taskId": 7}, AskedLabels(preferred={"taskId": "7"}), id="not CORE"),
        pytest.param({"codeType": "python", "route": "r", "engineInstance": "a:1"}, AskedLabels(), id="no engine's"),
        pytest.param({"tenant": {"tenant": "t"}}, AskedLabels(tenant="t"), id="tenant"),
        pytest.param({"engineConnMode": "Computation"}, AskedLabels(), id="a session is the default"),
        pytest.param({"engineConnMode": "once"}, AskedLabels(required={"engineConnMode": "once"}), id="mode"),
        pytest.param(
            {"executeOnce": ""}, AskedLabels(required={"executeOnce": ""}, new_wanted="label executeOnce"), id="once"
        ),
        pytest.param(
            {"reuseExclusion": "*"}, AskedLabels(excluded=frozenset("*"), new_wanted="label reuseExclusion"), id="all"
        ),
        pytest.param(
            {"reuseExclusion": {"instances": "A:1; b:2;"}}, AskedLabels(excluded=frozenset({"a:1", "b:2"})), id="some"
        ),
    ],
)  # fmt: skip
def test_each_label_has_its_part(labels: dict[str, Any], expected: AskedLabels) -> None:
    assert read_labels(USUAL | labels) == expected


@pytest.mark.parametrize("name", ["a b", "x/y", "", "a" * 64, "team\n", "Ä"])
def test_a_name_that_is_no_labels_is_refused(name: str) -> None:
    with pytest.raises(Refused) as refused:
        read_labels({name: "x"})
    assert "write its name with letters" in refused.value.sentence


@pytest.mark.parametrize("text", ["a b", "x/y", "a" * 64, "部门", "-", "x\ny", "\ud800"])
def test_a_value_that_kubernetes_does_not_take_is_written_as_its_hash(text: str) -> None:
    written = label_value(text)
    assert re.fullmatch(LABEL_VALUE_PATTERN, written)
    assert written == label_value(text) != label_value(f"{text}2")


def test_a_deep_label_is_empty() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = {"stringValue": deep}
    assert read_labels({"team": deep}) == AskedLabels()

"""Which entry of the catalogue an engine is made of; operator and gateway answer the same."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from linkis_ecm.controller.state.cache import Cache
from linkis_ecm.engine.admission.plugin_choice import choose_plugin
from linkis_ecm.gateway.inventory.cache import PluginCache
from linkis_ecm.gateway.inventory.view import plugin_of, view_of
from linkis_ecm.model.engineconn import EngineConnSpec


def entry(name: str, engine_type: str, version: str, *, default: bool = False) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "resourceVersion": "1"},
        "spec": {
            "engineType": engine_type, "engineVersion": version, "default": default, "image": "engine:1",
            "runTypes": ["python"], "defaultResources": {"cpu": "1", "memory": "1Gi"},
        },
    }  # fmt: skip


# Not in the order of their names: the rule sorts.
CATALOGUE = [
    entry("python-312", "python", "3.12", default=True),
    entry("python-311", "python", "3.11"),
    entry("python-311-gpu", "python", "3.11"),
    entry("shell", "shell", "1"),
    entry("spark-35", "spark", "3.5"),
    entry("spark-34", "spark", "3.4"),
]
CASES = [
    pytest.param({"plugin": "python-311-gpu"}, "python-311-gpu", id="by name"),
    pytest.param({"plugin": "python-311-gpu", "engineType": "spark"}, "python-311-gpu", id="the name alone counts"),
    pytest.param({"plugin": "nothing"}, None, id="no such name"),
    pytest.param({"engineType": "python", "engineVersion": "3.12"}, "python-312", id="type and version"),
    pytest.param({"engineType": "python", "engineVersion": "3.11"}, "python-311", id="the first by name of several"),
    pytest.param({"engineType": "python", "engineVersion": "2.7"}, None, id="no such version, default or not"),
    pytest.param({"engineType": "python"}, "python-312", id="the type's default"),
    pytest.param({"engineType": "shell"}, "shell", id="the type's only one"),
    pytest.param({"engineType": "spark"}, None, id="several and no default"),
    pytest.param({"engineType": "cobol"}, None, id="no such type"),
]


@pytest.mark.parametrize(("asked", "expected"), CASES)
def test_one_rule_for_operator_and_gateway(asked: dict[str, str], expected: str | None) -> None:
    operator, gateway = Cache(epoch=datetime.now(UTC)), PluginCache()
    for item in CATALOGUE:
        operator.apply_plugin(item)
        gateway.on_event("ADDED", plugin_of(item))
    spec = asked | {"user": "alice"}
    by_rule = choose_plugin(
        map(plugin_of, CATALOGUE), plugin=asked.get("plugin"), engine_type=asked.get("engineType"),
        version=asked.get("engineVersion"),
    )  # fmt: skip
    by_operator = operator.plugin_for(EngineConnSpec.model_validate(spec))
    by_gateway = gateway.of(view_of({"metadata": {"namespace": "n", "name": "e"}, "spec": spec}))
    assert [found and found.name for found in (by_rule, by_operator, by_gateway)] == [expected] * 3


def test_an_accepted_engine_keeps_its_entry_when_the_default_moves() -> None:
    gateway = PluginCache()
    for item in CATALOGUE:
        gateway.on_event("ADDED", plugin_of(item))
    item = {
        "metadata": {"namespace": "n", "name": "e"},
        "spec": {"engineType": "python", "user": "alice"},
        "status": {"engineType": "python", "engineVersion": "3.11"},
    }
    found = gateway.of(view_of(item))
    assert found is not None
    assert found.name == "python-311"

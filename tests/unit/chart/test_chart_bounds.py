"""What the chart bounds of an engine on its node, and whom it asks for a variable from a Secret."""

from __future__ import annotations

from typing import Any

from linkis_ecm.model.engineconn import SECRET_ENV_MAX
from tests.unit.chart.test_chart import MODES, template


def test_variables_from_secrets_are_asked_for_by_a_policy_of_their_own() -> None:
    for mode in ("some namespaces", "every namespace"):
        policy, binding = (
            d["spec"] for d in template(*MODES[mode])
            if d["kind"].startswith("ValidatingAdmissionPolicy") and d["metadata"]["name"].endswith("-env")
        )  # fmt: skip
        asked = [one for one in policy["validations"] if "authorizer" in one["expression"]]
        assert len(asked) == SECRET_ENV_MAX <= 28
        assert all(one["messageExpression"] and one["message"] for one in asked)
        assert (policy["failurePolicy"], binding["validationActions"]) == ("Fail", ["Deny"])
        assert ("matchResources" in binding) is (mode == "some namespaces")


def test_engines_have_bounds_of_disk_and_processes_and_user_namespaces_on_request() -> None:
    def plugin(*arguments: str) -> dict[str, Any]:
        (found,) = (d["spec"] for d in template(*arguments) if d["kind"] == "EngineConnPlugin")
        return {name: found[name] for name in ("storage", "maxProcesses", "userNamespaces")}

    assert plugin() == {
        "storage": {"tmp": "4Gi", "volumes": "8Gi", "request": "0"}, "maxProcesses": 2048, "userNamespaces": False
    }  # fmt: skip
    values = ("storage.tmp=1Gi", "maxProcesses=500", "userNamespaces=true")
    assert plugin(*(word for value in values for word in ("--set", f"engines.python.{value}"))) == {
        "storage": {"tmp": "1Gi", "volumes": "8Gi", "request": "0"}, "maxProcesses": 500, "userNamespaces": True
    }  # fmt: skip

"""As whom an engine's pod runs: user and groups by the plugin, never root; an account by the plugin alone."""

from __future__ import annotations

from typing import Any

import pytest

from linkis_ecm.engine.pod.spec import USER_ID, InvalidSpecError
from tests.unit.pods.test_pod_bounds import PROCESS, built

OURS = {"runAsUser": USER_ID, "runAsGroup": USER_ID, "fsGroup": USER_ID}


@pytest.mark.parametrize(
    ("plugin", "users"),
    [
        ({}, OURS),
        ({"securityContext": {}}, {}),
        ({"securityContext": {"fsGroup": 2000}}, {"fsGroup": 2000}),
        (
            {"securityContext": {"runAsUser": 7, "runAsGroup": 8, "fsGroup": 9, "supplementalGroups": [5000]}},
            {"runAsUser": 7, "runAsGroup": 8, "fsGroup": 9, "supplementalGroups": [5000]},
        ),
    ],
)
@pytest.mark.parametrize("base", [None, PROCESS])
def test_user_and_groups_are_the_plugins_and_never_root(
    plugin: dict[str, Any], users: dict[str, Any], base: Any
) -> None:
    pod = built(plugin, base=base)
    always = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["securityContext"] == always | users
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


def test_a_plugin_names_an_account_whose_token_no_engine_gets() -> None:
    account = {"podTemplate": {"spec": {"serviceAccountName": "s3-reader"}}}
    pod = built(account)
    assert pod["serviceAccountName"] == "s3-reader"
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in built()
    with pytest.raises(InvalidSpecError, match=r"spec\.podTemplate\.spec\.serviceAccountName is not taken"):
        built(spec=account)
    # Nor where the plugin has it: an engine names none, not even the same.
    with pytest.raises(InvalidSpecError, match="serviceAccountName is not taken"):
        built(account, account)


@pytest.mark.parametrize(
    "field", ["hostNetwork", "hostPID", "securityContext", "volumes", "hostIPC", "automountServiceAccountToken"]
)
def test_a_plugins_overlay_takes_no_more_than_an_account(field: str) -> None:
    with pytest.raises(InvalidSpecError, match="is not taken"):
        built({"podTemplate": {"spec": {field: True}}})

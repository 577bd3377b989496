"""Whether the operator lets an engine be lent: at its acceptance, at each pass after it, and never after a no."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from linkis_ecm.engine.admission.in_force import InForce, digest
from linkis_ecm.engine.pending import digests
from linkis_ecm.engine.view import PluginView, plugin_view
from linkis_ecm.gateway.inventory.view import view_of
from tests.unit.engine.snapshots import IDLE, T0, decided, engine, pod, report, snapshot

POLICIES = InForce(since=T0 - timedelta(hours=1), identity="policies")
GROUP = {"level": "group", "group": "analysts"}
SERVER = {"level": "server"}
ACCEPTED = IDLE | {"ecmInstance": "ecm:9102", "startup": {"accepted": "2026-11-24T12:00:00.000000Z"}}


def lends(**spec: Any) -> PluginView:
    body = {
        "engineType": "python", "engineVersion": "3.11", "image": "engine:1", "runTypes": ["python"],
        "defaultResources": {"cpu": "500m", "memory": "1Gi"}, "share": "group", "shareAs": "pool",
        "shareGroups": ["analysts", "science"],
    } | spec  # fmt: skip
    found = {name: value for name, value in body.items() if value is not None}
    return plugin_view({"metadata": {"name": "python-3.11", "resourceVersion": "1"}, "spec": found})


SERVES = lends(share="server", shareGroups=None)


def share_of(plugin: PluginView | None = None, policies: InForce | None = POLICIES, **spec: Any) -> dict[str, Any]:
    """What the first write of a new engine's status says."""
    one = engine(**{"user": "pool", "share": GROUP} | spec)
    return dict(decided(snapshot(engine=one, plugin=plugin or lends(), policies=policies)).patch["share"])


def test_an_engine_that_is_made_to_be_lent_is() -> None:
    assert share_of() == {"shared": True}
    assert share_of(SERVES, share=SERVER) == {"shared": True}


@pytest.mark.parametrize(
    ("plugin", "spec", "says"),
    [
        (None, {"env": [{"name": "A", "value": "1"}]}, "It has env of its own"),
        (None, {"volumes": [{"name": "v", "mountPath": "/v", "emptyDir": {}}]}, "It has volumes of its own"),
        (None, {"podTemplate": {"spec": {"nodeSelector": {"a": "b"}}}}, "It has podTemplate of its own"),
        (None, {"resources": {"cpu": "1"}}, "It has resources of its own"),
        (None, {"workingDir": "/tmp/x"}, "It has workingDir of its own"),
        (None, {"mode": "once", "code": "1"}, "It has mode once of its own"),
        (None, {"user": "alice"}, "Its plugin's shareAs is pool, and it belongs to alice."),
        (None, {"share": {"level": "group", "group": "others"}}, "Its plugin's shareGroups do not have others."),
        (None, {"share": SERVER}, "Its plugin has share: group, and it was made for server."),
        (SERVES, {}, "Its plugin has share: server, and it was made for group."),
        (lends(share="user", shareAs=None, shareGroups=None), {}, "Its plugin has share: user"),
    ],
)
def test_an_engine_that_has_something_of_its_own_or_another_plugin_is_not(
    plugin: PluginView | None, spec: dict[str, Any], says: str
) -> None:
    found = share_of(plugin, **spec)
    assert found["shared"] is False
    assert found["message"].startswith(says)


def test_without_policies_in_force_nothing_is_lent() -> None:
    assert share_of(policies=None)["message"].startswith("No admission policy is in force")


def test_an_engine_that_nobody_means_to_lend_has_no_word_of_it() -> None:
    assert "share" not in decided(snapshot(engine=engine(user="pool"), plugin=lends(), policies=POLICIES)).patch


def later(status: dict[str, Any], plugin: PluginView | None = None, generation: int = 2, **spec: Any) -> dict[str, Any]:
    """The patch of a pass over a live engine whose spec has changed."""
    one = replace(engine(ACCEPTED | status, **{"user": "pool", "share": GROUP} | spec), generation=generation)
    return decided(snapshot(engine=one, pod=pod(), report=report(), plugin=plugin or lends(), policies=POLICIES)).patch


def test_a_yes_becomes_a_no_where_the_spec_gets_something_of_its_own() -> None:
    patch = later({"share": {"shared": True}}, resources={"memory": "2Gi"})
    assert patch["share"]["shared"] is False
    assert patch["share"]["message"].startswith("It has resources of its own")


def test_a_yes_that_the_api_server_has_completed_is_not_written_again() -> None:
    assert later({"share": {"shared": True, "message": ""}, "observedGeneration": 2}) == {}


def test_a_no_stays_a_no() -> None:
    """Its pod has the volumes that are in its spec no more."""
    no = {"share": {"shared": False, "message": "It has volumes of its own"}}
    assert "share" not in later(no)
    for edited in ({"share": {}}, {"share": {"shared": "true"}}):
        assert later(edited)["share"]["shared"] is False


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("volumes", [{"name": "v", "mountPath": "/v", "emptyDir": {}}]),
        ("podTemplate", {"spec": {"nodeSelector": {"a": "b"}}}),
        ("resources", {"cpu": "1"}),
        ("workingDir", "/tmp/x"),
    ],
)
def test_what_the_pod_was_made_with_counts_also_where_the_spec_has_lost_it(field: str, value: Any) -> None:
    """An operator ends between the pod and the first status, or the spec is edited while the pod is made; the
    API server lets nobody change its env."""
    spec = {"user": "pool", "share": GROUP}
    made = pod(made_from=made_with(**spec | {field: value}))
    first = snapshot(engine=engine(**spec), pod=made, plugin=lends(), policies=POLICIES)
    assert decided(first).patch["share"]["message"].startswith(f"It has {field} of its own")
    running = engine(ACCEPTED | {"share": {"shared": True}}, **spec)
    seen = snapshot(engine=running, pod=made, report=report(), plugin=lends(), policies=POLICIES)
    assert decided(seen).patch["share"]["shared"] is False
    made = pod(made_from=made_with(**spec))
    assert decided(replace(first, pod=made)).patch["share"] == {"shared": True}
    assert "share" not in decided(replace(seen, pod=made)).patch


def made_with(**spec: Any) -> dict[str, str]:
    found = engine(**spec).spec
    assert found is not None
    return digests(found)


def test_an_engine_that_was_accepted_without_a_word_of_it_is_never_lent() -> None:
    assert later({})["share"] == {
        "shared": False, "message": "It was accepted by an operator that shares no engines.",
    }  # fmt: skip


def test_a_plugin_that_changes_is_the_gateways_matter() -> None:
    """Else a plugin that is deleted and made again would leave its running engines to nobody."""
    for plugin in (lends(shareGroups=["science"]), lends(share="user", shareAs=None, shareGroups=None)):
        assert "share" not in later({"share": {"shared": True}}, plugin)


def test_nothing_is_written_again_where_the_api_server_drops_the_field() -> None:
    """Under an older CRD: it has no share, so it is lent to nobody, and each pass would write it anew."""
    assert later({"observedGeneration": 1}, generation=1) == {}


def test_what_is_lent_is_part_of_what_the_policies_were_asked_about() -> None:
    plain, shared = engine(user="pool"), engine(user="pool", share=GROUP)
    assert digest(plain) != digest(shared)
    assert digest(shared) != digest(engine(user="pool", share=SERVER))
    # As it was before engines could be lent, so that no engine of then counts as changed.
    assert digest(plain) == "1f964ec48c87220ea49ba9b0bd84bdd2"


def test_a_share_that_cannot_be_read_is_no_engine_of_its_users_alone() -> None:
    for share in ({"level": "all"}, {"level": 1}, {}, {"group": "x"}):
        view = view_of({"metadata": {}, "spec": {"share": share}, "status": {"share": {"shared": True}}})
        assert view.lent_level not in ("", "group", "server")

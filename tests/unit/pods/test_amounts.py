"""Amounts of cpu, memory and disk are positive at each level: Kubernetes takes a limit of 0 for none."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from linkis_ecm.engine.pod.spec import InvalidSpecError, build_pod, sizes_now
from linkis_ecm.engine.view import PluginView, plugin_view
from linkis_ecm.model import crd
from linkis_ecm.model.amounts import AMOUNT_PATTERN, QUANTITY_PATTERN, STORED, AtMost, too_small
from linkis_ecm.model.engineconn import ENGINE_BOUNDS, EngineConnSpec
from linkis_ecm.model.formats import parse_quantity
from linkis_ecm.model.plugin import BOUNDS, EngineConnPluginSpec
from linkis_ecm.model.pod_containers import broken_resources
from tests.unit.engine.snapshots import IDLE, PLUGIN, SETTINGS, S, decided, engine, pod, report, snapshot

ZEROS = ["0", "0m", "0.4m", "0.0", "00", "0Gi", "0.00Ki"]
GPU = "nvidia.com/gpu"
BEYOND = {"requests": {"ephemeral-storage": "2Gi"}, "limits": {"ephemeral-storage": "1Gi"}}


def offered() -> PluginView:
    assert PLUGIN is not None
    return PLUGIN


@given(st.from_regex(QUANTITY_PATTERN, fullmatch=True).filter(lambda text: len(text) <= 20 and text.isascii()))
def test_the_pattern_takes_each_positive_amount_but_thousandths_of_a_thousandth(text: str) -> None:
    number = parse_quantity(text)
    refused = number == 0 or (text.endswith("m") and number < Decimal("0.001"))
    spec = {"engineType": "python", "user": "u", "resources": {"cpu": text}}
    if refused:
        with pytest.raises(ValidationError, match="0 is no limit"):
            EngineConnSpec.model_validate(spec)
    else:
        EngineConnSpec.model_validate(spec)
    assert AMOUNT_PATTERN != QUANTITY_PATTERN


@pytest.mark.parametrize(
    ("kind", "enough", "under"),
    [
        ("cpu", ["1m", "1.9m", "0.001", "1", "2k"], ["0.9m", "0.0009", *ZEROS]),
        ("memory", ["32Mi", "33554432", "34M", "1Gi"], ["1", "100m", "31Mi", "33M", "33554431", *ZEROS]),
        ("disk", ["1", "1Ki", "1000m"], ["0.9", "999m", *ZEROS]),
    ],
)
def test_the_least_of_each_kind(kind: Any, enough: list[str], under: list[str]) -> None:
    assert [text for text in enough if too_small(kind, text)] == []
    assert [text for text in under if not too_small(kind, text)] == []


@pytest.mark.parametrize("amount", ["1", "100m", "31Mi", *ZEROS])
@pytest.mark.parametrize("field", ["memory", "cpu", "cpuLimit"])
def test_a_stored_engine_with_too_little_gets_no_pod_and_is_told_field_and_remedy(field: str, amount: str) -> None:
    if field != "memory" and parse_quantity(amount) >= parse_quantity("1m"):
        return
    asked = engine(resources={field: amount})
    assert asked.spec is not None, asked.invalid
    found = decided(snapshot(engine=asked))
    assert (found.state, found.reason) == (S.FAILED, "InvalidSpec")
    assert found.actions == ()
    least = "32Mi" if field == "memory" else "1m"
    assert f"spec.resources.{field} {amount} is under {least}" in found.patch["message"]
    assert f"ask for {least} or more" in found.patch["message"]


def test_a_live_engine_from_before_goes_on() -> None:
    asked = engine(IDLE, resources={"memory": "0", "cpuLimit": "0"})
    assert decided(snapshot(engine=asked, pod=pod(), report=report())).state is S.IDLE


@pytest.mark.parametrize("amount", ZEROS)
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"defaultResources": {"cpu": "1", "memory": "{}"}}, "defaultResources.memory"),
        ({"defaultResources": {"cpu": "{}", "memory": "1Gi"}}, "defaultResources.cpu"),
        ({"defaultResources": {"cpu": "1", "cpuLimit": "{}", "memory": "1Gi"}}, "defaultResources.cpuLimit"),
        ({"maxResources": {"cpu": "1", "memory": "{}"}}, "maxResources.memory"),
        ({"maxResources": {"cpu": "1", "cpuLimit": "{}", "memory": "1Gi"}}, "maxResources.cpuLimit"),
        ({"storage": {"tmp": "{}"}}, "storage.tmp"),
        ({"storage": {"volumes": "{}"}}, "storage.volumes"),
        ({"volumes": [{"name": "v", "mountPath": "/v", "emptyDir": {"sizeLimit": "{}"}}]}, "volumes v: sizeLimit"),
    ],
)
def test_a_stored_plugin_with_0_is_in_the_catalogue_and_its_engines_name_its_field(
    change: dict[str, Any], field: str, amount: str
) -> None:
    found = decided(snapshot(plugin=_plugin(_filled(change, amount))))
    assert (found.state, found.reason, found.actions) == (S.FAILED, "InvalidSpec", ())
    assert f"{field} {amount} of the EngineConnPlugin is under" in found.patch["message"]
    assert "have the platform give" in found.patch["message"]


def test_what_an_engine_asks_for_itself_replaces_a_default_of_0() -> None:
    weak = _plugin({"defaultResources": {"cpu": "1", "memory": "0"}, "maxResources": {"cpu": "2", "memory": "2Gi"}})
    assert decided(snapshot(plugin=weak)).state is S.FAILED
    assert decided(snapshot(plugin=weak, engine=engine(resources={"memory": "1Gi"}))).reason == "PodCreated"


@pytest.mark.parametrize("amount", ZEROS)
def test_a_stored_volume_of_0_is_refused(amount: str) -> None:
    volumes = [{"name": "v", "mountPath": "/v", "emptyDir": {"sizeLimit": amount}}]
    found = decided(snapshot(engine=engine(volumes=volumes)))
    assert (found.state, found.reason) == (S.FAILED, "InvalidSpec")
    assert f"spec.volumes v: sizeLimit {amount} is under 1" in found.patch["message"]


def test_the_least_engine_has_limits_and_a_bounded_shared_memory() -> None:
    asked = engine(resources={"cpu": "1m", "cpuLimit": "1m", "memory": "32Mi"})
    assert asked.spec is not None
    found = build_pod(asked, asked.spec, offered().spec, ticket="t", attempt=0, settings=SETTINGS.pod)["spec"]
    limits = found["containers"][0]["resources"]["limits"]
    assert (limits["cpu"], limits["memory"]) == ("1m", "32Mi")
    sizes = {one["name"]: one["emptyDir"]["sizeLimit"] for one in found["volumes"] if "emptyDir" in one}
    assert sizes["shm"] == str(16 << 20)
    assert [name for name, size in sizes.items() if parse_quantity(size) < 1] == []


def test_no_device_is_no_amount_and_is_neither_counted_nor_in_the_pod() -> None:
    asked = engine(resources={"extended": {GPU: 0, "a.example/b": 0}})
    assert asked.spec is not None
    found = build_pod(asked, asked.spec, offered().spec, ticket="t", attempt=0, settings=SETTINGS.pod)["spec"]
    limits = found["containers"][0]["resources"]["limits"]
    assert not {GPU, "a.example/b"} & set(limits)


def test_only_what_is_stored_is_parsed_with_0() -> None:
    spec = {"engineType": "python", "user": "u", "resources": {"memory": "0"}}
    EngineConnSpec.model_validate(spec, context=STORED)
    with pytest.raises(ValidationError, match="0 is no limit"):
        EngineConnSpec.model_validate(spec)
    stored = EngineConnSpec.model_validate(spec, context=STORED)
    with pytest.raises(InvalidSpecError, match="under 32Mi"):
        build_pod(engine(), stored, offered().spec, ticket="t", attempt=0, settings=SETTINGS.pod)


def _filled(value: Any, amount: str) -> Any:
    if isinstance(value, dict):
        return {name: _filled(one, amount) for name, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, amount) for one in value]
    return amount if value == "{}" else value


def _plugin(change: dict[str, Any]) -> PluginView:
    body = offered().spec.model_dump(by_alias=True, exclude_none=True) | change
    with pytest.raises(ValidationError, match="0 is no limit"):
        EngineConnPluginSpec.model_validate(body)
    found = plugin_view({"metadata": {"name": offered().name, "resourceVersion": "1"}, "spec": body})
    assert found is not None
    return found


ABOVE = [
    ({"warmPool": {"resources": {"cpu": "2", "memory": "1Mi"}}}, "spec.warmPool.resources.cpu"),
    ({"warmPool": {"resources": {"cpu": "1m", "memory": "9Gi"}}}, "spec.warmPool.resources.memory"),
    ({"softPause": {"cpu": "1001m"}}, "spec.softPause.cpu"),
    ({"maxResources": {"cpu": "999m", "memory": "1Gi"}}, "spec.defaultResources.cpu"),
    ({"maxResources": {"cpu": "1", "memory": "1023Mi"}}, "spec.defaultResources.memory"),
    ({"defaultResources": {"cpu": "1", "cpuLimit": "0.9", "memory": "1Gi"}}, "spec.defaultResources.cpu"),
    (
        {"defaultResources": {"cpu": "1", "memory": "1Gi", "extended": {"x.y/z": 2}},
         "maxResources": {"cpu": "1", "memory": "1Gi", "extended": {"x.y/z": 1}}},
        "spec.defaultResources.extended",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "field"), ABOVE)
def test_of_two_amounts_one_is_not_above_the_other_and_what_is_stored_stays(change: dict[str, Any], field: str) -> None:
    base = {
        "engineType": "python", "engineVersion": "3", "image": "i", "runTypes": ["python"],
        "defaultResources": {"cpu": "1", "memory": "1Gi"},
    }  # fmt: skip
    with pytest.raises(ValueError, match=f"{field} must not be above") as refused:
        EngineConnPluginSpec.model_validate(base | change)
    assert "raise " in str(refused.value), "it says what to do"
    assert EngineConnPluginSpec.model_validate(base | change, context=STORED).engine_type == "python"


def test_each_bound_has_a_rule_of_the_crd_that_asks_for_each_field_on_its_way() -> None:
    spec = crd.plugin()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    rules = {one["message"]: one["rule"] for one in spec["x-kubernetes-validations"]}
    for bound in BOUNDS:
        assert rules[bound.text] == bound.cel
        assert f"!has(self.{bound.field})" in rules[bound.text]
        if isinstance(bound, AtMost):
            assert rules[bound.text].endswith(
                f"quantity(string(self.{bound.small})).compareTo(quantity(string(self.{bound.large}))) <= 0"
            )
    (own,) = ENGINE_BOUNDS
    engines = crd.engineconn()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert own.cel in [one["rule"] for one in engines["x-kubernetes-validations"]]


# --- what the API server had stored before it refused it


BASE = {
    "engineType": "python", "engineVersion": "3", "image": "i", "runTypes": ["python"],
    "defaultResources": {"cpu": "1", "memory": "1Gi"},
}  # fmt: skip


@pytest.mark.parametrize(
    "spec",
    [
        {"storage": {"request": "9Gi"}},
        {"softPause": {"after": "1h", "cpu": "50m"}},
        {"stopGrace": "2h"},
        {"startTimeout": "0s"},
        {"podTemplate": {"spec": {"containers": [{"name": "a", "image": "i", "resources": BEYOND}]}}},
    ],
)
def test_a_stored_plugin_that_would_be_refused_now_stays_in_the_catalogue(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must"):
        EngineConnPluginSpec.model_validate(BASE | spec)
    assert EngineConnPluginSpec.model_validate(BASE | spec, context=STORED).engine_type == "python"


@pytest.mark.parametrize(
    "spec", [{"resources": {"cpu": "2", "cpuLimit": "1"}}, {"stopGrace": "2h"}, {"startTimeout": "0m"}]
)
def test_a_stored_engine_that_would_be_refused_now_is_read(spec: dict[str, Any]) -> None:
    body = {"engineType": "python", "user": "u"} | spec
    with pytest.raises(ValidationError, match=r"must (not be above|be 1s or more)"):
        EngineConnSpec.model_validate(body)
    assert EngineConnSpec.model_validate(body, context=STORED).user == "u"


@pytest.mark.parametrize("written", ["0s", "0h", "0h0m0s"])
def test_a_stored_start_timeout_of_no_time_is_as_if_it_were_not_given(written: str) -> None:
    """Its engines failed at once, and a pool's pods were replaced before they were ready."""
    engine = EngineConnSpec.model_validate(
        {"engineType": "python", "user": "u", "startTimeout": written}, context=STORED
    )
    plugin = EngineConnPluginSpec.model_validate(BASE | {"startTimeout": written}, context=STORED)
    assert engine.start_timeout == plugin.start_timeout == "8m"
    kept = EngineConnSpec.model_validate({"engineType": "python", "user": "u", "startTimeout": "1s"}, context=STORED)
    assert kept.start_timeout == "1s"


SCRATCH = {"volumes": [{"name": "a", "mountPath": "/a", "emptyDir": {"sizeLimit": "1Gi"}}]}


@pytest.mark.parametrize(
    ("more", "request_", "most"),
    [
        ({}, "8257Mi", "8256Mi"),
        ({"storage": {"tmp": "1G"}}, "5114Mi", "5114Mi"),
        ({"storage": {"tmp": "1G"}}, "5115Mi", "5114Mi"),
        # The API server does not add up the plugin's own volumes, the operator does.
        (SCRATCH, "9280Mi", "9280Mi"),
        (SCRATCH, "9281Mi", "9280Mi"),
    ],
)
def test_a_pod_sets_no_more_disk_aside_than_it_may_use(more: dict[str, Any], request_: str, most: str) -> None:
    body = offered().spec.model_dump(by_alias=True, exclude_none=True) | more
    body["storage"] = {**more.get("storage", {}), "request": request_}
    found = plugin_view({"metadata": {"name": "p", "resourceVersion": "1"}, "spec": body})
    assert found is not None
    if request_ == most:
        (container,) = built(found)["spec"]["containers"]
        kinds = [container["resources"][kind]["ephemeral-storage"] for kind in ("requests", "limits")]
        assert kinds == [most, most]
        return
    with pytest.raises(InvalidSpecError, match=f"storage.request {request_} .* above the {most} .*: have the platform"):
        built(found)


def built(plugin: PluginView) -> dict[str, Any]:
    asked = engine()
    assert asked.spec is not None
    return build_pod(asked, asked.spec, plugin.spec, ticket="t", attempt=1, settings=SETTINGS.pod)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        (BEYOND, "requests must not be above limits"),
        ({"requests": {"nvidia.com/gpu": 1}}, "write them below limits alone"),
        ({"requests": {"cpu": "1", "hugepages-2Mi": "2Mi"}}, "write them below limits alone"),
        ({"limits": {"nvidia.com/gpu": "0.5"}}, "round the amount"),
        ({"limits": {"hugepages-2Mi": "2Mi"}}, "give one of them"),
        ({"limits": {"gpu": 1}}, "correct its name"),
    ],
)
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_a_stored_container_that_no_pod_may_have_is_told_with_field_and_remedy(
    kind: str, resources: dict[str, Any], words: str
) -> None:
    body = offered().spec.model_dump(by_alias=True, exclude_none=True)
    body["podTemplate"] = {"spec": {kind: [{"name": "a", "image": "i", "resources": resources}]}}
    found = plugin_view({"metadata": {"name": "p", "resourceVersion": "1"}, "spec": body})
    assert found is not None
    with pytest.raises(InvalidSpecError, match=f"podTemplate.spec.{kind} .*: resources of a: .*{words}"):
        built(found)


@pytest.mark.parametrize("resources", [None, [], "x", {"requests": 1}, {"limits": {"cpu": "much"}, "requests": []}])
def test_resources_that_are_none_are_left_to_the_schema(resources: Any) -> None:
    template = {"spec": {"containers": [{"resources": resources}, 1], "initContainers": {"a": 1}}}
    assert broken_resources(template) == ""
    assert broken_resources(None) == ""


# --- durations


@given(st.integers(0, 4000), st.integers(0, 4000), st.booleans())
def test_a_pause_is_taken_exactly_where_it_can_begin(after: int, end: int, may_be_longer: bool) -> None:
    body = BASE | {
        "softPause": {"after": f"{after}s", "cpu": "50m"}, "idleTimeout": f"{end}s",
        "overridable": ["idleTimeout"] if may_be_longer else [],
    }  # fmt: skip
    if end == 0 or after < end or may_be_longer:
        assert EngineConnPluginSpec.model_validate(body).soft_pause is not None
        return
    with pytest.raises(ValidationError, match=r"spec.softPause.after must be shorter than idleTimeout: .*raise"):
        EngineConnPluginSpec.model_validate(body)


def test_an_engine_that_can_have_no_pod_has_no_size_now() -> None:
    has = sizes_now(engine(resources={"cpu": "3"}), offered())
    assert has is not None
    assert has.cpu == "3"
    refused = engine(resources={"memory": "1"})
    assert refused.spec is not None, refused.invalid
    unread = replace(engine(), spec=None)
    assert [sizes_now(refused, offered()), sizes_now(unread, offered()), sizes_now(engine(), None)] == [None] * 3

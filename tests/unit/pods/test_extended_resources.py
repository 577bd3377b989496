"""GPUs and other extended resources of engines, and memory whose request is below its limit: pod, limits, words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from linkis_ecm.controller.pods import refusals
from linkis_ecm.engine.admission.limits import Amount, amount, parse_limits
from linkis_ecm.engine.causes.start_problems import start_problem
from linkis_ecm.engine.pod.spec import InvalidSpecError
from linkis_ecm.engine.pod_view import pod_view
from linkis_ecm.kube.errors import Forbidden
from linkis_ecm.model.engineconn import Resources
from tests.unit.chart.test_chart import refusal, template
from tests.unit.chart.test_chart_parts import value
from tests.unit.controller.test_limits_of_people import ask, holder
from tests.unit.pods.test_pod_bounds import PLUGIN, PROCESS, built

GPU = "nvidia.com/gpu"
OFFERED = {
    "defaultResources": {"cpu": "500m", "memory": "1Gi"},
    "maxResources": {"cpu": "4", "memory": "8Gi", "extended": {GPU: 2}},
}


def container(plugin: dict[str, Any], resources: dict[str, Any] | None = None) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = built(plugin, {"resources": resources} if resources else {})["containers"][0][
        "resources"
    ]
    return found


def test_an_engine_gets_the_devices_that_it_asks_for_as_requests_and_limits() -> None:
    found = container(OFFERED, {"extended": {GPU: 2}})
    assert found["requests"][GPU] == found["limits"][GPU] == "2"
    assert GPU not in container(OFFERED)["limits"]


def test_a_default_may_be_declined() -> None:
    plugin = {"defaultResources": PLUGIN["defaultResources"] | {"extended": {GPU: 1}}}
    assert container(plugin)["limits"][GPU] == "1"
    assert GPU not in container(plugin, {"extended": {GPU: 0}})["limits"]


@pytest.mark.parametrize(
    ("plugin", "asked"),
    [
        ({}, {GPU: 1}),
        (OFFERED, {GPU: 3}),
        (OFFERED, {"devices.example.com/kvm": 1}),
        ({"defaultResources": PLUGIN["defaultResources"] | {"extended": {GPU: 1}}}, {GPU: 2}),
    ],
)
def test_devices_that_the_plugin_does_not_offer_are_refused(plugin: dict[str, Any], asked: dict[str, int]) -> None:
    with pytest.raises(InvalidSpecError, match=r"spec\.resources\.extended .* maxResources\.extended"):
        container(plugin, {"extended": asked})


@pytest.mark.parametrize("name", ["gpu", "requests.kubernetes.io/x", "a/" + "b" * 400])
def test_names_that_are_no_devices_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="device plugin"):
        Resources.model_validate({"extended": {name: 1}})


@pytest.mark.parametrize(
    ("percent", "memory", "requested"),
    [(None, "1Gi", "1Gi"), (100, "1Gi", "1Gi"), (50, "1Gi", "512Mi"), (1, "1Gi", "11Mi"), (1, "33554433", "1Mi")],
)
def test_memory_is_requested_in_part(percent: int | None, memory: str, requested: str) -> None:
    plugin = {} if percent is None else {"memoryRequestPercent": percent}
    found = container(plugin, {"memory": memory})
    assert (found["requests"]["memory"], found["limits"]["memory"]) == (requested, memory)


@pytest.mark.parametrize("name", ["NVIDIA_VISIBLE_DEVICES", "ASCEND_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"])
def test_a_variable_gives_no_process_the_devices_of_its_node(name: str) -> None:
    """Where a device runtime is the nodes' default, the variable alone does."""
    spec = {"env": [{"name": name, "value": "all"}]}
    with pytest.raises(InvalidSpecError, match=r"spec\.resources\.extended"):
        built(spec=spec, base=PROCESS)
    assert {"name": name, "value": "all"} in built({"overridable": ["env"]}, spec, base=PROCESS)["containers"][0]["env"]
    # An agent's container has it under another name, which no runtime reads.
    assert name not in [one["name"] for one in built(spec=spec)["containers"][0]["env"]]


def test_limits_of_people_count_devices() -> None:
    limits = parse_limits('{"user": {"extended": {"nvidia.com/gpu": 2}}, "users": {"bob": {"engines": 1}}}')
    two, one = amount("1", "1Gi", ((GPU, 2),)), amount("1", "1Gi", ((GPU, 1),))
    asked, held = holder("b"), holder("a")
    refused = ask(limits, _with(asked, one), _with(held, two))
    assert refused.limit == "user_extended"
    assert refused.sentence == (
        "User alice has 2 of 2 nvidia.com/gpu, and this engine asks for 1: stop one of lab/a."
    )  # fmt: skip
    assert ask(limits, _with(asked, one), _with(held, one)) is None
    assert ask(limits, asked, _with(held, two)) is None
    assert ask(limits, _with(asked, amount("1", "1Gi", ((GPU, 3),)))).fatal
    assert limits.of_user("bob") == Amount(engines=1, extended=((GPU, 2),))
    with pytest.raises(ValueError, match="no extended resource"):
        parse_limits('{"user": {"extended": {"gpu": 2}}}')


def _with(one: Any, size: Amount) -> Any:
    return type(one)(one.namespace, one.name, one.user, size)


def test_memory_counts_as_a_whole_whatever_is_requested() -> None:
    """The limit of people is on what an engine may use: its limit in the pod."""
    pod = {
        "metadata": {},
        "spec": {"containers": [{"name": "engine", "resources": {
            "requests": {"cpu": "1", "memory": "256Mi"}, "limits": {"memory": "1Gi", GPU: "2", "a.b/c": "x"}}}]},
    }  # fmt: skip
    view = pod_view(pod)
    assert amount(view.cpu_request, view.memory_limit, view.extended) == amount("1", "1Gi", ((GPU, 2),))


def test_a_node_without_the_device_is_named_with_the_field() -> None:
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available."
    condition = {"type": "PodScheduled", "status": "False", "message": message}
    problem = start_problem(pod_view({"metadata": {}, "spec": {}, "status": {"conditions": [condition]}}))
    assert problem is not None
    assert "Ask for fewer nvidia.com/gpu in spec.resources.extended" in problem.message
    assert "device plugin" in problem.message


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("failed quota: gpus: must specify requests.nvidia.com/gpu for: engine", "Set spec.resources.extended"),
        ("maximum nvidia.com/gpu usage per Container is 1, but limit is 2", "Set spec.resources.extended within"),
        (
            "memory max limit to request ratio per Container is 2, but provided ratio is 4.000000",
            "Set memoryRequestPercent of the EngineConnPlugin within the LimitRange",
        ),
    ],
)
def test_quotas_and_limit_ranges_name_the_field(words: str, remedy: str) -> None:
    assert remedy in refusals.of_forbidden(Forbidden(403, "Forbidden", words), []).message


def test_the_chart_passes_devices_and_the_request_on() -> None:
    gpu = {"cpu": 1, "memory": "4Gi", "extended": {GPU: 1}}
    found = next(
        d["spec"]
        for d in template(*value("engines.python.maxResources", gpu), "--set", "engines.python.memoryRequestPercent=50")
        if d["kind"] == "EngineConnPlugin"
    )
    assert found["maxResources"] == {"cpu": "1", "memory": "4Gi", "extended": {GPU: 1}}
    assert found["memoryRequestPercent"] == 50
    assert GPU in str(template(*value("limits", {"user": {"extended": {GPU: 2}}})))
    refusal(*value("engines.python.maxResources", gpu | {"extended": {"gpu": 1}}))

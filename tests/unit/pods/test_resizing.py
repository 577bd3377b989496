"""Which resizes Kubernetes never takes: a pod's class of quality of service stays, and no request is over its limit."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from linkis_ecm.engine import resizing
from tools.testkit.fakes.resizes import check_resize, default_requests, qos_class
from tools.testkit.fakes.rules import StatusError

BOTH = {"cpu": "1", "memory": "1Gi"}


def container(
    name: str, requests: dict[str, str] | None = None, limits: dict[str, str] | None = None
) -> dict[str, Any]:
    return {"name": name, "resources": {"requests": requests or {}, "limits": limits or {}}}


def a_pod(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **spec: Any) -> dict[str, Any]:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": list(containers), "initContainers": list(init)} | spec}
    default_requests(pod)
    return pod | {"status": {"qosClass": qos_class(pod["spec"])}}


# What may be beside the engine: nothing, a sidecar of each class, one that runs as an init container.
BESIDE: tuple[tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]], ...] = (
    ((), ()),
    ((container("s", BOTH, BOTH),), ()),
    ((container("s", {}, BOTH),), ()),
    ((container("s", BOTH),), ()),
    ((container("s"),), ()),
    ((container("s", BOTH, BOTH | {"cpu": "2"}),), ()),
    ((), (container("i", BOTH, BOTH),)),
    ((), (container("i", {"cpu": "1"}),)),
)
SIZES = tuple(itertools.product(("500m", "1", "2", "2000m"), ("", "1", "2"), ("1Gi", "1024Mi", "2Gi"), ("1Gi", "2Gi")))


def resources(cpu: str, cpu_limit: str, memory: str, memory_limit: str) -> dict[str, dict[str, str]]:
    limits = {"memory": memory_limit} | ({"cpu": cpu_limit} if cpu_limit else {})
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": limits}


def taken(pod: dict[str, Any], wanted: dict[str, dict[str, str]]) -> bool:
    """What the fake API server says."""
    first, *rest = pod["spec"]["containers"]
    after = {kind: first["resources"][kind] | amounts for kind, amounts in wanted.items()}
    new = pod | {"spec": pod["spec"] | {"containers": [first | {"resources": after}, *rest]}}
    try:
        check_resize(new, pod)
    except StatusError:
        return False
    return True


@pytest.mark.parametrize("beside", BESIDE)
def test_what_is_foretold_is_what_the_api_server_says(
    beside: tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]],
) -> None:
    others, init = beside
    refused = 0
    for had, wanted in itertools.product(SIZES, SIZES):
        pod = a_pod(container("engine", **resources(*had)), *others, init=init)
        try:
            check_resize(pod, pod)
        except StatusError:
            continue  # no such pod was ever made
        spec = pod["spec"]
        why = resizing.never(
            spec["containers"][0]["resources"], resources(*wanted),
            guaranteed=pod["status"]["qosClass"] == "Guaranteed", decides=resizing.decides_class(spec),
        )  # fmt: skip
        assert resizing.is_guaranteed(spec) is (qos_class(spec) == "Guaranteed")
        assert (not why) is taken(pod, resources(*wanted)), (had, wanted, why)
        refused += bool(why)
    assert refused


def test_the_words_name_the_amounts_and_the_rule() -> None:
    has = resources("50m", "2", "1Gi", "1Gi")
    says = resizing.never(has, {"requests": {"cpu": "2"}}, guaranteed=False, decides=True)
    assert says.startswith("with cpu 2 and the cpu limit 2 its pod would be Guaranteed in place of Burstable")
    over = resizing.never(has, {"requests": {"cpu": "4"}}, guaranteed=False, decides=True)
    assert over == "cpu 4 is over the cpu limit 2 that its pod has"
    fixed = resources("2", "2", "1Gi", "1Gi")
    assert "Burstable in place of Guaranteed" in resizing.never(
        fixed, {"requests": {"cpu": "1"}}, guaranteed=True, decides=True
    )


def test_the_amounts_of_the_pod_as_a_whole_decide_where_it_has_some() -> None:
    spec = {"resources": {"limits": BOTH}, "containers": [container("engine", {"cpu": "1"})]}
    assert resizing.is_guaranteed(spec)
    assert not resizing.decides_class(spec)
    assert resizing.decides_class(spec | {"resources": {}})


@pytest.mark.parametrize("limits", [{"cpu": "0", "memory": "1Gi"}, {"cpu": "100u", "memory": "1Gi"}, {}, None])
def test_amounts_that_are_none_fix_nothing(limits: dict[str, str] | None) -> None:
    assert not resizing.is_fixed({"requests": limits, "limits": limits})

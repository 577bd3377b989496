"""updateResource of pods whose cpu limit came from a LimitRange, or whose class of quality of service stays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tools.testkit.gateway.harness import Harness, engine_item

Make = Callable[..., Awaitable[Harness]]


@pytest.fixture
async def gw(make: Make) -> Harness:
    return await make()


def running(gw: Harness, cpu: str, cpu_limit: str) -> dict[str, Any]:
    """An engine of that size. Its plugin gives no cpu limit."""
    limits = {"memory": "1Gi"} | ({"cpu": cpu_limit} if cpu_limit else {})
    resources = {"requests": {"cpu": cpu, "memory": "1Gi"}, "limits": limits}
    qos = "Guaranteed" if cpu == cpu_limit else "Burstable"
    pod = {
        "metadata": {"name": "a-0"},
        "spec": {"containers": [{"name": "engine", "image": "i", "resources": resources}]},
        "status": {"qosClass": qos, "containerStatuses": [{"name": "engine", "resources": resources}]},
    }
    gw.cluster.put(engine_item(name="a", spec={"user": "bob"}, status={"podName": "a-0"}))
    gw.cluster.other_pods["pods", "a-0"] = pod
    return pod


async def update(gw: Harness, **resources: str) -> Any:
    uid = gw.cluster.items["linkis", "a"]["metadata"]["uid"]
    return await gw.post("updateResource", {"engineId": uid, "resources": resources}, user="root")


def resizes(gw: Harness) -> int:
    return [verb for verb, _, _ in gw.cluster.writes].count("patch pods/resize")


@pytest.mark.parametrize(
    ("had", "asked", "words"),
    [
        (
            ("500m", "2"),
            {"cpu": "2"},
            "with cpu 2 and the cpu limit 2 its pod would be Guaranteed in place of Burstable",
        ),
        (("500m", "2"), {"cpu": "3"}, "cpu 3 is over the cpu limit 2 that its pod has"),
        (("500m", "500m"), {"cpu": "250m"}, "would be Burstable in place of Guaranteed"),
        (("500m", ""), {"cpu": "2", "cpuLimit": "2"}, "would be Guaranteed in place of Burstable"),
    ],
)
async def test_what_kubernetes_never_takes_is_said_with_the_fields(
    gw: Harness, had: tuple[str, str], asked: dict[str, str], words: str
) -> None:
    running(gw, *had)
    answer = await update(gw, **asked)
    assert answer.http == 400, answer.raw
    assert words in answer.message
    assert "Give resources.cpu and resources.cpuLimit that keep to that" in answer.message
    assert gw.cluster.writes == []


@pytest.mark.parametrize(
    ("had", "asked", "cpu_limit"),
    [
        (("500m", "2"), {"cpu": "1"}, "2"),
        (("500m", "2"), {"memory": "2Gi"}, "2"),
        (("500m", "2"), {"cpu": "2", "cpuLimit": "3"}, "3"),
        (("500m", ""), {"cpu": "2"}, None),
    ],
)
async def test_a_limit_of_a_limit_range_stays(
    gw: Harness, had: tuple[str, str], asked: dict[str, str], cpu_limit: str | None
) -> None:
    """Kubernetes refuses a resize that takes a limit away."""
    pod = running(gw, *had)
    cpu, amount = asked.get("cpu", "500m"), asked.get("memory", "1Gi")
    # The kubelet has given it by the time that it is asked.
    limits = {"memory": amount} | ({"cpu": cpu_limit} if cpu_limit else {})
    pod["status"]["containerStatuses"][0]["resources"] = {"requests": {"cpu": cpu, "memory": amount}, "limits": limits}
    answer = await update(gw, **asked)
    assert answer.http == 200, answer.raw
    assert resizes(gw) == 1
    assert pod["spec"]["containers"][0]["resources"] == pod["status"]["containerStatuses"][0]["resources"]

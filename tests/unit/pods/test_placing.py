"""What a pod takes beside its engine's container, and which nodes it may use."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from linkis_ecm.engine.placing import beside, placing

MI = 1024**2
TAINT = {"key": "gpu", "value": "a100", "effect": "NoSchedule"}


def container(cpu: str = "", memory: str = "", *, limit: str = "", name: str = "x", **more: Any) -> dict[str, Any]:
    requests = {key: value for key, value in (("cpu", cpu), ("memory", memory)) if value}
    return {"name": name, "resources": {"requests": requests, "limits": {"cpu": limit} if limit else {}}} | more


ENGINE = container("1", "1Gi", name="engine")


@pytest.mark.parametrize(
    ("spec", "cpu", "memory"),
    [
        ({"containers": [ENGINE]}, None, None),
        ({"containers": [ENGINE, container("250m", "64Mi")]}, "0.25", 64),
        # A limit without a request, and one that is no amount.
        ({"containers": [ENGINE, container(limit="500m"), container("much")]}, "0.5", 0),
        ({"containers": [ENGINE], "initContainers": [container("250m", restartPolicy="Always")]}, "0.25", 0),
        # An init container is gone when the engine runs, but its peak counts.
        ({"containers": [ENGINE], "initContainers": [container("500m")]}, "0", 0),
        (
            {"containers": [ENGINE], "initContainers": [container("1", restartPolicy="Always"), container("3")]},
            "3",
            0,
        ),
        ({"containers": [ENGINE], "overhead": {"cpu": "100m", "memory": "8Mi"}}, "0.1", 8),
        ({"containers": [ENGINE], "resources": {"requests": {"cpu": "3", "memory": "2Gi"}}}, "2", 1024),
    ],
)
def test_all_containers_of_a_pod_count(spec: dict[str, Any], cpu: str | None, memory: int | None) -> None:
    found = beside(spec)
    assert found.get("cpu") == (Decimal(cpu) if cpu is not None else None)
    assert found.get("memory") == (memory * MI if memory is not None else None)


def required(*expressions: dict[str, Any]) -> dict[str, Any]:
    terms = {"nodeSelectorTerms": [{"matchExpressions": [one]} for one in expressions]}
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}


@pytest.mark.parametrize(
    ("spec", "labels", "taints", "may"),
    [
        ({}, {}, [], True),
        ({"nodeSelector": {"zone": "b"}}, {"zone": "a"}, [], False),
        ({"nodeSelector": {"zone": "b"}}, {}, [], False),
        ({"nodeSelector": {"zone": "b"}}, {"zone": "b"}, [], True),
        (required({"key": "zone", "operator": "In", "values": ["a", "b"]}), {"zone": "b"}, [], True),
        (required({"key": "zone", "operator": "In", "values": ["a"]}), {"zone": "b"}, [], False),
        (required({"key": "zone", "operator": "NotIn", "values": ["b"]}), {"zone": "b"}, [], False),
        (required({"key": "gpu", "operator": "Exists"}), {"zone": "b"}, [], False),
        (required({"key": "gpu", "operator": "DoesNotExist"}), {"zone": "b"}, [], True),
        (required({"key": "cores", "operator": "Gt", "values": ["9"]}), {"cores": "4"}, [], True),
        # One of several terms is enough.
        (
            required({"key": "gpu", "operator": "Exists"}, {"key": "zone", "operator": "Exists"}),
            {"zone": "b"},
            [],
            True,
        ),
        ({}, {}, [TAINT], False),
        ({}, {}, [TAINT | {"effect": "PreferNoSchedule"}], True),
        ({"tolerations": [{"operator": "Exists"}]}, {}, [TAINT], True),
        ({"tolerations": [{"key": "gpu", "operator": "Exists"}]}, {}, [TAINT], True),
        ({"tolerations": [{"key": "gpu", "value": "a100"}]}, {}, [TAINT], True),
        ({"tolerations": [{"key": "gpu", "value": "h100"}]}, {}, [TAINT], False),
        ({"tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}]}, {}, [TAINT], False),
    ],
)
def test_a_node_lets_a_pod_in_by_its_labels_and_taints(
    spec: dict[str, Any], labels: dict[str, str], taints: list[dict[str, str]], may: bool
) -> None:
    assert placing(spec).may_use(labels, taints) is may

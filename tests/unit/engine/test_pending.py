"""Which changes of a spec wait for the engine's next pod: not those that the pod itself has by a resize."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from linkis_ecm.engine.pending import FIELDS, digests, pending
from linkis_ecm.model.engineconn import EngineConnSpec
from tests.unit.engine.snapshots import engine, pod


def made_from(**spec: Any) -> dict[str, str]:
    found = engine(**spec).spec
    assert found is not None
    return digests(found)


@pytest.mark.parametrize(
    ("sizes", "waits"),
    [
        ({"memory_limit": "2Gi", "cpu_request": "500m", "cpu_limit": "1"}, False),
        ({"memory_limit": "2048Mi", "cpu_request": "0.5", "cpu_limit": "1000m"}, False),
        ({"memory_limit": "1Gi", "cpu_request": "500m", "cpu_limit": "1"}, True),
        ({"memory_limit": "2Gi", "cpu_request": "250m", "cpu_limit": "1"}, True),
        ({"memory_limit": "2Gi", "cpu_request": "500m", "cpu_limit": "2"}, True),
        ({"memory_limit": "2Gi", "cpu_request": "500m", "cpu_limit": ""}, True),
    ],
)
def test_a_pod_that_was_resized_has_the_change(sizes: dict[str, str], waits: bool) -> None:
    wanted = engine(resources={"cpu": "500m", "cpuLimit": "1", "memory": "2Gi"})
    before = made_from(resources={"cpu": "100m", "memory": "1Gi"})
    assert bool(pending(wanted, pod(made_from=before, **sizes))) == waits


def test_a_pod_of_an_earlier_release_and_no_pod_say_nothing() -> None:
    wanted = engine(resources={"memory": "2Gi"})
    assert pending(wanted, None) == pending(wanted, pod()) == ""


def test_all_fields_are_named_in_one_sentence() -> None:
    wanted = engine(
        volumes=[{"name": "s", "emptyDir": {"sizeLimit": "1Mi"}, "mountPath": "/s"}],
        podTemplate={"spec": {"nodeSelector": {"disk": "ssd"}}},
    )
    assert pending(wanted, pod(made_from=made_from())).startswith("spec.volumes and spec.podTemplate changed after")


def test_digests_are_those_of_earlier_releases() -> None:
    """They are on pods that live; another digest of the same field would say that it waits for a next pod."""
    said = {
        "engineType": "python", "user": "ada", "env": [{"name": "A", "value": "b"}], "resources": {"cpu": "2"},
        "workingDir": "/tmp/x", "podTemplate": {"spec": {"nodeSelector": {"zone": "a" * 300}}},
    }  # fmt: skip
    spec = EngineConnSpec.model_validate(said)
    whole = spec.model_dump(by_alias=True, exclude_none=True, mode="json")
    before = {
        name: hashlib.sha256(json.dumps(whole.get(name), sort_keys=True).encode()).hexdigest()[:16] for name in FIELDS
    }
    assert digests(spec) == before
    assert len(set(before.values())) == len(FIELDS)

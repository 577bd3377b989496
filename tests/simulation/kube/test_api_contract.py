"""The API contract of `tools.testkit.contract` on the fake API server; e2e holds it on the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from linkis_ecm.kube.client import KubeClient
from linkis_ecm.kube.resources import CONFIGMAPS, ENGINECONNS, LEASES, PODS
from tools.testkit.contract import BEHAVIOURS
from tools.testkit.fakes.apiserver import FakeApiServer

pytestmark = pytest.mark.looptime


@pytest.fixture
async def client() -> AsyncIterator[KubeClient]:
    server = FakeApiServer()
    yield server.client()
    left = [item for resource in (CONFIGMAPS, ENGINECONNS, LEASES, PODS) for item in server.cluster.all(resource)]
    server.cluster.close()
    assert not left, "a behaviour cleans up after itself"


@pytest.mark.parametrize("name", BEHAVIOURS)
async def test_the_api_behaves(client: KubeClient, name: str) -> None:
    await BEHAVIOURS[name](client, "engines")

"""The API contract of `tools.testkit.contract` on the real API server; the simulation holds the fake to it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from linkis_ecm.kube.client import KubeClient
from tools.cluster.tools import kubeconfig
from tools.testkit.cluster import kubectl
from tools.testkit.cluster.installation import OURS, RELEASE
from tools.testkit.contract import BEHAVIOURS

OPERATOR = f"{RELEASE}-operator"

# The first one's time has an operator's end and the CRDs' beginning in it.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
CRDS = Path(__file__).parents[2] / "crds"


def watches_every_namespace(home: str) -> bool:
    """Whether a release there has an operator that would act on what the contract's tests make."""
    name = kubectl.must("get", "deployment", OPERATOR, "-n", home, "--ignore-not-found", "-o", "name").strip()
    if not name:
        return False
    (found,) = kubectl.get("deployment", OPERATOR, "-n", home)["spec"]["template"]["spec"]["containers"]
    return not next(env for env in found["env"] if env["name"] == "ECM_WATCH_NAMESPACES").get("value")


@pytest.fixture(scope="module")
def no_operator() -> Iterator[None]:
    """An operator that watches every namespace rests, so that the API server is alone."""
    resting = []
    for home in OURS:
        if not watches_every_namespace(home):
            continue
        resting.append(home)
        kubectl.must("scale", f"deployment/{OPERATOR}", "-n", home, "--replicas=0")
        kubectl.must("wait", "pod", "-n", home, "-l", "linkis.apache.org/operator=true", "--for=delete",
                     "--timeout=90s")  # fmt: skip
    yield
    for home in resting:
        kubectl.must("scale", f"deployment/{OPERATOR}", "-n", home, "--replicas=1")
        kubectl.must("rollout", "status", "-n", home, f"deployment/{OPERATOR}", "--timeout=120s", seconds=150)


@pytest.fixture(scope="module")
def namespace(no_operator: None) -> Iterator[str]:
    # Those that a release has installed are helm's, and are left as they are.
    if kubectl.run("get", "-f", str(CRDS)).code:
        kubectl.must("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
    kubectl.must("wait", "--for=condition=Established", "-f", str(CRDS), "--timeout=60s")
    name = f"ecm-contract-{uuid.uuid4().hex[:6]}"
    kubectl.must("create", "namespace", name)
    # Pods are refused until their namespace has one.
    kubectl.must("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=60s")
    yield name
    kubectl.must("delete", "namespace", name, "--wait=false")


@pytest.fixture
async def client() -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(str(kubeconfig())) as made:
        yield made


@pytest.mark.parametrize("name", BEHAVIOURS)
async def test_the_api_behaves(client: KubeClient, namespace: str, name: str) -> None:
    await BEHAVIOURS[name](client, namespace)

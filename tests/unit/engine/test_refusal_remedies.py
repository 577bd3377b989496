"""Who can mend what the API server or the kubelet refuses: the remedy names the field and its owner."""

from __future__ import annotations

from typing import Any

import pytest

from linkis_ecm.controller.pods import refusals
from linkis_ecm.engine import restart
from linkis_ecm.engine.causes.start_problems import eviction_of_events, problem_of_events
from linkis_ecm.engine.causes.verdicts import evicted, verdict_of_ended_pod
from linkis_ecm.engine.pod_view import pod_view
from linkis_ecm.engine.warm import problems
from linkis_ecm.kube.errors import Forbidden
from linkis_ecm.model import reasons
from tests.unit.engine.snapshots import engine, snapshot


def refused(words: str) -> str:
    return refusals.of_forbidden(Forbidden(403, "Forbidden", words), []).message


def test_a_service_account_that_the_plugin_names_is_the_platforms_to_create() -> None:
    words = 'pods "e" is forbidden: error looking up service account team-a/{0}: serviceaccount "{0}" not found'
    told = refused(words.format("s3-reader"))
    assert "ask the platform to create the ServiceAccount s3-reader in the namespace team-a" in told
    assert "EngineConnPlugin" in told
    assert "soon after the namespace" not in told
    assert "soon after the namespace" in refused(words.format("default"))


@pytest.mark.parametrize(
    "words",
    [
        'pods "e" is forbidden: no PriorityClass with name fast was found',
        'pods "e" is forbidden: pod rejected: RuntimeClass "gvisor" not found',
    ],
)
def test_a_class_that_is_not_there_is_a_cluster_admins_to_create(words: str) -> None:
    told = refused(words)
    assert "Have a cluster admin create that" in told
    assert "the EngineConnPlugin's, which is the platform's" in told


OF_A_POOL = {
    "failed quota: q: must specify limits.cpu for: engine": "Set defaultResources.cpuLimit of the EngineConnPlugin.",
    "failed quota: q: must specify requests.nvidia.com/gpu for: engine": "Set defaultResources.extended of the",
    "failed quota: q: must specify limits.ephemeral-storage for: engine": "Have a LimitRange in the namespace give a",
    "minimum cpu usage per Container is 200m, but request is 50m": "Set warmPool.resources.cpu (defaultResources.cpu",
    "maximum cpu usage per Container is 1.  No limit is specified": "and defaultResources.cpuLimit within",
    "maximum memory usage per Pod is 1Gi, but limit is 2Gi": "Set warmPool.resources.memory (defaultResources.memory",
    "no PriorityClass with name fast was found": "Have a cluster admin create that PriorityClass",
    "namespace team-a because it is being terminated": "take it out of warmPool.namespaces",
    "exceeded quota: q, requested: cpu=1, used: cpu=1, limited: cpu=1": "Lower spec.warmPool.size",
}


@pytest.mark.parametrize("words", OF_A_POOL)
def test_a_pool_is_told_what_its_plugin_can_change(words: str) -> None:
    verdict = refusals.of_forbidden(Forbidden(403, "Forbidden", f'pods "m" is forbidden: {words}'), [])
    told = problems.of_verdict(verdict).message
    assert OF_A_POOL[words] in told
    assert words in told
    # An engine's fields are nobody's here.
    assert "spec.resources" not in told
    assert "create the engine" not in told


def test_a_volume_of_the_plugin_is_not_the_engines_to_correct() -> None:
    def told(volume: str) -> str:
        note = f'MountVolume.SetUp failed for volume "{volume}" : secret "x" not found'
        found = problem_of_events([{"type": "Warning", "reason": "FailedMount", "note": note}])
        assert found is not None
        return found.message

    assert "The EngineConnPlugin's volumes give it (models), so ask the platform" in told("plugin-models")
    assert "ask the platform" not in told("user-models")


# The kubelet's forms (pkg/kubelet/eviction/helpers.go), each of its own making.
OWN = (
    'Usage of EmptyDir volume "tmp" exceeds the limit "4Gi". ',
    "Pod ephemeral local storage usage exceeds the total limit of containers 8256Mi. ",
    'Container engine exceeded its local ephemeral storage limit "8256Mi". ',
    'Container shipper exceeded its local ephemeral storage limit "1Gi". ',
)
NODES = (
    "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 900Mi. Container engine was"
    " using 3Gi, request is 0, has larger consumption of ephemeral-storage. ",
    "The node was low on resource: memory. Container engine was using 9Gi, request is 512Mi, has larger consumption of"
    " memory. ",
    "The node was low on resource: inodes. ",
    "The node had condition: [DiskPressure]. ",
    "Pod was rejected: The node had condition: [DiskPressure]. ",
)


def by_status(words: str) -> dict[str, Any]:
    return {"phase": "Failed", "reason": "Evicted", "message": words}


def by_condition(words: str) -> dict[str, Any]:
    target = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": words}
    return {"phase": "Failed", "conditions": [target]}


@pytest.mark.parametrize("words", [*OWN, *NODES])
@pytest.mark.parametrize("place", [by_status, by_condition])
def test_one_rule_for_evictions_wherever_the_words_stand(words: str, place: Any) -> None:
    """What the pod did to itself is not repeated by OnInfrastructureFailure; what the node lacked is."""
    meta = {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "1"}
    _, verdict = verdict_of_ended_pod(
        pod_view({"metadata": meta, "status": place(words)}), None, was_ready=True, once=False
    )  # fmt: skip
    own = words in OWN
    assert verdict.reason is (reasons.STORAGE_EXCEEDED if own else reasons.EVICTED)
    by_event = eviction_of_events([{"reason": "Evicted", "note": words}])
    assert by_event is not None
    assert by_event.reason is verdict.reason
    for policy, again in (("OnInfrastructureFailure", not own), ("OnFailure", True), ("Never", False)):
        asked = snapshot(engine=engine(restartPolicy={"type": policy}))
        assert restart.allowed(verdict, asked) is again, policy


def test_a_container_beside_the_engine_that_filled_its_disk_is_named_with_who_raises_its_limit() -> None:
    told = evicted('Container shipper exceeded its local ephemeral storage limit "1Gi". ').message
    assert "It is the container shipper, which the EngineConnPlugin or an admission policy puts beside" in told
    assert "Write less to /tmp" not in told
    assert "Write less to /tmp" in evicted('Container engine exceeded its local ephemeral storage limit "1Gi".').message

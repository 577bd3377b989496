"""What a pool says of a pod that has ended: the pod, its node, Kubernetes's own words, and a remedy that fits."""

from __future__ import annotations

from typing import Any

import pytest

from linkis_ecm.engine.causes.member_ends import end_of_member
from linkis_ecm.engine.pod_view import ContainerView, Terminated
from linkis_ecm.engine.warm import problems
from tests.unit.warm.test_warm_sizing import pod

REJECTED = "Pod was rejected: "
MEMORY = "spec.warmPool.resources.memory"


def told(**changes: Any) -> str:
    return problems.of_end(pod("m1", ready=False, **({"node": "n1", "phase": "Failed"} | changes))).message


@pytest.mark.parametrize(
    ("reason", "message", "helps"),
    [
        ("OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 110, capacity: 110", "was full"),
        ("OutOfcpu", "Node didn't have enough resource: cpu, requested: 500, used: 7900, capacity: 8000", "was full"),
        ("OutOfmemory", "Node didn't have enough resource: memory, requested: 1, used: 2, capacity: 2", "was full"),
        ("OutOfnvidia.com/gpu", "Node didn't have enough resource: nvidia.com/gpu", "was full"),
        ("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector", "labels"),
        ("TaintToleration", "Predicate TaintToleration failed: node(s) had untolerated taint", "tolerate"),
        ("Evicted", "The node had condition: [DiskPressure].", "lacks memory, disk"),
        ("Evicted", "The node was low on resource: memory.", "lacks memory, disk"),
        ("UnexpectedAdmissionError", "Allocate failed due to no healthy devices present", "device plugins"),
        ("TopologyAffinityError", "Resources cannot be allocated with Topology locality", "device plugins"),
        ("Preempting", "Preempted in order to admit critical pod", "priorityClassName"),
        ("NodeShutdown", "Pod was rejected as the node is shutting down.", "other nodes"),
        ("SysctlForbidden", "forbidden sysctl", "log of its kubelet"),
    ],
)
def test_a_pod_that_its_kubelet_ends_is_named_with_its_words(reason: str, message: str, helps: str) -> None:
    said = told(reason=reason, message=REJECTED + message)
    assert "It is m1 on node n1." in said
    assert reason in said
    assert message in said
    assert helps in said
    assert "he engine" not in said
    assert MEMORY not in said


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"terminated": Terminated("OOMKilled", 137, 0, "", None)}, ["more memory than its limit", MEMORY]),
        ({"terminated": Terminated("Error", 3, 0, "no module", None)}, ["exit code was 3", "no module", MEMORY]),
        ({"terminated": Terminated("Error", 137, 0, "", None)}, ["killed by signal 9", MEMORY, "pod's node"]),
        ({"terminated": Terminated("StartError", 128, 0, "exec: no such file", None)}, ["no such file", "command"]),
        ({"terminated": Terminated("ContainerStatusUnknown", 137, 0, "", None)}, ["does not answer", "see that node"]),
        (
            {"others": (ContainerView(name="mesh", init=True, terminated=Terminated("Error", 1, 0, "", None)),)},
            ["init container mesh", "podTemplate"],
        ),
        (
            {"reason": "DeadlineExceeded", "message": "too long", "terminated": Terminated("Error", 1, 0, "", None)},
            ["DeadlineExceeded: too long", "exit code was 1"],
        ),
        ({}, ["Its container did not run", "kubectl describe node"]),
    ],
)
def test_other_ends_have_words_of_a_pod_as_well(changes: dict[str, Any], parts: list[str]) -> None:
    said = told(**changes)
    assert "It is m1 on node n1." in said
    assert [part for part in parts if part.lower() not in said.lower()] == []
    assert "he engine" not in said
    assert "engine's" not in said


def test_each_reason_of_an_end_has_words_of_the_pool() -> None:
    ends = [told(reason=reason) for reason in ("Evicted", "Preempting", "NodeShutdown", "NodeLost", "Unheard")]
    ends.append(told(reason="Evicted", message="Usage of EmptyDir volume exceeds the limit"))
    assert [one for one in ends if "he engine" in one] == []
    assert all("It is m1 on node n1." in one for one in ends)


def test_words_without_end_leave_the_pod_and_the_remedy() -> None:
    said = told(reason="OutOfcpu", message="x" * 5000, node="n" * 253)
    assert len(said) <= problems.MESSAGE_MAX
    assert "It is m1 on node nnn" in said
    assert "OutOfcpu" in said
    assert said.endswith("lower spec.warmPool.size.")


def test_a_pod_without_a_node_names_none() -> None:
    details, _ = end_of_member(pod("m1", ready=False, phase="Failed", node=""))
    assert details.startswith("It is m1. ")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (
            {"waiting_reason": "CreateContainerConfigError", "waiting_message": 'secret "token" not found'},
            'CreateContainerConfigError: secret "token" not found',
        ),
        (
            {"others": (ContainerView(name="mesh", init=True, waiting_reason="CrashLoopBackOff"),)},
            "It is the init container mesh.",
        ),
        (
            {"others": (ContainerView(name="proxy", waiting_reason="CreateContainerError", waiting_message="x"),)},
            "It is the sidecar container proxy.",
        ),
    ],
)
def test_a_container_that_cannot_start_is_the_kubelets_word_and_no_engines(changes: dict[str, Any], part: str) -> None:
    found = problems.of_start(pod("m1", ready=False, node="n1", **changes))
    assert found is not None
    assert found.reason is problems.CANNOT_START
    assert part in found.message
    assert "he engine" not in found.message
    assert "API server" not in found.message
    assert problems.of_overdue(pod("m1", ready=False, node="n1", **changes)) == found

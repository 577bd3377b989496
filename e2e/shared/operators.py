"""The operator's pod and its death, for the tests that kill it. Must not wait for engines."""

from __future__ import annotations

from typing import Any

from tools.cluster.tools import backend
from tools.testkit.cluster import kubectl, processes
from tools.testkit.cluster.waiting import RELEASE_NAMESPACE, gateway_pods, is_ready, operator_pods, until_holds

# On two busy cores: a kubelet's look at ended containers, a new container or pod, and two Python processes that start.
BACK_SECONDS = 120


def operator_pod() -> dict[str, Any]:
    """The one pod of the operator, once there is one: what deletes a pod does not make the next."""
    (found,) = until_holds("one operator pod", operator_pods, lambda pods: len(pods) == 1, BACK_SECONDS)
    pod: dict[str, Any] = found
    return pod


def gateway_pod() -> dict[str, Any]:
    """The one pod of the gateway, once there is one and it is ready."""
    (found,) = until_holds(
        "one ready gateway pod", gateway_pods, lambda pods: len(pods) == 1 and is_ready(pods[0]), BACK_SECONDS
    )
    pod: dict[str, Any] = found
    return pod


def container(pod: dict[str, Any]) -> dict[str, Any]:
    """The status of the operator's container; {} where the kubelet has not told of it yet."""
    statuses = pod["status"].get("containerStatuses", [])
    found: dict[str, Any] = next((s for s in statuses if s["name"] == "operator"), {})
    return found


def restarts() -> int:
    return int(container(operator_pod()).get("restartCount", 0))


def renew_operator() -> None:
    """A new pod where the operator was killed before: the kubelet waits ever longer, up to minutes, before it starts a
    container that was killed again. A ready one in any case."""
    old = operator_pod()["metadata"]
    if restarts():
        kubectl.must("delete", "pod", old["name"], "-n", RELEASE_NAMESPACE, "--wait=true", "--timeout=90s")
        # Not `rollout status`: the Deployment's own status may still count the pod that is gone.
        until_holds("a new operator pod", operator_pod, lambda pod: pod["metadata"]["uid"] != old["uid"], BACK_SECONDS)
    until_holds("the operator's pod is ready", operator_pod, is_ready, BACK_SECONDS)


def kill_operator() -> None:
    """kill -9 where processes can be seen, else the pod is deleted without grace; returns when the next one runs."""
    pod = operator_pod()
    if backend() == "node":
        before = int(container(pod).get("restartCount", 0))
        assert processes.kill(pod["metadata"]["uid"], b"linkis_ecm operator") == 1
        until_running_again(before)
    else:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        kubectl.must("delete", "pod", name, "-n", RELEASE_NAMESPACE, "--grace-period=0", "--force")
        until_holds("a new operator pod", operator_pod, lambda pod: pod["metadata"]["uid"] != uid, BACK_SECONDS)


def until_running_again(before: int) -> None:
    """The operator's container was started more than so many times, and runs: a count rises before its process is."""

    def holds(seen: dict[str, Any]) -> bool:
        return int(seen.get("restartCount", 0)) > before and "running" in seen["state"]

    until_holds("the operator's container runs again", lambda: container(operator_pod()), holds, BACK_SECONDS)
